//! `iommu`: what devices can reach, and what they were refused.

use super::{Command, Context, Doing, Failure, shorten, words};
use crate::{
    format,
    host::Host,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{format, string::String, vec::Vec};
use tessera_proto::iommu::{AccessKind, FaultInfo, IommuInfo, IommuKind};

/// The command.
pub struct Iommu;

impl Command for Iommu {
    fn name(&self) -> &'static str {
        "iommu"
    }

    fn summary(&self) -> &'static str {
        "show what devices can reach, and what they were refused"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["iommu", "iommu faults"]
    }

    fn help(&self) -> &'static str {
        "Shows the IOMMU of the machine, and for each server that holds PCI functions what these can reach: memory that was lent for devices, guests' RAM that the server has borrowed, and what the firmware reserves for them. Without an IOMMU devices reach all memory.\nWith `faults`, the last accesses that were refused: function, server, address, and the IOMMU's number for the reason. Accesses that are alike and in a row are one line with a count."
    }

    fn complete(&self, _host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        if before.is_empty() { words(&["faults"]) } else { Vec::new() }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => show(context),
            ["faults"] => faults(context),
            ["faults", ..] => Err(Failure::usage(self, "`iommu faults` takes no arguments")),
            [other, ..] => Err(Failure::usage(self, format!("`iommu` has no form `{}`", shorten(other)))),
        }
    }
}

fn state(context: &mut Context<'_>, info: &IommuInfo) {
    let name = match info.kind {
        IommuKind::None => {
            context.out.styled_line(
                Style::Warning,
                "There is no IOMMU in use: devices reach all memory. A faulty one, or a driver that was taken over, can write anywhere.",
            );
            context.out.line(&format!("  why         {}", info.reason));
            return;
        }
        IommuKind::Vtd => "Intel VT-d",
        IommuKind::Amd => "AMD-Vi",
    };
    context.out.styled_line(Style::Heading, name);
    context.out.line(&format!("  units       {}", info.units));
    context.out.line(&format!("  addresses   {} bits", info.address_bits));
    context
        .out
        .line(&format!("  tables      {}", format::bytes(info.table_pages.saturating_mul(4096))));
    let interrupts = if info.interrupts_remapped {
        "a device raises only its own"
    } else {
        "not looked at: a device can raise any"
    };
    context.out.line(&format!("  interrupts  {interrupts}"));
    let line = format!("  refused     {} accesses since boot", info.faults);
    let style = if info.faults == 0 { Style::Plain } else { Style::Error };
    context.out.styled_line(style, &line);
}

fn show(context: &mut Context<'_>) -> Result<(), Failure> {
    let info = context.host.iommu().doing("ask about the IOMMU")?;
    let domains = context.host.iommu_domains().doing("ask what devices reach")?;
    state(context, &info);
    if domains.is_empty() {
        context.out.styled_line(Style::Faint, "No server holds PCI functions.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("SERVER", Align::Flexible),
        ("LENT", Align::Right),
        ("GUESTS", Align::Right),
        ("RESERVED", Align::Right),
        ("FUNCTIONS", Align::Flexible),
    ]);
    for domain in domains {
        table.row([
            domain.server,
            format::bytes(domain.device_memory),
            format::bytes(domain.guest_memory),
            format::bytes(domain.reserved),
            domain.functions.join(" "),
        ]);
    }
    table.print(&mut context.out);
    Ok(())
}

fn what(fault: &FaultInfo) -> &'static str {
    match fault.kind {
        AccessKind::Read => "read",
        AccessKind::Write => "write",
        AccessKind::Interrupt => "interrupt",
        AccessKind::Unknown => "access",
    }
}

fn faults(context: &mut Context<'_>) -> Result<(), Failure> {
    let faults = context.host.iommu_faults().doing("ask what devices were refused")?;
    if faults.is_empty() {
        context.out.styled_line(Style::Faint, "No device was refused anything.");
        return Ok(());
    }
    let unknown = |text: String| if text.is_empty() { String::from("?") } else { text };
    let mut table = Table::new(&[
        ("FUNCTION", Align::Left),
        ("SERVER", Align::Flexible),
        ("WHAT", Align::Left),
        ("ADDRESS", Align::Right),
        ("REASON", Align::Right),
        ("COUNT", Align::Right),
    ]);
    for fault in faults {
        let address = fault.address.map_or_else(String::new, |address| format!("{address:#x}"));
        table.row([
            unknown(fault.function.clone()),
            unknown(fault.server.clone()),
            what(&fault).into(),
            unknown(address),
            format!("{}", fault.reason),
            format!("{}", fault.count),
        ]);
    }
    table.print(&mut context.out);
    Ok(())
}
