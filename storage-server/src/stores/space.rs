//! Waiting for space: what a guest writes to a datastore that is full waits until there is some, so the guest pauses instead of losing data.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// Those who wait.
#[derive(Default)]
pub struct Space {
    round: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Space {
    /// There may be space now.
    pub fn changed(&self) {
        self.round.set(self.round.get().wrapping_add(1));
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits for the next [`Self::changed`].
    pub async fn wait(&self) {
        let round = self.round.get();
        poll_fn(|context| {
            if self.round.get() != round {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}
