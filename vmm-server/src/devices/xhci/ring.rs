//! Transfer request blocks and their rings in the guest's memory (xHCI 1.2, 4.9, 6.4). What stands there may change at any time: a block is copied out once, and how many are looked at in a row is the caller's bound.

use crate::memory::GuestMemory;
use serde::{Deserialize, Serialize};

/// Bytes of a block.
pub const BYTES: u64 = 16;
/// Bits of a block's control word: its cycle, "evaluate next" or "toggle cycle", interrupt on a short packet, chain, interrupt on completion, immediate data.
pub const CYCLE: u32 = 1;
pub const TOGGLE: u32 = 1 << 1;
pub const ON_SHORT: u32 = 1 << 2;
pub const CHAIN: u32 = 1 << 4;
pub const ON_COMPLETION: u32 = 1 << 5;
pub const IMMEDIATE: u32 = 1 << 6;

/// Kinds of blocks (6.4.6).
pub mod kind {
    pub const NORMAL: u8 = 1;
    pub const SETUP: u8 = 2;
    pub const DATA: u8 = 3;
    pub const STATUS: u8 = 4;
    pub const LINK: u8 = 6;
    pub const EVENT_DATA: u8 = 7;
    pub const NO_OP: u8 = 8;
    pub const ENABLE_SLOT: u8 = 9;
    pub const DISABLE_SLOT: u8 = 10;
    pub const ADDRESS_DEVICE: u8 = 11;
    pub const CONFIGURE_ENDPOINT: u8 = 12;
    pub const EVALUATE_CONTEXT: u8 = 13;
    pub const RESET_ENDPOINT: u8 = 14;
    pub const STOP_ENDPOINT: u8 = 15;
    pub const SET_DEQUEUE: u8 = 16;
    pub const RESET_DEVICE: u8 = 17;
    pub const NO_OP_COMMAND: u8 = 23;
    pub const TRANSFER_EVENT: u8 = 32;
    pub const COMMAND_EVENT: u8 = 33;
    pub const PORT_EVENT: u8 = 34;
}

/// How something ended (6.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Success = 1,
    Babble = 3,
    TransactionError = 4,
    BlockError = 5,
    Stall = 6,
    NoSlots = 9,
    SlotNotEnabled = 11,
    EndpointNotEnabled = 12,
    Short = 13,
    Parameter = 17,
    ContextState = 19,
    CommandRingStopped = 24,
}

/// A block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub parameter: u64,
    pub status: u32,
    pub control: u32,
}

impl Block {
    /// Its kind.
    pub const fn kind(self) -> u8 {
        (self.control >> 10 & 0x3f) as u8
    }

    /// Whether all of these bits of its control word are set.
    pub const fn has(self, bits: u32) -> bool {
        self.control & bits == bits
    }

    /// Bytes that it moves.
    pub const fn length(self) -> u32 {
        self.status & 0x1_ffff
    }

    /// The slot that a command is about.
    pub const fn slot(self) -> u8 {
        (self.control >> 24) as u8
    }

    /// The endpoint that it is about.
    pub const fn endpoint(self) -> u8 {
        (self.control >> 16 & 0x1f) as u8
    }
}

/// A ring as whoever takes blocks from it sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    at: u64,
    cycle: bool,
}

/// What stands at a ring's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A block, and where it stands. It is not taken.
    Block(Block, u64),
    /// Nothing more.
    Empty,
    /// The place is no RAM, or links led round and round.
    Broken,
}

/// Links in a row that are followed.
const MOST_LINKS: usize = 4;

impl Ring {
    /// A ring at an address with its cycle bit, as contexts and registers hold them (6.2.3).
    pub const fn at(pointer: u64) -> Self {
        Self {
            at: pointer & !0xf,
            cycle: pointer & 1 != 0,
        }
    }

    /// Where it is, with the cycle bit.
    pub const fn pointer(self) -> u64 {
        self.at | self.cycle as u64
    }

    /// What is next, behind links.
    pub fn next(&mut self, memory: &GuestMemory) -> Next {
        for _ in 0..=MOST_LINKS {
            // The driver writes the word with the cycle last: what is read behind it belongs to it.
            let Some(control) = self.at.checked_add(12).and_then(|at| memory.read_u32(at)) else {
                return Next::Broken;
            };
            if (control & CYCLE != 0) != self.cycle {
                return Next::Empty;
            }
            let (Some(parameter), Some(status)) = (memory.read_u64(self.at), memory.read_u32(self.at + 8)) else {
                return Next::Broken;
            };
            let block = Block {
                parameter,
                status,
                control,
            };
            if block.kind() != kind::LINK {
                return Next::Block(block, self.at);
            }
            self.at = parameter & !0xf;
            self.cycle ^= block.has(TOGGLE);
        }
        Next::Broken
    }

    /// Takes the block that is next.
    pub const fn advance(&mut self) {
        self.at = self.at.wrapping_add(BYTES);
    }
}

/// Fewest and most blocks of an event ring's segment (6.5).
const SEGMENT: core::ops::RangeInclusive<u32> = 16..=4096;

/// The event ring: one segment, which the driver empties.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EventRing {
    base: u64,
    size: u32,
    /// Where the next event goes.
    place: u32,
    cycle: bool,
    /// Up to where the driver has taken them.
    taken: u32,
}

