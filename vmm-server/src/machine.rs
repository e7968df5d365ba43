//! What the processors of one virtual machine share.

use crate::MAX_VCPUS;
use crate::apic::{Interrupts, Kick};
use crate::boot::Start;
use crate::clock::Clock;
use crate::cpuid::CpuidTable;
use crate::devices::{Chipset, Console, Request};
use crate::memory::GuestMemory;
use crate::vcpu::{SavedVcpu, Stop};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use spin::mutex::{SpinMutex, SpinMutexGuard};
use tessera_abi::vcpu::{ExitReason, VcpuState};

/// What a vCPU's thread needs from the system below. Static functions are the same for all threads.
pub trait Host {
    /// Gets other vCPUs' threads out of the guest.
    type Kick: Kick;
    /// The guest's serial line.
    type Console: Console;

    /// The host's time stamp counter.
    fn now() -> u64;
    /// Runs the guest until an exit, which is then in `state`, or until the thread was kicked. `deadline` is a TSC value, `u64::MAX` for none.
    fn run(&mut self, state: &mut VcpuState, deadline: u64) -> Run;
    /// Brings all of the guest's registers into `state`.
    fn sync(&mut self, state: &mut VcpuState);
    /// Sleeps for some hundred microseconds: a lock's holder may be a thread of lower priority on this processor, which must get to run.
    fn nap();
    /// Sleeps until the thread is kicked or the deadline passes. Returns the bits of the signals that ended it.
    fn wait(&mut self, deadline: u64) -> u64;
    /// Wakes the thread that decides about the whole machine.
    fn wake_control(&self);
    /// A line for the log.
    fn warn(&self, text: fmt::Arguments<'_>);
}

/// How [`Host::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// With an exit.
    Exit,
    /// With a kick; holds the signals' bits.
    Kicked(u64),
    /// The kernel refused; holds the error's number.
    Refused(u64),
}

/// What the machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// RAM is being filled; processors wait.
    Loading = 0,
    /// Processors run.
    Running = 1,
    /// A processor could not go on; see [`Machine::report`].
    Failed = 2,
    /// The guest switched itself off.
    PoweredOff = 3,
    /// The guest asked to be started anew.
    Resetting = 4,
    /// Processors are to park where they are.
    Suspending = 5,
    /// Parked processors take their state down.
    Saving = 6,
    /// Parked processors take the state over that was saved.
    Restoring = 7,
    /// The guest sleeps in its RAM (ACPI S3); processors are off.
    Sleeping = 8,
}

impl Phase {
    const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Loading,
            1 => Self::Running,
            2 => Self::Failed,
            3 => Self::PoweredOff,
            5 => Self::Suspending,
            6 => Self::Saving,
            7 => Self::Restoring,
            8 => Self::Sleeping,
            _ => Self::Resetting,
        }
    }
}

/// What a processor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Waits for a start-up message.
    WaitForStart = 0,
    /// In the guest or handling an exit.
    Running = 1,
    /// Halted until an interrupt.
    Halted = 2,
    /// Its thread waits for the machine to run again.
    Parked = 3,
}

impl Activity {
    const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::WaitForStart,
            1 => Self::Running,
            2 => Self::Halted,
            _ => Self::Parked,
        }
    }
}

/// Counters and state of one processor, written by its thread, read by others.
#[derive(Debug)]
pub struct Statistics {
    exits: [AtomicU64; ExitReason::COUNT],
    ticks: [AtomicU64; ExitReason::COUNT],
    injected: AtomicU64,
    activity: AtomicU8,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            exits: [const { AtomicU64::new(0) }; _],
            ticks: [const { AtomicU64::new(0) }; _],
            injected: AtomicU64::new(0),
            activity: AtomicU8::new(Activity::Parked as u8),
        }
    }
}

/// Adds to a counter that only this thread writes: no locked instruction is needed. Returns what was there.
#[inline]
fn add(counter: &AtomicU64, amount: u64) -> u64 {
    // Relaxed: a statistic.
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(amount), Ordering::Relaxed);
    before
}

/// One exit in this many of a reason is timed: reading the time stamp counter twice would be dear on each.
const TIMED_EVERY: u64 = 16;

