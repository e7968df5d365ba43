//! What hostd needs of the machine it runs on: time, chance, and other things going on meanwhile.

use crate::future::LocalFuture;
use alloc::boxed::Box;
use core::any::Any;

/// What a computation came to.
pub type Outcome = Box<dyn Any + Send>;
/// A computation that takes long.
pub type Work = Box<dyn FnOnce() -> Outcome + Send>;

/// Clock, random numbers and tasks.
pub trait Platform {
    /// Milliseconds since 1970, UTC, as far as the host knows.
    fn unix_ms(&self) -> u64;
    /// Milliseconds since some moment before the start; never goes back.
    fn monotonic_ms(&self) -> u64;
    /// Fills `bytes` with numbers that nobody can guess.
    fn random(&self, bytes: &mut [u8]);
    /// Ready after `ms` milliseconds.
    fn sleep(&self, ms: u64) -> LocalFuture<'static, ()>;
    /// Runs `future` beside everything else until it is ready.
    fn spawn(&self, future: LocalFuture<'static, ()>);
    /// Has `work` done beside everything else, on another thread where there is one. `None`: so much is waiting already that it was not taken.
    fn offload(&self, work: Work) -> LocalFuture<'static, Option<Outcome>> {
        Box::pin(core::future::ready(Some(work())))
    }
}
