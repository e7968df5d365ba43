//! What the firmware says: the tables DMAR (VT-d 8) and IVRS (AMD-Vi 5.2). Whatever stands in them, reading them ends, and what makes no sense is left out.

use crate::Source;
use alloc::vec::Vec;

/// Bytes before a table's first structure.
const HEADER: usize = 48;
/// Most structures that are looked at.
const MOST: usize = 1024;

/// Whose units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Intel's.
    Vtd,
    /// AMD's.
    Amd,
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitDescription {
    /// Physical address of its registers, on a page.
    pub base: u64,
    /// Segment of its functions.
    pub segment: u16,
    /// AMD: the function that it is itself.
    pub function: Option<Source>,
    /// AMD: how it treats requests; bits 0 to 5 as the table has them.
    pub flags: u8,
}

/// Which functions something is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A function, as the way to it from a bus: device and function of each bridge, and at last its own.
    Path {
        /// Segment group.
        segment: u16,
        /// First bus.
        bus: u8,
        /// The way.
        path: Vec<(u8, u8)>,
    },
    /// All functions between two, both among them.
    Range(Source, Source),
}

impl Scope {
    /// Whether a function is meant. `secondary` answers the bus behind the bridge at bus, device and function.
    pub fn holds(&self, source: Source, secondary: impl Fn(u8, u8, u8) -> Option<u8>) -> bool {
        match self {
            Self::Range(first, last) => first.segment == source.segment && (first.id..=last.id).contains(&source.id),
            Self::Path { segment, bus, path } => {
                let Some(((device, function), bridges)) = path.split_last() else {
                    return false;
                };
                let behind = bridges
                    .iter()
                    .try_fold(*bus, |bus, (device, function)| secondary(bus, *device, *function));
                behind.is_some_and(|bus| Source::new(*segment, bus, *device, *function) == source)
            }
        }
    }
}

/// Memory that the firmware has functions use: they must go on reaching it (RMRR, IVMD).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// First byte, on a page.
    pub base: u64,
    /// Bytes, whole pages.
    pub length: u64,
    /// Which functions.
    pub scopes: Vec<Scope>,
}

impl Reserved {
    fn new(first: u64, last: u64, scopes: Vec<Scope>) -> Option<Self> {
        let base = first & !0xfff;
        let length = (last | 0xfff).checked_sub(base)?.checked_add(1)?;
        base.checked_add(length)?;
        Some(Self { base, length, scopes })
    }
}

/// The machine's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Whose.
    pub kind: Kind,
    /// The units.
    pub units: Vec<UnitDescription>,
    /// Memory that functions have to go on reaching.
    pub reserved: Vec<Reserved>,
    /// AMD: functions (from, to) whose requests look like another's.
    pub aliases: Vec<(Source, Source, Source)>,
    /// The platform can remap interrupts.
    pub remaps: bool,
    /// As whom I/O APICs raise interrupts.
    pub controllers: Vec<Source>,
}

impl Description {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            units: Vec::new(),
            reserved: Vec::new(),
            aliases: Vec::new(),
            remaps: false,
            controllers: Vec::new(),
        }
    }

    fn add(&mut self, unit: UnitDescription) {
        let sound = unit.base != 0 && unit.base.is_multiple_of(0x1000) && unit.base < 1 << 52;
        if sound && !self.units.iter().any(|known| known.base == unit.base) {
            self.units.push(unit);
        }
    }

    fn found(self) -> Option<Self> {
        (!self.units.is_empty()).then_some(self)
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(length)?)?;
    Some(part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The structures behind a table's header. `kind_bytes` is the length of a structure's type; its own length stands at byte 2.
fn structures(table: &[u8], kind_bytes: usize) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = table.get(HEADER..).unwrap_or_default();
    core::iter::from_fn(move || {
        let length = number(rest, 2, 2)? as usize;
        let kind = number(rest, 0, kind_bytes)?;
        let structure = rest.get(..length).filter(|_| length >= 4)?;
        rest = &rest[length..];
        Some((kind, structure))
    })
    .take(MOST)
}

/// Reads DMAR; `None`: no table of that name, or it names no unit.
#[must_use]
pub fn dmar(table: &[u8]) -> Option<Description> {
    if table.get(..4)? != b"DMAR" {
        return None;
    }
    let mut found = Description::new(Kind::Vtd);
    found.remaps = number(table, 37, 1)? & 1 != 0;
    for (kind, bytes) in structures(table, 2) {
        let field = |at, length| number(bytes, at, length);
        match kind {
            // 8.3: a unit.
            0 => {
                let unit = (|| {
                    Some(UnitDescription {
                        segment: field(6, 2)? as u16,
                        base: field(8, 8)?,
                        function: None,
                        flags: 0,
                    })
                })();
                if let Some(unit) = unit {
                    found
                        .controllers
                        .extend(controllers(unit.segment, bytes.get(16..).unwrap_or_default()));
                    found.add(unit);
                }
            }
            // 8.4: reserved memory.
            1 => {
                let reserved = (|| {
                    let scopes = scopes(field(6, 2)? as u16, bytes.get(24..)?);
                    Reserved::new(field(8, 8)?, field(16, 8)?, scopes)
                })();
                found.reserved.extend(reserved);
            }
            _ => {}
        }
    }
    found.found()
}

