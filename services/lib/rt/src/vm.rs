//! The server's address space: mapping frames at fresh addresses.

use crate::{AddressSpace, Frame, lock::Mutex, regions::Regions};
use tessera_abi::object::Rights;
use tessera_abi::{Error, LARGE_PAGE_SIZE, PAGE_SIZE, layout};

static REGIONS: Mutex<Option<Regions>> = Mutex::new(None);

/// One past the last address that the runtime hands out: 64 GiB from the base are more than any server maps.
const END: u64 = layout::DYNAMIC_BASE + (64 << 30);

/// A mapped frame.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// The frame.
    pub frame: Frame,
    /// Where it stands.
    pub address: u64,
    /// Bytes.
    pub length: usize,
}

impl Mapping {
    /// The first byte. It stays valid until [`Mapping::unmap`].
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.address as *mut u8
    }

    /// Takes the mapping back and frees its addresses. Nothing may point there any more.
    pub fn unmap(self) {
        // It fails only if the frame was deleted meanwhile, and then nothing is mapped either.
        let _ = self.frame.unmap();
        give(self.address, self.length as u64);
    }
}

/// Takes addresses for `length` bytes, a multiple of the page size, with an unmapped page on both sides. `align` is a power of two.
///
/// # Errors
/// [`Error::NoMemory`] when none are left.
pub fn take(length: u64, align: u64) -> Result<u64, Error> {
    let mut regions = REGIONS.lock();
    let regions = regions.get_or_insert_with(|| Regions::new(layout::DYNAMIC_BASE, END));
    regions.take(length, align).ok_or(Error::NoMemory)
}

/// Gives addresses back that [`take`] returned.
pub fn give(address: u64, length: u64) {
    if let Some(regions) = REGIONS.lock().as_mut() {
        regions.give(address, length);
    }
}

/// Maps a frame at a fresh address, with large pages if it is large. `flags` are those of [`tessera_abi::object::frame`].
///
/// # Errors
/// The kernel's: no right, already mapped, no page tables left.
pub fn map(frame: Frame, rights: Rights, flags: u64) -> Result<Mapping, Error> {
    let pages = frame.info()?.pages;
    let length = pages.checked_mul(PAGE_SIZE as u64).ok_or(Error::BadArgument)?;
    let align = if length >= LARGE_PAGE_SIZE as u64 {
        LARGE_PAGE_SIZE
    } else {
        PAGE_SIZE
    } as u64;
    let address = take(length, align)?;
    match frame.map(AddressSpace::OWN, address, rights, flags) {
        Ok(()) => Ok(Mapping {
            frame,
            address,
            length: length as usize,
        }),
        Err(error) => {
            give(address, length);
            Err(error)
        }
    }
}

/// Maps a frame somebody else made at an address that was taken for it ([`take`]), with large pages if it is large.
///
/// # Errors
/// `BadArgument`: the frame is not `length` bytes long. Otherwise the kernel's, as of [`map`].
pub fn map_at(frame: Frame, address: u64, length: u64, rights: Rights) -> Result<(), Error> {
    if frame.info()?.pages.checked_mul(PAGE_SIZE as u64) != Some(length) {
        return Err(Error::BadArgument);
    }
    frame.map(AddressSpace::OWN, address, rights, 0)
}
