//! Sizes and abilities of a device.

use crate::IoError;

/// What a device is like. All of it stays the same while the device is there, except `sectors`, which may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a sector, the unit of addresses: a power of two, 512 or more. A write of one sector is either done or not, or reads as [`IoError::Media`].
    pub sector_size: u32,
    /// How many sectors there are.
    pub sectors: u64,
    /// The largest transfer in bytes that is one command. Longer requests are split by the implementation.
    pub max_transfer: u32,
    /// `discard` does something.
    pub discard: bool,
    /// Written data is lost with the power unless `flush` came after it.
    pub write_cache: bool,
    /// Every write is refused.
    pub read_only: bool,
}

impl Geometry {
    /// Size in bytes, at most `u64::MAX`.
    pub const fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(self.sector_size as u64)
    }

    /// Checks that `count` sectors from `sector` on exist.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`].
    pub fn check(&self, sector: u64, count: u64) -> Result<(), IoError> {
        match sector.checked_add(count) {
            Some(end) if end <= self.sectors => Ok(()),
            _ => Err(IoError::OutOfRange {
                sector,
                count,
                sectors: self.sectors,
            }),
        }
    }

    /// Checks that a buffer of `length` bytes is whole sectors, which exist from `sector` on; gives their number.
    ///
    /// # Errors
    /// [`IoError::Misaligned`] and [`IoError::OutOfRange`].
    pub fn check_buffer(&self, sector: u64, length: usize) -> Result<u64, IoError> {
        let size = self.sector_size as usize;
        if size == 0 || !length.is_multiple_of(size) {
            return Err(IoError::Misaligned {
                length,
                sector_size: self.sector_size,
            });
        }
        let count = (length / size) as u64;
        self.check(sector, count)?;
        Ok(count)
    }

    /// [`Geometry::check_buffer`] for a write.
    ///
    /// # Errors
    /// Those, and [`IoError::ReadOnly`].
    pub fn check_write(&self, sector: u64, length: usize) -> Result<u64, IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly);
        }
        self.check_buffer(sector, length)
    }
}
