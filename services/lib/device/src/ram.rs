//! A guest's RAM: mapped here for its queues and request headers, and known by physical address for devices. The guest changes it at any moment.
#![allow(unsafe_code)]

use crate::memory::{Memory, Segment};
use crate::piece::Piece;
use alloc::vec::Vec;
use core::ptr::NonNull;
use tessera_virtqueue::GuestMemory;

/// A piece of RAM that is contiguous in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamFrame {
    /// Bytes.
    pub length: u64,
    /// Physical address of the first.
    pub physical: u64,
}

/// All of a guest's RAM, from guest-physical address 0 on, mapped in one piece.
#[derive(Debug)]
pub struct Ram {
    base: NonNull<u8>,
    length: u64,
    /// Guest-physical start of each frame, ascending, and the frame.
    frames: Vec<(u64, RamFrame)>,
}

impl Ram {
    /// RAM that consists of these frames, mapped one after the other at `base`.
    ///
    /// # Safety
    /// The frames are mapped there, readable and writable, as long as this lives, and hold no Rust object. `base` is aligned to 8.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, frames: &[RamFrame]) -> Self {
        let mut length = 0;
        let frames = frames
            .iter()
            .map(|frame| {
                let start = length;
                length += frame.length;
                (start, *frame)
            })
            .collect();
        Self { base, length, frames }
    }

    #[inline]
    fn at<T>(&self, address: u64) -> Option<*mut T> {
        let fits = address.is_multiple_of(align_of::<T>() as u64) && self.contains(address, size_of::<T>() as u64);
        // SAFETY: inside of the mapping, by the line above.
        fits.then(|| unsafe { self.base.as_ptr().add(address as usize) }.cast())
    }

    #[inline]
    fn read<T: Copy>(&self, address: u64) -> Option<T> {
        // SAFETY: mapped and aligned; only integers are read, for which any bytes are good. Volatile: the guest writes at the same time, and each read is one access.
        self.at(address).map(|place: *mut T| unsafe { place.read_volatile() })
    }

    #[inline]
    fn write<T>(&self, address: u64, value: T) -> Option<()> {
        // SAFETY: as in `read`.
        self.at(address).map(|place: *mut T| unsafe { place.write_volatile(value) })
    }

    /// Copies bytes out; `None` unless all are RAM. What the guest writes meanwhile may be in the copy in part.
    pub fn copy_out(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        if !self.contains(address, bytes.len() as u64) {
            return None;
        }
        // SAFETY: all of it is mapped, as was just checked; `bytes` is Rust's own memory and does not overlap.
        unsafe { core::ptr::copy_nonoverlapping(self.base.as_ptr().add(address as usize), bytes.as_mut_ptr(), bytes.len()) };
        Some(())
    }

    /// Copies bytes in; `None` unless all are RAM.
    pub fn copy_in(&self, address: u64, bytes: &[u8]) -> Option<()> {
        if !self.contains(address, bytes.len() as u64) {
            return None;
        }
        // SAFETY: as in `copy_out`.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(address as usize), bytes.len()) };
        Some(())
    }

    /// `length` bytes, to be copied elsewhere; `None` unless all are RAM.
    #[inline]
    #[must_use]
    pub fn piece(&self, address: u64, length: u32) -> Option<Piece<'_>> {
        if !self.contains(address, length.into()) {
            return None;
        }
        // SAFETY: inside of the mapping, which lasts as long as this.
        Some(unsafe { Piece::new(self.base.as_ptr().add(address as usize), length as usize) })
    }

    /// Copies bytes in from elsewhere; `None` unless all are RAM.
    #[inline]
    pub fn copy_from(&self, address: u64, piece: Piece<'_>) -> Option<()> {
        if !self.contains(address, piece.length() as u64) {
            return None;
        }
        // SAFETY: inside of the mapping, which holds no Rust object.
        unsafe { piece.copy_to(self.base.as_ptr().add(address as usize)) };
        Some(())
    }

    /// Where `length` bytes lie in physical memory, as segments behind those in `segments`; neighbours are joined. `None` unless all are RAM, or if there would be more than `most`.
    pub fn translate(&self, mut address: u64, length: u32, segments: &mut Vec<Segment>, most: usize) -> Option<()> {
        if !self.contains(address, length.into()) {
            return None;
        }
        let mut left = u64::from(length);
        while left > 0 {
            let place = self.frames.partition_point(|(start, _)| *start <= address).checked_sub(1)?;
            let (start, frame) = self.frames[place];
            let offset = address - start;
            let here = left.min(frame.length - offset);
            let physical = frame.physical + offset;
            let full = segments.len() == most;
            match segments.last_mut() {
                Some(last) if last.physical + u64::from(last.length) == physical && u64::from(last.length) + here <= u32::MAX.into() => {
                    last.length += here as u32;
                }
                _ if full => return None,
                _ => segments.push(Segment {
                    physical,
                    length: here as u32,
                }),
            }
            address += here;
            left -= here;
        }
        Some(())
    }
}

