//! The legacy window at A0000: four planes of 64 KiB behind latches, logic and masks (IBM VGA, Graphics Controller). In video RAM the planes stand byte beside byte, a word for each address.

use super::Vga;
use tessera_screen::vbe;

/// Sequencer memory mode: addresses go through all planes in turn.
const CHAIN_FOUR: u8 = 8;
/// Graphics mode: even addresses are plane 0 or 2, odd ones 1 or 3.
const ODD_EVEN: u8 = 0x10;

/// Each of the low four bits becomes a byte of ones.
const fn spread(bits: u8) -> u32 {
    let mut word = 0;
    let mut plane = 0;
    while plane < 4 {
        if bits >> plane & 1 != 0 {
            word |= 0xff << (8 * plane);
        }
        plane += 1;
    }
    word
}

/// A byte in each plane.
const fn repeat(byte: u8) -> u32 {
    byte as u32 * 0x0101_0101
}

impl Vga {
    /// Where an offset in the window leads, if the card answers there.
    fn window(&self, offset: u32) -> Option<usize> {
        let offset = offset as usize;
        let place = match self.registers.graphics[6] >> 2 & 3 {
            0 => offset,
            1 => {
                let bank = usize::from(self.registers.vbe[vbe::BANK]) << 16;
                return (offset < 0x1_0000).then_some(offset + bank);
            }
            2 => return (0x1_0000..0x1_8000).contains(&offset).then(|| offset - 0x1_0000),
            _ => return (0x1_8000..0x2_0000).contains(&offset).then(|| offset - 0x1_8000),
        };
        Some(place)
    }

    /// In a mode of the extensions with whole bytes for pixels, the window shows them as they are.
    fn is_linear(&self) -> bool {
        let registers = &self.registers.vbe;
        self.registers.sequencer[4] & CHAIN_FOUR != 0 || registers[vbe::ENABLE] & vbe::ON != 0 && registers[vbe::BITS] != 4
    }

    /// Reads a byte at an offset in the window.
    pub fn window_read(&mut self, offset: u32) -> u8 {
        let Some(place) = self.window(offset) else { return 0xff };
        let graphics = self.registers.graphics;
        if self.is_linear() {
            return self.display.video.byte(place);
        }
        if graphics[5] & ODD_EVEN != 0 {
            let plane = usize::from(graphics[4] & 2) | place & 1;
            return self.display.video.byte((place & !1) << 1 | plane);
        }
        self.latch = self.display.video.word(place);
        if graphics[5] & 8 == 0 {
            return self.latch.to_le_bytes()[usize::from(graphics[4] & 3)];
        }
        let differs = ((self.latch ^ spread(graphics[2])) & spread(graphics[7])).to_le_bytes();
        !differs.iter().fold(0, |all, plane| all | plane)
    }

    /// Writes a byte there.
    pub fn window_write(&mut self, offset: u32, value: u8) {
        let Some(place) = self.window(offset) else { return };
        let (graphics, planes) = (self.registers.graphics, self.registers.sequencer[2]);
        if self.is_linear() {
            if planes >> (place & 3) & 1 != 0 || self.registers.vbe[vbe::ENABLE] & vbe::ON != 0 {
                self.want(place);
                self.display.video.set_byte(place, value);
            }
            return;
        }
        if graphics[5] & ODD_EVEN != 0 {
            let plane = usize::from(graphics[4] & 2) | place & 1;
            if planes >> plane & 1 != 0 {
                let place = (place & !1) << 1 | plane;
                self.want(place);
                self.display.video.set_byte(place, value);
            }
            return;
        }
        let rotated = value.rotate_right(u32::from(graphics[3] & 7));
        let (mut word, bits) = match graphics[5] & 3 {
            0 => {
                let set = spread(graphics[1]);
                (repeat(rotated) & !set | spread(graphics[0]) & set, graphics[8])
            }
            1 => (self.latch, 0xff),
            2 => (spread(value & 15), graphics[8]),
            _ => (spread(graphics[0]), graphics[8] & rotated),
        };
        if graphics[5] & 3 != 1 {
            word = match graphics[3] >> 3 & 3 {
                0 => word,
                1 => word & self.latch,
                2 => word | self.latch,
                _ => word ^ self.latch,
            };
            let bits = repeat(bits);
            word = word & bits | self.latch & !bits;
        }
        let mask = spread(planes);
        self.want(place * 4);
        let old = self.display.video.word(place);
        self.display.video.set_word(place, old & !mask | word & mask);
    }
}
