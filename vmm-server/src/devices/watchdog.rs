//! A watchdog: the timer of Intel's 6300ESB I/O controller hub (6300ESB datasheet, chapter 17), as QEMU has it. A guest that does not come by for two periods in turn is reset, or switched off.

use super::pci::SavedFunction;
use super::pci::function::{Function, Space};
use super::power::Request;
use serde::{Deserialize, Serialize};

/// Device number on the bus.
pub const SLOT: u8 = 28;
/// Where its registers are before firmware places them, and their length.
const ADDRESS: u32 = 0xfeb1_0000;
const LENGTH: u32 = 0x10;
/// Configuration register: interrupt kind (3: none), clock of 1 MHz instead of 1 kHz, no output.
const CONFIGURATION: usize = 0x60 / 4;
const FAST: u32 = 1 << 2;
const NO_OUTPUT: u32 = 1 << 5;
/// Lock register: locked, enabled, free running.
const LOCK: usize = 0x68 / 4;
const LOCKED: u32 = 1;
const ENABLED: u32 = 2;
const FREE: u32 = 4;
/// Registers: first and second period, interrupt status, reload.
const FIRST: u32 = 0;
const SECOND: u32 = 4;
const RELOAD: u32 = 0xc;
/// Values that open the registers for the next write.
const OPEN: [u16; 2] = [0x80, 0x86];
/// Reload: begin anew; the second period ended before.
const AGAIN: u16 = 1 << 8;
const TIMED_OUT: u16 = 1 << 9;
/// Bits of a period.
const PERIOD: u32 = 0xf_ffff;
/// Nanoseconds of a tick of the bus' clock, 33 MHz.
const TICK: u64 = 30;

/// What happens to a guest that does not come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is reset.
    Reset,
    /// It is switched off.
    PowerOff,
}

/// What a suspended machine's watchdog knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedWatchdog {
    function: SavedFunction,
    periods: [u32; 2],
    opened: u8,
    begins: bool,
    second: bool,
    until: u64,
    timed_out: bool,
    timeouts: u32,
}

/// The device.
#[derive(Clone, Debug)]
pub struct Watchdog {
    function: Function,
    action: Action,
    periods: [u32; 2],
    /// How far it is with opening its registers: writes of the key so far.
    opened: u8,
    /// The first period is to begin.
    begins: bool,
    /// Which period runs, and until when; `u64::MAX`: none.
    second: bool,
    until: u64,
    /// The last reset was its own.
    timed_out: bool,
    /// How often the guest did not come by.
    timeouts: u32,
}

impl Watchdog {
    /// What it knows, but for its action, which belongs to the machine.
    #[must_use]
    pub const fn save(&self) -> SavedWatchdog {
        SavedWatchdog {
            function: self.function.save(),
            periods: self.periods,
            opened: self.opened,
            begins: self.begins,
            second: self.second,
            until: self.until,
            timed_out: self.timed_out,
            timeouts: self.timeouts,
        }
    }

    /// Makes it what another machine's was.
    pub fn restore(&mut self, saved: &SavedWatchdog) {
        self.function.restore(&saved.function);
        // A register has no more bits than this.
        self.periods = saved.periods.map(|period| period & PERIOD);
        self.opened = saved.opened.min(2);
        self.begins = saved.begins;
        self.second = saved.second;
        self.until = saved.until;
        self.timed_out = saved.timed_out;
        self.timeouts = saved.timeouts;
    }

    /// After power-on: off.
    #[must_use]
    pub const fn new(action: Action) -> Self {
        let mut function = Function::new(SLOT, 0x8086, 0x25ab, 0x0880_0000);
        function.set_range(0, Space::Memory, LENGTH, ADDRESS);
        function.set_register(CONFIGURATION, 0, 0xffff);
        function.set_register(LOCK, 0, LOCKED | ENABLED | FREE);
        Self {
            function,
            action,
            periods: [PERIOD; 2],
            opened: 0,
            begins: false,
            second: false,
            until: u64::MAX,
            timed_out: false,
            timeouts: 0,
        }
    }

