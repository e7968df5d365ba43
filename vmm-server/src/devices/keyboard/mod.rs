//! The 8042 keyboard controller (IBM PS/2 hardware reference), with A20 and the reset line. On machines with a screen a keyboard and a mouse are plugged in; without, drivers find that there are none.

mod keys;
mod mouse;

use super::power::Request;
use keys::Keys;
use mouse::Mouse;
use serde::{Deserialize, Serialize};
use tessera_screen::Event;

/// Bytes that wait somewhere.
type Queue = heapless::Deque<u8, 16>;

/// Interrupt lines of the keyboard and the mouse.
pub const LINES: [usize; 2] = [1, 12];

/// Status: output buffer full.
const FULL: u8 = 1;
/// Status: self-test passed.
const SYSTEM: u8 = 4;
/// Status: the last write was a command.
const COMMAND: u8 = 8;
/// Status: what is in the output buffer comes from the mouse.
const FROM_MOUSE: u8 = 0x20;
/// Status: time-out and parity error. Nobody is at the other end; UEFI's drivers, which would wait for answers for seconds, go by both together.
const NOBODY: u8 = 0xc0;
/// Configuration: interrupts of keyboard and mouse.
const INTERRUPTS: [u8; 2] = [1, 2];
/// Configuration: the clock of keyboard and mouse is held.
const HELD: [u8; 2] = [0x10, 0x20];
/// Configuration: codes are translated to set 1.
const TRANSLATE: u8 = 0x40;
/// Test passed.
const PASSED: u8 = 0x55;
/// Clock line of an absent device stays low.
const ABSENT: u8 = 1;

/// Whether a key (set 1, a prefix in the high byte) is one that others are held with: shift, control, alt, logo.
#[must_use]
pub const fn is_modifier(code: u16) -> bool {
    matches!(code, 0x1d | 0x2a | 0x36 | 0x38 | 0xe01d | 0xe038 | 0xe05b | 0xe05c)
}

/// The controller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Keyboard {
    /// What the guest reads next, and whether the mouse sent it.
    output: Option<(u8, bool)>,
    /// Bytes of the controller itself, or that it was told to pass as a device's.
    own: heapless::Deque<(u8, bool), 4>,
    configuration: u8,
    /// Command that waits for its data byte.
    pending: u8,
    output_port: u8,
    last_was_command: bool,
    /// The next byte of the keyboard ends a key's press.
    release: bool,
    plugged: Option<(Keys, Mouse)>,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            output: None,
            own: heapless::Deque::new(),
            configuration: 0x44,
            pending: 0,
            output_port: 3,
            last_was_command: false,
            release: false,
            plugged: None,
        }
    }
}

impl Keyboard {
    /// After power-on, with keyboard and mouse or without; as firmware leaves them, the keyboard works and the mouse does not.
    #[must_use]
    pub fn new(plugged: bool) -> Self {
        let mut controller = Self::default();
        if plugged {
            controller.plugged = Some((Keys::default(), Mouse::default()));
            controller.configuration |= INTERRUPTS[0] | HELD[1];
        }
        controller
    }

    /// Whether something is plugged in.
    #[must_use]
    pub const fn is_plugged(&self) -> bool {
        self.plugged.is_some()
    }

    /// Reads a byte from 0x60 or 0x64.
    pub fn read(&mut self, port: u16) -> u8 {
        if port & 4 == 0 {
            return self.output.take().map_or(0, |(byte, _)| byte);
        }
        let output = match self.output {
            None => 0,
            Some((_, false)) => FULL,
            Some((_, true)) => FULL | FROM_MOUSE,
        };
        let nobody = if self.is_plugged() { 0 } else { NOBODY };
        SYSTEM | nobody | output | if self.last_was_command { COMMAND } else { 0 }
    }

