//! Time and tasks.

use super::worker::Worker;
use alloc::{boxed::Box, rc::Rc};
use core::cell::Cell;
use tessera_device::Executor;
use tessera_hostd::{
    future::LocalFuture,
    ntp::Clock,
    platform::{Outcome, Platform, Work},
    sleepers::Sleepers,
};
use tessera_rt::{abi::Error, start_info, time};

/// Computations that may wait: hashes of passwords, each some tenths of a second.
const MOST_COMPUTATIONS: usize = 16;
/// Calls that may wait.
const MOST_CALLS: usize = 64;

/// This machine.
pub struct Machine {
    executor: Rc<Executor>,
    sleepers: Sleepers,
    computations: Worker,
    calls: Rc<Worker>,
    clock: Cell<Clock>,
}

/// Microseconds since 1970 by the machine's own clock, as it was read at the start; since the start, if it could not be read.
fn raw_us() -> u64 {
    let info = start_info();
    let since = time::from_ticks(time::now().saturating_sub(info.boot_tsc), 1_000_000, info.tsc_hz);
    info.wall_clock.saturating_mul(1_000_000).saturating_add(since)
}

fn now() -> u64 {
    time::from_ticks(time::now(), 1000, time::hz())
}

impl Machine {
    /// Nothing runs.
    ///
    /// # Errors
    /// `NoMemory`: there is no room for threads.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            executor: Rc::new(Executor::new()),
            sleepers: Sleepers::default(),
            // As urgent as guests' processors: whoever guesses passwords takes no time from anybody but by the share of one thread.
            computations: Worker::start(MOST_COMPUTATIONS)?,
            calls: Rc::new(Worker::start(MOST_CALLS)?),
            clock: Cell::default(),
        })
    }

    /// Microseconds since 1970.
    pub fn unix_us(&self) -> u64 {
        self.clock.get().unix_us(raw_us())
    }

    /// The time is `offset_us` later than [`Self::unix_us`] has it. Parts per billion that the machine's clock is slow, if that is known.
    pub fn set_clock(&self, offset_us: i64) -> Option<i64> {
        let mut clock = self.clock.get();
        clock.set(raw_us(), offset_us);
        self.clock.set(clock);
        clock.drift_ppb()
    }

    /// What runs the tasks.
    pub fn executor(&self) -> Rc<Executor> {
        self.executor.clone()
    }

    /// For calls to other servers that take long.
    pub fn calls(&self) -> Rc<Worker> {
        self.calls.clone()
    }

    /// Runs what is due. True: there is more.
    pub fn turn(&self) -> bool {
        self.sleepers.wake(now());
        self.computations.turn();
        self.calls.turn();
        self.executor.run();
        self.executor.has_work()
    }

    /// Milliseconds until somebody wakes.
    pub fn pause(&self) -> u64 {
        self.sleepers.first().map_or(u64::MAX, |end| end.saturating_sub(now()))
    }
}

impl Platform for Machine {
    fn unix_ms(&self) -> u64 {
        self.unix_us() / 1000
    }

    fn monotonic_ms(&self) -> u64 {
        now()
    }

    fn random(&self, bytes: &mut [u8]) {
        tessera_crypto::fill(bytes);
    }

    fn sleep(&self, ms: u64) -> LocalFuture<'static, ()> {
        Box::pin(self.sleepers.until(now().saturating_add(ms), now))
    }

    fn offload(&self, work: Work) -> LocalFuture<'static, Option<Outcome>> {
        self.computations.run(work)
    }

    fn spawn(&self, future: LocalFuture<'static, ()>) {
        self.executor.spawn(future);
    }
}
