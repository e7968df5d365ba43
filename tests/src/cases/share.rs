//! Two guests at once, one of which spins: the other keeps its share of the processor.

use super::Case;
use crate::{Context, Outcome, Result, ensure, systems::Guest};
use std::collections::HashMap;

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "share/spinning-guest",
    about: "a spinning guest leaves another its half of the processor",
    minutes: 6,
    bochs: Some(6),
    run: spinning,
}];

/// Processor time in percent of each machine's VMM, from a `ps` whose columns end in the name or hold a percentage.
pub(super) fn percentages(ps: &str) -> HashMap<String, f64> {
    let mut found = HashMap::new();
    for line in ps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.iter().find_map(|w| w.strip_prefix("vmm."));
        let share = words.iter().find_map(|w| w.strip_suffix('%').and_then(|w| w.parse().ok()));
        if let (Some(name), Some(share)) = (name, share) {
            found.insert(name.to_owned(), share);
        }
    }
    found
}

fn spinning(context: &Context) -> Result<Outcome> {
    let system = context
        .product()?
        .without_machines()
        .guest(&Guest::debian("spinner", "spin"))
        .guest(&Guest::debian("counter", "count"));
    let mut host = context.boot(&system.into(), |config| config.cpus = 1)?;
    host.console("spinner", "GUEST-SPIN")?;
    host.leave_console()?;
    // The counter makes progress while the other spins: that is the test. Its 20 rounds take it through many of its turns.
    host.console("counter", "GUEST-COUNT 1\n")?;
    host.leave_console()?;
    host.command("ps")?;
    host.console("counter", "GUEST-COUNT 20\n")?;
    host.leave_console()?;
    let ps = host.neat_command("ps")?;
    let shares = percentages(&ps);
    let (Some(&spinner), Some(&counter)) = (shares.get("spinner"), shares.get("counter")) else {
        crate::fail!("`ps` shows no share for vmm.spinner and vmm.counter:\n{ps}");
    };
    // Equal weights on one processor: half each, less what the host itself takes.
    ensure!(
        (35.0..=60.0).contains(&counter) && spinner <= 60.0,
        "spinner {spinner} %, counter {counter} %:\n{ps}"
    );
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_found() {
        let shares = percentages(" id name  cpu\n 5 vmm.a running 48.2%\n 6 vmm.b running 2%\n");
        assert_eq!((shares["a"], shares["b"]), (48.2, 2.0));
    }
}
