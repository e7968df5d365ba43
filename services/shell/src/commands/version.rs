//! `version`.

use super::{Command, Context, Doing, Failure, no_arguments};
use alloc::format;

/// The command.
pub struct Version;

impl Command for Version {
    fn name(&self) -> &'static str {
        "version"
    }

    fn summary(&self) -> &'static str {
        "show the versions of the system"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["version"]
    }

    fn help(&self) -> &'static str {
        "Shows the product with its version, the version of the kernel interface, and the command line that the boot loader gave to the kernel."
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        no_arguments(self, arguments)?;
        let system = context.host.system().doing("read about the system")?;
        context.out.line(&system.product);
        context.out.line(&format!(
            "kernel interface {}, shell {}",
            system.abi_version,
            env!("CARGO_PKG_VERSION")
        ));
        if !system.command_line.is_empty() {
            context.out.prose(&format!("kernel command line: {}", system.command_line), 2);
        }
        Ok(())
    }
}
