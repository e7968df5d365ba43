//! The pair of 8259A interrupt controllers (Intel 8259A datasheet; ICH9 datasheet 13.4), as a boot loader and an early kernel use them.

use serde::{Deserialize, Serialize};

/// One controller.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Pic {
    /// Input levels.
    levels: u8,
    /// Requests.
    irr: u8,
    /// In service.
    isr: u8,
    /// Masked inputs.
    imr: u8,
    /// Level-triggered inputs (ELCR).
    elcr: u8,
    /// Inputs that may be level-triggered.
    elcr_mask: u8,
    /// Vector of input 0.
    base: u8,
    /// Lowest priority; the next input has the highest.
    lowest: u8,
    /// Initialisation word expected next, 0 for none.
    expect: u8,
    /// ICW4 will come.
    icw4: bool,
    /// One controller only.
    single: bool,
    read_isr: bool,
    poll: bool,
    auto_end: bool,
    rotate_on_auto_end: bool,
    special_mask: bool,
}

impl Pic {
    const fn new(elcr_mask: u8) -> Self {
        Self {
            levels: 0,
            irr: 0,
            isr: 0,
            imr: 0xff,
            elcr: 0,
            elcr_mask,
            base: 0,
            lowest: 7,
            expect: 0,
            icw4: false,
            single: false,
            read_isr: false,
            poll: false,
            auto_end: false,
            rotate_on_auto_end: false,
            special_mask: false,
        }
    }

    fn set(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        if level {
            if self.elcr & bit != 0 || self.levels & bit == 0 {
                self.irr |= bit;
            }
            self.levels |= bit;
        } else {
            self.levels &= !bit;
            // An edge that goes away before it was taken is forgotten too: the input must stay up (datasheet, "edge triggered").
            self.irr &= !bit;
        }
    }

    /// Distance of an input from the highest priority.
    const fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    fn best(&self, set: u8) -> Option<u8> {
        if set == 0 {
            return None;
        }
        (0..8u8).filter(|input| set >> input & 1 != 0).min_by_key(|&input| self.rank(input))
    }

