//! Time and tasks.

use super::worker::Worker;
use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{
    cell::RefCell,
    future::poll_fn,
    task::{Poll, Waker},
};
use tessera_device::Executor;
use tessera_hostd::{
    future::LocalFuture,
    platform::{Outcome, Platform, Work},
};
use tessera_rt::{abi::Error, time};

/// Computations that may wait: hashes of passwords, each some tenths of a second.
const MOST_COMPUTATIONS: usize = 16;
/// Calls that may wait.
const MOST_CALLS: usize = 64;

/// Who sleeps, and until when (milliseconds).
type Sleepers = Rc<RefCell<Vec<(u64, Waker)>>>;

/// This machine.
pub struct Machine {
    executor: Executor,
    sleepers: Sleepers,
    computations: Worker,
    calls: Rc<Worker>,
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
            executor: Executor::new(),
            sleepers: Sleepers::default(),
            // As urgent as guests' processors: whoever guesses passwords takes no time from anybody but by the share of one thread.
            computations: Worker::start(MOST_COMPUTATIONS, 2)?,
            calls: Rc::new(Worker::start(MOST_CALLS, 0)?),
        })
    }

    /// For calls to other servers that take long.
    pub fn calls(&self) -> Rc<Worker> {
        self.calls.clone()
    }

    /// Runs what is due. True: there is more.
    pub fn turn(&self) -> bool {
        let now = now();
        let mut due = Vec::new();
        self.sleepers.borrow_mut().retain(|(end, waker)| {
            let over = *end <= now;
            if over {
                due.push(waker.clone());
            }
            !over
        });
        for waker in due {
            waker.wake();
        }
        self.computations.turn();
        self.calls.turn();
        self.executor.run();
        self.executor.has_work()
    }

    /// Milliseconds until somebody wakes.
    pub fn pause(&self) -> u64 {
        let first = self.sleepers.borrow().iter().map(|(end, _)| *end).min();
        first.map_or(u64::MAX, |end| end.saturating_sub(now()))
    }
}

impl Platform for Machine {
    fn unix_ms(&self) -> u64 {
        let tsc = time::now();
        let into = time::from_ticks(tsc, 1000, time::hz()) % 1000;
        time::wall_clock(tsc).map_or(0, |seconds| seconds * 1000 + into)
    }

    fn monotonic_ms(&self) -> u64 {
        now()
    }

    fn random(&self, bytes: &mut [u8]) {
        tessera_crypto::fill(bytes);
    }

    fn sleep(&self, ms: u64) -> LocalFuture<'static, ()> {
        let end = now().saturating_add(ms);
        let sleepers = self.sleepers.clone();
        let mut waiting = false;
        Box::pin(poll_fn(move |context| {
            if now() >= end {
                return Poll::Ready(());
            }
            let mut sleepers = sleepers.borrow_mut();
            // Whoever is polled by others meanwhile is in the list already.
            let known = waiting && sleepers.iter().any(|(at, waker)| *at == end && waker.will_wake(context.waker()));
            if !known {
                sleepers.push((end, context.waker().clone()));
                waiting = true;
            }
            Poll::Pending
        }))
    }

    fn offload(&self, work: Work) -> LocalFuture<'static, Option<Outcome>> {
        self.computations.run(work)
    }

    fn spawn(&self, future: LocalFuture<'static, ()>) {
        self.executor.spawn(future);
    }
}
