//! `vm exits`.

use crate::{
    commands::{Context, Doing, Failure},
    format,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{format, vec::Vec};
use tessera_abi::vcpu::ExitReason;
use tessera_proto::{
    vm_control::{ExitCount, VcpuExits},
    vm_manager::VmSummary,
};

/// Exits of one virtual processor, or of all together.
pub fn exits(context: &mut Context<'_>, vm: &VmSummary, vcpu: Option<u32>) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    let mut sum = VcpuExits {
        exits: Vec::new(),
        in_kernel: 0,
        doorbells: 0,
        guest_ticks: 0,
        injected: 0,
    };
    let (first, last) = vcpu.map_or((0, vm.vcpus), |vcpu| (vcpu, vcpu.saturating_add(1)));
    for vcpu in first..last {
        let one = context
            .host
            .vm_exits(&vm.name, vcpu)
            .doing(&format!("ask the VMM of {}", vm.name))?;
        add(&mut sum, &one);
    }
    sum.exits.sort_unstable_by_key(|exit| core::cmp::Reverse(exit.count));
    let total = sum.exits.iter().fold(0u64, |total, exit| total.saturating_add(exit.count));
    let mut table = Table::new(&[
        ("EXIT", Align::Left),
        ("COUNT", Align::Right),
        ("%", Align::Right),
        ("TIME", Align::Right),
        ("EACH", Align::Right),
    ]);
    for exit in &sum.exits {
        let name = ExitReason::from_u32(exit.reason.into()).map_or("unknown", ExitReason::name);
        let time = |ticks| match exit.ticks {
            0 => "-".into(),
            _ => format::duration(format::nanoseconds(ticks, system.tsc_hz)),
        };
        table.row([
            name.into(),
            format::count(exit.count),
            format::percent(exit.count, total),
            time(exit.ticks),
            time(exit.ticks / exit.count.max(1)),
        ]);
    }
    table.print(&mut context.out);
    let guest = format::duration(format::nanoseconds(sum.guest_ticks, system.tsc_hz));
    context.out.line(&format!(
        "{} exits to the VMM, {} handled in the kernel",
        format::count(total),
        format::count(sum.in_kernel)
    ));
    context.out.line(&format!(
        "{} doorbells, {} interrupts injected, {guest} in the guest",
        format::count(sum.doorbells),
        format::count(sum.injected)
    ));
    if vcpu.is_none() && vm.vcpus > 1 {
        context
            .out
            .styled_line(Style::Faint, &format!("all {} virtual processors together", vm.vcpus));
    }
    Ok(())
}

fn add(sum: &mut VcpuExits, one: &VcpuExits) {
    for exit in &one.exits {
        match sum.exits.iter_mut().find(|known| known.reason == exit.reason) {
            Some(known) => {
                known.count = known.count.saturating_add(exit.count);
                known.ticks = known.ticks.saturating_add(exit.ticks);
            }
            None => sum.exits.push(ExitCount { ..*exit }),
        }
    }
    sum.in_kernel = sum.in_kernel.saturating_add(one.in_kernel);
    sum.doorbells = sum.doorbells.saturating_add(one.doorbells);
    sum.guest_ticks = sum.guest_ticks.saturating_add(one.guest_ticks);
    sum.injected = sum.injected.saturating_add(one.injected);
}
