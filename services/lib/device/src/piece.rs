//! Bytes that are mapped here and that somebody else may be changing: a guest, a device. They are never a Rust object, but copied.
#![allow(unsafe_code)]

use core::marker::PhantomData;

/// Some of such bytes, to be read.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    base: *const u8,
    length: usize,
    life: PhantomData<&'a [u8]>,
}

impl<'a> Piece<'a> {
    /// `length` bytes at `base`.
    ///
    /// # Safety
    /// They are mapped for as long as `'a`.
    pub(crate) const unsafe fn new(base: *const u8, length: usize) -> Self {
        Self {
            base,
            length,
            life: PhantomData,
        }
    }

    /// Bytes of this process.
    #[must_use]
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self {
            base: bytes.as_ptr(),
            length: bytes.len(),
            life: PhantomData,
        }
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// A part of it, cut at the end.
    #[must_use]
    pub fn part(&self, offset: usize, length: usize) -> Self {
        let offset = offset.min(self.length);
        Self {
            // Inside, or one past the end.
            base: self.base.wrapping_add(offset),
            length: length.min(self.length - offset),
            life: PhantomData,
        }
    }

    /// Copies the first bytes out, as many as `bytes` takes; answers how many there were.
    pub fn copy_out(&self, bytes: &mut [u8]) -> usize {
        let count = self.length.min(bytes.len());
        // SAFETY: mapped, as `new` was promised, and `bytes` is this process's own. If somebody writes meanwhile, what comes is a mixture, as good as any other content from there.
        unsafe { core::ptr::copy_nonoverlapping(self.base, bytes.as_mut_ptr(), count) };
        count
    }

    /// Copies it to `place`.
    ///
    /// # Safety
    /// As many bytes are mapped there, writable, and hold no Rust object.
    pub(crate) unsafe fn copy_to(&self, place: *mut u8) {
        // SAFETY: as in `copy_out`. `copy` and not `copy_nonoverlapping`: a guest may name the same memory twice.
        unsafe { core::ptr::copy(self.base, place, self.length) };
    }
}
