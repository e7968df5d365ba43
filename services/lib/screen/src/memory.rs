//! Memory that others change at will: bounds-checked copies, no references.

/// Mapped memory that a guest or another process changes meanwhile.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    length: usize,
}

// SAFETY: the memory is there for as long as the value, and every access is a volatile copy of plain bytes.
unsafe impl Send for Memory {}
// SAFETY: as above; racing copies may tear, as what others write meanwhile may.
unsafe impl Sync for Memory {}

impl Memory {
    /// The `length` bytes at `base`.
    ///
    /// # Safety
    /// `base` is aligned to 8 bytes and valid for reads, and for writes if any are made, of `length` bytes as long as the value lives; nobody in this process holds a reference into them.
    #[must_use]
    pub const unsafe fn new(base: *mut u8, length: usize) -> Self {
        Self { base, length }
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// A byte; 0 behind the end.
    #[inline]
    #[must_use]
    pub fn byte(&self, offset: usize) -> u8 {
        if offset >= self.length {
            return 0;
        }
        // SAFETY: inside the memory.
        unsafe { self.base.add(offset).read_volatile() }
    }

    /// Changes a byte; not one behind the end.
    #[inline]
    pub fn set_byte(&self, offset: usize, value: u8) {
        if offset < self.length {
            // SAFETY: inside the memory.
            unsafe { self.base.add(offset).write_volatile(value) }
        }
    }

    /// The 32-bit word number `index`, little-endian; 0 behind the end.
    #[inline]
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        if index >= self.length / 4 {
            return 0;
        }
        // SAFETY: inside the memory, which is aligned.
        u32::from_le(unsafe { self.base.cast::<u32>().add(index).read_volatile() })
    }

    /// Changes a word.
    #[inline]
    pub fn set_word(&self, index: usize, value: u32) {
        if index < self.length / 4 {
            // SAFETY: inside the memory, which is aligned.
            unsafe { self.base.cast::<u32>().add(index).write_volatile(value.to_le()) }
        }
    }

    /// Copies bytes out; what is behind the end reads as 0.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        for (place, byte) in (offset..).zip(bytes) {
            *byte = self.byte(place);
        }
    }

    /// Copies bytes in, as far as they fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (place, byte) in (offset..).zip(bytes) {
            self.set_byte(place, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_reached_behind_the_end(writes in prop::collection::vec((0usize..80, any::<u32>()), 0..50)) {
            let mut whole = [0u64; 9];
            // SAFETY: longer than what is told, and not used otherwise meanwhile.
            let memory = unsafe { Memory::new(whole.as_mut_ptr().cast(), 60) };
            let mut model = [0u8; 60];
            for (place, value) in writes {
                memory.set_byte(place, value as u8);
                if let Some(byte) = model.get_mut(place) { *byte = value as u8 }
                memory.set_word(place / 4, value);
                if let Some(word) = model.get_mut(place / 4 * 4..place / 4 * 4 + 4) { word.copy_from_slice(&value.to_le_bytes()) }
                prop_assert_eq!(memory.byte(place), model.get(place).copied().unwrap_or(0));
            }
            let mut read = [1; 64];
            memory.read(0, &mut read);
            prop_assert_eq!(&read[..60], &model);
            prop_assert_eq!(&read[60..], &[0; 4]);
            prop_assert_eq!(whole[8], 0);
        }
    }
}
