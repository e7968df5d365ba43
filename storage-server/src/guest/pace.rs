//! How often a guest and its device disturb each other: with many requests at once, neither an interrupt nor a notification for each.
//!
//! How many requests the guest has at once is seen from what it waits for: those in flight, and those that ended without it being told. An interrupt waits until a quarter of
//! that many have ended; a notification is not asked for while something is in flight, for new requests are found when it ends. Both for a bounded time, so that one slow request
//! holds up nobody, and whenever that time was waited in vain, the guest is taken to have half as many. With one or a few requests at once nothing waits.

/// Requests at once from which on anything waits.
const MANY: u16 = 4;

/// What is being put off for one queue. Times are in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Requests that the guest has at once, most of the time.
    depth: u16,
    /// The guest is interrupted then.
    interrupt: Option<u64>,
    /// Notifications are off.
    deaf: bool,
    /// They are asked for again then; 0: now.
    listen: Option<u64>,
    /// Requests ended since new ones were looked for.
    progress: bool,
}

impl Pace {
    /// A request ended.
    pub fn ended(&mut self) {
        self.progress = true;
    }

    fn see(&mut self, untold: u16, in_flight: u16) {
        self.depth = self.depth.max(untold.saturating_add(in_flight));
    }

    /// There are no more requests in the queue. Whether the driver is to notify of the next one; if not, [`Self::is_time_to_look`] says when to look.
    pub fn listens(&mut self, patience: u64, untold: u16, in_flight: u16) -> bool {
        self.see(untold, in_flight);
        let expired = self.deaf && self.listen == Some(0);
        self.deaf = patience > 0 && self.depth >= MANY && in_flight > 0 && !expired;
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
        let late = self.interrupt.is_some_and(|due| now >= due);
        if late {
            self.depth /= 2;
        }
        let due = patience == 0 || late || untold >= self.depth / MANY;
        self.interrupt = if due { None } else { self.interrupt.or(Some(now + patience)) };
        due
    }

    /// When something will be due.
    pub fn due(&mut self, now: u64, patience: u64) -> Option<u64> {
        if self.deaf {
            self.listen.get_or_insert(now + patience);
        }
        self.interrupt.into_iter().chain(self.listen).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_nothing_waits() {
        let mut pace = Pace::default();
        assert!(pace.listens(50, 0, 1));
        pace.ended();
        assert!(!pace.is_time_to_look(1), "the driver notifies");
        assert!(pace.interrupts(1, 50, 1, 0));
        assert_eq!(pace.due(1, 50), None);
    }

    #[test]
    fn of_many_a_part_is_told_at_once() {
        let mut pace = Pace::default();
        assert!(!pace.listens(50, 0, 32));
        assert!(!pace.interrupts(10, 50, 1, 31));
        assert!(!pace.interrupts(20, 50, 7, 0), "also when the device is faster than the guest");
        assert!(pace.interrupts(30, 50, 8, 24));
        assert!(!pace.interrupts(40, 50, 1, 31), "and then it starts again");
        assert!(pace.interrupts(90, 50, 2, 30), "but not for longer than this");
    }

    #[test]
    fn a_guest_that_has_less_to_do_is_soon_told_at_once() {
        let mut pace = Pace::default();
        assert!(!pace.listens(50, 0, 32));
        let (mut now, mut waits) = (0, 0);
        while !pace.interrupts(now, 50, 1, 0) {
            now += 50;
            waits += 1;
            assert!(pace.interrupts(now, 50, 1, 0));
        }
        assert!((1..=4).contains(&waits), "{waits}");
        while !pace.listens(50, 0, 1) {
            now = pace.due(now, 50).unwrap();
            waits += 1;
            assert!(pace.is_time_to_look(now) && waits <= 6);
        }
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
        assert!(pace.listens(50, 16, 0), "nothing is in flight whose end would show it");
    }

    #[test]
    fn without_patience_nothing_is_put_off() {
        let mut pace = Pace::default();
        assert!(pace.listens(0, 0, 200));
        assert!(pace.interrupts(5, 0, 1, 200));
        assert_eq!(pace.due(5, 0), None);
    }
}
