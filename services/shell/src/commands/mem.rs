//! `mem`: where the memory is.

use super::{Command, Context, Doing, Failure, words};
use crate::{
    format,
    host::Host,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

/// The command.
pub struct Mem;

impl Command for Mem {
    fn name(&self) -> &'static str {
        "mem"
    }

    fn summary(&self) -> &'static str {
        "show where the memory is"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["mem", "mem check"]
    }

    fn help(&self) -> &'static str {
        "Shows where the machine's memory is, to the page; the parts add up to the total. LARGEST is the longest free run: a virtual machine's memory is made of as few as possible.\n`mem check` looks through the kernel's page tables for pages that are writable and executable. There must be none."
    }

    fn complete(&self, _host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        if before.is_empty() { words(&["check"]) } else { Vec::new() }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => memory(context),
            ["check"] => check(context),
            _ => Err(Failure::usage(self, "`mem` knows only `check`")),
        }
    }
}

fn memory(context: &mut Context<'_>) -> Result<(), Failure> {
    let memory = context.host.memory().doing("ask for the memory")?;
    let mut table = Table::new(&[
        ("USE", Align::Left),
        ("SIZE", Align::Right),
        ("PAGES", Align::Right),
        ("%", Align::Right),
    ]);
    for (name, pages) in [
        ("kernel and firmware", memory.kernel),
        ("boot bundle", memory.bundle),
        ("init", memory.init),
        ("servers", memory.servers),
        ("guests", memory.guests),
        ("free", memory.free),
        ("total", memory.total),
    ] {
        table.row([
            name.into(),
            format::pages(pages),
            pages.to_string(),
            format::percent(pages, memory.total),
        ]);
    }
    table.print(&mut context.out);
    context.out.line(&format!(
        "Largest free run: {} ({} pages)",
        format::pages(memory.largest_free),
        memory.largest_free
    ));
    let parts = [
        memory.kernel,
        memory.bundle,
        memory.init,
        memory.servers,
        memory.guests,
        memory.free,
    ];
    let sum = parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
    if sum != memory.total {
        context.out.styled_line(
            Style::Warning,
            &format!("The parts add up to {sum} pages, not to {}.", memory.total),
        );
    }
    Ok(())
}

fn check(context: &mut Context<'_>) -> Result<(), Failure> {
    let check = context.host.check_wx().doing("look through the kernel's page tables")?;
    if check.violations == 0 {
        let text = format!("{} kernel pages, none writable and executable", format::count(check.pages));
        context.out.styled_line(Style::Good, &text);
        return Ok(());
    }
    Err(Failure::new(
        format!(
            "{} of {} kernel pages are writable and executable, the first at {:#x}",
            check.violations, check.pages, check.first
        ),
        "This is a defect of the kernel: please report it with `log kernel`.",
    ))
}
