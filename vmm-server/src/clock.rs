//! Conversions between the processor's time stamp counter and nanoseconds.

/// The rate of the time stamp counter, with the factors that conversions need.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u64,
    ns_per_tick: u64,
    ticks_per_ns: u64,
    start: u64,
}

impl Clock {
    /// A counter of `hz` ticks per second; time 0 is at the counter value `start`. Rates outside 1 MHz to 100 GHz are taken as 1 GHz.
    #[must_use]
    pub const fn new(hz: u64, start: u64) -> Self {
        let hz = if hz < 1_000_000 || hz > 100_000_000_000 {
            1_000_000_000
        } else {
            hz
        };
        Self {
            hz,
            ns_per_tick: ((1_000_000_000u128 << 32) / hz as u128) as u64,
            ticks_per_ns: (((hz as u128) << 32) / 1_000_000_000) as u64,
            start,
        }
    }

    /// Ticks per second.
    #[must_use]
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// Ticks per millisecond, as guests are told.
    #[must_use]
    pub const fn khz(&self) -> u32 {
        (self.hz / 1000) as u32
    }

    /// The counter value that is time 0.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Nanoseconds from `start` to the counter value `tsc`; 0 before it.
    #[inline]
    #[must_use]
    pub const fn ns(&self, tsc: u64) -> u64 {
        let ticks = tsc.wrapping_sub(self.start);
        if (ticks as i64) < 0 { 0 } else { self.ticks_to_ns(ticks) }
    }

    /// The counter value at `ns` after `start`, saturating.
    #[inline]
    #[must_use]
    pub const fn tsc(&self, ns: u64) -> u64 {
        // A guest that was resumed may have begun before this host did.
        let tsc = self.start as i64 as i128 + self.ns_to_ticks(ns) as i128;
        if tsc < 0 { 0 } else { saturate(tsc as u128) }
    }

    /// A duration in ticks as nanoseconds.
    #[inline]
    #[must_use]
    pub const fn ticks_to_ns(&self, ticks: u64) -> u64 {
        saturate((ticks as u128 * self.ns_per_tick as u128) >> 32)
    }

    /// A duration in nanoseconds as ticks, rounded up so that a timer never fires early.
    #[inline]
    #[must_use]
    pub const fn ns_to_ticks(&self, ns: u64) -> u64 {
        saturate(((ns as u128 * self.ticks_per_ns as u128) >> 32) + 1)
    }

    /// Multiplier of the KVM paravirtual clock: nanoseconds = (ticks << shift) * multiplier >> 32 (a negative shift shifts right).
    #[must_use]
    pub const fn paravirtual_scale(&self) -> (u32, i8) {
        let mut scale = self.ns_per_tick;
        let mut shift = 0;
        while scale >= 1 << 32 {
            scale >>= 1;
            shift += 1;
        }
        while scale < 1 << 31 {
            scale <<= 1;
            shift -= 1;
        }
        // Shifting left after the division loses precision at rates above 1 GHz: divide anew with the shift known.
        let hz = self.hz as u128;
        let exact = if shift < 0 {
            ((1_000_000_000u128 << 32) << -shift) / hz
        } else {
            ((1_000_000_000u128 << 32) >> shift) / hz
        };
        (if exact > u32::MAX as u128 { u32::MAX } else { exact as u32 }, shift)
    }
}

const fn saturate(value: u128) -> u64 {
    if value > u64::MAX as u128 { u64::MAX } else { value as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_guest_may_be_older_than_its_host() {
        let clock = Clock::new(1_000_000_000, 5_u64.wrapping_sub(1_000_000));
        assert_eq!(clock.ns(5), 1_000_000);
        assert!(clock.tsc(1_000_100).abs_diff(105) <= 1);
        assert_eq!(clock.tsc(10), 0, "long past");
        assert!(clock.tsc(u64::MAX) > 1 << 63);
    }

    #[test]
    fn nonsense_rates_do_not_divide_by_zero() {
        assert_eq!(Clock::new(0, 0).hz(), 1_000_000_000);
        assert_eq!(Clock::new(u64::MAX, 0).hz(), 1_000_000_000);
    }

    proptest! {
        #[test]
        fn there_and_back(hz in 1_000_000u64..10_000_000_000, ns in 0u64..1 << 50, start in 0u64..1 << 60) {
            let clock = Clock::new(hz, start);
            let back = clock.ns(clock.tsc(ns));
            // 32 bits of fraction and one tick of rounding.
            let error = ns / (1 << 20) + 2 * 1_000_000_000 / hz + 2;
            prop_assert!(back.abs_diff(ns) <= error, "{} became {}", ns, back);
        }

        #[test]
        fn paravirtual_scale_is_exact(hz in 1_000_000u64..10_000_000_000) {
            let (multiplier, shift) = Clock::new(hz, 0).paravirtual_scale();
            let ticks = u128::from(hz) * 1000;
            let shifted = if shift < 0 { ticks >> -shift } else { ticks << shift };
            let ns = (shifted * u128::from(multiplier)) >> 32;
            prop_assert!(ns.abs_diff(1_000_000_000_000) < 2_000_000, "{} ns", ns);
        }
    }
}
