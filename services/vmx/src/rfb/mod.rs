//! An RFB 3.8 server (RFC 6143) for one viewer, without a network: bytes go in and come out. What a viewer sends is hostile: nothing of it is kept beyond a bounded number of bytes.

mod format;
mod messages;
mod updates;
mod zrle;

use crate::deflate::Compressor;
use crate::keys::Held;
use crate::picture::Picture;
use alloc::vec::Vec;
use format::Format;
use messages::{Message, Parser};
use tessera_screen::{Event, MOST_PLACE, Memory};
use updates::Updates;

/// Bytes of output from which on no update is begun.
const ENOUGH: usize = 16 << 10;
/// The desktop's name.
const NAME: &[u8] = b"Tessera";
/// Encodings that are spoken, and what viewers understand beside (IANA, RFB encoding types).
mod encoding {
    pub const RAW: i32 = 0;
    pub const ZRLE: i32 = 16;
    pub const DESKTOP_SIZE: i32 = -223;
    pub const EXTENDED_KEYS: i32 = -258;
}

/// How far the handshake is (RFC 6143, 7.1 and 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Version,
    Security,
    Initialisation,
    Open,
}

/// What drives a view's input.
pub trait Input {
    /// Takes an event; it is lost when the guest does not take what was typed before.
    fn send(&mut self, event: Event);
    /// Types text, as far as there is room.
    fn type_text(&mut self, text: &str);
}

/// One viewer.
#[derive(Debug)]
pub struct Rfb {
    stage: Stage,
    parser: Parser,
    out: Vec<u8>,
    updates: Updates,
    held: Held,
    /// Place of the pointer and its buttons, as last told.
    pointer: Option<(u16, u16, u8)>,
    /// The same place in parts of the screen.
    place: (u16, u16),
    extended_keys: bool,
    resizes: bool,
}

/// Buttons as the guest counts them: left 1, right 2, middle 4.
const fn guest_buttons(buttons: u8) -> u8 {
    buttons & 1 | (buttons & 4) >> 1 | (buttons & 2) << 1
}

/// Where a column or line is, of so many.
fn place(at: u16, of: usize) -> u16 {
    let last = of.saturating_sub(1).max(1);
    (usize::from(at).min(last) * usize::from(MOST_PLACE) / last) as u16
}

