//! What is asked of guest memory.

/// A guest's RAM by guest-physical address. The guest writes it at the same time, so each access is a single one of its width, as by an atomic of relaxed ordering, and is not repeated or merged; the
/// queue orders them with fences. Values are little-endian.
///
/// An access at an address that is not aligned to its width, or not all RAM, answers `None`.
pub trait GuestMemory {
    /// Whether `length` bytes at `address` are all RAM. A range that wraps is not.
    fn contains(&self, address: u64, length: u64) -> bool;
    /// Reads 16 bits.
    fn read_u16(&self, address: u64) -> Option<u16>;
    /// Reads 64 bits.
    fn read_u64(&self, address: u64) -> Option<u64>;
    /// Two 8-byte numbers one after the other, each read once.
    #[inline]
    fn read_u64_pair(&self, address: u64) -> Option<(u64, u64)> {
        Some((self.read_u64(address)?, self.read_u64(address.checked_add(8)?)?))
    }
    /// Writes 16 bits.
    fn write_u16(&self, address: u64, value: u16) -> Option<()>;
    /// Writes 64 bits as two halves of 32 bits, or as one: only the index that follows publishes them. The address is aligned to 4.
    fn write_pair(&self, address: u64, first: u32, second: u32) -> Option<()>;
}

impl<M: GuestMemory + ?Sized> GuestMemory for &M {
    fn contains(&self, address: u64, length: u64) -> bool {
        (**self).contains(address, length)
    }
    fn read_u16(&self, address: u64) -> Option<u16> {
        (**self).read_u16(address)
    }
    fn read_u64(&self, address: u64) -> Option<u64> {
        (**self).read_u64(address)
    }
    fn read_u64_pair(&self, address: u64) -> Option<(u64, u64)> {
        (**self).read_u64_pair(address)
    }
    fn write_u16(&self, address: u64, value: u16) -> Option<()> {
        (**self).write_u16(address, value)
    }
    fn write_pair(&self, address: u64, first: u32, second: u32) -> Option<()> {
        (**self).write_pair(address, first, second)
    }
}
