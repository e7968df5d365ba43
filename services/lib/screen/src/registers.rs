//! The registers of a VGA (IBM PS/2 Hardware Interface Technical Reference, Video Subsystem) with Bochs's extensions for higher modes, as far as the picture hangs on them.

use crate::Memory;

/// Bytes that they take in the shared page.
pub const LENGTH: usize = 3 + 8 + 32 + 16 + 32 + 768 + 2 * vbe::COUNT;

/// Registers of Bochs's extensions (`VBE_DISPI_INDEX_*`), by number.
pub mod vbe {
    /// Version.
    pub const ID: usize = 0;
    /// Width in pixels.
    pub const WIDTH: usize = 1;
    /// Height in pixels.
    pub const HEIGHT: usize = 2;
    /// Bits of a pixel.
    pub const BITS: usize = 3;
    /// Switches: see the constants below.
    pub const ENABLE: usize = 4;
    /// Which 64 KiB the legacy window shows.
    pub const BANK: usize = 5;
    /// Pixels from one line to the next.
    pub const VIRTUAL_WIDTH: usize = 6;
    /// Lines that the memory holds.
    pub const VIRTUAL_HEIGHT: usize = 7;
    /// First pixel of a line.
    pub const X: usize = 8;
    /// First line.
    pub const Y: usize = 9;
    /// How many there are.
    pub const COUNT: usize = 10;
    /// In [`ENABLE`]: the mode is on.
    pub const ON: u16 = 1;
    /// In [`ENABLE`]: the registers read as the largest values.
    pub const CAPABILITIES: u16 = 2;
    /// In [`ENABLE`]: the palette has 8 bits of each colour.
    pub const EIGHT_BITS: u16 = 0x20;
    /// In [`ENABLE`]: the memory is not cleared.
    pub const KEEP: u16 = 0x80;
    /// Widest picture.
    pub const MOST_WIDTH: u16 = 2560;
    /// Highest picture.
    pub const MOST_HEIGHT: u16 = 1600;
}

/// All that a picture hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Miscellaneous output.
    pub misc: u8,
    /// Mask of palette indices.
    pub mask: u8,
    /// The attribute controller lets the picture through (its index register's bit 5).
    pub lit: bool,
    /// Sequencer.
    pub sequencer: [u8; 8],
    /// Cathode-ray-tube controller.
    pub crtc: [u8; 32],
    /// Graphics controller.
    pub graphics: [u8; 16],
    /// Attribute controller.
    pub attribute: [u8; 32],
    /// Palette: red, green, blue of each of 256 colours, 6 bits each unless [`vbe::EIGHT_BITS`].
    pub dac: [u8; 768],
    /// Bochs's extensions.
    pub vbe: [u16; vbe::COUNT],
}

/// Says which pieces of the video RAM there are, a bit for each, in the shared page behind the registers.
pub fn store_pieces(to: &Memory, pieces: u32) {
    to.write(LENGTH, &pieces.to_le_bytes());
}

/// Which pieces of the video RAM there are, by the word of whoever writes the registers.
#[must_use]
pub fn pieces(from: &Memory) -> u32 {
    let mut bytes = [0; 4];
    from.read(LENGTH, &mut bytes);
    u32::from_le_bytes(bytes)
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            misc: 0,
            mask: 0xff,
            lit: false,
            sequencer: [0; 8],
            crtc: [0; 32],
            graphics: [0; 16],
            attribute: [0; 32],
            dac: [0; 768],
            vbe: [0; vbe::COUNT],
        }
    }
}

/// Where the CRTC's stand among their bytes.
const CRTC: usize = 3 + 8;

impl Registers {
    /// Writes them to where VMX reads them.
    pub fn store(&self, to: &Memory) {
        to.write(0, &self.to_bytes());
    }

    /// Writes one of the CRTC's, which change with each line that a console scrolls and each place of its cursor.
    pub fn store_crtc(&self, to: &Memory, index: usize) {
        if let Some(value) = self.crtc.get(index) {
            to.set_byte(CRTC + index, *value);
        }
    }

    /// Their bytes, as they stand there.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let mut place = 0;
        let mut put = |part: &[u8]| {
            bytes[place..place + part.len()].copy_from_slice(part);
            place += part.len();
        };
        put(&[self.misc, self.mask, self.lit.into()]);
        for part in [&self.sequencer[..], &self.crtc, &self.graphics, &self.attribute, &self.dac] {
            put(part);
        }
        for word in self.vbe {
            put(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads them. What is being written meanwhile may be from two states: look again later.
    #[must_use]
    pub fn load(from: &Memory) -> Self {
        let mut bytes = [0; LENGTH];
        from.read(0, &mut bytes);
        Self::from_bytes(&bytes)
    }

    /// Those with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; LENGTH]) -> Self {
        let mut place = 3;
        let mut take = |part: &mut [u8]| {
            part.copy_from_slice(&bytes[place..place + part.len()]);
            place += part.len();
        };
        let mut registers = Self {
            misc: bytes[0],
            mask: bytes[1],
            lit: bytes[2] & 1 != 0,
            ..Self::default()
        };
        take(&mut registers.sequencer);
        take(&mut registers.crtc);
        take(&mut registers.graphics);
        take(&mut registers.attribute);
        take(&mut registers.dac);
        for word in &mut registers.vbe {
            let mut two = [0; 2];
            take(&mut two);
            *word = u16::from_le_bytes(two);
        }
        registers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stored_is_loaded(bytes in prop::collection::vec(any::<u8>(), LENGTH)) {
            let mut from = [0u64; LENGTH.div_ceil(8)];
            let mut to = from;
            // SAFETY: both are long enough and not used otherwise meanwhile.
            let (from, to) = unsafe { (Memory::new(from.as_mut_ptr().cast(), LENGTH), Memory::new(to.as_mut_ptr().cast(), LENGTH)) };
            from.write(0, &bytes);
            let registers = Registers::load(&from);
            registers.store(&to);
            prop_assert_eq!(&Registers::load(&to), &registers);
            prop_assert_eq!(to.byte(LENGTH - 1), bytes[LENGTH - 1], "the last byte is one of them");
        }
    }

    #[test]
    fn the_pieces_stand_behind_the_registers() {
        let mut words = [0u64; LENGTH.div_ceil(8) + 1];
        // SAFETY: long enough and not used otherwise meanwhile.
        let page = unsafe { Memory::new(words.as_mut_ptr().cast(), size_of_val(&words)) };
        assert_eq!(pieces(&page), 0);
        store_pieces(&page, 0x8000_0005);
        Registers::default().store(&page);
        assert_eq!(pieces(&page), 0x8000_0005);
        assert_eq!(Registers::load(&page), Registers::default());
    }
}
