//! Numbers for people, without floating point.

use alloc::{format, string::String};

/// Bytes with a binary unit and three digits: `512 B`, `1.5 MiB`, `768 MiB`.
#[must_use]
pub fn bytes(amount: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if amount < 1024 {
        return format!("{amount} B");
    }
    let power = (amount.ilog2() / 10) as usize;
    let unit = UNITS.get(power - 1).copied().unwrap_or("EiB");
    let scaled = (u128::from(amount) * 10) >> (10 * power);
    if scaled < 100 && !scaled.is_multiple_of(10) {
        format!("{}.{} {unit}", scaled / 10, scaled % 10)
    } else {
        format!("{} {unit}", scaled / 10)
    }
}

/// Pages of 4 KiB as bytes.
#[must_use]
pub fn pages(amount: u64) -> String {
    bytes(amount.saturating_mul(tessera_abi::PAGE_SIZE as u64))
}

/// A network card's address: `52:54:00:12:34:56`.
#[must_use]
pub fn mac(address: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = address;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// A count with separators: `1,234,567`.
#[must_use]
pub fn count(amount: u64) -> String {
    let digits = format!("{amount}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// TSC ticks as nanoseconds; saturates.
#[must_use]
pub fn nanoseconds(ticks: u64, hz: u64) -> u64 {
    let amount = u128::from(ticks) * 1_000_000_000 / u128::from(hz.max(1));
    u64::try_from(amount).unwrap_or(u64::MAX)
}

/// A length of time with a fitting unit: `250 ns`, `1.20 ms`, `3.45 s`, `2 h 05 min`, `3 d 04 h`.
#[must_use]
pub fn duration(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let part = |unit: u64, name: &str| {
        let (whole, hundredths) = (nanoseconds / unit, nanoseconds % unit / (unit / 100));
        if whole >= 100 {
            format!("{whole} {name}")
        } else {
            format!("{whole}.{hundredths:02} {name}")
        }
    };
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => part(1_000, "us"),
        1_000_000..1_000_000_000 => part(1_000_000, "ms"),
        _ if seconds < 60 => part(1_000_000_000, "s"),
        _ if seconds < 3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ if seconds < 86400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Seconds and microseconds since `start`, as log lines carry them: `   12.345678`.
#[must_use]
pub fn stamp(tsc: u64, start: u64, hz: u64) -> String {
    let microseconds = nanoseconds(tsc.saturating_sub(start), hz) / 1000;
    format!("{:>5}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

/// A share in per cent with one decimal: `12.3`. Nothing of nothing is 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    let thousandths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

/// Seconds since 1970 as date and time (UTC): `2026-11-22 21:05:00 UTC`.
#[must_use]
pub fn date(seconds: u64) -> String {
    // Days to civil date: H. Hinnant, "chrono-compatible low-level date algorithms"; years begin in March there.
    let (days, rest) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (amount, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10 MiB"),
            (768 << 20, "768 MiB"),
            ((2 << 30) - 1, "1.9 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
        assert_eq!(pages(256), "1 MiB");
        for (amount, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(amount), text);
        }
        assert_eq!(percent(1, 3), "33.3");
        assert_eq!(percent(5, 0), "500.0");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0");
    }

    #[test]
    fn times() {
        for (amount, text) in [
            (0, "0 ns"),
            (1_500, "1.50 us"),
            (123_456_789, "123 ms"),
            (3_456_789_000, "3.45 s"),
            (125_000_000_000, "2 min 05 s"),
            (7_500_000_000_000, "2 h 05 min"),
            (u64::MAX, "213503 d 23 h"),
        ] {
            assert_eq!(duration(amount), text);
        }
        assert_eq!(stamp(3_500_000_000, 1_750_000_000, 3_500_000_000), "    0.500000");
        assert_eq!(stamp(1, 2, 0), "    0.000000");
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_381_500), "2026-11-22 21:05:00 UTC");
    }
}
