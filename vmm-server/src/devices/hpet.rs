//! The high precision event timer (IA-PC HPET Specification 1.0a): a counter of 100 MHz and three timers, which interrupt through the I/O APIC, or in the place of PIT and RTC. Only in machines with firmware.

use serde::{Deserialize, Serialize};

/// Where its registers are.
pub const ADDRESS: u64 = 0xfed0_0000;
/// Length of its range.
pub const LENGTH: u64 = 0x400;
/// Nanoseconds of a tick.
const TICK: u64 = 10;
/// Timers.
const TIMERS: usize = 3;
/// Pins of the I/O APIC that timers can be routed to, as bits.
pub const PINS: u32 = 0x00f0_0000;
/// Pins of timers 0 and 1 in the place of PIT and RTC (2.3.5).
const REPLACED: [u32; 2] = [super::chipset::TIMER_PIN as u32, super::rtc::LINE as u32];
/// A timer does not interrupt more often than this, in nanoseconds: its guest would get to nothing else.
const LEAST: u64 = 10_000;
/// The same in ticks.
pub const LEAST_TICKS: u16 = (LEAST / TICK) as u16;

/// Capabilities (2.3.4): femtoseconds of a tick, vendor, in place of PIT and RTC, 64 bits, last timer, revision.
pub const CAPABILITIES: u64 = (TICK * 1_000_000) << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;
/// General configuration: counts; in the place of PIT and RTC.
const ENABLED: u64 = 1;
const REPLACING: u64 = 2;
/// A timer's configuration (2.3.8): level-triggered, interrupts, periodic, can be, 64 bits, the accumulator is set, kept to 32 bits.
const LEVEL: u64 = 1 << 1;
const INTERRUPTS: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const CAN_BE_PERIODIC: u64 = 1 << 4;
const WIDE: u64 = 1 << 5;
const SETS: u64 = 1 << 6;
const NARROW: u64 = 1 << 8;
const ROUTE: u64 = 0x1f << 9;
const WRITABLE: u64 = LEVEL | INTERRUPTS | PERIODIC | SETS | NARROW | ROUTE;
const FIXED: u64 = CAN_BE_PERIODIC | WIDE | (PINS as u64) << 32;

/// A timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Timer {
    configuration: u64,
    comparator: u64,
    period: u64,
    /// It waits for the counter to reach the comparator.
    armed: bool,
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hpet {
    configuration: u64,
    status: u32,
    /// The counter at guest time `since`; it stands still unless enabled.
    counter: u64,
    since: u64,
    timers: [Timer; TIMERS],
    /// Pins with an edge that was not seen yet.
    edges: u32,
}

impl Default for Hpet {
    fn default() -> Self {
        Self::new()
    }
}

/// `value` with those bytes that an access of `width` bytes at `offset` of a register reaches taken from `new`.
const fn merged(value: u64, offset: u64, width: u8, new: u64) -> u64 {
    let shift = offset % 8 * 8;
    let bits = if width >= 8 { u64::MAX } else { (1 << (width as u64 * 8)) - 1 };
    value & !(bits << shift) | (new & bits) << shift
}

impl Hpet {
    /// After power-on: the counter stands still.
    #[must_use]
    pub const fn new() -> Self {
        let timer = Timer {
            configuration: FIXED,
            comparator: u64::MAX,
            period: 0,
            armed: false,
        };
        Self {
            configuration: 0,
            status: 0,
            counter: 0,
            since: 0,
            timers: [timer; TIMERS],
            edges: 0,
        }
    }

    const fn is_enabled(&self) -> bool {
        self.configuration & ENABLED != 0
    }

    /// Whether it interrupts in the place of PIT and RTC, which do not.
    #[must_use]
    pub const fn replaces(&self) -> bool {
        self.configuration & (ENABLED | REPLACING) == ENABLED | REPLACING
    }

