//! A tablet: a USB 2.0 device of the HID class (Device Class Definition for Human Interface Devices 1.11) with absolute coordinates, three buttons and a wheel. Numbers and report are those of QEMU's tablet, which drivers know.

use super::ring::Code;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use tessera_screen::MOST_PLACE;

/// Bytes of a report.
pub const REPORT: usize = 6;
/// Bytes of the longest packet of control transfers, and of reports.
const CONTROL_PACKET: u8 = 64;
const REPORT_PACKET: u16 = 8;
/// Changes that wait for the driver.
const WAITING: usize = 16;

/// Descriptors (USB 2.0, 9.6): device, configuration with interface, HID and endpoint, report.
const DEVICE: [u8; 18] = [
    18,
    1,
    0x00,
    0x02,
    0,
    0,
    0,
    CONTROL_PACKET,
    0x27,
    0x06,
    0x01,
    0x00,
    0x00,
    0x00,
    1,
    2,
    3,
    1,
];
const HID: [u8; 9] = [9, 0x21, 0x01, 0x00, 0, 1, 0x22, REPORT_DESCRIPTOR.len() as u8, 0];
/// Interface: one endpoint, HID, not one of the boot protocol. Endpoint 1 in: interrupts, each millisecond.
const CONFIGURATION: [u8; 18] = [9, 2, 34, 0, 1, 1, 0, 0xa0, 50, 9, 4, 0, 0, 1, 3, 0, 0, 0];
const ENDPOINT: [u8; 7] = [7, 5, 0x81, 3, REPORT_PACKET as u8, 0, 4];
const REPORT_DESCRIPTOR: [u8; 74] = [
    // Generic desktop, mouse: application, pointer: physical.
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, //
    // Buttons 1 to 3, a bit each, and five bits of nothing.
    0x05, 0x09, 0x19, 0x01, 0x29, 0x03, 0x15, 0x00, 0x25, 0x01, 0x95, 0x03, 0x75, 0x01, 0x81, 0x02, //
    0x95, 0x01, 0x75, 0x05, 0x81, 0x01, //
    // X and Y, absolute, 0 to 7FFF in 16 bits each.
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, 0x35, 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81,
    0x02, //
    // Wheel, relative, -7F to 7F.
    0x05, 0x01, 0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, 0x75, 0x08, 0x95, 0x01, 0x81, 0x06, //
    0xc0, 0xc0,
];
const STRINGS: [&str; 3] = ["Tessera", "USB Tablet", "1"];

/// Where somebody points, with buttons and steps of the wheel since the last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    x: u16,
    y: u16,
    buttons: u8,
    wheel: i8,
}

impl Change {
    fn report(self) -> [u8; REPORT] {
        let ([x, x1], [y, y1]) = (self.x.to_le_bytes(), self.y.to_le_bytes());
        // The wheel counts away from the user.
        [self.buttons, x, x1, y, y1, self.wheel.saturating_neg() as u8]
    }
}

/// A request (USB 2.0, 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    kind: u8,
    request: u8,
    value: u16,
    index: u16,
    length: u16,
}

impl Setup {
    /// Reads one.
    pub const fn read(bytes: [u8; 8]) -> Self {
        let [kind, request, v, v1, i, i1, l, l1] = bytes;
        Self {
            kind,
            request,
            value: u16::from_le_bytes([v, v1]),
            index: u16::from_le_bytes([i, i1]),
            length: u16::from_le_bytes([l, l1]),
        }
    }

    /// The device sends.
    pub const fn is_in(self) -> bool {
        self.kind & 0x80 != 0
    }
}

/// The tablet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tablet {
    configuration: u8,
    wakes: bool,
    idle: u8,
    protocol: u8,
    last: Change,
    waiting: heapless::Deque<Change, WAITING>,
}

impl Tablet {
    /// Its port was reset.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether a driver chose its configuration.
    pub const fn is_configured(&self) -> bool {
        self.configuration != 0
    }

    /// Somebody points there: buttons are left 1, right 2, middle 4, steps of the wheel towards the user.
    pub fn point(&mut self, x: u16, y: u16, wheel: i8, buttons: u8) {
        let change = Change {
            x: x.min(MOST_PLACE),
            y: y.min(MOST_PLACE),
            buttons: buttons & 7,
            wheel,
        };
        // A driver that is slow sees where the pointer is, not each place where it was; but each press.
        let full = self.waiting.is_full();
        if let Some(last) = self.waiting.back_mut()
            && (last.buttons == change.buttons || full)
        {
            let wheel = last.wheel.saturating_add(change.wheel);
            *last = Change { wheel, ..change };
            return;
        }
        // It is not full.
        let _ = self.waiting.push_back(change);
    }

    /// What waits for a driver is of no use any more.
    pub fn forget(&mut self) {
        self.waiting.clear();
    }

    /// The next report.
    pub fn report(&mut self) -> Option<[u8; REPORT]> {
        let change = self.waiting.pop_front()?;
        self.last = Change { wheel: 0, ..change };
        Some(change.report())
    }

    /// Answers a request: what it sends, at most as much as was asked for.
    ///
    /// # Errors
    /// [`Code::Stall`]: it knows no such request.
    pub fn request(&mut self, setup: Setup) -> Result<Vec<u8>, Code> {
        let mut answer = self.answer(setup).ok_or(Code::Stall)?;
        answer.truncate(setup.length.into());
        Ok(answer)
    }

