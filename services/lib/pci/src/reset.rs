//! Bringing one function back to what it is after power-on, in steps between which others get their turn: by a function-level reset (PCI Express 5.0, 6.6.2; the Advanced Features capability of conventional PCI has the same),
//! or else by switching it off and on (PCI Bus Power Management 1.2, 5.4.1).
//!
//! ```text
//! begin --> no access to memory --> nothing on its way any more --> reset --> answers again --> its header is what it was
//!                                   (waits)                         (waits)   (waits)
//! ```

use crate::capability::{Capability, find, id};
use crate::{Address, ConfigSpace, change_command, command, register};

/// Words of the header that a reset forgets: cache line, ranges, expansion ROM, interrupt line.
const KEPT: [u16; 9] = [3, 4, 5, 6, 7, 8, 9, 12, 15];
/// Milliseconds between two looks whether something is still on its way.
const LOOK_MS: u32 = 10;
/// Looks at that; afterwards it is reset all the same (6.6.2).
const LOOKS: u8 = 10;
/// Milliseconds that a function may take for its reset.
const RESET_MS: u32 = 100;
/// Milliseconds for which a function that was switched off, or on, is left alone.
const POWER_MS: u32 = 10;
/// Looks whether it answers, `RESET_MS` apart.
const ANSWERS: u8 = 10;

/// How a function is reset: the capability's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// PCI Express.
    Express(u16),
    /// Advanced Features.
    Advanced(u16),
    /// Power management: off (D3hot) and on (D0) without keeping anything.
    Power(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Looks so often yet whether something is on its way.
    Quiesce(u8),
    /// Switched off: on again.
    SwitchOn,
    /// Looks so often yet whether it answers.
    Answer(u8),
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another one, in so many milliseconds at the earliest.
    Wait(u32),
    /// The function is as after power-on, with its ranges where they were. It answers to none of them, and may access no memory.
    Done,
    /// It does not answer any more.
    Gone,
}

/// The reset of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    way: Way,
    header: [u32; KEPT.len()],
    next: Next,
}

impl Reset {
    /// The reset of a function with these capabilities, which is not begun yet; `None`: it cannot be reset by itself.
    #[must_use]
    pub fn find(space: &(impl ConfigSpace + ?Sized), at: Address, capabilities: &[Capability]) -> Option<Self> {
        let with =
            |kind: u8, most: u16, can: &dyn Fn(u16) -> bool| find(capabilities, kind).filter(|offset| *offset <= most && can(*offset));
        // Device capabilities, bit 28.
        let express = with(id::EXPRESS, 0xf4, &|offset| space.read(at, offset + 4) >> 28 & 1 != 0).map(Way::Express);
        // Its own capabilities: bits 24 (what is on its way can be seen) and 25 (reset).
        let advanced = || with(id::ADVANCED, 0xf8, &|offset| space.read(at, offset) >> 24 & 3 == 3).map(Way::Advanced);
        // Control, bit 3: switching it on changes nothing.
        let power = || with(id::POWER, 0xf8, &|offset| space.read(at, offset + 4) >> 3 & 1 == 0).map(Way::Power);
        let way = express.or_else(advanced).or_else(power)?;
        Some(Self {
            way,
            header: KEPT.map(|word| space.read(at, word * 4)),
            next: Next::Quiesce(LOOKS),
        })
    }

    /// Goes on with it.
    pub fn step(&mut self, space: &(impl ConfigSpace + ?Sized), at: Address) -> Step {
        match self.next {
            Next::Quiesce(looks) => {
                change_command(space, at, 0, command::BUS_MASTER);
                let pending = match self.way {
                    // Device status, bit 5.
                    Way::Express(offset) => space.read(at, offset + 8) >> 21 & 1 != 0,
                    // Status, bit 0.
                    Way::Advanced(offset) => space.read(at, offset + 4) >> 8 & 1 != 0,
                    Way::Power(_) => false,
                };
                if pending && looks > 0 {
                    self.next = Next::Quiesce(looks - 1);
                    return Step::Wait(LOOK_MS);
                }
                self.begin(space, at)
            }
            Next::SwitchOn => {
                if let Way::Power(offset) = self.way {
                    switch(space, at, offset, 0);
                }
                self.next = Next::Answer(ANSWERS);
                Step::Wait(POWER_MS)
            }
            Next::Answer(looks) => {
                let vendor = space.read(at, register::IDENTITY) as u16;
                // 1: not yet (2.3.1).
                if !matches!(vendor, 0xffff | 1) {
                    for (word, value) in KEPT.into_iter().zip(self.header) {
                        space.write(at, word * 4, value);
                    }
                    return Step::Done;
                }
                if looks == 0 {
                    return Step::Gone;
                }
                self.next = Next::Answer(looks - 1);
                Step::Wait(RESET_MS)
            }
        }
    }

    fn begin(&mut self, space: &(impl ConfigSpace + ?Sized), at: Address) -> Step {
        self.next = Next::Answer(ANSWERS);
        match self.way {
            Way::Express(offset) => {
                // Control in the low half, bit 15; the status in the high one is cleared by ones.
                let control = space.read(at, offset + 8) & 0xffff;
                space.write(at, offset + 8, control | 1 << 15);
                Step::Wait(RESET_MS)
            }
            Way::Advanced(offset) => {
                space.write(at, offset + 4, 1);
                Step::Wait(RESET_MS)
            }
            Way::Power(offset) => {
                switch(space, at, offset, 3);
                self.next = Next::SwitchOn;
                Step::Wait(POWER_MS)
            }
        }
    }
}