    const fn counter(&self, now: u64) -> u64 {
        if self.is_enabled() {
            self.counter.wrapping_add(now.saturating_sub(self.since) / TICK)
        } else {
            self.counter
        }
    }

    /// The timer that a register belongs to, and its place among that timer's.
    fn timer(&mut self, offset: u64) -> Option<(&mut Timer, u64)> {
        let timer = self.timers.get_mut((offset.checked_sub(0x100)? / 0x20) as usize)?;
        Some((timer, offset & 0x18))
    }

    /// Reads `width` bytes at `offset` of the range; parts of registers can be read.
    pub fn read(&mut self, offset: u64, width: u8, now: u64) -> u64 {
        self.run(now);
        let register = match offset & !7 {
            0 => CAPABILITIES,
            0x10 => self.configuration,
            0x20 => self.status.into(),
            0xf0 => self.counter(now),
            offset => match self.timer(offset) {
                Some((timer, 0)) => timer.configuration,
                Some((timer, 8)) if timer.configuration & NARROW != 0 => timer.comparator & u64::from(u32::MAX),
                Some((timer, 8)) => timer.comparator,
                _ => 0,
            },
        };
        let value = register >> (offset % 8 * 8);
        if width >= 8 { value } else { value & ((1 << (width * 8)) - 1) }
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, width: u8, value: u64, now: u64) {
        self.run(now);
        match offset & !7 {
            0x10 => {
                let new = merged(self.configuration, offset, width, value) & (ENABLED | REPLACING);
                (self.counter, self.since) = (self.counter(now), now);
                self.configuration = new;
            }
            0x20 => self.status &= !(merged(0, offset, width, value) as u32),
            0xf0 => {
                (self.counter, self.since) = (merged(self.counter(now), offset, width, value), now);
                // What lies ahead again is reached again.
                for timer in &mut self.timers {
                    timer.armed |= timer.comparator.wrapping_sub(self.counter).cast_signed() > 0;
                }
            }
            register => {
                let Some((timer, place)) = self.timer(register) else { return };
                match place {
                    0 => {
                        let new = merged(timer.configuration, offset, width, value) & WRITABLE | FIXED;
                        timer.configuration = new;
                        if new & LEVEL == 0 {
                            let number = (register - 0x100) / 0x20;
                            self.status &= !(1 << number);
                        }
                    }
                    8 => timer.compare(offset, width, value),
                    _ => (),
                }
            }
        }
        self.run(now);
    }

    /// Raises what is due.
    pub fn run(&mut self, now: u64) {
        if !self.is_enabled() {
            return;
        }
        let counter = self.counter(now);
        for number in 0..TIMERS {
            if self.timers[number].ticks(counter) == Some(0) {
                let timer = &mut self.timers[number];
                timer.passed(counter);
                if timer.configuration & INTERRUPTS == 0 {
                    continue;
                }
                if timer.configuration & LEVEL != 0 {
                    self.status |= 1 << number;
                } else {
                    self.edges |= self.pin(number);
                }
            }
        }
    }

    /// The bit of the I/O APIC's pin that a timer is wired to; 0: none.
    fn pin(&self, number: usize) -> u32 {
        match REPLACED.get(number).filter(|_| self.replaces()) {
            Some(pin) => 1 << pin,
            None => 1 << ((self.timers[number].configuration & ROUTE) >> 9) & PINS,
        }
    }

    /// Guest time at which [`Self::run`] must be called, or `u64::MAX`. `now` is the time of the last call.
    #[must_use]
    pub fn deadline(&self, now: u64) -> u64 {
        if !self.is_enabled() {
            return u64::MAX;
        }
        let counter = self.counter(now);
        let interrupts = self.timers.iter().filter(|timer| timer.configuration & INTERRUPTS != 0);
        let next = interrupts.filter_map(|timer| timer.ticks(counter)).min();
        // The last tick began up to a tick ago.
        next.map_or(u64::MAX, |ticks| now.saturating_add(ticks.saturating_mul(TICK).max(LEAST)))
    }

