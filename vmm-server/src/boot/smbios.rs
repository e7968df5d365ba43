//! What a machine says of itself in SMBIOS 2.8 (DMTF DSP0134): handed to firmware by `fw_cfg`, which adds its own table about the BIOS and places all of them.

use alloc::vec::Vec;

/// Names of the files (QEMU `docs/specs/fw_cfg.rst`).
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
/// See [`ANCHOR_FILE`].
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";
/// Length of the entry point (5.2.1).
const ENTRY_POINT: usize = 0x1f;
/// Kinds of structures (7).
const SYSTEM: u8 = 1;
const ENCLOSURE: u8 = 3;
const PROCESSOR: u8 = 4;
const MEMORY_ARRAY: u8 = 16;
const MEMORY_DEVICE: u8 = 17;
const MAPPED_ARRAY: u8 = 19;
const BOOT_STATUS: u8 = 32;
const END: u8 = 127;
/// Longest name that is shown.
const MOST_TEXT: usize = 64;
/// Handles: the kind in the upper byte, so that they are told apart.
const fn handle(kind: u8) -> u16 {
    (kind as u16) << 8
}

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    /// Entry point, without the tables' address.
    pub anchor: Vec<u8>,
    /// The structures.
    pub tables: Vec<u8>,
}

struct Builder {
    tables: Vec<u8>,
    count: u16,
    longest: usize,
}

impl Builder {
    /// Adds a structure: what follows its header, and its texts, which it names from 1 on.
    fn add(&mut self, kind: u8, body: &[u8], texts: &[&str]) {
        let start = self.tables.len();
        // A structure of ours has much fewer than 256 bytes.
        self.tables.extend_from_slice(&[kind, (4 + body.len()) as u8]);
        self.tables.extend_from_slice(&handle(kind).to_le_bytes());
        self.tables.extend_from_slice(body);
        for text in texts {
            // A zero would end it, and an empty one all of them.
            let printable = text.bytes().filter(|byte| (0x20..0x7f).contains(byte)).take(MOST_TEXT);
            let before = self.tables.len();
            self.tables.extend(printable);
            if self.tables.len() == before {
                self.tables.push(b'-');
            }
            self.tables.push(0);
        }
        if texts.is_empty() {
            self.tables.push(0);
        }
        self.tables.push(0);
        self.count += 1;
        self.longest = self.longest.max(self.tables.len() - start);
    }
}

/// A number for a machine of that name: the same at each start (RFC 9562, version 8), in the order of bytes that SMBIOS has (7.2.1).
fn uuid(name: &str) -> [u8; 16] {
    let hash = |basis: u64| {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        name.bytes().fold(basis, step).to_le_bytes()
    };
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&hash(0xcbf2_9ce4_8422_2325));
    uuid[8..].copy_from_slice(&hash(0x6c62_272e_07bb_0142));
    // Version, in the upper bits of the third field, which is little-endian here, and variant.
    uuid[7] = uuid[7] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Describes a machine with `memory` bytes of RAM.
#[must_use]
pub fn describe(name: &str, vcpus: usize, memory: u64) -> Smbios {
    let mut builder = Builder {
        tables: Vec::new(),
        count: 0,
        longest: 0,
    };
    // System (7.2): maker, product, version, serial number; UUID; woken by the power switch; SKU, family.
    let mut system = Vec::from([1, 2, 3, 4]);
    system.extend_from_slice(&uuid(name));
    system.extend_from_slice(&[6, 0, 0]);
    builder.add(SYSTEM, &system, &["Tessera", "Virtual Machine", "1", name]);
    // Enclosure (7.4): maker; other; no version, serial number and tag; states are safe, security unknown; height and cords are unspecified.
    builder.add(ENCLOSURE, &[1, 1, 0, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0], &["Tessera"]);
    // Processor (7.5): one socket with all cores. Central processor; family other; maker.
    let cores = u8::try_from(vcpus).unwrap_or(u8::MAX);
    let mut processor = Vec::from([1, 3, 1, 2]);
    processor.extend_from_slice(&[0; 8]);
    // No version; voltage, clock and speeds are unknown; populated and enabled; other upgrade.
    processor.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0x41, 1]);
    // No tables of caches (7.5.3); no serial number, tag and part number; cores, enabled cores, threads; 64 bits.
    processor.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, cores, cores, cores, 4, 0, 1, 0]);
    builder.add(PROCESSOR, &processor, &["CPU 0", "Tessera"]);
    // Memory (7.17): on the board, system memory, no error correction; size in KiB; no error information; one device.
    let kibibytes = u32::try_from(memory >> 10).unwrap_or(i32::MAX as u32).min(i32::MAX as u32);
    let mut array = Vec::from([3, 3, 3]);
    array.extend_from_slice(&kibibytes.to_le_bytes());
    array.extend_from_slice(&[0xfe, 0xff, 1, 0]);
    array.extend_from_slice(&[0; 8]);
    builder.add(MEMORY_ARRAY, &array, &[]);
    // Its device (7.18): in that array; no error information; widths unknown; size in MiB, or in the field for more; DIMM, DRAM.
    let mebibytes = u32::try_from(memory >> 20).unwrap_or(i32::MAX as u32);
    let short = if mebibytes < 0x7fff { mebibytes as u16 } else { 0x7fff };
    let mut device = Vec::from(handle(MEMORY_ARRAY).to_le_bytes());
    device.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);
    device.extend_from_slice(&short.to_le_bytes());
    device.extend_from_slice(&[9, 0, 1, 0, 7, 2, 0, 0, 0, 2, 0, 0, 0, 0]);
    device.extend_from_slice(&if short == 0x7fff { mebibytes } else { 0 }.to_le_bytes());
    device.extend_from_slice(&[0; 8]);
    builder.add(MEMORY_DEVICE, &device, &["DIMM 0", "Tessera"]);
    // Where it is (7.20): first and last KiB.
    let mut mapped = Vec::from(0u32.to_le_bytes());
    mapped.extend_from_slice(&kibibytes.saturating_sub(1).to_le_bytes());
    mapped.extend_from_slice(&handle(MEMORY_ARRAY).to_le_bytes());
    mapped.push(1);
    mapped.extend_from_slice(&[0; 16]);
    builder.add(MAPPED_ARRAY, &mapped, &[]);
    // No errors were found (7.33).
    builder.add(BOOT_STATUS, &[0; 7], &[]);
    builder.add(END, &[], &[]);
    Smbios {
        anchor: anchor(&builder),
        tables: builder.tables,
    }
}

