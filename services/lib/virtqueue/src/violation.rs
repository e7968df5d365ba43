//! Which rule a guest broke.

use core::fmt;

/// A part of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Descriptor table.
    Descriptors,
    /// Available ring.
    Available,
    /// Used ring.
    Used,
}

impl Area {
    const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptor table",
            Self::Available => "available ring",
            Self::Used => "used ring",
        }
    }
}

/// A rule of virtio 1.2, 2.7, that the guest broke. The device has to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The size is no power of two from 1 to what the device allows.
    Size(u16),
    /// A part is not aligned as table 2.7 says.
    Alignment(Area, u64),
    /// A part lies outside RAM.
    Outside(Area, u64),
    /// The available index is further ahead than the queue is long.
    AvailableIndex {
        /// What the guest says.
        index: u16,
        /// What was taken so far.
        taken: u16,
    },
    /// The head of a chain is outside the descriptor table.
    Head(u16),
    /// The head was made available again while the device still has it.
    HeadInFlight(u16),
    /// A descriptor's `next` is outside its table.
    Next(u16),
    /// A chain has more descriptors than its table: it is a loop.
    Loop,
    /// An indirect descriptor without the feature.
    IndirectNotNegotiated,
    /// An indirect table inside an indirect table.
    IndirectNested,
    /// An indirect descriptor with a next one.
    IndirectNext,
    /// An indirect table whose length is 0, no multiple of a descriptor's or above the limit.
    IndirectLength(u32),
    /// An indirect table that is not aligned to 8 bytes.
    IndirectAlignment(u64),
    /// An indirect table outside RAM.
    IndirectOutside(u64),
    /// A buffer of no bytes.
    Empty,
    /// A buffer that is not all RAM.
    BufferOutside {
        /// Its address.
        address: u64,
        /// Its length.
        length: u32,
    },
    /// A buffer for the device to read behind one for it to write.
    Order,
    /// A chain of 4 GiB or more.
    TotalLength,
    /// The used index, which is the device's, was changed.
    UsedIndex {
        /// What stands there.
        index: u16,
        /// What the device wrote.
        written: u16,
    },
    /// What is in flight is more than the queue is long, or outside of it: the record is damaged.
    Record,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Size(size) => write!(formatter, "{size} is no size of a queue"),
            Self::Alignment(area, address) => write!(formatter, "the {} at {address:#x} is not aligned", area.name()),
            Self::Outside(area, address) => write!(formatter, "the {} at {address:#x} is outside RAM", area.name()),
            Self::AvailableIndex { index, taken } => {
                write!(
                    formatter,
                    "the available index is {index}, {taken} requests were taken: more than the queue holds"
                )
            }
            Self::Head(head) => write!(formatter, "chain {head} begins outside the descriptor table"),
            Self::HeadInFlight(head) => write!(formatter, "chain {head} was offered while the device still has it"),
            Self::Next(next) => write!(formatter, "a chain goes on at descriptor {next}, outside its table"),
            Self::Loop => formatter.write_str("a chain is a loop"),
            Self::IndirectNotNegotiated => formatter.write_str("an indirect descriptor without VIRTIO_F_INDIRECT_DESC"),
            Self::IndirectNested => formatter.write_str("an indirect table inside an indirect table"),
            Self::IndirectNext => formatter.write_str("an indirect descriptor with a next one"),
            Self::IndirectLength(length) => write!(formatter, "an indirect table of {length} bytes"),
            Self::IndirectAlignment(address) => write!(formatter, "the indirect table at {address:#x} is not aligned"),
            Self::IndirectOutside(address) => write!(formatter, "the indirect table at {address:#x} is outside RAM"),
            Self::Empty => formatter.write_str("a buffer of 0 bytes"),
            Self::BufferOutside { address, length } => write!(formatter, "a buffer of {length} bytes at {address:#x} is not all RAM"),
            Self::Order => formatter.write_str("a buffer to read stands behind one to write"),
            Self::TotalLength => formatter.write_str("a chain of 4 GiB or more"),
            Self::UsedIndex { index, written } => {
                write!(
                    formatter,
                    "the used index is {index}, the device wrote {written}: the driver changed it"
                )
            }
            Self::Record => formatter.write_str("the record of requests in flight is damaged"),
        }
    }
}
