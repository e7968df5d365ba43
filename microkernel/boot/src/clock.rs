//! The machine's reference clocks: what the TSC is measured against (ACPI timer, interval timer), and the real-time clock.
//!
//! What CPUID says about the TSC is not believed: emulators and hypervisors claim what their host has.

use crate::acpi::Machine;
use crate::calendar::{self, Raw};

/// The hardware that is measured. The ports are those of the clocks of a PC, whose registers affect nothing else.
pub trait Hardware {
    /// Reads a byte.
    fn read(&self, port: u16) -> u8;
    /// Reads the ACPI timer at `port`.
    fn read_pm_timer(&self, port: u16) -> u32;
    /// Writes a byte.
    fn write(&self, port: u16, value: u8);
    /// The TSC.
    fn tsc(&self) -> u64;
    /// The timer that is measured with the TSC; it counts down.
    fn timer(&self) -> u32;
}

/// Result of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// Counts of the timer measured with it per second.
    pub timer_hz: u64,
    /// Name of the clock.
    pub clock: &'static str,
}

/// A counter of known speed that counts up.
enum Reference {
    PmTimer { port: u16, wide: bool },
    IntervalTimer,
}

const PM_TIMER_HZ: u64 = 3_579_545;
const INTERVAL_TIMER_HZ: u64 = 1_193_182;
/// Length of one measurement. The interval timer's 16 bits last 54.9 ms.
const WINDOW_MS: u64 = 20;
/// Measurements, of which the middle one counts: a pause of the emulator or a system-management interrupt spoils one of them, not most.
const ROUNDS: usize = 3;
/// Reads of a clock that does not move before it is given up.
const PATIENCE: u32 = 2_000_000;

impl Reference {
    /// The clocks of this machine, best first.
    fn candidates(machine: &Machine) -> impl Iterator<Item = Self> {
        let pm_timer = (machine.pm_timer != 0).then_some(Self::PmTimer { port: machine.pm_timer, wide: machine.pm_timer_32 });
        [pm_timer, Some(Self::IntervalTimer)].into_iter().flatten()
    }

    fn name(&self) -> &'static str {
        match self {
            Self::PmTimer { .. } => "ACPI timer",
            Self::IntervalTimer => "interval timer",
        }
    }

    fn hz(&self) -> u64 {
        match self {
            Self::PmTimer { .. } => PM_TIMER_HZ,
            Self::IntervalTimer => INTERVAL_TIMER_HZ,
        }
    }

    fn mask(&self) -> u64 {
        match self {
            Self::PmTimer { wide: false, .. } => 0xff_ffff,
            Self::IntervalTimer => 0xffff,
            Self::PmTimer { wide: true, .. } => 0xffff_ffff,
        }
    }

    fn start(&self, hardware: &impl Hardware) {
        if let Self::IntervalTimer = self {
            // Channel 2 drives the speaker, which is switched off, and nothing else: counting from 65,536, mode 2.
            hardware.write(0x61, hardware.read(0x61) & !2 | 1);
            for (port, value) in [(0x43, 0xb4), (0x42, 0), (0x42, 0)] {
                hardware.write(port, value);
            }
        }
    }

    fn read(&self, hardware: &impl Hardware) -> u64 {
        match *self {
            Self::PmTimer { port, .. } => hardware.read_pm_timer(port).into(),
            Self::IntervalTimer => {
                // Latches and reads channel 2, which counts down.
                hardware.write(0x43, 0x80);
                let low = hardware.read(0x42);
                0xffff - (u64::from(hardware.read(0x42)) << 8 | u64::from(low))
            }
        }
    }

    /// Reads clock, TSC and timer as close together as can be had: the closest of several tries.
    fn sample(&self, hardware: &impl Hardware) -> (u64, u64, u32) {
        let mut best = (0, 0, 0);
        let mut closest = u64::MAX;
        for _ in 0..8 {
            let before = hardware.tsc();
            let clock = self.read(hardware);
            let after = hardware.tsc();
            let count = hardware.timer();
            let distance = hardware.tsc().wrapping_sub(before);
            if distance < closest {
                closest = distance;
                best = (clock, before + after.wrapping_sub(before) / 2, count);
            }
        }
        best
    }

    /// TSC and timer frequency by one measurement; `None` if the clock stands still.
    fn measure_once(&self, hardware: &impl Hardware) -> Option<(u64, u64)> {
        self.start(hardware);
        let (clock_start, tsc_start, count_start) = self.sample(hardware);
        let window = self.hz() * WINDOW_MS / 1000;
        let passed = |clock: u64| clock.wrapping_sub(clock_start) & self.mask();
        let (mut last, mut stuck) = (clock_start, 0);
        loop {
            let clock = self.read(hardware);
            if passed(clock) >= window {
                break;
            }
            stuck = if clock == last { stuck + 1 } else { 0 };
            if stuck > PATIENCE {
                return None;
            }
            last = clock;
        }
        let (clock_end, tsc_end, count_end) = self.sample(hardware);
        let clocks = passed(clock_end);
        let tsc = tsc_end.checked_sub(tsc_start)?;
        let per_second = |ticks: u64| (u128::from(ticks) * u128::from(self.hz()) / u128::from(clocks.max(1))) as u64;
        // The timer counts down.
        Some((per_second(tsc), per_second(count_start.wrapping_sub(count_end).into())))
    }
}

