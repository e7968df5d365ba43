//! `kill`: ends a server.

use super::{Command, Context, Doing, Failure, server, server_names};
use crate::host::Host;
use alloc::{format, string::String, vec::Vec};

/// The command.
pub struct Kill;

impl Command for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn summary(&self) -> &'static str {
        "end a server; init starts it again"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["kill SERVER"]
    }

    fn help(&self) -> &'static str {
        "Ends a server as if it had failed: its memory and capabilities are taken back, calls in flight fail. What then happens is its policy in the system manifest: usually init starts it again, after a pause if it ends often. Ending the VMM of a virtual machine ends that machine alone."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        if before.is_empty() { server_names(host) } else { Vec::new() }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        let [name] = arguments else {
            return Err(Failure::usage(self, "`kill` takes one server"));
        };
        let server = server(context, name)?;
        if server.id == 0 {
            return Err(Failure::new(
                "init cannot be ended: every server depends on it",
                "`reboot` restarts the machine.",
            ));
        }
        if server.name == context.host.own_name() {
            context.out.line("This ends the shell itself; init starts a new one.");
        }
        context.host.kill(name).doing(&format!("end `{name}`"))?;
        context
            .out
            .line(&format!("{name} ended; `log -n 5` shows what init does about it."));
        Ok(())
    }
}
