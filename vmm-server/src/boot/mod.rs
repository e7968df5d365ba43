//! Puts a guest into its RAM and its first vCPU at the first instruction. What kind of guest it is, the kernel file itself tells:
//!
//! | kind | recognised by | entered in |
//! |---|---|---|
//! | Linux (protocol 2.12 or newer) | `HdrS` at 0x202 | long mode |
//! | Multiboot | the magic number and its checksum in the first 8 KiB | 32-bit protected mode |
//! | boot sector | 55 AA at byte 510 | real mode |
//!
//! A Linux kernel ends its first sector with 55 AA too, and a Multiboot kernel may, so the order is that of the table.

pub mod boot_sector;
pub mod bzimage;
mod error;
pub mod file;
pub mod firmware;
pub mod layout;
pub mod linux;
pub mod multiboot;
pub mod order;
pub mod registers;
pub mod smbios;
pub mod wake;

pub use bzimage::BzImage;
pub use error::LoadError;
pub use file::{File, Part};

use crate::acpi;
use crate::memory::GuestMemory;
use multiboot::Multiboot;

/// How the first processor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In long mode at a Linux kernel's 64-bit entry point.
    Linux {
        /// Guest-physical address of the first instruction.
        entry: u64,
    },
    /// In protected mode without paging at a Multiboot kernel's entry point.
    Multiboot {
        /// Guest-physical address of the first instruction.
        entry: u32,
        /// Guest-physical address of the Multiboot information.
        information: u32,
    },
    /// In real mode at [`boot_sector::ADDRESS`].
    BootSector,
    /// In real mode at the end of the flash memory.
    Firmware,
    /// Where an operating system that slept said.
    Wake(wake::Vector),
}

impl Start {
    /// Guest-physical address of the first instruction.
    #[must_use]
    pub const fn entry(self) -> u64 {
        match self {
            Self::Linux { entry } => entry,
            Self::Multiboot { entry, .. } => entry as u64,
            Self::BootSector => boot_sector::ADDRESS,
            Self::Firmware => firmware::ENTRY,
            Self::Wake(vector) => vector.address(),
        }
    }
}

/// A kernel file whose kind is known and whose header was checked.
enum Kernel<'a> {
    Linux(BzImage<'a>),
    Multiboot(Multiboot),
    BootSector,
}

impl<'a> Kernel<'a> {
    fn parse(file: &'a dyn File) -> Result<Self, LoadError> {
        let (head, length) = (file.head(), file.length());
        if bzimage::is_one(head) {
            Ok(Self::Linux(BzImage::parse(head, length)?))
        } else if let Some(header) = multiboot::find(head) {
            Ok(Self::Multiboot(Multiboot::parse(head, length, header)?))
        } else if boot_sector::is_one(head) {
            Ok(Self::BootSector)
        } else {
            Err(LoadError::UnknownKind)
        }
    }
}

/// Loads a guest with `vcpus` processors. `initramfs` is a Linux kernel's initial RAM disk or a Multiboot kernel's module; a boot sector gets neither it nor
/// the command line, as nothing says where they would be.
///
/// # Errors
/// If the kernel file is not good or things do not fit.
pub fn load(memory: &GuestMemory, file: &dyn File, initramfs: &dyn File, command_line: &str, vcpus: usize) -> Result<Start, LoadError> {
    let kernel = Kernel::parse(file)?;
    if memory.end() > layout::DEVICES {
        return Err(LoadError::TooLarge);
    }
    // What an earlier run left in the first MiB goes: vectors, tables, a boot sector's variables.
    memory
        .clear_below(layout::BIOS_END)
        .ok_or(LoadError::TooSmall(layout::HIGH_START + 1))?;
    let tables = acpi::build(layout::ACPI, vcpus, memory.has_hole());
    if tables.len() as u64 > layout::BIOS_END - layout::ACPI {
        return Err(LoadError::NoPlace);
    }
    memory
        .write_slice(layout::ACPI, &tables)
        .ok_or(LoadError::TooSmall(layout::BIOS_END))?;
    match kernel {
        Kernel::Linux(image) => linux::load(memory, file, &image, initramfs, command_line),
        Kernel::Multiboot(image) => multiboot::load(memory, file, &image, initramfs, command_line),
        Kernel::BootSector => boot_sector::load(memory, file),
    }
}