    /// Power-on state. What it did stays known.
    pub const fn reset(&mut self) {
        *self = Self {
            timed_out: self.timed_out,
            timeouts: self.timeouts,
            ..Self::new(self.action)
        };
    }

    /// Its configuration space, to be read.
    #[must_use]
    pub const fn function(&self) -> &Function {
        &self.function
    }

    /// Writes the bits of `mask` of a register of its configuration space.
    pub const fn config_write(&mut self, register: usize, mask: u32, value: u32) {
        let before = self.function.read(LOCK);
        if register == LOCK && before & LOCKED != 0 {
            return;
        }
        self.function.write(register, mask, value);
        let after = self.function.read(LOCK);
        if after & ENABLED == 0 {
            (self.until, self.begins) = (u64::MAX, false);
        } else if before & ENABLED == 0 {
            self.begins = true;
        }
    }

    /// Begins what a register access asked for; the device learns of the time only here.
    pub const fn settle(&mut self, now: u64) {
        if core::mem::replace(&mut self.begins, false) {
            self.begin(false, now);
        }
    }

    const fn begin(&mut self, second: bool, now: u64) {
        self.second = second;
        let shift = if self.function.read(CONFIGURATION) & FAST != 0 { 5 } else { 15 };
        // A period of 0 is one tick.
        let ticks = (self.periods[second as usize] as u64 + 1) << shift;
        self.until = now.saturating_add(ticks * TICK);
    }

    /// Reads its range; `None` if the address is not in it.
    #[must_use]
    pub fn range_read(&self, address: u64, width: u8) -> Option<u64> {
        let offset = self.function.offset(0, Space::Memory, address, width)?;
        let word = match offset & !3 {
            RELOAD if self.timed_out => u32::from(TIMED_OUT),
            _ => 0,
        };
        let value = u64::from(word >> (offset % 4 * 8));
        Some(if width >= 8 { value } else { value & ((1 << (width * 8)) - 1) })
    }

    /// Writes; false if the address is not in its range.
    pub fn range_write(&mut self, address: u64, width: u8, value: u64) -> bool {
        let Some(offset) = self.function.offset(0, Space::Memory, address, width) else {
            return false;
        };
        let word = value as u16;
        if offset == RELOAD && OPEN.get(usize::from(self.opened)) == Some(&word) {
            self.opened += 1;
            return true;
        }
        // Only the write behind the whole key counts.
        if core::mem::take(&mut self.opened) != OPEN.len() as u8 {
            return true;
        }
        match offset {
            FIRST => self.periods[0] = value as u32 & PERIOD,
            SECOND => self.periods[1] = value as u32 & PERIOD,
            RELOAD => {
                self.timed_out &= word & TIMED_OUT == 0;
                self.begins |= word & AGAIN != 0 && self.until != u64::MAX;
            }
            _ => (),
        }
        true
    }

