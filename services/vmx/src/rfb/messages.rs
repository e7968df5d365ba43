//! Messages of a viewer (RFC 6143, 7.5, and QEMU's extended key event), from bytes that come in pieces.

use super::Broken;
use alloc::string::String;
use alloc::vec::Vec;

/// Encodings of a list that are looked at.
const MOST_ENCODINGS: usize = 64;
/// Bytes of a pasted text that are typed; the rest is dropped.
const MOST_TEXT: usize = 4096;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The pixels that the viewer wants.
    Format([u8; 16]),
    /// What it understands.
    Encodings(Vec<i32>),
    /// It wants a picture: x, y, width, height.
    Request { incremental: bool, area: [u16; 4] },
    /// A key, by the symbol on it.
    Key { down: bool, keysym: u32 },
    /// A key, by its place.
    ExtendedKey { down: bool, code: u32 },
    /// The pointer.
    Pointer { buttons: u8, x: u16, y: u16 },
    /// Text from its clipboard.
    Text(String),
}

/// What came and is not understood yet.
#[derive(Debug, Default)]
pub struct Parser {
    input: Vec<u8>,
    /// Bytes that are dropped when they come.
    skip: usize,
}

fn be16(bytes: &[u8], place: usize) -> u16 {
    u16::from_be_bytes([bytes[place], bytes[place + 1]])
}

fn be32(bytes: &[u8], place: usize) -> u32 {
    u32::from(be16(bytes, place)) << 16 | u32::from(be16(bytes, place + 2))
}

impl Parser {
    /// More came.
    pub fn push(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.input.extend_from_slice(&bytes[skipped..]);
    }

    /// Exactly `N` bytes, when they are there.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.input.first_chunk::<N>()?;
        self.input.drain(..N);
        Some(bytes)
    }

    /// Takes a message's `head` bytes and what is kept of the `length` bytes behind, when all that is there; the rest of them is dropped.
    fn body(&mut self, head: usize, length: usize, kept: usize) -> Option<Vec<u8>> {
        let kept = kept.min(length);
        if self.input.len() < head + kept {
            return None;
        }
        let body = self.input[head..head + kept].to_vec();
        let rest = length - kept;
        let there = rest.min(self.input.len() - head - kept);
        self.input.drain(..head + kept + there);
        self.skip = rest - there;
        Some(body)
    }

    /// The next message, when all of it is there.
    pub fn message(&mut self) -> Result<Option<Message>, Broken> {
        let Some(kind) = self.input.first() else { return Ok(None) };
        let length = match kind {
            0 => 20,
            2 | 5 => {
                if *kind == 2 {
                    4
                } else {
                    6
                }
            }
            3 => 10,
            4 | 6 => 8,
            255 => 12,
            _ => return Err(Broken),
        };
        let Some(head) = self.input.get(..length) else { return Ok(None) };
        let message = match kind {
            0 => {
                let mut format = [0; 16];
                format.copy_from_slice(&head[4..]);
                Message::Format(format)
            }
            2 => {
                let count = usize::from(be16(head, 2));
                let Some(body) = self.body(4, count * 4, MOST_ENCODINGS * 4) else {
                    return Ok(None);
                };
                let (numbers, _) = body.as_chunks::<4>();
                return Ok(Some(Message::Encodings(
                    numbers.iter().map(|number| i32::from_be_bytes(*number)).collect(),
                )));
            }
            3 => Message::Request {
                incremental: head[1] != 0,
                area: [2, 4, 6, 8].map(|place| be16(head, place)),
            },
            4 => Message::Key {
                down: head[1] != 0,
                keysym: be32(head, 4),
            },
            5 => Message::Pointer {
                buttons: head[1],
                x: be16(head, 2),
                y: be16(head, 4),
            },
            6 => {
                // A negative length is that of an extension which was not offered; it is dropped.
                let length = be32(head, 4) as i32;
                let kept = if length < 0 { 0 } else { MOST_TEXT };
                let Some(body) = self.body(8, length.unsigned_abs() as usize, kept) else {
                    return Ok(None);
                };
                // Latin-1.
                return Ok(Some(Message::Text(body.iter().map(|byte| char::from(*byte)).collect())));
            }
            _ if head[1] == 0 => Message::ExtendedKey {
                down: be16(head, 2) != 0,
                code: be32(head, 8),
            },
            _ => return Err(Broken),
        };
        self.input.drain(..length);
        Ok(Some(message))
    }
}
