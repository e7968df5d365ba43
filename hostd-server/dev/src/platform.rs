//! Clock, chance and tasks of the developer's machine.

use smol::LocalExecutor;
use std::{
    fs::File,
    io::Read,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};
use tessera_hostd::{
    future::LocalFuture,
    platform::{Outcome, Platform, Work},
};

/// Tasks run on one thread.
pub struct Machine {
    executor: Rc<LocalExecutor<'static>>,
    start: Instant,
}

impl Machine {
    /// Whose tasks run on `executor`.
    #[must_use]
    pub fn new(executor: Rc<LocalExecutor<'static>>) -> Self {
        Self {
            executor,
            start: Instant::now(),
        }
    }
}

impl Platform for Machine {
    fn unix_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_millis() as u64)
    }
    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
    fn random(&self, bytes: &mut [u8]) {
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(bytes))
            .expect("every Unix has /dev/urandom");
    }
    fn sleep(&self, ms: u64) -> LocalFuture<'static, ()> {
        Box::pin(async move {
            smol::Timer::after(Duration::from_millis(ms)).await;
        })
    }
    fn offload(&self, work: Work) -> LocalFuture<'static, Option<Outcome>> {
        Box::pin(async move { Some(smol::unblock(work).await) })
    }
    fn spawn(&self, future: LocalFuture<'static, ()>) {
        self.executor.spawn(future).detach();
    }
}
