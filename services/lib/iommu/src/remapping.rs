//! Remapping of interrupts (VT-d 5.1): what a function writes names an entry of one table, and that says which vector is raised where, and by whom. What names none, or another's, is refused; so are messages as they are without remapping.
//!
//! An entry's number is its vector, which the kernel gives out once for the whole machine.

use crate::{Error, Hardware, Source, tables::PAGE};

/// Entries of the table: one for each vector.
pub(crate) const ENTRIES_LOG: u64 = 8;

/// An interrupt that is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Vector, and the number of its entry.
    pub vector: u8,
    /// Identity of the local APIC that it goes to.
    pub destination: u32,
    /// It is level-triggered.
    pub level: bool,
    /// Who raises it; none: whoever does.
    pub source: Option<Source>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its physical address.
    pub page: u64,
    /// Destinations have 32 bits, as local APICs in x2APIC mode do; else 8.
    pub wide: bool,
}

/// Bits of an entry (9.10).
mod entry {
    pub const PRESENT: u64 = 1;
    pub const LEVEL: u32 = 4;
    pub const VECTOR: u32 = 16;
    pub const DESTINATION: u32 = 32;
    /// Of 8 bits.
    pub const NARROW_DESTINATION: u32 = 40;
    /// Second word: all 16 bits of the source are compared.
    pub const VERIFY: u64 = 1 << 18;
}

impl Table {
    /// Lets nothing through.
    pub fn new(wide: bool, hardware: &mut impl Hardware) -> Result<Self, Error> {
        let page = hardware.take(0).ok_or(Error::NoMemory)?;
        for place in (page..page + PAGE).step_by(8) {
            hardware.store(place, 0, true);
        }
        Ok(Self { page, wide })
    }

    /// Writes an entry.
    pub fn set(&self, hardware: &mut impl Hardware, route: &Route) {
        let place = self.page + u64::from(route.vector) * 16;
        let shift = if self.wide { entry::DESTINATION } else { entry::NARROW_DESTINATION };
        let destination = if self.wide { route.destination } else { route.destination & 0xff };
        let low = entry::PRESENT
            | u64::from(route.level) << entry::LEVEL
            | u64::from(route.vector) << entry::VECTOR
            | u64::from(destination) << shift;
        // Not present while it is half written.
        hardware.store(place, 0, true);
        hardware.store(
            place + 8,
            route.source.map_or(0, |source| u64::from(source.id) | entry::VERIFY),
            true,
        );
        hardware.store(place, low, true);
    }
}

/// Address and data with which a function raises the interrupt of an entry (5.1.2.2). The data is not looked at.
#[must_use]
pub const fn message(vector: u8) -> (u64, u32) {
    (address(vector as u16), 0)
}

/// The address that names an entry: bit 4, and its number from bit 5 on, whose highest bit is bit 2.
pub(crate) const fn address(number: u16) -> u64 {
    0xfee0_0010 | (number as u64 & 0x7fff) << 5 | (number as u64 >> 15) << 2
}
