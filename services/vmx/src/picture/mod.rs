//! What the registers of the graphics card and the video RAM mean as a picture. Both are hostile: whatever stands there, a picture has a size within bounds, and what would lie behind the memory is black.

mod pixels;
mod text;

use alloc::{format, string::String};
use tessera_screen::{Memory, Registers, vbe};

/// Widest picture in pixels.
pub const MOST_WIDTH: usize = vbe::MOST_WIDTH as usize;
/// Highest.
pub const MOST_HEIGHT: usize = vbe::MOST_HEIGHT as usize;
/// Size of a dark screen.
const DARK: (usize, usize) = (720, 400);

/// How pixels stand in the video RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing is shown.
    Dark,
    /// Characters.
    Text(text::Layout),
    /// One bit of a pixel in each plane.
    Planes,
    /// Two bits of a pixel beside each other in two planes, as the CGA had them.
    Pairs,
    /// A byte for each pixel, an index in the palette.
    Bytes,
    /// Colours in 15, 16, 24 or 32 bits.
    Direct(u8),
}

/// A picture that can be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    kind: Kind,
    /// First byte of the first line, and bytes from one line to the next.
    start: usize,
    stride: usize,
    /// So many lines of the screen show one of the memory.
    repeat: usize,
    /// Each pixel is shown twice.
    wide: bool,
    /// The line behind which the memory's start is shown.
    split: usize,
    /// Lines alternate between two halves of the memory (CRTC mode control, bit 0 clear).
    banked: bool,
    /// Colours, red in bits 16 to 23.
    palette: [u32; 256],
}

impl Picture {
    /// The picture that registers mean.
    #[must_use]
    pub fn of(registers: &Registers) -> Self {
        let crtc = &registers.crtc;
        let lines = 1 + usize::from(crtc[0x12]) + (usize::from(crtc[7] & 2) << 7) + (usize::from(crtc[7] & 0x40) << 3);
        let split = usize::from(crtc[0x18]) + (usize::from(crtc[7] & 0x10) << 4) + (usize::from(crtc[9] & 0x40) << 3);
        let mut picture = Self {
            width: DARK.0,
            height: DARK.1,
            kind: Kind::Dark,
            start: (usize::from(crtc[0x0c]) << 8 | usize::from(crtc[0x0d])) * 4,
            stride: usize::from(crtc[0x13]) * 8,
            repeat: 1,
            wide: false,
            split,
            banked: false,
            palette: palette(registers),
        };
        if registers.vbe[vbe::ENABLE] & vbe::ON != 0 {
            picture.extended(registers);
        } else if registers.lit && registers.graphics[6] & 1 == 0 {
            let layout = text::Layout::of(registers, lines);
            (picture.width, picture.height) = layout.size();
            picture.kind = Kind::Text(layout);
            picture.palette = indexed(registers, &picture.palette);
        } else if registers.lit {
            picture.graphics(registers, lines);
        }
        picture.width = picture.width.clamp(8, MOST_WIDTH);
        picture.height = picture.height.clamp(1, MOST_HEIGHT);
        picture
    }

    fn graphics(&mut self, registers: &Registers, lines: usize) {
        let crtc = &registers.crtc;
        self.width = (usize::from(crtc[1]) + 1) * 8;
        self.height = lines;
        let double = usize::from(crtc[9] >> 7);
        self.repeat = (usize::from(crtc[9] & 0x1f) + 1) << double;
        self.kind = match registers.graphics[5] >> 5 & 3 {
            0 => Kind::Planes,
            1 => Kind::Pairs,
            _ => Kind::Bytes,
        };
        self.wide = self.kind == Kind::Bytes || registers.sequencer[1] & 8 != 0;
        if self.kind == Kind::Pairs {
            self.banked = crtc[0x17] & 1 == 0;
            self.repeat = 1 << double;
        }
        if self.wide && self.kind != Kind::Bytes {
            self.width *= 2;
        }
        if self.kind != Kind::Bytes {
            self.palette = indexed(registers, &self.palette);
        }
    }

    fn extended(&mut self, registers: &Registers) {
        let [width, height, bits, line, x, y] =
            [vbe::WIDTH, vbe::HEIGHT, vbe::BITS, vbe::VIRTUAL_WIDTH, vbe::X, vbe::Y].map(|index| usize::from(registers.vbe[index]));
        (self.width, self.height, self.split) = (width, height, usize::MAX);
        let line = line.max(width);
        let (kind, bytes) = match bits {
            4 => (Kind::Planes, 0),
            8 => (Kind::Bytes, 1),
            15 | 16 => (Kind::Direct(bits as u8), 2),
            24 => (Kind::Direct(24), 3),
            32 => (Kind::Direct(32), 4),
            _ => return,
        };
        self.kind = kind;
        if bytes == 0 {
            self.stride = line / 2;
            self.start = y * self.stride + x / 8 * 4;
            self.palette = indexed(registers, &self.palette);
        } else {
            self.stride = line * bytes;
            self.start = y * self.stride + x * bytes;
        }
    }