/// The entry point (5.2.1). Firmware writes the tables' address, and the sums anew.
fn anchor(builder: &Builder) -> Vec<u8> {
    let mut anchor = Vec::from(*b"_SM_");
    anchor.extend_from_slice(&[0, ENTRY_POINT as u8, 2, 8]);
    anchor.extend_from_slice(&(builder.longest as u16).to_le_bytes());
    anchor.extend_from_slice(&[0; 6]);
    anchor.extend_from_slice(b"_DMI_\0");
    anchor.extend_from_slice(&(builder.tables.len() as u16).to_le_bytes());
    anchor.extend_from_slice(&[0; 4]);
    anchor.extend_from_slice(&builder.count.to_le_bytes());
    anchor.push(0x28);
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    anchor[0x15] = sum(&anchor[0x10..]);
    anchor[4] = sum(&anchor);
    anchor
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Kind, length of the formatted part and texts of each structure, as a reader of the specification walks them.
    fn walk(tables: &[u8]) -> Vec<(u8, usize, Vec<&str>)> {
        let (mut at, mut found) = (0, Vec::new());
        while at < tables.len() {
            let (kind, length) = (tables[at], usize::from(tables[at + 1]));
            let texts = at + length;
            let end = texts + tables[texts..].windows(2).position(|pair| pair == [0, 0]).unwrap();
            let split = tables[texts..end].split(|byte| *byte == 0).filter(|text| !text.is_empty());
            found.push((kind, length, split.map(|text| core::str::from_utf8(text).unwrap()).collect()));
            at = end + 2;
        }
        found
    }

    #[test]
    fn lengths_are_those_of_version_2_8() {
        let smbios = describe("web", 4, 512 << 20);
        let lengths: Vec<_> = walk(&smbios.tables).iter().map(|(kind, length, _)| (*kind, *length)).collect();
        assert_eq!(
            lengths,
            [
                (1, 0x1b),
                (3, 0x16),
                (4, 0x2a),
                (16, 0x17),
                (17, 0x28),
                (19, 0x1f),
                (32, 0x0b),
                (127, 4)
            ]
        );
        assert_eq!(smbios.anchor.len(), ENTRY_POINT);
        assert_eq!(smbios.anchor[0x1c..0x1e], [8, 0]);
    }

    #[test]
    fn a_name_is_one_machine() {
        assert_eq!(describe("a", 1, 1 << 30), describe("a", 1, 1 << 30));
        assert_ne!(uuid("a"), uuid("b"));
        assert_eq!((uuid("a")[7] >> 4, uuid("a")[8] >> 6), (8, 2));
    }

    proptest! {
        #[test]
        fn can_be_walked_whatever_the_machine(name in ".{0,80}", vcpus in 0usize..1000, memory: u64) {
            let smbios = describe(&name, vcpus, memory);
            let found = walk(&smbios.tables);
            prop_assert_eq!(found.len(), 8);
            let most = usize::from(u16::from_le_bytes([smbios.anchor[8], smbios.anchor[9]]));
            prop_assert!(most >= found.iter().map(|(_, length, _)| *length).max().unwrap());
            let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            prop_assert_eq!((sum(&smbios.anchor), sum(&smbios.anchor[0x10..])), (0, 0));
            prop_assert_eq!(usize::from(u16::from_le_bytes([smbios.anchor[0x16], smbios.anchor[0x17]])), smbios.tables.len());
        }
    }
}
