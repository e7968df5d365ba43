//! When the queues of a guest that sends much are looked at.

use core::cell::Cell;

/// Nanoseconds between two looks at the queues of a guest that only sends. It rings before when a quarter of a queue is full.
const PERIOD: u64 = 100_000;
/// Packets that a guest sends without getting one, until it counts as one that only sends: who waits for answers is served at once.
const MANY: u32 = 16;

/// How a guest sends. Times are in nanoseconds.
#[derive(Debug, Default)]
pub struct Pace {
    /// Packets since it last got one.
    unanswered: Cell<u32>,
    /// When its queues were last looked at, and when something was last found there.
    looked: Cell<u64>,
    found: Cell<u64>,
    /// When they have to be looked at again though it does not ring.
    again: Cell<Option<u64>>,
}

impl Pace {
    /// When its queues have to be looked at though it does not ring. `None`: not, or they should have been.
    #[inline]
    pub fn again(&self, now: u64) -> Option<u64> {
        self.again.get().filter(|again| *again > now)
    }

    /// Whether that is now.
    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        self.again.get().is_some_and(|again| now >= again)
    }

    /// It got a packet.
    #[inline]
    pub fn received(&self) {
        self.unanswered.set(0);
    }

    /// Its queues are looked at.
    pub fn begin(&self, now: u64) {
        self.looked.set(now);
        self.again.set(None);
        if now.saturating_sub(self.found.get()) >= 2 * PERIOD {
            self.unanswered.set(0);
        }
    }

    /// Whether an empty queue is worth another look later, instead of a ring for its next packet. `found`: it was not empty before.
    pub fn is_patient(&self, found: bool) -> bool {
        let lately = || self.looked.get().saturating_sub(self.found.get()) < PERIOD;
        self.unanswered.get() >= MANY && (found || lately())
    }

    /// This many packets were found. `patient`: a queue was left that does not ring for its next packet.
    pub fn end(&self, sent: u32, patient: bool) {
        if sent > 0 {
            self.found.set(self.looked.get());
            self.unanswered.set(self.unanswered.get().saturating_add(sent));
        }
        if patient {
            self.again.set(Some(self.looked.get() + PERIOD));
        }
    }

    /// Nothing is sent any more, or by somebody else.
    pub fn forget(&self) {
        self.unanswered.set(0);
        self.again.set(None);
    }
}
