//! A PS/2 mouse with Microsoft's wheel (IBM PS/2 Hardware Interface Technical Reference, Auxiliary Device; IntelliMouse's knock).

use super::Queue;
use serde::{Deserialize, Serialize};

const ACKNOWLEDGE: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const PASSED: u8 = 0xaa;
/// Bytes that may wait when a packet of four is added.
const MOST_WAITING: usize = 12;
/// Sample rates that, set one after the other, switch the wheel on.
const KNOCK: [u8; 3] = [200, 100, 80];

/// The mouse.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Mouse {
    pub(super) waiting: Queue,
    pending: u8,
    /// It reports what happens by itself.
    reporting: bool,
    /// It does so at all; else it is asked.
    streaming: bool,
    echoing: bool,
    wheel: bool,
    scaled: bool,
    resolution: u8,
    /// The last three sample rates.
    rates: [u8; 3],
    buttons: u8,
    /// Movement that was not reported: right, down, towards the user.
    moved: (i32, i32, i32),
    /// Buttons changed since the last report.
    changed: bool,
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            waiting: Queue::new(),
            pending: 0,
            reporting: false,
            streaming: true,
            echoing: false,
            wheel: false,
            scaled: false,
            resolution: 2,
            rates: [0, 0, 100],
            buttons: 0,
            moved: (0, 0, 0),
            changed: false,
        }
    }
}

/// As much of a distance as a byte of a packet says; the rest stays.
fn step(distance: &mut i32) -> i32 {
    let part = (*distance).clamp(-127, 127);
    *distance -= part;
    part
}

impl Mouse {
    fn answer(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // As the keyboard's.
            let _ = self.waiting.push_back(*byte);
        }
    }

    /// A byte from the guest.
    pub(super) fn write(&mut self, byte: u8) {
        if self.echoing && !matches!(byte, 0xec | 0xff) {
            return self.answer(&[byte]);
        }
        match core::mem::take(&mut self.pending) {
            0xe8 => {
                self.resolution = byte & 3;
                return self.answer(&[ACKNOWLEDGE]);
            }
            0xf3 => {
                self.rates = [self.rates[1], self.rates[2], byte];
                self.wheel |= self.rates == KNOCK;
                return self.answer(&[ACKNOWLEDGE]);
            }
            _ => {}
        }
        match byte {
            0xe6 | 0xe7 => self.scaled = byte == 0xe7,
            0xe8 | 0xf3 => self.pending = byte,
            0xe9 => {
                let flags = u8::from(!self.streaming) << 6 | u8::from(self.reporting) << 5 | u8::from(self.scaled) << 4;
                let buttons = self.buttons & 1 << 2 | (self.buttons & 4) >> 1 | (self.buttons & 2) >> 1;
                let (resolution, rate) = (self.resolution, self.rates[2]);
                return self.answer(&[ACKNOWLEDGE, flags | buttons, resolution, rate]);
            }
            0xea | 0xf0 => self.streaming = byte == 0xea,
            0xeb => {
                self.answer(&[ACKNOWLEDGE]);
                return self.report();
            }
            0xec | 0xee => self.echoing = byte == 0xee,
            0xf2 => {
                let kind = if self.wheel { 3 } else { 0 };
                return self.answer(&[ACKNOWLEDGE, kind]);
            }
            0xf4 | 0xf5 => {
                self.reporting = byte == 0xf4;
                (self.moved, self.changed) = ((0, 0, 0), false);
            }
            0xf6 => {
                *self = Self {
                    wheel: self.wheel,
                    ..Self::default()
                };
            }
            0xff => {
                *self = Self::default();
                return self.answer(&[ACKNOWLEDGE, PASSED, 0]);
            }
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACKNOWLEDGE]);
    }

    /// It was moved, its buttons are now these: left 1, right 2, middle 4.
    pub(super) fn moved(&mut self, dx: i16, dy: i16, wheel: i8, buttons: u8) {
        if !self.reporting {
            self.buttons = buttons & 7;
            return;
        }
        // A press and its end are two reports.
        if self.changed && self.buttons != buttons & 7 {
            self.report();
        }
        let (x, y, z) = &mut self.moved;
        *x = x.saturating_add(dx.into()).clamp(-0xffff, 0xffff);
        *y = y.saturating_add(dy.into()).clamp(-0xffff, 0xffff);
        *z = z.saturating_add(wheel.into()).clamp(-0x7f, 0x7f);
        self.changed |= self.buttons != buttons & 7;
        self.buttons = buttons & 7;
        self.send();
    }

    /// Whether something more can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() <= MOST_WAITING && !(self.reporting && self.streaming && self.moved != (0, 0, 0))
    }

    /// Reports what happened, as far as there is room.
    pub(super) fn send(&mut self) {
        while self.reporting && self.streaming && self.waiting.len() <= MOST_WAITING && (self.changed || self.moved != (0, 0, 0)) {
            self.report();
        }
    }

    fn report(&mut self) {
        let (x, y) = (step(&mut self.moved.0), -step(&mut self.moved.1));
        let z = self.moved.2.clamp(-8, 7);
        self.moved.2 -= z;
        self.changed = false;
        let signs = u8::from(x < 0) << 4 | u8::from(y < 0) << 5;
        self.answer(&[8 | signs | self.buttons, x as u8, y as u8]);
        if self.wheel {
            self.answer(&[z as u8]);
        }
    }
}
