//! Bytes from a terminal to keys. Escape sequences (ECMA-48, 5.4) may arrive in pieces, be unknown, or be noise: the decoder swallows what it does not know and never keeps more than a few bytes.

/// A key, or what a terminal says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Char(u8),
    /// Carriage return or line feed; a pair of both is one.
    Enter,
    /// Tabulator.
    Tab,
    /// Erase to the left.
    Backspace,
    /// Erase under the cursor.
    Delete,
    /// Arrow.
    Left,
    /// Arrow.
    Right,
    /// Arrow.
    Up,
    /// Arrow.
    Down,
    /// Start of the line.
    Home,
    /// End of the line.
    End,
    /// One word to the left.
    WordLeft,
    /// One word to the right.
    WordRight,
    /// A letter with the control key, as a small letter.
    Control(u8),
    /// The terminal answered that it understands escape sequences (device status report).
    StatusReport,
    /// Anything else.
    Unknown,
}

/// Longest parameter text of a sequence that is looked at; a longer one is unknown.
const MAX_PARAMETERS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After `ESC [`: parameter and intermediate bytes up to a final byte.
    Sequence,
    /// After `ESC O`: one final byte.
    SingleShift,
}

/// The decoder's state between bytes.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    state: State,
    parameters: [u8; MAX_PARAMETERS],
    length: usize,
    after_return: bool,
}

impl Decoder {
    /// Takes one byte; `None` while a sequence is incomplete or when the byte means nothing.
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        let after_return = core::mem::take(&mut self.after_return);
        match self.state {
            State::Ground => self.ground(byte, after_return),
            State::Escape => {
                self.state = State::Ground;
                match byte {
                    b'[' => {
                        self.state = State::Sequence;
                        self.length = 0;
                        None
                    }
                    b'O' => {
                        self.state = State::SingleShift;
                        None
                    }
                    b'b' => Some(Key::WordLeft),
                    b'f' => Some(Key::WordRight),
                    0x1b => {
                        self.state = State::Escape;
                        None
                    }
                    0x7f | 0x08 => Some(Key::Control(b'w')),
                    // A control character ends the sequence and keeps its meaning, so that Ctrl-C works after a lone escape.
                    0..=0x1f => self.ground(byte, false),
                    _ => Some(Key::Unknown),
                }
            }
            State::SingleShift => {
                self.state = State::Ground;
                Some(cursor_key(byte))
            }
            State::Sequence => self.sequence(byte),
        }
    }

    /// Whether a sequence has begun and not ended.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state != State::Ground
    }

    fn ground(&mut self, byte: u8, after_return: bool) -> Option<Key> {
        match byte {
            b'\r' => {
                self.after_return = true;
                Some(Key::Enter)
            }
            b'\n' => (!after_return).then_some(Key::Enter),
            b'\t' => Some(Key::Tab),
            0x08 | 0x7f => Some(Key::Backspace),
            0x1b => {
                self.state = State::Escape;
                None
            }
            0x20..=0x7e => Some(Key::Char(byte)),
            1..=26 => Some(Key::Control(byte - 1 + b'a')),
            _ => Some(Key::Unknown),
        }
    }

    fn sequence(&mut self, byte: u8) -> Option<Key> {
        match byte {
            0x20..=0x3f => {
                if let Some(place) = self.parameters.get_mut(self.length) {
                    *place = byte;
                }
                self.length = self.length.saturating_add(1);
                None
            }
            0x40..=0x7e => {
                self.state = State::Ground;
                Some(
                    self.parameters
                        .get(..self.length)
                        .map_or(Key::Unknown, |parameters| final_key(parameters, byte)),
                )
            }
            // Not part of any sequence: it ends here, and a control character keeps its meaning.
            _ => {
                self.state = State::Ground;
                self.ground(byte, false)
            }
        }
    }
}

fn cursor_key(byte: u8) -> Key {
    match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'M' => Key::Enter,
        _ => Key::Unknown,
    }
}

fn final_key(parameters: &[u8], byte: u8) -> Key {
    match (parameters, byte) {
        (b"1;5" | b"1;3" | b"5", b'C') => Key::WordRight,
        (b"1;5" | b"1;3" | b"5", b'D') => Key::WordLeft,
        (b"" | b"1", b'A' | b'B' | b'C' | b'D' | b'H' | b'F') => cursor_key(byte),
        (b"1" | b"7", b'~') => Key::Home,
        (b"4" | b"8", b'~') => Key::End,
        (b"3", b'~') => Key::Delete,
        (b"0", b'n') => Key::StatusReport,
        _ => Key::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|&byte| decoder.feed(byte)).collect()
    }

    #[test]
    fn sequences_of_common_terminals() {
        for (bytes, key) in [
            (&b"\x1b[A"[..], Key::Up),
            (b"\x1bOB", Key::Down),
            (b"\x1b[1C", Key::Right),
            (b"\x1b[D", Key::Left),
            (b"\x1b[1~", Key::Home),
            (b"\x1b[H", Key::Home),
            (b"\x1bOF", Key::End),
            (b"\x1b[4~", Key::End),
            (b"\x1b[3~", Key::Delete),
            (b"\x1b[1;5D", Key::WordLeft),
            (b"\x1bf", Key::WordRight),
            (b"\x1b[0n", Key::StatusReport),
            (b"\x7f", Key::Backspace),
            (b"\x01", Key::Control(b'a')),
            (b"\x1b[99;99;99;99;99m", Key::Unknown),
        ] {
            assert_eq!(keys(bytes), [key], "{bytes:?}");
        }
    }

    #[test]
    fn line_ends_of_all_kinds_are_one_enter() {
        assert_eq!(keys(b"\r\n"), [Key::Enter]);
        assert_eq!(keys(b"\n"), [Key::Enter]);
        assert_eq!(keys(b"\r\r"), [Key::Enter, Key::Enter]);
        assert_eq!(keys(b"\n\n"), [Key::Enter, Key::Enter]);
    }

    #[test]
    fn interrupt_is_heard_inside_a_broken_sequence() {
        for start in [&b"\x1b"[..], b"\x1b[", b"\x1b[12;"] {
            let mut bytes = start.to_vec();
            bytes.push(3);
            assert_eq!(keys(&bytes), [Key::Control(b'c')]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_leave_a_decoder_that_still_works(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            for byte in bytes {
                decoder.feed(byte);
            }
            // Two control characters end whatever was begun.
            decoder.feed(3);
            prop_assert_eq!(decoder.feed(3), Some(Key::Control(b'c')));
            prop_assert_eq!(decoder.feed(b'x'), Some(Key::Char(b'x')));
        }
    }
}
