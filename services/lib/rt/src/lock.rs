//! A lock between the threads of one server. Threads have fixed priorities, so a waiter that only spins could keep the holder from ever running: after a short spin it sleeps.

use crate::sys;
use core::sync::atomic::{AtomicBool, Ordering};

/// Attempts before a waiter sleeps: about as long as a short critical section takes.
const SPINS: u32 = 200;
/// TSC ticks of one sleep; some tens of microseconds on any machine.
const SLEEP: u64 = 100_000;

/// The lock itself.
pub struct RawLock(AtomicBool);

// SAFETY: `held` is false to true for exactly one thread at a time (compare-exchange), and only `unlock` resets it.
unsafe impl lock_api::RawMutex for RawLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        let mut spins = 0;
        while !self.try_lock() {
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop();
            } else {
                let _ = sys::wait(0, Some(sys::tsc() + SLEEP));
            }
        }
    }

    fn try_lock(&self) -> bool {
        // Acquire: what the previous holder wrote is seen. A failed attempt reads nothing that the lock guards.
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        // Release: pairs with the Acquire above.
        self.0.store(false, Ordering::Release);
    }
}

/// A mutual exclusion lock around a value.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;
/// Holds a [`Mutex`].
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;
