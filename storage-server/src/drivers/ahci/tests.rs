//! The driver against a controller made of code, with a disk at port 1.

use super::{Names, start};
use crate::controller::{Controller, Operation, Request, Segment};
use crate::drivers::Device;
use crate::drivers::testing::{Machine, Medium, Noisy, SECTORS, device, keeps_what_is_written, run, survives};
use core::cell::{Cell, RefCell};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_block::IoError;
use tessera_device::hardware::{Platform, Registers};
use tessera_proto::storage::DiskState;

/// Base of port 1.
const PORT: u64 = 0x180;

struct Model {
    machine: Rc<Machine>,
    medium: Rc<Medium>,
    registers: RefCell<BTreeMap<u64, u32>>,
    /// It queues commands.
    queues: bool,
    /// Commands stay at work.
    hangs: Cell<bool>,
    /// The disk warns that it is failing.
    warns: Cell<bool>,
}

impl Model {
    fn get(&self, offset: u64) -> u32 {
        self.registers.borrow().get(&offset).copied().unwrap_or(0)
    }

    fn set(&self, offset: u64, value: u32) {
        self.registers.borrow_mut().insert(offset, value);
    }

    fn identify(&self) -> Vec<u8> {
        let mut data = vec![0u8; 512];
        let mut word = |at: usize, value: u16| data[at * 2..at * 2 + 2].copy_from_slice(&value.to_le_bytes());
        word(49, 1 << 8);
        word(75, 31);
        word(76, 1 << 8);
        word(82, 1);
        word(83, 1 << 14 | 1 << 10);
        word(85, 1 << 5 | 1);
        word(100, SECTORS as u16);
        word(169, 1);
        for (index, pair) in ["MO", "DE", "L "].iter().enumerate() {
            word(27 + index, u16::from_be_bytes(pair.as_bytes().try_into().unwrap()));
        }
        data
    }

    /// Carries a command out; false: it failed.
    fn carry_out(&self, slot: u64) -> bool {
        let list = u64::from(self.get(PORT)) | u64::from(self.get(PORT + 4)) << 32;
        let header = list + slot * 32;
        let table = self.machine.word(header + 8);
        let mut frame = [0u8; 16];
        self.machine.load(table, &mut frame);
        let count = self.machine.word(header) >> 16 & 0xffff;
        let pieces: Vec<(u64, u64)> = (0..count)
            .map(|index| {
                (
                    self.machine.word(table + 0x80 + index * 16),
                    (self.machine.word(table + 0x88 + index * 16) >> 32 & 0x3f_ffff) + 1,
                )
            })
            .collect();
        let sector = u64::from_le_bytes([frame[4], frame[5], frame[6], frame[8], frame[9], frame[10], 0, 0]);
        let writes = self.machine.word(header) & 1 << 6 != 0;
        match frame[2] {
            0xec => {
                self.machine.store(pieces[0].0, &self.identify());
                true
            }
            0x25 | 0x60 => !writes && self.medium.transfer(&self.machine, sector, &pieces, false),
            0x35 | 0x61 => writes && self.medium.transfer(&self.machine, sector, &pieces, true),
            0xea => true,
            0xb0 if frame[3] == 0xd0 => {
                let mut data = [0u8; 512];
                data[2] = 194;
                data[7] = 31;
                self.machine.store(pieces[0].0, &data);
                true
            }
            0xb0 if frame[3] == 0xda && pieces.is_empty() => {
                let frames = u64::from(self.get(PORT + 8)) | u64::from(self.get(PORT + 12)) << 32;
                let verdict = if self.warns.get() { [0xf4, 0x2c] } else { [0x4f, 0xc2] };
                self.machine.store(frames + 0x45, &verdict);
                true
            }
            0x06 => (0..64).all(|range| {
                let entry = self.machine.word(pieces[0].0 + range * 8);
                self.medium.zero(entry & 0xffff_ffff_ffff, entry >> 48)
            }),
            _ => false,
        }
    }

    fn issue(&self, slots: u32) {
        if self.get(PORT + 0x18) & 1 == 0 || self.hangs.get() {
            return;
        }
        for slot in (0..32).filter(|slot| slots >> slot & 1 != 0) {
            let done = self.carry_out(slot);
            let queued = self.get(PORT + 0x34) >> slot & 1 != 0;
            self.set(PORT + 0x20, if done { 0x50 } else { 0x4041 });
            if done || queued {
                self.set(PORT + 0x38, self.get(PORT + 0x38) & !(1 << slot));
            }
            if done {
                self.set(PORT + 0x34, self.get(PORT + 0x34) & !(1 << slot));
                self.set(PORT + 0x10, self.get(PORT + 0x10) | 1);
            } else {
                // The list stops at the first error.
                self.set(PORT + 0x10, self.get(PORT + 0x10) | 1 << 30);
                return;
            }
        }
    }
}

