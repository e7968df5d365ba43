//! `reboot` and `poweroff`.

use super::{Command, Context, Doing, Failure, words};
use crate::host::{Host, Reset};
use alloc::{format, string::String, vec::Vec};
use tessera_proto::vm_manager::VmState;

/// The command that restarts the machine.
pub struct Reboot;

/// The command that switches it off.
pub struct PowerOff;

/// Refuses while virtual machines run.
fn ready(context: &mut Context<'_>, command: &str) -> Result<(), Failure> {
    // If init does not answer, that is a reason to restart and not one to refuse it.
    let Ok(machines) = context.host.vms() else { return Ok(()) };
    let running: Vec<String> = machines
        .into_iter()
        .filter(|vm| vm.state == VmState::Running)
        .map(|vm| vm.name)
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    let (noun, verb) = if running.len() == 1 {
        ("machine", "runs")
    } else {
        ("machines", "run")
    };
    Err(Failure::new(
        format!("{} virtual {noun} still {verb}: {}", running.len(), running.join(", ")),
        format!("`vm stop` them, or `{command} -f` ends them as if their power failed."),
    ))
}

fn complete(before: &[&str], list: &[&str]) -> Vec<String> {
    if before.is_empty() { words(list) } else { Vec::new() }
}

impl Command for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    fn summary(&self) -> &'static str {
        "restart the machine"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["reboot [-f]", "reboot panic"]
    }

    fn help(&self) -> &'static str {
        "Restarts the machine at once. While virtual machines run it refuses unless -f is given: they would end as if their power failed.\n`reboot panic` makes the kernel panic, for trying that its panic record survives the restart; `log panic` shows it afterwards."
    }

    fn complete(&self, _host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        complete(before, &["-f", "panic"])
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        let how = match arguments {
            [] => {
                ready(context, "reboot")?;
                Reset::Reboot
            }
            ["-f"] => Reset::Reboot,
            ["panic"] => Reset::Panic,
            _ => return Err(Failure::usage(self, "`reboot` takes -f or panic")),
        };
        context.out.line("Restarting the machine.");
        context.host.reset(how).doing("restart the machine")
    }
}

impl Command for PowerOff {
    fn name(&self) -> &'static str {
        "poweroff"
    }

    fn summary(&self) -> &'static str {
        "switch the machine off"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["poweroff [-f]"]
    }

    fn help(&self) -> &'static str {
        "Switches the machine off at once. While virtual machines run it refuses unless -f is given: they would end as if their power failed."
    }

    fn complete(&self, _host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        complete(before, &["-f"])
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => ready(context, "poweroff")?,
            ["-f"] => {}
            _ => return Err(Failure::usage(self, "`poweroff` takes -f")),
        }
        context.out.line("Switching the machine off.");
        context.host.reset(Reset::PowerOff).doing("switch the machine off")
    }
}
