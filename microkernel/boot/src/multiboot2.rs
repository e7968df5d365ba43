//! What the boot loader hands over (Multiboot2 specification 2.0, section 3.6). Every length is checked against the bytes at hand; unknown tags are passed over.

use heapless::Vec;

use crate::bytes::{u32_at, u64_at};

/// Value of `eax` when a Multiboot2 loader starts the kernel.
pub const BOOTLOADER_MAGIC: u32 = 0x36d7_6289;
/// Most memory-map entries that are kept; a machine with more loses the last ones, which costs memory and nothing else if they are RAM.
pub const MAX_MEMORY_ENTRIES: usize = 256;
/// Most bytes of the command line that are kept.
pub const MAX_COMMAND_LINE: usize = 255;
/// Most bytes of boot information that are believed.
pub const MAX_INFO: usize = 1 << 20;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_ACPI_OLD: u32 = 14;
const TAG_ACPI_NEW: u32 = 15;

/// What a range of physical addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM to use.
    Available,
    /// ACPI tables; readable memory that holds what the operating system may want.
    AcpiTables,
    /// Memory that the firmware keeps.
    AcpiNvs,
    /// Anything else, also RAM that failed its test.
    Reserved,
}

/// One entry of the memory map, exactly as the firmware gave it: not sorted, not aligned, perhaps overlapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEntry {
    /// First byte.
    pub base: u64,
    /// Bytes; `base + length` does not overflow.
    pub length: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// Why the boot information cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The information is shorter than its own header, or longer than [`MAX_INFO`].
    BadSize,
    /// A tag reaches past the end.
    TagOutOfBounds,
    /// There is no memory map.
    NoMemoryMap,
}

impl ParseError {
    /// One line for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BadSize => "the boot loader's information has an impossible size",
            Self::TagOutOfBounds => "a tag in the boot loader's information reaches past its end",
            Self::NoMemoryMap => "the boot loader gave no memory map",
        }
    }
}

/// The boot information that the kernel uses, copied out.
#[derive(Clone, Debug, Default)]
pub struct BootInformation {
    /// The memory map.
    pub memory: Vec<MemoryEntry, MAX_MEMORY_ENTRIES>,
    /// Entries that found no room.
    pub memory_dropped: usize,
    /// First and one past the last byte of the first module, the bundle.
    pub module: Option<(u64, u64)>,
    /// The command line without its zero, cut at [`MAX_COMMAND_LINE`].
    pub command_line: Vec<u8, MAX_COMMAND_LINE>,
    /// The ACPI root pointer; the newer form wins.
    pub rsdp: Option<Vec<u8, 36>>,
}

/// The size that the information claims, from its first four bytes; `None` if it is impossible.
#[must_use]
pub fn total_size(header: &[u8]) -> Option<usize> {
    let size = u32_at(header, 0)? as usize;
    (8..=MAX_INFO).contains(&size).then_some(size)
}

/// Reads the information into `info`, which is empty; `bytes` are all of it. It is not returned, because it is large and the first stack is small.
///
/// # Errors
/// What makes it unusable. Fields inside a tag that are out of bounds make that tag count as absent.
#[inline(never)]
pub fn parse(bytes: &[u8], info: &mut BootInformation) -> Result<(), ParseError> {
    let size = total_size(bytes).ok_or(ParseError::BadSize)?;
    let bytes = bytes.get(..size).ok_or(ParseError::BadSize)?;
    let mut newer_rsdp = false;
    let mut offset = 8;
    while offset < bytes.len() {
        let kind = u32_at(bytes, offset).ok_or(ParseError::TagOutOfBounds)?;
        let length = u32_at(bytes, offset + 4).ok_or(ParseError::TagOutOfBounds)? as usize;
        if kind == TAG_END {
            break;
        }
        // At least the header, so that the loop always moves on.
        let tag = length.checked_sub(8).and_then(|_| bytes.get(offset..offset.checked_add(length)?)).ok_or(ParseError::TagOutOfBounds)?;
        match kind {
            TAG_COMMAND_LINE if info.command_line.is_empty() => {
                info.command_line = tag[8..].iter().copied().take_while(|&byte| byte != 0).take(MAX_COMMAND_LINE).collect();
            }
            TAG_MODULE if info.module.is_none() => {
                if let (Some(start), Some(end)) = (u32_at(tag, 8), u32_at(tag, 12))
                    && start < end
                {
                    info.module = Some((start.into(), end.into()));
                }
            }
            TAG_MEMORY_MAP => read_memory_map(tag, info),
            TAG_ACPI_OLD if !newer_rsdp && tag.len() >= 8 + 20 => info.rsdp = Vec::from_slice(&tag[8..28]).ok(),
            TAG_ACPI_NEW if tag.len() >= 8 + 36 => {
                info.rsdp = Vec::from_slice(&tag[8..44]).ok();
                newer_rsdp = true;
            }
            _ => {}
        }
        // Tags start at multiples of 8. No overflow: `length` is at most `MAX_INFO`.
        offset += length.next_multiple_of(8);
    }
    if info.memory.is_empty() { Err(ParseError::NoMemoryMap) } else { Ok(()) }
}

impl BootInformation {
    /// The value of `key=value` on the command line; empty for a bare `key`.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        core::str::from_utf8(&self.command_line).ok()?.split_ascii_whitespace().find_map(|word| {
            let rest = word.strip_prefix(key)?;
            if rest.is_empty() { Some(rest) } else { rest.strip_prefix('=') }
        })
    }
}