impl Statistics {
    /// Counts an exit. Returns whether its handling is to be timed, for [`Self::add_time`].
    #[inline]
    pub fn count_exit(&self, reason: u32) -> bool {
        self.exits
            .get(reason as usize)
            .is_some_and(|counter| add(counter, 1).is_multiple_of(TIMED_EVERY))
    }

    /// Accounts the TSC ticks that a timed exit took, for all those that were not.
    pub fn add_time(&self, reason: u32, ticks: u64) {
        if let Some(counter) = self.ticks.get(reason as usize) {
            add(counter, ticks.saturating_mul(TIMED_EVERY));
        }
    }

    /// TSC ticks spent on exits for a reason: an estimate from samples.
    #[must_use]
    pub fn ticks(&self, reason: usize) -> u64 {
        let (count, ticks) = (
            self.exits(reason),
            self.ticks.get(reason).map_or(0, |counter| counter.load(Ordering::Relaxed)),
        );
        // The last sample stands for exits that are still to come.
        let sampled = count.div_ceil(TIMED_EVERY) * TIMED_EVERY;
        (u128::from(ticks) * u128::from(count) / u128::from(sampled.max(1))) as u64
    }

    /// Counts an injected interrupt.
    #[inline]
    pub fn count_injection(&self) {
        add(&self.injected, 1);
    }

    /// Exits for a reason.
    #[must_use]
    pub fn exits(&self, reason: usize) -> u64 {
        self.exits.get(reason).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Injected interrupts.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// What the processor is doing.
    #[must_use]
    pub fn activity(&self) -> Activity {
        // Acquire: who sees a parked processor may change what it would use.
        Activity::from_u8(self.activity.load(Ordering::Acquire))
    }

    /// Says what the processor is doing.
    pub fn set_activity(&self, activity: Activity) {
        // Release: pairs with `activity`.
        self.activity.store(activity as u8, Ordering::Release);
    }
}

/// The machine.
pub struct Machine<H: Host> {
    /// Its RAM.
    pub memory: GuestMemory,
    /// Inboxes of its processors.
    pub interrupts: Interrupts<H::Kick>,
    chipset: SpinMutex<Chipset<H::Console>>,
    /// Rate of the TSC; guest time 0.
    pub clock: Clock,
    /// Its `cpuid`.
    pub cpuid: CpuidTable,
    /// Seconds since 1970 at guest time 0.
    pub wall_clock: u64,
    statistics: [Statistics; MAX_VCPUS],
    phase: AtomicU8,
    start: SpinMutex<Start>,
    resets: AtomicU32,
    report: SpinMutex<String>,
    /// The control thread has something to tell.
    news: AtomicBool,
    exchange: SpinMutex<Exchange>,
    /// Host's TSC at which guest time stands still.
    stopped_at: AtomicU64,
}

/// States of processors on their way between their threads and the one that decides about the machine.
#[derive(Default)]
struct Exchange {
    saved: [Option<Box<SavedVcpu>>; MAX_VCPUS],
    /// Processors that still have to do their part: a bit each.
    turns: u32,
    trouble: Option<Stop>,
}

/// Longest time that a guest waits for its flash memory; whoever keeps it says by then that it cannot.
const FLASH_PATIENCE_NS: u64 = 10_000_000_000;
/// Attempts to take a lock before its holder is given time.
const SPINS: u32 = 100;

/// Takes a lock. Threads have fixed priorities, so a waiter that only spins could keep the holder from ever running.
fn lock<H: Host, T>(mutex: &SpinMutex<T>) -> SpinMutexGuard<'_, T> {
    loop {
        for _ in 0..SPINS {
            if let Some(guard) = mutex.try_lock() {
                return guard;
            }
            core::hint::spin_loop();
        }
        H::nap();
    }
}

/// Longest report in bytes: it must fit into a message with the rest.
const MAX_REPORT: usize = 2800;

impl<H: Host> Machine<H> {
    /// A machine whose processors wait for [`Self::start`].
    pub fn new(
        memory: GuestMemory,
        interrupts: Interrupts<H::Kick>,
        console: H::Console,
        clock: Clock,
        cpuid: CpuidTable,
        wall_clock: u64,
    ) -> Self {
        Self {
            memory,
            interrupts,
            chipset: SpinMutex::new(Chipset::new(console, wall_clock)),
            clock,
            cpuid,
            wall_clock,
            statistics: Default::default(),
            phase: AtomicU8::new(Phase::Loading as u8),
            start: SpinMutex::new(Start::BootSector),
            resets: AtomicU32::new(0),
            report: SpinMutex::new(String::new()),
            exchange: SpinMutex::default(),
            stopped_at: AtomicU64::new(0),
            news: AtomicBool::new(false),
        }
    }