/// A device scope (VT-d 8.3.1): kind, bus, and the way from there.
type Entry = (u64, u8, Vec<(u8, u8)>);

/// All that are listed.
fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let (Some(kind), Some(length)) = (number(bytes, 0, 1), number(bytes, 1, 1)) {
        let Some(entry) = bytes.get(..length as usize).filter(|entry| entry.len() >= 6) else {
            break;
        };
        bytes = &bytes[entry.len()..];
        let path: Vec<_> = entry[6..].chunks_exact(2).map(|pair| (pair[0] & 31, pair[1] & 7)).collect();
        if !path.is_empty() {
            entries.push((kind, entry[5], path));
        }
    }
    entries
}

/// PCI endpoints and bridges among scopes.
fn scopes(segment: u16, bytes: &[u8]) -> Vec<Scope> {
    let functions = entries(bytes).into_iter().filter(|(kind, ..)| matches!(kind, 1 | 2));
    functions.map(|(_, bus, path)| Scope::Path { segment, bus, path }).collect()
}

/// I/O APICs among scopes. They stand on the first bus of their path.
fn controllers(segment: u16, bytes: &[u8]) -> Vec<Source> {
    let found = entries(bytes).into_iter().filter(|(kind, ..)| *kind == 3);
    found
        .filter_map(|(_, bus, path)| match path[..] {
            [(device, function)] => Some(Source::new(segment, bus, device, function)),
            _ => None,
        })
        .collect()
}

/// Reads IVRS; `None`: no table of that name, or it names no unit.
#[must_use]
pub fn ivrs(table: &[u8]) -> Option<Description> {
    if table.get(..4)? != b"IVRS" {
        return None;
    }
    let mut found = Description::new(Kind::Amd);
    for (kind, bytes) in structures(table, 1) {
        match kind {
            0x10 | 0x11 | 0x40 => {
                let header = if kind == 0x10 { 24 } else { 40 };
                read_unit(bytes, header, &mut found);
            }
            0x20..=0x22 => found.reserved.extend(read_memory(kind, bytes)),
            _ => {}
        }
    }
    found.found()
}

/// A hardware definition block (AMD-Vi 5.2.2). A unit may have several, of which the first counts.
fn read_unit(bytes: &[u8], header: usize, found: &mut Description) -> Option<()> {
    let field = |at, length| number(bytes, at, length);
    let segment = field(16, 2)? as u16;
    found.add(UnitDescription {
        base: field(8, 8)?,
        segment,
        function: Some(Source {
            segment,
            id: field(4, 2)? as u16,
        }),
        flags: field(1, 1)? as u8,
    });
    let mut rest = bytes.get(header..)?;
    let mut range: Option<(Source, Option<Source>)> = None;
    for _ in 0..MOST {
        let Some(kind) = number(rest, 0, 1) else { break };
        // 5.2.2.1: the two highest bits say how long an entry is; above 0xf0 it says so itself.
        let length = match kind {
            0xf0.. => 22 + number(rest, 21, 1)? as usize,
            _ => 4 << (kind >> 6),
        };
        let Some(entry) = rest.get(..length) else { break };
        rest = &rest[length..];
        let source = |at| {
            Some(Source {
                segment,
                id: number(entry, at, 2)? as u16,
            })
        };
        match (kind, source(1)) {
            // 5.2.2.4: as whom something that is no function, here (variety 1) an I/O APIC, makes requests.
            (0x48, _) if number(entry, 7, 1) == Some(1) => {
                let controller = source(5).filter(|controller| !found.controllers.contains(controller));
                found.controllers.extend(controller);
                found.remaps = true;
            }
            (0x42, Some(from)) => found.aliases.extend(source(5).map(|alias| (from, from, alias))),
            (0x43, Some(from)) => range = Some((from, source(5))),
            (0x03, Some(from)) => range = Some((from, None)),
            (0x04, Some(to)) => {
                if let Some((from, Some(alias))) = range.take() {
                    found.aliases.push((from, to, alias));
                }
            }
            _ => {}
        }
        if found.aliases.len().max(found.controllers.len()) > MOST {
            break;
        }
    }
    Some(())
}

