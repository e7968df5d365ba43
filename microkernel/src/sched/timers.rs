//! Threads of one processor that wait for a time, the earliest first.

use core::cell::Cell;

use crate::kref::Ref;
use crate::object::thread::Thread;

/// A list ordered by [`Thread::deadline`].
pub struct Timers {
    head: Cell<Option<Ref<Thread>>>,
}

impl Timers {
    /// An empty list.
    pub const fn new() -> Self {
        Self { head: Cell::new(None) }
    }

    /// Adds a thread, which is in no timer list, with its deadline.
    pub fn insert(&self, thread: Ref<Thread>, deadline: u64) {
        thread.deadline.set(deadline);
        thread.timed.set(true);
        let mut previous: Option<Ref<Thread>> = None;
        let mut next = self.head.get();
        while let Some(n) = next.filter(|n| n.deadline.get() <= deadline) {
            previous = Some(n);
            next = n.timer_next.get();
        }
        thread.timer_previous.set(previous);
        thread.timer_next.set(next);
        if let Some(next) = next {
            next.timer_previous.set(Some(thread));
        }
        match previous {
            Some(previous) => previous.timer_next.set(Some(thread)),
            None => self.head.set(Some(thread)),
        }
    }

    /// Takes a thread out, if it is in.
    pub fn remove(&self, thread: Ref<Thread>) {
        if !thread.timed.replace(false) {
            return;
        }
        let previous = thread.timer_previous.take();
        let next = thread.timer_next.take();
        match previous {
            Some(previous) => previous.timer_next.set(next),
            None => self.head.set(next),
        }
        if let Some(next) = next {
            next.timer_previous.set(previous);
        }
    }

    /// The earliest deadline, or `u64::MAX`.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.head.get().map_or(u64::MAX, |thread| thread.deadline.get())
    }

    /// The first thread whose deadline is not after `now`, left in the list.
    pub fn expired(&self, now: u64) -> Option<Ref<Thread>> {
        self.head.get().filter(|thread| thread.deadline.get() <= now)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn comes_out_in_order(deadlines in proptest::collection::vec(0..100_u64, 1..40), removed in proptest::collection::vec(any::<bool>(), 40)) {
            let threads: Vec<Thread> = deadlines.iter().map(|_| Thread::new()).collect();
            let timers = Timers::new();
            for (t, d) in threads.iter().zip(&deadlines) { timers.insert(Ref::from(t), *d); }
            let mut expected = Vec::new();
            for (i, t) in threads.iter().enumerate() {
                if removed[i] { timers.remove(Ref::from(t)); timers.remove(Ref::from(t)); } else { expected.push(deadlines[i]); }
            }
            expected.sort_unstable();
            let mut got = Vec::new();
            while let Some(t) = timers.expired(u64::MAX - 1) { got.push(t.deadline.get()); timers.remove(t); }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(timers.next(), u64::MAX);
        }
    }
}
