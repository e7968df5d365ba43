//! A Multiboot kernel (Multiboot Specification 0.6.96): finds and checks its header, lays it out in guest RAM, and tells it what it was given. The kernel's
//! addresses come from the address fields of its header, or else from an ELF32 program header table. The file comes from whoever made the image, so nothing
//! in it is believed.

use super::file::{File, Part};
use super::{LoadError, Start, layout, memory_map};
use crate::memory::GuestMemory;
use alloc::vec::Vec;
use core::fmt;

/// 3.1.1: what a header begins with.
const MAGIC: u32 = 0x1bad_b002;
/// 3.1: the header is within this many bytes.
const SEARCHED: usize = 8192;
/// Header flags 0 and 1: modules begin on pages, memory is told. Both always hold here.
const SATISFIED: u32 = 3;
/// Header flag 2: video modes.
const VIDEO: u32 = 1 << 2;
/// Header flags that a loader must know.
const REQUIREMENTS: u32 = 0xffff;
/// Header flag 16: the address fields count.
const ADDRESSES: u32 = 1 << 16;
/// Most program headers of an ELF file: compilers make a handful.
const MAX_SEGMENTS: usize = 64;
/// Most bytes of the command line: all that is told must fit below [`layout::LOW_END`].
const COMMAND_LINE_MAX: u64 = 2047;
/// 3.3, `boot_loader_name`.
const LOADER: &[u8] = b"Tessera\0";
/// String of the one module.
const MODULE: &[u8] = b"initramfs\0";

/// Why a file is no Multiboot kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultibootError {
    /// Shorter than its headers say.
    Truncated,
    /// It insists on a graphics mode.
    Video,
    /// It insists on something that the specification does not define; holds the flags.
    Requirements(u32),
    /// No address fields, and not ELF either.
    NoAddresses,
    /// No address fields, and an ELF file for something other than 32-bit x86.
    NotElf32,
    /// Addresses contradict each other.
    Inconsistent,
    /// Something would be loaded where no RAM can be, or over what the kernel is told; holds the address.
    Place(u32),
}

impl fmt::Display for MultibootError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => formatter.write_str("the Multiboot kernel's file is shorter than its headers say: copy it again"),
            Self::Video => formatter.write_str(
                "the Multiboot kernel insists on a graphics mode (header flag 2), and the machine has no display: build it for a serial console",
            ),
            Self::Requirements(flags) => write!(
                formatter,
                "the Multiboot kernel insists on header flags {flags:#x}, which Multiboot 0.6.96 does not define"
            ),
            Self::NoAddresses => formatter.write_str(
                "the Multiboot kernel is no ELF file and its header has no addresses (flag 16): nothing tells where it belongs",
            ),
            Self::NotElf32 => formatter.write_str(
                "the Multiboot kernel is an ELF file, but not for 32-bit x86: build it with a 32-bit entry point, or with addresses in its header (flag 16)",
            ),
            Self::Inconsistent => formatter.write_str("the addresses in the Multiboot kernel's headers contradict each other: build it again"),
            Self::Place(address) => write!(
                formatter,
                "the Multiboot kernel wants to be at {address:#x}, where it cannot: link it to 1 MiB or above"
            ),
        }
    }
}

/// A stretch of the kernel.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u32,
    /// What is loaded there.
    part: Part,
    /// Bytes with the zeros that follow.
    length: u32,
}

impl Segment {
    const fn end(&self) -> u64 {
        self.address as u64 + self.length as u64
    }
}

/// A kernel whose headers were checked.
#[derive(Clone, Debug)]
pub struct Multiboot {
    segments: Vec<Segment>,
    entry: u32,
}

fn u16_at(file: &[u8], offset: usize) -> Result<u16, MultibootError> {
    let bytes = file.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u16::from_le_bytes(*bytes)).ok_or(MultibootError::Truncated)
}

fn u32_at(file: &[u8], offset: usize) -> Result<u32, MultibootError> {
    let bytes = file.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(MultibootError::Truncated)
}

