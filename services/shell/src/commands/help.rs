//! `help`.

use super::{COMMANDS, Command, Context, Failure, find};
use crate::{host::Host, terminal::Style};
use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

/// The command.
pub struct Help;

impl Command for Help {
    fn name(&self) -> &'static str {
        "help"
    }

    fn summary(&self) -> &'static str {
        "list the commands, or explain one"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["help", "help COMMAND"]
    }

    fn help(&self) -> &'static str {
        "Without an argument, lists all commands with a line each. With one, explains that command and shows its forms. `COMMAND --help` does the same."
    }

    fn complete(&self, _host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        if before.is_empty() {
            COMMANDS.iter().map(|command| command.name().to_owned()).collect()
        } else {
            Vec::new()
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => {
                context.out.styled_line(Style::Heading, "Commands");
                for command in COMMANDS {
                    context.out.line(&format!("  {:<10}{}", command.name(), command.summary()));
                }
                context.out.text("\n");
                context.out.prose(
                    "`help COMMAND` explains one. Tab completes commands and names, the arrows recall lines, Ctrl-R searches them, Ctrl-C gives a line or a running command up.",
                    0,
                );
                Ok(())
            }
            [name] => explain(context, find(name)?),
            _ => Err(Failure::usage(self, "`help` takes one command")),
        }
    }
}

/// Shows a command's forms and help.
pub fn explain(context: &mut Context<'_>, command: &dyn Command) -> Result<(), Failure> {
    context
        .out
        .styled_line(Style::Heading, &format!("{} - {}", command.name(), command.summary()));
    context.out.text("\n");
    for form in command.usage() {
        context.out.line(&format!("  {form}"));
    }
    context.out.text("\n");
    context.out.prose(command.help(), 0);
    Ok(())
}