/// Measures the TSC, and the timer beside it, with the best clock that runs; `None` if the machine has no clock that does.
pub fn measure(machine: &Machine, hardware: &impl Hardware) -> Option<Measured> {
    Reference::candidates(machine).find_map(|reference| {
        let mut rounds = [(0, 0); ROUNDS];
        for round in &mut rounds {
            *round = reference.measure_once(hardware)?;
        }
        rounds.sort_unstable();
        let (tsc_hz, timer_hz) = rounds[ROUNDS / 2];
        (tsc_hz >= 1_000_000 && timer_hz > 0).then_some(Measured { tsc_hz, timer_hz, clock: reference.name() })
    })
}

/// Seconds since 1970 by the real-time clock, 0 if it shows no date. `century` is the index of its century register, or 0.
pub fn wall_clock(century: u8, hardware: &impl Hardware) -> u64 {
    let read = |index: u8| {
        // Bit 7 keeps NMIs as they are: allowed.
        hardware.write(0x70, index & 0x7f);
        hardware.read(0x71)
    };
    let snapshot = || Raw {
        second: read(0),
        minute: read(2),
        hour: read(4),
        day: read(7),
        month: read(8),
        year: read(9),
        century: if century == 0 { 0 } else { read(century) },
        status_b: read(0xb),
    };
    // Two equal readings, so that none was taken while the chip was counting on. An update takes 2 ms, a reading some 20 accesses of about a microsecond each.
    let mut last = snapshot();
    for _ in 0..10_000 {
        let updating = read(0xa) & 0x80 != 0;
        let next = snapshot();
        if !updating && next == last {
            return calendar::unix_seconds(next).unwrap_or(0);
        }
        last = next;
    }
    // A chip that is not there never settles on a date.
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// A PC whose processor runs at `hz`; each access to the hardware takes 300 ns.
    struct Simulated {
        hz: u64,
        timer_hz: u64,
        tsc: Cell<u64>,
        pm_timer_runs: bool,
        interval_timer_runs: bool,
        latched: Cell<u16>,
        second_byte: Cell<bool>,
        index: Cell<u8>,
    }

    impl Simulated {
        fn new(hz: u64, timer_hz: u64) -> Self {
            let (tsc, latched, second_byte, index) = (Cell::new(hz * 4_690 / 1000), Cell::new(0), Cell::new(false), Cell::new(0));
            Self { hz, timer_hz, tsc, pm_timer_runs: true, interval_timer_runs: true, latched, second_byte, index }
        }

        /// Counts of a clock of `hz` since the machine was switched on.
        fn counts(&self, hz: u64) -> u64 {
            (u128::from(self.tsc.get()) * u128::from(hz) / u128::from(self.hz)) as u64
        }

        fn step(&self) {
            self.tsc.set(self.tsc.get() + self.hz * 3 / 10_000_000);
        }
    }

    impl Hardware for Simulated {
        fn read(&self, port: u16) -> u8 {
            self.step();
            match port {
                0x42 => self.latched.get().to_le_bytes()[usize::from(self.second_byte.replace(!self.second_byte.get()))],
                0x71 => match self.index.get() {
                    0xb => 6,
                    0xa => u8::from(self.counts(1000) % 1000 < 2) << 7,
                    0 => (self.counts(1) % 60) as u8,
                    7 | 8 => 1,
                    9 => 26,
                    _ => 0,
                },
                _ => 0xff,
            }
        }

        fn read_pm_timer(&self, _port: u16) -> u32 {
            self.step();
            if self.pm_timer_runs { (self.counts(PM_TIMER_HZ) & 0xff_ffff) as u32 } else { 7 }
        }

        fn write(&self, port: u16, value: u8) {
            self.step();
            if port == 0x43 && value == 0x80 {
                let count = if self.interval_timer_runs { self.counts(INTERVAL_TIMER_HZ) } else { 0 };
                self.latched.set(!(count as u16));
                self.second_byte.set(false);
            } else if port == 0x70 {
                self.index.set(value);
            }
        }

        fn tsc(&self) -> u64 {
            self.tsc.get()
        }

        fn timer(&self) -> u32 {
            self.step();
            !(self.counts(self.timer_hz) as u32)
        }
    }

    fn machine() -> Machine {
        Machine { pm_timer: 0x608, ..Machine::default() }
    }

    fn close(measured: u64, truth: u64) -> bool {
        measured.abs_diff(truth) < truth / 5000
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Every processor's speed is found to within 200 parts per million by either clock, also when the clock wraps meanwhile.
        #[test]
        fn finds_the_rates(mhz in 20u64..6000, timer_mhz in 1u64..200, pm_timer_runs: bool) {
            let (hz, timer_hz) = (mhz * 1_000_003, timer_mhz * 999_983);
            let pc = Simulated { pm_timer_runs, ..Simulated::new(hz, timer_hz) };
            let found = measure(&machine(), &pc).unwrap();
            prop_assert!(close(found.tsc_hz, hz), "{} of {}", found.tsc_hz, hz);
            prop_assert!(found.timer_hz.abs_diff(timer_hz) < timer_hz / 1000, "{} of {}", found.timer_hz, timer_hz);
            prop_assert_eq!(found.clock, if pm_timer_runs { "ACPI timer" } else { "interval timer" });
        }
    }

    #[test]
    fn gives_up_clocks_that_stand_still() {
        let pc = Simulated { pm_timer_runs: false, interval_timer_runs: false, ..Simulated::new(1_000_000_000, 1_000_000) };
        assert_eq!(measure(&machine(), &pc), None);
    }

    #[test]
    fn reads_the_date() {
        let pc = Simulated::new(1_000_000_000, 1_000_000);
        // The first of January 2026, and the five seconds that the simulated machine has run at most.
        let seconds = wall_clock(0, &pc);
        assert!((1_767_225_600..1_767_225_606).contains(&seconds), "{seconds}");
    }
}
