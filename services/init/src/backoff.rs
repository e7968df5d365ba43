//! How long a server that ends often waits for its next start.

/// Milliseconds before the second start in a row; doubled for each further one.
const FIRST_MS: u64 = 100;
/// Longest wait in milliseconds.
const LONGEST_MS: u64 = 10_000;
/// A server that ran this many milliseconds is well again.
const WELL_MS: u64 = 10_000;

/// Counts starts in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The server ended after running for `ran_ms` milliseconds. Returns how many milliseconds to wait before it is started again.
    pub fn ended(&mut self, ran_ms: u64) -> u64 {
        if ran_ms >= WELL_MS {
            self.failures = 0;
        }
        let wait = match self.failures {
            0 => 0,
            failures => (FIRST_MS << (failures - 1).min(20)).min(LONGEST_MS),
        };
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..10).map(|_| backoff.ended(5)).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn a_server_that_ran_long_starts_at_once() {
        let mut backoff = Backoff::default();
        backoff.ended(0);
        backoff.ended(0);
        assert_eq!(backoff.ended(WELL_MS), 0);
        assert_eq!(backoff.ended(0), FIRST_MS);
    }

    #[test]
    fn counting_never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.ended(0), LONGEST_MS);
    }
}
