//! Graphics modes, pixel by pixel.

use super::{Kind, Picture};
use tessera_screen::Memory;

impl Picture {
    /// Draws part of a line.
    pub(super) fn pixel_line(&self, video: &Memory, x: usize, y: usize, out: &mut [u32]) {
        let start = self.line(y);
        if self.kind == Kind::Direct(32) && start.is_multiple_of(4) {
            for (place, pixel) in (start / 4 + x..).zip(out) {
                *pixel = video.word(place) & 0xff_ffff;
            }
            return;
        }
        for (x, pixel) in (x..).zip(out) {
            let x = if self.wide { x / 2 } else { x };
            *pixel = self.pixel(video, start, x);
        }
    }

    fn pixel(&self, video: &Memory, start: usize, x: usize) -> u32 {
        let byte = |offset: usize| u32::from(video.byte(start + offset));
        match self.kind {
            Kind::Planes => {
                let word = video.word(start / 4 + x / 8);
                let bit = 7 - x % 8;
                let index = (0..4).fold(0, |index, plane| index | (word >> (8 * plane + bit) & 1) << plane);
                self.palette[index as usize]
            }
            Kind::Pairs => {
                // Even bytes stand in plane 0, odd ones in plane 1.
                let byte = byte(x / 8 * 4 + x / 4 % 2);
                self.palette[(byte >> (6 - x % 4 * 2) & 3) as usize]
            }
            Kind::Bytes => self.palette[byte(x) as usize],
            Kind::Direct(bits @ (15 | 16)) => {
                let value = byte(2 * x) | byte(2 * x + 1) << 8;
                let (red, green, green_bits) = if bits == 15 { (10, 5, 5) } else { (11, 5, 6) };
                let part = |shift: u32, bits: u32| {
                    let value = value >> shift & ((1 << bits) - 1);
                    value << (8 - bits) | value >> (2 * bits - 8)
                };
                part(red, 5) << 16 | part(green, green_bits) << 8 | part(0, 5)
            }
            Kind::Direct(24) => byte(3 * x) | byte(3 * x + 1) << 8 | byte(3 * x + 2) << 16,
            Kind::Direct(_) => byte(4 * x) | byte(4 * x + 1) << 8 | byte(4 * x + 2) << 16,
            _ => 0,
        }
    }
}
