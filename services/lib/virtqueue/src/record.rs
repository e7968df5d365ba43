//! Which requests of a queue are in flight, in memory that outlives the process.

use crate::Violation;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Most descriptors of a queue.
pub const MAX_SIZE: u16 = 512;
/// In an order: the head is one of several that are being returned.
const MARK: u64 = 1 << 63;
/// In `returning`: several are, and how many.
const SEVERAL: u32 = 1 << 31;

/// The requests in flight of one queue. Lies in a frame that only the device's process maps, and that its successor finds as it was, wherever the process ended. All zero is a queue of which nothing was
/// taken.
///
/// Taking a request is one store, its head's order. How many were taken is not written down: it is what was returned plus what is in flight. Returning one is, in this order: name the head, write the used ring and its
/// index, forget the head, count it. A successor that finds the guest's used index one ahead of the count knows that the named head was returned; if both are the same, it was not.
///
/// Returning several at once is: mark each head, write the used ring, say how many, write the index, forget the marked heads, count them. The index moves once, so all of them were returned or none.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Record {
    /// Requests returned, as the used index counts them.
    returned: AtomicU32,
    /// Head being returned, plus 1; 0: none yet; or [`SEVERAL`] and their number.
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

    /// One of several requests is about to be returned; false: it is not in flight, or named twice.
    pub(crate) fn begin_return_of_several(&self, head: u16) -> bool {
        let place = &self.orders[usize::from(head % MAX_SIZE)];
        let order = place.load(Ordering::Relaxed);
        if order == 0 || order & MARK != 0 {
            return false;
        }
        place.store(order | MARK, Ordering::Release);
        true
    }

    /// They are not returned after all.
    pub(crate) fn cancel_return(&self, requests: &[(u16, u32)]) {
        for (head, _) in requests {
            let place = &self.orders[usize::from(head % MAX_SIZE)];
            place.store(place.load(Ordering::Relaxed) & !MARK, Ordering::Release);
        }
    }

    /// All are marked, and the index is about to pass them.
    pub(crate) fn several_follow(&self, count: u16) {
        self.returning.store(SEVERAL | u32::from(count), Ordering::Release);
    }

    /// They were returned, and the used index is now `index`.
    pub(crate) fn end_return_of_several(&self, requests: &[(u16, u32)], index: u16) {
        for (head, _) in requests {
            self.orders[usize::from(head % MAX_SIZE)].store(0, Ordering::Release);
        }
        self.returned.store(u32::from(index), Ordering::Release);
    }

    /// Settles the return of several that a process left behind.
    fn settle_several(&self, index: u16) {
        let returning = self.returning.load(Ordering::Acquire);
        let count = (returning & SEVERAL != 0).then_some(returning as u16);
        let passed = count.is_some_and(|count| count > 0 && index == self.returned().wrapping_add(count));
        for place in &self.orders {
            let order = place.load(Ordering::Acquire);
            if order & MARK != 0 {
                place.store(if passed { 0 } else { order & !MARK }, Ordering::Release);
            }
        }
        if passed {
            self.returned.store(u32::from(index), Ordering::Release);
        }
    }

    /// Whether nothing was ever taken or returned.
    fn is_untouched(&self) -> bool {
        self.returned() == 0 && self.returning.load(Ordering::Acquire) == 0 && self.in_flight() == 0
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.orders.iter().filter(|order| order.load(Ordering::Acquire) != 0).count()
    }

    /// Settles what a process left behind. `index` is the used index that stands in guest memory. Answers how many are in flight and the highest order.
    ///
    /// A record that says nothing at all is that of a machine that was stopped and is put together again: everything in its queue had been returned, so the index tells how much that was.
    pub(crate) fn take_over(&self, size: u16, index: u16) -> Result<(u16, u64), Violation> {
        if self.is_untouched() {
            self.returned.store(u32::from(index), Ordering::Release);
            return Ok((0, 0));
        }
        self.settle_several(index);
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
            if head >= size || order > u64::MAX / 4 {
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

    /// The same of several.
    #[test]
    fn several_are_returned_or_none() {
        let several = [(7, 0), (3, 0), (1, 0)];
        for stores in 0..=8 {
            let record = Record::new();
            record.end_return(0, 40);
            for (order, head) in (1..).zip([7, 3, 1, 5]) {
                record.take(head, order);
            }
            let mut index = 40;
            for (head, _) in several.iter().take(stores) {
                assert!(record.begin_return_of_several(*head));
            }
            assert!(stores == 0 || !record.begin_return_of_several(7), "named twice");
            if stores >= 4 {
                record.several_follow(3);
            }
            if stores >= 5 {
                index = 43;
            }
            if stores >= 6 {
                record.take(7, 0);
            }
            if stores >= 7 {
                record.take(3, 0);
            }
            if stores >= 8 {
                record.end_return_of_several(&several, 43);
            }
            let in_flight = record.take_over(8, index);
            assert_eq!(in_flight, Ok(if stores >= 5 { (1, 4) } else { (4, 4) }), "{stores}");
            assert_eq!(record.next_in_flight(0), Some(if stores >= 5 { (5, 4) } else { (7, 1) }));
            assert_eq!(record.take_over(8, index), in_flight, "taking over twice is as once");
        }
    }

    #[test]
    fn damage_is_found() {
        let record = Record::new();
        record.take(9, 1);
        assert_eq!(record.take_over(8, 0), Err(Violation::Record), "a head outside the queue");
        let record = Record::new();
        record.take(3, 1);
        assert_eq!(record.take_over(8, 1), Err(Violation::Record), "nothing was being returned");
        record.clear();
        record.begin_return(12);
        assert_eq!(record.take_over(8, 1), Err(Violation::Record));
        assert_eq!(record.take_over(8, 2), Err(Violation::UsedIndex { index: 2, written: 0 }));
        record.take(1, u64::MAX >> 1);
        assert_eq!(record.take_over(8, 0), Err(Violation::Record));
        record.clear();
        assert_eq!(record.take_over(8, 0), Ok((0, 0)));
    }

    #[test]
    fn a_queue_without_a_record_goes_on_behind_what_was_returned() {
        let record = Record::new();
        assert_eq!(record.take_over(8, 0xfff0), Ok((0, 0)));
        record.take(3, 1);
        assert_eq!(record.take_over(8, 0xfff0), Ok((1, 1)));
        assert_eq!(
            record.take_over(8, 0xfff2),
            Err(Violation::UsedIndex {
                index: 0xfff2,
                written: 0xfff0
            })
        );
    }
}
