//! Keys: make codes of scan code set 1 (IBM PC/AT), for symbols of the X Window System and for characters on a keyboard with US layout.

/// Left shift.
pub const SHIFT: u16 = 0x2a;

/// Characters of the keys from code 2 on, plain and with shift; a blank stands for a key without character.
const PLAIN: &[u8; 52] = b"1234567890-=\x08\tqwertyuiop[]\n asdfghjkl;'` \\zxcvbnm,./";
const SHIFTED: &[u8; 52] = b"!@#$%^&*()_+\x08\tQWERTYUIOP{}\n ASDFGHJKL:\"~ |ZXCVBNM<>?";

/// The key of a character, and whether it is shifted.
#[must_use]
pub fn of_character(character: char) -> Option<(u16, bool)> {
    let byte = u8::try_from(character).ok().filter(u8::is_ascii)?;
    let byte = if byte == b'\r' { b'\n' } else { byte };
    if byte == b' ' {
        return Some((0x39, false));
    }
    let find = |keys: &[u8; 52]| keys.iter().position(|key| *key == byte).map(|place| place as u16 + 2);
    find(PLAIN)
        .map(|code| (code, false))
        .or_else(|| find(SHIFTED).map(|code| (code, true)))
}

/// The key with a symbol (X11 `keysymdef.h`).
#[must_use]
pub fn of_keysym(keysym: u32) -> Option<u16> {
    Some(match keysym {
        0x20..0x7f => of_character(char::from(keysym as u8))?.0,
        0xff08 => 0x0e,
        0xff09 | 0xfe20 => 0x0f,
        0xff0d => 0x1c,
        0xff13 => 0xe046,
        0xff14 => 0x46,
        0xff1b => 0x01,
        0xff50 => 0xe047,
        0xff51 => 0xe04b,
        0xff52 => 0xe048,
        0xff53 => 0xe04d,
        0xff54 => 0xe050,
        0xff55 => 0xe049,
        0xff56 => 0xe051,
        0xff57 => 0xe04f,
        0xff61 => 0xe037,
        0xff63 => 0xe052,
        0xff67 => 0xe05d,
        0xff7f => 0x45,
        0xff8d => 0xe01c,
        0xffaa => 0x37,
        0xffab => 0x4e,
        0xffad => 0x4a,
        0xffae | 0xff9f => 0x53,
        0xffaf => 0xe035,
        // Keypad: digits, and what they are without Num Lock.
        0xffb0 | 0xff9e => 0x52,
        0xffb1 | 0xff9c => 0x4f,
        0xffb2 | 0xff99 => 0x50,
        0xffb3 | 0xff9b => 0x51,
        0xffb4 | 0xff96 => 0x4b,
        0xffb5 | 0xff9d => 0x4c,
        0xffb6 | 0xff98 => 0x4d,
        0xffb7 | 0xff95 => 0x47,
        0xffb8 | 0xff97 => 0x48,
        0xffb9 | 0xff9a => 0x49,
        0xffbe..=0xffc7 => 0x3b + (keysym - 0xffbe) as u16,
        0xffc8 | 0xffc9 => 0x57 + (keysym - 0xffc8) as u16,
        0xffe1 => SHIFT,
        0xffe2 => 0x36,
        0xffe3 => 0x1d,
        0xffe4 => 0xe01d,
        0xffe5 => 0x3a,
        0xffe9 | 0xffe7 => 0x38,
        0xffea | 0xffe8 | 0xfe03 => 0xe038,
        0xffeb => 0xe05b,
        0xffec => 0xe05c,
        0xffff => 0xe053,
        _ => return None,
    })
}

/// Most keys that one viewer holds at once.
const MOST_HELD: usize = 16;

/// Keys that a viewer holds.
#[derive(Debug, Default)]
pub struct Held([u16; MOST_HELD]);

impl Held {
    /// Notes a key. Whether the guest is to be told: not of a key that goes up without having been down, nor of more keys than hands hold.
    pub fn note(&mut self, code: u16, down: bool) -> bool {
        let place = self.0.iter().position(|held| *held == code && code != 0);
        match (place, down) {
            // Again while it is down: it repeats.
            (Some(_), true) => true,
            (Some(place), false) => {
                self.0[place] = 0;
                true
            }
            (None, true) => self.0.iter_mut().find(|held| **held == 0).map(|free| *free = code).is_some(),
            (None, false) => false,
        }
    }

    /// All of them, which are held no more.
    pub fn all(&mut self) -> impl Iterator<Item = u16> + use<> {
        core::mem::take(&mut self.0).into_iter().filter(|code| *code != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_us_keyboard() {
        for (character, key) in [
            ('1', (2, false)),
            ('!', (2, true)),
            ('=', (0x0d, false)),
            ('q', (0x10, false)),
            ('\n', (0x1c, false)),
            ('a', (0x1e, false)),
            ('~', (0x29, true)),
            ('|', (0x2b, true)),
            ('z', (0x2c, false)),
            ('?', (0x35, true)),
            (' ', (0x39, false)),
            ('\t', (0x0f, false)),
        ] {
            assert_eq!(of_character(character), Some(key), "{character:?}");
        }
        assert_eq!(of_character('é'), None);
        assert!((' '..='~').all(|character| of_character(character).is_some()));
        assert_eq!(
            (of_keysym(0x41), of_keysym(0xffff), of_keysym(0xffc9)),
            (Some(0x1e), Some(0xe053), Some(0x58))
        );
        assert_eq!(of_keysym(0x12_3456), None);
    }

    #[test]
    fn what_is_held_is_let_go() {
        let mut held = Held::default();
        assert!(!held.note(0x1e, false), "was not down");
        assert!(held.note(0x1e, true) && held.note(0x1e, true) && held.note(0x1d, true));
        assert!(held.note(0x1e, false));
        assert_eq!(held.all().collect::<std::vec::Vec<_>>(), [0x1d]);
        assert_eq!(held.all().count(), 0);
        assert!((1..=16).all(|code| held.note(code, true)) && !held.note(17, true));
    }
}
