//! `uptime`.

use super::{Command, Context, Doing, Failure, no_arguments};
use crate::format;

/// The command.
pub struct Uptime;

impl Command for Uptime {
    fn name(&self) -> &'static str {
        "uptime"
    }

    fn summary(&self) -> &'static str {
        "show how long the machine has run, and the time"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["uptime"]
    }

    fn help(&self) -> &'static str {
        "Shows how long ago the kernel was started, and date and time (UTC) by the clock that was read then."
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        no_arguments(self, arguments)?;
        let system = context.host.system().doing("read about the system")?;
        let up = format::nanoseconds(context.host.now().saturating_sub(system.boot_tsc), system.tsc_hz);
        context.out.line(&alloc::format!("Up {}", format::duration(up)));
        if system.wall_clock != 0 {
            let now = system.wall_clock.saturating_add(up / 1_000_000_000);
            context.out.line(&alloc::format!("Now {}", format::date(now)));
        }
        Ok(())
    }
}
