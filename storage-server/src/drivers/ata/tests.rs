//! The driver against a controller made of code, with a disk as the first drive of the first channel.

use super::{pieces, reaches, start};
use crate::controller::{Request, Segment};
use crate::drivers::Device;
use crate::drivers::testing::{Machine, Medium, Random, SECTORS, device, keeps_what_is_written, run, survives};
use core::cell::{Cell, RefCell};
use proptest::prelude::*;
use std::rc::Rc;
use tessera_block::IoError;
use tessera_device::hardware::Ports;

/// The first channel.
struct Model {
    machine: Rc<Machine>,
    medium: Rc<Medium>,
    /// Task file: two bytes for each register, the newer first.
    file: RefCell<[[u8; 2]; 8]>,
    status: Cell<u8>,
    error: Cell<u8>,
    data: RefCell<Vec<u16>>,
    command: Cell<u8>,
    master: RefCell<[u8; 16]>,
    hangs: Cell<bool>,
    gone: Cell<bool>,
    noise: Option<(Random, u64)>,
}

/// A command block, a control block or a bus master of it.
struct Range(Rc<Model>, u8);

impl Model {
    fn identify(&self) {
        let mut words = vec![0u16; 256];
        words[49] = 1 << 8;
        words[83] = 1 << 14 | 1 << 10;
        words[85] = 1 << 5;
        words[100] = SECTORS as u16;
        *self.data.borrow_mut() = words;
        self.status.set(0x58);
    }

    fn sector(&self) -> u64 {
        let file = self.file.borrow();
        let byte = |register: usize, older: usize| u64::from(file[register][older]);
        byte(3, 0) | byte(4, 0) << 8 | byte(5, 0) << 16 | byte(3, 1) << 24 | byte(4, 1) << 32 | byte(5, 1) << 40
    }

    /// Carries a transfer out when both sides have been told.
    fn transfer(&self) {
        let command = self.command.get();
        let running = self.master.borrow()[0] & 1 != 0;
        if !matches!(command, 0x25 | 0x35) || !running || self.hangs.get() {
            return;
        }
        self.command.set(0);
        let mut table = [0; 4];
        table.copy_from_slice(&self.master.borrow()[4..8]);
        let table = u64::from(u32::from_le_bytes(table));
        let mut found = Vec::new();
        for entry in 0..512 {
            let word = self.machine.word(table + entry * 8);
            let length = if word >> 32 & 0xffff == 0 { 1 << 16 } else { word >> 32 & 0xffff };
            found.push((word & 0xffff_ffff, length));
            if word >> 63 != 0 {
                break;
            }
        }
        let done = self.medium.transfer(&self.machine, self.sector(), &found, command == 0x35);
        self.status.set(if done { 0x50 } else { 0x51 });
        self.error.set(if done { 0 } else { 0x40 });
        let mut master = self.master.borrow_mut();
        master[2] |= 4;
    }

    fn disturb(&self, value: u16) -> u16 {
        match &self.noise {
            _ if self.gone.get() => u16::MAX,
            Some((random, rate)) if random.below(*rate) == 0 => random.next() as u16,
            _ => value,
        }
    }
}