    /// Puts the next byte where the guest reads it, if the last was read.
    pub fn fill(&mut self) {
        if self.output.is_some() {
            return;
        }
        if let Some(own) = self.own.pop_front() {
            self.output = Some(own);
            return;
        }
        let Some((keys, mouse)) = &mut self.plugged else { return };
        if self.configuration & HELD[0] == 0 {
            while let Some(byte) = keys.waiting.pop_front() {
                if self.configuration & TRANSLATE == 0 {
                    self.output = Some((byte, false));
                    return;
                }
                if byte == 0xf0 {
                    self.release = true;
                    continue;
                }
                let byte = match byte {
                    0xe0 | 0xe1 => byte,
                    _ => keys::translate(byte) | if core::mem::take(&mut self.release) { 0x80 } else { 0 },
                };
                self.output = Some((byte, false));
                return;
            }
        }
        if self.configuration & HELD[1] == 0 {
            mouse.send();
            self.output = mouse.waiting.pop_front().map(|byte| (byte, true));
        }
    }

    /// Whether the lines of keyboard and mouse are raised.
    #[must_use]
    pub fn lines(&self) -> [bool; 2] {
        let line = |mouse: bool| {
            let enabled = self.configuration & INTERRUPTS[usize::from(mouse)] != 0;
            enabled && self.output.is_some_and(|(_, from)| from == mouse)
        };
        [line(false), line(true)]
    }

    /// Whether another event can be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.plugged
            .as_ref()
            .is_some_and(|(keys, mouse)| keys.has_room() && mouse.has_room())
    }

    /// Somebody typed, or moved the mouse.
    pub fn event(&mut self, event: Event) {
        let Some((keys, mouse)) = &mut self.plugged else { return };
        match event {
            Event::Key { code, down } => keys.key(code, down),
            Event::Mouse { dx, dy, wheel, buttons } => mouse.moved(dx, dy, wheel, buttons),
            // A place is nothing to a mouse.
            Event::Point { .. } => {}
        }
    }

    fn answer(&mut self, byte: u8, mouse: bool) {
        // Whoever asks without reading loses answers.
        let _ = self.own.push_back((byte, mouse));
        self.fill();
    }

    /// Writes a byte; the answer is what the guest asks for with it.
    pub fn write(&mut self, port: u16, value: u8) -> Option<Request> {
        self.last_was_command = port & 4 != 0;
        let request = if port & 4 == 0 { self.data(value) } else { self.command(value) };
        self.fill();
        request
    }

    fn data(&mut self, value: u8) -> Option<Request> {
        match (core::mem::take(&mut self.pending), &mut self.plugged) {
            (0x60, _) => self.configuration = value,
            (0xd1, _) => {
                self.output_port = value;
                return (value & 1 == 0).then_some(Request::Reset);
            }
            (pending @ (0xd2 | 0xd3), _) => self.answer(value, pending == 0xd3),
            (0xd4, Some((_, mouse))) => mouse.write(value),
            (0, Some((keys, _))) => {
                // A byte for the keyboard lets its clock go.
                self.configuration &= !HELD[0];
                keys.write(value);
            }
            // Bytes for devices that are not there get no answer.
            _ => (),
        }
        None
    }

    fn command(&mut self, value: u8) -> Option<Request> {
        match value {
            0x20 => self.answer(self.configuration, false),
            0x60 | 0xd1..=0xd4 => self.pending = value,
            0xa7 => self.configuration |= HELD[1],
            0xa8 => self.configuration &= !HELD[1],
            0xad => self.configuration |= HELD[0],
            0xae => self.configuration &= !HELD[0],
            0xa9 | 0xab => self.answer(if self.is_plugged() { 0 } else { ABSENT }, false),
            0xaa => self.answer(PASSED, false),
            0xd0 => self.answer(self.output_port, false),
            // Pulses of output lines; bit 0 low is the reset line.
            0xf0..=0xff if value & 1 == 0 => return Some(Request::Reset),
            _ => (),
        }
        None
    }

    /// Reads port 0x92: A20.
    #[must_use]
    pub const fn read_system_port(&self) -> u8 {
        self.output_port & 2
    }

    /// Writes port 0x92: A20 (which has no effect) and fast reset.
    pub fn write_system_port(&mut self, value: u8) -> Option<Request> {
        self.output_port = self.output_port & !2 | value & 2;
        (value & 1 != 0).then_some(Request::Reset)
    }
}

#[cfg(test)]
mod tests;
