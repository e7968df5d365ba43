//! A ring of packets to send. Each is a context if something was left to the card, its own copy of the headers if it is cut, and data (8254x manual, 3.3; 82576 datasheet, 7.2).

use super::plan::{HEAD, Plan};
use super::registers::{queue, send_queue};
use crate::drivers::frame::{SHORTEST, behind};
use crate::nic::Refused;
use crate::packet::{LONGEST, Packet};
use alloc::{collections::VecDeque, string::String};
use core::sync::atomic::{Ordering, fence};
use tessera_device::{
    DmaBuffer,
    hardware::{Platform, Registers},
};

/// Pieces of a packet.
pub const MAX_SEGMENTS: usize = 32;
/// Descriptors of a queue.
const COUNT: u16 = 256;
/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;
/// Bytes of one descriptor's data.
const PIECE: u32 = 8192;

/// Bits of a data descriptor's third word: it ends a packet, check sequence, report, extended, VLAN tag.
const LAST: u32 = 1 << 24;
const CHECK_SEQUENCE: u32 = 1 << 25;
const REPORT: u32 = 1 << 27;
const EXTENDED: u32 = 1 << 29;
const VLAN: u32 = 1 << 30;
/// Bit of the second half: the card is done with it.
const DONE: u64 = 1 << 32;

/// A packet in flight.
#[derive(Clone, Copy)]
struct Flying {
    last: u16,
    tag: u32,
    length: u32,
}

/// The ring.
pub struct Sender {
    advanced: bool,
    /// First register.
    base: u64,
    ring: DmaBuffer,
    heads: DmaBuffer,
    /// The next to be filled in, the oldest in use, and what the card was told.
    next: u16,
    oldest: u16,
    told: u16,
    flying: VecDeque<Flying>,
    /// Packets that were sent, those when it was last looked whether it goes on, and since when.
    sent: u64,
    seen: (u64, u64),
}

impl Sender {
    /// Memory for queue `number`.
    pub fn new(advanced: bool, platform: &dyn Platform, number: u16) -> Result<Self, String> {
        let allocate = |bytes: usize| platform.allocate(bytes).ok_or(crate::drivers::NO_MEMORY);
        Ok(Self {
            advanced,
            base: send_queue(advanced, number),
            ring: allocate(usize::from(COUNT) * DESCRIPTOR)?,
            heads: allocate(usize::from(COUNT) * HEAD)?,
            next: 0,
            oldest: 0,
            told: 0,
            // As many as fit: nothing is allocated for a packet.
            flying: VecDeque::with_capacity(COUNT.into()),
            sent: 0,
            seen: (0, 0),
        })
    }

    /// Hands it to a card that was reset; nothing is in flight.
    pub fn reset(&mut self, registers: &dyn Registers) {
        self.ring.clear(0, self.ring.length());
        (self.next, self.oldest, self.told) = (0, 0, 0);
        self.flying.clear();
        registers.write64(self.base + queue::BASE, self.ring.physical());
        registers.write32(self.base + queue::LENGTH, u32::from(COUNT) * DESCRIPTOR as u32);
        registers.write32(self.base + queue::HEAD, 0);
        registers.write32(self.base + queue::TAIL, 0);
        // The 82574 counts descriptors, not cache lines (10.2.6.11); on the 82540EM the bit is reserved.
        let control = if self.advanced { queue::ENABLE } else { 1 << 22 };
        registers.write32(self.base + queue::CONTROL, control);
    }

    /// Whether the card has enabled it.
    pub fn is_enabled(&self, registers: &dyn Registers) -> bool {
        !self.advanced || registers.read32(self.base + queue::CONTROL) & queue::ENABLE != 0
    }

    /// Puts a packet in.
    pub fn add(&mut self, packet: &dyn Packet, vlan: Option<u16>, tag: u32, longest: u32) -> Result<(), Refused> {
        let length = packet.length();
        let segments = packet.segments().ok_or(Refused::Impossible)?;
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(Refused::Impossible);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(Refused::Unfit);
        }
        let plan = Plan::new(self.advanced, packet, vlan, longest)?;
        let skip = plan.head.as_ref().map_or(0, |head| head.length);
        let data: u32 = behind(segments, skip).map(|segment| segment.length.div_ceil(PIECE)).sum();
        let needed = data + u32::from(plan.context.is_some()) + u32::from(skip > 0);
        if needed >= COUNT.into() {
            return Err(Refused::Unfit);
        }
        let used = (self.next + COUNT - self.oldest) % COUNT;
        if needed > u32::from(COUNT - 1 - used) {
            return Err(Refused::Full);
        }
        if let Some(context) = plan.context {
            self.put(context[0], context[1]);
        }
        let mut command = plan.command | CHECK_SEQUENCE | EXTENDED;
        let mut options = u64::from(plan.options) << 32;
        if let Some(vlan) = vlan {
            command |= VLAN;
            // The 82576 takes it from the context.
            if !self.advanced {
                options |= u64::from(vlan) << 48;
            }
        }
        if let Some(head) = &plan.head {
            let place = usize::from(self.next) * HEAD;
            self.heads.copy_in(place, &head.bytes[..head.length as usize]);
            self.put(self.heads.physical() + place as u64, options | u64::from(command | head.length));
        }
        let mut left = data;
        for segment in behind(segments, skip) {
            let (mut physical, mut rest) = (segment.physical, segment.length);
            while rest > 0 {
                let here = rest.min(PIECE);
                left -= 1;
                let end = if left == 0 { LAST | REPORT } else { 0 };
                self.put(physical, options | u64::from(command | end | here));
                physical += u64::from(here);
                rest -= here;
            }
        }
        let last = (self.next + COUNT - 1) % COUNT;
        self.flying.push_back(Flying { last, tag, length });
        Ok(())
    }

    fn put(&mut self, first: u64, second: u64) {
        let at = usize::from(self.next) * DESCRIPTOR;
        self.ring.write(at, first);
        self.ring.write(at + 8, second);
        self.next = (self.next + 1) % COUNT;
    }

    /// Shows the card what was put in.
    pub fn publish(&mut self, registers: &dyn Registers) {
        if self.next != self.told {
            self.told = self.next;
            // Release: the descriptors stand before the card hears of them.
            fence(Ordering::Release);
            registers.write32(self.base + queue::TAIL, self.next.into());
        }
    }

    fn is_done(&self, flying: &Flying) -> bool {
        self.ring.read::<u64>(usize::from(flying.last) * DESCRIPTOR + 8) & DONE != 0
    }

    /// Tells of each packet that was sent: tag and length.
    pub fn sent(&mut self, each: &mut dyn FnMut(u32, u32)) {
        while let Some(flying) = self.flying.front().copied()
            && self.is_done(&flying)
        {
            self.flying.pop_front();
            self.oldest = (flying.last + 1) % COUNT;
            self.sent += 1;
            each(flying.tag, flying.length);
        }
    }

    /// Whether something was sent.
    pub fn has_work(&self) -> bool {
        self.flying.front().is_some_and(|flying| self.is_done(flying))
    }

    /// Milliseconds since it went on last, while it has something to do.
    pub fn stands_since(&mut self, now: u64) -> u64 {
        if self.flying.is_empty() || self.sent != self.seen.0 {
            self.seen = (self.sent, now);
        }
        now.saturating_sub(self.seen.1)
    }

    /// Forgets all packets. The card was reset, or is gone.
    pub fn drain(&mut self, each: &mut dyn FnMut(u32)) {
        for flying in self.flying.drain(..) {
            each(flying.tag);
        }
    }
}
