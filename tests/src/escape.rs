//! The escape key of a terminal: Ctrl-A, then x quits, as in QEMU; Ctrl-A twice sends one.

const CTRL_A: u8 = 1;

/// Looks for the escape key in what is typed.
#[derive(Debug, Default)]
pub struct Escape {
    /// The last byte was an escape key.
    pending: bool,
}

/// What became of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// What is to be sent on.
    pub bytes: Vec<u8>,
    /// Somebody quit; what came behind is gone.
    pub quit: bool,
}

impl Escape {
    /// Takes what was typed.
    pub fn push(&mut self, typed: &[u8]) -> Typed {
        let mut result = Typed::default();
        for &byte in typed {
            if !std::mem::take(&mut self.pending) {
                if byte == CTRL_A {
                    self.pending = true;
                } else {
                    result.bytes.push(byte);
                }
            } else if matches!(byte, b'x' | b'X') {
                result.quit = true;
                break;
            } else if byte == CTRL_A {
                result.bytes.push(byte);
            }
            // Other keys after the escape key mean nothing, and are not sent either.
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_escape_key_quits_across_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.push(b"ps\r\x03\x1d\x1b[A\x01").bytes, b"ps\r\x03\x1d\x1b[A");
        assert!(escape.push(b"xyz").quit);
    }

    #[test]
    fn twice_sends_one() {
        let typed = Escape::default().push(b"a\x01\x01x\x01qb");
        assert_eq!((typed.bytes.as_slice(), typed.quit), (&b"a\x01xb"[..], false));
    }

    proptest! {
        #[test]
        fn everything_else_is_sent_as_it_is(bytes in prop::collection::vec(2_u8.., 0..100)) {
            let typed = Escape::default().push(&bytes);
            prop_assert_eq!(typed, Typed { bytes, quit: false });
        }
    }
}
