//! `vm memory`.

use super::running;
use crate::{
    commands::{Command, Context, Doing, Failure, machine, number},
    format,
};
use alloc::{format, string::String};

const MIB: u64 = 1 << 20;

/// What a machine does with its memory; with `mib`, what it is asked to do without.
pub fn memory(context: &mut Context<'_>, command: &dyn Command, name: &str, mib: Option<&str>) -> Result<(), Failure> {
    let vm = machine(context, name)?;
    running(&vm)?;
    if let Some(mib) = mib {
        let mib = number(command, "the memory in MiB", mib)?;
        let bytes = u64::from(mib) * MIB;
        context.host.vm_set_balloon(name, bytes).doing(&format!("ask {name} for memory"))?;
        context.out.line(&format!(
            "{name} was asked to do without {}; its driver follows as far as it can.",
            format::bytes(bytes)
        ));
        return Ok(());
    }
    let memory = context.host.vm_memory(name).doing(&format!("ask the VMM of {name}"))?;
    let mut line = |what: &str, value: String| context.out.line(&format!("{what:<14}{value}"));
    line("RAM", format::bytes(memory.ram));
    let [small, large, huge] = memory.pages.map(format::count);
    line("mapped by", format!("{huge} x 1 GiB, {large} x 2 MiB, {small} x 4 KiB"));
    line(
        "does without",
        format!("{} of {}", format::bytes(memory.given_up), format::bytes(memory.target)),
    );
    let told = [
        ("guest's total", memory.total),
        ("free", memory.free),
        ("available", memory.available),
        ("caches", memory.caches),
        ("swapped in", memory.swapped_in),
        ("swapped out", memory.swapped_out),
    ];
    for (what, value) in told {
        if let Some(value) = value {
            line(what, format::bytes(value));
        }
    }
    if let Some(faults) = memory.major_faults {
        line("major faults", format::count(faults));
    }
    if memory.total.is_none() {
        context.out.line("The guest tells nothing of its memory: it has no balloon driver.");
    }
    Ok(())
}