    /// The input to serve now.
    fn pending(&self) -> Option<u8> {
        let input = self.best(self.irr & !self.imr)?;
        let blocking = if self.special_mask { self.isr & !self.imr } else { self.isr };
        match self.best(blocking) {
            Some(service) if self.rank(service) <= self.rank(input) => None,
            _ => Some(input),
        }
    }

    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if self.auto_end {
            if self.rotate_on_auto_end {
                self.lowest = input;
            }
        } else {
            self.isr |= bit;
        }
    }

    fn command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            // ICW1 starts initialisation; edges must come anew.
            *self = Self {
                levels: self.levels,
                elcr: self.elcr,
                imr: 0,
                expect: 2,
                icw4: value & 1 != 0,
                single: value & 2 != 0,
                ..Self::new(self.elcr_mask)
            };
            self.irr = self.levels & self.elcr;
            return;
        }
        if value & 0x08 != 0 {
            // OCW3.
            if value & 0x04 != 0 {
                self.poll = true;
            }
            if value & 0x02 != 0 {
                self.read_isr = value & 1 != 0;
            }
            if value & 0x40 != 0 {
                self.special_mask = value & 0x20 != 0;
            }
            return;
        }
        // OCW2.
        let named = value & 7;
        match value >> 5 {
            0 => self.rotate_on_auto_end = false,
            4 => self.rotate_on_auto_end = true,
            1 | 5 => {
                if let Some(input) = self.best(self.isr) {
                    self.isr &= !(1 << input);
                    if value >> 5 == 5 {
                        self.lowest = input;
                    }
                }
            }
            3 | 7 => {
                self.isr &= !(1 << named);
                if value >> 5 == 7 {
                    self.lowest = named;
                }
            }
            6 => self.lowest = named,
            _ => (),
        }
    }

    fn data(&mut self, value: u8) {
        match self.expect {
            2 => {
                self.base = value & 0xf8;
                self.expect = if self.single { if self.icw4 { 4 } else { 0 } } else { 3 };
            }
            3 => self.expect = if self.icw4 { 4 } else { 0 },
            4 => {
                self.auto_end = value & 2 != 0;
                self.expect = 0;
            }
            _ => self.imr = value,
        }
    }

    fn read(&mut self, data: bool) -> u8 {
        if self.poll {
            self.poll = false;
            return match self.pending() {
                Some(input) => {
                    self.acknowledge(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (data, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }
}

/// The two controllers, the second at input 2 of the first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PicPair {
    master: Pic,
    slave: Pic,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    /// After power-on: everything masked.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            master: Pic::new(0xf8),
            slave: Pic::new(0xde),
        }
    }

    /// Sets interrupt line 0 to 15.
    pub fn set_line(&mut self, line: usize, level: bool) {
        match line {
            2 => (),
            0..8 => self.master.set(line as u8, level),
            8..16 => self.slave.set(line as u8 - 8, level),
            _ => (),
        }
        self.cascade();
    }

    fn cascade(&mut self) {
        let level = self.slave.pending().is_some();
        self.master.set(2, level);
    }

    /// Whether the pair asks for an interrupt.
    #[must_use]
    pub fn output(&self) -> bool {
        self.master.pending().is_some()
    }

    /// The processor takes the interrupt: its vector. A request that went away meanwhile is spurious, input 7.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.pending() else {
            return self.master.base | 7;
        };
        self.master.acknowledge(input);
        if input != 2 {
            return self.master.base | input;
        }
        let vector = match self.slave.pending() {
            Some(input) => {
                self.slave.acknowledge(input);
                self.slave.base | input
            }
            None => self.slave.base | 7,
        };
        self.cascade();
        vector
    }

    /// Reads a byte from 0x20, 0x21, 0xa0, 0xa1, 0x4d0 or 0x4d1.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 | 0x21 => self.master.read(port & 1 != 0),
            0xa0 | 0xa1 => self.slave.read(port & 1 != 0),
            0x4d0 => self.master.elcr,
            0x4d1 => self.slave.elcr,
            _ => 0xff,
        };
        self.cascade();
        value
    }

    /// Writes a byte to one of these ports.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 => self.master.command(value),
            0x21 => self.master.data(value),
            0xa0 => self.slave.command(value),
            0xa1 => self.slave.data(value),
            0x4d0 => self.master.elcr = value & self.master.elcr_mask,
            0x4d1 => self.slave.elcr = value & self.slave.elcr_mask,
            _ => (),
        }
        self.cascade();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn initialised() -> PicPair {
        let mut pic = PicPair::new();
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 4),
            (0x21, 1),
            (0xa0, 0x11),
            (0xa1, 0x38),
            (0xa1, 2),
            (0xa1, 1),
        ] {
            pic.write(port, value);
        }
        pic
    }

    #[test]
    fn initialises_and_delivers() {
        let mut pic = initialised();
        pic.set_line(4, true);
        assert!(pic.output());
        assert_eq!(pic.acknowledge(), 0x34);
        assert!(!pic.output(), "an edge is delivered once");
        pic.write(0x20, 0x20);
        assert!(!pic.output());
        pic.set_line(4, false);
        pic.set_line(4, true);
        assert!(pic.output());
    }

    #[test]
    fn cascades() {
        let mut pic = initialised();
        pic.set_line(8, true);
        assert_eq!(pic.acknowledge(), 0x38);
        pic.set_line(12, true);
        assert!(!pic.output(), "input 2 is in service");
        pic.write(0xa0, 0x20);
        pic.write(0x20, 0x20);
        assert!(pic.output());
        assert_eq!(pic.acknowledge(), 0x3c);
    }

    #[test]
    fn priorities_and_masks() {
        let mut pic = initialised();
        pic.write(0x21, 1 << 3);
        pic.set_line(3, true);
        assert!(!pic.output());
        pic.set_line(5, true);
        assert_eq!(pic.acknowledge(), 0x35);
        pic.set_line(6, true);
        assert!(!pic.output(), "lower priority waits");
        pic.set_line(1, true);
        assert_eq!(pic.acknowledge(), 0x31, "higher priority nests");
        pic.write(0x20, 0x0b);
        assert_eq!(pic.read(0x20), 0b10_0010);
    }

    #[test]
    fn spurious() {
        let mut pic = initialised();
        pic.set_line(4, true);
        pic.set_line(4, false);
        assert!(!pic.output());
        assert_eq!(pic.acknowledge(), 0x37);
    }

    #[test]
    fn levels_ask_again() {
        let mut pic = initialised();
        pic.write(0x4d1, 0xff);
        assert_eq!(pic.read(0x4d1), 0xde, "lines 8 and 13 are always edges");
        pic.set_line(10, true);
        assert_eq!(pic.acknowledge(), 0x3a);
        pic.write(0xa0, 0x20);
        pic.write(0x20, 0x20);
        assert_eq!(pic.acknowledge(), 0x3a);
        pic.write(0xa0, 0x20);
        pic.write(0x20, 0x20);
        pic.set_line(10, false);
        assert!(!pic.output());
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..4, 0usize..16, any::<u8>()), 1..400)) {
            const PORTS: [u16; 6] = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
            let mut pic = PicPair::new();
            for (kind, place, value) in operations {
                match kind {
                    0 => pic.write(PORTS[place % 6], value),
                    1 => { pic.read(PORTS[place % 6]); }
                    2 => pic.set_line(place, value & 1 != 0),
                    _ => { pic.acknowledge(); }
                }
            }
        }
    }
}
