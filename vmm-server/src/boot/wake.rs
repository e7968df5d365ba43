//! Where an operating system that was booted without firmware goes on after it slept in RAM (ACPI S3): it leaves the address in the firmware ACPI control structure (ACPI 6.5, 5.2.10), which is in guest memory
//! and says whatever the guest likes. A machine with firmware wakes by its reset vector, and the firmware does this.

use super::layout;
use crate::acpi;
use crate::memory::GuestMemory;

/// Of the structure: length.
const LENGTH: u64 = 4;
/// Address for real mode.
const VECTOR: u64 = 12;
/// Address for protected mode; 0: the other one holds.
const EXTENDED: u64 = 24;
/// First address that real mode does not reach.
const REAL_END: u32 = 1 << 20;

/// Where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// In real mode (table 5.12, "Firmware Waking Vector").
    Real {
        /// Code segment.
        segment: u16,
        /// Instruction pointer.
        offset: u16,
    },
    /// In protected mode without paging ("X Firmware Waking Vector"). Long mode is not offered.
    Protected {
        /// Guest-physical address.
        entry: u32,
    },
}

impl Vector {
    /// Guest-physical address of the first instruction.
    #[must_use]
    pub const fn address(self) -> u64 {
        match self {
            Self::Real { segment, offset } => ((segment as u64) << 4) + offset as u64,
            Self::Protected { entry } => entry as u64,
        }
    }
}

/// What the system left; `None`: nothing to go on from.
#[must_use]
pub fn vector(memory: &GuestMemory) -> Option<Vector> {
    let structure = layout::ACPI + acpi::FACS;
    let length = u32::from_le_bytes(memory.read(structure + LENGTH)?);
    let extended = u64::from_le_bytes(memory.read(structure + EXTENDED)?);
    if extended != 0 && u64::from(length) >= EXTENDED + 8 {
        let entry = u32::try_from(extended).ok().filter(|entry| memory.contains((*entry).into(), 1))?;
        return Some(Vector::Protected { entry });
    }
    match u32::from_le_bytes(memory.read(structure + VECTOR)?) {
        address @ 1..REAL_END => Some(Vector::Real {
            segment: (address >> 4) as u16,
            offset: (address & 0xf) as u16,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::ram;
    use proptest::prelude::*;

    fn memory() -> GuestMemory {
        let memory = ram(&[2 << 20]);
        memory.write_slice(layout::ACPI, &acpi::build(layout::ACPI, 1, false)).unwrap();
        memory
    }

    fn put(memory: &GuestMemory, field: u64, bytes: &[u8]) {
        memory.write_slice(layout::ACPI + acpi::FACS + field, bytes).unwrap();
    }

    #[test]
    fn the_extended_vector_goes_first() {
        let memory = memory();
        assert_eq!(vector(&memory), None, "nobody slept");
        put(&memory, VECTOR, &0x9_a004u32.to_le_bytes());
        let real = Vector::Real {
            segment: 0x9a00,
            offset: 4,
        };
        assert_eq!((vector(&memory), real.address()), (Some(real), 0x9_a004));
        put(&memory, VECTOR, &REAL_END.to_le_bytes());
        assert_eq!(vector(&memory), None, "real mode does not get there");
        put(&memory, EXTENDED, &0x10_0010u64.to_le_bytes());
        assert_eq!(vector(&memory), Some(Vector::Protected { entry: 0x10_0010 }));
        put(&memory, EXTENDED, &(1u64 << 32 | 0x10_0010).to_le_bytes());
        assert_eq!(vector(&memory), None, "nor does this mode");
    }

    proptest! {
        #[test]
        fn whatever_the_guest_left_is_in_its_memory(bytes in prop::collection::vec(any::<u8>(), 64)) {
            let memory = memory();
            put(&memory, 0, &bytes);
            if let Some(vector) = vector(&memory) {
                prop_assert!(memory.contains(vector.address(), 1));
            }
        }
    }
}
