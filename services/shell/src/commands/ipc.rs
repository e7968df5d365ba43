//! `ipc`: endpoints.

use super::{Command, Context, Doing, Failure, no_arguments};
use crate::{
    format,
    table::{Align, Table},
    terminal::Style,
};
use alloc::string::ToString;

/// The command.
pub struct Ipc;

impl Command for Ipc {
    fn name(&self) -> &'static str {
        "ipc"
    }

    fn summary(&self) -> &'static str {
        "show endpoints, calls and latency"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["ipc"]
    }

    fn help(&self) -> &'static str {
        "Lists the named endpoints: who serves them, how many calls they took, how many callers and receivers wait now. LATENCY is the mean time from call to reply; it is measured while tracing is on (`trace on call`)."
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        no_arguments(self, arguments)?;
        let system = context.host.system().doing("read about the system")?;
        let endpoints = context.host.endpoints().doing("list endpoints")?;
        let mut table = Table::new(&[
            ("ENDPOINT", Align::Flexible),
            ("SERVER", Align::Flexible),
            ("CALLS", Align::Right),
            ("CALLERS", Align::Right),
            ("RECEIVERS", Align::Right),
            ("LATENCY", Align::Right),
        ]);
        for endpoint in endpoints {
            let latency = endpoint.latency_ticks.checked_div(endpoint.latency_count);
            // Callers that nobody is there to hear deserve a look.
            let stuck = endpoint.callers_waiting > 0 && endpoint.receivers_waiting == 0;
            table.styled_row(
                if stuck { Style::Warning } else { Style::Plain },
                [
                    endpoint.name,
                    if endpoint.provider.is_empty() {
                        "-".into()
                    } else {
                        endpoint.provider
                    },
                    format::count(endpoint.calls),
                    endpoint.callers_waiting.to_string(),
                    endpoint.receivers_waiting.to_string(),
                    latency.map_or("-".into(), |ticks| format::duration(format::nanoseconds(ticks, system.tsc_hz))),
                ],
            );
        }
        table.print(&mut context.out);
        if context.memory.trace_mask == 0 {
            context
                .out
                .styled_line(Style::Faint, "Latency is measured while tracing is on: `trace on call reply`.");
        }
        Ok(())
    }
}
