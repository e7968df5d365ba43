//! Makes terminal output searchable: takes escape sequences out of a stream of bytes, however it is cut into pieces.

/// Removes ANSI escape sequences and carriage returns.
#[derive(Debug, Default)]
pub struct Plain {
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    Control,
    Title,
}

impl Plain {
    /// Appends what `input` leaves visible to `output`.
    pub fn push(&mut self, input: &[u8], output: &mut Vec<u8>) {
        for &byte in input {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Text, b'\r' | 0 | 7) => State::Text,
                (State::Text, _) => {
                    output.push(byte);
                    State::Text
                }
                (State::Escape, b'[') => State::Control,
                (State::Escape, b']') => State::Title,
                (State::Escape, _) => State::Text,
                (State::Control, 0x40..=0x7e) => State::Text,
                (State::Control, _) => State::Control,
                (State::Title, 7) => State::Text,
                (State::Title, _) => State::Title,
            };
        }
    }
}

/// Width of a line in columns (one for each character).
#[must_use]
pub fn columns(line: &str) -> usize {
    line.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_disappear() {
        let mut plain = Plain::default();
        let mut out = Vec::new();
        plain.push(b"\x1b[1mps\x1b[0m\r\n\x1b]0;title\x07x", &mut out);
        assert_eq!(out, b"ps\nx");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            Plain::default().push(&bytes, &mut whole);
            let mut plain = Plain::default();
            plain.push(&bytes[..cut], &mut parts);
            plain.push(&bytes[cut..], &mut parts);
            prop_assert_eq!(whole, parts);
        }
    }
}