    fn answer(&mut self, setup: Setup) -> Option<Vec<u8>> {
        let [low, high] = setup.value.to_le_bytes();
        match (setup.kind, setup.request) {
            // Status of device, interface, endpoint.
            (0x80, 0) => return Some(Vec::from([u8::from(self.wakes) << 1, 0])),
            (0x81 | 0x82, 0) => return Some(Vec::from([0, 0])),
            // A feature of the device: it may wake its host. Of an endpoint: halted, which is the controller's to know.
            (0, 1 | 3) if setup.value == 1 => self.wakes = setup.request == 3,
            (2, 1) if setup.value == 0 => {}
            (0x80, 6) => return descriptor(high, low),
            (0x81, 6) => return of_interface(high),
            (0x80, 8) => return Some(Vec::from([self.configuration])),
            (0, 9) if setup.value <= 1 => {
                self.configuration = low;
                self.forget();
            }
            (0x81, 10) => return Some(Vec::from([0])),
            (1, 11) if setup.value == 0 => {}
            // HID 1.11, 7.2: report, idle, protocol.
            (0xa1, 1) => return Some(Vec::from(self.last.report())),
            (0xa1, 2) => return Some(Vec::from([self.idle])),
            (0xa1, 3) => return Some(Vec::from([self.protocol])),
            (0x21, 9) => {}
            (0x21, 10) => self.idle = high,
            (0x21, 11) if setup.value <= 1 => self.protocol = low,
            _ => return None,
        }
        Some(Vec::new())
    }
}

fn descriptor(kind: u8, index: u8) -> Option<Vec<u8>> {
    match (kind, index) {
        (1, _) => Some(Vec::from(DEVICE)),
        (2, 0) => Some([&CONFIGURATION[..], &HID, &ENDPOINT].concat()),
        // The languages: English.
        (3, 0) => Some(Vec::from([4, 3, 9, 4])),
        (3, _) => {
            let text = STRINGS.get(usize::from(index) - 1)?;
            let mut bytes = Vec::from([2 + 2 * text.len() as u8, 3]);
            bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
            Some(bytes)
        }
        _ => None,
    }
}

fn of_interface(kind: u8) -> Option<Vec<u8>> {
    match kind {
        0x21 => Some(Vec::from(HID)),
        0x22 => Some(Vec::from(REPORT_DESCRIPTOR)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(tablet: &mut Tablet, bytes: [u8; 8]) -> Result<Vec<u8>, Code> {
        tablet.request(Setup::read(bytes))
    }

    #[test]
    fn descriptors_say_how_long_they_are() {
        let mut tablet = Tablet::default();
        let device = ask(&mut tablet, [0x80, 6, 0, 1, 0, 0, 255, 0]).unwrap();
        assert_eq!((device.len(), device[0]), (18, 18));
        let all = ask(&mut tablet, [0x80, 6, 0, 2, 0, 0, 255, 0]).unwrap();
        assert_eq!(all.len(), usize::from(all[2]));
        let mut rest = &all[..];
        let mut kinds = Vec::new();
        while let [length, kind, ..] = rest {
            kinds.push(*kind);
            rest = &rest[usize::from(*length)..];
        }
        assert_eq!(kinds, [2, 4, 0x21, 5]);
        let report = ask(&mut tablet, [0x81, 6, 0, 0x22, 0, 0, 255, 0]).unwrap();
        assert_eq!(report.len(), usize::from(HID[7]));
        assert_eq!(
            ask(&mut tablet, [0x80, 6, 0, 2, 0, 0, 9, 0]).unwrap().len(),
            9,
            "as much as was asked for"
        );
        let name = ask(&mut tablet, [0x80, 6, 2, 3, 9, 4, 255, 0]).unwrap();
        assert_eq!(name.len(), usize::from(name[0]));
        assert_eq!(ask(&mut tablet, [0x80, 6, 0, 9, 0, 0, 255, 0]), Err(Code::Stall));
        assert_eq!(ask(&mut tablet, [0x80, 6, 4, 3, 0, 0, 255, 0]), Err(Code::Stall));
    }

    #[test]
    fn places_are_merged_and_presses_are_not() {
        let mut tablet = Tablet::default();
        tablet.point(1, 2, 0, 0);
        tablet.point(3, 0xffff, 1, 0);
        tablet.point(3, 4, 0, 1);
        tablet.point(3, 4, 0, 0);
        assert_eq!(tablet.report(), Some([0, 3, 0, 0xff, 0x7f, 0xff]), "a step towards the user");
        assert_eq!(tablet.report(), Some([1, 3, 0, 4, 0, 0]));
        assert_eq!(tablet.report(), Some([0, 3, 0, 4, 0, 0]));
        assert_eq!(tablet.report(), None);
        assert_eq!(ask(&mut tablet, [0xa1, 1, 0, 1, 0, 0, 6, 0]).unwrap(), [0, 3, 0, 4, 0, 0]);
    }

    #[test]
    fn a_driver_that_does_not_read_misses_presses_not_the_place() {
        let mut tablet = Tablet::default();
        for number in 0..100 {
            tablet.point(number, 0, 0, (number & 1) as u8);
        }
        let mut last = None;
        for _ in 0..WAITING {
            last = tablet.report();
        }
        assert_eq!((last, tablet.report()), (Some([1, 99, 0, 0, 0, 0]), None));
    }

    proptest! {
        #[test]
        fn any_request_is_answered(requests in prop::collection::vec(any::<[u8; 8]>(), 1..100)) {
            let mut tablet = Tablet::default();
            for bytes in requests {
                let setup = Setup::read(bytes);
                if let Ok(answer) = tablet.request(setup) {
                    prop_assert!(answer.len() <= usize::from(setup.length));
                }
            }
        }
    }
}
