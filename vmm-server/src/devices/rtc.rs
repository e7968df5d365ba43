//! The real-time clock and its CMOS memory (Motorola MC146818A datasheet), at ports 0x70 and 0x71, interrupt line 8.
//!
//! The clock is guest time plus an offset; setting it changes the offset. Times are nanoseconds of guest time.

use serde::{Deserialize, Serialize};

/// Interrupt line.
pub const LINE: usize = 8;
const NEVER: u64 = u64::MAX;
const SECOND: u64 = 1_000_000_000;

const A_DIVIDER: u8 = 0x70;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const C_INTERRUPT: u8 = 0x80;
/// Valid RAM and time.
const D_VALID: u8 = 0x80;
/// Where the century is, as the FADT says.
pub const CENTURY: u8 = 0x32;
/// What firmware does after a reset ("shutdown status").
pub const SHUTDOWN: u8 = 0x0f;
/// There: it has the system that sleeps in RAM go on.
pub const SHUTDOWN_WAKE: u8 = 0xfe;

/// A date, as the registers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// Days since 1970 of a date in the proleptic Gregorian calendar.
fn days_from_date(year: u64, month: u64, day: u64) -> u64 {
    // Years counted from March, so that the leap day is the last of the year.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    days.saturating_sub(719_469)
}

impl Date {
    fn from_seconds(seconds: u64) -> Self {
        let days = seconds / 86_400;
        let shifted = days + 719_468;
        let era_day = shifted % 146_097;
        let year_of_era = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
        let day_of_year = era_day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        Self {
            year: shifted / 146_097 * 400 + year_of_era + carry,
            month,
            day,
            weekday: (days + 4) % 7 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    fn seconds(&self) -> u64 {
        days_from_date(self.year, self.month, self.day) * 86_400 + self.hour * 3600 + self.minute * 60 + self.second
    }
}

/// The clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rtc {
    index: u8,
    #[serde(with = "tessera_vm_state::array")]
    ram: [u8; 128],
    /// Seconds since 1970 at guest time 0, wrapping.
    offset: u64,
    /// Second that the registers show while `B_SET` stops the clock.
    stopped: Option<Date>,
    /// Guest time of the next periodic interrupt, update and so on.
    next_periodic: u64,
    next_update: u64,
}

impl Rtc {
    /// The clock shows `seconds` more at guest time 0 from now on.
    pub const fn shift(&mut self, seconds: u64) {
        self.offset = self.offset.wrapping_add(seconds);
    }

    /// The clock shows `wall_clock` seconds since 1970 at guest time 0.
    #[must_use]
    pub const fn new(wall_clock: u64) -> Self {
        let mut ram = [0; 128];
        ram[0x0a] = 0x26;
        ram[0x0b] = B_24_HOURS;
        ram[0x0d] = D_VALID;
        Self {
            index: 0,
            ram,
            offset: wall_clock,
            stopped: None,
            next_periodic: NEVER,
            next_update: NEVER,
        }
    }

    /// Puts a byte into the memory behind the clock's registers, as a machine's setup does.
    pub const fn store(&mut self, index: u8, value: u8) {
        if index > 0x0d && index < 0x80 && index != CENTURY {
            self.ram[index as usize] = value;
        }
    }

    fn date(&self, now: u64) -> Date {
        self.stopped
            .unwrap_or_else(|| Date::from_seconds(self.offset.wrapping_add(now / SECOND) & 0xff_ffff_ffff))
    }

    fn encode(&self, value: u64) -> u8 {
        if self.ram[0x0b] & B_BINARY != 0 {
            value as u8
        } else {
            ((value / 10) << 4 | (value % 10)) as u8
        }
    }

