//! The driver against a device made of code.

use super::start;
use crate::controller::{Operation, Request};
use crate::drivers::Device;
use crate::drivers::testing::{Machine, Medium, Noisy, SECTORS, device, keeps_what_is_written, run, survives};
use core::cell::RefCell;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_block::IoError;
use tessera_device::hardware::Registers;
use tessera_proto::storage::DiskState;

/// Where the structures are in the range: common configuration, notification, the device's own.
const NOTIFY: u64 = 0x100;
const DEVICE: u64 = 0x200;

/// A queue: size, addresses of descriptors, available and used ring, and how far it has come.
#[derive(Clone, Copy, Default)]
struct Queue {
    size: u16,
    addresses: [u64; 3],
    seen: u16,
    used: u16,
}

#[derive(Default)]
struct State {
    status: u8,
    select: u32,
    queue: u16,
    vector: u16,
    queues: BTreeMap<u16, Queue>,
    /// It takes requests and does nothing.
    hangs: bool,
    /// Its memory is scribbled over: what it finds there is not the driver's doing.
    disturbed: bool,
}

struct Model {
    machine: Rc<Machine>,
    medium: Rc<Medium>,
    state: RefCell<State>,
}

/// Segments, block size, flush, several queues, discard, write-zeroes, indirect descriptors, version 1.
const FEATURES: u64 = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 28 | 1 << 32;

impl Model {
    /// Descriptors of a request: address, length, written by the device.
    fn descriptors(&self, queue: &Queue, head: u16) -> Vec<(u64, u64, bool)> {
        let at = queue.addresses[0] + u64::from(head) * 16;
        let second = self.machine.word(at + 8);
        self.expect(second >> 32 & 0xffff == 4, "a request is one indirect descriptor");
        let (table, count) = (self.machine.word(at), ((second & 0xffff_ffff) / 16).min(64));
        let mut found = Vec::new();
        for index in 0..count {
            let second = self.machine.word(table + index * 16 + 8);
            found.push((self.machine.word(table + index * 16), second & 0xffff_ffff, second >> 33 & 1 != 0));
            self.expect((second >> 32 & 1 != 0) == (index + 1 < count), "chained to the last");
        }
        found
    }

    fn expect(&self, holds: bool, what: &str) {
        assert!(holds || self.state.borrow().disturbed, "not so: {what}");
    }

    fn carry_out(&self, descriptors: &[(u64, u64, bool)]) -> u8 {
        if descriptors.len() < 2 {
            self.expect(false, "a request has a header and a status");
            return 2;
        }
        let (kind, sector) = (self.machine.word(descriptors[0].0) as u32, self.machine.word(descriptors[0].0 + 8));
        let data = &descriptors[1..descriptors.len() - 1];
        let pieces: Vec<(u64, u64)> = data.iter().map(|(address, length, _)| (*address, *length)).collect();
        let done = match kind {
            0 | 1 => {
                self.expect(
                    data.iter().all(|descriptor| descriptor.2 == (kind == 0)),
                    "memory goes the way of the request",
                );
                self.medium.transfer(&self.machine, sector, &pieces, kind == 1)
            }
            4 => true,
            8 | 11 | 13 if pieces.is_empty() => false,
            8 => {
                self.machine.store(pieces[0].0, b"SERIAL\0\0\0\0");
                true
            }
            11 | 13 => {
                let count = self.machine.word(pieces[0].0 + 8) & 0xffff_ffff;
                self.medium.zero(self.machine.word(pieces[0].0), count)
            }
            _ => return 2,
        };
        u8::from(!done)
    }

    fn notify(&self, number: u16) {
        loop {
            let state = self.state.borrow();
            let Some(mut queue) = state.queues.get(&number).copied() else {
                return;
            };
            let available = self.machine.word(queue.addresses[1]) >> 16 & 0xffff;
            if state.hangs || state.status & 4 == 0 || queue.seen == available as u16 {
                return;
            }
            drop(state);
            let queue_size = queue.size.max(1);
            let mut head = [0; 2];
            self.machine
                .load(queue.addresses[1] + 4 + u64::from(queue.seen % queue_size) * 2, &mut head);
            let head = u16::from_le_bytes(head);
            let descriptors = self.descriptors(&queue, head);
            let status = self.carry_out(&descriptors);
            if let Some(last) = descriptors.last() {
                self.machine.store(last.0, &[status]);
            }
            let entry = queue.addresses[2] + 4 + u64::from(queue.used % queue_size) * 8;
            self.machine.store(entry, &(u64::from(head) | 1 << 32).to_le_bytes());
            queue.seen = queue.seen.wrapping_add(1);
            queue.used = queue.used.wrapping_add(1);
            self.machine.store(queue.addresses[2] + 2, &queue.used.to_le_bytes());
            self.state.borrow_mut().queues.insert(number, queue);
        }
    }
}

