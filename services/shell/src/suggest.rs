//! "Did you mean": the known word nearest to a mistyped one.

use alloc::{vec, vec::Vec};

/// Longest word that is compared.
const MAX_WORD: usize = 64;

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`: the optimal string alignment distance.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(MAX_WORD).collect(), b.chars().take(MAX_WORD).collect());
    let width = b.len() + 1;
    let mut table = vec![0; (a.len() + 1) * width];
    for row in 0..=a.len() {
        for column in 0..=b.len() {
            table[row * width + column] = if row == 0 || column == 0 {
                row + column
            } else {
                let same = usize::from(a[row - 1] != b[column - 1]);
                let mut best = (table[(row - 1) * width + column] + 1)
                    .min(table[row * width + column - 1] + 1)
                    .min(table[(row - 1) * width + column - 1] + same);
                if row > 1 && column > 1 && a[row - 1] == b[column - 2] && a[row - 2] == b[column - 1] {
                    best = best.min(table[(row - 2) * width + column - 2] + 1);
                }
                best
            };
        }
    }
    table[a.len() * width + b.len()]
}

/// The candidate nearest to `word`, if one is near: at most a third of it differs, or it begins with the word.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3).min(3);
    candidates
        .into_iter()
        .map(|candidate| {
            let whole = distance(word, candidate);
            (
                if word.len() > 1 && candidate.starts_with(word) {
                    whole.min(1)
                } else {
                    whole
                },
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_slips_and_not_strangers() {
        let words = ["help", "reboot", "restart", "vm", "ps", "trace"];
        assert_eq!(nearest("hlep", words), Some("help"));
        assert_eq!(nearest("resatrt", words), Some("restart"));
        assert_eq!(nearest("rebo", words), Some("reboot"));
        assert_eq!(nearest("traec", words), Some("trace"));
        assert_eq!(nearest("frobnicate", words), None);
        assert_eq!(nearest("", words), None);
    }

    proptest! {
        #[test]
        fn distance_is_a_distance(a in "\\PC{0,80}", b in "\\PC{0,80}") {
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &b) <= MAX_WORD);
        }
    }
}
