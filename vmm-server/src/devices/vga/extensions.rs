//! Bochs's extensions for modes beyond the VGA's, as its VBE BIOS and Linux's `bochs` driver use them.

use super::Vga;
use tessera_screen::{VIDEO_BYTES, vbe};

/// Newest version that is known.
const VERSION: u16 = 0xb0c5;
const OLDEST: u16 = 0xb0c0;
/// Register behind the others: 64 KiB of video RAM.
const MEMORY: usize = 10;

impl Vga {
    /// Reads 16 bits at port `1CE` or the one behind it.
    #[must_use]
    pub fn extension_read(&self, port: u16) -> u16 {
        if port == super::EXTENSIONS {
            self.extension_index
        } else {
            self.extension(self.extension_index)
        }
    }

    /// Writes 16 bits there.
    pub fn extension_write(&mut self, port: u16, value: u16) {
        if port == super::EXTENSIONS {
            self.extension_index = value;
        } else {
            self.set_extension(self.extension_index, value);
        }
    }

    /// A register of the extensions.
    pub(super) fn extension(&self, index: u16) -> u16 {
        let index = usize::from(index);
        let asks = self.registers.vbe[vbe::ENABLE] & vbe::CAPABILITIES != 0;
        match index {
            vbe::WIDTH if asks => vbe::MOST_WIDTH,
            vbe::HEIGHT if asks => vbe::MOST_HEIGHT,
            vbe::BITS if asks => 32,
            MEMORY => (VIDEO_BYTES >> 16) as u16,
            _ => self.registers.vbe.get(index).copied().unwrap_or(0),
        }
    }

    pub(super) fn set_extension(&mut self, index: u16, value: u16) {
        let registers = &mut self.registers.vbe;
        match usize::from(index) {
            vbe::ID if (OLDEST..=VERSION).contains(&value) => registers[vbe::ID] = value,
            vbe::WIDTH => registers[vbe::WIDTH] = value.min(vbe::MOST_WIDTH) & !7,
            vbe::HEIGHT => registers[vbe::HEIGHT] = value.min(vbe::MOST_HEIGHT),
            vbe::BITS => {
                registers[vbe::BITS] = match value {
                    4 | 8 | 15 | 16 | 24 | 32 => value,
                    _ => 8,
                }
            }
            vbe::ENABLE => self.enable(value),
            vbe::BANK => registers[vbe::BANK] = value & ((VIDEO_BYTES >> 16) as u16 - 1),
            index @ (vbe::VIRTUAL_WIDTH | vbe::X | vbe::Y) => registers[index] = value,
            _ => return,
        }
        self.fix();
        self.stale = true;
    }

    fn enable(&mut self, value: u16) {
        let registers = &mut self.registers.vbe;
        let was_on = registers[vbe::ENABLE] & vbe::ON != 0;
        registers[vbe::ENABLE] = value & (vbe::ON | vbe::CAPABILITIES | vbe::EIGHT_BITS | vbe::KEEP | 0x40);
        if value & vbe::ON == 0 {
            registers[vbe::BANK] = 0;
        } else if !was_on {
            registers[vbe::VIRTUAL_WIDTH] = 0;
            (registers[vbe::X], registers[vbe::Y]) = (0, 0);
            self.fix();
            if value & vbe::KEEP == 0 {
                // Pieces that are not there are zero as they are.
                let registers = &self.registers.vbe;
                let bytes = line(registers) * usize::from(registers[vbe::HEIGHT]);
                for word in 0..bytes.div_ceil(4) {
                    self.display.video.set_word(word, 0);
                }
            }
        }
    }

    /// Brings what was written into what is possible: nobody should have to think of a line of no pixels, or one behind the memory.
    pub(super) fn fix(&mut self) {
        let registers = &mut self.registers.vbe;
        registers[vbe::WIDTH] = registers[vbe::WIDTH].max(8);
        registers[vbe::HEIGHT] = registers[vbe::HEIGHT].max(1);
        registers[vbe::VIRTUAL_WIDTH] = registers[vbe::VIRTUAL_WIDTH].max(registers[vbe::WIDTH]) & !7;
        let lines = VIDEO_BYTES as usize / line(registers);
        registers[vbe::HEIGHT] = registers[vbe::HEIGHT].min(lines.try_into().unwrap_or(u16::MAX));
        registers[vbe::VIRTUAL_HEIGHT] = lines.try_into().unwrap_or(u16::MAX);
    }
}

/// Bytes of a line, never 0.
fn line(registers: &[u16; vbe::COUNT]) -> usize {
    let width = usize::from(registers[vbe::VIRTUAL_WIDTH]).max(8);
    match registers[vbe::BITS] {
        4 => width / 2,
        bits => width * usize::from(bits).div_ceil(8).max(1),
    }
}
