//! Time: TSC ticks, as the kernel's deadlines are.

use crate::{start::start_info, sys};
use tessera_abi::Error;

/// The present TSC.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    sys::tsc()
}

/// TSC ticks per second; never 0.
#[must_use]
pub fn hz() -> u64 {
    start_info().tsc_hz.max(1)
}

/// `amount * multiplier / divisor`, rounded down; saturates. Loops ask for the time at every turn, so usual numbers do without a division of 128 bits.
const fn scale(amount: u64, multiplier: u64, divisor: u64) -> u64 {
    let (whole, rest) = (amount / divisor, amount % divisor);
    if let (Some(seconds), Some(part)) = (whole.checked_mul(multiplier), rest.checked_mul(multiplier)) {
        return seconds.saturating_add(part / divisor);
    }
    let scaled = amount as u128 * multiplier as u128 / divisor as u128;
    if scaled > u64::MAX as u128 { u64::MAX } else { scaled as u64 }
}

/// `amount` of units of which a second has `per_second`, in ticks; saturates.
#[inline]
#[must_use]
pub const fn to_ticks(amount: u64, per_second: u64, hz: u64) -> u64 {
    scale(amount, hz, per_second)
}

/// Ticks in units of which a second has `per_second`; saturates.
#[inline]
#[must_use]
pub const fn from_ticks(ticks: u64, per_second: u64, hz: u64) -> u64 {
    scale(ticks, per_second, if hz == 0 { 1 } else { hz })
}

/// Nanoseconds in ticks.
#[must_use]
pub fn nanoseconds(amount: u64) -> u64 {
    to_ticks(amount, 1_000_000_000, hz())
}

/// Microseconds in ticks.
#[must_use]
pub fn microseconds(amount: u64) -> u64 {
    to_ticks(amount, 1_000_000, hz())
}

/// Milliseconds in ticks.
#[must_use]
pub fn milliseconds(amount: u64) -> u64 {
    to_ticks(amount, 1_000, hz())
}

/// The deadline that lies `ticks` from now.
#[must_use]
pub fn after(ticks: u64) -> u64 {
    now().saturating_add(ticks)
}

/// Seconds since 1970 at a TSC value, by the clock that was read at boot; `None` if it could not be read.
#[must_use]
pub fn wall_clock(tsc: u64) -> Option<u64> {
    let info = start_info();
    (info.wall_clock != 0).then(|| info.wall_clock + from_ticks(tsc.saturating_sub(info.boot_tsc), 1, info.tsc_hz))
}

/// Sleeps until a deadline.
pub fn sleep_until(deadline: u64) {
    // Slot 0 names no notification: the only way to return is the deadline.
    let _: Result<u64, Error> = sys::wait(0, Some(deadline));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conversions_saturate_and_round_down() {
        assert_eq!(to_ticks(1, 1_000, 3_500_000_000), 3_500_000);
        assert_eq!(to_ticks(u64::MAX, 1, 3_500_000_000), u64::MAX);
        assert_eq!(from_ticks(3_500_000_000, 1, 3_500_000_000), 1);
        assert_eq!(from_ticks(3_499_999_999, 1, 3_500_000_000), 0);
        assert_eq!(from_ticks(5, 1, 0), 5);
        assert_eq!(from_ticks(u64::MAX, u64::MAX, 1), u64::MAX);
    }

    proptest! {
        #[test]
        fn short_divisions_give_what_long_ones_do(amount: u64, multiplier in 1..u64::MAX, divisor in 1..u64::MAX, hz in 1_000_000u64..10_000_000_000) {
            for (amount, multiplier, divisor) in [(amount, multiplier, divisor), (amount, 1_000_000_000, hz), (amount >> 32, hz, 1_000)] {
                let exact = u128::from(amount) * u128::from(multiplier) / u128::from(divisor);
                prop_assert_eq!(u128::from(scale(amount, multiplier, divisor)), exact.min(u64::MAX.into()));
            }
        }
    }
}
