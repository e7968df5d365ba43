//! `pci`: what is on the PCI buses, and who holds it.

use super::{Command, Context, Doing, Failure, shorten, words};
use crate::{
    format,
    host::Host,
    suggest,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_pci::{Address, Class, class_name, vendor_name};
use tessera_proto::supervisor::{PciFunction, PciInterrupts};

/// The command.
pub struct Pci;

impl Command for Pci {
    fn name(&self) -> &'static str {
        "pci"
    }

    fn summary(&self) -> &'static str {
        "list PCI functions and who holds them"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["pci", "pci show ADDRESS"]
    }

    fn help(&self) -> &'static str {
        "Lists the functions that init found on the PCI buses: address (segment, bus, device, function), vendor and device number, what it is, and the server that holds it. Functions without a holder stay with init.\nWith `show`, one function: its ranges of addresses, how it raises interrupts, and whether it may access memory by itself."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&["show"]),
            ["show"] => host
                .pci()
                .map_or_else(|_| Vec::new(), |all| all.into_iter().map(|one| one.address).collect()),
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => list(context),
            ["show", address] => show(context, address),
            [other, ..] if *other != "show" => Err(Failure::usage(self, format!("`pci` has no form `{}`", shorten(other)))),
            _ => Err(Failure::usage(self, "`pci show` takes one address")),
        }
    }
}

fn kind(function: &PciFunction) -> &'static str {
    let (base, sub, interface) = function.class;
    class_name(Class { base, sub, interface })
}

fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let functions = context.host.pci().doing("list PCI functions")?;
    if functions.is_empty() {
        context.out.styled_line(Style::Faint, "There are no PCI functions.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("ADDRESS", Align::Left),
        ("ID", Align::Left),
        ("KIND", Align::Left),
        ("VENDOR", Align::Flexible),
        ("HOLDER", Align::Flexible),
    ]);
    for function in functions {
        let style = if function.present { Style::Plain } else { Style::Error };
        table.styled_row(
            style,
            [
                function.address.clone(),
                format!("{:04x}:{:04x}", function.vendor, function.device),
                kind(&function).into(),
                vendor_name(function.vendor).unwrap_or_default().into(),
                if function.present { function.holder } else { "gone".into() },
            ],
        );
    }
    table.print(&mut context.out);
    Ok(())
}

fn show(context: &mut Context<'_>, wanted: &str) -> Result<(), Failure> {
    let functions = context.host.pci().doing("list PCI functions")?;
    let address = wanted.parse::<Address>().map(|address| address.to_string());
    let found = functions.iter().find(|function| Ok(&function.address) == address.as_ref());
    let Some(function) = found else {
        let known = suggest::nearest(wanted, functions.iter().map(|function| &*function.address));
        let hint = known.map_or("`pci` lists them.".into(), |known| format!("Did you mean `{known}`?"));
        return Err(Failure::new(format!("there is no PCI function `{}`", shorten(wanted)), hint));
    };
    context.out.styled_line(Style::Heading, &function.address);
    if !function.present {
        context
            .out
            .styled_line(Style::Error, "  it does not answer any more: it was taken away or has failed");
    }
    let (base, sub, interface) = function.class;
    let vendor = vendor_name(function.vendor).map_or_else(String::new, |name| format!(" ({name})"));
    context.out.line(&format!(
        "  kind        {} (class {base:02x}.{sub:02x}.{interface:02x})",
        kind(function)
    ));
    context.out.line(&format!(
        "  identity    vendor {:04x}{vendor}, device {:04x}, revision {:02x}",
        function.vendor, function.device, function.revision
    ));
    let (vendor, device) = function.subsystem;
    context.out.line(&format!("  subsystem   {vendor:04x}:{device:04x}"));
    let holder = if function.holder.is_empty() {
        "nobody: it stays with init"
    } else {
        &function.holder
    };
    context.out.line(&format!("  holder      {holder}"));
    let memory = if function.bus_master { "yes" } else { "no" };
    context.out.line(&format!("  may access memory by itself: {memory}"));
    let interrupts = match function.interrupts {
        PciInterrupts::None => "none".into(),
        PciInterrupts::Line(line) => format!("line {line}, not used"),
        PciInterrupts::Message { used } => format!("one message (MSI), {}", if used { "in use" } else { "not used" }),
        PciInterrupts::Table { used, offered } => format!("table of messages (MSI-X), {used} of {offered} in use"),
    };
    context.out.line(&format!("  interrupts  {interrupts}"));
    for range in &function.ranges {
        let what = match (range.ports, range.address) {
            (_, 0) => "no address".into(),
            (true, first) => format!("ports {first:#x} to {:#x}", first.saturating_add(range.length).saturating_sub(1)),
            (false, first) => format!("memory {first:#x}, {}", format::bytes(range.length)),
        };
        context.out.line(&format!("  range {}     {what}", range.bar));
    }
    Ok(())
}
