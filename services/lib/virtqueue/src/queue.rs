//! A queue: taking requests and returning them (virtio 1.2, 2.7.6 to 2.7.10).

use crate::chain::{Chain, DESCRIPTOR, INDIRECT, NEXT, WRITE};
use crate::{Area, GuestMemory, MAX_SIZE, Record, Segment, Violation};
use core::sync::atomic::{Ordering, fence};

/// Flags and index before a ring's elements.
const HEADER: u64 = 4;
/// Bytes of a used element.
const USED: u64 = 8;
/// Available ring's flag: the driver wants no interrupts.
const NO_INTERRUPT: u16 = 1;
/// Used ring's flag: the device wants no notifications.
const NO_NOTIFY: u16 = 1;

/// Where a driver put its queue: all guest-physical addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Descriptors: a power of two, at most [`MAX_SIZE`].
    pub size: u16,
    /// Descriptor table, aligned to 16 bytes.
    pub descriptors: u64,
    /// Available ring ("driver area"), aligned to 2 bytes.
    pub available: u64,
    /// Used ring ("device area"), aligned to 4 bytes.
    pub used: u64,
}

impl Layout {
    fn check<M: GuestMemory>(&self, memory: &M) -> Result<(), Violation> {
        if !self.size.is_power_of_two() || self.size > MAX_SIZE {
            return Err(Violation::Size(self.size));
        }
        let size = u64::from(self.size);
        let parts = [
            (Area::Descriptors, self.descriptors, 16, DESCRIPTOR * size),
            // With the event at the end, whether it is used or not.
            (Area::Available, self.available, 2, HEADER + 2 * size + 2),
            (Area::Used, self.used, 4, HEADER + USED * size + 2),
        ];
        for (area, address, alignment, length) in parts {
            if !address.is_multiple_of(alignment) {
                return Err(Violation::Alignment(area, address));
            }
            if !memory.contains(address, length) {
                return Err(Violation::Outside(area, address));
            }
        }
        Ok(())
    }

    fn used_event(&self) -> u64 {
        self.available + HEADER + 2 * u64::from(self.size)
    }

    fn available_event(&self) -> u64 {
        self.used + HEADER + USED * u64::from(self.size)
    }
}

/// What device and driver agreed on that concerns queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub indirect: bool,
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_index: bool,
}

/// A queue in use.
#[derive(Debug)]
pub struct Queue {
    layout: Layout,
    features: Features,
    /// Requests taken.
    taken: u16,
    /// Requests returned.
    returned: u16,
    /// `returned` when the driver was last asked whether it wants an interrupt.
    asked: u16,
    /// Order of the request taken last.
    order: u64,
}

impl Queue {
    /// A queue that a driver just set up.
    ///
    /// # Errors
    /// Size, alignment or place of a part is wrong.
    pub fn new<M: GuestMemory>(layout: Layout, features: Features, memory: &M, record: &Record) -> Result<Self, Violation> {
        layout.check(memory)?;
        record.clear();
        // The driver has to have done so; a successor compares it with what was returned.
        let outside = Violation::Outside(Area::Used, layout.used);
        memory.write_u16(layout.used + 2, 0).ok_or(outside)?;
        Ok(Self {
            layout,
            features,
            taken: 0,
            returned: 0,
            asked: 0,
            order: 0,
        })
    }

    /// A queue that an earlier process served. What [`Record::next_in_flight`] then names has to be done again, and a notification may have been lost: look whether there is more.
    ///
    /// # Errors
    /// As [`Queue::new`]; the used index was changed; the record is damaged.
    pub fn take_over<M: GuestMemory>(layout: Layout, features: Features, memory: &M, record: &Record) -> Result<Self, Violation> {
        layout.check(memory)?;
        let index = memory
            .read_u16(layout.used + 2)
            .ok_or(Violation::Outside(Area::Used, layout.used))?;
        let (in_flight, order) = record.take_over(layout.size, index)?;
        if in_flight > layout.size {
            return Err(Violation::Record);
        }
        Ok(Self {
            layout,
            features,
            taken: index.wrapping_add(in_flight),
            returned: index,
            // The driver may not have been told of the last ones: it will be, at the price of an interrupt too many.
            asked: index.wrapping_sub(layout.size),
            order,
        })
    }

