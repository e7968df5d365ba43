//! Waiting among tasks of one thread.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// Something to wait for; whoever changes what others may wait for calls `notify`.
#[derive(Default)]
pub struct Event {
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    /// Wakes everybody, to look again.
    pub fn notify(&self) {
        let waiting = core::mem::take(&mut *self.waiting.borrow_mut());
        for waker in waiting {
            waker.wake();
        }
    }

    /// Waits until `ready` gives something.
    pub async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match ready() {
            Some(value) => Poll::Ready(value),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

/// A lock that may be held across an `await`.
#[derive(Default)]
pub struct Lock {
    held: Cell<bool>,
    event: Event,
}

/// Holds a [`Lock`] until dropped.
pub struct Held<'a>(&'a Lock);

impl Lock {
    /// Waits until nobody holds it.
    pub async fn hold(&self) -> Held<'_> {
        self.event.until(|| (!self.held.replace(true)).then_some(())).await;
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.event.notify();
    }
}
