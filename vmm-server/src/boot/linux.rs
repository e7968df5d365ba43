//! Lays a Linux kernel, its initial RAM disk, command line and memory map out in guest RAM (Linux, Documentation/arch/x86/boot.rst, protocol 2.12 or newer,
//! 64-bit entry).

use super::bzimage::{BzImage, HEADER};
use super::file::{File, Part};
use super::{LoadError, Start, layout, memory_map};
use crate::memory::GuestMemory;

/// Most entries of the memory map that `struct boot_params` holds.
const MAX_ENTRIES: usize = 128;

/// Loads a kernel, into memory whose first MiB is zero but for the ACPI tables.
///
/// # Errors
/// If things do not fit.
pub fn load(
    memory: &GuestMemory,
    file: &dyn File,
    image: &BzImage<'_>,
    initramfs: &dyn File,
    command_line: &str,
) -> Result<Start, LoadError> {
    let end = memory.usable_end();
    let most = image.command_line_max.min(layout::COMMAND_LINE_LENGTH - 1);
    if command_line.len() as u64 > most {
        return Err(LoadError::CommandLine(most));
    }
    let initramfs_length = initramfs.length();
    let address = image.preferred;
    // A RAM disk that fits below the kernel takes nothing above it.
    let above = if initramfs_length <= address.saturating_sub(layout::HIGH_START) {
        0
    } else {
        initramfs_length
    };
    let too_small = LoadError::TooSmall(address.saturating_add(image.init_size).saturating_add(above));
    let kernel_end = address
        .checked_add(image.init_size)
        .filter(|&kernel_end| kernel_end <= end)
        .ok_or(too_small)?;
    if address < layout::HIGH_START {
        return Err(LoadError::NoPlace);
    }
    let initramfs_address = place_initramfs(image, initramfs_length, (address, kernel_end), end).ok_or(too_small)?;

    let write = |address: u64, bytes: &[u8]| memory.write_slice(address, bytes).ok_or(too_small);
    file.load(memory, address, image.kernel).ok_or(LoadError::File)?;
    initramfs
        .load(memory, initramfs_address, Part::all(initramfs))
        .ok_or(LoadError::File)?;
    write(layout::COMMAND_LINE, command_line.as_bytes())?;
    write_page_tables(memory).ok_or(too_small)?;
    write_gdt(memory).ok_or(too_small)?;

    let params = layout::BOOT_PARAMS;
    let disk = if initramfs_length == 0 { 0 } else { initramfs_address };
    write(params + HEADER as u64, image.header)?;
    // type_of_loader: 0xff, one that has no number.
    write(params + 0x210, &[0xff])?;
    write(params + 0x218, &(disk as u32).to_le_bytes())?;
    write(params + 0x21c, &(initramfs_length as u32).to_le_bytes())?;
    write(params + 0x228, &(layout::COMMAND_LINE as u32).to_le_bytes())?;
    // acpi_rsdp_addr
    write(params + 0x070, &layout::ACPI.to_le_bytes())?;
    if memory.has_hole() {
        // screen_info: mode 3, 80 columns, 25 lines of 16 pixels, a VGA.
        write(params + 0x06, &[3, 80])?;
        write(params + 0x0a, &[3, 0])?;
        write(params + 0x0e, &[25, 1, 16, 0])?;
    }
    let map = memory_map(memory);
    const { assert!(4 <= MAX_ENTRIES) };
    write(params + 0x1e8, &[map.len() as u8])?;
    for (i, (start, end, kind)) in map.into_iter().enumerate() {
        let entry = params + 0x2d0 + i as u64 * 20;
        write(entry, &u64::to_le_bytes(start))?;
        write(entry + 8, &u64::to_le_bytes(end - start))?;
        write(entry + 16, &u32::to_le_bytes(kind as u32))?;
    }
    Ok(Start::Linux {
        entry: image.entry(address),
    })
}

/// As high as the kernel allows; in a small guest, between 1 MiB and the kernel.
fn place_initramfs(image: &BzImage<'_>, length: u64, kernel: (u64, u64), end: u64) -> Option<u64> {
    let top = end.min(image.initramfs_max.saturating_add(1));
    let high = top
        .checked_sub(length)
        .map(|address| address & !0xfff)
        .filter(|&address| address >= kernel.1);
    let low = || {
        kernel
            .0
            .checked_sub(length)
            .map(|address| address & !0xfff)
            .filter(|&address| address >= layout::HIGH_START)
    };
    high.or_else(low)
}