    /// Where it is.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Requests taken and not returned.
    #[must_use]
    pub const fn in_flight(&self) -> u16 {
        self.taken.wrapping_sub(self.returned)
    }

    /// Requests returned since the driver was last asked whether it wants an interrupt.
    #[must_use]
    pub const fn untold(&self) -> u16 {
        self.returned.wrapping_sub(self.asked)
    }

    /// Takes the next request, if there is one: the head of its chain. It is in flight until [`Queue::push`].
    ///
    /// # Errors
    /// The index is too far ahead, or the head outside the table or in flight already. The queue is not to be used any more then.
    #[inline]
    pub fn pop<M: GuestMemory>(&mut self, memory: &M, record: &Record) -> Result<Option<u16>, Violation> {
        let ring = self.layout.available;
        let gone = Violation::Outside(Area::Available, ring);
        let Some(index) = memory.read_u16(ring + 2) else { return Err(gone) };
        let waiting = index.wrapping_sub(self.taken);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.layout.size {
            return Err(Violation::AvailableIndex { index, taken: self.taken });
        }
        // What the driver wrote before the index is seen after it.
        fence(Ordering::Acquire);
        let place = u64::from(self.taken & (self.layout.size - 1));
        let Some(head) = memory.read_u16(ring + HEADER + 2 * place) else {
            return Err(gone);
        };
        if head >= self.layout.size {
            return Err(Violation::Head(head));
        }
        if record.is_in_flight(head) {
            return Err(Violation::HeadInFlight(head));
        }
        self.order += 1;
        record.take(head, self.order);
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(head))
    }

    /// The buffers of the request with this head. Reading them again may give something else.
    #[inline]
    pub fn chain<'m, M: GuestMemory>(&self, memory: &'m M, head: u16) -> Chain<'m, M> {
        let head = head & (self.layout.size - 1);
        Chain::new(memory, self.layout.descriptors, self.layout.size, head, self.features.indirect)
    }

    /// Gives `each` the buffers of a request that are descriptors of the queue itself, until it does not want more. Whether these were all and obey the rules; if not, [`Queue::chain`] tells what is
    /// wrong, if anything is. It is for small requests, of which reading the buffers is a large part.
    #[inline(always)]
    pub fn plain_chain<M: GuestMemory>(&self, memory: &M, head: u16, mut each: impl FnMut(Segment) -> bool) -> bool {
        let (mut index, mut writable, mut total) = (head, false, 0u32);
        for _ in 0..self.layout.size {
            if index >= self.layout.size {
                return false;
            }
            let place = self.layout.descriptors + u64::from(index) * DESCRIPTOR;
            let Some((address, rest)) = memory.read_u64_pair(place) else {
                return false;
            };
            let (length, flags) = (rest as u32, (rest >> 32) as u16);
            let writes = flags & WRITE != 0;
            if flags & INDIRECT != 0 || length == 0 || writable && !writes || !memory.contains(address, length.into()) {
                return false;
            }
            writable = writes;
            let Some(sum) = total.checked_add(length) else { return false };
            total = sum;
            if !each(Segment { address, length, writable }) {
                return false;
            }
            if flags & NEXT == 0 {
                return true;
            }
            index = (rest >> 48) as u16;
        }
        false
    }

    /// Returns a request, in any order; `written` bytes of its writable buffers were written. Ask [`Queue::needs_interrupt`] afterwards, once for several.
    ///
    /// # Errors
    /// The used ring is not RAM any more, or the request is not in flight.
    #[inline]
    pub fn push<M: GuestMemory>(&mut self, memory: &M, record: &Record, head: u16, written: u32) -> Result<(), Violation> {
        if head >= self.layout.size || !record.is_in_flight(head) {
            return Err(Violation::Record);
        }
        let gone = Violation::Outside(Area::Used, self.layout.used);
        let place = u64::from(self.returned & (self.layout.size - 1));
        let next = self.returned.wrapping_add(1);
        record.begin_return(head);
        let element = self.layout.used + HEADER + USED * place;
        if memory.write_pair(element, u32::from(head), written).is_none() {
            return Err(gone);
        }
        // The data and the element are seen before the index.
        fence(Ordering::Release);
        if memory.write_u16(self.layout.used + 2, next).is_none() {
            return Err(gone);
        }
        record.end_return(head, next);
        self.returned = next;
        Ok(())
    }

    /// Returns several requests, each with the bytes that were written, so that the driver sees all of them at once or none; also after the process ended in between.
    ///
    /// # Errors
    /// As [`Queue::push`].
    pub fn push_all<M: GuestMemory>(&mut self, memory: &M, record: &Record, requests: &[(u16, u32)]) -> Result<(), Violation> {
        match requests {
            [] => return Ok(()),
            [(head, written)] => return self.push(memory, record, *head, *written),
            _ => (),
        }
        let gone = Violation::Outside(Area::Used, self.layout.used);
        let mut next = self.returned;
        for (head, written) in requests {
            if *head >= self.layout.size || !record.begin_return_of_several(*head) {
                record.cancel_return(requests);
                return Err(Violation::Record);
            }
            let place = u64::from(next & (self.layout.size - 1));
            memory
                .write_pair(self.layout.used + HEADER + USED * place, u32::from(*head), *written)
                .ok_or(gone)?;
            next = next.wrapping_add(1);
        }
        record.several_follow(requests.len() as u16);
        fence(Ordering::Release);
        memory.write_u16(self.layout.used + 2, next).ok_or(gone)?;
        record.end_return_of_several(requests, next);
        self.returned = next;
        Ok(())
    }

    /// Whether the driver wants an interrupt for what was returned since it was last asked (2.7.7, 2.7.10).
    #[inline]
    pub fn needs_interrupt<M: GuestMemory>(&mut self, memory: &M) -> bool {
        let before = core::mem::replace(&mut self.asked, self.returned);
        if before == self.returned {
            return false;
        }
        self.is_wanted(memory, before)
    }

    /// Whether [`Queue::needs_interrupt`] would say so now. A driver that has meanwhile looked by itself does not want it any more, so who asks later interrupts less.
    #[inline]
    #[must_use]
    pub fn would_interrupt<M: GuestMemory>(&self, memory: &M) -> bool {
        self.asked != self.returned && self.is_wanted(memory, self.asked)
    }

    /// Whether the driver wants an interrupt for what was returned since `before`.
    #[inline]
    fn is_wanted<M: GuestMemory>(&self, memory: &M, before: u16) -> bool {
        // The driver sets its wish and then looks at the used index: one of the two sees the other's.
        fence(Ordering::SeqCst);
        if self.features.event_index {
            let event = memory.read_u16(self.layout.used_event()).unwrap_or(self.returned);
            passed(event, self.returned, before)
        } else {
            memory
                .read_u16(self.layout.available)
                .is_some_and(|flags| flags & NO_INTERRUPT == 0)
        }
    }

    /// Tells the driver not to notify, while the device looks by itself. With event indices nothing needs to be said: the driver notifies once for each [`Queue::enable_notifications`].
    pub fn disable_notifications<M: GuestMemory>(&self, memory: &M) {
        if !self.features.event_index {
            let _ = memory.write_u16(self.layout.used, NO_NOTIFY);
        }
    }

    /// Asks the driver to notify of the next request. True: one is there already, and no notification may come for it.
    #[must_use]
    pub fn enable_notifications<M: GuestMemory>(&self, memory: &M) -> bool {
        self.enable_notifications_after(memory, 1)
    }

    /// Asks the driver to notify when this many more requests are there; without event indices (2.7.10), of the next one. True: they are there already.
    #[must_use]
    pub fn enable_notifications_after<M: GuestMemory>(&self, memory: &M, count: u16) -> bool {
        let (_, count) = if self.features.event_index {
            let count = count.clamp(1, self.layout.size);
            let event = self.taken.wrapping_add(count - 1);
            (memory.write_u16(self.layout.available_event(), event), count)
        } else {
            (memory.write_u16(self.layout.used, 0), 1)
        };
        // The wish is seen before the index is looked at, as in `needs_interrupt`.
        fence(Ordering::SeqCst);
        memory
            .read_u16(self.layout.available + 2)
            .is_some_and(|index| index.wrapping_sub(self.taken) >= count)
    }

    /// Whether the driver can be asked to notify later than of the next request (2.7.10).
    #[must_use]
    pub const fn has_event_index(&self) -> bool {
        self.features.event_index
    }
}

/// Whether index `event` is among those from `old` on and below `new` (2.7.10.2).
const fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