    /// Pins that are asked for now, as bits.
    #[must_use]
    pub fn levels(&self) -> u32 {
        let asked = (0..TIMERS).filter(|number| self.status >> number & 1 != 0);
        asked.fold(0, |pins, number| pins | self.pin(number))
    }

    /// Takes the pins that had an edge, as bits.
    pub const fn take_edges(&mut self) -> u32 {
        core::mem::replace(&mut self.edges, 0)
    }
}

impl Timer {
    /// A write to the comparator (2.3.9.2): of a periodic timer it is the period, and the comparator too if that was said before.
    const fn compare(&mut self, offset: u64, width: u8, value: u64) {
        let periodic = self.configuration & PERIODIC != 0;
        if !periodic || self.configuration & SETS != 0 {
            self.comparator = merged(self.comparator, offset, width, value);
        }
        if periodic {
            self.period = merged(self.period, offset, width, value);
        }
        // With 32-bit accesses the upper half follows.
        if width >= 8 || offset % 8 >= 4 || self.configuration & NARROW != 0 {
            self.configuration &= !SETS;
        }
        self.armed = true;
    }

    /// Ticks until the comparator is reached, 0 if it was passed; `None`: it does not wait for it.
    const fn ticks(&self, counter: u64) -> Option<u64> {
        if !self.armed {
            return None;
        }
        let ticks = self.comparator.wrapping_sub(counter);
        let ticks = if self.configuration & NARROW != 0 {
            ticks as u32 as i32 as i64
        } else {
            ticks as i64
        };
        Some(if ticks > 0 { ticks as u64 } else { 0 })
    }

    /// The comparator was reached.
    const fn passed(&mut self, counter: u64) {
        let narrow = self.configuration & NARROW != 0;
        let period = if narrow { self.period & u32::MAX as u64 } else { self.period };
        if self.configuration & PERIODIC == 0 || period == 0 {
            self.armed = false;
            return;
        }
        // Periods that nobody looked at are over.
        let late = counter.wrapping_sub(self.comparator);
        let late = if narrow { late & u32::MAX as u64 } else { late };
        let next = (late / period + 1).wrapping_mul(period);
        self.comparator = self.comparator.wrapping_add(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIGURATION: u64 = 0x10;
    const STATUS: u64 = 0x20;
    const COUNTER: u64 = 0xf0;
    const TIMER: u64 = 0x100;
    const COMPARATOR: u64 = 0x108;

    #[test]
    fn counts_when_it_is_enabled() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.read(4, 4, 0), 10_000_000, "femtoseconds");
        assert_eq!(hpet.read(0, 4, 0), 0x8086_a201);
        assert_eq!(hpet.read(COUNTER, 8, 500), 0);
        hpet.write(CONFIGURATION, 4, ENABLED, 500);
        assert_eq!(hpet.read(COUNTER, 8, 1500), 100);
        hpet.write(CONFIGURATION, 4, 0, 2500);
        assert_eq!(hpet.read(COUNTER, 8, 9999), 200, "it stands still");
        hpet.write(COUNTER + 4, 4, 1, 9999);
        assert_eq!(hpet.read(COUNTER, 8, 9999), 1 << 32 | 200);
        assert_eq!(hpet.read(COUNTER + 4, 4, 9999), 1);
    }

    #[test]
    fn a_timer_interrupts_once_by_an_edge() {
        let mut hpet = Hpet::new();
        hpet.write(CONFIGURATION, 4, ENABLED, 0);
        hpet.write(TIMER, 4, INTERRUPTS | 21 << 9, 0);
        hpet.write(COMPARATOR, 8, 10_000, 0);
        assert_eq!(hpet.deadline(0), 100_000);
        hpet.run(99_999);
        assert_eq!(hpet.take_edges(), 0);
        hpet.run(100_000);
        assert_eq!((hpet.take_edges(), hpet.levels(), hpet.read(STATUS, 4, 100_000)), (1 << 21, 0, 0));
        assert_eq!(hpet.deadline(100_000), u64::MAX);
        hpet.write(COMPARATOR, 8, 9000, 200_000);
        assert_eq!(hpet.take_edges(), 1 << 21, "what has passed is due at once");
    }