/// Types of memory-map entries, the same for Linux (`E820_TYPE_*`) and Multiboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum MemoryKind {
    Ram = 1,
    Reserved = 2,
}

/// The guest's memory: start, end, kind.
fn memory_map(memory: &GuestMemory) -> heapless::Vec<(u64, u64, MemoryKind), 4> {
    let all = [
        (0, layout::LOW_END, MemoryKind::Ram),
        (layout::LOW_END, layout::BIOS_END, MemoryKind::Reserved),
        (layout::HIGH_START, memory.usable_end(), MemoryKind::Ram),
        (memory.usable_end(), memory.flash_backing(), MemoryKind::Reserved),
    ];
    all.into_iter().filter(|(start, end, _)| start < end).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::memory::tests::ram;

    /// Loads files that are in memory.
    pub(crate) fn load(memory: &GuestMemory, file: &[u8], initramfs: &[u8], command_line: &str, vcpus: usize) -> Result<Start, LoadError> {
        super::load(memory, &file, &initramfs, command_line, vcpus)
    }
    use proptest::prelude::*;

    #[test]
    fn the_file_tells_its_kind() {
        let memory = ram(&[64 << 20]);
        let start = |file: &[u8]| load(&memory, file, &[], "", 1);
        let linux = bzimage::tests::file(0x1000, 0x20_0000);
        assert_eq!(start(&linux), Ok(Start::Linux { entry: 0x100_0200 }));
        let mut multiboot = multiboot::tests::flat(0x20_0000, 64);
        assert!(matches!(start(&multiboot), Ok(Start::Multiboot { entry: 0x20_0020, .. })));
        // A disk's master boot record in front of it does not matter: what it says of itself does.
        multiboot.resize(1024, 0);
        multiboot[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(matches!(start(&multiboot), Ok(Start::Multiboot { .. })));
        let mut sector = [0x90; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(start(&sector), Ok(Start::BootSector));
        assert_eq!(start(&[0x90; 512]), Err(LoadError::UnknownKind));
        assert_eq!(start(b"\x7fELF"), Err(LoadError::UnknownKind));
        assert_eq!(start(&[]), Err(LoadError::UnknownKind));
    }

    #[test]
    fn every_kind_finds_acpi_and_a_clean_first_mebibyte() {
        let memory = ram(&[32 << 20]);
        let mut sector = [0x90; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        memory.write_slice(0x500, b"left over").unwrap();
        load(&memory, &sector, &[], "", 1).unwrap();
        assert_eq!(memory.read::<8>(layout::ACPI), Some(*b"RSD PTR "));
        assert_eq!(memory.read::<9>(0x500), Some([0; 9]));
        assert_eq!(
            load(&ram(&[0x8_0000]), &sector, &[], "", 1),
            Err(LoadError::TooSmall(layout::HIGH_START + 1))
        );
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(mut file in prop::collection::vec(any::<u8>(), 0..2048), kind in 0..4) {
            let put = |file: &mut std::vec::Vec<u8>, offset: usize, bytes: &[u8]| {
                if let Some(place) = file.get_mut(offset..offset + bytes.len()) {
                    place.copy_from_slice(bytes);
                }
            };
            match kind {
                1 => put(&mut file, 0x202, b"HdrS"),
                2 => put(&mut file, 16, &multiboot::tests::header(0, &[])),
                3 => put(&mut file, 510, &[0x55, 0xaa]),
                _ => (),
            }
            let memory = ram(&[2 << 20]);
            if let Ok(start) = load(&memory, &file, &[1, 2, 3], "word", 1) {
                prop_assert!(memory.contains(start.entry(), 1));
            }
        }
    }
}