/// Sets the power state: 0 (D0) or 3 (D3hot). Bit 15, the event, is cleared by a one and stays.
fn switch(space: &(impl ConfigSpace + ?Sized), at: Address, offset: u16, state: u32) {
    let control = space.read(at, offset + 4);
    space.write(at, offset + 4, control & !(3 | 1 << 15) | state);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use core::ops::RangeInclusive;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A function that a reset makes forget its header, as hardware does.
    struct Device {
        words: RefCell<[u32; 64]>,
        /// How often it says that something is on its way, and that it does not answer yet.
        busy: RefCell<(u8, u8)>,
        resets: RefCell<u32>,
    }

    const HEADER: [u32; 3] = [0xfe00_0004, 0x8, 0xc001];

    impl Device {
        fn new(capability: [u32; 3]) -> (Self, Vec<Capability>) {
            let mut words = [0; 64];
            words[0] = 0x0010_1b36;
            words[1] = 7;
            words[4..7].copy_from_slice(&HEADER);
            words[16..19].copy_from_slice(&capability);
            let device = Self {
                words: RefCell::new(words),
                busy: RefCell::new((0, 0)),
                resets: RefCell::new(0),
            };
            let capabilities = std::vec![Capability {
                id: capability[0] as u8,
                offset: 0x40
            }];
            (device, capabilities)
        }

        fn forget(&self) {
            *self.resets.borrow_mut() += 1;
            self.words.borrow_mut()[1..16].fill(0);
        }

        fn run(&self, reset: &mut Reset) -> (Step, u32) {
            let mut waited = 0;
            for _ in 0..100 {
                match reset.step(self, Address::default()) {
                    Step::Wait(milliseconds) => waited += milliseconds,
                    end => return (end, waited),
                }
            }
            panic!("it does not end");
        }
    }

    impl ConfigSpace for Device {
        fn read(&self, _: Address, offset: u16) -> u32 {
            let mut busy = self.busy.borrow_mut();
            if offset == 0 && *self.resets.borrow() > 0 && busy.1 > 0 {
                busy.1 -= 1;
                return u32::MAX;
            }
            let words = self.words.borrow();
            let pending = offset == 0x48 && words[16] as u8 == id::EXPRESS && busy.0 > 0;
            if pending {
                busy.0 -= 1;
            }
            words[usize::from(offset / 4)] | u32::from(pending) << 21
        }

        fn write(&self, _: Address, offset: u16, value: u32) {
            let kind = self.words.borrow()[16] as u8;
            let before = core::mem::replace(&mut self.words.borrow_mut()[usize::from(offset / 4)], value);
            match (kind, offset) {
                (id::EXPRESS, 0x48) if value >> 15 & 1 != 0 => self.forget(),
                (id::ADVANCED, 0x44) if value & 1 != 0 => self.forget(),
                (id::POWER, 0x44) if before & 3 == 3 && value & 3 == 0 => self.forget(),
                _ => {}
            }
        }

        fn buses(&self) -> (u16, RangeInclusive<u8>) {
            (0, 0..=255)
        }
    }

    #[test]
    fn each_way_resets_once_and_keeps_the_ranges() {
        for capability in [
            [u32::from(id::EXPRESS), 1 << 28, 0],
            [u32::from(id::ADVANCED) | 3 << 24, 0, 0],
            [u32::from(id::POWER), 0, 0],
        ] {
            let (device, capabilities) = Device::new(capability);
            *device.busy.borrow_mut() = (3, 2);
            let mut reset = Reset::find(&device, Address::default(), &capabilities).unwrap();
            let (end, waited) = device.run(&mut reset);
            assert_eq!((end, *device.resets.borrow()), (Step::Done, 1));
            assert!(waited >= 2 * RESET_MS, "{waited}");
            assert_eq!(device.words.borrow()[4..7], HEADER);
            assert_eq!(device.words.borrow()[1], 0, "it answers to nothing");
        }
    }

    #[test]
    fn what_cannot_be_reset_is_not() {
        for capability in [
            [u32::from(id::EXPRESS), 0, 0],
            [u32::from(id::ADVANCED) | 1 << 24, 0, 0],
            [u32::from(id::POWER), 8, 0],
            [u32::from(id::MSIX), u32::MAX, 0],
        ] {
            let (device, capabilities) = Device::new(capability);
            assert_eq!(Reset::find(&device, Address::default(), &capabilities), None);
        }
    }

    #[test]
    fn a_function_that_is_busy_for_ever_is_reset_and_one_that_is_gone_is_told() {
        let (device, capabilities) = Device::new([u32::from(id::EXPRESS), 1 << 28, 0]);
        *device.busy.borrow_mut() = (u8::MAX, u8::MAX);
        let mut reset = Reset::find(&device, Address::default(), &capabilities).unwrap();
        assert_eq!(device.run(&mut reset).0, Step::Gone);
        assert_eq!(*device.resets.borrow(), 1);
    }

    proptest! {
        #[test]
        fn it_ends_whatever_stands_in_the_registers(words in prop::collection::vec(any::<u32>(), 64), kind in prop::sample::select(&[id::EXPRESS, id::ADVANCED, id::POWER]), offset in 0u16..64) {
            let (device, _) = Device::new([0; 3]);
            device.words.borrow_mut().copy_from_slice(&words);
            let capabilities = [Capability { id: kind, offset: offset * 4 }];
            if let Some(mut reset) = Reset::find(&device, Address::default(), &capabilities) {
                device.run(&mut reset);
            }
        }
    }
}
