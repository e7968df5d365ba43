//! What the units need of the machine.

use core::fmt;

/// The machine: memory that units read, and their registers.
pub trait Hardware {
    /// 2^`order` zeroed pages in a row, aligned to their length; answers their physical address. `None`: memory is used up.
    fn take(&mut self, order: u32) -> Option<u64>;
    /// Takes a page back that came from [`Self::take`] with order 0. No unit refers to it.
    fn give(&mut self, page: u64);
    /// The word at a physical address in taken memory. A unit may have written it.
    fn load(&self, address: u64) -> u64;
    /// Stores a word in taken memory. `flush`: a unit does not look into the processors' caches; the word has to get past them.
    fn store(&mut self, address: u64, word: u64, flush: bool);
    /// Reads a unit's register; all ones where there is none.
    fn read(&self, unit: usize, offset: u64) -> u32;
    /// Writes a unit's register.
    fn write(&mut self, unit: usize, offset: u64, value: u32);

    /// Reads a register of 64 bits, its lower half first.
    fn read64(&self, unit: usize, offset: u64) -> u64 {
        u64::from(self.read(unit, offset)) | u64::from(self.read(unit, offset + 4)) << 32
    }

    /// Writes a register of 64 bits, its lower half first.
    fn write64(&mut self, unit: usize, offset: u64, value: u64) {
        self.write(unit, offset, value as u32);
        self.write(unit, offset + 4, (value >> 32) as u32);
    }
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no memory for tables.
    NoMemory,
    /// The address is past what the units translate.
    OutOfReach(u64),
    /// The range is empty or no whole pages.
    BadRange,
    /// Something is mapped there already.
    Overlap(u64),
    /// The range was not mapped as it is to be unmapped.
    NotMapped(u64),
    /// The function is in another domain.
    Taken,
    /// There are no more domains.
    NoDomain,
    /// A unit does not answer. What it was told to forget it may still remember.
    Silent(usize),
    /// A unit lacks what is needed.
    Lacks(usize, &'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => formatter.write_str("there is no memory for tables"),
            Self::OutOfReach(address) => write!(formatter, "{address:#x} is past what the IOMMU translates"),
            Self::BadRange => formatter.write_str("the range is no whole pages"),
            Self::Overlap(address) => write!(formatter, "{address:#x} is mapped already"),
            Self::NotMapped(address) => write!(formatter, "the range at {address:#x} is not mapped"),
            Self::Taken => formatter.write_str("the function, or one behind the same bridge, is another server's"),
            Self::NoDomain => formatter.write_str("the IOMMU has no more domains"),
            Self::Silent(unit) => write!(formatter, "IOMMU {unit} does not answer"),
            Self::Lacks(unit, what) => write!(formatter, "IOMMU {unit} has no {what}"),
        }
    }
}

impl core::error::Error for Error {}

/// How often a register or a word is looked at before a unit counts as silent: a second or so.
pub(crate) const PATIENCE: u32 = 2_000_000;

/// Waits until `done`.
pub(crate) fn wait(unit: usize, mut done: impl FnMut() -> bool) -> Result<(), Error> {
    for _ in 0..PATIENCE {
        if done() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(Error::Silent(unit))
}
