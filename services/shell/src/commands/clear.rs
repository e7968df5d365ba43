//! `clear`.

use super::{Command, Context, Failure, no_arguments};

/// The command.
pub struct Clear;

impl Command for Clear {
    fn name(&self) -> &'static str {
        "clear"
    }

    fn summary(&self) -> &'static str {
        "clear the screen"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["clear"]
    }

    fn help(&self) -> &'static str {
        "Clears the screen, as Ctrl-L does while a line is edited. On a terminal that has not answered the question for its abilities at the start, it prints empty lines instead."
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        no_arguments(self, arguments)?;
        screen(context);
        Ok(())
    }
}

/// Clears the screen.
pub fn screen(context: &mut Context<'_>) {
    if context.out.is_styled() {
        context.out.terminal().write(b"\x1b[H\x1b[2J");
    } else {
        context.out.text(&"\n".repeat(24));
    }
}
