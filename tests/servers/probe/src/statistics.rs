//! Minimum, median and maximum of a series.

/// Fewest samples that a figure may rest on.
pub const SAMPLES: usize = 128;

/// What a series comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Smallest.
    pub min: u64,
    /// Middle.
    pub median: u64,
    /// Largest.
    pub max: u64,
}

impl Summary {
    /// Sums up `samples` (it sorts them), less `overhead` each. An empty series gives zeros.
    #[must_use]
    pub fn of(samples: &mut [u64], overhead: u64) -> Self {
        samples.sort_unstable();
        let at = |index: usize| samples.get(index).map_or(0, |sample| sample.saturating_sub(overhead));
        Self {
            min: at(0),
            median: at(samples.len() / 2),
            max: at(samples.len().saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overhead_is_subtracted_once() {
        assert_eq!(
            Summary::of(&mut [30, 10, 20], 5),
            Summary {
                min: 5,
                median: 15,
                max: 25
            }
        );
        assert_eq!(Summary::of(&mut [], 5), Summary { min: 0, median: 0, max: 0 });
    }

    proptest! {
        #[test]
        fn median_lies_between(mut samples in proptest::collection::vec(any::<u64>(), 1..100)) {
            let summary = Summary::of(&mut samples, 0);
            prop_assert!(summary.min <= summary.median && summary.median <= summary.max);
            prop_assert!(samples.iter().filter(|&&s| s <= summary.median).count() * 2 >= samples.len());
        }
    }
}
