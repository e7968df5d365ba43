//! How often a guest and its device disturb each other: with many requests at once, neither an interrupt nor a notification for each.
//!
//! How many requests a guest has at once cannot be seen where the device is faster than the guest: each has ended before the next is there, whether the guest waits for it or not. So it is tried.
//! An interrupt waits until a *batch* of requests has ended, for a bounded time. Batches that fill up in that time get larger; one that does not was waited for in vain, and it is half as large from
//! then on; its size is tried again only after many requests. The time is what a batch took so far, twice: a guest with one request at once is held up for a few of them once in as many,
//! on a fast device as on a slow one.
//!
//! A notification is not asked for while something is in flight, where many are at once, for new requests are found when it ends; for the same bounded time.

/// Requests at once from which on notifications are not asked for.
const MANY: u16 = 4;
/// Requests of a batch at most.
const MOST: u16 = 24;
/// Requests that end until a size that was too large is tried again.
const AGAIN: u16 = 256;

/// What is being put off for one queue. Times are in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Requests that the guest has at once, as far as the device sees it.
    depth: u16,
    /// Requests that end for one interrupt.
    batch: u16,
    /// A size of batches that was too large.
    failed: u16,
    /// Requests that ended since then.
    since: u16,
    /// The guest is interrupted then.
    interrupt: Option<u64>,
    /// Notifications are off.
    deaf: bool,
    /// They are asked for again then; 0: now.
    listen: Option<u64>,
    /// Requests ended since new ones were looked for.
    progress: bool,
    /// When the guest was last interrupted.
    told: u64,
    /// Between two requests that end, on average; as long as it is not known, more than anybody waits.
    gap: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            depth: 0,
            batch: 1,
            failed: MOST + 1,
            since: 0,
            interrupt: None,
            deaf: false,
            listen: None,
            progress: false,
            told: 0,
            gap: u64::MAX,
        }
    }
}

impl Pace {
    /// A request ended.
    pub fn ended(&mut self) {
        self.progress = true;
        self.since = self.since.saturating_add(1);
    }

    /// For how long something is put off now: not so short that putting it off costs more than it saves.
    fn wait(&self, patience: u64) -> u64 {
        self.gap.saturating_mul(2 * u64::from(self.batch)).clamp(patience / 25, patience)
    }

    /// The guest is interrupted for so many requests.
    fn tells(&mut self, now: u64, patience: u64, untold: u16) {
        // A pause of the guest's is no request that took long.
        let sample = (now.saturating_sub(self.told) / u64::from(untold.max(1))).min(patience);
        self.gap = if self.gap == u64::MAX {
            sample
        } else {
            (self.gap * 7 + sample) / 8
        };
        self.told = now;
    }

    fn see(&mut self, untold: u16, in_flight: u16) {
        self.depth = self.depth.max(untold.saturating_add(in_flight));
    }

    /// There are no more requests in the queue. Whether the driver is to notify of the next one; if not, [`Self::is_time_to_look`] says when to look.
    pub fn listens(&mut self, patience: u64, untold: u16, in_flight: u16) -> bool {
        self.see(untold, in_flight);
        let expired = self.deaf && self.listen == Some(0);
        // What is in flight ends, and what the guest was not told of it soon is: there will be a look either way.
        self.deaf = patience > 0 && self.depth >= MANY && (in_flight > 0 || untold > 0) && !expired;
        self.listen = None;
        !self.deaf
    }

    /// Whether to look for requests that the driver did not notify of.
    pub fn is_time_to_look(&mut self, now: u64) -> bool {
        let progress = core::mem::take(&mut self.progress);
        if self.deaf && self.listen.is_some_and(|due| now >= due) {
            // From now on it is heard.
            self.listen = Some(0);
            self.depth /= 2;
            return true;
        }
        self.deaf && progress
    }

    /// Whether to interrupt now for `untold` requests that ended, with others still in flight.
    pub fn interrupts(&mut self, now: u64, patience: u64, untold: u16, in_flight: u16) -> bool {
        self.see(untold, in_flight);
        if patience == 0 {
            self.interrupt = None;
            return true;
        }
        let full = untold >= self.batch;
        let late = self.interrupt.is_some_and(|due| now >= due);
        if !full && !late {
            let due = now + self.wait(patience);
            self.interrupt.get_or_insert(due);
            return false;
        }
        self.interrupt = None;
        self.tells(now, patience, untold);
        if full {
            if self.since >= AGAIN {
                self.since = 0;
                // Twice as much, for it may have been the device that stood still for a moment.
                self.failed = (self.failed * 2).min(MOST + 1);
            }
            self.batch = (self.batch + 1).min(self.failed - 1);
        } else if late {
            // If nothing is left, the guest has no more at once, and the device is not to wait for it with all of them.
            let filled = if in_flight == 0 { untold * 3 / 4 } else { untold };
            self.failed = self.batch.max(2);
            self.batch = filled.max(self.batch / 2).clamp(1, self.failed - 1);
            self.since = 0;
            self.depth /= 2;
        }
        true
    }

