//! Random system calls, ten million of them.

use super::Case;
use crate::{Context, Outcome, Result, ensure, fail, systems::Probe};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "fuzz/system-calls",
    about: "10 million random system calls, no panic",
    minutes: 10,
    bochs: None,
    run: system_calls,
}];

/// Calls that must be made.
const CALLS: u64 = 10_000_000;

fn system_calls(context: &Context) -> Result<Outcome> {
    // Another seed each day, printed by the probe; `TESSERA_FUZZ_SEED` repeats one.
    let today = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |d| d.as_secs() / 86_400);
    let seed = std::env::var("TESSERA_FUZZ_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(today);
    let probe = Probe::new("fuzz", &format!("fuzz {seed} {CALLS}"))
        .memory("16 MiB")
        .reports()
        .grant("debug-port = { io-ports = \"0x80-0x8f\" }")
        .grant("irq-statistics = \"irq-statistics\"");
    let mut host = context.boot(&context.product()?.without_guests().probe(probe).into(), |config| {
        config.second_port = true
    })?;
    let groups = host.com2()?.expect_line("probe: fuzz (made (\\d+) calls|FAILED.*)")?;
    if groups[1].starts_with("FAILED") {
        fail!("seed {seed}: {}", groups[1]);
    }
    let made: u64 = groups[2].parse().unwrap_or(0);
    ensure!(made >= CALLS, "only {made} calls were made");
    host.com2()?.expect("probe: fuzz ok")?;
    let ps = host.neat_command("ps")?;
    ensure!(ps.contains("fuzz"), "`ps` afterwards:\n{ps}");
    host.neat_command("mem")?;
    Ok(Outcome::Passed)
}
