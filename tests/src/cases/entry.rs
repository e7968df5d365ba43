//! Entries into a guest that have to be refused, what interrupts a guest that was entered, and what is recorded of it.

use super::Case;
use crate::{Context, Outcome, Result, ensure, machine::Emulator, shell::Host, systems::Probe};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "entry/refused",
        about: "bad registers, events and MSRs are refused by kernel or processor, and the same vCPU runs again",
        minutes: 1,
        bochs: Some(1),
        run: refused,
    },
    Case {
        name: "entry/interrupts",
        about: "routed signals interrupt a guest without its monitor, at the right time and from any processor",
        minutes: 1,
        bochs: Some(1),
        run: interrupts,
    },
    Case {
        name: "entry/written",
        about: "the nested page tables say which pages a guest wrote and touched, also while it runs on another processor",
        minutes: 1,
        bochs: Some(1),
        run: written,
    },
];

fn refused(context: &Context) -> Result<Outcome> {
    let probe = Probe::new("entry", "entry").reports().grant("trace = \"trace\"");
    let system = context.product()?.without_guests().probe(probe);
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    let count = super::isolation::verdicts(&mut host, "entry")?;
    ensure!(count > 15, "only {count} checks ran");
    host.neat_command("ps")?;
    Ok(Outcome::Passed)
}

fn interrupts(context: &Context) -> Result<Outcome> {
    let mut host = probed(context, "deliver", 12)?;
    // The probe counts exits and holds them against what the kernel says that it uses; on the best of Bochs' models that is said to be all of it.
    if context.emulator == Emulator::Bochs && std::env::var_os("TESSERA_BOCHS_CPU").is_none() {
        let features = host.neat_command("cpu")?;
        let posts = features
            .lines()
            .any(|line| line.contains("posted interrupts") && line.contains("used"));
        ensure!(posts, "interrupts are not posted:\n{features}");
    }
    Ok(Outcome::Passed)
}

fn written(context: &Context) -> Result<Outcome> {
    probed(context, "written", 7)?;
    Ok(Outcome::Passed)
}

/// Lets a probe do what it is named after, and more than `least` checks of it.
fn probed(context: &Context, name: &'static str, least: usize) -> Result<Host> {
    let probe = Probe::new(name, name).reports().memory("2 MiB").grant("trace = \"trace\"");
    let system = context.product()?.without_guests().probe(probe);
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    let count = super::isolation::verdicts(&mut host, name)?;
    ensure!(count > least, "only {count} checks ran");
    Ok(host)
}
