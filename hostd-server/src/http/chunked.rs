//! The chunked transfer coding (RFC 9112, 7.1), read bit by bit.

/// The framing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Longest line of a chunk's size with its extensions, and all trailers together: nobody who is honest needs more.
const MOST_LINE: usize = 256;
const MOST_TRAILERS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Digits of the size, how many there were and what they say.
    Size(u8, u64),
    /// Behind the size: extensions, which are skipped.
    Extension(u64),
    /// The line feed behind the size.
    SizeEnd(u64),
    Data(u64),
    DataReturn,
    DataEnd,
    /// At the start of a trailer's line.
    Trailer,
    TrailerLine,
    TrailerEnd,
    LastEnd,
    Done,
}

/// Decodes a body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of this line, or of all trailers.
    line: usize,
}

impl Decoder {
    /// At the start of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Size(0, 0),
            line: 0,
        }
    }

    /// Whether the body has ended; what follows is the next request.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes into `output`. Says how many bytes of both were used.
    ///
    /// # Errors
    /// When the framing is broken.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Malformed> {
        let (mut read, mut written) = (0, 0);
        while read < input.len() && self.state != State::Done {
            if let State::Data(left) = self.state {
                let count = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(input.len() - read)
                    .min(output.len() - written);
                if count == 0 {
                    break;
                }
                output[written..][..count].copy_from_slice(&input[read..][..count]);
                read += count;
                written += count;
                let left = left - count as u64;
                self.state = if left == 0 { State::DataReturn } else { State::Data(left) };
                continue;
            }
            self.step(input[read])?;
            read += 1;
        }
        Ok((read, written))
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.line += 1;
        let in_trailers = matches!(self.state, State::Trailer | State::TrailerLine | State::TrailerEnd);
        if self.line > if in_trailers { MOST_TRAILERS } else { MOST_LINE } {
            return Err(Malformed);
        }
        self.state = match (self.state, byte) {
            // Sixteen digits are 64 bits.
            (State::Size(digits @ 0..16, size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                State::Size(digits + 1, size << 4 | u64::from(digit))
            }
            (State::Size(1.., size), b';' | b' ' | b'\t') => State::Extension(size),
            (State::Size(1.., size) | State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), b'\t' | b' '..=b'~') => State::Extension(size),
            (State::SizeEnd(size), b'\n') => {
                self.line = 0;
                if size == 0 { State::Trailer } else { State::Data(size) }
            }
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => {
                self.line = 0;
                State::Size(0, 0)
            }
            (State::Trailer, b'\r') => State::LastEnd,
            (State::Trailer | State::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => State::TrailerLine,
            (State::TrailerLine, b'\r') => State::TrailerEnd,
            (State::TrailerEnd, b'\n') => State::Trailer,
            (State::LastEnd, b'\n') => State::Done,
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec::Vec};
    use proptest::prelude::*;

    fn decode(input: &[u8], step: usize, room: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let (mut decoder, mut read, mut out) = (Decoder::new(), 0, Vec::new());
        while read < input.len() && !decoder.is_done() {
            let mut buffer = alloc::vec![0; room];
            let end = (read + step).min(input.len());
            let (used, written) = decoder.decode(&input[read..end], &mut buffer)?;
            assert!(used <= end - read && written <= room && used + written > 0);
            read += used;
            out.extend_from_slice(&buffer[..written]);
        }
        Ok((out, read, decoder.is_done()))
    }

    proptest! {
        #[test]
        fn bodies_come_out_however_they_arrive(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), step in 1usize..50, room in 1usize..50,
        ) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend_from_slice(format!("{:X};a=b\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
            let length = wire.len();
            wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
            prop_assert_eq!(decode(&wire, step, room), Ok((parts.concat(), length, true)));
        }

        #[test]
        fn nothing_makes_it_panic_or_run_on(input in prop::collection::vec(any::<u8>(), 0..600), step in 1usize..50) {
            let _ = decode(&input, step, 16);
        }
    }

    #[test]
    fn broken_framing_is_refused() {
        for wire in [
            "\r\n",
            "g\r\n",
            "5\n",
            "1\r\nab",
            "1\r\na\n",
            "0\r\n\n",
            "10000000000000000\r\n",
            " 5\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
        ] {
            assert_eq!(decode(wire.as_bytes(), 64, 64), Err(Malformed), "{wire:?}");
        }
        assert_eq!(decode(format!("1;{}\r\n", "x".repeat(300)).as_bytes(), 64, 64), Err(Malformed));
        assert_eq!(
            decode(format!("0\r\n{}", "x: y\r\n".repeat(1000)).as_bytes(), 64, 64),
            Err(Malformed)
        );
    }
}
