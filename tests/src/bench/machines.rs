//! Measurements repeated on machines that are started again when one of them stands still.

use super::Figure;
use crate::{Failure, Result, machine::Machine};
use std::time::Duration;

/// A measurement is taken so often, and the median counts.
const RUNS: usize = 3;
/// Nested guests on QEMU 7.2 now and then wait for an interrupt that was lost; then the machine is started again, so often for each group.
const RESTARTS: u32 = 6;

/// Machines that `start` starts, one after the other.
pub struct Machines<'a> {
    start: &'a dyn Fn() -> Result<Machine>,
    running: Option<Machine>,
    restarts: u32,
}

impl<'a> Machines<'a> {
    /// None is started yet.
    pub fn new(start: &'a dyn Fn() -> Result<Machine>) -> Self {
        Self {
            start,
            running: None,
            restarts: RESTARTS,
        }
    }

    /// Measures `name` several times.
    pub fn measure(&mut self, name: &str, unit: &str, mut run: impl FnMut(&mut Machine) -> Result<u64>) -> Result<Figure> {
        let mut found = Vec::new();
        while found.len() < RUNS {
            let mut attempt = || -> Result<u64> {
                let machine = match &mut self.running {
                    Some(machine) => machine,
                    None => self.running.insert((self.start)()?),
                };
                run(machine)
            };
            match attempt() {
                Ok(value) => {
                    // They take long: what is known is told.
                    eprintln!("{name}: {value} {unit}");
                    found.push(value);
                }
                Err(failure) if self.restarts == 0 => return Err(Failure::new(format!("{name}: {failure}"))),
                Err(failure) => {
                    self.restarts -= 1;
                    if let Some(mut machine) = self.running.take() {
                        look_into(&mut machine, &failure);
                    }
                    let reason = failure.0.lines().next().unwrap_or_default();
                    eprintln!("{name}: the machine is started again: {reason}");
                }
            }
        }
        Ok(figure(name, found, unit))
    }
}

/// Has Tessera's shell tell into the log of a machine that stands still how it is; the peer has nothing to tell.
fn look_into(machine: &mut Machine, failure: &Failure) {
    let mut look = || -> Result<()> {
        machine.serial.wait_at_most(Duration::from_secs(20));
        machine.serial.send(crate::shell::LEAVE)?;
        machine.serial.expect(crate::shell::PROMPT)?;
        for command in ["vm exits guest", "disk", "disk guests", "ps", "log -n 20"] {
            machine.serial.send(format!("{command}\r").as_bytes())?;
            machine.serial.expect(crate::shell::PROMPT)?;
        }
        Ok(())
    };
    // It failed already.
    let _ = look();
    eprintln!("{failure}");
    machine.serial.keep_log();
}

/// Something in 10⁹ instructions.
pub fn rate(instructions: u64, count: u64) -> u64 {
    (u128::from(count) * 1_000_000_000 / u128::from(instructions.max(1))) as u64
}

/// The median of what was found.
pub fn figure(name: &str, mut found: Vec<u64>, unit: &str) -> Figure {
    found.sort_unstable();
    let at = |index: usize| found.get(index).copied().unwrap_or(0);
    Figure {
        name: name.into(),
        median: at(found.len() / 2),
        unit: unit.into(),
        min: at(0),
        max: at(found.len().saturating_sub(1)),
        goal: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_operations() {
        assert_eq!(rate(50_000_000, 1_000), 20_000);
        assert_eq!(rate(0, 1), 1_000_000_000);
    }

    #[test]
    fn the_median_counts() {
        let figure = figure("storage.x", vec![9, 1, 5], "operations/10⁹");
        assert_eq!((figure.min, figure.median, figure.max), (1, 5, 9));
    }
}
