//! Guest-physical RAM as the VMM sees it: bounds-checked copies in and out of the frames that are mapped here and in the guest.
//!
//! The guest runs on other processors while these functions work, so nothing here hands out a reference into guest RAM; every
//! access is a volatile copy and what was read once is never read again to be trusted.
#![allow(unsafe_code)]

use heapless::Vec;

/// Most frames that one guest's RAM may consist of.
pub const MAX_REGIONS: usize = 64;

/// Where flash memory ends: the first instruction stands 16 bytes below (SDM volume 3, 10.1.4).
pub const FLASH_END: u64 = 1 << 32;

/// A stretch of guest RAM and where it is mapped in this process.
#[derive(Clone, Copy, Debug)]
struct Region {
    start: u64,
    length: u64,
    host: *mut u8,
}

/// The whole RAM of one guest.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Region, MAX_REGIONS>,
    end: u64,
    /// Addresses below the end that are no RAM: first, and the one behind.
    hole: (u64, u64),
    /// The last bytes of RAM are seen once more below 4 GiB: that many.
    flash: u64,
    /// What the guest sees it by: pages of 4 KiB, 2 MiB and 1 GiB.
    pages: [u64; 3],
    /// Bytes below those that are RAM and that the guest is told not to use.
    reserved: u64,
}

