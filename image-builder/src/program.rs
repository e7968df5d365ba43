//! Executables: static ELF files for x86-64, taken apart here so that nobody has to at boot.
//!
//! Refused: what needs a loader (interpreter, dynamic section, thread-local storage), memory that is writable and executable, segments that
//! overlap or share a page, and addresses where something else stands.

use anyhow::{Context, bail, ensure};
use object::{
    LittleEndian,
    elf::{EM_X86_64, ET_EXEC, FileHeader64, PF_R, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_TLS},
    read::elf::{FileHeader, ProgramHeader},
};
use std::path::Path;
use tessera_abi::{PAGE_SIZE, layout, object::Rights};

/// The page size as a `u64`.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// A piece of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Page-aligned address.
    pub address: u64,
    /// First bytes, whole pages, as they stand in memory.
    pub bytes: Vec<u8>,
    /// Bytes in memory, whole pages; what `bytes` does not cover is zero.
    pub memory_length: u64,
    /// Rights: never write and execute.
    pub rights: Rights,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it begins.
    pub entry: u64,
    /// Its segments, by address.
    pub segments: Vec<Segment>,
}

impl Program {
    /// Reads an executable.
    ///
    /// # Errors
    /// It cannot be read, or it is none that can be loaded; the message names file and reason.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path)
            .with_context(|| format!("{}: the program cannot be read; is it built (`make programs`)?", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{}: not a program that can run on Tessera", path.display()))
    }

    /// Takes the bytes of an executable apart.
    ///
    /// # Errors
    /// See [`Program::read`].
    pub fn parse(file: &[u8]) -> anyhow::Result<Self> {
        let endian = LittleEndian;
        let header = FileHeader64::<LittleEndian>::parse(file).context("no 64-bit ELF header")?;
        ensure!(header.endian()? == endian, "the file is big-endian");
        ensure!(
            header.e_machine.get(endian) == EM_X86_64,
            "the file is for another processor than x86-64"
        );
        ensure!(
            header.e_type.get(endian) == ET_EXEC,
            "the file is not a static executable (link it with relocation-model=static)"
        );
        let mut segments = Vec::new();
        for program in header
            .program_headers(endian, file)
            .context("the program headers lie outside the file")?
        {
            match program.p_type(endian) {
                PT_LOAD => segments.extend(load(program, file)?),
                PT_INTERP | PT_DYNAMIC => bail!("the file is linked dynamically; link it statically"),
                PT_TLS => bail!("the file has thread-local storage, which the servers' runtime does not offer"),
                _ => {}
            }
        }
        ensure!(!segments.is_empty(), "the file has nothing to load");
        segments.sort_by_key(|segment| segment.address);
        for pair in segments.windows(2) {
            let end = pair[0].address + pair[0].memory_length;
            ensure!(
                end <= pair[1].address,
                "the segments at {:#x} and {:#x} overlap or share a page (link with -z separate-loadable-segments)",
                pair[0].address,
                pair[1].address
            );
        }
        let entry = header.e_entry.get(endian);
        let executable = segments.iter().any(|segment| {
            segment.rights.contains(Rights::EXECUTE) && (segment.address..segment.address + segment.memory_length).contains(&entry)
        });
        ensure!(executable, "the entry point {entry:#x} lies in no executable segment");
        Ok(Self { entry, segments })
    }
}

/// An executable without sections, symbols and debug information: only what its program headers load. A boot loader reads no more.
///
/// # Errors
/// It is no 64-bit ELF file, it has no program headers, or they lie outside of it.
pub fn strip(file: &[u8]) -> anyhow::Result<Vec<u8>> {
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(file).context("no 64-bit ELF header")?;
    let programs = header
        .program_headers(endian, file)
        .context("the program headers lie outside the file")?;
    ensure!(!programs.is_empty(), "the file has no program headers, so nothing to load");
    let table_end = header.e_phoff.get(endian) + std::mem::size_of_val(programs) as u64;
    let mut end = table_end.max(std::mem::size_of_val(header) as u64);
    for program in programs.iter().filter(|program| program.p_type(endian) == PT_LOAD) {
        let (offset, length) = program.file_range(endian);
        end = end.max(offset.checked_add(length).context("a segment reaches past the end of the file")?);
    }
    let mut stripped = file
        .get(..usize::try_from(end)?)
        .context("a segment reaches past the end of the file")?
        .to_vec();
    // e_shoff, e_shnum, e_shstrndx: no section headers (ELF-64 object file format, ELF header).
    for range in [0x28..0x30, 0x3c..0x40] {
        stripped[range].fill(0);
    }
    Ok(stripped)
}

fn load(program: &object::elf::ProgramHeader64<LittleEndian>, file: &[u8]) -> anyhow::Result<Option<Segment>> {
    let endian = LittleEndian;
    let (address, memory) = (program.p_vaddr(endian), program.p_memsz(endian));
    if memory == 0 {
        return Ok(None);
    }
    let data = program
        .data(endian, file)
        .ok()
        .with_context(|| format!("the segment at {address:#x} reaches past the end of the file"))?;
    ensure!(
        data.len() as u64 <= memory,
        "the segment at {address:#x} has more bytes in the file than in memory"
    );
    let end = address
        .checked_add(memory)
        .with_context(|| format!("the segment at {address:#x} reaches past the end of memory"))?;
    ensure!(
        address >= layout::USER_BOTTOM && end <= layout::START_INFO,
        "the segment at {address:#x} (length {memory:#x}) lies outside {:#x} to {:#x}, where programs stand",
        layout::USER_BOTTOM,
        layout::START_INFO
    );
    let flags = program.p_flags(endian);
    let mut rights = Rights::empty();
    rights.set(Rights::READ, flags.0 & PF_R.0 != 0);
    rights.set(Rights::WRITE, flags.0 & PF_W.0 != 0);
    rights.set(Rights::EXECUTE, flags.0 & PF_X.0 != 0);
    ensure!(
        !rights.contains(Rights::WRITE | Rights::EXECUTE),
        "the segment at {address:#x} is writable and executable"
    );
    ensure!(rights.contains(Rights::READ), "the segment at {address:#x} is not readable");
    let start = address / PAGE * PAGE;
    // Zeros before the first byte where the segment does not begin on a page, and up to the end of the last page of the file's part.
    let mut bytes = vec![0; usize::try_from(address - start)?];
    bytes.extend_from_slice(data);
    if data.is_empty() {
        bytes.clear();
    }
    bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE), 0);
    Ok(Some(Segment {
        address: start,
        bytes,
        memory_length: end.next_multiple_of(PAGE) - start,
        rights,
    }))
}
