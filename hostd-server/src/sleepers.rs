//! Who sleeps, and until when.

use alloc::{collections::BTreeMap, rc::Rc};
use core::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

#[derive(Default)]
struct Waiting {
    /// By when it ends, and a number of its own.
    ends: BTreeMap<(u64, u64), Waker>,
    last: u64,
}

/// Sleeps that have not ended. Time is milliseconds of a clock that never goes back.
#[derive(Clone, Default)]
pub struct Sleepers(Rc<RefCell<Waiting>>);

impl Sleepers {
    /// Sleeps until `end`, by the clock `now`.
    #[must_use]
    pub fn until(&self, end: u64, now: fn() -> u64) -> Sleep {
        Sleep {
            sleepers: self.clone(),
            now,
            end,
            number: None,
        }
    }

    /// Wakes those whose sleep is over at `now`.
    pub fn wake(&self, now: u64) {
        while let Some(waker) = self.pop(now) {
            waker.wake();
        }
    }

    fn pop(&self, now: u64) -> Option<Waker> {
        let mut waiting = self.0.borrow_mut();
        let first = waiting.ends.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When the first of them ends.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.0.borrow().ends.keys().next().map(|(end, _)| *end)
    }
}

/// A sleep. Whoever gives it up is in nobody's list any more: most sleeps are limits of something that comes in time.
pub struct Sleep {
    sleepers: Sleepers,
    now: fn() -> u64,
    end: u64,
    /// Set while it is in the list.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if (self.now)() >= self.end {
            return Poll::Ready(());
        }
        let sleepers = self.sleepers.clone();
        let mut waiting = sleepers.0.borrow_mut();
        let number = *self.number.get_or_insert_with(|| {
            waiting.last += 1;
            waiting.last
        });
        match waiting.ends.get_mut(&(self.end, number)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                waiting.ends.insert((self.end, number), context.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // Bound first: what drops with it may be a sleep too.
            let gone = self.sleepers.0.borrow_mut().ends.remove(&(self.end, number));
            drop(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{sync::Arc, task::Wake};
    use core::sync::atomic::{AtomicU64, Ordering};

    static NOW: AtomicU64 = AtomicU64::new(0);

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn those_whose_time_came_are_woken_in_order() {
        let (sleepers, count) = (Sleepers::default(), Arc::new(Count::default()));
        let waker = count.clone().into();
        let mut context = Context::from_waker(&waker);
        let mut sleeps = [30, 10, 20].map(|end| sleepers.until(end, || NOW.load(Ordering::Relaxed)));
        for sleep in &mut sleeps {
            assert!(Pin::new(&mut *sleep).poll(&mut context).is_pending());
            // Polled again, it is in the list once.
            assert!(Pin::new(sleep).poll(&mut context).is_pending());
        }
        assert_eq!(sleepers.first(), Some(10));
        NOW.store(20, Ordering::Relaxed);
        sleepers.wake(20);
        assert_eq!((count.0.load(Ordering::Relaxed), sleepers.first()), (2, Some(30)));
        assert!(Pin::new(&mut sleeps[1]).poll(&mut context).is_ready());
        assert!(Pin::new(&mut sleeps[0]).poll(&mut context).is_pending());
    }

    #[test]
    fn who_gives_a_sleep_up_is_forgotten() {
        let sleepers = Sleepers::default();
        let mut context = Context::from_waker(Waker::noop());
        for end in 1..1000 {
            assert!(Pin::new(&mut sleepers.until(end, || 0)).poll(&mut context).is_pending());
        }
        assert_eq!(sleepers.first(), None);
    }
}