/// A memory definition block (AMD-Vi 5.2.3). Memory that units are to exclude from translation is mapped like the rest: the functions reach it either way.
fn read_memory(kind: u64, bytes: &[u8]) -> Option<Reserved> {
    let field = |at, length| number(bytes, at, length);
    let source = |id: u64| Source { segment: 0, id: id as u16 };
    let scope = match kind {
        0x20 => Scope::Range(source(0), source(0xffff)),
        0x21 => Scope::Range(source(field(4, 2)?), source(field(4, 2)?)),
        _ => Scope::Range(source(field(4, 2)?), source(field(6, 2)?)),
    };
    let (start, length) = (field(16, 8)?, field(24, 8)?);
    Reserved::new(start, start.checked_add(length.checked_sub(1)?)?, [scope].into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(name: &[u8; 4], structures: &[&[u8]]) -> Vec<u8> {
        let mut bytes = name.to_vec();
        bytes.resize(HEADER, 0);
        structures.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    /// A unit for the whole segment, and memory for 02:1f.3 behind bridge 00:1c.1.
    fn intel() -> Vec<u8> {
        let mut unit = vec![0, 0, 24, 0, 1, 0, 0, 0];
        unit.extend(0xfed9_0000u64.to_le_bytes());
        unit.extend([3, 8, 0, 0, 0, 0xff, 0, 1]);
        let mut memory = vec![1, 0, 34, 0, 0, 0, 0, 0];
        memory.extend(0x7f00_0000u64.to_le_bytes());
        memory.extend(0x7f00_1fffu64.to_le_bytes());
        memory.extend([1, 10, 0, 0, 0, 0, 0x1c, 1, 0x1f, 3]);
        let mut bytes = table(b"DMAR", &[&unit, &memory]);
        bytes[37] = 1;
        bytes
    }

    /// A unit with an alias for each way to write one, and memory for a range.
    fn amd() -> Vec<u8> {
        let mut unit = vec![0x10, 0x21, 0, 0, 0x10, 0, 0x40, 0];
        unit.extend(0xfed8_0000u64.to_le_bytes());
        unit.extend([0; 8]);
        unit.extend([0x42, 0x08, 0, 0, 0, 0x10, 0, 0]);
        unit.extend([0x48, 0, 0, 0, 0, 0xa0, 0, 1]);
        unit.extend([0x43, 0x20, 0, 0, 0, 0x18, 0, 0, 0x04, 0x2f, 0, 0]);
        unit[2] = unit.len() as u8;
        let mut memory = vec![0x22, 8, 32, 0, 0x10, 0, 0x20, 0];
        memory.extend([0; 8]);
        memory.extend(0x1234_5000u64.to_le_bytes());
        memory.extend(0x800u64.to_le_bytes());
        table(b"IVRS", &[&unit, &memory])
    }

    #[test]
    fn intel_s_table() {
        let found = dmar(&intel()).unwrap();
        assert_eq!(found.units.len(), 1);
        assert_eq!((found.units[0].base, found.units[0].segment), (0xfed9_0000, 0));
        assert!(found.remaps);
        assert_eq!(found.controllers, [Source::new(0, 0xff, 0, 1)]);
        let reserved = &found.reserved[0];
        assert_eq!((reserved.base, reserved.length), (0x7f00_0000, 0x2000));
        let behind = |bus, device, function| ((bus, device, function) == (0, 0x1c, 1)).then_some(2);
        assert!(reserved.scopes[0].holds(Source::new(0, 2, 0x1f, 3), behind));
        assert!(!reserved.scopes[0].holds(Source::new(0, 0, 0x1f, 3), behind));
        assert!(!reserved.scopes[0].holds(Source::new(0, 2, 0x1f, 3), |_, _, _| None));
        assert_eq!(ivrs(&intel()), None);
    }

    #[test]
    fn amd_s_table() {
        let found = ivrs(&amd()).unwrap();
        let source = |id| Source { segment: 0, id };
        assert_eq!((found.remaps, found.controllers.as_slice()), (true, &[source(0xa0)][..]));
        assert_eq!((found.units[0].base, found.units[0].function), (0xfed8_0000, Some(source(0x10))));
        assert_eq!(found.units[0].flags, 0x21);
        assert_eq!(
            found.aliases,
            [(source(8), source(8), source(0x10)), (source(0x20), source(0x2f), source(0x18))]
        );
        let reserved = &found.reserved[0];
        assert_eq!((reserved.base, reserved.length), (0x1234_5000, 0x1000));
        assert!(reserved.scopes[0].holds(source(0x20), |_, _, _| None));
        assert!(!reserved.scopes[0].holds(source(0x21), |_, _, _| None));
        assert_eq!(dmar(&amd()), None);
    }

    proptest! {
        /// Damaged tables give something sound or nothing, and reading them ends.
        #[test]
        fn damaged_tables(intel_s: bool, changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..8), length in 0usize..130) {
            let mut bytes = if intel_s { intel() } else { amd() };
            for (place, value) in changes {
                let all = bytes.len();
                bytes[place % all] = value;
            }
            bytes.truncate(length);
            for found in dmar(&bytes).into_iter().chain(ivrs(&bytes)) {
                prop_assert!(!found.units.is_empty());
                for unit in &found.units {
                    prop_assert!(unit.base != 0 && unit.base % 4096 == 0);
                }
                for reserved in &found.reserved {
                    prop_assert!(reserved.length > 0 && reserved.base % 4096 == 0 && reserved.length % 4096 == 0);
                    prop_assert!(reserved.base.checked_add(reserved.length).is_some());
                }
            }
        }

        #[test]
        fn noise_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..600), intel_s: bool) {
            let name = if intel_s { b"DMAR" } else { b"IVRS" };
            let bytes = table(name, &[&bytes]);
            let _ = (dmar(&bytes), ivrs(&bytes));
        }
    }
}
