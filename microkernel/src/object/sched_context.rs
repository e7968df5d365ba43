//! Scheduling contexts: a right to processor time. Budget, period and weight say what ESXi calls limit, reservation and shares.

use core::cell::Cell;

use tessera_abi::object::{ObjectKind, sched_context as op, size};

use super::Header;
use super::thread::Thread;
use crate::kref::Ref;

/// A scheduling context. Times are in TSC ticks.
#[repr(C)]
#[derive(Default)]
pub struct SchedContext {
    /// Header.
    pub header: Header,
    /// Ticks per period; 0: unlimited.
    pub budget: Cell<u64>,
    /// Length of a period.
    pub period: Cell<u64>,
    /// Share among its priority's equals.
    pub weight: Cell<u64>,
    /// Virtual time: ticks consumed, scaled by [`op::NORMAL_WEIGHT`] over the weight.
    pub virtual_time: Cell<u64>,
    /// Ticks consumed ever.
    pub consumed: Cell<u64>,
    /// Ticks consumed in this period.
    pub used: Cell<u64>,
    /// When this period began.
    pub period_start: Cell<u64>,
    /// Times the budget was used up.
    pub throttled: Cell<u64>,
    /// The thread it belongs to.
    pub owner: Cell<Option<Ref<Thread>>>,
    /// The thread that runs on it: its owner, or a server that the owner called.
    pub borrower: Cell<Option<Ref<Thread>>>,
}

const _: () = assert!(size_of::<SchedContext>() <= size::SCHED_CONTEXT);

impl SchedContext {
    /// One with no limit and normal weight.
    pub fn new() -> Self {
        let header = Header::new(ObjectKind::SchedContext);
        Self { header, weight: Cell::new(op::NORMAL_WEIGHT), ..Self::default() }
    }

    /// Charges `ticks` that ended at `now`. Returns whether the budget is used up.
    #[inline(always)]
    pub fn charge(&self, ticks: u64, now: u64) -> bool {
        self.consumed.set(self.consumed.get().wrapping_add(ticks));
        let weight = self.weight.get();
        let scaled = if weight == op::NORMAL_WEIGHT { ticks } else { ticks.saturating_mul(op::NORMAL_WEIGHT) / weight.max(1) };
        self.virtual_time.set(self.virtual_time.get().wrapping_add(scaled));
        self.budget.get() != 0 && self.charge_budget(ticks, now)
    }

    #[inline(never)]
    fn charge_budget(&self, ticks: u64, now: u64) -> bool {
        self.refill(now);
        self.used.set(self.used.get().saturating_add(ticks));
        self.used.get() >= self.budget.get()
    }

    /// Begins a new period if the last is over.
    pub fn refill(&self, now: u64) {
        let period = self.period.get();
        let elapsed = now.wrapping_sub(self.period_start.get());
        if period != 0 && elapsed >= period {
            // What was overdrawn by a late timer is paid in the next period, once.
            let overdrawn = self.used.get().saturating_sub(self.budget.get()).min(self.budget.get());
            self.used.set(if elapsed < 2 * period { overdrawn } else { 0 });
            self.period_start.set(now - elapsed % period);
        }
    }

    /// Ticks left in this period; all of them without a budget.
    pub fn left(&self) -> u64 {
        if self.budget.get() == 0 { u64::MAX } else { self.budget.get().saturating_sub(self.used.get()) }
    }

    /// When the next period begins.
    pub fn next_period(&self) -> u64 {
        self.period_start.get().saturating_add(self.period.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_budget_is_used_up_and_comes_back() {
        let context = SchedContext::new();
        context.budget.set(30);
        context.period.set(100);
        assert!(!context.charge(20, 20));
        assert!(context.charge(15, 35));
        context.refill(100);
        // Five ticks were overdrawn.
        assert_eq!(context.left(), 25);
        context.refill(350);
        assert_eq!(context.left(), 30);
        assert_eq!(context.next_period(), 400);
    }

    proptest! {
        #[test]
        fn share_follows_weight(weight in 1..10_000_u64, ticks in 1..1_000_000_u64) {
            let context = SchedContext::new();
            context.weight.set(weight);
            context.charge(ticks, ticks);
            prop_assert_eq!(context.virtual_time.get(), ticks * 100 / weight);
        }

        #[test]
        fn no_period_gives_more_than_the_budget(budget in 1..100_u64, rest in 0..100_u64, steps in proptest::collection::vec(1..20_u64, 1..200)) {
            let context = SchedContext::new();
            let period = budget + rest;
            context.budget.set(budget);
            context.period.set(period);
            let mut now = 0;
            let mut got = 0;
            for step in steps {
                if context.left() == 0 {
                    now = context.next_period().max(now);
                    context.refill(now);
                    continue;
                }
                let run = step.min(context.left());
                now += run;
                got += run;
                context.charge(run, now);
                prop_assert!(got <= budget * (now / period + 1));
            }
        }
    }
}
