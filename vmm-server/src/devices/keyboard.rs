//! The 8042 keyboard controller with nothing plugged in (IBM PS/2 hardware reference): enough for drivers to find that out, for A20, and for the reset line.

use super::power::Request;

/// Output buffer full.
const FULL: u8 = 1;
/// Self-test passed.
const SYSTEM: u8 = 4;
/// The last write was a command.
const COMMAND: u8 = 8;
/// Test passed.
const PASSED: u8 = 0x55;
/// Clock line of an absent device stays low.
const ABSENT: u8 = 1;

/// The controller.
#[derive(Clone, Debug)]
pub struct Keyboard {
    output: Option<u8>,
    configuration: u8,
    /// Command that waits for its data byte.
    pending: u8,
    output_port: u8,
    last_was_command: bool,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            output: None,
            configuration: 0x44,
            pending: 0,
            output_port: 3,
            last_was_command: false,
        }
    }
}

impl Keyboard {
    /// Reads a byte from 0x60 or 0x64.
    pub fn read(&mut self, port: u16) -> u8 {
        if port & 4 == 0 {
            return self.output.take().unwrap_or(0);
        }
        SYSTEM | if self.output.is_some() { FULL } else { 0 } | if self.last_was_command { COMMAND } else { 0 }
    }

    /// Writes a byte; the answer is what the guest asks for with it.
    pub fn write(&mut self, port: u16, value: u8) -> Option<Request> {
        self.last_was_command = port & 4 != 0;
        if port & 4 == 0 {
            match core::mem::take(&mut self.pending) {
                0x60 => self.configuration = value,
                0xd1 => {
                    self.output_port = value;
                    return (value & 1 == 0).then_some(Request::Reset);
                }
                0xd2 | 0xd3 => self.output = Some(value),
                // Bytes for devices that are not there get no answer.
                _ => (),
            }
            return None;
        }
        match value {
            0x20 => self.output = Some(self.configuration),
            0x60 | 0xd1..=0xd4 => self.pending = value,
            0xa7 => self.configuration |= 0x20,
            0xa8 => self.configuration &= !0x20,
            0xad => self.configuration |= 0x10,
            0xae => self.configuration &= !0x10,
            0xa9 | 0xab => self.output = Some(ABSENT),
            0xaa => self.output = Some(PASSED),
            0xd0 => self.output = Some(self.output_port),
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
mod tests {
    use super::*;

    #[test]
    fn resets() {
        assert_eq!(Keyboard::default().write(0x64, 0xfe), Some(Request::Reset));
        assert_eq!(Keyboard::default().write_system_port(1), Some(Request::Reset));
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.write(0x64, 0xd1), None);
        assert_eq!(keyboard.write(0x60, 0xdf), None);
        keyboard.write(0x64, 0xd1);
        assert_eq!(keyboard.write(0x60, 0xfe), Some(Request::Reset));
    }

    #[test]
    fn answers_probes() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.read(0x64) & 3, 0, "ready, nothing there");
        keyboard.write(0x64, 0xaa);
        assert_eq!(keyboard.read(0x64) & FULL, FULL);
        assert_eq!(keyboard.read(0x60), PASSED);
        keyboard.write(0x64, 0x60);
        keyboard.write(0x60, 0x12);
        keyboard.write(0x64, 0x20);
        assert_eq!(keyboard.read(0x60), 0x12);
        keyboard.write(0x64, 0xab);
        assert_eq!(keyboard.read(0x60), ABSENT);
    }

    #[test]
    fn any_byte_anywhere() {
        let mut keyboard = Keyboard::default();
        for command in 0..=255 {
            for data in [0, 1, 0xff] {
                keyboard.write(0x64, command);
                keyboard.write(0x60, data);
                keyboard.read(0x60);
                keyboard.read(0x64);
            }
        }
    }
}