fn read_memory_map(tag: &[u8], info: &mut BootInformation) {
    let Some(entry_size) = u32_at(tag, 8).map(|size| size as usize).filter(|&size| size >= 24) else {
        return;
    };
    let entries = tag.get(16..).unwrap_or(&[]);
    for entry in entries.chunks_exact(entry_size) {
        let (Some(base), Some(length), Some(kind)) = (u64_at(entry, 0), u64_at(entry, 8), u32_at(entry, 16)) else {
            return;
        };
        let length = length.min(u64::MAX - base);
        if length == 0 {
            continue;
        }
        let kind = match kind {
            1 => MemoryKind::Available,
            3 => MemoryKind::AcpiTables,
            4 => MemoryKind::AcpiNvs,
            _ => MemoryKind::Reserved,
        };
        if info.memory.push(MemoryEntry { base, length, kind }).is_err() {
            info.memory_dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<BootInformation, ParseError> {
        let mut info = BootInformation::default();
        super::parse(bytes, &mut info).map(|()| info)
    }

    fn tag(kind: u32, body: &[u8]) -> std::vec::Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((body.len() as u32 + 8).to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn information(tags: &[std::vec::Vec<u8>]) -> std::vec::Vec<u8> {
        let mut bytes = vec![0; 8];
        for one in tags {
            bytes.extend(one);
        }
        bytes.extend(tag(TAG_END, &[]));
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    fn memory_map(entries: &[(u64, u64, u32)]) -> std::vec::Vec<u8> {
        let mut body = 24u32.to_le_bytes().to_vec();
        body.extend(0u32.to_le_bytes());
        for &(base, length, kind) in entries {
            body.extend(base.to_le_bytes());
            body.extend(length.to_le_bytes());
            body.extend(kind.to_le_bytes());
            body.extend([0; 4]);
        }
        tag(TAG_MEMORY_MAP, &body)
    }

    #[test]
    fn reads_what_a_loader_writes() {
        let mut module = 0x40_0000u32.to_le_bytes().to_vec();
        module.extend(0x50_0000u32.to_le_bytes());
        module.extend(b"bundle\0");
        let mut rsdp = b"RSD PTR ".to_vec();
        rsdp.resize(36, 7);
        let bytes = information(&[
            tag(TAG_COMMAND_LINE, b"panic=reboot\0junk"),
            tag(999, &[1, 2, 3]),
            tag(TAG_MODULE, &module),
            tag(TAG_ACPI_NEW, &rsdp),
            tag(TAG_ACPI_OLD, &[0; 20]),
            memory_map(&[(0, 0x9fc00, 1), (u64::MAX - 5, 100, 2), (7, 0, 1), (0x7fe_0000, 0x1000, 3)]),
        ]);
        let info = parse(&bytes).unwrap();
        assert_eq!(info.command_line.as_slice(), b"panic=reboot");
        assert_eq!(info.module, Some((0x40_0000, 0x50_0000)));
        assert_eq!(info.rsdp.unwrap().as_slice(), rsdp.as_slice());
        assert_eq!(
            info.memory.as_slice(),
            [
                MemoryEntry { base: 0, length: 0x9fc00, kind: MemoryKind::Available },
                MemoryEntry { base: u64::MAX - 5, length: 5, kind: MemoryKind::Reserved },
                MemoryEntry { base: 0x7fe_0000, length: 0x1000, kind: MemoryKind::AcpiTables },
            ]
        );
    }

    #[test]
    fn finds_options() {
        let info = BootInformation {
            command_line: Vec::from_slice(b"panicky=no panic=reboot quiet \xc3\xa4=1").unwrap(),
            ..BootInformation::default()
        };
        assert_eq!((info.option("panic"), info.option("quiet"), info.option("reboot")), (Some("reboot"), Some(""), None));
        let broken = BootInformation { command_line: Vec::from_slice(b"panic=reboot \xff").unwrap(), ..BootInformation::default() };
        assert_eq!(broken.option("panic"), None);
    }

    #[test]
    fn refuses_lengths_that_lie() {
        let mut bytes = information(&[memory_map(&[(0, 0x1000, 1)])]);
        bytes[12..16].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        assert_eq!(parse(&bytes).unwrap_err(), ParseError::TagOutOfBounds);
        bytes[12..16].copy_from_slice(&0u32.to_le_bytes());
        assert_eq!(parse(&bytes).unwrap_err(), ParseError::TagOutOfBounds);
        assert_eq!(parse(&information(&[])).unwrap_err(), ParseError::NoMemoryMap);
        assert_eq!(parse(&[0; 7]).unwrap_err(), ParseError::BadSize);
        assert_eq!(parse(&[200, 0, 0, 0, 0, 0, 0, 0]).unwrap_err(), ParseError::BadSize);
    }

    #[test]
    fn keeps_what_fits_of_a_huge_map() {
        let entries: std::vec::Vec<_> = (0..300u64).map(|i| (i * 0x2000, 0x1000, 1)).collect();
        let info = parse(&information(&[memory_map(&entries)])).unwrap();
        assert_eq!((info.memory.len(), info.memory_dropped), (MAX_MEMORY_ENTRIES, 300 - MAX_MEMORY_ENTRIES));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 8..600), honest in any::<bool>()) {
            if honest {
                let size = bytes.len() as u32;
                bytes[..4].copy_from_slice(&size.to_le_bytes());
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn survives_flipped_bytes(at in 0usize..200, value in any::<u8>()) {
            let mut bytes = information(&[tag(TAG_COMMAND_LINE, b"a b c\0"), tag(TAG_MODULE, &[0; 12]), memory_map(&[(0, 1 << 20, 1), (1 << 20, 1 << 30, 1)])]);
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(info) = parse(&bytes) {
                for entry in &info.memory {
                    prop_assert!(entry.length > 0 && entry.base.checked_add(entry.length).is_some());
                }
            }
        }
    }
}
