//! ACPI power management (ACPI 6.5, 4.8): PM1 event and control registers, the PM timer, and the reset register (0xcf9, ICH9 datasheet 13.7.5). There is no SMM; ACPI mode is always on.

use serde::{Deserialize, Serialize};

/// First port of the PM1 event block: status, enable.
pub const EVENT: u16 = 0x600;
/// PM1 control register.
pub const CONTROL: u16 = 0x604;
/// PM timer.
pub const TIMER: u16 = 0x608;
/// One past the last port of the block.
pub const END: u16 = 0x60c;
/// SMI control and enable register (ICH9 datasheet 13.8.3.8).
pub const SMI: u16 = 0x630;
/// What it says: the firmware's software interrupt is set up. There is no SMM, so that nobody needs to.
pub const SMI_READY: u32 = 1 << 5;
/// Reset control register.
pub const RESET: u16 = 0xcf9;
/// What must be written there.
pub const RESET_VALUE: u8 = 6;
/// System control interrupt.
pub const LINE: usize = 9;
/// Value of the sleep type that powers off, as the DSDT says.
pub const SLEEP_OFF: u16 = 5;
/// Value of the sleep type in which RAM alone is kept (S3), likewise.
pub const SLEEP_RAM: u16 = 3;
/// Ticks of the PM timer per second.
const TIMER_HZ: u64 = 3_579_545;

const STATUS_TIMER: u16 = 1;
const STATUS_POWER_BUTTON: u16 = 1 << 8;
const STATUS_RTC: u16 = 1 << 10;
const STATUS_WAKE: u16 = 1 << 15;
const CONTROL_SCI: u16 = 1;
const CONTROL_SLEEP: u16 = 1 << 13;

/// What the guest asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Switch off.
    PowerOff,
    /// Sleep with only RAM kept, until something wakes it.
    Sleep,
    /// Start anew.
    Reset,
    /// Copy between a device and the guest's RAM, which devices do not see.
    Transfer,
    /// Nothing, but its kernel panicked, which is worth telling.
    Panicked,
}

/// The registers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Power {
    status: u16,
    enable: u16,
    control: u16,
    reset: u8,
    /// The machine sleeps.
    asleep: bool,
    /// Something happened that ends sleep.
    woken: bool,
    /// The timer's highest bit when it was last looked at, as its toggling is an event.
    high_bit: bool,
}

fn timer(now: u64) -> u32 {
    // Seconds apart from the rest, so that the product fits: firmware reads the timer millions of times.
    let (seconds, rest) = (now / 1_000_000_000, now % 1_000_000_000);
    seconds.wrapping_mul(TIMER_HZ).wrapping_add(rest * TIMER_HZ / 1_000_000_000) as u32 & 0xff_ffff
}

impl Power {
    /// Reads `width` bytes at `port`.
    pub fn read(&mut self, port: u16, width: u8, now: u64) -> u32 {
        self.run(now);
        let word = match port & !3 {
            EVENT => u32::from(self.status) | u32::from(self.enable) << 16,
            CONTROL => u32::from(self.control | CONTROL_SCI),
            TIMER => timer(now),
            _ => return if port == RESET { u32::from(self.reset) } else { u32::MAX },
        };
        let value = word >> ((port & 3) * 8);
        if width >= 4 { value } else { value & ((1 << (width * 8)) - 1) }
    }

    /// Writes; the answer is what the guest asks for with it.
    pub fn write(&mut self, port: u16, width: u8, value: u32, now: u64) -> Option<Request> {
        self.run(now);
        if port == RESET {
            // A reset happens when bit 2 goes up.
            let old = core::mem::replace(&mut self.reset, value as u8 & 0x0e);
            return (value as u8 & !old & 4 != 0).then_some(Request::Reset);
        }
        for i in 0..u16::from(width.min(4)) {
            let byte = (value >> (i * 8)) as u8;
            if let Some(request) = self.write_byte(port.wrapping_add(i), byte) {
                return Some(request);
            }
        }
        None
    }

    fn write_byte(&mut self, port: u16, byte: u8) -> Option<Request> {
        let (shift, bits) = ((port & 1) * 8, u16::from(byte) << ((port & 1) * 8));
        let keep = !(0xff << shift);
        match port & !1 {
            EVENT => self.status &= !bits,
            0x602 => self.enable = self.enable & keep | bits & (STATUS_TIMER | STATUS_POWER_BUTTON | STATUS_RTC | 1 << 5 | 1 << 9),
            CONTROL => {
                self.control = self.control & keep | bits & !CONTROL_SLEEP & 0x1c06;
                if bits & CONTROL_SLEEP != 0 {
                    match self.control >> 10 & 7 {
                        SLEEP_OFF => return Some(Request::PowerOff),
                        SLEEP_RAM => {
                            self.fall_asleep();
                            return Some(Request::Sleep);
                        }
                        _ => (),
                    }
                }
            }
            _ => (),
        }
        None
    }

    /// An event that has not been cleared keeps the machine from sleeping (4.8.3.1.1).
    fn fall_asleep(&mut self) {
        self.asleep = true;
        self.woken = self.status & (STATUS_POWER_BUTTON | self.enable & STATUS_RTC) != 0;
    }

    /// Whether the machine sleeps.
    #[must_use]
    pub const fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Whether the machine sleeps, and something happened that ends that.
    #[must_use]
    pub const fn is_woken(&self) -> bool {
        self.asleep && self.woken
    }

