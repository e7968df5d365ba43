//! Traffic shaping by token buckets (RFC 2697, without the colours).

use tessera_vswitch::Limits;

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;
/// Nanoseconds of traffic at the peak rate that may go at once, since nobody looks more often.
const GRAIN: u64 = 1_000_000;

/// A bucket. It may be emptied beyond its bottom by one packet, whose excess the next ones wait for, so that the rate is exact however long packets are.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Bits in a second.
    rate: u64,
    /// Most bits.
    depth: u128,
    /// Bits, times [`SECOND`], so that nothing is lost by rounding.
    level: i128,
}

impl Bucket {
    fn new(rate: u64, depth: u64) -> Self {
        let depth = u128::from(depth.max(1)) * SECOND;
        Self {
            rate: rate.max(1),
            depth,
            level: depth as i128,
        }
    }

    fn fill(&mut self, elapsed: u64) {
        let more = i128::from(elapsed) * i128::from(self.rate);
        self.level = (self.level + more).min(self.depth as i128);
    }

    /// Nanoseconds until there is something in it.
    fn wait(&self) -> u64 {
        if self.level > 0 {
            return 0;
        }
        // At least one bit's part is missing, so the wait is not 0.
        u64::try_from((1 - self.level) as u128 / u128::from(self.rate))
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }
}

/// What a port may send, or be given.
#[derive(Clone, Copy, Debug)]
pub struct Shaper {
    long: Bucket,
    short: Bucket,
    filled: u64,
}

impl Shaper {
    /// Full buckets, at a time in nanoseconds.
    #[must_use]
    pub fn new(limits: Limits, now: u64) -> Self {
        let peak = limits.peak.max(limits.average);
        let grain = u64::try_from(u128::from(peak) * u128::from(GRAIN) / SECOND).unwrap_or(u64::MAX);
        Self {
            long: Bucket::new(limits.average, limits.burst.saturating_mul(8)),
            short: Bucket::new(peak, grain),
            filled: now,
        }
    }

    /// Lets a packet of `bytes` pass.
    ///
    /// # Errors
    /// Not before that time, in nanoseconds.
    pub fn pass(&mut self, now: u64, bytes: u32) -> Result<(), u64> {
        let elapsed = now.saturating_sub(self.filled);
        self.filled = self.filled.max(now);
        self.long.fill(elapsed);
        self.short.fill(elapsed);
        let wait = self.long.wait().max(self.short.wait());
        if wait > 0 {
            return Err(now.saturating_add(wait));
        }
        let taken = i128::from(bytes) * 8 * SECOND as i128;
        self.long.level -= taken;
        self.short.level -= taken;
        Ok(())
    }

    /// A packet of `bytes` that was let pass did not go after all.
    pub fn put_back(&mut self, bytes: u32) {
        let bits = i128::from(bytes) * 8 * SECOND as i128;
        for bucket in [&mut self.long, &mut self.short] {
            bucket.level = (bucket.level + bits).min(bucket.depth as i128);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ten_seconds_carry_the_average_and_one_burst(average in 1_000_000u64..10_000_000_000, factor in 1u64..4, burst in 1u64..100_000, sizes in proptest::collection::vec(64u32..65_000, 1..20)) {
            let mut shaper = Shaper::new(Limits { average, peak: average * factor, burst }, 0);
            let (mut now, mut bytes, mut rounds) = (0u64, 0u64, 0u32);
            // Large packets keep the number of rounds small at high rates.
            let scale = u32::try_from(average / 500_000_000 + 1).unwrap();
            while now < 10_000_000_000 {
                let size = sizes[rounds as usize % sizes.len()].saturating_mul(scale);
                rounds += 1;
                match shaper.pass(now, size) {
                    Ok(()) => bytes += u64::from(size),
                    Err(later) => { prop_assert!(later > now); now = later; }
                }
            }
            let allowed = average / 8 * 10;
            let slack = burst + 2 * 65_000 * u64::from(scale);
            prop_assert!(bytes <= allowed + slack, "{bytes} of {allowed}");
            prop_assert!(bytes + slack >= allowed, "{bytes} of {allowed}");
        }
    }

    #[test]
    fn a_burst_goes_at_the_peak() {
        let mut shaper = Shaper::new(
            Limits {
                average: 8_000_000,
                peak: 80_000_000,
                burst: 1_000_000,
            },
            0,
        );
        let (mut now, mut bytes) = (0, 0u64);
        while now < 100_000_000 {
            match shaper.pass(now, 1000) {
                Ok(()) => bytes += 1000,
                Err(later) => now = later,
            }
        }
        // 0.1 s at 10 MB/s, not at 1 MB/s, and not more.
        assert!((980_000..=1_020_000).contains(&bytes), "{bytes}");
    }
}
