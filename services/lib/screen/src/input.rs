//! What people do at a keyboard and a mouse, as it stands in the ring.

/// Bytes of one event in the ring.
pub const LENGTH: usize = 8;

/// Something that somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key went down or up.
    Key {
        /// Its make code in scan code set 1; keys with the prefix E0 have it as the upper byte.
        code: u16,
        /// Down.
        down: bool,
    },
    /// The mouse moved, or its buttons changed.
    Mouse {
        /// To the right.
        dx: i16,
        /// Downwards.
        dy: i16,
        /// Steps of the wheel, towards the user.
        wheel: i8,
        /// Buttons that are down: left 1, right 2, middle 4.
        buttons: u8,
    },
    /// The pointer is at a place, or its buttons changed. The same is told as [`Self::Mouse`] behind it: who takes events takes the one or the other.
    Point {
        /// From left to right, in parts of [`MOST`].
        x: u16,
        /// From top to bottom, likewise.
        y: u16,
        /// Steps of the wheel, towards the user.
        wheel: i8,
        /// Buttons that are down, as the mouse's.
        buttons: u8,
    },
}

/// The place of the last column and of the last line.
pub const MOST: u16 = 0x7fff;

impl Event {
    /// As it stands in the ring.
    #[must_use]
    pub const fn encode(self) -> [u8; LENGTH] {
        match self {
            Self::Key { code, down } => {
                let [low, high] = code.to_le_bytes();
                [1, down as u8, low, high, 0, 0, 0, 0]
            }
            Self::Mouse { dx, dy, wheel, buttons } => {
                let ([x, x1], [y, y1]) = (dx.to_le_bytes(), dy.to_le_bytes());
                [2, buttons, x, x1, y, y1, wheel as u8, 0]
            }
            Self::Point { x, y, wheel, buttons } => {
                let ([x, x1], [y, y1]) = (x.to_le_bytes(), y.to_le_bytes());
                [3, buttons, x, x1, y, y1, wheel as u8, 0]
            }
        }
    }

    /// Reads one; `None`: it is none.
    #[must_use]
    pub const fn decode(bytes: [u8; LENGTH]) -> Option<Self> {
        match bytes {
            [1, down @ (0 | 1), low, high, 0, 0, 0, 0] => Some(Self::Key {
                code: u16::from_le_bytes([low, high]),
                down: down == 1,
            }),
            [2, buttons @ 0..=7, x, x1, y, y1, wheel, 0] => Some(Self::Mouse {
                dx: i16::from_le_bytes([x, x1]),
                dy: i16::from_le_bytes([y, y1]),
                wheel: wheel as i8,
                buttons,
            }),
            [3, buttons @ 0..=7, x, x1 @ 0..=0x7f, y, y1 @ 0..=0x7f, wheel, 0] => Some(Self::Point {
                x: u16::from_le_bytes([x, x1]),
                y: u16::from_le_bytes([y, y1]),
                wheel: wheel as i8,
                buttons,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(code: u16, down: bool, dx: i16, dy: i16, wheel: i8, buttons in 0u8..8, x in 0..=MOST, y in 0..=MOST) {
            for event in [Event::Key { code, down }, Event::Mouse { dx, dy, wheel, buttons }, Event::Point { x, y, wheel, buttons }] {
                prop_assert_eq!(Event::decode(event.encode()), Some(event));
            }
        }

        #[test]
        fn any_bytes_are_one_event_or_none(bytes: [u8; LENGTH]) {
            if let Some(event) = Event::decode(bytes) {
                prop_assert_eq!(event.encode(), bytes);
            }
        }
    }
}