    /// The machine does not sleep any more; its guest is told that it did. What the guest enabled stays, as that has power throughout.
    pub fn wake(&mut self) {
        (self.asleep, self.woken) = (false, false);
        self.control = 0;
        self.status |= STATUS_WAKE;
    }

    /// Somebody presses the power button, which wakes the machine whatever the guest enabled (4.8.2.2.1).
    pub fn press_button(&mut self) {
        self.status |= STATUS_POWER_BUTTON;
        self.woken = true;
    }

    /// The clock's alarm is due, which wakes the machine if the guest asked for it (4.8.2.4).
    pub fn alarm(&mut self) {
        self.status |= STATUS_RTC;
        self.woken |= self.enable & STATUS_RTC != 0;
    }

    /// Somebody presses a key, which wakes the machine, as most firmware of PCs has it.
    pub fn key(&mut self) {
        self.woken = true;
    }

    /// Guest time at which [`Self::run`] must be called, or `u64::MAX`: the next toggling of the timer's highest bit, if that interrupts.
    #[must_use]
    pub fn deadline(&self, now: u64) -> u64 {
        if self.enable & STATUS_TIMER == 0 || self.status & STATUS_TIMER != 0 {
            return u64::MAX;
        }
        let ticks = (u128::from(now) * u128::from(TIMER_HZ) / 1_000_000_000) as u64;
        let next = ((ticks >> 23) + 1) << 23;
        (u128::from(next) * 1_000_000_000).div_ceil(u128::from(TIMER_HZ)) as u64
    }

    /// Notices that the timer's highest bit toggled.
    pub fn run(&mut self, now: u64) {
        let high = timer(now) >> 23 & 1 != 0;
        if high != self.high_bit {
            self.high_bit = high;
            self.status |= STATUS_TIMER;
        }
    }

    /// Whether the system control interrupt is up.
    #[must_use]
    pub const fn line(&self) -> bool {
        self.status & self.enable & (STATUS_TIMER | STATUS_POWER_BUTTON | STATUS_RTC) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn power_off_needs_type_and_enable() {
        let mut power = Power::default();
        assert_eq!(power.read(CONTROL, 2, 0) & 1, 1, "ACPI is on");
        assert_eq!(power.write(CONTROL, 2, 5 << 10, 0), None);
        assert_eq!(power.write(CONTROL, 2, 4 << 10 | 1 << 13, 0), None, "neither S5 nor S3");
        assert_eq!(power.write(CONTROL, 2, 5 << 10 | 1 << 13, 0), Some(Request::PowerOff));
    }

    fn asleep(enable: u32) -> Power {
        let mut power = Power::default();
        power.write(0x602, 2, enable, 0);
        assert_eq!(power.write(CONTROL, 2, 3 << 10 | 1 << 13, 0), Some(Request::Sleep));
        assert!(power.is_asleep());
        power
    }

    #[test]
    fn sleeps_until_something_wakes_it() {
        let mut power = asleep(0);
        power.alarm();
        assert!(!power.is_woken(), "nobody asked for the alarm");
        power.press_button();
        assert!(power.is_woken(), "whatever is enabled");
        power.wake();
        assert!(!power.is_asleep() && !power.is_woken());
        assert_eq!(power.read(EVENT, 2, 0), 0x8500, "woken, by the button; the alarm is told too");
        let mut power = asleep(1 << 10);
        power.alarm();
        assert!(power.is_woken());
        power.wake();
        assert!(power.line(), "the alarm is an event");
        let mut power = asleep(0);
        power.key();
        assert!(power.is_woken());
    }

    #[test]
    fn does_not_sleep_over_what_happened_before() {
        let mut power = Power::default();
        power.press_button();
        power.write(CONTROL, 2, 3 << 10 | 1 << 13, 0);
        assert!(power.is_woken());
        let mut power = Power::default();
        power.press_button();
        power.write(EVENT, 2, 1 << 8, 0);
        power.key();
        power.write(CONTROL, 2, 3 << 10 | 1 << 13, 0);
        assert!(!power.is_woken(), "it was cleared, and the key was for who was awake");
    }

    #[test]
    fn reset_register() {
        let mut power = Power::default();
        assert_eq!(power.write(RESET, 1, 2, 0), None);
        assert_eq!(power.write(RESET, 1, 6, 0), Some(Request::Reset));
    }

    #[test]
    fn power_button_interrupts_until_cleared() {
        let mut power = Power::default();
        power.press_button();
        assert!(!power.line());
        power.write(0x602, 2, 1 << 8, 0);
        assert!(power.line());
        power.write(EVENT, 2, 1 << 8, 0);
        assert!(!power.line());
    }

    #[test]
    fn the_timer_runs_at_its_rate() {
        let mut power = Power::default();
        let a = power.read(TIMER, 4, 1_000_000_000);
        let b = power.read(TIMER, 4, 2_000_000_000);
        assert_eq!(b - a, TIMER_HZ as u32);
        power.write(0x602, 2, 1, 2_000_000_000);
        power.write(EVENT, 2, 1, 2_000_000_000);
        let deadline = power.deadline(2_000_000_000);
        power.run(deadline);
        assert!(power.line());
        assert_eq!(power.read(TIMER, 4, deadline) & 0x7f_ffff, 0);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((any::<bool>(), EVENT..END, prop::sample::select(&[1u8, 2, 4]), any::<u32>(), 0u64..1 << 40), 1..200)) {
            let mut power = Power::default();
            for (write, port, width, value, now) in operations {
                if write { power.write(port, width, value, now); } else { power.read(port, width, now); }
                prop_assert!(power.deadline(now) > now);
            }
        }
    }
}