/// Where a file's Multiboot header is; `None` if it has none.
#[must_use]
pub fn find(file: &[u8]) -> Option<usize> {
    let searched = &file[..file.len().min(SEARCHED)];
    (0..searched.len()).step_by(4).find(|&offset| {
        let [Ok(magic), Ok(flags), Ok(checksum)] = [0, 4, 8].map(|field| u32_at(searched, offset + field)) else {
            return false;
        };
        magic == MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0
    })
}

impl Multiboot {
    /// Checks the headers of a file of `length` bytes, which begins with `file` and whose Multiboot header is at `header`.
    ///
    /// # Errors
    /// If it cannot be booted.
    pub fn parse(file: &[u8], length: u64, header: usize) -> Result<Self, MultibootError> {
        let flags = u32_at(file, header + 4)?;
        if flags & VIDEO != 0 {
            return Err(MultibootError::Video);
        }
        if flags & REQUIREMENTS & !SATISFIED != 0 {
            return Err(MultibootError::Requirements(flags & REQUIREMENTS & !SATISFIED));
        }
        let image = if flags & ADDRESSES != 0 {
            Self::from_addresses(file, length, header)?
        } else {
            Self::from_elf(file, length)?
        };
        for segment in &image.segments {
            let end = segment.end();
            // What does not fit into this guest's RAM is found when it is loaded.
            let low = end <= layout::MULTIBOOT;
            let high = u64::from(segment.address) >= layout::HIGH_START && end <= layout::DEVICES;
            if !low && !high {
                return Err(MultibootError::Place(segment.address));
            }
        }
        Ok(image)
    }

    /// 3.1.3: the address fields of the header.
    fn from_addresses(file: &[u8], file_length: u64, header: usize) -> Result<Self, MultibootError> {
        let field = |offset| u32_at(file, header + offset);
        let (header_address, address, load_end, bss_end, entry) = (field(12)?, field(16)?, field(20)?, field(24)?, field(28)?);
        let before = header_address.checked_sub(address).ok_or(MultibootError::Inconsistent)?;
        let begin = header.checked_sub(before as usize).ok_or(MultibootError::Inconsistent)?;
        let rest = file_length.checked_sub(begin as u64).ok_or(MultibootError::Truncated)?;
        let bytes = if load_end == 0 {
            rest
        } else {
            let length = load_end.checked_sub(address).ok_or(MultibootError::Inconsistent)?;
            Some(u64::from(length))
                .filter(|length| *length <= rest)
                .ok_or(MultibootError::Truncated)?
        };
        let loaded = u32::try_from(bytes).map_err(|_| MultibootError::Inconsistent)?;
        let part = Part {
            offset: begin as u64,
            length: bytes,
        };
        let length = if bss_end == 0 {
            loaded
        } else {
            let length = bss_end.checked_sub(address).ok_or(MultibootError::Inconsistent)?;
            if length < loaded {
                return Err(MultibootError::Inconsistent);
            }
            length
        };
        let segments = alloc::vec![Segment { address, part, length }];
        Ok(Self { segments, entry })
    }

    /// System V ABI, chapters 4 and 5: the file header and the program headers of type `PT_LOAD`.
    fn from_elf(file: &[u8], file_length: u64) -> Result<Self, MultibootError> {
        if file.get(..4) != Some(b"\x7fELF") {
            return Err(MultibootError::NoAddresses);
        }
        // Class 32, little-endian; machine 3 is the 80386.
        if file.get(4..6) != Some(&[1, 1]) || u16_at(file, 18)? != 3 {
            return Err(MultibootError::NotElf32);
        }
        let (mut entry, table) = (u32_at(file, 24)?, u32_at(file, 28)? as usize);
        let (size, count) = (usize::from(u16_at(file, 42)?), usize::from(u16_at(file, 44)?));
        if size < 32 || count > MAX_SEGMENTS {
            return Err(MultibootError::Inconsistent);
        }
        let mut segments = Vec::with_capacity(count);
        let mut entry_found = false;
        for number in 0..count {
            let at = table + number * size;
            let field = |offset| u32_at(file, at + offset);
            let (kind, offset, linear, address, loaded, length) = (field(0)?, field(4)?, field(8)?, field(12)?, field(16)?, field(20)?);
            if kind != 1 || length == 0 {
                continue;
            }
            if loaded > length {
                return Err(MultibootError::Inconsistent);
            }
            let part = Part {
                offset: offset.into(),
                length: loaded.into(),
            };
            if part.offset + part.length > file_length {
                return Err(MultibootError::Truncated);
            }
            // Paging is off, so a linear entry point means the place to which its segment is loaded.
            if !entry_found && entry.wrapping_sub(linear) < length {
                entry_found = true;
                entry = entry.wrapping_sub(linear).wrapping_add(address);
            }
            segments.push(Segment { address, part, length });
        }
        if segments.is_empty() {
            return Err(MultibootError::Inconsistent);
        }
        Ok(Self { segments, entry })
    }
}

