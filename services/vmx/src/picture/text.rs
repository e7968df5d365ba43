//! Text modes, with the font that the guest loaded into plane 2.

use super::{MOST_HEIGHT, MOST_WIDTH, Picture};
use tessera_screen::{Memory, Registers};

/// How text is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub columns: usize,
    pub rows: usize,
    /// Pixels of a character: 8, 9 or 16 wide.
    width: usize,
    height: usize,
    /// First byte of the fonts for characters whose attribute has bit 3 clear and set.
    fonts: [usize; 2],
    /// Cell with the cursor, and its first and last line.
    cursor: Option<(usize, usize, usize)>,
    /// The ninth column of line drawing characters continues the eighth.
    continued: bool,
    /// Attribute bit 7 is a background colour rather than blinking.
    bright: bool,
}

impl Layout {
    pub fn of(registers: &Registers, lines: usize) -> Self {
        let (crtc, sequencer, attribute) = (&registers.crtc, &registers.sequencer, &registers.attribute);
        let width = if sequencer[1] & 8 != 0 {
            16
        } else {
            9 - usize::from(sequencer[1] & 1)
        };
        let height = usize::from(crtc[9] & 0x1f) + 1;
        let map = sequencer[3];
        let font = |bits: u8| usize::from(bits) * 8192 * 4 + 2;
        let cursor = usize::from(crtc[0x0e]) << 8 | usize::from(crtc[0x0f]);
        let (first, last) = (usize::from(crtc[0x0a] & 0x1f), usize::from(crtc[0x0b] & 0x1f));
        Self {
            columns: (usize::from(crtc[1]) + 1).min(MOST_WIDTH / width),
            rows: (lines / height).clamp(1, MOST_HEIGHT / height),
            width,
            height,
            fonts: [font(map >> 4 & 1 | map << 1 & 6), font(map >> 5 & 1 | map >> 1 & 6)],
            cursor: (crtc[0x0a] & 0x20 == 0 && first <= last).then_some((cursor, first, last)),
            continued: attribute[0x10] & 4 != 0,
            bright: attribute[0x10] & 8 == 0,
        }
    }

    pub const fn size(&self) -> (usize, usize) {
        (self.columns * self.width, self.rows * self.height)
    }
}

impl Picture {
    /// Draws part of a line.
    pub(super) fn text_line(&self, video: &Memory, layout: &Layout, x: usize, y: usize, out: &mut [u32]) {
        let (row, line) = (y / layout.height, y % layout.height);
        let mut done = 0;
        while done < out.len() {
            let (column, first) = ((x + done) / layout.width, (x + done) % layout.width);
            let cell = self.cell(column, row);
            let [character, attribute, ..] = video.word(cell).to_le_bytes();
            let font = layout.fonts[usize::from(attribute >> 3 & 1)];
            let mut bits = u16::from(video.byte(font + (usize::from(character) * 32 + line) * 4)) << 1;
            if layout.continued && matches!(character, 0xc0..=0xdf) {
                bits |= bits >> 1 & 1;
            }
            if layout
                .cursor
                .is_some_and(|(at, first, last)| at == cell && (first..=last).contains(&line))
            {
                bits = 0x1ff;
            }
            let back = attribute >> 4 & if layout.bright { 15 } else { 7 };
            let colours = [self.palette[usize::from(back)], self.palette[usize::from(attribute & 15)]];
            let count = (layout.width - first).min(out.len() - done);
            for (place, pixel) in (first..).zip(&mut out[done..done + count]) {
                let place = if layout.width == 16 { place / 2 } else { place };
                *pixel = colours[usize::from(bits >> (8 - place) & 1)];
            }
            done += count;
        }
    }
}
