//! Frames of a WebSocket (RFC 6455, 5), as a server reads and writes them.

use super::Message;
use alloc::{string::String, vec::Vec};

/// Largest message, over all of its fragments.
pub const MOST_MESSAGE: usize = 64 << 10;

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Message),
    /// Asks for a pong with the same bytes.
    Ping(Vec<u8>),
    /// Answers a ping.
    Pong,
    /// The other side wants to end.
    Close,
}

/// Why the connection must end, as a status code (7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub u16);

const PROTOCOL: Violation = Violation(1002);
const NOT_TEXT: Violation = Violation(1007);
const TOO_BIG: Violation = Violation(1009);

/// Puts messages together.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Whether a fragmented message is text, and what came of it.
    begun: Option<(bool, Vec<u8>)>,
}

impl Decoder {
    /// Reads a frame from the start of `bytes`; how many it took, and what it brought. `None`: it is not complete.
    ///
    /// # Errors
    /// When the other side breaks the protocol.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Option<(usize, Option<Event>)>, Violation> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let (end, code) = (first & 0x80 != 0, first & 0x0f);
        // No extension was agreed on, and clients mask (5.1).
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(PROTOCOL);
        }
        let (length, head) = match second & 0x7f {
            126 => match bytes.get(2..4) {
                Some(&[high, low]) => (u64::from(u16::from_be_bytes([high, low])), 4),
                _ => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
                Some(length) => (u64::from_be_bytes(length), 10),
                None => return Ok(None),
            },
            length => (u64::from(length), 2),
        };
        // The shortest form is required (5.2).
        if (head == 4 && length < 126) || (head == 10 && length < 1 << 16) {
            return Err(PROTOCOL);
        }
        let control = code & 8 != 0;
        if control && (length > 125 || !end) {
            return Err(PROTOCOL);
        }
        let begun = self.begun.as_ref().map_or(0, |(_, bytes)| bytes.len());
        // Known from the head alone: nothing is kept for a message that is too big.
        let length = usize::try_from(length)
            .ok()
            .filter(|length| length + begun <= MOST_MESSAGE || control)
            .ok_or(TOO_BIG)?;
        match (code, self.begun.is_some()) {
            (0, true) | (1 | 2, false) | (8..=10, _) => {}
            _ => return Err(PROTOCOL),
        }
        let Some(body) = bytes.get(head + 4..head + 4 + length) else {
            return Ok(None);
        };
        let mask = &bytes[head..head + 4];
        let body: Vec<u8> = body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let used = head + 4 + length;
        let event = match code {
            8 => {
                close_is_sound(&body)?;
                Some(Event::Close)
            }
            9 => Some(Event::Ping(body)),
            10 => Some(Event::Pong),
            _ => {
                let (text, mut all) = self.begun.take().unwrap_or((code == 1, Vec::new()));
                all.extend_from_slice(&body);
                if !end {
                    self.begun = Some((text, all));
                    None
                } else if text {
                    Some(Event::Message(Message::Text(String::from_utf8(all).map_err(|_| NOT_TEXT)?)))
                } else {
                    Some(Event::Message(Message::Binary(all)))
                }
            }
        };
        Ok(Some((used, event)))
    }
}

/// A reason is a status code and text (5.5.1, 7.4).
fn close_is_sound(body: &[u8]) -> Result<(), Violation> {
    match body {
        [] => Ok(()),
        [high, low, text @ ..] => match u16::from_be_bytes([*high, *low]) {
            1000..=1003 | 1007..=1014 | 3000..=4999 => core::str::from_utf8(text).map(|_| ()).map_err(|_| NOT_TEXT),
            _ => Err(PROTOCOL),
        },
        [_] => Err(PROTOCOL),
    }
}

fn frame(out: &mut Vec<u8>, code: u8, body: &[u8]) {
    out.push(0x80 | code);
    match body.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// Appends a message.
pub fn encode(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Text(text) => frame(out, 1, text.as_bytes()),
        Message::Binary(bytes) => frame(out, 2, bytes),
    }
}

/// Appends a ping without bytes.
pub fn ping(out: &mut Vec<u8>) {
    frame(out, 9, &[]);
}

/// Appends a pong.
pub fn pong(out: &mut Vec<u8>, bytes: &[u8]) {
    frame(out, 10, bytes);
}

/// Appends the end, with its status code.
pub fn close(out: &mut Vec<u8>, code: u16) {
    frame(out, 8, &code.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// As a client sends it.
    fn masked(code: u8, end: bool, body: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        frame(&mut wire, code, body);
        let head = wire.len() - body.len();
        wire[0] = code | if end { 0x80 } else { 0 };
        wire[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        wire.splice(head..head, mask);
        wire[head + 4..]
            .iter_mut()
            .zip(mask.iter().cycle())
            .for_each(|(byte, mask)| *byte ^= mask);
        wire
    }

    proptest! {
        #[test]
        fn messages_come_out_however_they_are_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5), ping in any::<bool>(),
        ) {
            let mut decoder = Decoder::default();
            for (place, part) in parts.iter().enumerate() {
                let last = place + 1 == parts.len();
                let wire = masked(if place == 0 { 2 } else { 0 }, last, part);
                for cut in 0..wire.len() {
                    prop_assert_eq!(decoder.decode(&wire[..cut]), Ok(None));
                }
                let event = last.then(|| Event::Message(Message::Binary(parts.concat())));
                prop_assert_eq!(decoder.decode(&wire), Ok(Some((wire.len(), event))));
                if ping && !last {
                    let wire = masked(9, true, b"p");
                    prop_assert_eq!(decoder.decode(&wire), Ok(Some((wire.len(), Some(Event::Ping(b"p".to_vec()))))));
                }
            }
        }

        #[test]
        fn nothing_makes_it_panic_or_keep_much(frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
            let mut decoder = Decoder::default();
            for (code, body) in frames {
                let mut wire = masked(code & 0x0f, code & 0x80 != 0, &body);
                wire[0] = code;
                if decoder.decode(&wire).is_err() {
                    break;
                }
            }
            prop_assert!(decoder.begun.is_none_or(|(_, bytes)| bytes.len() <= MOST_MESSAGE));
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let refused = |wire: &[u8]| Decoder::default().decode(wire).unwrap_err().0;
        assert_eq!(refused(&[0x81, 0x01, b'x']), 1002, "not masked");
        assert_eq!(refused(&[0xc1, 0x80, 0, 0, 0, 0]), 1002, "reserved bit");
        assert_eq!(refused(&masked(0, true, b"x")), 1002, "continues nothing");
        assert_eq!(refused(&masked(9, false, b"x")), 1002, "control frame in fragments");
        assert_eq!(refused(&masked(9, true, &[0; 126])), 1002, "long control frame");
        assert_eq!(refused(&masked(3, true, b"")), 1002, "unknown kind");
        assert_eq!(refused(&masked(8, true, &[3])), 1002, "half a code");
        assert_eq!(
            refused(&masked(8, true, &1005u16.to_be_bytes())),
            1002,
            "code that must not be sent"
        );
        assert_eq!(refused(&masked(1, true, &[0xff])), 1007);
        assert_eq!(refused(&[0x82, 0xfe, 0, 5, 0, 0, 0, 0]), 1002, "not the shortest form");
        assert_eq!(refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1]), 1009);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&masked(2, false, &vec![0; MOST_MESSAGE])).unwrap().unwrap().1, None);
        assert_eq!(decoder.decode(&masked(0, true, b"x")).unwrap_err().0, 1009);
    }
}