/// Maps the first 4 GiB one to one with 2 MiB pages.
fn write_page_tables(memory: &GuestMemory) -> Option<()> {
    const TABLE: u64 = 3; // present, writable
    const PAGE: u64 = 0x83; // and large
    let root = layout::PAGE_TABLES;
    memory.write_slice(root, &((root + 0x1000) | TABLE).to_le_bytes())?;
    for i in 0..4 {
        let directory = root + 0x2000 + i * 0x1000;
        memory.write_slice(root + 0x1000 + i * 8, &(directory | TABLE).to_le_bytes())?;
        for j in 0..512 {
            memory.write_slice(directory + j * 8, &((i << 30 | j << 21) | PAGE).to_le_bytes())?;
        }
    }
    Some(())
}

/// Flat code and data segments at selectors 0x10 and 0x18 (`__BOOT_CS`, `__BOOT_DS`).
fn write_gdt(memory: &GuestMemory) -> Option<()> {
    for (i, descriptor) in [0u64, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        memory.write_slice(layout::GDT + i as u64 * 8, &descriptor.to_le_bytes())?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::bzimage::tests::file;
    use super::super::tests::load;
    use super::*;
    use crate::memory::tests::ram;
    use proptest::prelude::*;

    #[test]
    fn lays_a_guest_out() {
        let memory = ram(&[64 << 20]);
        let file = file(0x8000, 0x100_0000);
        let disk = [7u8; 5000];
        let start = load(&memory, &file, &disk, "console=ttyS0", 2).unwrap();
        assert_eq!(start, Start::Linux { entry: 0x100_0200 });
        assert_eq!(memory.read_u32(layout::BOOT_PARAMS + 0x218), Some((64 << 20) - 8192));
        assert_eq!(memory.read_u32(layout::BOOT_PARAMS + 0x21c), Some(5000));
        assert_eq!(memory.read::<2>(0x100_0000), Some([0, 1]), "the kernel");
        assert_eq!(memory.read::<14>(layout::COMMAND_LINE), Some(*b"console=ttyS0\0"));
        assert_eq!(memory.read_u32(layout::BOOT_PARAMS + 0x228), Some(layout::COMMAND_LINE as u32));
        assert_eq!(memory.read::<4>(layout::BOOT_PARAMS + 0x202), Some(*b"HdrS"));
        assert_eq!(memory.read::<1>(layout::BOOT_PARAMS + 0x1e8), Some([3]));
        assert_eq!(memory.read_u64(layout::BOOT_PARAMS + 0x2d0 + 40), Some(0x10_0000));
        assert_eq!(memory.read_u64(layout::BOOT_PARAMS + 0x2d0 + 48), Some(63 << 20));
        assert_eq!(memory.read::<8>(layout::ACPI), Some(*b"RSD PTR "));
        // 3 GiB + 2 MiB through the page tables.
        assert_eq!(memory.read_u64(layout::PAGE_TABLES + 0x2000 + 3 * 0x1000 + 8), Some(0xc020_0083));
    }

    #[test]
    fn says_what_does_not_fit() {
        let file = file(0x8000, 0x100_0000);
        assert!(matches!(load(&ram(&[24 << 20]), &file, &[], "", 1), Err(LoadError::TooSmall(needed)) if needed == 32 << 20));
        assert_eq!(
            load(&ram(&[64 << 20]), &file, &[], &"x".repeat(3000), 1),
            Err(LoadError::CommandLine(2047))
        );
        // The RAM disk goes below the kernel when nothing is left above.
        let memory = ram(&[32 << 20]);
        load(&memory, &file, &[1; 100], "", 1).unwrap();
        assert_eq!(memory.read_u32(layout::BOOT_PARAMS + 0x218), Some(0x100_0000 - 4096));
        let mut wild = file.clone();
        wild[0x258..0x260].copy_from_slice(&0xffff_ffff_ffff_f000u64.to_le_bytes());
        assert!(load(&ram(&[32 << 20]), &wild, &[], "", 1).is_err());
    }

    proptest! {
        #[test]
        fn hostile_headers_never_write_outside_or_panic(preferred in any::<u64>(), init_size in any::<u32>(), top in any::<u32>(), disk in 0usize..10_000) {
            let memory = ram(&[20 << 20]);
            let mut file = file(0x800, init_size);
            file[0x258..0x260].copy_from_slice(&(preferred & !0xfff & 0xffff_ffff).to_le_bytes());
            file[0x22c..0x230].copy_from_slice(&top.to_le_bytes());
            let disk = std::vec![1u8; disk];
            if let Ok(start) = load(&memory, &file, &disk, "", 1) {
                prop_assert!(memory.contains(start.entry(), 1));
            }
        }
    }
}