impl Registers for Model {
    fn read8(&self, _: u64) -> u8 {
        0
    }
    fn read16(&self, _: u64) -> u16 {
        0
    }
    fn read32(&self, offset: u64) -> u32 {
        match offset {
            // 64-bit addresses, 32 slots, perhaps queues.
            0 => 1 << 31 | 31 << 8 | u32::from(self.queues) << 30,
            0x0c => 0b11,
            0x1a4 => 0x101,
            // Ready after a reset, unless a command has left something else.
            offset if offset == PORT + 0x20 => self.registers.borrow().get(&offset).copied().unwrap_or(0x50),
            offset if offset == PORT + 0x28 => 0x123,
            other => self.get(other),
        }
    }
    fn write8(&self, _: u64, _: u8) {}
    fn write16(&self, _: u64, _: u16) {}
    fn write32(&self, offset: u64, value: u32) {
        match offset {
            0x04 => self.set(offset, value & !1),
            0x08 => self.set(offset, self.get(offset) & !value),
            offset if offset == PORT + 0x10 || offset == PORT + 0x30 => self.set(offset, self.get(offset) & !value),
            offset if offset == PORT + 0x18 => {
                if value & 1 == 0 {
                    self.set(PORT + 0x34, 0);
                    self.set(PORT + 0x38, 0);
                }
                // The list runs as long as it is told to.
                self.set(offset, value | (value & 1) << 15);
            }
            offset if offset == PORT + 0x34 => self.set(offset, self.get(offset) | value),
            offset if offset == PORT + 0x38 => {
                self.set(offset, self.get(offset) | value);
                self.issue(value);
            }
            other => self.set(other, value),
        }
    }
}

fn model(queues: bool) -> (Rc<Machine>, Rc<Medium>, Rc<Model>) {
    let machine = Rc::new(Machine::default());
    let medium = Medium::new();
    let model = Model {
        machine: machine.clone(),
        medium: medium.clone(),
        registers: RefCell::default(),
        queues,
        hangs: Cell::new(false),
        warns: Cell::new(false),
    };
    (machine, medium, Rc::new(model))
}

fn begin(device: &Device) -> Result<Box<dyn Controller>, String> {
    let names = Names {
        disks: &mut 2,
        drives: &mut 0,
    };
    start(device, names)
}

#[test]
fn a_disk_tells_of_itself_and_obeys() {
    let (machine, medium, model) = model(true);
    let mut controller = begin(&device(&machine, vec![], 5, model)).unwrap();
    let unit = controller.unit(0).unwrap();
    assert_eq!((&*unit.name, &*unit.model, unit.geometry.sectors), ("sata2", "MODEL", SECTORS));
    assert_eq!(controller.unit(1), None);
    medium.bytes.borrow_mut().fill(1);
    let request = Request {
        operation: Operation::Discard,
        sector: 8,
        sectors: 2,
        segments: &[],
    };
    assert_eq!(run(&mut *controller, &machine, &request), Ok(()));
    let bytes = medium.bytes.borrow();
    assert!(bytes[4096..5120].iter().all(|byte| *byte == 0) && bytes[4095] == 1 && bytes[5120] == 1);
}

#[test]
fn a_disk_that_warns_is_known_to_fail() {
    let (machine, _, model) = model(true);
    let mut controller = begin(&device(&machine, vec![], 5, model.clone())).unwrap();
    let health = controller.unit(0).unwrap().health;
    assert_eq!((health.failing, health.temperature), (Some(false), Some(31)));
    model.warns.set(true);
    for second in 1..70 {
        controller.watch(machine.now() + second * 1000, &mut |_, _| panic!("nothing was asked"));
    }
    let health = controller.unit(0).unwrap().health;
    assert_eq!((health.failing, health.temperature), (Some(true), Some(31)));
}

#[test]
fn a_command_that_hangs_ends_and_the_disk_works_again() {
    let (machine, _, model) = model(true);
    let mut controller = begin(&device(&machine, vec![], 5, model.clone())).unwrap();
    model.hangs.set(true);
    assert_eq!(run(&mut *controller, &machine, &Request::FLUSH), Err(IoError::Timeout));
    model.hangs.set(false);
    assert_eq!(controller.unit(0).unwrap().state, DiskState::Ready);
    assert_eq!(run(&mut *controller, &machine, &Request::FLUSH), Ok(()));
}

#[test]
fn of_queued_commands_only_the_bad_one_fails() {
    let (machine, medium, model) = model(true);
    let mut controller = begin(&device(&machine, vec![], 5, model.clone())).unwrap();
    medium.bad.set(Some(40));
    // All are in flight before the disk looks at the first.
    model.hangs.set(true);
    for tag in 0..8u32 {
        let memory = machine.allocate(4096).unwrap();
        let segments = [Segment {
            physical: memory.physical(),
            length: 4096,
        }];
        let request = Request {
            operation: Operation::Read,
            sector: u64::from(tag) * 8,
            sectors: 8,
            segments: &segments,
        };
        controller.submit(0, &request, tag, 0).unwrap();
    }
    model.hangs.set(false);
    let mut ended = BTreeMap::new();
    model.issue(0xff);
    for _ in 0..40 {
        controller.poll(&mut |tag, result| assert!(ended.insert(tag, result).is_none()));
    }
    assert_eq!(ended.len(), 8);
    for (tag, result) in ended {
        assert_eq!(
            result,
            if tag == 5 { Err(IoError::Media { sector: 40 }) } else { Ok(()) },
            "command {tag}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_kept(seed: u64, queues: bool) {
        let (machine, medium, model) = model(queues);
        let mut controller = begin(&device(&machine, vec![], 5, model)).unwrap();
        keeps_what_is_written(&mut *controller, &machine, &medium, seed);
    }

    #[test]
    fn nonsense_is_survived(seed: u64, rate in 1u64..200, queues: bool) {
        let (machine, _, model) = model(queues);
        let noisy = Noisy::new(model, &machine, seed, rate);
        survives(begin, &device(&machine, vec![], 5, noisy.clone()), &machine, &|| noisy.pull_out());
    }
}