    /// Width and height in pixels.
    #[must_use]
    pub const fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// What it is, for people.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Dark => "dark".into(),
            Kind::Text(layout) => format!("text {}x{}", layout.columns, layout.rows),
            Kind::Planes => "16 colours".into(),
            Kind::Pairs => "4 colours".into(),
            Kind::Bytes => "256 colours".into(),
            Kind::Direct(bits) => format!("{bits} bits"),
        }
    }

    /// Columns and rows of text, if it is text.
    #[must_use]
    pub const fn text_size(&self) -> Option<(usize, usize)> {
        match self.kind {
            Kind::Text(layout) => Some((layout.columns, layout.rows)),
            _ => None,
        }
    }

    /// A row of text, without what is blank at its end.
    #[must_use]
    pub fn text_row(&self, video: &Memory, row: usize) -> Option<String> {
        let Kind::Text(layout) = self.kind else { return None };
        (row < layout.rows).then(|| {
            let cells = (0..layout.columns).map(|column| {
                let character = video.word(self.cell(column, row)) as u8;
                if matches!(character, 0x20..0x7f) {
                    char::from(character)
                } else if matches!(character, 0 | 0xff) {
                    ' '
                } else {
                    '?'
                }
            });
            let text: String = cells.collect();
            text.trim_end().into()
        })
    }

    /// Word of the video RAM with a character and its attribute.
    const fn cell(&self, column: usize, row: usize) -> usize {
        (self.start + row * self.stride) / 4 + column
    }

    /// First byte of a line of the screen.
    const fn line(&self, y: usize) -> usize {
        let (start, y) = if y > self.split { (0, y - self.split - 1) } else { (self.start, y) };
        let line = y / self.repeat;
        if self.banked {
            // Each half is 8 KiB of addresses, and an address is a word of the planes.
            return start + line / 2 * self.stride + (line & 1) * 0x2000 * 4;
        }
        start + line * self.stride
    }

    /// A number made of all pixels.
    #[must_use]
    pub fn hash(&self, video: &Memory) -> u64 {
        let mut line = [0; MOST_WIDTH];
        let line = &mut line[..self.width];
        (0..self.height).fold(0, |hash, y| {
            self.draw(video, 0, y, self.width, line);
            (hash ^ fingerprint(line)).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(23)
        })
    }

    /// Draws `width` pixels of each line from (`x`, `y`) on into `out`, line by line, as many as fit. What is outside of the picture is black.
    pub fn draw(&self, video: &Memory, x: usize, y: usize, width: usize, out: &mut [u32]) {
        if width == 0 {
            return;
        }
        if let Kind::Text(layout) = self.kind
            && x + width <= self.width
            && y + out.len().div_ceil(width) <= self.height
            && out.len().is_multiple_of(width)
        {
            return self.text(video, &layout, [x, y], width, out);
        }
        for (y, line) in (y..).zip(out.chunks_mut(width)) {
            let inside = self.width.saturating_sub(x).min(line.len());
            let (line, outside) = line.split_at_mut(if y < self.height { inside } else { 0 });
            outside.fill(0);
            match self.kind {
                Kind::Dark => line.fill(0),
                Kind::Text(_) if line.is_empty() => {}
                Kind::Text(layout) => self.text(video, &layout, [x, y], line.len(), line),
                _ => self.pixel_line(video, x, y, line),
            }
        }
    }
}

/// A number for the pixels; equal ones nearly certainly have the same pixels, and never 0.
pub fn fingerprint(pixels: &[u32]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash ^ hash >> 32
    };
    let (pairs, rest) = pixels.as_chunks::<2>();
    let hash = pairs.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, &[first, second]| {
        mix(hash, u64::from(first) << 32 | u64::from(second))
    });
    rest.iter().fold(hash, |hash, &pixel| mix(hash, pixel.into())) | 1
}

/// The palette as colours.
fn palette(registers: &Registers) -> [u32; 256] {
    let eight = registers.vbe[vbe::ENABLE] & vbe::EIGHT_BITS != 0;
    let mut palette = [0; 256];
    for (index, colour) in palette.iter_mut().enumerate() {
        let place = usize::from(index as u8 & registers.mask) * 3;
        let part = |offset: usize| {
            let value = u32::from(registers.dac[place + offset]);
            if eight { value } else { (value & 63) << 2 | (value & 63) >> 4 }
        };
        *colour = part(0) << 16 | part(1) << 8 | part(2);
    }
    palette
}

/// The 16 colours that the attribute controller makes of the palette.
fn indexed(registers: &Registers, palette: &[u32; 256]) -> [u32; 256] {
    let attribute = &registers.attribute;
    let mut colours = [0; 256];
    for (index, colour) in colours.iter_mut().enumerate() {
        let entry = attribute[index & 15];
        let entry = if attribute[0x10] & 0x80 == 0 {
            (attribute[0x14] & 0xc) << 4 | entry & 0x3f
        } else {
            (attribute[0x14] & 0xf) << 4 | entry & 0xf
        };
        *colour = palette[usize::from(entry)];
    }
    colours
}

#[cfg(test)]
pub(crate) mod tests;
