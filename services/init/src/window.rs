//! The only place where init touches memory by address: what the kernel says at boot, and windows onto frames.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use tessera_abi::boot::BootInfo;
use tessera_abi::object::Rights;
use tessera_abi::{Error, PAGE_SIZE, layout};
use tessera_rt::{CNode, Frame, Untyped, slots, vm};

/// What the kernel says at boot.
#[must_use]
pub fn boot_info() -> &'static BootInfo {
    // SAFETY: the kernel maps it there, read-only and for ever, before it starts init; all its fields are plain numbers.
    unsafe { &*(layout::START_INFO as *const BootInfo) }
}

/// Makes a frame the heap of init.
///
/// # Errors
/// The kernel's.
pub fn claim_heap(frame: Frame, pages: u64) -> Result<(), Error> {
    frame.map(tessera_rt::AddressSpace::OWN, layout::HEAP_BASE, Rights::READ | Rights::WRITE, 0)?;
    #[cfg(target_os = "tessera")]
    // SAFETY: the memory was just mapped for this, stays mapped, and nobody else knows of it.
    unsafe {
        tessera_rt::heap::claim(layout::HEAP_BASE as *mut u8, pages as usize * PAGE_SIZE);
    }
    #[cfg(not(target_os = "tessera"))]
    let _ = pages;
    Ok(())
}

/// Writes `bytes` into a frame that is not mapped, from its start. The frame is long enough, or nothing is written.
///
/// # Errors
/// The kernel's; `BadArgument` if the frame is too short.
pub fn fill(frame: Frame, bytes: &[u8]) -> Result<(), Error> {
    let mapping = vm::map(frame, Rights::READ | Rights::WRITE, 0)?;
    let fits = bytes.len() <= mapping.length;
    if fits {
        // SAFETY: the mapping is writable, `bytes` fits, and it is fresh: nothing else points there.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.as_ptr(), bytes.len()) };
    }
    mapping.unmap();
    if fits { Ok(()) } else { Err(Error::BadArgument) }
}

/// Reads `length` bytes of a frame from byte `offset` on.
///
/// # Errors
/// The kernel's; `BadArgument` if they lie outside the frame.
pub fn read(frame: Frame, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    let page = PAGE_SIZE as u64;
    let end = offset.checked_add(length).ok_or(Error::BadArgument)?;
    let first = offset / page;
    let pages = end.div_ceil(page) - first;
    let slot = slots::take()?;
    let outcome = frame
        .slice(first, pages.max(1), CNode::OWN, slot, Rights::READ)
        .and_then(|part| vm::map(part, Rights::READ, 0))
        .map(|mapping| {
            let mut bytes = Vec::with_capacity(length as usize);
            // SAFETY: the mapping is readable and holds `offset % page + length` bytes; nobody writes them, since the bundle is read-only for all.
            bytes
                .extend_from_slice(unsafe { core::slice::from_raw_parts(mapping.as_ptr().add((offset % page) as usize), length as usize) });
            mapping.unmap();
            bytes
        });
    slots::free(slot);
    outcome
}

/// Reads `length` bytes of device memory from byte `offset` on, as the firmware's tables are.
///
/// # Errors
/// The kernel's; `BadArgument` if they lie outside.
pub fn read_device(memory: Untyped, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    let page = PAGE_SIZE as u64;
    let first = offset / page;
    let end = offset.checked_add(length).ok_or(Error::BadArgument)?;
    let slot = slots::take()?;
    let outcome = memory
        .frame_at(first * page, (end.div_ceil(page) - first).max(1), CNode::OWN, slot)
        .and_then(|frame| read(frame, offset % page, length));
    slots::free(slot);
    outcome
}

/// Device registers that stay mapped.
#[derive(Debug)]
pub struct Registers {
    mapping: vm::Mapping,
    /// Where in the first page they begin.
    offset: u64,
    length: u64,
}

impl Registers {
    /// Maps `length` bytes of device memory from byte `offset` on, uncached.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(memory: Untyped, offset: u64, length: u64) -> Result<Self, Error> {
        let page = PAGE_SIZE as u64;
        let (first, end) = (offset / page, offset.checked_add(length).ok_or(Error::BadArgument)?);
        let slot = slots::take()?;
        let mapping = memory
            .frame_at(first * page, (end.div_ceil(page) - first).max(1), CNode::OWN, slot)
            .and_then(|frame| vm::map(frame, Rights::READ | Rights::WRITE, tessera_abi::object::frame::UNCACHED))
            .inspect_err(|_| slots::free(slot))?;
        Ok(Self {
            mapping,
            offset: offset % page,
            length,
        })
    }

    fn at(&self, offset: u64) -> Option<*mut u32> {
        let inside = offset.is_multiple_of(4) && offset.checked_add(4).is_some_and(|end| end <= self.length);
        inside.then(|| (self.mapping.address + self.offset + offset) as *mut u32)
    }

    /// Reads the register at a byte offset; all ones outside.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        // SAFETY: `at` gives an aligned address inside of a mapping that lasts as long as `self`; device memory holds no Rust object.
        self.at(offset).map_or(u32::MAX, |register| unsafe { register.read_volatile() })
    }

    /// Writes the register at a byte offset; nothing outside.
    pub fn write(&self, offset: u64, value: u32) {
        if let Some(register) = self.at(offset) {
            // SAFETY: as in `read`.
            unsafe { register.write_volatile(value) };
        }
    }
}

/// Memory that the processors share with a device, such as an IOMMU, mapped for as long as this lives. It is named by physical addresses.
#[derive(Debug)]
pub struct Words {
    mapping: vm::Mapping,
    physical: u64,
}

impl Words {
    /// Maps a frame of memory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(frame: Frame) -> Result<Self, Error> {
        let physical = frame.info()?.physical;
        let mapping = vm::map(frame, Rights::READ | Rights::WRITE, 0)?;
        Ok(Self { mapping, physical })
    }

    /// Physical address of the first byte.
    #[must_use]
    pub const fn physical(&self) -> u64 {
        self.physical
    }

    /// Whether an address is in it.
    #[must_use]
    pub const fn holds(&self, address: u64) -> bool {
        address >= self.physical && address - self.physical < self.mapping.length as u64
    }

    fn at(&self, address: u64) -> Option<*mut u64> {
        let inside = address.is_multiple_of(8) && self.holds(address);
        inside.then(|| (self.mapping.address + (address - self.physical)) as *mut u64)
    }

    /// The word at a physical address that is a multiple of 8; 0 outside.
    #[must_use]
    pub fn load(&self, address: u64) -> u64 {
        // SAFETY: `at` gives an aligned address inside of a mapping that lasts as long as `self` and holds no Rust object.
        self.at(address).map_or(0, |word| unsafe { word.read_volatile() })
    }

    /// Stores a word; nothing outside. `flush`: past the caches, for a device that does not look there.
    pub fn store(&self, address: u64, value: u64, flush: bool) {
        if let Some(word) = self.at(address) {
            // SAFETY: as in `load`; the line that is written back is mapped. Stores to registers, which are not cached, come after both.
            unsafe {
                word.write_volatile(value);
                if flush {
                    core::arch::x86_64::_mm_clflush(word.cast());
                }
            }
        }
    }
}
