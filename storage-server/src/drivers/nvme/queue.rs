//! A pair of a submission and a completion queue (Base 2.0, 3.3.1).

use super::command::{Command, Pointer, Status};
use crate::controller::Segment;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use tessera_device::dma::DmaBuffer;
use tessera_device::hardware::{Platform, Registers};

/// Bytes of a page, to which the controller is set.
const PAGE: u64 = 4096;
/// Bytes of memory that each command has for its list: 256 pages, or 128 pieces.
const LIST: usize = 2048;
/// Bytes of an entry of a completion queue.
const COMPLETION: usize = 16;
/// Bytes that a command transfers at most, by the length of its list.
pub const MAX_TRANSFER: u32 = 1 << 20;
/// Pieces of a scatter-gather list.
pub const MAX_PIECES: usize = LIST / 16;

/// The controller broke the rules of the queue.
#[derive(Debug)]
pub struct Broken;

/// All commands are in use.
#[derive(Debug)]
pub struct Full;

/// A command in flight.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// Whose it is.
    pub tag: u32,
    /// First sector.
    pub sector: u64,
    /// When it was submitted.
    pub since: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    command: Option<InFlight>,
    /// Changes with each use, so that a completion that comes twice is noticed.
    generation: u8,
}

/// The pair.
pub struct Queue {
    number: u16,
    size: u16,
    submissions: DmaBuffer,
    completions: DmaBuffer,
    lists: DmaBuffer,
    slots: Vec<Slot>,
    free: Vec<u16>,
    tail: u16,
    /// The tail that the controller was told of.
    rung: u16,
    head: u16,
    phase: bool,
    /// Bytes between two doorbells.
    stride: u64,
}

/// Whether memory can be named page by page: nothing but the first byte and the last lie inside of a page (4.1.1).
#[must_use]
pub fn is_paged(segments: &[Segment]) -> bool {
    if let [one] = segments {
        return one.physical.is_multiple_of(4);
    }
    let last = segments.len().saturating_sub(1);
    segments.iter().enumerate().all(|(index, segment)| {
        let begins = if index == 0 {
            segment.physical.is_multiple_of(4)
        } else {
            segment.physical.is_multiple_of(PAGE)
        };
        begins && (index == last || (segment.physical + u64::from(segment.length)).is_multiple_of(PAGE))
    })
}

impl Queue {
    /// Memory for a pair of `size` entries, at most 256.
    #[must_use]
    pub fn new(platform: &dyn Platform, number: u16, size: u16, stride: u64) -> Option<Self> {
        let count = usize::from(size);
        let mut queue = Self {
            number,
            size,
            submissions: platform.allocate(count * Command::LENGTH)?,
            completions: platform.allocate(count * COMPLETION)?,
            lists: platform.allocate(count * LIST)?,
            slots: alloc::vec![Slot::default(); count],
            free: Vec::new(),
            tail: 0,
            rung: 0,
            head: 0,
            phase: true,
            stride,
        };
        queue.reset();
        Some(queue)
    }

    /// As new; the controller was reset. Commands in flight are forgotten.
    pub fn reset(&mut self) {
        self.completions.clear(0, self.completions.length());
        for slot in &mut self.slots {
            slot.command = None;
        }
        // One less than there are entries: a full ring looks like an empty one.
        self.free = (0..self.size.saturating_sub(1)).rev().collect();
        (self.tail, self.rung, self.head, self.phase) = (0, 0, 0, true);
    }

    /// Entries.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Addresses of the submission and the completion queue.
    #[must_use]
    pub const fn addresses(&self) -> [u64; 2] {
        [self.submissions.physical(), self.completions.physical()]
    }

    fn list(&self, slot: u16) -> DmaBuffer {
        self.lists.part(usize::from(slot) * LIST, LIST)
    }