// SAFETY: the mappings live as long as the process, every access is a volatile copy of plain bytes, and no reference is handed out.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; racing copies may tear, which is what a guest racing with itself sees too.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// A guest without RAM.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            regions: Vec::new(),
            end: 0,
            hole: (0, 0),
            flash: 0,
            pages: [0; 3],
            reserved: 0,
        }
    }

    /// Counts the pages by which the nested page tables map it; `page_size` says for an address how long the page there is, in bytes, and 0 if there is none.
    pub fn count_pages(&mut self, page_size: impl Fn(u64) -> u64) {
        let mut address = 0;
        self.pages = [0; 3];
        while address < self.end {
            let size = page_size(address);
            let kind = match size {
                0x1000 => Some(0),
                0x20_0000 => Some(1),
                0x4000_0000 => Some(2),
                _ => None,
            };
            if let Some(kind) = kind {
                self.pages[kind] += 1;
            }
            address += size.max(0x1000);
        }
    }

    /// Pages of 4 KiB, 2 MiB and 1 GiB by which the nested page tables map it.
    #[must_use]
    pub const fn pages(&self) -> [u64; 3] {
        self.pages
    }

    /// Some addresses, page by page, are no RAM, whatever stands behind them here: a device answers there.
    pub const fn set_hole(&mut self, start: u64, end: u64) {
        self.hole = (start, end);
    }

    /// Whether there is such a hole.
    #[must_use]
    pub const fn has_hole(&self) -> bool {
        self.hole.1 != 0
    }

    /// The last `length` bytes of RAM are the guest's flash memory too: they are seen once more, up to [`FLASH_END`]. No more than there is RAM, and RAM ends below.
    pub fn set_flash(&mut self, length: u64) {
        self.flash = length.min(self.end);
    }

    /// Guest-physical address of the flash memory; [`FLASH_END`] if there is none.
    #[must_use]
    pub const fn flash(&self) -> u64 {
        FLASH_END - self.flash
    }

    /// Whether an address is one of flash memory, which the guest reads like RAM and writes as a device.
    #[must_use]
    pub const fn is_flash(&self, address: u64) -> bool {
        address >= self.flash() && address < FLASH_END
    }

    /// Address in RAM of what is seen as flash memory; the end of RAM if there is none.
    #[must_use]
    pub const fn flash_backing(&self) -> u64 {
        self.end - self.flash
    }

    /// Takes `length` bytes at the end of RAM, below the flash memory, from the guest: the memory map says that they are not to be used, as it does of what a graphics adapter takes for itself. A guest can still write
    /// there, and device models that keep something there trust nothing of it. No more than there is RAM.
    pub fn set_reserved(&mut self, length: u64) {
        self.reserved = length.min(self.flash_backing());
    }

    /// One past the last byte of RAM that the guest may use; what is reserved begins there.
    #[must_use]
    pub const fn usable_end(&self) -> u64 {
        self.flash_backing() - self.reserved
    }

    /// Appends `length` bytes of RAM, at guest-physical address [`Self::end`], that stand at `host` in this process.
    ///
    /// # Errors
    /// When there are already [`MAX_REGIONS`].
    ///
    /// # Safety
    /// `host` must be valid for reads and writes of `length` bytes for as long as this value lives, and nothing in this process may
    /// hold a reference into it.
    pub unsafe fn push(&mut self, host: *mut u8, length: u64) -> Result<(), &'static str> {
        let region = Region {
            start: self.end,
            length,
            host,
        };
        self.regions
            .push(region)
            .map_err(|_| "the guest's RAM consists of too many frames")?;
        self.end += length;
        Ok(())
    }

    /// One past the last guest-physical byte of RAM.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Whether `length` bytes at `address` are all RAM.
    #[must_use]
    pub fn contains(&self, address: u64, length: u64) -> bool {
        let clear = |end| end <= self.hole.0 || address >= self.hole.1;
        address
            .checked_add(length)
            .is_some_and(|end| end <= self.end && clear(end) || address >= self.flash() && end <= FLASH_END)
    }

    /// Where `address` stands here, and how many bytes follow it in the same frame.
    #[inline]
    fn find(&self, address: u64) -> Option<(*mut u8, u64)> {
        let address = if (self.flash()..FLASH_END).contains(&address) {
            address - self.flash() + self.flash_backing()
        } else {
            address
        };
        if (self.hole.0..self.hole.1).contains(&address) {
            return None;
        }
        for region in &self.regions {
            let offset = address.wrapping_sub(region.start);
            if offset < region.length {
                // SAFETY: `offset` lies inside the region, whose whole length is valid by the contract of `push`.
                return Some((unsafe { region.host.add(offset as usize) }, region.length - offset));
            }
        }
        None
    }

    /// Reads `N` bytes; `None` unless all are RAM.
    #[inline]
    #[must_use]
    pub fn read<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read_slice(address, &mut bytes)?;
        Some(bytes)
    }

    /// Reads a little-endian 64-bit word; in one access if it is aligned.
    #[inline]
    #[must_use]
    pub fn read_u64(&self, address: u64) -> Option<u64> {
        if address & 7 == 0 {
            let (host, left) = self.find(address)?;
            if left >= 8 && host.addr() & 7 == 0 {
                // SAFETY: eight bytes are valid at `host`, and it is aligned.
                return Some(u64::from_le(unsafe { host.cast::<u64>().read_volatile() }));
            }
        }
        self.read(address).map(u64::from_le_bytes)
    }

    /// Reads a little-endian 32-bit word; in one access if it is aligned.
    #[inline]
    #[must_use]
    pub fn read_u32(&self, address: u64) -> Option<u32> {
        if address & 3 == 0 {
            let (host, left) = self.find(address)?;
            if left >= 4 && host.addr() & 3 == 0 {
                // SAFETY: four bytes are valid at `host`, and it is aligned.
                return Some(u32::from_le(unsafe { host.cast::<u32>().read_volatile() }));
            }
        }
        self.read(address).map(u32::from_le_bytes)
    }

    /// Writes a little-endian 16-bit word in one access. `None` unless it is aligned and RAM.
    #[must_use]
    pub fn write_u16(&self, address: u64, value: u16) -> Option<()> {
        let (host, left) = self.find(address)?;
        if left < 2 || !address.is_multiple_of(2) || host.addr() & 1 != 0 {
            return None;
        }
        // SAFETY: two bytes are valid at `host`, and it is aligned.
        unsafe { host.cast::<u16>().write_volatile(value.to_le()) };
        Some(())
    }

    /// Writes a little-endian 32-bit word; in one access if it is aligned. `None` unless all of it is RAM.
    #[inline]
    #[must_use]
    pub fn write_u32(&self, address: u64, value: u32) -> Option<()> {
        if address & 3 == 0 {
            let (host, left) = self.find(address)?;
            if left >= 4 && host.addr() & 3 == 0 {
                // SAFETY: four bytes are valid at `host`, and it is aligned.
                unsafe { host.cast::<u32>().write_volatile(value.to_le()) };
                return Some(());
            }
        }
        self.write_slice(address, &value.to_le_bytes())
    }

    /// Copies out of the guest; `None`, with nothing promised about `bytes`, unless all of it is RAM.
    #[must_use]
    pub fn read_slice(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        if !self.contains(address, bytes.len() as u64) {
            return None;
        }
        let mut done = 0;
        while done < bytes.len() {
            let (host, left) = self.find(address + done as u64)?;
            let part = (bytes.len() - done).min(left as usize);
            for i in 0..part {
                // SAFETY: `part` bytes are valid at `host`.
                bytes[done + i] = unsafe { host.add(i).read_volatile() };
            }
            done += part;
        }
        Some(())
    }

    /// Copies into the guest; `None`, with nothing written, unless all of it is RAM.
    #[must_use]
    pub fn write_slice(&self, address: u64, bytes: &[u8]) -> Option<()> {
        if !self.contains(address, bytes.len() as u64) {
            return None;
        }
        let mut done = 0;
        while done < bytes.len() {
            let (host, left) = self.find(address + done as u64)?;
            let part = (bytes.len() - done).min(left as usize);
            write_part(host, &bytes[done..done + part]);
            done += part;
        }
        Some(())
    }

    /// Fills all RAM below `end` with zeros; `None`, with a part written, unless all of it but the hole is RAM.
    #[must_use]
    pub fn clear_below(&self, end: u64) -> Option<()> {
        let (low, high) = (self.hole.0.min(end), self.hole.1.min(end));
        self.clear(0, low)?;
        self.clear(high, end - high)
    }

    /// Fills `length` bytes with zeros; `None`, with nothing written, unless all of it is RAM.
    #[must_use]
    pub fn clear(&self, address: u64, length: u64) -> Option<()> {
        if !self.contains(address, length) {
            return None;
        }
        let zeros = [0; 256];
        let mut done = 0;
        while done < length {
            let part = (length - done).min(zeros.len() as u64);
            self.write_slice(address + done, &zeros[..part as usize])?;
            done += part;
        }
        Some(())
    }
}

