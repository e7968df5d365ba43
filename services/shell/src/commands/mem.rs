//! `mem`: where the memory is.

use super::{Command, Context, Doing, Failure, words};
use crate::{
    format,
    host::{Host, KERNEL},
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
        "Shows where the machine's memory is, to the page; the parts add up to the total. LARGEST is the longest free run: a virtual machine's memory is made of as few as possible.\n`mem check` looks through the page tables of the kernel and of all servers for pages that are writable and executable. There must be none."
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
    context.out.line(&format!(
        "Zeroed ahead, of what is free: {} ({} pages)",
        format::pages(memory.zeroed),
        memory.zeroed
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
    let servers = context.host.servers().doing("list servers")?;
    let spaces = core::iter::once((KERNEL, "kernel".to_string())).chain(servers.into_iter().map(|server| (server.id, server.name)));
    let mut table = Table::new(&[
        ("SPACE", Align::Left),
        ("PAGES", Align::Right),
        ("W AND X", Align::Right),
        ("FIRST", Align::Right),
    ]);
    let mut found = 0u64;
    for (server, name) in spaces {
        let check = match context.host.check_wx(server) {
            Ok(check) => check,
            // A server may end while the others are looked at.
            Err(error) if server == KERNEL => return Err(Failure::call("cannot look through the kernel's page tables", &error)),
            Err(_) => continue,
        };
        found = found.saturating_add(check.violations);
        let (style, first) = match check.violations {
            0 => (Style::Plain, String::new()),
            _ => (Style::Error, format!("{:#x}", check.first)),
        };
        table.styled_row(style, [name, format::count(check.pages), check.violations.to_string(), first]);
    }
    table.print(&mut context.out);
    if found > 0 {
        return Err(Failure::new(
            format!("{found} pages are writable and executable"),
            "This is a defect of the kernel or of init: please report it with `log kernel`.",
        ));
    }
    context.out.styled_line(Style::Good, "No page is writable and executable.");
    Ok(())
}