impl Ram {
    /// Where a segment that [`Self::translate`] gave is mapped; `None` for any other.
    fn mapped(&self, segment: Segment) -> Option<*mut u8> {
        let (start, frame) = self
            .frames
            .iter()
            .find(|(_, frame)| segment.physical.wrapping_sub(frame.physical) < frame.length)?;
        let address = start + (segment.physical - frame.physical);
        // SAFETY: inside of the mapping, as asked first.
        self.contains(address, segment.length.into())
            .then(|| unsafe { self.base.as_ptr().add(address as usize) })
    }
}

impl Memory for Ram {
    fn clear(&self, segment: Segment) {
        if let Some(place) = self.mapped(segment) {
            // SAFETY: mapped, and no Rust object. If the guest writes meanwhile, what it gets is a mixture, as with a device.
            unsafe { place.write_bytes(0, segment.length as usize) };
        }
    }

    fn copy_out(&self, segment: Segment, bytes: &mut [u8]) {
        if let Some(place) = self.mapped(segment) {
            // SAFETY: as in `clear`; `bytes` is Rust's own memory and does not overlap.
            unsafe { core::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len().min(segment.length as usize)) };
        }
    }

    fn copy_in(&self, segment: Segment, bytes: &[u8]) {
        if let Some(place) = self.mapped(segment) {
            // SAFETY: as in `copy_out`.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len().min(segment.length as usize)) };
        }
    }
}

impl GuestMemory for Ram {
    #[inline]
    fn contains(&self, address: u64, length: u64) -> bool {
        // Cheaper than asking whether the sum wraps.
        self.length.checked_sub(length).is_some_and(|last| address <= last)
    }
    #[inline]
    fn read_u16(&self, address: u64) -> Option<u16> {
        self.read(address)
    }
    #[inline]
    fn read_u64(&self, address: u64) -> Option<u64> {
        self.read(address)
    }
    #[inline]
    fn read_u64_pair(&self, address: u64) -> Option<(u64, u64)> {
        if !address.is_multiple_of(8) || !self.contains(address, 16) {
            return None;
        }
        // SAFETY: both are mapped and aligned, as was just asked; else as in `read`.
        unsafe {
            let place = self.base.as_ptr().add(address as usize).cast::<u64>();
            Some((place.read_volatile(), place.add(1).read_volatile()))
        }
    }
    #[inline]
    fn write_u16(&self, address: u64, value: u16) -> Option<()> {
        self.write(address, value)
    }
    #[inline]
    fn write_pair(&self, address: u64, first: u32, second: u32) -> Option<()> {
        if !address.is_multiple_of(4) || !self.contains(address, 8) {
            return None;
        }
        // SAFETY: both are mapped and aligned, as was just asked; else as in `write`.
        unsafe {
            let place = self.base.as_ptr().add(address as usize).cast::<u32>();
            place.write_volatile(first);
            place.add(1).write_volatile(second);
        }
        Some(())
    }
}
