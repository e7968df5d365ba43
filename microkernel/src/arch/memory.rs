//! The kernel's view of physical memory.
//!
//! | address | what | rights |
//! |---|---|---|
//! | [`PHYS_MAP`] | all RAM and the first 4 GiB, device memory uncached | read, write; the kernel's text and constants only read |
//! | [`STACKS`] | stacks of each processor, with unmapped pages between | read, write |
//! | [`KERNEL_VIRT`] | the kernel's image | text read, execute; constants read; data read, write |
//!
//! The entries of the upper half are made once at boot and never change, so an address space copies them when it is made and needs nothing more.

use core::sync::atomic::{AtomicU64, Ordering};

use tessera_abi::PAGE_SIZE;
use tessera_abi::boot::Features;
use tessera_boot::acpi::Physical;
use tessera_boot::kernel_map::{self, Image};
pub use tessera_boot::kernel_map::{KERNEL_VIRT, PHYS_MAP};
use tessera_boot::memory_map::{FOUR_GIB, MemoryMap, ONE_MIB};
use tessera_boot::paging::{self, PageSize, TableMemory, bits};
use tessera_boot::regions::{Region, RegionSet};

use super::{cpu, descriptors};
use crate::object::page_tables;

/// Kernel stacks.
pub const STACKS: u64 = 0xffff_ff00_0000_0000;

const PAGE: u64 = PAGE_SIZE as u64;
static KERNEL_PML4: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static __kernel_phys_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __kernel_end: u8;
    static boot_pml4: u8;
}

/// Where a physical address appears in the direct map.
#[inline(always)]
pub const fn phys_to_virt(physical: u64) -> *mut u8 {
    (PHYS_MAP + physical) as *mut u8
}

/// The physical address behind a pointer into the direct map.
#[inline(always)]
pub fn virt_to_phys<T>(pointer: *const T) -> u64 {
    (pointer as u64).wrapping_sub(PHYS_MAP)
}

/// The physical address behind an address in the kernel's image or in the direct map.
pub const fn kernel_virt_to_phys(address: u64) -> u64 {
    if address >= KERNEL_VIRT { address - KERNEL_VIRT } else { address.wrapping_sub(PHYS_MAP) }
}

/// The kernel's own page-table root; its lower half is empty.
#[inline(always)]
pub fn kernel_pml4_phys() -> u64 {
    // Relaxed: written once, before other processors run.
    KERNEL_PML4.load(Ordering::Relaxed)
}

/// Physical address of the page-table root of the assembly in `boot`, for processors that start.
pub(super) fn boot_pml4_phys() -> u64 {
    (&raw const boot_pml4) as u64
}

/// The kernel's image in physical memory, with the boot part.
pub fn kernel_image() -> Image {
    let place = |symbol: *const u8| kernel_virt_to_phys(symbol as u64);
    Image {
        start: (&raw const __kernel_phys_start) as u64,
        text: place(&raw const __text_start),
        constants: place(&raw const __text_end),
        data: place(&raw const __rodata_end),
        end: place(&raw const __kernel_end),
    }
}

/// Copies bytes to the start of a page in the direct map.
pub(super) fn copy_to_page(page: u64, bytes: &[u8]) {
    assert!(bytes.len() < PAGE_SIZE, "what is copied into a page must fit");
    // SAFETY: the caller got the page from the boot allocator, so it is mapped, writable and used by nobody else.
    unsafe { phys_to_virt(page).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
}

/// Firmware tables, read through the direct map.
pub(super) struct DirectMap<'a>(pub(super) &'a MemoryMap);

impl Physical for DirectMap<'_> {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let region = Region { base: address, end: address.checked_add(length as u64)? };
        // SAFETY: the direct map shows what may hold tables, which lies outside free RAM, so nothing writes it.
        self.0.may_hold_table(region).then(|| unsafe { core::slice::from_raw_parts(phys_to_virt(address), length) })
    }
}

/// Gives pages at boot, lowest first, and never takes any back. What it has left becomes user level's.
pub struct BootAllocator {
    free: RegionSet,
}

impl BootAllocator {
    /// Starts with all free RAM.
    pub fn new(free: RegionSet) -> Self {
        Self { free }
    }

