//! Entries into a guest that have to be refused, and what interrupts a guest that was entered.

use super::Case;
use crate::{Context, Outcome, Result, ensure, systems::Probe};

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
    let probe = Probe::new("deliver", "deliver")
        .reports()
        .memory("2 MiB")
        .grant("trace = \"trace\"");
    let system = context.product()?.without_guests().probe(probe);
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    let count = super::isolation::verdicts(&mut host, "deliver")?;
    ensure!(count > 12, "only {count} checks ran");
    Ok(Outcome::Passed)
}