impl EventRing {
    /// Reads the segment that the table at `table` names. `None`: there is none that can be used.
    pub fn of_table(memory: &GuestMemory, table: u64) -> Option<Self> {
        let base = memory.read_u64(table)? & !0x3f;
        let size = memory.read_u32(table.checked_add(8)?)? & 0xffff;
        let fits = SEGMENT.contains(&size) && memory.contains(base, u64::from(size) * BYTES);
        fits.then_some(Self {
            base,
            size,
            place: 0,
            cycle: true,
            taken: 0,
        })
    }

    /// Whether it can be one of [`Self::of_table`], whoever says so.
    pub fn is_sound(&self) -> bool {
        let none = self.size == 0 && self.place == 0 && self.taken == 0;
        none || SEGMENT.contains(&self.size) && self.place < self.size && self.taken < self.size
    }

    /// The driver took everything before this address.
    pub fn taken(&mut self, address: u64) {
        if let Some(offset) = (address & !0xf).checked_sub(self.base)
            && offset / BYTES < u64::from(self.size)
        {
            self.taken = (offset / BYTES) as u32;
        }
    }

    /// Whether events are there that the driver did not take.
    pub const fn has_events(&self) -> bool {
        self.place != self.taken
    }

    /// Whether so many more fit, and one that is always left free.
    pub const fn has_room(&self, events: u32) -> bool {
        if self.size == 0 {
            return false;
        }
        let used = (self.place + self.size).wrapping_sub(self.taken) % self.size;
        used + events < self.size
    }

    /// Adds an event. `None`: there is no RAM any more where it would stand.
    pub fn put(&mut self, memory: &GuestMemory, event: Block) -> Option<()> {
        let at = self.base.checked_add(u64::from(self.place) * BYTES)?;
        memory.write_slice(at, &event.parameter.to_le_bytes())?;
        memory.write_u32(at + 8, event.status)?;
        // The cycle comes last: with it the event is there.
        memory.write_u32(at + 12, event.control & !CYCLE | u32::from(self.cycle))?;
        self.place += 1;
        if self.place >= self.size {
            self.place = 0;
            self.cycle = !self.cycle;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::ram;
    use proptest::prelude::*;

    fn put(memory: &GuestMemory, at: u64, parameter: u64, control: u32) {
        memory.write_slice(at, &parameter.to_le_bytes()).unwrap();
        memory.write_u32(at + 12, control).unwrap();
    }

    #[test]
    fn links_are_followed_and_turn_the_cycle() {
        let memory = ram(&[4096]);
        put(&memory, 0x100, 7, u32::from(kind::NORMAL) << 10 | CYCLE);
        put(&memory, 0x110, 0x100, u32::from(kind::LINK) << 10 | TOGGLE | CYCLE);
        let mut ring = Ring::at(0x101);
        assert!(matches!(ring.next(&memory), Next::Block(block, 0x100) if block.parameter == 7));
        ring.advance();
        assert_eq!(ring.next(&memory), Next::Empty, "the next round has another cycle");
        assert_eq!(ring.pointer(), 0x100);
        put(&memory, 0x100, 8, u32::from(kind::NORMAL) << 10);
        assert!(matches!(ring.next(&memory), Next::Block(block, 0x100) if block.parameter == 8));
    }

    #[test]
    fn links_in_a_circle_and_places_without_ram_are_broken() {
        let memory = ram(&[4096]);
        put(&memory, 0x100, 0x100, u32::from(kind::LINK) << 10 | CYCLE);
        assert_eq!(Ring::at(0x101).next(&memory), Next::Broken);
        for place in [4096, 4100, u64::MAX, 1 << 40] {
            assert_eq!(Ring::at(place).next(&memory), Next::Broken, "{place:#x}");
        }
    }

    #[test]
    fn events_stop_before_the_ring_is_full() {
        let memory = ram(&[8192]);
        memory.write_slice(0x40, &0x1000_u64.to_le_bytes()).unwrap();
        memory.write_u32(0x48, 16).unwrap();
        let mut ring = EventRing::of_table(&memory, 0x40).unwrap();
        for number in 0..15 {
            assert!(ring.has_room(1));
            ring.put(
                &memory,
                Block {
                    parameter: number,
                    status: 0,
                    control: 0,
                },
            )
            .unwrap();
        }
        assert!(!ring.has_room(1) && ring.has_events());
        ring.taken(0x1000 + 15 * 16);
        assert!(ring.has_room(15) && !ring.has_events());
        ring.put(&memory, Block::default()).unwrap();
        ring.put(&memory, Block::default()).unwrap();
        assert_eq!(memory.read_u32(0x1000 + 12), Some(0), "the second round's cycle");
        assert_eq!(memory.read_u32(0x1000 + 16 + 12), Some(1), "the first round's");
        for (base, size) in [(0x1000, 15), (0x1000, 4097), (0x1f80, 16), (u64::MAX, 16)] {
            memory.write_slice(0x40, &u64::to_le_bytes(base)).unwrap();
            memory.write_u32(0x48, size).unwrap();
            assert!(EventRing::of_table(&memory, 0x40).is_none(), "{base:#x}, {size}");
        }
    }

    proptest! {
        #[test]
        fn any_memory_is_a_ring_that_ends(words in prop::collection::vec((0u64..256, any::<u64>()), 0..64), start: u64) {
            let memory = ram(&[2048]);
            for (place, word) in words {
                memory.write_slice(place * 8, &word.to_le_bytes()).unwrap();
            }
            let mut ring = Ring::at(start % 4096);
            for _ in 0..100 {
                match ring.next(&memory) {
                    Next::Block(_, at) => prop_assert!(memory.contains(at, BYTES)),
                    _ => break,
                }
                ring.advance();
            }
        }
    }
}
