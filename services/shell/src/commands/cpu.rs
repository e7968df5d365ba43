//! `cpu`: processors and what they can do.

use super::{Command, Context, Doing, Failure, no_arguments};
use crate::{
    format,
    host::Machine,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_abi::{MAX_CPUS, boot::Features, virt::VIRT_FEATURES};

/// The command.
pub struct Cpu;

/// Features in the order they are shown, with what their absence means.
const FEATURES: [(Features, &str, &str); 11] = [
    (Features::SVM, "AMD-V", "virtualisation with nested paging"),
    (Features::VMX, "VT-x", "virtualisation with EPT and unrestricted guest"),
    (Features::X2APIC, "x2APIC", "interrupt controller without memory access; else xAPIC"),
    (Features::TSC_DEADLINE, "TSC deadline", "exact timer; else the APIC's countdown"),
    (Features::INVARIANT_TSC, "invariant TSC", "constant clock; else trusted as it is"),
    (Features::SMEP, "SMEP", "kernel does not execute user memory"),
    (Features::SMAP, "SMAP", "kernel does not touch user memory unasked"),
    (Features::UMIP, "UMIP", "user code cannot read descriptor tables"),
    (Features::PCID, "PCID", "address-space switch without TLB flush; else flush"),
    (Features::XSAVE, "XSAVE", "extended state for guests; else x87 and SSE"),
    (Features::PAGE_1G, "1-GiB pages", "fewer page tables; else 2 MiB pages"),
];

impl Command for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn summary(&self) -> &'static str {
        "show processors, their load and features"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["cpu"]
    }

    fn help(&self) -> &'static str {
        "Shows each processor with its load since the last `cpu` (or since boot), and which features were found and are in use. What is missing says what is done instead. The virtualisation backend is chosen at boot; of its features, `found` means that the hardware offers what is not used yet."
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        no_arguments(self, arguments)?;
        let machine = context.host.machine().doing("ask the kernel about the machine")?;
        let boot = context.host.system().map(|system| system.boot_tsc).unwrap_or(0);
        processors(context, boot)?;
        let mhz = machine.tsc_hz / 1_000_000;
        context.out.line(&format!(
            "Processors: {}, TSC at {mhz} MHz, virtualisation backend: {}",
            machine.cpus,
            machine.backend_name()
        ));
        context.out.text("\n");
        let features = Features::from_bits_truncate(machine.features);
        let mut table = Table::new(&[("FEATURE", Align::Left), ("", Align::Left), ("MEANING", Align::Flexible)]);
        for (feature, name, meaning) in FEATURES {
            let found = features.contains(feature);
            let style = if found { Style::Plain } else { Style::Faint };
            table.styled_row(style, [name.into(), if found { "used" } else { "missing" }.into(), meaning.into()]);
        }
        table.print(&mut context.out);
        virtualisation(context, &machine);
        if machine.backend == 0 {
            context.out.text("\n");
            context.out.styled_line(
                Style::Warning,
                "No virtual machine can run: VT-x or AMD-V is not there, lacks a part,",
            );
            context.out.styled_line(
                Style::Warning,
                "or is disabled by the firmware. What it is, the kernel said when it started.",
            );
        }
        Ok(())
    }
}

/// What the hardware's virtualisation offers, by the names of its maker.
fn virtualisation(context: &mut Context<'_>, machine: &Machine) {
    const VT_X: u64 = 1;
    if machine.backend == 0 {
        return;
    }
    context.out.text("\n");
    let mut table = Table::new(&[
        (machine.backend_name(), Align::Left),
        ("", Align::Left),
        ("MEANING", Align::Flexible),
    ]);
    for (feature, intel, amd, meaning) in VIRT_FEATURES {
        let name = if machine.backend == VT_X { intel } else { amd };
        if name.is_empty() {
            continue;
        }
        let (state, style) = if machine.virt_used.contains(feature) {
            ("used", Style::Plain)
        } else if machine.virt_found.contains(feature) {
            ("found", Style::Faint)
        } else {
            ("missing", Style::Faint)
        };
        table.styled_row(style, [name.into(), state.into(), meaning.into()]);
    }
    table.print(&mut context.out);
}

fn processors(context: &mut Context<'_>, boot: u64) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("CPU", Align::Right),
        ("APIC", Align::Right),
        ("LOAD%", Align::Right),
        ("INTERRUPTS", Align::Right),
        ("SWITCHES", Align::Right),
        ("SHOOT-DOWNS", Align::Right),
    ]);
    let mut seen: Vec<(u64, u64)> = Vec::new();
    for index in 0..MAX_CPUS as u32 {
        let Some(cpu) = context.host.cpu(index).doing("ask the kernel about a processor")? else {
            break;
        };
        let (idle, tsc) = context.memory.cpus.get(index as usize).copied().unwrap_or((0, boot));
        let elapsed = cpu.tsc.saturating_sub(tsc);
        let busy = elapsed.saturating_sub(cpu.idle.saturating_sub(idle));
        seen.push((cpu.idle, cpu.tsc));
        table.row([
            index.to_string(),
            cpu.apic.to_string(),
            format::percent(busy, elapsed),
            format::count(cpu.interrupts),
            format::count(cpu.switches),
            format::count(cpu.shootdowns),
        ]);
    }
    context.memory.cpus = seen;
    table.print(&mut context.out);
    context.out.text("\n");
    Ok(())
}

/// Names of the features that are in use, for the banner.
pub fn used(features: u64) -> Vec<String> {
    let features = Features::from_bits_truncate(features);
    FEATURES
        .iter()
        .filter(|(feature, ..)| features.contains(*feature))
        .map(|(_, name, _)| (*name).into())
        .collect()
}
