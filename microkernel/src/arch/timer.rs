//! Time: the TSC, and each processor's timer.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tessera_abi::boot::Features;
use tessera_boot::acpi::Machine;
use tessera_boot::clock::{self, Hardware};
use x86_64::instructions::port::Port;

use super::{apic, cpu};
use crate::klog;

const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// Most countdowns in a second.
const COUNTDOWNS_PER_SECOND: u64 = 50_000;

static TSC_HZ: AtomicU64 = AtomicU64::new(0);
/// Counts of the APIC timer per TSC tick, times 2^32.
static TIMER_SCALE: AtomicU64 = AtomicU64::new(0);
static USE_DEADLINE: AtomicBool = AtomicBool::new(false);
/// Shortest countdown in TSC ticks: it begins anew by itself, and must not come faster than it is answered.
static SHORTEST: AtomicU64 = AtomicU64::new(0);

// Relaxed throughout: all are written at boot before other processors run.

/// TSC ticks per second.
#[inline]
pub fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// The TSC.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: every processor has it.
    unsafe { _rdtsc() }
}

/// Waits without giving the processor away; for the boot and the end. Before [`calibrate`] a tick is taken for a third of a nanosecond.
#[inline(never)]
pub fn busy_wait_us(microseconds: u64) {
    let hz = match tsc_hz() {
        0 => 3_000_000_000,
        hz => hz,
    };
    let start = now();
    while now().wrapping_sub(start) < hz / 1_000_000 * microseconds {
        core::hint::spin_loop();
    }
}

/// The clocks of this machine.
pub(super) struct Clocks;

impl Hardware for Clocks {
    fn read(&self, port: u16) -> u8 {
        // SAFETY: the ports are those of timers and clock, which affect no memory.
        unsafe { Port::new(port).read() }
    }

    fn read_pm_timer(&self, port: u16) -> u32 {
        // SAFETY: reading the ACPI timer has no effect.
        unsafe { Port::new(port).read() }
    }

    fn write(&self, port: u16, value: u8) {
        // SAFETY: as in `read`.
        unsafe { Port::new(port).write(value) }
    }

    fn tsc(&self) -> u64 {
        now()
    }

    fn timer(&self) -> u32 {
        apic::timer_current()
    }
}

/// Measures the TSC and the APIC timer against a clock of known speed, and prepares the first processor's timer.
pub(super) fn calibrate(machine: &Machine) -> u64 {
    apic::timer_use_countdown();
    apic::timer_count(u32::MAX);
    let measured = clock::measure(machine, &Clocks).expect("the machine has no clock to measure the processor's against");
    apic::timer_count(0);
    TSC_HZ.store(measured.tsc_hz, Ordering::Relaxed);
    TIMER_SCALE.store(((u128::from(measured.timer_hz) << 32) / u128::from(measured.tsc_hz)) as u64, Ordering::Relaxed);
    SHORTEST.store(measured.tsc_hz / COUNTDOWNS_PER_SECOND, Ordering::Relaxed);
    USE_DEADLINE.store(cpu::features().contains(Features::TSC_DEADLINE), Ordering::Relaxed);
    klog!("timer: TSC {} kHz by {}, APIC timer {} kHz", measured.tsc_hz / 1000, measured.clock, measured.timer_hz / 1000);
    init_cpu();
    measured.tsc_hz
}

/// Prepares the running processor's timer; it is silent.
pub(super) fn init_cpu() {
    if USE_DEADLINE.load(Ordering::Relaxed) {
        apic::timer_use_deadline();
    } else {
        apic::timer_use_countdown();
    }
    cancel();
}

/// Fires vector `TIMER` on this processor when the TSC reaches `tsc`, at once if it has. There is one deadline; this replaces it.
///
/// Without a deadline timer it may fire early, when the deadline is far away: whoever handles it looks at the time and sets it again. It then fires again and again until
/// [`fired`], because QEMU 7.2 loses an interrupt that comes while a guest's exit changes the same word, and a guest that spins would keep the processor.
#[inline(never)]
pub fn set_deadline(tsc: u64) {
    if USE_DEADLINE.load(Ordering::Relaxed) {
        // A deadline of 0 would disarm.
        // SAFETY: the processor has the register.
        unsafe { cpu::wrmsr(MSR_TSC_DEADLINE, tsc.max(1)) };
    } else {
        let ticks = tsc.saturating_sub(now()).max(SHORTEST.load(Ordering::Relaxed));
        let count = (u128::from(ticks) * u128::from(TIMER_SCALE.load(Ordering::Relaxed))) >> 32;
        // One more, so that it does not fire just before the deadline.
        apic::timer_count(u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1));
    }
}

/// The timer fired: it does not again before long, if no other deadline is set.
#[inline]
pub fn fired() {
    if !USE_DEADLINE.load(Ordering::Relaxed) {
        apic::timer_count(u32::MAX);
    }
}

/// Takes the deadline back. An interrupt that is already on its way still arrives.
#[inline]
pub fn cancel() {
    if USE_DEADLINE.load(Ordering::Relaxed) {
        // SAFETY: the processor has the register.
        unsafe { cpu::wrmsr(MSR_TSC_DEADLINE, 0) };
    } else {
        apic::timer_count(0);
    }
}
