//! Remapping of interrupts: what a function writes names an entry of a table, and that says which vector is raised where. What names none is refused. An entry's number is its vector, which the kernel gives out once for the
//! whole machine.
//!
//! VT-d (5.1) has one table, whose entries say whose write counts; they are named by messages in a format of their own, and others are refused. AMD-Vi (2.2.5) has a table for each function, and messages stay as they are:
//! their data is the entry's number.

use crate::{Error, Hardware, Source, tables::PAGE};
use alloc::vec::Vec;

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

/// Which interrupts are let through.
#[derive(Debug)]
pub(crate) enum Interrupts {
    /// Intel's.
    Vtd(Table),
    /// AMD's.
    Amd(FunctionTables),
}

/// VT-d's table.
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

/// Bytes of a table of AMD-Vi, for as many entries.
const FUNCTION_TABLE: u64 = 4 << ENTRIES_LOG;

/// AMD-Vi's tables.
#[derive(Debug)]
pub(crate) struct FunctionTables {
    tables: Vec<(Source, u64)>,
    spare: Vec<u64>,
    /// As whom I/O APICs raise interrupts.
    controllers: Vec<Source>,
}

impl FunctionTables {
    pub const fn new(controllers: Vec<Source>) -> Self {
        Self {
            tables: Vec::new(),
            spare: Vec::new(),
            controllers,
        }
    }

    /// Whose tables have to let an interrupt through.
    pub fn sources(&self, route: &Route) -> Vec<Source> {
        route.source.map_or_else(|| self.controllers.clone(), |source| [source].into())
    }

    /// The table of a function, which is made if there is none; says too whether it was.
    pub fn of(&mut self, hardware: &mut impl Hardware, source: Source) -> Result<(u64, bool), Error> {
        if let Some((_, table)) = self.tables.iter().find(|(known, _)| *known == source) {
            return Ok((*table, false));
        }
        if self.spare.is_empty() {
            let page = hardware.take(0).ok_or(Error::NoMemory)?;
            for place in (page..page + PAGE).step_by(8) {
                hardware.store(place, 0, true);
            }
            self.spare.extend((page..page + PAGE).step_by(FUNCTION_TABLE as usize));
        }
        let table = self.spare.pop().ok_or(Error::NoMemory)?;
        self.tables.push((source, table));
        Ok((table, true))
    }

    /// Writes an entry of a table (2.2.5.2): remapped, fixed, to one processor.
    pub fn set(hardware: &mut impl Hardware, table: u64, route: &Route) {
        let entry = 1 | u64::from(route.destination & 0xff) << 8 | u64::from(route.vector) << 16;
        let (place, shift) = (table + u64::from(route.vector) / 2 * 8, u64::from(route.vector) % 2 * 32);
        let others = hardware.load(place) & !(0xffff_ffff << shift);
        hardware.store(place, others | entry << shift, true);
    }
}

/// Address and data with which a function raises the interrupt of an entry (5.1.2.2). The data is not looked at.
#[must_use]
pub(crate) const fn message(vector: u8) -> (u64, u32) {
    (address(vector as u16), 0)
}

/// The address that names an entry: bit 4, and its number from bit 5 on, whose highest bit is bit 2.
pub(crate) const fn address(number: u16) -> u64 {
    0xfee0_0010 | (number as u64 & 0x7fff) << 5 | (number as u64 >> 15) << 2
}
