//! A picture in PNG (W3C Portable Network Graphics, second edition), made piece by piece: a small part of it is in memory at any time.

use crate::deflate::{Compressor, Stream, Until, ZLIB};
use crate::picture::Picture;
use alloc::vec;
use alloc::vec::Vec;
use miniz_oxide::mz_adler32_oxide;
use tessera_screen::Memory;

/// Bytes of output from which on no line is drawn.
const ENOUGH: usize = 16 << 10;
/// How long one step may take, in microseconds.
const SLICE: u64 = 10_000;
/// Largest divisor.
pub const MOST_DIVISOR: usize = 8;

/// A picture being written.
pub struct Png {
    picture: Picture,
    divisor: usize,
    /// Line of the result that is next.
    line: usize,
    stream: Stream,
    /// Adler-32 of what was compressed.
    check: u32,
    out: Vec<u8>,
    finished: bool,
}

impl core::fmt::Debug for Png {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Png").field("line", &self.line).finish_non_exhaustive()
    }
}

/// The checksum of a chunk (annex D).
fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    out.extend_from_slice(&crc(&[kind, data]).to_be_bytes());
}

impl Png {
    /// Begins a picture; each pixel is the mean of `divisor` squared.
    #[must_use]
    pub fn new(picture: Picture, divisor: usize, compressor: &Compressor) -> Self {
        let divisor = divisor.clamp(1, MOST_DIVISOR);
        let mut out = Vec::from(*b"\x89PNG\r\n\x1a\n");
        let (width, height) = picture.size();
        let mut header = Vec::new();
        for number in [width, height] {
            header.extend_from_slice(&(number.div_ceil(divisor) as u32).to_be_bytes());
        }
        // Eight bits of red, green and blue.
        header.extend_from_slice(&[8, 2, 0, 0, 0]);
        chunk(&mut out, b"IHDR", &header);
        Self {
            picture,
            divisor,
            line: 0,
            stream: compressor.stream(),
            check: 1,
            out,
            finished: false,
        }
    }

    /// Makes more output, if there is not enough already. `now` is a clock in microseconds.
    pub fn work(&mut self, video: &Memory, now: &dyn Fn() -> u64) {
        let begin = now();
        let (width, height) = self.picture.size();
        let lines = height.div_ceil(self.divisor);
        let mut pixels = vec![0; width * self.divisor];
        let first = self.line;
        while !self.finished && self.out.len() < ENOUGH && now().saturating_sub(begin) < SLICE {
            let mut data = Vec::new();
            if self.line == 0 {
                data.extend_from_slice(&ZLIB);
            }
            // No filter.
            let mut row = vec![0];
            if self.line < lines {
                let top = self.line * self.divisor;
                let rows = self.divisor.min(height - top);
                let pixels = &mut pixels[..width * rows];
                self.picture.draw(video, 0, top, width, pixels);
                for left in (0..width).step_by(self.divisor) {
                    let columns = self.divisor.min(width - left);
                    let mut sums = [0u32; 3];
                    for line in pixels.chunks(width) {
                        for pixel in &line[left..left + columns] {
                            let [_, colours @ ..] = pixel.to_be_bytes();
                            sums.iter_mut().zip(colours).for_each(|(sum, colour)| *sum += u32::from(colour));
                        }
                    }
                    row.extend(sums.map(|sum| (sum / (rows * columns) as u32) as u8));
                }
            }
            self.line += 1;
            let last = self.line >= lines;
            self.check = mz_adler32_oxide(self.check, &row);
            let until = if last { Until::End } else { Until::Later };
            self.stream.part(&row, until, &mut data);
            if last {
                data.extend_from_slice(&self.check.to_be_bytes());
            }
            if !data.is_empty() {
                chunk(&mut self.out, b"IDAT", &data);
            }
            if last {
                chunk(&mut self.out, b"IEND", &[]);
                self.finished = true;
            }
        }
        if self.line > first && !self.finished {
            // Another stream may have its turn from here on.
            let mut data = Vec::new();
            self.stream.part(&[], Until::Here, &mut data);
            chunk(&mut self.out, b"IDAT", &data);
        }
    }

    /// Bytes that are ready; those that were taken are to be drained.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Nothing comes behind the output.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::tests::{memory, text_registers};
    use std::vec::Vec;

    /// Size and lines of a picture, each checksum checked.
    fn read(mut bytes: &[u8]) -> (u32, u32, Vec<u8>) {
        bytes = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
        let (mut size, mut data) = ((0, 0), Vec::new());
        while !bytes.is_empty() {
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            let (kind, body) = (&bytes[4..8], &bytes[8..8 + length]);
            assert_eq!(bytes[8 + length..12 + length], crc(&[kind, body]).to_be_bytes());
            match kind {
                b"IHDR" => {
                    size = (
                        u32::from_be_bytes(body[..4].try_into().unwrap()),
                        u32::from_be_bytes(body[4..8].try_into().unwrap()),
                    )
                }
                b"IDAT" => data.extend_from_slice(body),
                _ => assert_eq!(kind, b"IEND"),
            }
            bytes = &bytes[12 + length..];
        }
        (size.0, size.1, miniz_oxide::inflate::decompress_to_vec_zlib(&data).unwrap())
    }

    #[test]
    fn a_picture_is_whole_however_it_is_taken() {
        assert_eq!(crc(&[b"IEND"]), 0xae42_6082);
        let video = memory(1 << 20);
        for place in 0..2000 {
            video.set_word(place, (place as u32).wrapping_mul(0x0123_4567));
        }
        let picture = Picture::of(&text_registers());
        let mut truth = std::vec![0; 720 * 400];
        picture.draw(&video, 0, 0, 720, &mut truth);
        for divisor in [1, 3] {
            let mut png = Png::new(picture.clone(), divisor, &Compressor::default());
            let mut bytes = Vec::new();
            while !png.is_finished() || !png.output().is_empty() {
                png.work(&video, &|| 0);
                bytes.append(png.output());
            }
            let (width, height, lines) = read(&bytes);
            assert_eq!(
                (width as usize, height as usize),
                (720usize.div_ceil(divisor), 400usize.div_ceil(divisor))
            );
            assert_eq!(lines.len(), height as usize * (1 + 3 * width as usize));
            if divisor == 1 {
                let first = &lines[1 + 3 * 25..][..3];
                assert_eq!(first, &truth[25].to_be_bytes()[1..]);
                let last = &lines[lines.len() - 3..];
                assert_eq!(last, &truth[720 * 400 - 1].to_be_bytes()[1..]);
            }
        }
    }
}
