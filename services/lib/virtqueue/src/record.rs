//! Which requests of a queue are in flight, in memory that outlives the process.

use crate::Violation;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Most descriptors of a queue.
pub const MAX_SIZE: u16 = 256;

/// The requests in flight of one queue. Lies in a frame that only the device's process maps, and that its successor finds as it was, wherever the process ended. All zero is a queue of which nothing was
/// taken.
///
/// Taking a request is one store, its head's order. How many were taken is not written down: it is what was returned plus what is in flight. Returning one is, in this order: name the head, write the used ring and its
/// index, forget the head, count it. A successor that finds the guest's used index one ahead of the count knows that the named head was returned; if both are the same, it was not.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Record {
    /// Requests returned, as the used index counts them.
    returned: AtomicU32,
    /// Head being returned, plus 1; 0: none yet.
    returning: AtomicU32,
    reserved: [AtomicU64; 7],
    /// For each head: 0, or a number that is higher the later it was taken.
    orders: [AtomicU64; MAX_SIZE as usize],
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

// Everything is ordered as the program says: the stores are Release, and the memory is read by a successor after the process has ended on every processor.
impl Record {
    /// Nothing was taken.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            returned: AtomicU32::new(0),
            returning: AtomicU32::new(0),
            reserved: [const { AtomicU64::new(0) }; 7],
            orders: [const { AtomicU64::new(0) }; MAX_SIZE as usize],
        }
    }

    /// Forgets everything, for a queue that starts anew.
    pub fn clear(&self) {
        self.returned.store(0, Ordering::Release);
        self.returning.store(0, Ordering::Release);
        for order in &self.orders {
            order.store(0, Ordering::Release);
        }
    }

    pub(crate) fn returned(&self) -> u16 {
        self.returned.load(Ordering::Acquire) as u16
    }

    pub(crate) fn is_in_flight(&self, head: u16) -> bool {
        self.orders[usize::from(head % MAX_SIZE)].load(Ordering::Relaxed) != 0
    }

    /// A request was taken.
    pub(crate) fn take(&self, head: u16, order: u64) {
        self.orders[usize::from(head % MAX_SIZE)].store(order, Ordering::Release);
    }

    /// A request is about to be returned.
    pub(crate) fn begin_return(&self, head: u16) {
        self.returning.store(u32::from(head) + 1, Ordering::Release);
    }

    /// A request was returned, and the used index is now `index`.
    pub(crate) fn end_return(&self, head: u16, index: u16) {
        self.orders[usize::from(head % MAX_SIZE)].store(0, Ordering::Release);
        self.returned.store(u32::from(index), Ordering::Release);
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.orders.iter().filter(|order| order.load(Ordering::Acquire) != 0).count()
    }

    /// Settles what a process left behind. `index` is the used index that stands in guest memory. Answers how many are in flight and the highest order.
    pub(crate) fn take_over(&self, size: u16, index: u16) -> Result<(u16, u64), Violation> {
        let returned = self.returned();
        if index == returned.wrapping_add(1) {
            let head = self.returning.load(Ordering::Acquire).checked_sub(1);
            let head = head.and_then(|head| u16::try_from(head).ok()).filter(|head| *head < size);
            self.end_return(head.ok_or(Violation::Record)?, index);
        } else if index != returned {
            return Err(Violation::UsedIndex { index, written: returned });
        }
        let mut count = 0;
        let mut highest = 0;
        for (head, order) in (0u16..).zip(&self.orders) {
            let order = order.load(Ordering::Acquire);
            if order == 0 {
                continue;
            }
            if head >= size || order > u64::MAX / 2 {
                return Err(Violation::Record);
            }
            count += 1;
            highest = highest.max(order);
        }
        Ok((count, highest))
    }

    /// The request in flight that was taken first after the one with order `after`: head and order.
    #[must_use]
    pub fn next_in_flight(&self, after: u64) -> Option<(u16, u64)> {
        let orders = (0u16..)
            .zip(&self.orders)
            .map(|(head, order)| (head, order.load(Ordering::Acquire)));
        orders.filter(|(_, order)| *order > after).min_by_key(|(_, order)| *order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The process ended between any two stores of a return.
    #[test]
    fn a_return_happens_or_not() {
        for stores in 0..=4 {
            let record = Record::new();
            record.take(7, 1);
            record.take(3, 2);
            let mut index = 0;
            if stores >= 1 {
                record.begin_return(7);
            }
            if stores >= 2 {
                index = 1;
            }
            if stores >= 3 {
                record.take(7, 0);
            }
            if stores >= 4 {
                record.end_return(7, 1);
            }
            let in_flight = record.take_over(8, index);
            assert_eq!(in_flight, Ok(if stores >= 2 { (1, 2) } else { (2, 2) }), "{stores}");
            let first = record.next_in_flight(0).unwrap();
            assert_eq!(first, if stores >= 2 { (3, 2) } else { (7, 1) });
            assert_eq!(record.take_over(8, index), in_flight, "taking over twice is as once");
        }
    }

    #[test]
    fn damage_is_found() {
        let record = Record::new();
        record.take(9, 1);
        assert_eq!(record.take_over(8, 0), Err(Violation::Record), "a head outside the queue");
        let record = Record::new();
        assert_eq!(record.take_over(8, 1), Err(Violation::Record), "nothing was being returned");
        record.begin_return(12);
        assert_eq!(record.take_over(8, 1), Err(Violation::Record));
        assert_eq!(record.take_over(8, 2), Err(Violation::UsedIndex { index: 2, written: 0 }));
        record.take(1, u64::MAX);
        assert_eq!(record.take_over(8, 0), Err(Violation::Record));
        record.clear();
        assert_eq!(record.take_over(8, 0), Ok((0, 0)));
    }
}
