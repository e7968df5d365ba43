//! Compression (RFC 1951) for all views by one compressor, which takes far more memory than the rest of a view. Each stream is cut where it can be read up to (RFC 1951, 3.2.4: an empty stored block), and goes on there with
//! a compressor that has forgotten what came before, if another stream had its turn meanwhile.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use miniz_oxide::deflate::{core::CompressorOxide, stream};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// How a stream in zlib's format begins (RFC 1950, 2.2): a window of 32 KiB, the fastest algorithm.
pub const ZLIB: [u8; 2] = [0x78, 0x01];
/// Speed rather than size: the viewer is near.
const LEVEL: u8 = 1;

/// The compressor.
#[derive(Clone, Default)]
pub struct Compressor(Rc<RefCell<Turn>>);

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    /// The stream that was compressed last, and the compressor with what it remembers of it.
    last: Option<(u64, Box<CompressorOxide>)>,
    /// Streams that were begun.
    begun: u64,
}

impl core::fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// How far the reader is to come with what was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// More of the same turn follows.
    Later,
    /// All of it can be read.
    Here,
    /// The stream ends.
    End,
}

impl Compressor {
    /// Begins a stream.
    #[must_use]
    pub fn stream(&self) -> Stream {
        let mut turn = self.0.borrow_mut();
        turn.begun += 1;
        Stream {
            compressor: self.clone(),
            number: turn.begun,
        }
    }
}

/// A stream. When it goes, so does what the compressor remembers of it.
#[derive(Debug)]
pub struct Stream {
    compressor: Compressor,
    number: u64,
}

impl Stream {
    /// Appends the next part of the stream. Until it is said to be readable, no other stream may have a turn.
    pub fn part(&mut self, mut input: &[u8], until: Until, out: &mut Vec<u8>) {
        let mut turn = self.compressor.0.borrow_mut();
        if turn.last.as_ref().is_some_and(|(number, _)| *number != self.number) {
            turn.last = None;
        }
        let (_, compressor) = turn.last.get_or_insert_with(|| {
            let mut compressor = Box::<CompressorOxide>::default();
            compressor.set_format_and_level(DataFormat::Raw, LEVEL);
            (self.number, compressor)
        });
        let flush = match until {
            Until::Later => MZFlush::None,
            Until::Here => MZFlush::Sync,
            Until::End => MZFlush::Finish,
        };
        let mut piece = [0; 1024];
        loop {
            let result = stream::deflate(compressor, input, &mut piece, flush);
            input = &input[result.bytes_consumed..];
            out.extend_from_slice(&piece[..result.bytes_written]);
            match result.status {
                // A full piece: there may be more.
                Ok(MZStatus::Ok) if result.bytes_written == piece.len() || !input.is_empty() || until == Until::End => {}
                _ => return,
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut turn = self.compressor.0.borrow_mut();
        turn.last.take_if(|(number, _)| *number == self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_compressor_serves_all_and_goes_with_the_last() {
        let compressor = Compressor::default();
        let there = || compressor.0.borrow().last.is_some();
        let (mut one, mut two, mut out) = (compressor.stream(), compressor.stream(), Vec::new());
        assert!(!there());
        one.part(b"one", Until::Here, &mut out);
        assert!(there());
        two.part(b"two", Until::Here, &mut out);
        drop(one);
        assert!(there());
        drop(two);
        assert!(!there());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_stream_is_whole_whoever_has_turns_between(
            turns in prop::collection::vec((0usize..3, prop::collection::vec(prop::sample::select(&b"abcabcd"[..]), 0..3000), 1usize..4), 1..20),
        ) {
            let compressor = Compressor::default();
            let mut streams: Vec<_> = (0..3).map(|_| (compressor.stream(), Vec::new(), Vec::new())).collect();
            for (which, text, cuts) in turns {
                let (stream, plain, out) = &mut streams[which];
                for part in text.chunks(text.len() / cuts + 1) {
                    stream.part(part, Until::Later, out);
                }
                stream.part(&[], Until::Here, out);
                plain.extend(text);
                // What was given out so far can be read so far.
                let mut readable = out.clone();
                readable.extend([3, 0]);
                prop_assert_eq!(&miniz_oxide::inflate::decompress_to_vec(&readable).unwrap(), plain);
            }
            for (mut stream, mut plain, mut out) in streams {
                stream.part(b"end", Until::End, &mut out);
                plain.extend(b"end");
                prop_assert_eq!(miniz_oxide::inflate::decompress_to_vec(&out).unwrap(), plain);
            }
        }
    }
}
