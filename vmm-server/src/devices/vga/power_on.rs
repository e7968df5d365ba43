//! What a VGA's own firmware leaves behind: 80 by 25 characters of 9 by 16 pixels (mode 3), the palette, a font, an empty screen.

use font8x8::legacy::{BASIC_LEGACY, BLOCK_LEGACY, BOX_LEGACY};
use tessera_screen::{Memory, Registers};

const CRTC: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
];
const GRAPHICS: [u8; 9] = [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff];
const ATTRIBUTE: [u8; 21] = [
    0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f, 0x08, 0,
];
/// Words of the text page that is filled.
const CELLS: usize = 0x2000;
/// Words of the four planes.
const PLANES: usize = 0x1_0000;
/// A blank, grey on black.
const BLANK: u32 = 0x0720;
/// Line drawing characters B0 to DF of code page 437, as Unicode has them from 2500 and 2580 on.
const DRAWING: [u8; 48] = [
    0x91, 0x92, 0x93, 0x02, 0x24, 0x61, 0x62, 0x56, 0x55, 0x63, 0x51, 0x57, 0x5d, 0x5c, 0x5b, 0x10, //
    0x14, 0x34, 0x2c, 0x1c, 0x00, 0x3c, 0x5e, 0x5f, 0x5a, 0x54, 0x69, 0x66, 0x60, 0x50, 0x6c, 0x67, //
    0x68, 0x64, 0x65, 0x59, 0x58, 0x52, 0x53, 0x6b, 0x6a, 0x18, 0x0c, 0x88, 0x84, 0x8c, 0x90, 0x80,
];

/// The registers.
pub fn registers() -> Registers {
    let mut registers = Registers {
        misc: 0x67,
        lit: true,
        ..Registers::default()
    };
    registers.sequencer[..5].copy_from_slice(&[3, 0, 3, 0, 2]);
    registers.crtc[..CRTC.len()].copy_from_slice(&CRTC);
    registers.graphics[..GRAPHICS.len()].copy_from_slice(&GRAPHICS);
    registers.attribute[..ATTRIBUTE.len()].copy_from_slice(&ATTRIBUTE);
    for (number, entry) in (0u8..64).zip(registers.dac.chunks_exact_mut(3)) {
        // The bits of an EGA's colour: two thirds and one third of blue, green, red.
        let part = |bit: u8| (number >> bit & 1) * 0x2a + (number >> (bit + 3) & 1) * 0x15;
        entry.copy_from_slice(&[part(2), part(1), part(0)]);
    }
    registers.vbe[0] = 0xb0c5;
    registers
}

fn glyph(character: u8) -> [u8; 8] {
    match character {
        0..0x80 => BASIC_LEGACY[usize::from(character)],
        0xb0..0xe0 => match DRAWING[usize::from(character - 0xb0)] {
            line @ 0..0x80 => BOX_LEGACY[usize::from(line)],
            block => BLOCK_LEGACY[usize::from(block & 0x1f)],
        },
        _ => [0; 8],
    }
}

/// Fills the planes: blanks, and the font in plane 2. What is behind them is cleared by whoever shows it.
pub fn fill(video: &Memory) {
    for place in 0..PLANES {
        video.set_word(place, if place < CELLS { BLANK } else { 0 });
    }
    for character in 0..=255 {
        let start = usize::from(character) * 32;
        for (row, line) in glyph(character).into_iter().enumerate() {
            // The font has 8 lines and its leftmost pixel in the lowest bit.
            for half in 0..2 {
                let place = (start + row * 2 + half) * 4 + 2;
                video.set_byte(place, line.reverse_bits());
            }
        }
    }
}
