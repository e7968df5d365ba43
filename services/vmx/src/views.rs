//! Everybody who looks at one screen, and what they type.

use crate::deflate::Compressor;
use crate::keys;
use crate::picture::Picture;
use crate::png::Png;
use crate::rfb::{Input, Rfb};
use alloc::boxed::Box;
use alloc::vec::Vec;
use tessera_screen::{Event, Memory};

/// Most views.
pub const MOST: usize = 6;
/// A view that was not read for so long, in microseconds, ends.
const PATIENCE: u64 = 60_000_000;

#[derive(Debug)]
enum Kind {
    Rfb(Box<Rfb>),
    Picture(Box<Png>),
}

#[derive(Debug)]
struct View {
    number: u64,
    kind: Kind,
    /// Place in the stream of the first byte that is still there.
    start: u64,
    read: u64,
}

/// The views.
#[derive(Debug)]
pub struct Views {
    views: Vec<View>,
    next: u64,
    /// What all of them compress with.
    compressor: Compressor,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There are [`MOST`] already.
    TooMany,
    /// There is no such view: it ended.
    Gone,
}

impl Views {
    /// None yet, which will compress with `compressor`. Numbers count from `first` on: one that no earlier server gave out.
    #[must_use]
    pub const fn new(first: u64, compressor: Compressor) -> Self {
        Self {
            views: Vec::new(),
            next: first,
            compressor,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.views.len()
    }

    /// Begins one; without a picture it is an interactive one.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub fn open(&mut self, picture: Option<Png>, now: u64, input: &mut dyn Input) -> Result<u64, Refusal> {
        self.expire(now, input);
        if self.views.len() >= MOST {
            return Err(Refusal::TooMany);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.views.push(View {
            number,
            kind: picture.map_or_else(
                || Kind::Rfb(Box::new(Rfb::new(&self.compressor))),
                |png| Kind::Picture(Box::new(png)),
            ),
            start: 0,
            read: now,
        });
        Ok(number)
    }

    fn expire(&mut self, now: u64, input: &mut dyn Input) {
        while let Some(place) = self.views.iter().position(|view| now.saturating_sub(view.read) > PATIENCE) {
            self.end(place, input);
        }
    }

    fn end(&mut self, place: usize, input: &mut dyn Input) {
        if let Kind::Rfb(mut rfb) = self.views.swap_remove(place).kind {
            rfb.end(input);
        }
    }

    fn place(&self, number: u64) -> Result<usize, Refusal> {
        self.views.iter().position(|view| view.number == number).ok_or(Refusal::Gone)
    }

    /// Bytes of a view from the `from`th on, at most `limit`, and whether they are the last.
    ///
    /// # Errors
    /// [`Refusal::Gone`].
    pub fn read(
        &mut self,
        number: u64,
        from: u64,
        limit: usize,
        picture: &Picture,
        video: &Memory,
        now: &dyn Fn() -> u64,
    ) -> Result<(Vec<u8>, bool), Refusal> {
        let place = self.place(number)?;
        let view = &mut self.views[place];
        view.read = now();
        let out = match &mut view.kind {
            Kind::Rfb(rfb) => rfb.output(),
            Kind::Picture(png) => png.output(),
        };
        // Who asks for what was never there, or is forgotten, gets what there is.
        let taken = usize::try_from(from.saturating_sub(view.start))
            .unwrap_or(usize::MAX)
            .min(out.len());
        out.drain(..taken);
        view.start += taken as u64;
        if out.len() < limit {
            match &mut view.kind {
                Kind::Rfb(rfb) => rfb.work(picture, video, now),
                Kind::Picture(png) => png.work(video, now),
            }
        }
        let (out, finished) = match &mut view.kind {
            Kind::Rfb(rfb) => (rfb.output(), false),
            Kind::Picture(png) => {
                let finished = png.is_finished();
                (png.output(), finished)
            }
        };
        let data = out[..limit.min(out.len())].to_vec();
        let last = finished && data.len() == out.len();
        Ok((data, last))
    }

    /// Takes bytes of a viewer.
    ///
    /// # Errors
    /// [`Refusal::Gone`], also when what it sent ended the view.
    pub fn write(&mut self, number: u64, bytes: &[u8], picture: &Picture, input: &mut dyn Input) -> Result<(), Refusal> {
        let place = self.place(number)?;
        let outcome = match &mut self.views[place].kind {
            Kind::Rfb(rfb) => rfb.take(bytes, picture, input).map_err(|_| Refusal::Gone),
            // Nothing is to be said to a picture.
            Kind::Picture(_) => Ok(()),
        };
        if outcome.is_err() {
            self.end(place, input);
        }
        outcome
    }

    /// Ends a view; one that is not there has ended already.
    pub fn close(&mut self, number: u64, input: &mut dyn Input) {
        if let Ok(place) = self.place(number) {
            self.end(place, input);
        }
    }
}

/// Events that type a text, as many whole characters as make at most `most`; and how many bytes of the text those are.
#[must_use]
pub fn typed(text: &str, most: usize) -> (Vec<Event>, usize) {
    let (mut events, mut done) = (Vec::new(), 0);
    for character in text.chars() {
        if events.len() + 4 > most {
            break;
        }
        if let Some((code, shifted)) = keys::of_character(character) {
            let key = |code, down| Event::Key { code, down };
            if shifted {
                events.push(key(keys::SHIFT, true));
            }
            events.extend([key(code, true), key(code, false)]);
            if shifted {
                events.push(key(keys::SHIFT, false));
            }
        }
        done += character.len_utf8();
    }
    (events, done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::tests::{memory, text_registers};

    #[derive(Default)]
    struct Nobody(usize);
    impl Input for Nobody {
        fn send(&mut self, _: Event) {
            self.0 += 1;
        }
        fn type_text(&mut self, _: &str) {}
    }

    #[test]
    fn a_stream_can_be_read_again_until_more_is_asked_for() {
        let (video, picture, mut nobody) = (memory(1 << 16), Picture::of(&text_registers()), Nobody::default());
        let mut views = Views::new(7, Compressor::default());
        let view = views.open(None, 0, &mut nobody).unwrap();
        assert_eq!(view, 7);
        let read = |views: &mut Views, from, limit| views.read(view, from, limit, &picture, &video, &|| 0).unwrap();
        assert_eq!(read(&mut views, 0, 4), (b"RFB ".to_vec(), false));
        assert_eq!(read(&mut views, 0, 4).0, b"RFB ");
        assert_eq!(read(&mut views, 4, 40).0, b"003.008\n");
        assert_eq!(read(&mut views, 12, 40).0, b"");
        assert_eq!(views.write(view, b"nonsense, all of it", &picture, &mut nobody), Err(Refusal::Gone));
        assert_eq!(views.count(), 0);
        assert!(views.read(view, 0, 4, &picture, &video, &|| 0).is_err());
    }

    #[test]
    fn views_that_nobody_reads_end() {
        let mut nobody = Nobody::default();
        let mut views = Views::new(0, Compressor::default());
        for _ in 0..MOST {
            views.open(None, 0, &mut nobody).unwrap();
        }
        assert_eq!(views.open(None, 1, &mut nobody), Err(Refusal::TooMany));
        assert!(views.open(None, PATIENCE + 1, &mut nobody).is_ok());
        assert_eq!(views.count(), 1);
    }

    #[test]
    fn a_picture_ends() {
        let (video, picture, mut nobody) = (memory(1 << 16), Picture::of(&text_registers()), Nobody::default());
        let compressor = Compressor::default();
        let mut views = Views::new(0, compressor.clone());
        let view = views.open(Some(Png::new(picture.clone(), 4, &compressor)), 0, &mut nobody).unwrap();
        let mut from = 0;
        loop {
            let (data, last) = views.read(view, from, 1000, &picture, &video, &|| 0).unwrap();
            from += data.len() as u64;
            if last {
                break;
            }
        }
        assert!(from > 100);
    }

    #[test]
    fn text_is_typed_as_far_as_there_is_room() {
        let (events, done) = typed("aB\u{e9}c", 100);
        assert_eq!((events.len(), done), (8, 5), "what no key has is left out");
        assert_eq!(typed("aBc", 5).1, 1);
        assert_eq!(typed("aBc", 6).1, 2);
    }
}
