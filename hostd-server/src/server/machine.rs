//! Time and tasks.

use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{
    cell::RefCell,
    future::poll_fn,
    task::{Poll, Waker},
};
use tessera_device::Executor;
use tessera_hostd::{future::LocalFuture, platform::Platform};
use tessera_rt::time;

/// Who sleeps, and until when (milliseconds).
type Sleepers = Rc<RefCell<Vec<(u64, Waker)>>>;

/// This machine.
pub struct Machine {
    executor: Executor,
    sleepers: Sleepers,
}

fn now() -> u64 {
    time::from_ticks(time::now(), 1000, time::hz())
}

impl Machine {
    /// Nothing runs.
    pub fn new() -> Self {
        Self {
            executor: Executor::new(),
            sleepers: Sleepers::default(),
        }
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

    fn spawn(&self, future: LocalFuture<'static, ()>) {
        self.executor.spawn(future);
    }
}
