//! Operations on scheduling contexts.

use tessera_abi::Error;
use tessera_abi::object::sched_context as op;

use super::{Request, Results};
use crate::arch::timer;
use crate::kref::Ref;
use crate::object::sched_context::SchedContext;
use crate::sched::dispatch;

/// Longest period: ten seconds.
const MAX_PERIOD_US: u64 = 10_000_000;
/// Shortest budget: what a switch and its timer cost must stay small against it.
const MIN_BUDGET_US: u64 = 50;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let context: Ref<SchedContext> = request.target();
    let per_us = (timer::tsc_hz() / 1_000_000).max(1);
    request.rights_by_operation(&[op::INFO])?;
    match request.operation {
        op::CONFIGURE => {
            let [budget, period, weight, ..] = request.words;
            let limited = budget != 0;
            if !(1..=10_000).contains(&weight) || limited && (budget < MIN_BUDGET_US || period < budget || period > MAX_PERIOD_US) {
                return Err(Error::BadArgument);
            }
            let now = timer::now();
            dispatch::charge(request.exclusive.cpu(), now);
            // A budget that is all of the period is no limit.
            let limited = limited && budget < period;
            context.budget.set(if limited { budget * per_us } else { 0 });
            context.period.set(if limited { period * per_us } else { 0 });
            context.weight.set(weight);
            context.used.set(0);
            context.period_start.set(now);
            Ok([0; 6])
        }
        op::INFO => Ok([
            context.budget.get() / per_us,
            context.period.get() / per_us,
            context.weight.get(),
            context.consumed.get(),
            context.throttled.get(),
            0,
        ]),
        _ => Err(Error::UnknownOperation),
    }
}