impl Ports for Range {
    fn length(&self) -> u64 {
        if self.1 == 2 { 16 } else { 8 }
    }
    fn read8(&self, offset: u16) -> u8 {
        let model = &self.0;
        let second_drive = model.file.borrow()[6][0] & 0x10 != 0;
        let value = match (self.1, offset) {
            (0, 7) | (1, _) => {
                if second_drive {
                    0
                } else {
                    model.status.get()
                }
            }
            (0, 1) => model.error.get(),
            (2, offset) => model.master.borrow()[usize::from(offset) % 16],
            _ => 0,
        };
        model.disturb(value.into()) as u8
    }
    fn read16(&self, _: u16) -> u16 {
        let mut data = self.0.data.borrow_mut();
        let word = if data.is_empty() { 0xffff } else { data.remove(0) };
        if data.is_empty() {
            self.0.status.set(0x50);
        }
        self.0.disturb(word)
    }
    fn write8(&self, offset: u16, value: u8) {
        let model = &self.0;
        if model.noise.as_ref().is_some_and(|(random, rate)| random.below(*rate) == 0) {
            return;
        }
        match (self.1, offset) {
            (0, 7) => match value {
                0xec => model.identify(),
                0xea => model.status.set(if model.hangs.get() { 0x80 } else { 0x50 }),
                other => {
                    model.status.set(0xd0);
                    model.command.set(other);
                    model.transfer();
                }
            },
            (0, register) => {
                let place = &mut model.file.borrow_mut()[usize::from(register) % 8];
                *place = [value, place[0]];
            }
            (1, _) => model.status.set(if value & 4 != 0 { 0x80 } else { 0x50 }),
            (_, 2) => model.master.borrow_mut()[2] &= !(value & 6),
            (_, offset) => {
                model.master.borrow_mut()[usize::from(offset) % 16] = value;
                model.transfer();
            }
        }
    }
    fn write32(&self, offset: u16, value: u32) {
        let at = usize::from(offset) % 16;
        self.0.master.borrow_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

fn model(noise: Option<(Random, u64)>) -> (Rc<Machine>, Rc<Medium>, Rc<Model>, Device) {
    let machine = Rc::new(Machine::low());
    let medium = Medium::new();
    let model = Rc::new(Model {
        machine: machine.clone(),
        medium: medium.clone(),
        file: RefCell::default(),
        status: Cell::new(0x50),
        error: Cell::new(0),
        data: RefCell::default(),
        command: Cell::new(0),
        master: RefCell::default(),
        hangs: Cell::new(false),
        gone: Cell::new(false),
        noise,
    });
    let nothing = Rc::new(crate::drivers::testing::Nothing);
    let mut device = device(&machine, vec![], 5, nothing);
    device.memory = [const { None }; 6];
    for (bar, kind) in [(0, 0), (1, 1), (4, 2)] {
        device.ports[bar] = Some(Rc::new(Range(model.clone(), kind)));
    }
    (machine, medium, model, device)
}

#[test]
fn a_command_that_hangs_ends_and_the_disk_works_again() {
    let (machine, _, model, device) = model(None);
    let mut controller = start(&device, &mut 0).unwrap();
    assert_eq!(controller.unit(0).unwrap().geometry.sectors, SECTORS);
    assert!(controller.unit(1).is_none());
    model.hangs.set(true);
    assert_eq!(run(&mut *controller, &machine, &Request::FLUSH), Err(IoError::Timeout));
    model.hangs.set(false);
    for _ in 0..2 {
        controller.watch(machine.time.get(), &mut |_, _| {});
    }
    assert_eq!(run(&mut *controller, &machine, &Request::FLUSH), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_kept(seed: u64) {
        let (machine, medium, _, device) = model(None);
        let mut controller = start(&device, &mut 0).unwrap();
        keeps_what_is_written(&mut *controller, &machine, &medium, seed);
    }

    #[test]
    fn nonsense_is_survived(seed: u64, rate in 1u64..200) {
        let (machine, _, model, device) = model(Some((Random::new(seed), rate)));
        survives(|device| start(device, &mut 0), &device, &machine, &|| model.gone.set(true));
    }

    #[test]
    fn pieces_are_the_memory_and_cross_no_block(segments in proptest::collection::vec((0u64..1 << 31, 1u32..1 << 18), 0..6)) {
        let segments: Vec<Segment> = segments.into_iter().map(|(at, length)| Segment { physical: at * 2, length: length * 2 }).collect();
        let mut rest = segments.iter().copied();
        let mut left = Segment { physical: 0, length: 0 };
        for piece in pieces(&segments) {
            if left.length == 0 {
                left = rest.next().unwrap();
            }
            prop_assert_eq!(piece.physical, left.physical);
            prop_assert!(piece.length > 0 && piece.physical / 65536 == (piece.physical + u64::from(piece.length) - 1) / 65536);
            left = Segment { physical: left.physical + u64::from(piece.length), length: left.length - piece.length };
        }
        prop_assert!(left.length == 0 && rest.next().is_none());
        if reaches(&segments) {
            prop_assert!(segments.iter().all(|segment| segment.physical + u64::from(segment.length) <= 1 << 32));
        }
    }
}