    /// Zeroed pages, physically contiguous; their physical address. They lie below 4 GiB.
    ///
    /// # Panics
    /// When memory is short: the machine cannot run the system then.
    #[inline(never)]
    pub fn allocate(&mut self, pages: u64) -> u64 {
        let below_4g = Region { base: ONE_MIB, end: FOUR_GIB };
        let base = self.free.take(pages * PAGE, PAGE, below_4g).expect("out of memory at boot: the machine has too little RAM below 4 GiB");
        // SAFETY: the memory was free, is RAM, and is mapped by the early and by the final tables.
        unsafe { phys_to_virt(base).write_bytes(0, (pages * PAGE) as usize) };
        base
    }

    /// What is left.
    pub fn free(&self) -> &RegionSet {
        &self.free
    }
}

/// Page tables in the direct map.
pub(super) struct Tables<'a>(pub(super) &'a mut BootAllocator);

impl TableMemory for Tables<'_> {
    fn read(&self, table: u64, index: usize) -> u64 {
        assert!(index < 512);
        // SAFETY: tables come from the boot allocator, and entries lead only to tables.
        unsafe { phys_to_virt(table).cast::<u64>().add(index).read() }
    }

    fn write(&mut self, table: u64, index: usize, entry: u64) {
        assert!(index < 512);
        // SAFETY: as above; the kernel's tables are built by one processor.
        unsafe { phys_to_virt(table).cast::<u64>().add(index).write(entry) }
    }

    fn allocate(&mut self) -> Option<u64> {
        Some(self.0.allocate(1))
    }
}

/// Maps a page of the kernel's.
#[inline(never)]
pub(super) fn map(tables: &mut Tables<'_>, address: u64, physical: u64, size: PageSize, flags: u64) {
    if let Err(error) = paging::map(tables, kernel_pml4_phys(), address, physical, size, flags | bits::GLOBAL) {
        panic!("cannot map {address:#x} to {physical:#x} for the kernel: {error:?}");
    }
}

/// Builds the final page tables and loads them.
pub fn build(map_of: &MemoryMap, allocator: &mut BootAllocator, features: Features) {
    // Relaxed: one processor runs.
    KERNEL_PML4.store(allocator.allocate(1), Ordering::Relaxed);
    let tables = &mut Tables(allocator);
    if let Err((address, error)) =
        kernel_map::build(tables, kernel_pml4_phys(), &kernel_image(), map_of, features.contains(Features::PAGE_1G))
    {
        panic!("cannot map {address:#x} for the kernel: {error:?}");
    }
    // The stacks of all processors share this part; with their first page its entry in the root is there for good.
    descriptors::reserve_stacks(tables);
    cpu::write_cr3(kernel_pml4_phys());
}

/// Gives a new address space the kernel's half. `root` is its page-table root in the direct map.
///
/// # Safety
/// `root` is valid for 512 entries and no processor has it loaded.
pub unsafe fn copy_kernel_half(root: *mut u64) {
    let kernel = phys_to_virt(kernel_pml4_phys()).cast::<u64>();
    // SAFETY: both are page-table roots; the kernel's never changes after boot.
    unsafe { root.add(256).copy_from_nonoverlapping(kernel.add(256), 256) }
}

/// The finished tables, to look at.
struct Finished;

impl page_tables::Tables for Finished {
    fn read(&self, table: u64, index: usize) -> u64 {
        // SAFETY: entries lead only to tables of the kernel's, which never change; the index is cut to the table.
        unsafe { phys_to_virt(table).cast::<u64>().add(index & 511).read() }
    }

    fn write(&self, table: u64, _: usize, _: u64) {
        unreachable!("the kernel's page tables never change, but the one at {table:#x} was to");
    }

    fn allocate(&self) -> Option<u64> {
        None
    }

    fn free(&self, _: u64) {}
}

/// Looks through the kernel's page tables: pages, pages that are writable and executable, address of the first of those.
pub fn check_write_execute() -> (u64, u64, u64) {
    page_tables::check_write_execute(&Finished, kernel_pml4_phys(), 0..512)
}

/// Clears the root of the early page tables, which could write and execute everything; nothing uses them any more.
pub fn retire_boot_tables() {
    // SAFETY: the page is part of the boot image, mapped writable in the direct map, and no processor has it loaded now.
    unsafe { phys_to_virt(boot_pml4_phys()).write_bytes(0, PAGE_SIZE) }
}
