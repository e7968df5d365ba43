//! One request's buffers (virtio 1.2, 2.7.5).

use crate::{GuestMemory, Violation};

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: u64 = 16;
/// Most descriptors of an indirect table.
pub const MAX_INDIRECT: u32 = 1024;

/// Flags of a descriptor.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A buffer of a request: all RAM, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes, at least 1.
    pub length: u32,
    /// For the device to write; else to read.
    pub writable: bool,
}

/// The buffers of a request in order: first those to read, then those to write. Ends after the first error, and after as many descriptors as the table has.
#[derive(Debug)]
pub struct Chain<'m, M: GuestMemory> {
    memory: &'m M,
    table: u64,
    /// Descriptors of the table.
    size: u32,
    /// The next one, if there is one.
    next: Option<u16>,
    /// How many may still come.
    left: u32,
    total: u32,
    writable: bool,
    indirect: bool,
    allow_indirect: bool,
}

impl<'m, M: GuestMemory> Chain<'m, M> {
    /// `head` is below `size`, and the table is RAM.
    pub(crate) fn new(memory: &'m M, table: u64, size: u16, head: u16, allow_indirect: bool) -> Self {
        Self {
            memory,
            table,
            size: u32::from(size),
            next: Some(head),
            left: u32::from(size),
            total: 0,
            writable: false,
            indirect: false,
            allow_indirect,
        }
    }

    /// Address, length, flags, next: two reads.
    #[inline]
    fn descriptor(&self, index: u16) -> Option<(u64, u32, u16, u16)> {
        // No overflow: the table is inside RAM and the index inside the table.
        let place = self.table + u64::from(index) * DESCRIPTOR;
        let (address, rest) = self.memory.read_u64_pair(place)?;
        Some((address, rest as u32, (rest >> 32) as u16, (rest >> 48) as u16))
    }

    #[inline]
    fn step(&mut self, mut index: u16) -> Result<Segment, Violation> {
        let (address, length, flags, next) = loop {
            if u32::from(index) >= self.size {
                return Err(Violation::Next(index));
            }
            if self.left == 0 {
                return Err(Violation::Loop);
            }
            self.left -= 1;
            let Some(descriptor) = self.descriptor(index) else {
                return Err(Violation::BufferOutside {
                    address: self.table,
                    length: DESCRIPTOR as u32,
                });
            };
            let (address, length, flags, _) = descriptor;
            if flags & INDIRECT == 0 {
                break descriptor;
            }
            self.enter(address, length, flags)?;
            index = 0;
        };
        if flags & NEXT != 0 {
            self.next = Some(next);
        }
        if length == 0 {
            return Err(Violation::Empty);
        }
        if !self.memory.contains(address, u64::from(length)) {
            return Err(Violation::BufferOutside { address, length });
        }
        let Some(total) = self.total.checked_add(length) else {
            return Err(Violation::TotalLength);
        };
        self.total = total;
        let writable = flags & WRITE != 0;
        if self.writable && !writable {
            return Err(Violation::Order);
        }
        self.writable = writable;
        Ok(Segment { address, length, writable })
    }

    /// Goes on in an indirect table (2.7.5.3).
    #[inline(never)]
    fn enter(&mut self, address: u64, length: u32, flags: u16) -> Result<(), Violation> {
        if !self.allow_indirect {
            return Err(Violation::IndirectNotNegotiated);
        }
        if self.indirect {
            return Err(Violation::IndirectNested);
        }
        if flags & NEXT != 0 {
            return Err(Violation::IndirectNext);
        }
        let count = length / DESCRIPTOR as u32;
        if !u64::from(length).is_multiple_of(DESCRIPTOR) || count == 0 || count > MAX_INDIRECT {
            return Err(Violation::IndirectLength(length));
        }
        if !address.is_multiple_of(8) {
            return Err(Violation::IndirectAlignment(address));
        }
        if !self.memory.contains(address, u64::from(length)) {
            return Err(Violation::IndirectOutside(address));
        }
        (self.table, self.size, self.left, self.indirect) = (address, count, count, true);
        Ok(())
    }
}

impl<M: GuestMemory> Iterator for Chain<'_, M> {
    type Item = Result<Segment, Violation>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next.take()?;
        let step = self.step(index);
        if step.is_err() {
            self.next = None;
        }
        Some(step)
    }
}
