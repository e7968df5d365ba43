//! Rights to processor time.

use super::{ask, order};
use tessera_abi::Error;
use tessera_abi::object::sched_context;

capability! {
    /// A right to processor time: budget, period, weight.
    SchedContext
}

/// What a scheduling context gives and gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedContextStatus {
    /// Microseconds per period, 0: unlimited.
    pub budget_us: u64,
    /// Period in microseconds.
    pub period_us: u64,
    /// Weight among equals.
    pub weight: u64,
    /// TSC ticks consumed.
    pub consumed: u64,
    /// Times the budget was used up.
    pub throttled: u64,
}

impl SchedContext {
    /// Sets budget and period in microseconds (0: unlimited) and weight (100: normal).
    ///
    /// # Errors
    /// `BadArgument`, `NoRight`.
    pub fn configure(self, budget_us: u64, period_us: u64, weight: u64) -> Result<(), Error> {
        order(self.slot(), sched_context::CONFIGURE, &[budget_us, period_us, weight])
    }

    /// What it gives and gave.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn info(self) -> Result<SchedContextStatus, Error> {
        let [budget_us, period_us, weight, consumed, throttled, _] = ask(self.slot(), sched_context::INFO, &[])?;
        Ok(SchedContextStatus {
            budget_us,
            period_us,
            weight,
            consumed,
            throttled,
        })
    }
}
