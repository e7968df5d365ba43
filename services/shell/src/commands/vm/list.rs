//! `vm list`, `vm info`.

use crate::{
    commands::{Context, Doing, Failure},
    format,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::{
    vm_control::{RunState, VcpuRunState},
    vm_manager::{VmState, VmSummary},
};

const fn state(state: VmState) -> (&'static str, Style) {
    match state {
        VmState::Stopped => ("stopped", Style::Faint),
        VmState::Running => ("running", Style::Good),
        VmState::Failed => ("failed", Style::Error),
        VmState::Suspended => ("suspended", Style::Faint),
    }
}

/// All machines.
pub fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    let machines = context.host.vms().doing("list virtual machines")?;
    if machines.is_empty() {
        context.out.line("There is no virtual machine: the system manifest defines none.");
        return Ok(());
    }
    let now = context.host.now();
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("VCPUS", Align::Right),
        ("MEMORY", Align::Right),
        ("OVERHEAD", Align::Right),
        ("STARTS", Align::Right),
        ("UPTIME", Align::Right),
    ]);
    let mut ends = Vec::new();
    for mut vm in machines {
        if vm.state == VmState::Running {
            look_inside(context, &mut vm);
        }
        if vm.state != VmState::Running && !vm.reason.is_empty() {
            ends.push(format!("{}: {}", vm.name, vm.reason));
        }
        let (state, style) = state(vm.state);
        let runs = vm.state == VmState::Running;
        let up = format::nanoseconds(now.saturating_sub(vm.started_tsc), system.tsc_hz);
        table.styled_row(
            if style == Style::Good { Style::Plain } else { style },
            [
                vm.name,
                state.into(),
                vm.vcpus.to_string(),
                format::bytes(vm.memory),
                if runs { format::pages(vm.overhead_pages) } else { String::new() },
                vm.starts.to_string(),
                if runs { format::duration(up) } else { String::new() },
            ],
        );
    }
    table.print(&mut context.out);
    for end in ends {
        context.out.prose(&end, 2);
    }
    Ok(())
}

/// A VMM outlives its guest's failure, so that the registers can be looked at: what init calls running may have stopped.
fn look_inside(context: &mut Context<'_>, vm: &mut VmSummary) {
    // A VMM that does not answer is about to end; init will say so.
    let Ok(info) = context.host.vm_info(&vm.name) else { return };
    if info.state == RunState::Failed {
        vm.state = VmState::Failed;
        vm.reason = info.report.lines().next().unwrap_or_default().into();
    }
}

/// One machine from the inside.
pub fn info(context: &mut Context<'_>, vm: &VmSummary) -> Result<(), Failure> {
    let (text, style) = state(vm.state);
    let vcpus = if vm.vcpus == 1 {
        "1 virtual processor".into()
    } else {
        format!("{} virtual processors", vm.vcpus)
    };
    context.out.styled_line(Style::Heading, &vm.name);
    context.out.styled_line(style, &format!("  state     {text}"));
    context
        .out
        .line(&format!("  size      {vcpus}, {} of RAM", format::bytes(vm.memory)));
    if vm.state != VmState::Running {
        if !vm.reason.is_empty() {
            context.out.prose(&format!("  last end  {}", vm.reason), 12);
        }
        return Ok(());
    }
    context.out.line(&format!(
        "  overhead  {} of host memory beyond its RAM",
        format::pages(vm.overhead_pages)
    ));
    let info = context.host.vm_info(&vm.name).doing(&format!("ask the VMM of {}", vm.name))?;
    let guest = match info.state {
        RunState::Loading => "loading",
        RunState::Running => "running",
        RunState::Failed => "failed",
        RunState::PoweredOff => "powered off",
        RunState::Suspending => "stands still, its state is being written",
        RunState::Sleeping => "sleeps, with its memory kept; `vm wake` wakes it",
    };
    context.out.line(&format!("  guest     {guest}, {} resets", info.resets));
    if info.panics > 0 || info.watchdog_timeouts > 0 {
        let text = format!("{} panics, {} times late at its watchdog", info.panics, info.watchdog_timeouts);
        context.out.line(&format!("  incidents {text}"));
    }
    for (number, vcpu) in info.vcpus.iter().enumerate() {
        context.out.line(&format!("  vcpu {number}    {}", vcpu_state(*vcpu)));
    }
    for line in info.report.lines() {
        context.out.prose(&format!("  {line}"), 4);
    }
    Ok(())
}

/// A virtual processor's state in words.
pub const fn vcpu_state(state: VcpuRunState) -> &'static str {
    match state {
        VcpuRunState::WaitForStart => "waits for its start-up interrupt",
        VcpuRunState::Running => "running",
        VcpuRunState::Halted => "halted",
        VcpuRunState::Stopped => "stopped",
    }
}
