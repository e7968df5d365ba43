//! Sizes as people type them.

/// Bytes: a whole number, with K, M, G or T behind it for the powers of 1024.
pub fn parse(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match word.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (word, size) in [("512", 512), ("4k", 4096), ("10G", 10 << 30), ("3MiB", 3 << 20), ("1T", 1 << 40)] {
            assert_eq!(parse(word), Some(size), "{word}");
        }
        for word in ["", "G", "-1", "1.5G", "1P", "1GG", "18446744073709551615K"] {
            assert_eq!(parse(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn anything_typed_is_answered(word in ".{0,12}") {
            let _ = parse(&word);
        }
    }
}