    fn decode(&self, value: u8) -> u64 {
        let value = u64::from(value);
        if self.ram[0x0b] & B_BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 15)
        }
    }

    fn encode_hour(&self, hour: u64) -> u8 {
        if self.ram[0x0b] & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    fn decode_hour(&self, value: u8) -> u64 {
        if self.ram[0x0b] & B_24_HOURS != 0 {
            return self.decode(value).min(23);
        }
        self.decode(value & 0x7f) % 12 + if value & 0x80 != 0 { 12 } else { 0 }
    }

    /// Reads a byte from 0x70 or 0x71.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        if port & 1 == 0 {
            return 0xff;
        }
        let date = self.date(now);
        match self.index {
            0 => self.encode(date.second),
            2 => self.encode(date.minute),
            4 => self.encode_hour(date.hour),
            6 => self.encode(date.weekday),
            7 => self.encode(date.day),
            8 => self.encode(date.month),
            9 => self.encode(date.year % 100),
            CENTURY => self.encode(date.year / 100),
            // Update in progress: for the last 244 µs of each second.
            0x0a => {
                self.ram[0x0a]
                    | if self.stopped.is_none() && now % SECOND >= SECOND - 244_000 {
                        0x80
                    } else {
                        0
                    }
            }
            0x0c => {
                let value = self.ram[0x0c];
                self.ram[0x0c] = 0;
                value
            }
            index => self.ram[usize::from(index)],
        }
    }

    /// Writes a byte to 0x70 or 0x71.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        if port & 1 == 0 {
            self.index = value & 0x7f;
            return;
        }
        match self.index {
            0 | 2 | 4 | 6..=9 | CENTURY => self.set_date(value, now),
            0x0a => {
                self.ram[0x0a] = value & 0x7f;
                self.schedule(now);
            }
            0x0b => self.set_control(value, now),
            0x0c | 0x0d => (),
            index => self.ram[usize::from(index)] = value,
        }
    }

    fn set_control(&mut self, value: u8, now: u64) {
        if value & B_SET != 0 && self.stopped.is_none() {
            self.stopped = Some(self.date(now));
        }
        // Setting stops updates and their interrupt (datasheet, register B).
        self.ram[0x0b] = if value & B_SET != 0 { value & !UPDATE } else { value };
        if value & B_SET == 0
            && let Some(date) = self.stopped.take()
        {
            self.offset = date.seconds().wrapping_sub(now / SECOND);
        }
        self.raise(0);
        self.schedule(now);
    }

    fn set_date(&mut self, value: u8, now: u64) {
        let mut date = self.date(now);
        let number = self.decode(value);
        match self.index {
            0 => date.second = number.min(59),
            2 => date.minute = number.min(59),
            4 => date.hour = self.decode_hour(value),
            7 => date.day = number.clamp(1, 31),
            8 => date.month = number.clamp(1, 12),
            9 => date.year = date.year / 100 * 100 + number.min(99),
            CENTURY => date.year = number.clamp(19, 99) * 100 + date.year % 100,
            _ => (),
        }
        match &mut self.stopped {
            Some(stopped) => *stopped = date,
            None => self.offset = date.seconds().wrapping_sub(now / SECOND),
        }
    }

    /// Guest time of the next periodic interrupt (datasheet, table 5), in steps of the 32,768 Hz crystal.
    fn next_period(&self, now: u64) -> u64 {
        let step: u128 = match self.ram[0x0a] & 0x0f {
            0 => return NEVER,
            rate @ 1..=2 => 1 << (rate + 6),
            rate => 1 << (rate - 1),
        };
        let tick = u128::from(now) * 32_768 / u128::from(SECOND);
        ((tick / step + 1) * step * u128::from(SECOND)).div_ceil(32_768) as u64
    }

    fn schedule(&mut self, now: u64) {
        let running = self.ram[0x0a] & A_DIVIDER == 0x20;
        let control = self.ram[0x0b];
        self.next_periodic = if running && control & PERIODIC != 0 {
            self.next_period(now)
        } else {
            NEVER
        };
        let updates = running && self.stopped.is_none() && control & (UPDATE | ALARM) != 0;
        self.next_update = if updates { (now / SECOND + 1) * SECOND } else { NEVER };
    }

    /// Guest time at which [`Self::run`] must be called, or `u64::MAX`.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.next_periodic.min(self.next_update)
    }

    /// Raises what is due. Whether the alarm interrupts.
    pub fn run(&mut self, now: u64) -> bool {
        if now < self.deadline() {
            return false;
        }
        let mut alarm = false;
        if now >= self.next_periodic {
            self.raise(PERIODIC);
        }
        if now >= self.next_update {
            self.raise(UPDATE);
            if self.alarm_matches(now) {
                self.raise(ALARM);
                alarm = self.ram[0x0b] & ALARM != 0;
            }
        }
        self.schedule(now);
        alarm
    }

    fn alarm_matches(&self, now: u64) -> bool {
        let date = self.date(now);
        // The two highest bits set: any value (datasheet, "don't care").
        let matches = |register: usize, value: u8| self.ram[register] >= 0xc0 || self.ram[register] == value;
        matches(1, self.encode(date.second)) && matches(3, self.encode(date.minute)) && matches(5, self.encode_hour(date.hour))
    }

    fn raise(&mut self, flags: u8) {
        self.ram[0x0c] |= flags;
        if self.ram[0x0c] & self.ram[0x0b] & (PERIODIC | ALARM | UPDATE) != 0 {
            self.ram[0x0c] |= C_INTERRUPT;
        } else {
            self.ram[0x0c] &= !C_INTERRUPT;
        }
    }

    /// Whether the interrupt line is up.
    #[must_use]
    pub const fn line(&self) -> bool {
        self.ram[0x0c] & C_INTERRUPT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
        rtc.write(0x70, index, now);
        rtc.read(0x71, now)
    }

    fn set(rtc: &mut Rtc, index: u8, value: u8, now: u64) {
        rtc.write(0x70, index, now);
        rtc.write(0x71, value, now);
    }

    #[test]
    fn shows_the_date() {
        // 2024-02-29 23:59:58 UTC, a Thursday.
        let mut rtc = Rtc::new(1_709_251_198);
        let read = |rtc: &mut Rtc, now| [CENTURY, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, index, now));
        assert_eq!(read(&mut rtc, 0), [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]);
        assert_eq!(read(&mut rtc, 2 * SECOND), [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x00, 0x00]);
        set(&mut rtc, 0x0b, B_BINARY, 0);
        assert_eq!(get(&mut rtc, 4, 0), 11 | 0x80, "twelve-hour mode");
        assert_eq!(get(&mut rtc, 7, 0), 29);
    }

    #[test]
    fn can_be_set() {
        let mut rtc = Rtc::new(0);
        set(&mut rtc, 0x0b, B_SET | B_BINARY | B_24_HOURS, 0);
        for (index, value) in [(CENTURY, 20), (9, 26), (8, 11), (7, 22), (4, 21), (2, 30), (0, 5)] {
            set(&mut rtc, index, value, 0);
        }
        assert_eq!(get(&mut rtc, 0, 10 * SECOND), 5, "stands while it is set");
        set(&mut rtc, 0x0b, B_BINARY | B_24_HOURS, 10 * SECOND);
        assert_eq!(get(&mut rtc, 0, 12 * SECOND), 7);
        assert_eq!(get(&mut rtc, 9, 12 * SECOND), 26);
    }

    #[test]
    fn interrupts() {
        let mut rtc = Rtc::new(0);
        assert_eq!(rtc.deadline(), NEVER);
        set(&mut rtc, 0x0b, UPDATE | B_24_HOURS, SECOND / 2);
        assert_eq!(rtc.deadline(), SECOND);
        rtc.run(SECOND);
        assert!(rtc.line());
        assert_eq!(get(&mut rtc, 0x0c, SECOND), C_INTERRUPT | UPDATE);
        assert!(!rtc.line());
        set(&mut rtc, 0x0b, PERIODIC | B_24_HOURS, SECOND);
        assert_eq!(rtc.deadline() - SECOND, SECOND.div_ceil(1024));
        for (register, value) in [(1, 3), (3, 0xff), (5, 0xff)] {
            set(&mut rtc, register, value, SECOND);
        }
        set(&mut rtc, 0x0b, ALARM | B_24_HOURS, SECOND);
        assert!(!rtc.run(2 * SECOND));
        assert!(!rtc.line(), "updates do not interrupt unless asked");
        assert!(rtc.run(3 * SECOND), "the alarm");
        assert!(rtc.line());
    }

    proptest! {
        #[test]
        fn dates_there_and_back(seconds in 0u64..200_000_000_000) {
            prop_assert_eq!(Date::from_seconds(seconds).seconds(), seconds);
        }

        #[test]
        fn survives_anything(operations in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u8>(), 0u64..3_000_000_000), 1..300)) {
            let mut rtc = Rtc::new(1_700_000_000);
            let mut now = 0;
            for (write, index, value, step) in operations {
                now += step;
                if write { set(&mut rtc, index, value, now) } else { get(&mut rtc, index, now); }
                rtc.run(now);
                prop_assert!(rtc.deadline() > now);
            }
        }
    }
}
