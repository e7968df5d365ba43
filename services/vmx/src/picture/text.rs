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
    /// Draws `width` pixels of each line from (`x`, `y`) on into `out`, which is inside of the picture.
    pub(super) fn text(&self, video: &Memory, layout: &Layout, [x, y]: [usize; 2], width: usize, out: &mut [u32]) {
        let mut lines = out;
        let mut y = y;
        while !lines.is_empty() {
            let (row, first) = (y / layout.height, y % layout.height);
            let count = (layout.height - first).min(lines.len() / width);
            let (part, rest) = lines.split_at_mut(count * width);
            let mut done = 0;
            while done < width {
                let (column, skip) = ((x + done) / layout.width, (x + done) % layout.width);
                let pixels = (layout.width - skip).min(width - done);
                let cell = Cell::of(self, video, layout, self.cell(column, row));
                for (line, pixels_of_line) in (first..).zip(part.chunks_mut(width)) {
                    cell.line(video, layout, line, skip, &mut pixels_of_line[done..done + pixels]);
                }
                done += pixels;
            }
            (lines, y) = (rest, y + count);
        }
    }
}

/// A character.
struct Cell {
    /// Byte of the video RAM with the first line of its shape.
    shape: usize,
    /// Its colours: background and foreground.
    colours: [u32; 2],
    /// Its ninth column continues the eighth.
    continued: bool,
    /// First and last line of the cursor, if it stands here.
    cursor: Option<(usize, usize)>,
}

impl Cell {
    fn of(picture: &Picture, video: &Memory, layout: &Layout, cell: usize) -> Self {
        let [character, attribute, ..] = video.word(cell).to_le_bytes();
        let back = attribute >> 4 & if layout.bright { 15 } else { 7 };
        Self {
            shape: layout.fonts[usize::from(attribute >> 3 & 1)] + usize::from(character) * 32 * 4,
            colours: [picture.palette[usize::from(back)], picture.palette[usize::from(attribute & 15)]],
            continued: layout.continued && matches!(character, 0xc0..=0xdf),
            cursor: layout.cursor.filter(|(at, ..)| *at == cell).map(|(_, first, last)| (first, last)),
        }
    }

    /// Draws part of a line, from its pixel `skip` on.
    fn line(&self, video: &Memory, layout: &Layout, line: usize, skip: usize, out: &mut [u32]) {
        let mut bits = u16::from(video.byte(self.shape + line * 4)) << 1;
        if self.continued {
            bits |= bits >> 1 & 1;
        }
        if self.cursor.is_some_and(|(first, last)| (first..=last).contains(&line)) {
            bits = 0x1ff;
        }
        if layout.width == 16 {
            for (place, pixel) in (skip..).zip(out) {
                *pixel = self.colours[usize::from(bits >> (8 - place / 2) & 1)];
            }
        } else {
            bits <<= skip;
            for pixel in out {
                *pixel = self.colours[usize::from(bits >> 8 & 1)];
                bits <<= 1;
            }
        }
    }
}