/// Loads a kernel, into memory whose first MiB is zero but for the ACPI tables. The initial RAM disk becomes its module, on the page after the kernel.
///
/// # Errors
/// If things do not fit.
pub fn load(memory: &GuestMemory, file: &dyn File, image: &Multiboot, module: &dyn File, command_line: &str) -> Result<Start, LoadError> {
    if command_line.len() as u64 > COMMAND_LINE_MAX {
        return Err(LoadError::CommandLine(COMMAND_LINE_MAX));
    }
    let kernel_end = image
        .segments
        .iter()
        .map(Segment::end)
        .fold(layout::HIGH_START, u64::max)
        .next_multiple_of(0x1000);
    let module_end = kernel_end + module.length();
    let too_small = LoadError::TooSmall(module_end);
    if module_end > memory.usable_end() {
        return Err(too_small);
    }
    if !memory.contains(image.entry.into(), 1) {
        return Err(MultibootError::Place(image.entry).into());
    }
    for segment in &image.segments {
        let (address, loaded) = (u64::from(segment.address), segment.part.length);
        if !memory.contains(address, loaded) {
            return Err(too_small);
        }
        file.load(memory, address, segment.part).ok_or(LoadError::File)?;
        memory
            .clear(address + loaded, u64::from(segment.length) - loaded)
            .ok_or(too_small)?;
    }
    module.load(memory, kernel_end, Part::all(module)).ok_or(LoadError::File)?;
    let module = (module.length() > 0).then_some((kernel_end as u32, module_end as u32));
    let information = information(memory, module, command_line);
    memory.write_slice(layout::MULTIBOOT, &information).ok_or(too_small)?;
    Ok(Start::Multiboot {
        entry: image.entry,
        information: layout::MULTIBOOT as u32,
    })
}

/// 3.3: what the kernel is told, with all that it points to, for [`layout::MULTIBOOT`].
fn information(memory: &GuestMemory, module: Option<(u32, u32)>, command_line: &str) -> Vec<u8> {
    const SIZE: usize = 116;
    /// Memory, command line, modules, memory map, loader's name.
    const GIVEN: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
    /// Each entry begins with the size of what follows.
    const ENTRY: u32 = 20;
    let mut bytes = alloc::vec![0; SIZE];
    let place = |bytes: &Vec<u8>| layout::MULTIBOOT as u32 + bytes.len() as u32;

    let map = place(&bytes);
    for (start, end, kind) in memory_map(memory) {
        bytes.extend_from_slice(&ENTRY.to_le_bytes());
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&(end - start).to_le_bytes());
        bytes.extend_from_slice(&(kind as u32).to_le_bytes());
    }
    let map_length = place(&bytes) - map;
    let modules = place(&bytes);
    if let Some((start, end)) = module {
        let string = modules + 16;
        for word in [start, end, string, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(MODULE);
    }
    let loader = place(&bytes);
    bytes.extend_from_slice(LOADER);
    let line = place(&bytes);
    bytes.extend_from_slice(command_line.as_bytes());
    bytes.push(0);

    let mut put = |offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    put(0, GIVEN);
    put(4, (layout::LOW_END >> 10) as u32);
    put(8, ((memory.usable_end() - layout::HIGH_START) >> 10) as u32);
    put(16, line);
    put(20, module.is_some().into());
    put(24, modules);
    put(44, map_length);
    put(48, map);
    put(64, loader);
    bytes
}

#[cfg(test)]
#[path = "multiboot_tests.rs"]
pub(crate) mod tests;