impl Registers for Model {
    fn read8(&self, offset: u64) -> u8 {
        if offset == 20 { self.state.borrow().status } else { 0 }
    }
    fn read16(&self, offset: u64) -> u16 {
        let state = self.state.borrow();
        match offset {
            18 => 2,
            24 if state.queue < 2 => 64,
            26 => state.vector,
            30 => state.queue,
            offset if offset == DEVICE + 34 => 2,
            _ => 0,
        }
    }
    fn read32(&self, offset: u64) -> u32 {
        match offset {
            4 => (FEATURES >> (32 * self.state.borrow().select)) as u32,
            offset if offset == DEVICE => SECTORS as u32,
            offset if offset == DEVICE + 12 => 60,
            offset if offset == DEVICE + 20 => 512,
            offset if offset == DEVICE + 36 || offset == DEVICE + 48 => 1000,
            _ => 0,
        }
    }
    fn write8(&self, offset: u64, value: u8) {
        let mut state = self.state.borrow_mut();
        if offset == 20 {
            state.status = value;
            if value == 0 {
                state.queues.clear();
            }
        }
    }
    fn write16(&self, offset: u64, value: u16) {
        let mut state = self.state.borrow_mut();
        let number = state.queue;
        match offset {
            22 => state.queue = value,
            24 => state.queues.entry(number).or_default().size = value.clamp(1, 64),
            26 => state.vector = value,
            offset if (NOTIFY..DEVICE).contains(&offset) => {
                drop(state);
                self.expect((offset - NOTIFY) / 4 == u64::from(value), "the notification is the queue's own");
                self.notify(value);
            }
            _ => {}
        }
    }
    fn write32(&self, offset: u64, value: u32) {
        let mut state = self.state.borrow_mut();
        let number = state.queue;
        match offset {
            0 => state.select = value & 1,
            32..56 => {
                let place = &mut state.queues.entry(number).or_default().addresses[(offset - 32) as usize / 8];
                let shift = (offset % 8) * 8;
                *place = *place & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            _ => {}
        }
    }
}

/// Configuration space with the three structures in range 4.
fn configuration() -> Vec<u8> {
    let mut bytes = vec![0; 256];
    bytes[0x34] = 0x40;
    for (place, next, kind, offset, length) in [
        (0x40, 0x60, 1, 0, 56u32),
        (0x60, 0x80, 2, NOTIFY as u32, 0x100),
        (0x80, 0, 4, DEVICE as u32, 60),
    ] {
        bytes[place..place + 5].copy_from_slice(&[9, next, 20, kind, 4]);
        bytes[place + 8..place + 12].copy_from_slice(&offset.to_le_bytes());
        bytes[place + 12..place + 16].copy_from_slice(&length.to_le_bytes());
        bytes[place + 16] = 4;
    }
    bytes
}

fn model() -> (Rc<Machine>, Rc<Medium>, Rc<Model>) {
    let machine = Rc::new(Machine::default());
    let medium = Medium::new();
    let model = Model {
        machine: machine.clone(),
        medium: medium.clone(),
        state: RefCell::default(),
    };
    (machine, medium, Rc::new(model))
}

fn attach(machine: &Rc<Machine>, registers: Rc<dyn Registers>) -> Device {
    device(machine, configuration(), 4, registers)
}

#[test]
fn a_device_tells_of_itself_and_obeys() {
    let (machine, medium, model) = model();
    let mut disk = start(&attach(&machine, model), 1).unwrap();
    let unit = disk.unit(0).unwrap();
    assert_eq!(
        (&*unit.name, &*unit.serial, unit.queues, unit.geometry.sectors),
        ("virtio1", "SERIAL", 2, SECTORS)
    );
    medium.bytes.borrow_mut().fill(1);
    for operation in [Operation::Discard, Operation::WriteZeroes] {
        let request = Request {
            operation,
            sector: 8,
            sectors: 2,
            segments: &[],
        };
        assert_eq!(run(&mut *disk, &machine, &request), Ok(()));
        let bytes = medium.bytes.borrow();
        assert!(bytes[4096..5120].iter().all(|byte| *byte == 0) && bytes[4095] == 1 && bytes[5120] == 1);
    }
}

#[test]
fn a_request_that_hangs_ends_and_the_device_works_again() {
    let (machine, _, model) = model();
    let mut disk = start(&attach(&machine, model.clone()), 0).unwrap();
    model.state.borrow_mut().hangs = true;
    assert_eq!(run(&mut *disk, &machine, &Request::FLUSH), Err(IoError::Timeout));
    model.state.borrow_mut().hangs = false;
    disk.watch(machine.time.get(), &mut |_, _| {});
    assert_eq!(disk.unit(0).unwrap().state, DiskState::Ready);
    assert_eq!(run(&mut *disk, &machine, &Request::FLUSH), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_kept(seed: u64) {
        let (machine, medium, model) = model();
        let mut disk = start(&attach(&machine, model), 0).unwrap();
        keeps_what_is_written(&mut *disk, &machine, &medium, seed);
    }

    #[test]
    fn nonsense_is_survived(seed: u64, rate in 1u64..200) {
        let (machine, _, model) = model();
        model.state.borrow_mut().disturbed = true;
        let noisy = Noisy::new(model, &machine, seed, rate);
        survives(|device| start(device, 0), &attach(&machine, noisy.clone()), &machine, &|| noisy.pull_out());
    }

    #[test]
    fn a_configuration_of_anything_is_refused_or_works(places in proptest::collection::vec((0usize..256, any::<u8>()), 1..20)) {
        let (machine, _, model) = model();
        let mut device = attach(&machine, model);
        for (place, value) in places {
            device.configuration[place] = value;
        }
        let _ = tessera_device::virtio::Configuration::find(&device, super::CONFIGURATION);
    }
}
