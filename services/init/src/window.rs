//! The only place where init touches memory by address: what the kernel says at boot, and windows onto frames.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use tessera_abi::boot::BootInfo;
use tessera_abi::object::Rights;
use tessera_abi::{Error, PAGE_SIZE, layout};
use tessera_rt::{CNode, Frame, slots, vm};

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
