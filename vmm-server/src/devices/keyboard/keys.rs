//! A PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, Keyboard): commands, and scan code sets 1 and 2.

use super::Queue;
use serde::{Deserialize, Serialize};

/// Taken.
const ACKNOWLEDGE: u8 = 0xfa;
/// Not understood.
const RESEND: u8 = 0xfe;
/// Self-test passed.
const PASSED: u8 = 0xaa;
/// Bytes that are kept for the controller; a key makes at most three.
const MOST_WAITING: usize = 13;

/// Make codes of set 2, by those of set 1.
const SET_2: [u8; 0x59] = [
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d, //
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b, //
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a, //
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03, //
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69, //
    0x72, 0x7a, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07,
];

/// The make code of set 2 for one of set 1, both without prefix.
fn set_2(code: u8) -> Option<u8> {
    match code {
        // The logo keys and the menu key have a prefix; the codes are not used otherwise.
        0x5b => Some(0x1f),
        0x5c => Some(0x27),
        0x5d => Some(0x2f),
        _ => SET_2.get(usize::from(code)).copied().filter(|code| *code != 0),
    }
}

/// What the controller makes of a byte of set 2 when it translates: the make code of set 1. Answers to commands stay what they are.
pub(super) fn translate(byte: u8) -> u8 {
    let known = (1..=0x5d).find(|code| set_2(*code) == Some(byte));
    known.unwrap_or(byte)
}

/// The keyboard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Keys {
    pub(super) waiting: Queue,
    /// Command that waits for its data byte.
    pending: u8,
    set: u8,
    scanning: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            waiting: Queue::new(),
            pending: 0,
            set: 2,
            // As firmware leaves it.
            scanning: true,
        }
    }
}

impl Keys {
    fn answer(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // A full queue belongs to a guest that does not read; it loses what it asked for.
            let _ = self.waiting.push_back(*byte);
        }
    }

    /// A byte from the guest.
    pub(super) fn write(&mut self, byte: u8) {
        match core::mem::take(&mut self.pending) {
            0xf0 if byte == 0 => {
                let set = self.set;
                return self.answer(&[ACKNOWLEDGE, set]);
            }
            0xf0 if matches!(byte, 1 | 2) => {
                self.set = byte;
                return self.answer(&[ACKNOWLEDGE]);
            }
            // Set 3 is not there.
            0xf0 => return self.answer(&[RESEND]),
            // Lights, and how fast keys repeat, which whoever types decides.
            0xed | 0xf3 => return self.answer(&[ACKNOWLEDGE]),
            _ => {}
        }
        match byte {
            0xed | 0xf0 | 0xf3 => {
                self.pending = byte;
                self.answer(&[ACKNOWLEDGE]);
            }
            0xee => self.answer(&[0xee]),
            0xf2 => self.answer(&[ACKNOWLEDGE, 0xab, 0x83]),
            0xf4 => {
                self.waiting.clear();
                self.scanning = true;
                self.answer(&[ACKNOWLEDGE]);
            }
            0xf5 | 0xf6 => {
                let scanning = byte == 0xf6;
                *self = Self {
                    scanning,
                    ..Self::default()
                };
                self.answer(&[ACKNOWLEDGE]);
            }
            0xff => {
                *self = Self::default();
                self.answer(&[ACKNOWLEDGE, PASSED]);
            }
            _ => self.answer(&[RESEND]),
        }
    }

    /// Whether a key can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() <= MOST_WAITING
    }

    /// A key went down or up.
    pub(super) fn key(&mut self, code: u16, down: bool) {
        if !self.scanning {
            return;
        }
        let [prefix, code] = code.to_be_bytes();
        let (code, up) = if self.set == 1 {
            (Some(code | if down { 0 } else { 0x80 }).filter(|_| code < 0x80), false)
        } else {
            (set_2(code), !down)
        };
        let Some(code) = code else { return };
        if prefix == 0xe0 {
            self.answer(&[0xe0]);
        }
        if up {
            self.answer(&[0xf0]);
        }
        self.answer(&[code]);
    }
}