    /// Prepares a command with the memory `segments`, or with `range` (first sector, sectors) as the one range of a dataset management. [`Queue::ring`] submits it.
    ///
    /// # Errors
    /// All commands are in use.
    #[inline]
    pub fn submit(&mut self, command: &Command, segments: &[Segment], range: Option<(u64, u32)>, whose: InFlight) -> Result<(), Full> {
        let slot = self.free.pop().ok_or(Full)?;
        let pointer = match (range, segments) {
            (Some((first, sectors)), _) => {
                let list = self.list(slot);
                list.write(0, 0u32);
                list.write(4, sectors);
                list.write(8, first);
                Pointer {
                    list: false,
                    words: [list.physical(), 0],
                }
            }
            (None, []) => command.pointer,
            // A page, as most small requests are.
            (None, [one]) if one.physical.is_multiple_of(PAGE) && u64::from(one.length) <= PAGE => Pointer {
                list: false,
                words: [one.physical, 0],
            },
            (None, several) => point(&self.list(slot), several),
        };
        let place = &mut self.slots[usize::from(slot)];
        place.command = Some(whose);
        place.generation = place.generation.wrapping_add(1);
        let id = slot | u16::from(place.generation) << 8;
        let at = usize::from(self.tail) * Command::LENGTH;
        self.submissions.write_all(at, command.encode(id, pointer));
        self.tail = if self.tail + 1 == self.size { 0 } else { self.tail + 1 };
        Ok(())
    }

    /// Submits what was prepared: one write to the doorbell for all of it.
    pub fn ring(&mut self, registers: &dyn Registers) {
        if self.rung != self.tail {
            self.rung = self.tail;
            // Release: the entries are there before the doorbell rings.
            fence(Ordering::Release);
            registers.write32(0x1000 + 2 * u64::from(self.number) * self.stride, self.tail.into());
        }
    }

    /// Calls `done` for each command that has completed: whose, status, result.
    ///
    /// # Errors
    /// The controller completed what it was not given.
    pub fn completed(&mut self, registers: &dyn Registers, done: &mut dyn FnMut(InFlight, Status, u32)) -> Result<(), Broken> {
        let before = self.head;
        let mut outcome = Ok(());
        // Not more than a ring at once, whatever the controller writes meanwhile.
        for _ in 0..self.size {
            let at = usize::from(self.head) * COMPLETION;
            let last = self.completions.read::<u32>(at + 12);
            if (last >> 16 & 1 == 1) != self.phase {
                break;
            }
            // Acquire: the rest of the entry was written before its phase.
            fence(Ordering::Acquire);
            let result = self.completions.read::<u32>(at);
            let id = last as u16;
            self.head += 1;
            if self.head == self.size {
                self.head = 0;
                self.phase = !self.phase;
            }
            let slot = self
                .slots
                .get_mut(usize::from(id & 0xff))
                .filter(|slot| u16::from(slot.generation) == id >> 8);
            let Some(whose) = slot.and_then(|slot| slot.command.take()) else {
                outcome = Err(Broken);
                break;
            };
            self.free.push(id & 0xff);
            done(whose, Status((last >> 17) as u16), result);
        }
        if self.head != before {
            registers.write32(0x1000 + (2 * u64::from(self.number) + 1) * self.stride, self.head.into());
        }
        outcome
    }

    /// Nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free.len() + 1 >= self.slots.len()
    }

    /// Forgets all commands in flight.
    pub fn drain(&mut self, each: &mut dyn FnMut(InFlight)) {
        for slot in &mut self.slots {
            if let Some(whose) = slot.command.take() {
                each(whose);
            }
        }
    }

    /// Forgets the driver's own commands in flight.
    pub fn forget(&mut self) {
        for slot in &mut self.slots {
            slot.command = None;
        }
    }

    /// When the oldest command in flight was submitted.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.slots.iter().filter_map(|slot| slot.command).map(|whose| whose.since).min()
    }
}

/// Names memory: pages if it can be, a scatter-gather list else.
fn point(list: &DmaBuffer, segments: &[Segment]) -> Pointer {
    if !is_paged(segments) {
        return pieces(list, segments);
    }
    let (mut first, mut second, mut count) = (0, 0, 0usize);
    for segment in segments {
        let (mut at, end) = (segment.physical, segment.physical + u64::from(segment.length));
        while at < end {
            match count {
                0 => first = at,
                number => {
                    list.write((number - 1) * 8, at);
                    second = if number == 1 { at } else { list.physical() };
                }
            }
            count += 1;
            at = (at / PAGE + 1) * PAGE;
        }
    }
    Pointer {
        list: false,
        words: [first, second],
    }
}

