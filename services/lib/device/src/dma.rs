//! Memory that a device reads and writes by itself. It is never a Rust object: the device may change it at any moment, so it is copied in and out.
#![allow(unsafe_code)]

use crate::piece::Piece;
use core::ptr::NonNull;

/// Numbers that can stand in such memory.
pub trait Plain: Copy + Default + sealed::Sealed {}

mod sealed {
    /// Any bytes are a valid value, and the type has no padding.
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

impl<T: sealed::Sealed + Copy + Default> Plain for T {}

/// A contiguous piece of such memory. It lives as long as the server: a device may remember its address until it is reset. Copies name the same memory.
#[derive(Clone, Debug)]
pub struct DmaBuffer {
    base: NonNull<u8>,
    physical: u64,
    length: usize,
}

impl DmaBuffer {
    /// Memory at `base`, to which devices refer by the address `physical`.
    ///
    /// # Safety
    /// `length` bytes are mapped readable and writable there for as long as the process lives, aligned to 8, and hold no Rust object.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, physical: u64, length: usize) -> Self {
        Self { base, physical, length }
    }

    /// Zeroed memory of this process, for tests; its physical address is where it is. It is never freed.
    #[must_use]
    pub fn of_this_process(length: usize) -> Self {
        let pages = alloc::boxed::Box::leak(alloc::vec![Page([0; 4096]); length.div_ceil(4096).max(1)].into_boxed_slice());
        let base = NonNull::from(&mut pages[0]).cast::<u8>();
        Self {
            base,
            physical: base.as_ptr() as u64,
            length,
        }
    }

    /// The same memory under another physical address, for tests.
    #[must_use]
    pub fn said_to_be_at(self, physical: u64) -> Self {
        Self { physical, ..self }
    }

    /// Address of the first byte as devices know it.
    #[must_use]
    pub const fn physical(&self) -> u64 {
        self.physical
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let inside = offset.is_multiple_of(align_of::<T>()) && offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.length);
        // SAFETY: inside of the memory, by the line above.
        inside.then(|| unsafe { self.base.as_ptr().add(offset) }.cast())
    }

    /// The number at an aligned offset; 0 outside.
    #[must_use]
    pub fn read<T: Plain>(&self, offset: usize) -> T {
        // SAFETY: `at` gives an aligned address in memory that is mapped and holds nothing but bytes; any bytes are a T.
        self.at::<T>(offset)
            .map_or_else(T::default, |place| unsafe { place.read_volatile() })
    }

    /// Stores a number at an aligned offset; nothing outside.
    pub fn write<T: Plain>(&self, offset: usize, value: T) {
        if let Some(place) = self.at::<T>(offset) {
            // SAFETY: as in `read`.
            unsafe { place.write_volatile(value) };
        }
    }

    /// Stores numbers one after the other from an aligned offset on; nothing unless all are inside.
    #[inline]
    pub fn write_all<T: Plain, const N: usize>(&self, offset: usize, values: [T; N]) {
        let first = self.at::<T>(offset).filter(|_| N * size_of::<T>() <= self.length - offset);
        let Some(first) = first else { return };
        for (index, value) in values.into_iter().enumerate() {
            // SAFETY: as in `read`, and all of them are inside, by the lines above.
            unsafe { first.add(index).write_volatile(value) };
        }
    }

    /// Copies bytes out; those outside are zeros.
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let inside = self.length.saturating_sub(offset).min(bytes.len());
        let (bytes, outside) = bytes.split_at_mut(inside);
        outside.fill(0);
        if !bytes.is_empty() {
            // SAFETY: `inside` bytes from `offset` on are mapped; `bytes` is Rust's own memory and does not overlap. A device that writes meanwhile makes the copy a mixture
            // of bytes, which is as good as any other content from it.
            unsafe { core::ptr::copy_nonoverlapping(self.base.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len()) };
        }
    }

    /// Copies bytes in; those outside are dropped.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let inside = self.length.saturating_sub(offset).min(bytes.len());
        if inside > 0 {
            // SAFETY: as in `copy_out`.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), inside) };
        }
    }

    /// Copies bytes in from elsewhere; those outside are dropped.
    pub fn copy_from(&self, offset: usize, piece: Piece<'_>) {
        let piece = piece.part(0, self.length.saturating_sub(offset));
        if piece.length() > 0 {
            // SAFETY: all of it is inside, as was just made sure of; the memory holds no Rust object.
            unsafe { piece.copy_to(self.base.as_ptr().add(offset)) };
        }
    }

    /// Sets bytes to 0.
    pub fn clear(&self, offset: usize, length: usize) {
        let inside = self.length.saturating_sub(offset).min(length);
        if inside > 0 {
            // SAFETY: as in `copy_out`.
            unsafe { core::ptr::write_bytes(self.base.as_ptr().add(offset), 0, inside) };
        }
    }

    /// Some of the bytes, to be copied elsewhere; cut at the end.
    #[must_use]
    pub fn piece(&self, offset: usize, length: usize) -> Piece<'_> {
        let offset = offset.min(self.length);
        // SAFETY: inside of the memory, which stays mapped.
        unsafe { Piece::new(self.base.as_ptr().add(offset), length.min(self.length - offset)) }
    }

    /// A part of it, cut at the end.
    #[must_use]
    pub fn part(&self, offset: usize, length: usize) -> Self {
        let offset = offset.min(self.length);
        Self {
            // SAFETY: inside of the memory or one past its end.
            base: unsafe { self.base.add(offset) },
            physical: self.physical + offset as u64,
            length: length.min(self.length - offset),
        }
    }
}

#[derive(Clone)]
#[repr(align(4096))]
struct Page(#[allow(dead_code)] [u8; 4096]);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_outside_is_touched(offset in 0usize..9000, value: u64, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let whole = DmaBuffer::of_this_process(8192);
            let buffer = whole.part(0, 4096);
            buffer.write(offset, value);
            let fits = offset % 8 == 0 && offset + 8 <= 4096;
            prop_assert_eq!(buffer.read::<u64>(offset), if fits { value } else { 0 });
            buffer.clear(0, 4096);
            buffer.write_all(offset, [value, !value]);
            let fits = offset % 8 == 0 && offset + 16 <= 4096;
            prop_assert_eq!((buffer.read(offset), buffer.read(offset + 8)), if fits { (value, !value) } else { (0u64, 0u64) });
            buffer.copy_in(offset, &bytes);
            let mut back = vec![0xff; bytes.len()];
            buffer.copy_out(offset, &mut back);
            for (place, (one, other)) in (offset..).zip(back.iter().zip(&bytes)) {
                prop_assert_eq!(*one, if place < 4096 { *other } else { 0 });
            }
            buffer.clear(0, 4096);
            buffer.copy_from(offset, Piece::of(&bytes));
            let mut again = vec![0xff; bytes.len()];
            buffer.copy_out(offset, &mut again);
            prop_assert_eq!(again, back);
            let mut behind = [1; 4096];
            whole.copy_out(4096, &mut behind);
            prop_assert!(behind.iter().all(|byte| *byte == 0));
        }
    }
}
