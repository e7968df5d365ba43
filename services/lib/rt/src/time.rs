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

/// `amount` of units of which a second has `per_second`, in ticks; saturates.
#[must_use]
pub const fn to_ticks(amount: u64, per_second: u64, hz: u64) -> u64 {
    let ticks = amount as u128 * hz as u128 / per_second as u128;
    if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
}

/// Ticks in units of which a second has `per_second`; saturates.
#[must_use]
pub const fn from_ticks(ticks: u64, per_second: u64, hz: u64) -> u64 {
    let hz = if hz == 0 { 1 } else { hz };
    let amount = ticks as u128 * per_second as u128 / hz as u128;
    if amount > u64::MAX as u128 { u64::MAX } else { amount as u64 }
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

    #[test]
    fn conversions_saturate_and_round_down() {
        assert_eq!(to_ticks(1, 1_000, 3_500_000_000), 3_500_000);
        assert_eq!(to_ticks(u64::MAX, 1, 3_500_000_000), u64::MAX);
        assert_eq!(from_ticks(3_500_000_000, 1, 3_500_000_000), 1);
        assert_eq!(from_ticks(3_499_999_999, 1, 3_500_000_000), 0);
        assert_eq!(from_ticks(5, 1, 0), 5);
    }
}