    /// If the guest has many requests at once: the time in which a batch of them ends.
    pub fn batch_time(&self, patience: u64) -> Option<u64> {
        (self.batch >= MANY).then(|| self.wait(patience) / 2)
    }

    /// When something will be due.
    pub fn due(&mut self, now: u64, patience: u64) -> Option<u64> {
        if self.deaf {
            let due = now + self.wait(patience);
            self.listen.get_or_insert(due);
        }
        self.interrupt.into_iter().chain(self.listen).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells of requests that end one by one, `gap` ticks after each other, the guest having `depth` at once; interrupts and ticks that were waited in vain.
    fn run(pace: &mut Pace, count: u32, depth: u16, gap: u64, now: &mut u64) -> (u32, u64) {
        let (mut interrupts, mut waited, mut untold) = (0, 0, 0);
        for _ in 0..count {
            *now += gap;
            untold += 1;
            pace.ended();
            if !pace.interrupts(*now, 50, untold, depth - untold) {
                if untold < depth && pace.due(*now, 50).unwrap() > *now + gap {
                    continue;
                }
                let due = pace.due(*now, 50).unwrap();
                waited += due - *now;
                *now = due;
                assert!(pace.interrupts(*now, 50, untold, depth - untold));
            }
            interrupts += 1;
            untold = 0;
        }
        (interrupts, waited)
    }

    #[test]
    fn one_at_a_time_seldom_waits() {
        let (mut pace, mut now) = (Pace::default(), 0);
        let (interrupts, waited) = run(&mut pace, 10_000, 1, 10, &mut now);
        assert_eq!(interrupts, 10_000);
        assert!(waited <= 50 * (10_000 / u64::from(AGAIN) + 2), "{waited}");
    }

    #[test]
    fn of_many_a_part_is_told_at_once_also_where_the_device_is_faster_than_the_guest() {
        let (mut pace, mut now) = (Pace::default(), 0);
        let (interrupts, _) = run(&mut pace, 1_000, 32, 1, &mut now);
        assert!(interrupts < 1_000 / 10, "{interrupts}");
        let (interrupts, waited) = run(&mut pace, 1_000, 32, 9, &mut now);
        assert!(interrupts < 1_000 / 3, "{interrupts}");
        assert!(waited < 1_000, "a busy guest is not held up: {waited}");
    }

    #[test]
    fn a_guest_that_has_less_to_do_is_soon_told_at_once() {
        let (mut pace, mut now) = (Pace::default(), 0);
        run(&mut pace, 1_000, 32, 1, &mut now);
        let (interrupts, waited) = run(&mut pace, 200, 1, 10, &mut now);
        assert_eq!(interrupts, 200);
        assert!(waited <= 50 * 6, "{waited}");
    }

    #[test]
    fn a_batch_that_is_waited_for_in_vain_is_told_in_time() {
        let mut pace = Pace {
            batch: 8,
            ..Pace::default()
        };
        assert!(!pace.interrupts(10, 50, 1, 31));
        assert!(!pace.interrupts(59, 50, 7, 25));
        assert_eq!(pace.due(59, 50), Some(60));
        assert!(pace.interrupts(60, 50, 7, 25), "not for longer than this");
        assert!(
            pace.interrupts(61, 50, 7, 25) && !pace.interrupts(62, 50, 6, 25),
            "as many as there were"
        );
        let mut pace = Pace {
            batch: 8,
            ..Pace::default()
        };
        assert!(!pace.interrupts(10, 50, 1, 7) && pace.interrupts(60, 50, 8, 0));
        let mut pace = Pace {
            batch: 9,
            ..Pace::default()
        };
        assert!(!pace.interrupts(10, 50, 1, 7) && pace.interrupts(60, 50, 8, 0));
        assert_eq!(pace.batch, 6, "a part of all that the guest has at once");
    }

    #[test]
    fn what_the_driver_does_not_notify_of_is_found() {
        let mut pace = Pace::default();
        assert!(!pace.listens(50, 0, 16));
        assert_eq!(pace.due(100, 50), Some(150));
        assert!(!pace.is_time_to_look(149));
        pace.ended();
        assert!(pace.is_time_to_look(149), "whenever one ends");
        assert!(!pace.listens(50, 1, 15));
        assert_eq!(pace.due(149, 50), Some(199));
        assert!(pace.is_time_to_look(199), "and after a while");
        assert!(pace.listens(50, 1, 15), "from then on it notifies");
        assert_eq!(pace.due(199, 50), None);
        assert!(!pace.is_time_to_look(1000));
        assert!(!pace.listens(50, 16, 0), "the guest is told of them soon");
        assert!(pace.listens(50, 0, 0), "nothing happens that would show it");
    }

    #[test]
    fn without_patience_nothing_is_put_off() {
        let mut pace = Pace::default();
        assert!(pace.listens(0, 0, 200));
        for _ in 0..100 {
            assert!(pace.interrupts(5, 0, 1, 200));
        }
        assert_eq!(pace.batch_time(0), None, "nor is a device polled");
        assert_eq!(pace.due(5, 0), None);
    }
}
