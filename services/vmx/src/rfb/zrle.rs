//! ZRLE (RFC 6143, 7.7.6): tiles of 64 by 64 pixels with a palette where it pays, in one stream of zlib for the whole view.

use super::format::Format;
use alloc::boxed::Box;
use alloc::vec::Vec;
use miniz_oxide::deflate::core::CompressorOxide;
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// Speed rather than size: the viewer is near.
const LEVEL: u8 = 1;
/// Most colours of a packed palette.
const MOST_COLOURS: usize = 16;

/// The stream.
pub struct Zrle {
    compressor: Box<CompressorOxide>,
    plain: Vec<u8>,
}

impl core::fmt::Debug for Zrle {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Zrle").finish_non_exhaustive()
    }
}

impl Zrle {
    pub fn new() -> Self {
        let mut compressor = Box::<CompressorOxide>::default();
        compressor.set_format_and_level(DataFormat::Zlib, LEVEL);
        Self {
            compressor,
            plain: Vec::new(),
        }
    }

    /// Appends a rectangle that is one tile, its length first.
    pub fn tile(&mut self, pixels: &[u32], width: usize, format: &Format, out: &mut Vec<u8>) {
        self.plain.clear();
        encode(pixels, width, format, &mut self.plain);
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.deflate(out);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn deflate(&mut self, out: &mut Vec<u8>) {
        let mut input = &self.plain[..];
        let mut piece = [0; 1024];
        loop {
            let result = miniz_oxide::deflate::stream::deflate(&mut self.compressor, input, &mut piece, MZFlush::Sync);
            input = &input[result.bytes_consumed..];
            out.extend_from_slice(&piece[..result.bytes_written]);
            match result.status {
                // A full piece: there may be more.
                Ok(MZStatus::Ok) if result.bytes_written == piece.len() || !input.is_empty() => {}
                _ => break,
            }
        }
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
