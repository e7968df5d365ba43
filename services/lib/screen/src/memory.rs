//! Memory that others change at will: bounds-checked copies, no references.

use crate::PIECE_BYTES;

/// Mapped memory that a guest or another process changes meanwhile. Pieces of it may be missing: they read as 0, and what is written there is lost.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    length: usize,
    /// Which pieces are there: a bit each.
    pieces: u32,
    /// Bytes from the first on that are all there: what is drawn is looked at byte by byte, and nearly always before this.
    front: usize,
}

// SAFETY: the memory is there for as long as the value, and every access is a volatile copy of plain bytes.
unsafe impl Send for Memory {}
// SAFETY: as above; racing copies may tear, as what others write meanwhile may.
unsafe impl Sync for Memory {}

impl Memory {
    /// The `length` bytes at `base`, all of them there.
    ///
    /// # Safety
    /// `base` is aligned to 8 bytes and valid for reads, and for writes if any are made, of `length` bytes as long as the value lives; nobody in this process holds a reference into them.
    #[must_use]
    pub const unsafe fn new(base: *mut u8, length: usize) -> Self {
        Self {
            base,
            length,
            pieces: u32::MAX,
            front: length,
        }
    }

    /// The `length` bytes at `base`, at most 32 pieces, of which none is there yet.
    ///
    /// # Safety
    /// As for [`Self::new`], for each piece from [`Self::add`] on.
    #[must_use]
    pub const unsafe fn in_pieces(base: *mut u8, length: usize) -> Self {
        Self {
            base,
            length,
            pieces: 0,
            front: 0,
        }
    }

    /// A piece is there from now on.
    ///
    /// # Safety
    /// Its bytes are valid as [`Self::new`] says.
    pub const unsafe fn add(&mut self, piece: usize) {
        self.pieces |= 1 << piece;
        let front = self.pieces.trailing_ones() as usize * PIECE_BYTES as usize;
        self.front = if front < self.length { front } else { self.length };
    }

    /// Which pieces are there: a bit each.
    #[must_use]
    pub const fn pieces(&self) -> u32 {
        self.pieces
    }

    /// The piece with a byte, which may be missing; `None` behind the end.
    #[must_use]
    pub const fn piece_of(&self, offset: usize) -> Option<usize> {
        if offset < self.length {
            Some(offset / PIECE_BYTES as usize)
        } else {
            None
        }
    }

    /// Whether a byte is in the memory and its piece is there.
    #[inline]
    #[must_use]
    pub const fn is_there(&self, offset: usize) -> bool {
        offset < self.front || self.is_behind(offset)
    }

    /// Whether a byte behind a gap is there.
    #[cold]
    const fn is_behind(&self, offset: usize) -> bool {
        offset < self.length && self.pieces >> ((offset / PIECE_BYTES as usize) & 31) & 1 != 0
    }

    /// Whether a word is there. None is in two pieces.
    #[inline]
    const fn has_word(&self, index: usize) -> bool {
        index < self.front / 4 || index < self.length / 4 && self.is_behind(index * 4)
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// A byte; 0 where there is none.
    #[inline]
    #[must_use]
    pub fn byte(&self, offset: usize) -> u8 {
        if !self.is_there(offset) {
            return 0;
        }
        // SAFETY: inside the memory, in a piece that is there.
        unsafe { self.base.add(offset).read_volatile() }
    }

    /// Changes a byte, if it is there.
    #[inline]
    pub fn set_byte(&self, offset: usize, value: u8) {
        if self.is_there(offset) {
            // SAFETY: inside the memory, in a piece that is there.
            unsafe { self.base.add(offset).write_volatile(value) }
        }
    }

    /// The 32-bit word number `index`, little-endian; 0 where there is none.
    #[inline]
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        if !self.has_word(index) {
            return 0;
        }
        // SAFETY: inside the memory, which is aligned, in a piece that is there.
        u32::from_le(unsafe { self.base.cast::<u32>().add(index).read_volatile() })
    }

    /// Changes a word, if it is there.
    #[inline]
    pub fn set_word(&self, index: usize, value: u32) {
        if self.has_word(index) {
            // SAFETY: as in `word`.
            unsafe { self.base.cast::<u32>().add(index).write_volatile(value.to_le()) }
        }
    }

    /// Copies bytes out; what is not there reads as 0.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        for (place, byte) in (offset..).zip(bytes) {
            *byte = self.byte(place);
        }
    }

    /// Copies bytes in, as far as they are there.
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

    #[test]
    fn a_piece_that_is_not_there_reads_as_zero_and_takes_nothing() {
        const PIECE: usize = PIECE_BYTES as usize;
        let mut whole = std::vec![u64::MAX; 2 * PIECE / 8];
        // SAFETY: as long as what is told, and not used otherwise meanwhile.
        let mut memory = unsafe { Memory::in_pieces(whole.as_mut_ptr().cast(), 2 * PIECE) };
        for _ in 0..2 {
            memory.write(PIECE - 4, &[1; 8]);
            memory.set_word(PIECE / 4 + 1, 7);
            let mut bytes = [9; 8];
            memory.read(PIECE - 4, &mut bytes);
            if memory.pieces() == 0 {
                assert_eq!((bytes, memory.byte(0), memory.word(PIECE / 4 + 1)), ([0; 8], 0, 0));
                // SAFETY: it is part of the vector.
                unsafe { memory.add(1) };
            } else {
                assert_eq!(
                    (bytes, memory.byte(0), memory.word(PIECE / 4 + 1)),
                    ([0, 0, 0, 0, 1, 1, 1, 1], 0, 7)
                );
            }
        }
        assert_eq!((memory.piece_of(PIECE), memory.piece_of(2 * PIECE)), (Some(1), None));
        assert_eq!(whole[PIECE / 8 - 1], u64::MAX, "the first piece is as it was");
    }
}
