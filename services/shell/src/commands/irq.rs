//! `irq`: interrupts.

use super::{Command, Context, Doing, Failure, no_arguments};
use crate::{
    format,
    table::{Align, Table},
    terminal::Style,
};
use alloc::string::ToString;

/// The command.
pub struct Irq;

/// More vectors than a processor has.
const MAX_VECTORS: u32 = 8192;

impl Command for Irq {
    fn name(&self) -> &'static str {
        "irq"
    }

    fn summary(&self) -> &'static str {
        "show interrupts and their counts"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["irq"]
    }

    fn help(&self) -> &'static str {
        "Lists the interrupts that servers have taken: the line of the I/O APIC, or MSI for message-signalled ones, the processor, the count, and whether the source is masked until its server acknowledges it."
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        no_arguments(self, arguments)?;
        let mut table = Table::new(&[
            ("IRQ", Align::Right),
            ("SOURCE", Align::Left),
            ("CPU", Align::Right),
            ("COUNT", Align::Right),
            ("STATE", Align::Left),
        ]);
        for index in 0..MAX_VECTORS {
            let Some(irq) = context.host.irq(index).doing("ask the kernel about interrupts")? else {
                break;
            };
            if !irq.used {
                continue;
            }
            table.row([
                index.to_string(),
                irq.line.map_or("MSI".into(), |line| alloc::format!("line {line}")),
                irq.cpu.to_string(),
                format::count(irq.count),
                if irq.masked { "masked" } else { "open" }.into(),
            ]);
        }
        if table.is_empty() {
            context.out.styled_line(Style::Faint, "No server has taken an interrupt.");
        } else {
            table.print(&mut context.out);
        }
        Ok(())
    }
}