/// The viewer broke the protocol: nothing more can be made of what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Rfb {
    /// A view that begins.
    #[must_use]
    pub fn new(compressor: &Compressor) -> Self {
        Self {
            stage: Stage::Version,
            parser: Parser::default(),
            out: b"RFB 003.008\n".to_vec(),
            updates: Updates::new(compressor.clone()),
            held: Held::default(),
            pointer: None,
            place: (0, 0),
            extended_keys: false,
            resizes: false,
        }
    }

    /// Takes bytes from the viewer; all of them are taken.
    ///
    /// # Errors
    /// They are not RFB. The view is to be closed.
    pub fn take(&mut self, bytes: &[u8], picture: &Picture, input: &mut dyn Input) -> Result<(), Broken> {
        self.parser.push(bytes);
        loop {
            match self.stage {
                Stage::Version => {
                    let Some(version) = self.parser.take::<12>() else { return Ok(()) };
                    // 3.7 differs in what is not used here; older ones know no list of security types.
                    if !matches!(&version, b"RFB 003.008\n" | b"RFB 003.007\n") {
                        return Err(Broken);
                    }
                    self.stage = Stage::Security;
                    // One type: none.
                    self.out.extend_from_slice(&[1, 1]);
                }
                Stage::Security => {
                    let Some([kind]) = self.parser.take() else { return Ok(()) };
                    if kind != 1 {
                        return Err(Broken);
                    }
                    self.out.extend_from_slice(&[0; 4]);
                    self.stage = Stage::Initialisation;
                }
                Stage::Initialisation => {
                    // Whether it shares makes no difference: everybody does.
                    let Some([_]) = self.parser.take() else { return Ok(()) };
                    let (width, height) = picture.size();
                    self.out.extend_from_slice(&(width as u16).to_be_bytes());
                    self.out.extend_from_slice(&(height as u16).to_be_bytes());
                    self.out.extend_from_slice(&Format::DEFAULT.encode());
                    self.out.extend_from_slice(&(NAME.len() as u32).to_be_bytes());
                    self.out.extend_from_slice(NAME);
                    self.updates.resize(width, height);
                    self.stage = Stage::Open;
                }
                Stage::Open => {
                    let Some(message) = self.parser.message()? else { return Ok(()) };
                    self.handle(message, picture, input)?;
                }
            }
        }
    }

    fn handle(&mut self, message: Message, picture: &Picture, input: &mut dyn Input) -> Result<(), Broken> {
        match message {
            Message::Format(bytes) => self.updates.format = Format::decode(&bytes).ok_or(Broken)?,
            Message::Encodings(encodings) => {
                self.updates.use_zrle(encodings.contains(&encoding::ZRLE));
                self.resizes = encodings.contains(&encoding::DESKTOP_SIZE);
                if encodings.contains(&encoding::EXTENDED_KEYS) && !core::mem::replace(&mut self.extended_keys, true) {
                    self.updates.announce(encoding::EXTENDED_KEYS);
                }
            }
            Message::Request { incremental, area } => self.updates.request(incremental, area),
            Message::Key { down, keysym } => {
                if let Some(code) = crate::keys::of_keysym(keysym) {
                    self.key(code, down, input);
                }
            }
            Message::ExtendedKey { down, code } => {
                // A prefix E0 is bit 7 (QEMU extended key event).
                let code = match code {
                    1..=0x7f => code as u16,
                    0x81..=0xff => 0xe000 | (code as u16 & 0x7f),
                    _ => return Ok(()),
                };
                self.key(code, down, input);
            }
            Message::Pointer { buttons, x, y } => self.point([x, y], buttons, picture, input),
            Message::Text(text) => input.type_text(&text),
        }
        Ok(())
    }

    fn key(&mut self, code: u16, down: bool, input: &mut dyn Input) {
        if self.held.note(code, down) {
            input.send(Event::Key { code, down });
        }
    }

    fn point(&mut self, [x, y]: [u16; 2], buttons: u8, picture: &Picture, input: &mut dyn Input) {
        let before = self.pointer.replace((x, y, buttons));
        let (old_x, old_y, old) = before.unwrap_or((x, y, 0));
        let pressed = buttons & !old;
        let far = |new: u16, old: u16| i32::from(new).saturating_sub(old.into()).clamp(-0x7fff, 0x7fff) as i16;
        // Buttons 4 and 5 are steps of the wheel away from the user and towards them.
        let wheel = i8::from(pressed & 0x10 != 0) - i8::from(pressed & 8 != 0);
        let moved = (x, y) != (old_x, old_y);
        let acted = (buttons ^ old) & 7 != 0 || pressed & 0x18 != 0;
        let buttons = guest_buttons(buttons);
        if moved || acted || before.is_none() {
            let (width, height) = picture.size();
            self.place = (place(x, width), place(y, height));
            let (x, y) = self.place;
            input.send(Event::Point { x, y, wheel, buttons });
        }
        if moved || acted {
            let (dx, dy) = (far(x, old_x), far(y, old_y));
            input.send(Event::Mouse { dx, dy, wheel, buttons });
        }
    }

    /// The viewer is gone: lets go of the keys that it held.
    pub fn end(&mut self, input: &mut dyn Input) {
        for code in self.held.all() {
            input.send(Event::Key { code, down: false });
        }
        if self.pointer.is_some_and(|(.., buttons)| buttons & 7 != 0) {
            let (x, y) = self.place;
            input.send(Event::Point {
                x,
                y,
                wheel: 0,
                buttons: 0,
            });
            input.send(Event::Mouse {
                dx: 0,
                dy: 0,
                wheel: 0,
                buttons: 0,
            });
        }
    }

    /// Makes output, if some is due and there is not enough already. `now` is a clock in microseconds; it is looked at so that this ends after some milliseconds.
    pub fn work(&mut self, picture: &Picture, video: &Memory, now: &dyn Fn() -> u64) {
        if self.stage == Stage::Open && self.out.len() < ENOUGH {
            self.updates.work(picture, video, self.resizes, now, &mut self.out);
        }
    }

    /// Bytes for the viewer; those that were sent are to be drained.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

#[cfg(test)]
mod tests;
