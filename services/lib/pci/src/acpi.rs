//! Where the firmware says that configuration space is in memory: the MCFG table (PCI Firmware Specification 3.3, 4.1.2), found through the root tables (ACPI 6.5, 5.2).

use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Bytes of a table's header.
const HEADER: usize = 36;
/// Most bytes of a table that are believed.
const MAX_TABLE: u64 = 1 << 20;
/// Most tables that are looked at.
const MAX_TABLES: usize = 128;

/// Gives the bytes of physical memory.
pub trait Physical {
    /// `length` bytes at `address`, or `None` where there is no such memory.
    fn bytes(&self, address: u64, length: u64) -> Option<Vec<u8>>;
}

/// Configuration space in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcamWindow {
    /// Physical address of the first bus's registers.
    pub base: u64,
    /// Segment group.
    pub segment: u16,
    /// Buses.
    pub buses: RangeInclusive<u8>,
}

impl EcamWindow {
    /// Bytes of it.
    #[must_use]
    pub fn length(&self) -> u64 {
        (u64::from(*self.buses.end()) - u64::from(*self.buses.start()) + 1) << 20
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(length)?)?;
    Some(part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

fn table(memory: &impl Physical, address: u64) -> Option<Vec<u8>> {
    let header = memory.bytes(address, HEADER as u64)?;
    let length = number(&header, 4, 4)?;
    if !(HEADER as u64..=MAX_TABLE).contains(&length) {
        return None;
    }
    memory
        .bytes(address, length)
        .filter(|bytes| bytes.len() as u64 == length && sums_to_zero(bytes))
}

/// The windows of the machine, from the root pointer's physical address on. Empty where the firmware names none or its tables are damaged.
#[must_use]
pub fn ecam_windows(memory: &impl Physical, rsdp: u64) -> Vec<EcamWindow> {
    find(memory, rsdp).unwrap_or_default()
}

fn find(memory: &impl Physical, rsdp: u64) -> Option<Vec<EcamWindow>> {
    acpi_table(memory, rsdp, *b"MCFG").map(|bytes| windows(&bytes))
}

/// The first sound table of a name, header and all. `rsdp` is the root pointer's physical address.
#[must_use]
pub fn acpi_table(memory: &impl Physical, rsdp: u64, name: [u8; 4]) -> Option<Vec<u8>> {
    let root = memory.bytes(rsdp, 36)?;
    if root.get(..8)? != b"RSD PTR " || !sums_to_zero(root.get(..20)?) {
        return None;
    }
    let wide = number(&root, 15, 1)? >= 2 && sums_to_zero(&root);
    let extended = wide.then(|| number(&root, 24, 8)).flatten().filter(|address| *address != 0);
    let (list, width) = match extended.and_then(|address| table(memory, address)) {
        Some(list) => (list, 8),
        None => (table(memory, number(&root, 16, 4)?)?, 4),
    };
    for entry in list.get(HEADER..)?.chunks_exact(width).take(MAX_TABLES) {
        let Some(bytes) = table(memory, number(entry, 0, width)?) else {
            continue;
        };
        if bytes.get(..4) == Some(&name) {
            return Some(bytes);
        }
    }
    None
}

/// Reads the table: entries of 16 bytes behind 8 reserved ones.
fn windows(bytes: &[u8]) -> Vec<EcamWindow> {
    let entries = bytes.get(HEADER + 8..).unwrap_or_default().chunks_exact(16);
    let mut found = Vec::new();
    for entry in entries.take(64) {
        let field = |at, length| number(entry, at, length).unwrap_or(0);
        let (first, last) = (field(10, 1) as u8, field(11, 1) as u8);
        let start = u64::from(first) << 20;
        // The address is bus 0's, wherever the window begins.
        let base = field(0, 8)
            .checked_add(start)
            .filter(|base| base.is_multiple_of(4096) && *base != 0);
        if let Some(base) = base.filter(|base| first <= last && base.checked_add(256 << 20).is_some()) {
            found.push(EcamWindow {
                base,
                segment: field(8, 2) as u16,
                buses: first..=last,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Memory that begins at 0x1000.
    struct Memory(Vec<u8>);

    impl Physical for Memory {
        fn bytes(&self, address: u64, length: u64) -> Option<Vec<u8>> {
            let start = usize::try_from(address.checked_sub(0x1000)?).ok()?;
            self.0.get(start..start.checked_add(usize::try_from(length).ok()?)?).map(Into::into)
        }
    }

    fn checksum(bytes: &mut [u8], at: usize) {
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[at] = bytes[at].wrapping_sub(sum);
    }

    fn add_table(memory: &mut Vec<u8>, name: &[u8; 4], body: &[u8]) -> u64 {
        let address = 0x1000 + memory.len() as u64;
        let mut bytes = [&name[..], &(HEADER as u32 + body.len() as u32).to_le_bytes(), &[0; 28], body].concat();
        checksum(&mut bytes, 9);
        memory.extend(bytes);
        address
    }

    fn machine() -> (Memory, u64) {
        let mut memory = vec![0; 64];
        let other = add_table(&mut memory, b"FACP", &[1, 2, 3]);
        let mut body = vec![0; 8];
        body.extend(0xb000_0000u64.to_le_bytes());
        body.extend([0, 0, 0x10, 0xff, 0, 0, 0, 0]);
        let mcfg = add_table(&mut memory, b"MCFG", &body);
        let root = add_table(&mut memory, b"XSDT", &[other.to_le_bytes(), mcfg.to_le_bytes()].concat());
        let mut pointer = [&b"RSD PTR \0TESSER\x02"[..], &[0; 20]].concat();
        pointer[24..32].copy_from_slice(&root.to_le_bytes());
        checksum(&mut pointer[..20], 8);
        checksum(&mut pointer, 32);
        let at = memory.len() as u64 + 0x1000;
        memory.extend(pointer);
        (Memory(memory), at)
    }

    #[test]
    fn the_window_is_found() {
        let (memory, at) = machine();
        let window = EcamWindow {
            base: 0xb100_0000,
            segment: 0,
            buses: 0x10..=0xff,
        };
        assert_eq!(window.length(), 0xf0 << 20);
        assert_eq!(ecam_windows(&memory, at), [window]);
    }

    proptest! {
        #[test]
        fn damaged_tables_give_windows_or_nothing(changes in proptest::collection::vec((0usize..300, any::<u8>()), 1..8), fix: bool) {
            let (mut memory, at) = machine();
            let length = memory.0.len();
            for (place, value) in changes {
                memory.0[place % length] = value;
            }
            if fix {
                // With a right checksum the damage gets further.
                let start = at as usize - 0x1000;
                checksum(&mut memory.0[start..start + 20], 8);
                checksum(&mut memory.0[start..start + 36], 32);
            }
            for window in ecam_windows(&memory, at) {
                prop_assert!(window.length() <= 256 << 20);
                prop_assert!(window.base.checked_add(window.length()).is_some());
            }
        }
    }
}
