//! How often a guest and its device disturb each other: while many requests are in flight, neither an interrupt nor a notification for each.
//!
//! An interrupt waits until a quarter of what the guest has given is done, and a notification is not asked for at all: new requests are found whenever old ones end. Both for a
//! bounded time, so that one slow request holds up nobody. With few requests in flight, as with one at a time, nothing waits.

/// Requests in flight from which on new ones are looked for when others end.
const MANY: u16 = 4;
/// An interrupt is due when what it tells of is this part of what is still in flight.
const PART: u32 = 3;

/// What is being put off for one queue. Times are in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// The guest is interrupted then.
    interrupt: Option<u64>,
    /// Notifications are off.
    deaf: bool,
    /// They are asked for again then.
    listen: Option<u64>,
    /// Requests ended since new ones were looked for.
    progress: bool,
}

impl Pace {
    /// A request ended.
    pub fn ended(&mut self) {
        self.progress = true;
    }

    /// There are no more requests in the queue. Whether the driver is to notify of the next one; if not, [`Self::is_time_to_look`] says when to look.
    pub fn listens(&mut self, patience: u64, in_flight: u16) -> bool {
        let expired = self.deaf && self.listen == Some(0);
        self.deaf = patience > 0 && in_flight >= MANY && !expired;
        self.listen = None;
        !self.deaf
    }

    /// Whether to look for requests that the driver did not notify of.
    pub fn is_time_to_look(&mut self, now: u64) -> bool {
        let progress = core::mem::take(&mut self.progress);
        if self.deaf && self.listen.is_some_and(|due| now >= due) {
            // From now on it is heard.
            self.listen = Some(0);
            return true;
        }
        self.deaf && progress
    }

    /// Whether to interrupt now for `unsaid` requests that ended, with others still in flight.
    pub fn interrupts(&mut self, now: u64, patience: u64, unsaid: u16, in_flight: u16) -> bool {
        let due = patience == 0 || u32::from(unsaid) * PART >= u32::from(in_flight) || self.interrupt.is_some_and(|due| now >= due);
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
        assert!(pace.listens(50, 1));
        pace.ended();
        assert!(!pace.is_time_to_look(1), "the driver notifies");
        assert!(pace.interrupts(1, 50, 1, 0));
        assert_eq!(pace.due(1, 50), None);
    }

    #[test]
    fn of_many_a_part_is_told_at_once() {
        let mut pace = Pace::default();
        assert!(!pace.listens(50, 32));
        assert!(!pace.interrupts(10, 50, 1, 31));
        assert!(!pace.interrupts(20, 50, 7, 25));
        assert!(pace.interrupts(30, 50, 8, 24));
        assert!(!pace.interrupts(40, 50, 1, 31), "and then it starts again");
        assert!(pace.interrupts(90, 50, 2, 30), "but not for longer than this");
    }

    #[test]
    fn what_the_driver_does_not_notify_of_is_found() {
        let mut pace = Pace::default();
        assert!(!pace.listens(50, 8));
        assert_eq!(pace.due(100, 50), Some(150));
        assert!(!pace.is_time_to_look(149));
        pace.ended();
        assert!(pace.is_time_to_look(149), "whenever one ends");
        assert!(!pace.listens(50, 8));
        assert_eq!(pace.due(149, 50), Some(199));
        assert!(pace.is_time_to_look(199), "and after a while");
        assert!(pace.listens(50, 8), "from then on it notifies");
        assert_eq!(pace.due(199, 50), None);
        assert!(!pace.is_time_to_look(1000));
    }

    #[test]
    fn without_patience_nothing_is_put_off() {
        let mut pace = Pace::default();
        assert!(pace.listens(0, 200));
        assert!(pace.interrupts(5, 0, 1, 200));
        assert_eq!(pace.due(5, 0), None);
    }
}
