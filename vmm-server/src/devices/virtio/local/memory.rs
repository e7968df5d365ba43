//! The guest's RAM as queues want it.

use crate::memory::GuestMemory;

impl tessera_virtqueue::GuestMemory for GuestMemory {
    fn contains(&self, address: u64, length: u64) -> bool {
        Self::contains(self, address, length)
    }

    fn read_u16(&self, address: u64) -> Option<u16> {
        // The halves of an aligned word that is read at once.
        let word = self.read_u32(address & !3).filter(|_| address.is_multiple_of(2))?;
        Some((word >> (address % 4 * 8)) as u16)
    }

    fn read_u64(&self, address: u64) -> Option<u64> {
        Self::read_u64(self, address).filter(|_| address.is_multiple_of(8))
    }

    fn write_u16(&self, address: u64, value: u16) -> Option<()> {
        Self::write_u16(self, address, value).filter(|()| address.is_multiple_of(2))
    }

    fn write_pair(&self, address: u64, first: u32, second: u32) -> Option<()> {
        self.write_u32(address, first)?;
        self.write_u32(address + 4, second)
    }
}
