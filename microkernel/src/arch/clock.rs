//! The machine's reference clocks: what the TSC is measured against (ACPI timer, interval timer), and the real-time clock.
//!
//! What CPUID says about the TSC is not believed: emulators and hypervisors claim what their host has.

use tessera_boot::acpi::Machine;
use tessera_boot::calendar::{self, Raw};
use x86_64::instructions::port::Port;

use super::timer;
use crate::klog;

/// Result of a measurement.
pub(super) struct Measured {
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

    fn start(&self) {
        if let Self::IntervalTimer = self {
            // SAFETY: channel 2 drives the speaker, which is switched off, and nothing else: counting from 65,536, mode 2.
            unsafe {
                let mut control: Port<u8> = Port::new(0x61);
                let gate = control.read() & !2 | 1;
                control.write(gate);
                Port::new(0x43).write(0xb4u8);
                Port::new(0x42).write(0u8);
                Port::new(0x42).write(0u8);
            }
        }
    }

    #[inline(never)]
    fn read(&self) -> u64 {
        match *self {
            // SAFETY: reading the ACPI timer has no effect.
            Self::PmTimer { port, .. } => unsafe { Port::<u32>::new(port).read().into() },
            // SAFETY: latches and reads channel 2, which counts down.
            Self::IntervalTimer => unsafe {
                Port::new(0x43).write(0x80u8);
                let mut data: Port<u8> = Port::new(0x42);
                let low = data.read();
                0xffff - (u64::from(data.read()) << 8 | u64::from(low))
            },
        }
    }

    /// Reads clock, TSC and timer as close together as can be had: the closest of several tries.
    #[inline(never)]
    fn sample(&self, timer_count: fn() -> u32) -> (u64, u64, u32) {
        let mut best = (0, 0, 0);
        let mut closest = u64::MAX;
        for _ in 0..8 {
            let before = timer::now();
            let clock = self.read();
            let after = timer::now();
            let count = timer_count();
            let distance = timer::now().wrapping_sub(before);
            if distance < closest {
                closest = distance;
                best = (clock, before + after.wrapping_sub(before) / 2, count);
            }
        }
        best
    }

    /// TSC and timer frequency by one measurement; `None` if the clock stands still.
    #[inline(never)]
    fn measure_once(&self, timer_count: fn() -> u32) -> Option<(u64, u64)> {
        self.start();
        let (clock_start, tsc_start, count_start) = self.sample(timer_count);
        let window = self.hz() * WINDOW_MS / 1000;
        let passed = |clock: u64| clock.wrapping_sub(clock_start) & self.mask();
        let (mut last, mut stuck) = (clock_start, 0);
        loop {
            let clock = self.read();
            if passed(clock) >= window {
                break;
            }
            stuck = if clock == last { stuck + 1 } else { 0 };
            if stuck > PATIENCE {
                return None;
            }
            last = clock;
        }
        let (clock_end, tsc_end, count_end) = self.sample(timer_count);
        let clocks = passed(clock_end);
        let tsc = tsc_end.checked_sub(tsc_start)?;
        let per_second = |ticks: u64| (u128::from(ticks) * u128::from(self.hz()) / u128::from(clocks.max(1))) as u64;
        // The timer counts down.
        Some((per_second(tsc), per_second(count_start.wrapping_sub(count_end).into())))
    }
}

/// Measures the TSC, and the countdown that `timer_count` reads, with the best clock that runs.
///
/// # Panics
/// If the machine has no clock that runs.
pub(super) fn measure(machine: &Machine, timer_count: fn() -> u32) -> Measured {
    for reference in Reference::candidates(machine) {
        let mut rounds = [(0, 0); ROUNDS];
        if rounds.iter_mut().all(|round| reference.measure_once(timer_count).map(|result| *round = result).is_some()) {
            rounds.sort_unstable();
            let (tsc_hz, timer_hz) = rounds[ROUNDS / 2];
            if tsc_hz >= 1_000_000 && timer_hz > 0 {
                return Measured { tsc_hz, timer_hz, clock: reference.name() };
            }
        }
        klog!("timer: the {} does not count; trying the next", reference.name());
    }
    panic!("the machine has no clock to measure the processor's against");
}

/// Reads the memory of the real-time clock.
#[inline(never)]
fn read(index: u8) -> u8 {
    // SAFETY: reads the clock's memory; bit 7 keeps NMIs as they are: allowed.
    unsafe {
        Port::new(0x70).write(index & 0x7f);
        Port::new(0x71).read()
    }
}

/// Seconds since 1970 by the real-time clock, 0 if it shows no date. `century` is the index of its century register, or 0.
pub(super) fn wall_clock(century: u8) -> u64 {
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
    // Two equal readings, so that none was taken while the chip was counting on. A chip that is not there never settles on a date.
    let mut last = snapshot();
    for _ in 0..1000 {
        let updating = read(0xa) & 0x80 != 0;
        let next = snapshot();
        if !updating && next == last {
            return calendar::unix_seconds(next).unwrap_or(0);
        }
        last = next;
        timer::busy_wait_us(10);
    }
    0
}
