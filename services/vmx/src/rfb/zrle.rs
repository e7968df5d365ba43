//! ZRLE (RFC 6143, 7.7.6): tiles of 64 by 64 pixels with a palette where it pays, in one stream of zlib for the whole view.

use super::format::Format;
use crate::deflate::{Stream, Until, ZLIB};
use alloc::vec::Vec;

/// Most colours of a packed palette.
const MOST_COLOURS: usize = 16;

/// The stream.
#[derive(Debug)]
pub struct Zrle {
    stream: Stream,
    begun: bool,
    plain: Vec<u8>,
}

impl Zrle {
    pub const fn new(stream: Stream) -> Self {
        Self {
            stream,
            begun: false,
            plain: Vec::new(),
        }
    }

    /// Appends a rectangle that is one tile, its length first.
    pub fn tile(&mut self, pixels: &[u32], width: usize, format: &Format, out: &mut Vec<u8>) {
        self.plain.clear();
        encode(pixels, width, format, &mut self.plain);
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        if !core::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(&ZLIB);
        }
        self.stream.part(&self.plain, Until::Here, out);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// A tile, not yet compressed.
fn encode(pixels: &[u32], width: usize, format: &Format, out: &mut Vec<u8>) {
    let mut palette = [0; MOST_COLOURS];
    let mut count = 0;
    // Most pixels are as the one before.
    let mut last = None;
    for pixel in pixels {
        if last == Some(pixel) {
            continue;
        }
        last = Some(pixel);
        if !palette[..count].contains(pixel) {
            if count == MOST_COLOURS {
                out.push(0);
                pixels.iter().for_each(|pixel| format.compressed(*pixel, out));
                return;
            }
            palette[count] = *pixel;
            count += 1;
        }
    }
    let palette = &palette[..count];
    out.push(count as u8);
    palette.iter().for_each(|colour| format.compressed(*colour, out));
    let bits = match count {
        0 | 1 => return,
        2 => 1,
        3 | 4 => 2,
        _ => 4,
    };
    if let &[_, second] = palette {
        for group in pixels.chunks(width).flat_map(|line| line.chunks(8)) {
            let byte = group.iter().fold(0u8, |byte, pixel| byte << 1 | u8::from(*pixel == second));
            out.push(byte << (8 - group.len()));
        }
        return;
    }
    let (mut last, mut index) = (palette[0], 0);
    for group in pixels.chunks(width).flat_map(|line| line.chunks(8 / bits)) {
        let mut byte = 0u8;
        for (place, pixel) in group.iter().enumerate() {
            if *pixel != last {
                (last, index) = (*pixel, palette.iter().position(|colour| colour == pixel).unwrap_or(0) as u8);
            }
            byte |= index << (8 - bits * (place + 1));
        }
        out.push(byte);
    }
}
