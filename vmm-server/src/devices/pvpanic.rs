//! By which a guest says that its kernel panicked: QEMU's pvpanic device (QEMU `docs/specs/pvpanic.rst`), a port that the DSDT names.

use serde::{Deserialize, Serialize};

/// Its port.
pub const PORT: u16 = 0x505;
/// Its identity in the DSDT.
pub const HARDWARE_ID: &str = "QEMU0001";
/// The kernel panicked.
const PANICKED: u8 = 1;
/// It panicked, and another kernel takes it from there.
const CRASH_LOADED: u8 = 2;

/// The device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PvPanic {
    /// Panics that were told since the machine was made.
    panics: u32,
}

impl PvPanic {
    /// What a guest can tell.
    #[must_use]
    pub const fn read(self) -> u8 {
        PANICKED | CRASH_LOADED
    }

    /// The guest tells something. Answers whether it is a panic.
    pub const fn write(&mut self, value: u8) -> bool {
        let panicked = value & (PANICKED | CRASH_LOADED) != 0;
        self.panics = self.panics.saturating_add(panicked as u32);
        panicked
    }

    /// Panics so far. They outlast resets.
    #[must_use]
    pub const fn panics(self) -> u32 {
        self.panics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_panics_and_nothing_else(values in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut device = PvPanic::default();
            let mut panics = 0;
            for value in values {
                let panicked = device.write(value);
                prop_assert_eq!(panicked, value % 4 != 0);
                panics += u32::from(panicked);
                prop_assert_eq!((device.panics(), device.read()), (panics, 3));
            }
        }
    }
}