    /// Guest time at which [`Self::run`] must be called, or `u64::MAX`.
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        self.until
    }

    /// Does what is due; the answer is what is to happen to the machine.
    pub const fn run(&mut self, now: u64) -> Option<Request> {
        self.settle(now);
        if now < self.until {
            return None;
        }
        if !self.second {
            self.begin(true, now);
            return None;
        }
        if self.function.read(LOCK) & FREE != 0 {
            self.begin(false, now);
        } else {
            self.until = u64::MAX;
        }
        if self.function.read(CONFIGURATION) & NO_OUTPUT != 0 {
            return None;
        }
        self.timed_out = true;
        self.timeouts = self.timeouts.saturating_add(1);
        Some(match self.action {
            Action::Reset => Request::Reset,
            Action::PowerOff => Request::PowerOff,
        })
    }

    /// How often the guest did not come by.
    #[must_use]
    pub const fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// It had the machine switched off.
    #[must_use]
    pub const fn switched_off(&self) -> bool {
        self.timeouts > 0 && matches!(self.action, Action::PowerOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::pci::function::COMMAND_MEMORY;
    use proptest::prelude::*;

    const AT: u64 = ADDRESS as u64;

    fn device() -> Watchdog {
        let mut device = Watchdog::new(Action::Reset);
        device.config_write(1, u32::MAX, COMMAND_MEMORY);
        device
    }

    fn open(device: &mut Watchdog) {
        for key in OPEN {
            assert!(device.range_write(AT + 0xc, 2, key.into()));
        }
    }

    /// What Linux's driver does to begin with a timeout of 2 s (drivers/watchdog/i6300esb.c).
    fn begin(device: &mut Watchdog) {
        device.config_write(CONFIGURATION, 0xffff, 3);
        device.config_write(LOCK, 0xff, 0);
        for register in [0, 4] {
            open(device);
            device.range_write(AT + register, 4, 2 << 9);
        }
        open(device);
        device.range_write(AT + 0xc, 2, AGAIN.into());
        device.config_write(LOCK, 0xff, ENABLED);
        device.settle(0);
    }

    #[test]
    fn a_guest_that_does_not_come_by_is_reset() {
        let mut device = device();
        assert_eq!(device.deadline(), u64::MAX);
        begin(&mut device);
        let first = device.deadline();
        assert!((900_000_000..1_100_000_000).contains(&first), "{first}");
        assert_eq!(device.run(first - 1), None);
        // It comes by in the second period.
        assert_eq!(device.run(first), None);
        assert!(device.deadline() > first);
        open(&mut device);
        device.range_write(AT + 0xc, 2, AGAIN.into());
        device.settle(first + 5);
        assert_eq!(device.deadline(), 2 * first + 5);
        assert_eq!(device.run(2 * first + 5), None);
        assert_eq!(device.run(device.deadline()), Some(Request::Reset));
        assert_eq!((device.timeouts(), device.deadline()), (1, u64::MAX));
        device.reset();
        device.config_write(1, u32::MAX, COMMAND_MEMORY);
        assert_eq!(
            device.range_read(AT + 0xc, 2),
            Some(TIMED_OUT.into()),
            "what happened is seen after the reset"
        );
        open(&mut device);
        device.range_write(AT + 0xc, 2, TIMED_OUT.into());
        assert_eq!((device.range_read(AT + 0xc, 2), device.timeouts()), (Some(0), 1));
    }

    #[test]
    fn can_be_switched_off_unless_it_is_locked() {
        let mut device = device();
        begin(&mut device);
        device.config_write(LOCK, 0xff, 0);
        assert_eq!(device.deadline(), u64::MAX);
        device.config_write(LOCK, 0xff, ENABLED | LOCKED);
        device.config_write(LOCK, 0xff, 0);
        device.settle(6);
        assert_ne!(device.deadline(), u64::MAX);
    }

    #[test]
    fn registers_are_closed_without_the_key() {
        let mut device = device();
        device.range_write(AT, 4, 5);
        device.range_write(AT + 0xc, 2, 0x86);
        device.range_write(AT, 4, 5);
        assert_eq!(device.periods, [PERIOD; 2]);
        open(&mut device);
        device.range_write(AT, 4, 5);
        device.range_write(AT, 4, 6);
        assert_eq!(device.periods, [5, PERIOD]);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..4, 0u64..20, prop::sample::select(&[1u8, 2, 4, 8]), any::<u32>(), 0u64..3_000_000_000), 1..300)) {
            let mut device = device();
            let mut now = 0;
            for (kind, place, width, value, step) in operations {
                now += step;
                // Half of the writes are of what means something.
                let word = if value & 1 == 0 { [0x80, 0x86, 0x100, 0x200][place as usize % 4] } else { value };
                match kind {
                    0 => device.config_write([LOCK, CONFIGURATION, 1, 4][place as usize % 4], u32::MAX, value >> 3),
                    1 => { device.range_write(AT + place, width, word.into()); }
                    2 => { if let Some(got) = device.range_read(AT + place, width) { prop_assert!(width == 8 || got >> (width * 8) == 0); } }
                    _ => { let before = device.timeouts(); prop_assert_eq!(device.run(now).is_some(), device.timeouts() > before); prop_assert!(device.deadline() > now); }
                }
            }
        }
    }
}
