//! `restart`: starts a server anew.

use super::{Command, Context, Doing, Failure, server, server_names};
use crate::host::Host;
use alloc::{format, string::String, vec::Vec};

/// The command.
pub struct Restart;

impl Command for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn summary(&self) -> &'static str {
        "start a server anew, whatever its policy"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["restart SERVER"]
    }

    fn help(&self) -> &'static str {
        "Ends a server if it runs and starts it at once, without the pause that init makes after failures, also when its policy is to stay ended. Its clients' requests wait for the new instance."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        if before.is_empty() { server_names(host) } else { Vec::new() }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        let [name] = arguments else {
            return Err(Failure::usage(self, "`restart` takes one server"));
        };
        let server = server(context, name)?;
        if server.id == 0 {
            return Err(Failure::new(
                "init cannot be restarted: every server depends on it",
                "`reboot` restarts the machine.",
            ));
        }
        if server.name == context.host.own_name() {
            context.out.line("This ends the shell itself; init starts a new one.");
        }
        context.host.restart(name).doing(&format!("restart `{name}`"))?;
        context.out.line(&format!("{name} was started anew."));
        Ok(())
    }
}
