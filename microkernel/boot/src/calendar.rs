//! From what the real-time clock chip shows to seconds since 1970.

/// Registers of the clock as they were read (MC146818A data sheet; century from the register that ACPI's FADT names, 0 if none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Seconds.
    pub second: u8,
    /// Minutes.
    pub minute: u8,
    /// Hours; bit 7 is "afternoon" in 12-hour mode.
    pub hour: u8,
    /// Day of the month.
    pub day: u8,
    /// Month.
    pub month: u8,
    /// Last two digits of the year.
    pub year: u8,
    /// Century, or 0.
    pub century: u8,
    /// Status register B: bit 1 24-hour mode, bit 2 binary.
    pub status_b: u8,
}

/// Seconds since 1970 (the clock is taken to run on UTC), or `None` if the registers show no date.
#[must_use]
pub fn unix_seconds(raw: Raw) -> Option<u64> {
    let number = |value: u8| -> Option<u64> {
        if raw.status_b & 4 != 0 {
            return Some(value.into());
        }
        (value & 0xf < 10 && value >> 4 < 10).then(|| u64::from(value >> 4) * 10 + u64::from(value & 0xf))
    };
    let mut hour = number(raw.hour & 0x7f)?;
    if raw.status_b & 2 == 0 {
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour = hour % 12 + if raw.hour & 0x80 != 0 { 12 } else { 0 };
    } else if raw.hour & 0x80 != 0 {
        return None;
    }
    let (second, minute) = (number(raw.second)?, number(raw.minute)?);
    let (day, month, year) = (number(raw.day)?, number(raw.month)?, number(raw.year)?);
    // A century register that makes no sense is one that is not there; the years are then those from 1970 to 2069.
    let century = number(raw.century).filter(|century| (19..=29).contains(century)).unwrap_or(if year < 70 { 20 } else { 19 });
    let year = century * 100 + year;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month_index = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || second > 59 || minute > 59 || hour > 23 || day == 0 || day > *lengths.get(month_index)? {
        return None;
    }
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let days = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969) + lengths[..month_index].iter().sum::<u64>() + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BINARY_24: u8 = 6;

    fn at(year: u64, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Raw {
        Raw { second, minute, hour, day, month, year: (year % 100) as u8, century: (year / 100) as u8, status_b: BINARY_24 }
    }

    #[test]
    fn knows_some_dates() {
        assert_eq!(unix_seconds(at(1970, 1, 1, 0, 0, 0)), Some(0));
        assert_eq!(unix_seconds(at(2000, 2, 29, 12, 0, 0)), Some(951_825_600));
        assert_eq!(unix_seconds(at(2026, 11, 22, 21, 30, 3)), Some(1_795_383_003));
        assert_eq!(unix_seconds(at(2100, 3, 1, 0, 0, 0)), Some(4_107_542_400));
    }

    #[test]
    fn reads_bcd_and_twelve_hours() {
        let raw = Raw { second: 0x59, minute: 0x30, hour: 0x80 | 0x12, day: 0x29, month: 0x02, year: 0x24, century: 0x20, status_b: 0 };
        assert_eq!(unix_seconds(raw), unix_seconds(at(2024, 2, 29, 12, 30, 59)));
        assert_eq!(unix_seconds(Raw { hour: 0x12, ..raw }), unix_seconds(at(2024, 2, 29, 0, 30, 59)));
        assert_eq!(unix_seconds(Raw { century: 0, ..raw }), unix_seconds(raw));
    }

    #[test]
    fn guesses_the_century_that_nobody_names() {
        for (year, meant) in [(99, 1999), (70, 1970), (69, 2069), (26, 2026)] {
            let raw = Raw { year, century: 0, ..at(meant, 5, 4, 3, 2, 1) };
            assert_eq!(unix_seconds(raw), unix_seconds(at(meant, 5, 4, 3, 2, 1)));
        }
    }

    #[test]
    fn refuses_what_is_no_date() {
        assert_eq!(unix_seconds(at(2023, 2, 29, 0, 0, 0)), None);
        assert_eq!(unix_seconds(at(2024, 0, 1, 0, 0, 0)), None);
        assert_eq!(unix_seconds(at(2024, 13, 1, 0, 0, 0)), None);
        assert_eq!(unix_seconds(Raw { second: 0x7f, status_b: 2, ..at(2024, 1, 1, 0, 0, 0) }), None);
    }

    proptest! {
        #[test]
        fn never_panics(second: u8, minute: u8, hour: u8, day: u8, month: u8, year: u8, century: u8, status_b: u8) {
            let _ = unix_seconds(Raw { second, minute, hour, day, month, year, century, status_b });
        }

        #[test]
        fn a_day_has_86400_seconds(year in 1970u64..2199, month in 1u8..=12, day in 1u8..=27) {
            let today = unix_seconds(at(year, month, day, 1, 2, 3)).unwrap();
            prop_assert_eq!(unix_seconds(at(year, month, day + 1, 1, 2, 3)), Some(today + 86_400));
        }
    }
}