/// Descriptors of a scatter-gather list (4.1.2): address, length, and the kind in the last byte: 0 for data, 0x30 for the list itself.
fn pieces(list: &DmaBuffer, segments: &[Segment]) -> Pointer {
    if let [one] = segments {
        return Pointer {
            list: true,
            words: [one.physical, one.length.into()],
        };
    }
    for (index, segment) in segments.iter().take(MAX_PIECES).enumerate() {
        list.write(index * 16, segment.physical);
        list.write(index * 16 + 8, u64::from(segment.length));
    }
    Pointer {
        list: true,
        words: [list.physical(), (segments.len() as u64 * 16) | (0x30 << 56)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Silent;

    impl Registers for Silent {
        fn read8(&self, _: u64) -> u8 {
            0
        }
        fn read16(&self, _: u64) -> u16 {
            0
        }
        fn read32(&self, _: u64) -> u32 {
            0
        }
        fn write8(&self, _: u64, _: u8) {}
        fn write16(&self, _: u64, _: u16) {}
        fn write32(&self, _: u64, _: u32) {}
    }

    #[test]
    fn what_has_completed_cannot_complete_again_in_the_place_of_another() {
        let machine = crate::drivers::testing::Machine::default();
        let mut queue = Queue::new(&machine, 1, 4, 4).unwrap();
        let whose = |tag| InFlight { tag, sector: 0, since: 0 };
        let complete = |queue: &Queue, entry: usize, id: u64| queue.completions.write(entry * COMPLETION + 8, id << 32 | 1 << 48);
        queue.submit(&Command::default(), &[], None, whose(1)).unwrap();
        let id = queue.submissions.read::<u64>(0) >> 16 & 0xffff;
        complete(&queue, 0, id);
        let mut seen = Vec::new();
        queue.completed(&Silent, &mut |whose, _, _| seen.push(whose.tag)).unwrap();
        queue.submit(&Command::default(), &[], None, whose(2)).unwrap();
        complete(&queue, 1, id);
        assert!(queue.completed(&Silent, &mut |whose, _, _| seen.push(whose.tag)).is_err());
        assert_eq!(seen, [1]);
    }

    /// Pages that a controller would access.
    fn walk(list: &DmaBuffer, pointer: Pointer, bytes: u64) -> Vec<(u64, u64)> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        let (mut left, mut number) = (bytes, 0);
        if pointer.list {
            if pointer.words[1] >> 56 == 0 {
                return vec![(pointer.words[0], pointer.words[1])];
            }
            let count = (pointer.words[1] & 0xffff_ffff) as usize / 16;
            return (0..count).map(|index| (list.read(index * 16), list.read(index * 16 + 8))).collect();
        }
        let pages = (pointer.words[0] % PAGE + bytes).div_ceil(PAGE);
        while left > 0 {
            let at = match number {
                0 => pointer.words[0],
                1 if pages == 2 => pointer.words[1],
                number => list.read((number - 1) * 8),
            };
            let length = (PAGE - at % PAGE).min(left);
            found.push((at, length));
            left -= length;
            number += 1;
        }
        found
    }

    proptest! {
        /// The controller reaches exactly the memory of the request, in order.
        #[test]
        fn lists_name_the_memory(
            starts in proptest::collection::vec((1u64..1 << 30, 1u32..20), 1..12),
            first in 0u64..1024, last in 1u32..=1024, odd: bool,
        ) {
            let count = starts.len();
            let mut segments: Vec<Segment> = starts.iter().map(|(page, pages)| Segment { physical: page * PAGE, length: pages * PAGE as u32 }).collect();
            segments[0].physical += first * 4;
            segments[0].length -= first as u32 * 4;
            segments[count - 1].length = segments[count - 1].length.min(last * 4).max(4);
            if odd {
                segments[count - 1].physical += 2;
            }
            if segments.iter().any(|segment| segment.length == 0) { return Ok(()); }
            let list = DmaBuffer::of_this_process(LIST);
            let bytes: u64 = segments.iter().map(|segment| u64::from(segment.length)).sum();
            let pointer = point(&list, &segments);
            prop_assert_eq!(pointer.list, !is_paged(&segments));
            let mut expected = segments.iter().flat_map(|segment| (0..segment.length).step_by(2).map(|byte| segment.physical + u64::from(byte)));
            for (at, length) in walk(&list, pointer, bytes) {
                for byte in (0..length).step_by(2) {
                    prop_assert_eq!(expected.next(), Some(at + byte));
                }
            }
            prop_assert_eq!(expected.next(), None);
        }
    }
}