/// Copies `bytes` to `host`, word-wise where it is aligned: kernels and RAM disks of many megabytes come through here.
fn write_part(host: *mut u8, bytes: &[u8]) {
    let mut done = 0;
    if host.addr() & 7 == 0 {
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            // SAFETY: the caller found `bytes.len()` valid bytes at `host`, which is aligned to eight.
            unsafe { host.add(done).cast::<u64>().write_volatile(u64::from_ne_bytes(*word)) };
            done += 8;
        }
    }
    for (i, byte) in bytes.iter().enumerate().skip(done) {
        // SAFETY: as above.
        unsafe { host.add(i).write_volatile(*byte) };
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RAM for tests, in as many pieces as asked for; leaked, so that it is valid for as long as anything.
    pub(crate) fn ram(pieces: &[usize]) -> GuestMemory {
        let mut memory = GuestMemory::new();
        for &length in pieces {
            let words = std::vec![0u64; length.div_ceil(8)].leak();
            // SAFETY: leaked, so valid for ever, and the reference is gone.
            unsafe { memory.push(words.as_mut_ptr().cast(), length as u64).unwrap() };
        }
        memory
    }

    #[test]
    fn refuses_what_is_not_ram() {
        let memory = ram(&[4096, 4096]);
        assert_eq!(memory.read_u64(8184), Some(0));
        assert_eq!(memory.read_u64(8185), None);
        assert_eq!(memory.read_u64(u64::MAX - 3), None);
        assert_eq!(memory.read_u32(u64::MAX), None);
        assert!(memory.write_slice(8190, &[1, 2, 3]).is_none());
        assert_eq!(memory.read::<2>(8190), Some([0, 0]), "a refused write must not write a part");
        assert!(memory.clear(4096, 4097).is_none());
    }

    #[test]
    fn pages_are_counted_around_holes() {
        let mut memory = ram(&[0x60_0000]);
        memory.count_pages(|address| match address {
            0..0x3000 => 0x1000,
            0x3000..0x20_0000 => 0,
            _ => 0x20_0000,
        });
        assert_eq!(memory.pages(), [3, 2, 0]);
        memory.count_pages(|_| 0x4000_0000);
        assert_eq!(memory.pages(), [0, 0, 1]);
    }

    #[test]
    fn a_hole_is_no_ram() {
        let mut memory = ram(&[0x4000]);
        memory.set_hole(0x1000, 0x2000);
        assert!(memory.contains(0, 0x1000) && !memory.contains(0xff9, 8) && !memory.contains(0x1ff8, 8) && memory.contains(0x2000, 8));
        assert_eq!(
            (memory.read_u64(0x1000), memory.read_u64(0x1ff8), memory.read_u32(0x1ffc)),
            (None, None, None)
        );
        assert!(memory.write_u32(0x1800, 1).is_none() && memory.write_slice(0xfff, &[1, 1]).is_none());
        memory.write_slice(0xfff, &[1]).unwrap();
        memory.write_slice(0x2000, &[1]).unwrap();
        memory.write_slice(0x3000, &[1]).unwrap();
        memory.clear_below(0x3000).unwrap();
        assert_eq!(
            (memory.read(0xfff), memory.read(0x2000), memory.read(0x3000)),
            (Some([0]), Some([0]), Some([1]))
        );
        assert!(memory.clear_below(0x4001).is_none());
    }

    #[test]
    fn flash_is_the_end_of_ram() {
        let mut memory = ram(&[0x3000, 0x1000]);
        assert!(!memory.contains(FLASH_END - 16, 1));
        memory.set_flash(0x2000);
        assert_eq!((memory.flash(), memory.usable_end(), memory.end()), (0xffff_e000, 0x2000, 0x4000));
        // Over the border of two pieces.
        memory.write_slice(0xffff_effe, &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory.read::<4>(0x2ffe), Some([1, 2, 3, 4]));
        assert!(memory.contains(0xffff_fff0, 16) && !memory.contains(0xffff_fff0, 17) && !memory.contains(0xffff_dfff, 2));
        assert_eq!(memory.read::<2>(0xffff_ffff), None);
        memory.set_reserved(0x1000);
        assert_eq!(
            (memory.flash(), memory.flash_backing(), memory.usable_end()),
            (0xffff_e000, 0x2000, 0x1000)
        );
        assert_eq!(memory.read::<4>(0xffff_effe), Some([1, 2, 3, 4]), "flash memory is where it was");
        memory.set_reserved(0x5000);
        assert_eq!(memory.usable_end(), 0);
    }

    proptest! {
        #[test]
        fn behaves_like_one_array(
            writes in prop::collection::vec((0u64..300, prop::collection::vec(any::<u8>(), 0..40)), 0..30),
        ) {
            let memory = ram(&[64, 8, 128, 56]);
            let mut model = std::vec![0u8; 256];
            for (address, bytes) in writes {
                let fits = address as usize + bytes.len() <= 256;
                prop_assert_eq!(memory.write_slice(address, &bytes).is_some(), fits);
                if fits {
                    model[address as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
            }
            let mut all = std::vec![0; 256];
            memory.read_slice(0, &mut all).unwrap();
            prop_assert_eq!(&all, &model);
            for address in 0..=248u64 {
                let expected = u64::from_le_bytes(model[address as usize..][..8].try_into().unwrap());
                prop_assert_eq!(memory.read_u64(address), Some(expected));
            }
        }
    }
}
