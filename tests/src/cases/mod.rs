//! The tests, one file for each topic.

mod boot;
mod entry;
mod fuzz;
mod guest;
mod hostile_guest;
mod isolation;
mod lifecycle;
mod panic_record;
mod share;
mod shell;

use crate::{Context, Outcome, Result};
use std::time::Duration;

/// A test.
#[derive(Clone, Copy)]
pub struct Case {
    /// `topic/what`.
    pub name: &'static str,
    /// What holds when it passes.
    pub about: &'static str,
    /// Minutes it usually takes at most; the watchdog allows five times as much.
    pub minutes: u32,
    /// The test.
    pub run: fn(&Context) -> Result<Outcome>,
}

impl Case {
    /// The watchdog.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_secs(u64::from(self.minutes) * 300)
    }
}

/// All tests.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        boot::CASES,
        entry::CASES,
        shell::CASES,
        guest::CASES,
        share::CASES,
        isolation::CASES,
        hostile_guest::CASES,
        fuzz::CASES,
        lifecycle::CASES,
        panic_record::CASES,
    ]
    .concat()
}
