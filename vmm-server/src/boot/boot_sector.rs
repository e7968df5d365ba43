//! A boot sector, entered as a PC's firmware enters it (BIOS Boot Specification 1.01, 6.5), with what follows it in its file already loaded behind it.
//!
//! There is no firmware: the interrupt vectors are zero, so a program may use only what it brings along. Interrupts are off until it has set the
//! interrupt controller up.

use super::file::{File, Part};
use super::{LoadError, Start, layout};
use crate::memory::GuestMemory;

/// Where it is loaded and entered: 0000:7c00.
pub const ADDRESS: u64 = 0x7c00;
/// What the firmware passes in DL: the first hard disk.
pub const DRIVE: u8 = 0x80;
/// Where its mark 55 AA stands.
const MARK: usize = 510;
/// Most bytes of a file.
const MOST: u64 = layout::LOW_END - ADDRESS;

/// Whether a file is a boot sector.
#[must_use]
pub fn is_one(file: &[u8]) -> bool {
    file.get(MARK..MARK + 2) == Some(&[0x55, 0xaa])
}

/// Loads it.
///
/// # Errors
/// If it does not fit.
pub fn load(memory: &GuestMemory, file: &dyn File) -> Result<Start, LoadError> {
    if file.length() > MOST {
        return Err(LoadError::BootSector(MOST));
    }
    if !memory.contains(ADDRESS, file.length()) {
        return Err(LoadError::TooSmall(layout::HIGH_START));
    }
    file.load(memory, ADDRESS, Part::all(file)).ok_or(LoadError::File)?;
    Ok(Start::BootSector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::ram;
    use proptest::prelude::*;

    #[test]
    fn loads_all_of_the_file() {
        let memory = ram(&[2 << 20]);
        let mut file = std::vec![0u8; 1000];
        file[510..512].copy_from_slice(&[0x55, 0xaa]);
        file[999] = 7;
        assert_eq!(load(&memory, &&file[..]), Ok(Start::BootSector));
        assert_eq!(memory.read::<2>(0x7dfe), Some([0x55, 0xaa]));
        assert_eq!(memory.read::<1>(0x7c00 + 999), Some([7]));
    }

    proptest! {
        #[test]
        fn files_of_any_length(length in 0usize..0xa_0000, mark in any::<[u8; 2]>()) {
            let memory = ram(&[1 << 20]);
            let mut file = std::vec![0u8; length];
            if length >= 512 {
                file[510..512].copy_from_slice(&mark);
            }
            prop_assert_eq!(is_one(&file), length >= 512 && mark == [0x55, 0xaa]);
            let fits = length as u64 <= MOST;
            prop_assert_eq!(load(&memory, &&file[..]).is_ok(), fits);
        }
    }
}
