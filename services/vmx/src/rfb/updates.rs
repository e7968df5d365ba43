//! What of the picture a viewer does not have yet. The picture is drawn tile by tile and compared with what was sent last by a number made of its pixels: no second copy of it is kept.

use super::encoding;
use super::format::Format;
use super::zrle::Zrle;
use crate::deflate::Compressor;
use crate::picture::{Picture, fingerprint};
use alloc::vec::Vec;
use tessera_screen::Memory;

/// Pixels of a tile's side.
const TILE: usize = 64;
/// How long one look may take, in microseconds.
const SLICE: u64 = 10_000;
/// How long to wait when a look at everything found nothing new.
const REST: u64 = 30_000;
/// Bytes of one update.
const MOST: usize = 24 << 10;
/// Bytes that a tile makes at most: pixels of 32 bits, its place, and what compression adds to what it cannot compress.
const LARGEST: usize = TILE * TILE * 4 + 256;
/// What no tile has.
const UNKNOWN: u64 = 0;

/// What a viewer has, and what it wants.
#[derive(Debug)]
pub struct Updates {
    pub format: Format,
    compressor: Compressor,
    zrle: Option<Zrle>,
    speaks_zrle: bool,
    size: (usize, usize),
    /// Of each tile, what was sent last.
    sent: Vec<u64>,
    /// The viewer waits for an update.
    wanted: bool,
    /// Tile that is looked at next, and how many in a row had nothing new.
    next: usize,
    same: usize,
    /// Not before then.
    rest: u64,
    /// Pseudo-encodings that the viewer is to be told of.
    announcements: Vec<i32>,
}

impl Updates {
    pub const fn new(compressor: Compressor) -> Self {
        Self {
            format: Format::DEFAULT,
            compressor,
            zrle: None,
            speaks_zrle: false,
            size: (0, 0),
            sent: Vec::new(),
            wanted: false,
            next: 0,
            same: 0,
            rest: 0,
            announcements: Vec::new(),
        }
    }

    pub fn use_zrle(&mut self, speaks: bool) {
        self.speaks_zrle = speaks;
    }

    pub fn announce(&mut self, pseudo: i32) {
        self.announcements.push(pseudo);
    }

    const fn columns(&self) -> usize {
        self.size.0.div_ceil(TILE)
    }

    /// The viewer has a picture of another size, of which nothing was sent.
    pub fn resize(&mut self, width: usize, height: usize) {
        self.size = (width, height);
        self.sent.clear();
        self.sent.resize(self.columns() * height.div_ceil(TILE), UNKNOWN);
        (self.next, self.same, self.rest) = (0, 0, 0);
    }

    /// The viewer wants what changed in an area, or all of it.
    pub fn request(&mut self, incremental: bool, area: [u16; 4]) {
        self.wanted = true;
        if incremental {
            return;
        }
        let [x, y, width, height] = area.map(usize::from);
        let columns = self.columns().max(1);
        for (place, sent) in self.sent.iter_mut().enumerate() {
            let (left, top) = (place % columns * TILE, place / columns * TILE);
            if left < x + width && x < left + TILE && top < y + height && y < top + TILE {
                *sent = UNKNOWN;
            }
        }
        (self.same, self.rest) = (0, 0);
    }

    /// Appends an update, if the viewer waits for one and there is something for it.
    pub fn work(&mut self, picture: &Picture, video: &Memory, resizes: bool, now: &dyn Fn() -> u64, out: &mut Vec<u8>) {
        if !self.wanted {
            return;
        }
        if !self.announcements.is_empty() || (resizes && picture.size() != self.size) {
            return self.tell(picture, resizes, out);
        }
        let begin = now();
        if begin < self.rest {
            return;
        }
        let start = out.len();
        // Room for an update and a tile that comes last, and not twice as much.
        out.reserve_exact(MOST + LARGEST);
        out.extend_from_slice(&[0; 4]);
        let mut count = 0u16;
        let mut pixels = [0; TILE * TILE];
        // Each tile once: what goes on changing is for the next update.
        let mut left_over = self.sent.len();
        while left_over > 0 && self.same < self.sent.len() && out.len() - start < MOST && now().saturating_sub(begin) < SLICE {
            left_over -= 1;
            let place = self.next % self.sent.len();
            self.next = place + 1;
            let (left, top) = (place % self.columns() * TILE, place / self.columns() * TILE);
            let (width, height) = (TILE.min(self.size.0 - left), TILE.min(self.size.1 - top));
            let tile = &mut pixels[..width * height];
            picture.draw(video, left, top, width, tile);
            let print = fingerprint(tile);
            if self.sent[place] == print {
                self.same += 1;
                continue;
            }
            (self.sent[place], self.same) = (print, 0);
            count += 1;
            for number in [left, top, width, height] {
                out.extend_from_slice(&(number as u16).to_be_bytes());
            }
            if self.speaks_zrle {
                out.extend_from_slice(&encoding::ZRLE.to_be_bytes());
                let zrle = self.zrle.get_or_insert_with(|| Zrle::new(self.compressor.stream()));
                zrle.tile(tile, width, &self.format, out);
            } else {
                out.extend_from_slice(&encoding::RAW.to_be_bytes());
                tile.iter().for_each(|pixel| self.format.pixel(*pixel, out));
            }
        }
        if count == 0 {
            out.truncate(start);
        } else {
            out[start + 2..start + 4].copy_from_slice(&count.to_be_bytes());
            self.wanted = false;
        }
        if self.same >= self.sent.len() {
            (self.same, self.rest) = (0, now() + REST);
        }
    }

    /// Appends an update that has no pixels.
    fn tell(&mut self, picture: &Picture, resizes: bool, out: &mut Vec<u8>) {
        let resized = resizes && picture.size() != self.size;
        let count = self.announcements.len() as u16 + u16::from(resized);
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&count.to_be_bytes());
        let (width, height) = picture.size();
        let mut rectangle = |pseudo: i32| {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&(width as u16).to_be_bytes());
            out.extend_from_slice(&(height as u16).to_be_bytes());
            out.extend_from_slice(&pseudo.to_be_bytes());
        };
        self.announcements.drain(..).for_each(&mut rectangle);
        // Nothing may follow a change of size.
        if resized {
            rectangle(encoding::DESKTOP_SIZE);
            self.resize(width, height);
        }
        self.wanted = false;
    }
}