    /// Its devices.
    #[inline]
    pub fn chipset(&self) -> SpinMutexGuard<'_, Chipset<H::Console>> {
        lock::<H, _>(&self.chipset)
    }

    /// Number of processors.
    #[must_use]
    pub const fn vcpus(&self) -> usize {
        self.interrupts.count()
    }

    /// Statistics of a processor.
    ///
    /// # Panics
    /// If there is no such processor.
    #[must_use]
    pub const fn statistics(&self, index: usize) -> &Statistics {
        &self.statistics[index]
    }

    /// What the machine is doing.
    #[inline]
    #[must_use]
    pub fn phase(&self) -> Phase {
        // Acquire: `start` publishes what was loaded with it.
        Phase::from_u8(self.phase.load(Ordering::Acquire))
    }

    /// Where the first processor starts.
    #[must_use]
    pub fn first_instruction(&self) -> Start {
        *lock::<H, _>(&self.start)
    }

    /// How often the machine was reset.
    #[must_use]
    pub fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Lets the processors run, the first one from `start`.
    pub fn start(&self, start: Start) {
        *lock::<H, _>(&self.start) = start;
        self.phase.store(Phase::Running as u8, Ordering::Release);
        self.interrupts.look_all();
    }

    /// A running machine stops running, for this reason; of several reasons the first counts. Its processors park.
    pub fn stop(&self, phase: Phase) -> bool {
        let stopped = self
            .phase
            .compare_exchange(Phase::Running as u8, phase as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if stopped {
            self.interrupts.look_all();
        }
        stopped
    }

    /// A guest's request that came through a device.
    pub fn request(&self, request: Request) -> bool {
        self.stop(match request {
            Request::PowerOff => Phase::PoweredOff,
            Request::Sleep => Phase::Sleeping,
            Request::Reset => Phase::Resetting,
            Request::Transfer => {
                self.chipset().transfer(&self.memory);
                return false;
            }
            Request::Panicked => {
                // Relaxed: the thread that said so takes it itself.
                self.news.store(true, Ordering::Relaxed);
                return false;
            }
        })
    }

    /// Whether the control thread has something to tell, once.
    #[must_use]
    pub fn take_news(&self) -> bool {
        // Relaxed: see `request`. It is looked at first because a swap locks the bus.
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::Relaxed)
    }

    /// The machine cannot go on; `report` says why.
    pub fn fail(&self, report: fmt::Arguments<'_>) -> bool {
        use fmt::Write;
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = text.write_fmt(report);
        text.truncate(text.floor_char_boundary(MAX_REPORT));
        {
            let mut slot = lock::<H, _>(&self.report);
            if self.phase() == Phase::Running || self.phase() == Phase::Loading {
                *slot = text;
            }
        }
        self.stop(Phase::Failed)
    }

    /// A machine that never ran cannot be started.
    pub fn fail_to_load(&self, report: fmt::Arguments<'_>) {
        self.fail(report);
        self.phase.store(Phase::Failed as u8, Ordering::Release);
    }

    /// Why the machine failed; empty if it did not.
    #[must_use]
    pub fn report(&self) -> String {
        lock::<H, _>(&self.report).clone()
    }

    /// Whether all processors are parked, so that the machine can be changed.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.statistics[..self.vcpus()]
            .iter()
            .all(|statistics| statistics.activity() == Activity::Parked)
    }

    /// Host's TSC at which guest time stands still, in the phases in which it does.
    #[must_use]
    pub fn stopped_at(&self) -> u64 {
        self.stopped_at.load(Ordering::Relaxed)
    }

    /// All processors are parked, and take their states down, or over from `saved`; `now` is when guest time stands still. Ask [`Self::exchanged`] whether they are done.
    pub fn begin_exchange(&self, phase: Phase, saved: Vec<Box<SavedVcpu>>, now: u64) {
        // Relaxed: published with the phase.
        self.stopped_at.store(now, Ordering::Relaxed);
        {
            let mut exchange = lock::<H, _>(&self.exchange);
            *exchange = Exchange {
                turns: (1 << self.vcpus()) - 1,
                ..Exchange::default()
            };
            for (place, saved) in exchange.saved.iter_mut().zip(saved) {
                *place = Some(saved);
            }
        }
        self.phase.store(phase as u8, Ordering::Release);
        for index in 0..self.vcpus() {
            self.interrupts.kick(index);
        }
    }

    /// The states that were taken down, when all processors have done their part; or what kept one from it.
    pub fn exchanged(&self) -> Option<Result<Vec<Box<SavedVcpu>>, Stop>> {
        let mut exchange = lock::<H, _>(&self.exchange);
        if exchange.turns != 0 {
            return None;
        }
        let states = exchange.saved.each_mut().map(Option::take);
        Some(match exchange.trouble {
            Some(trouble) => Err(trouble),
            None => Ok(states.into_iter().flatten().collect()),
        })
    }

    /// Whether a processor has still to do its part.
    pub(crate) fn has_turn(&self, index: usize) -> bool {
        lock::<H, _>(&self.exchange).turns >> index & 1 != 0
    }

    /// A processor has done its part.
    pub(crate) fn give(&self, index: usize, saved: Result<Box<SavedVcpu>, Stop>) {
        let mut exchange = lock::<H, _>(&self.exchange);
        match saved {
            Ok(saved) => exchange.saved[index] = Some(saved),
            Err(trouble) => exchange.trouble = Some(trouble),
        }
        exchange.turns &= !(1 << index);
    }

    /// The state that a processor is to take over.
    pub(crate) fn taken(&self, index: usize) -> Option<Box<SavedVcpu>> {
        lock::<H, _>(&self.exchange).saved[index].take()
    }

    /// A processor has taken it over, or cannot.
    pub(crate) fn restored(&self, index: usize, outcome: Result<(), Stop>) {
        let mut exchange = lock::<H, _>(&self.exchange);
        if let Err(trouble) = outcome {
            exchange.trouble = Some(trouble);
        }
        exchange.turns &= !(1 << index);
    }

    /// A running machine, or one that sleeps, is to stand still so that its state can be taken down.
    pub fn suspend(&self) -> bool {
        let from = |phase: Phase| {
            let new = Phase::Suspending as u8;
            self.phase
                .compare_exchange(phase as u8, new, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        };
        let stopped = from(Phase::Running) || from(Phase::Sleeping);
        if stopped {
            self.interrupts.look_all();
        }
        stopped
    }

    /// A machine that stood still goes on, be it to sleep.
    pub fn go_on(&self) {
        let phase = if self.chipset().is_asleep() {
            Phase::Sleeping
        } else {
            Phase::Running
        };
        self.phase.store(phase as u8, Ordering::Release);
        for index in 0..self.vcpus() {
            self.interrupts.kick(index);
        }
    }

    /// Waits until what the guest changed in its flash memory by a command is kept, a while at most: it is not lost then, however the machine ends.
    pub fn wait_for_flash(&self, command: u64) {
        let end = H::now().saturating_add(self.clock.ns_to_ticks(FLASH_PATIENCE_NS));
        while self.chipset().flash().is_some_and(|flash| !flash.is_done(command)) && H::now() < end {
            H::nap();
        }
    }

    fn clear_inboxes(&self) {
        for index in 0..self.vcpus() {
            let inbox = self.interrupts.inbox(index);
            inbox.clear();
            inbox.set_destination(true, false, true, 0);
        }
    }

    /// Takes the power from devices and inboxes, but for what may wake the machine. Only when parked.
    pub fn sleep_devices(&self, now: u64) {
        self.clear_inboxes();
        self.chipset().sleep(self.clock.ns(now), &self.interrupts);
    }

    /// A machine that sleeps wakes: its first processor begins at `start`, with its RAM as it is.
    pub fn wake(&self, start: Start, now: u64) {
        self.chipset().wake(self.clock.ns(now), &self.interrupts);
        self.start(start);
    }

    /// Puts devices and inboxes into their power-on state. Only when parked.
    pub fn reset_devices(&self, now: u64) {
        self.clear_inboxes();
        let mut chipset = self.chipset();
        chipset.reset(self.clock.ns(now), &self.interrupts);
        if let Some(flash) = chipset.flash() {
            flash.reset(&self.memory);
        }
        drop(chipset);
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.phase.store(Phase::Loading as u8, Ordering::Release);
    }
}