    #[test]
    fn a_level_stays_until_it_is_acknowledged() {
        let mut hpet = Hpet::new();
        hpet.write(CONFIGURATION, 4, ENABLED, 0);
        hpet.write(TIMER + 0x40, 4, INTERRUPTS | LEVEL | 20 << 9, 0);
        hpet.write(COMPARATOR + 0x40, 8, 10, 0);
        hpet.run(1000);
        assert_eq!((hpet.levels(), hpet.read(STATUS, 4, 1000)), (1 << 20, 4));
        hpet.write(STATUS, 4, 4, 1000);
        assert_eq!((hpet.levels(), hpet.take_edges()), (0, 0));
    }

    #[test]
    fn periodic_as_linux_sets_it_up_in_the_place_of_the_pit() {
        // hpet_clkevt_set_state_periodic in arch/x86/kernel/hpet.c
        let mut hpet = Hpet::new();
        hpet.write(CONFIGURATION, 4, ENABLED | REPLACING, 0);
        hpet.write(TIMER, 4, INTERRUPTS | PERIODIC | SETS | NARROW, 0);
        hpet.write(COMPARATOR, 4, 500_000, 0);
        hpet.write(COMPARATOR, 4, 400_000, 1000);
        assert!(hpet.replaces());
        let mut now = 1000;
        for expected in [5_000_000, 9_000_000, 13_000_000] {
            now = hpet.deadline(now);
            assert_eq!(now, expected);
            hpet.run(now);
            assert_eq!(hpet.take_edges(), 1 << 2);
        }
        hpet.run(now + 40_000_000);
        assert_eq!(hpet.take_edges(), 1 << 2, "missed ticks are one");
        assert_eq!(hpet.deadline(now + 40_000_000), now + 44_000_000);
        assert_eq!(hpet.read(COMPARATOR, 8, now + 40_000_000), (now + 44_000_000) / TICK);
    }

    #[test]
    fn the_counter_wraps_at_32_bits_for_narrow_timers() {
        let mut hpet = Hpet::new();
        hpet.write(COUNTER, 8, 0xffff_ff00, 0);
        hpet.write(CONFIGURATION, 4, ENABLED, 0);
        hpet.write(TIMER, 4, INTERRUPTS | NARROW | 20 << 9, 0);
        hpet.write(COMPARATOR, 4, 0x10_000, 0);
        assert_eq!(hpet.deadline(0), (0x10_000 + 0x100) * TICK);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..3, 0u64..LENGTH, prop::sample::select(&[1u8, 2, 4, 8]), any::<u64>(), 0u64..100_000_000), 1..200)) {
            let mut hpet = Hpet::new();
            let mut now = 0;
            for (kind, offset, width, value, step) in operations {
                now += step;
                // Half of the accesses go to the configuration and the first timer.
                let offset = if value & 1 == 0 { [CONFIGURATION, TIMER, COMPARATOR, COUNTER][offset as usize % 4] } else { offset };
                match kind {
                    0 => hpet.write(offset, width, value >> (offset % 3 * 16), now),
                    1 => { let got = hpet.read(offset, width, now); prop_assert!(width == 8 || got >> (width * 8) == 0); }
                    _ => hpet.run(now),
                }
                prop_assert!(hpet.deadline(now) >= now + LEAST, "no storm");
                prop_assert_eq!((hpet.levels() | hpet.take_edges()) & !(PINS | 1 << 2 | 1 << 8), 0);
            }
        }
    }
}
