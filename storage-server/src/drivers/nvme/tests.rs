//! The driver against a controller made of code.

use super::start;
use crate::controller::{Controller, Operation, Request};
use crate::drivers::Device;
use crate::drivers::testing::{Machine, Medium, Noisy, SECTORS, device, keeps_what_is_written, run, survives};
use core::cell::{Cell, RefCell};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_block::IoError;
use tessera_device::hardware::{Platform, Registers};
use tessera_proto::storage::DiskState;

/// A queue of the controller: address and entries of the submission queue with its completion queue; how far each has come.
#[derive(Clone, Copy, Default, Debug)]
struct Pair {
    submissions: (u64, u16),
    completions: (u64, u16),
    head: u16,
    tail: u16,
    phase: bool,
}

#[derive(Default)]
struct State {
    registers: BTreeMap<u64, u32>,
    pairs: BTreeMap<u16, Pair>,
    /// Queues that interrupt nobody.
    silent: Vec<u16>,
    /// The command that waits for an event.
    waiting: Option<u64>,
    /// Of its log pages: warnings, and numbers of errors.
    warnings: u8,
    errors: Vec<u64>,
}

/// The controller.
struct Model {
    machine: Rc<Machine>,
    medium: Rc<Medium>,
    state: RefCell<State>,
    /// It neither works nor stops.
    stuck: Cell<bool>,
}

impl Model {
    fn pointer(&self, words: &[u64; 8], length: u64) -> Vec<(u64, u64)> {
        if words[0] >> 14 & 3 == 1 {
            let [first, second] = [words[3], words[4]];
            if second >> 56 == 0 {
                return vec![(first, second & 0xffff_ffff)];
            }
            let count = (second & 0xffff_ffff) / 16;
            return (0..count)
                .map(|index| (self.machine.word(first + index * 16), self.machine.word(first + index * 16 + 8)))
                .collect();
        }
        let (mut found, mut left, mut number) = (Vec::new(), length, 0);
        let pages = (words[3] % 4096 + length).div_ceil(4096);
        while left > 0 {
            let at = match number {
                0 => words[3],
                1 if pages == 2 => words[4],
                number => self.machine.word(words[4] + (number - 1) * 8),
            };
            let part = (4096 - at % 4096).min(left);
            found.push((at, part));
            left -= part;
            number += 1;
        }
        found
    }

    fn admin(&self, state: &mut State, words: &[u64; 8]) -> (u16, u32) {
        let (opcode, arguments) = (words[0] as u8, [words[5] as u32, (words[5] >> 32) as u32]);
        let queue = arguments[0] as u16;
        let size = (arguments[0] >> 16) as u16 + 1;
        match opcode {
            0x06 => {
                let mut data = vec![0u8; 4096];
                match arguments[0] & 0xff {
                    0 => {
                        data[..8].copy_from_slice(&SECTORS.to_le_bytes());
                        data[130] = 9;
                    }
                    1 => {
                        data[4..12].copy_from_slice(b"SERIAL  ");
                        data[24..30].copy_from_slice(b"MODEL ");
                        data[77] = 8;
                        data[262] = 7;
                        data[520] = 0x0c;
                        data[525] = 1;
                        data[536] = 1;
                    }
                    _ => data[0] = 1,
                }
                self.machine.store(words[3], &data);
            }
            0x09 if arguments[0] & 0xff == 7 => return (0, 1 | 1 << 16),
            0x09 => assert_eq!(arguments, [0x0b, 0x1f]),
            0x05 if arguments[1] & 2 == 0 => {
                state.silent.push(queue);
                state.pairs.entry(queue).or_default().completions = (words[3], size);
            }
            0x05 => state.pairs.entry(queue).or_default().completions = (words[3], size),
            0x01 => {
                let pair = state.pairs.entry(queue).or_default();
                pair.submissions = (words[3], size);
                (pair.head, pair.tail, pair.phase) = (0, 0, true);
            }
            0x02 => {
                let mut data = vec![0u8; ((arguments[0] >> 16) as usize + 1) * 4];
                if arguments[0] & 0xff == 1 {
                    for (entry, number) in data.as_chunks_mut::<64>().0.iter_mut().zip(state.errors.iter().rev()) {
                        entry[..8].copy_from_slice(&number.to_le_bytes());
                        // An unrecovered read error, with the phase.
                        entry[12..14].copy_from_slice(&(0x281u16 << 1 | 1).to_le_bytes());
                        entry[16] = 77;
                    }
                } else {
                    data[0] = state.warnings;
                    data[1..3].copy_from_slice(&313u16.to_le_bytes());
                    data[176..184].copy_from_slice(&state.errors.last().copied().unwrap_or(0).to_le_bytes());
                }
                self.machine.store(words[3], &data);
            }
            _ => return (1, 0),
        }
        (0, 0)
    }

    fn io(&self, words: &[u64; 8]) -> u16 {
        let (sector, sectors) = (words[5], (words[6] & 0xffff) + 1);
        match words[0] as u8 {
            0 => 0,
            opcode @ (1 | 2) => {
                let pieces = self.pointer(words, sectors * 512);
                if pieces.iter().map(|piece| piece.1).sum::<u64>() != sectors * 512 {
                    return 0x002;
                }
                if self.medium.transfer(&self.machine, sector, &pieces, opcode == 1) {
                    0
                } else {
                    0x281
                }
            }
            8 if self.medium.zero(sector, sectors) => 0,
            9 => {
                let (length, first) = (self.machine.word(words[3]) >> 32, self.machine.word(words[3] + 8));
                if self.medium.zero(first, length) { 0 } else { 0x080 }
            }
            _ => 1,
        }
    }

    fn ring(&self, queue: u16, tail: u16) {
        loop {
            let mut state = self.state.borrow_mut();
            let Some(mut pair) = state.pairs.get(&queue).copied() else { return };
            if pair.submissions.1 == 0 || pair.completions.1 == 0 || pair.head == tail % pair.submissions.1 {
                return;
            }
            let at = pair.submissions.0 + u64::from(pair.head) * 64;
            let words: [u64; 8] = core::array::from_fn(|index| self.machine.word(at + index as u64 * 8));
            pair.head = (pair.head + 1) % pair.submissions.1;
            state.pairs.insert(queue, pair);
            if queue == 0 && words[0] as u8 == 0x0c {
                assert_eq!(state.waiting.replace(words[0]), None);
                continue;
            }
            let (status, result) = if queue == 0 {
                self.admin(&mut state, &words)
            } else {
                (self.io(&words), 0)
            };
            self.complete(&mut state, queue, words[0], status, result);
        }
    }

    fn complete(&self, state: &mut State, queue: u16, command: u64, status: u16, result: u32) {
        let Some(pair) = state.pairs.get_mut(&queue) else { return };
        let place = pair.completions.0 + u64::from(pair.tail) * 16;
        let last = command >> 16 & 0xffff | u64::from(pair.phase) << 16 | u64::from(status) << 17;
        self.machine.store(place, &u64::from(result).to_le_bytes());
        self.machine.store(place + 8, &(u64::from(pair.head) | last << 32).to_le_bytes());
        pair.tail += 1;
        if pair.tail == pair.completions.1 {
            pair.tail = 0;
            pair.phase = !pair.phase;
        }
    }

    /// Something happened: what the driver asked to be told of.
    fn tell(&self, result: u32) {
        let mut state = self.state.borrow_mut();
        let command = state.waiting.take().expect("the driver waits for events");
        self.complete(&mut state, 0, command, 0, result);
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
            // 64 entries, 5 s, the NVM command set.
            0x00 => 0x0a00_003f,
            0x04 => 0x20,
            0x08 => 0x0001_0400,
            0x1c if self.stuck.get() => 1,
            0x1c => self.state.borrow().registers.get(&0x14).copied().unwrap_or(0) & 1,
            other => self.state.borrow().registers.get(&other).copied().unwrap_or(0),
        }
    }
    fn write8(&self, _: u64, _: u8) {}
    fn write16(&self, _: u64, _: u16) {}
    fn write32(&self, offset: u64, value: u32) {
        if self.stuck.get() {
            return;
        }
        if offset >= 0x1000 {
            if (offset - 0x1000).is_multiple_of(8) {
                self.ring(((offset - 0x1000) / 8) as u16, value as u16);
            }
            return;
        }
        let mut state = self.state.borrow_mut();
        state.registers.insert(offset, value);
        if offset == 0x14 {
            state.pairs.clear();
            state.waiting = None;
            if value & 1 != 0 {
                let register = |at: u64| u64::from(state.registers.get(&at).copied().unwrap_or(0));
                let size = (register(0x24) & 0xfff) as u16 + 1;
                let admin = Pair {
                    submissions: (register(0x28) | register(0x2c) << 32, size),
                    completions: (register(0x30) | register(0x34) << 32, size),
                    phase: true,
                    ..Pair::default()
                };
                state.pairs.insert(0, admin);
            }
        }
    }
}

fn model() -> (Rc<Machine>, Rc<Medium>, Rc<Model>) {
    let machine = Rc::new(Machine::default());
    let medium = Medium::new();
    let model = Model {
        machine: machine.clone(),
        medium: medium.clone(),
        state: RefCell::default(),
        stuck: Cell::new(false),
    };
    (machine, medium, Rc::new(model))
}

fn with_interrupts(machine: &Rc<Machine>, interrupts: u16, model: Rc<Model>) -> Device {
    Device {
        interrupts,
        ..device(machine, vec![], 0, model)
    }
}

#[test]
fn a_controller_tells_of_itself_and_obeys() {
    let (machine, medium, model) = model();
    let mut controller = start(&device(&machine, vec![], 0, model), 3).unwrap();
    let unit = controller.unit(0).unwrap();
    assert_eq!(
        (&*unit.name, &*unit.model, &*unit.serial, unit.queues),
        ("nvme3", "MODEL", "SERIAL", 2)
    );
    assert_eq!((unit.geometry.sectors, unit.geometry.sector_size), (SECTORS, 512));
    medium.bytes.borrow_mut().fill(1);
    for (operation, sector) in [(Operation::Discard, 5), (Operation::WriteZeroes, 9)] {
        let request = Request {
            operation,
            sector,
            sectors: 2,
            segments: &[],
        };
        assert_eq!(run(&mut *controller, &machine, &request), Ok(()));
        let bytes = medium.bytes.borrow();
        let at = sector as usize * 512;
        assert!(bytes[at..at + 1024].iter().all(|byte| *byte == 0) && bytes[at - 1] == 1 && bytes[at + 1024] == 1);
    }
    for _ in 0..3 {
        controller.watch(machine.time.get(), &mut |_, _| {});
    }
    assert_eq!(controller.unit(0).unwrap().health.temperature, Some(40));
}

#[test]
fn a_controller_tells_of_warnings_and_errors() {
    let (machine, _, model) = model();
    // What was there before is history; a warning is not.
    model.state.borrow_mut().errors = vec![1, 2, 3];
    let mut controller = start(&device(&machine, vec![], 0, model.clone()), 0).unwrap();
    let watch = |controller: &mut dyn Controller| {
        for _ in 0..6 {
            machine.pause(250);
            controller.watch(machine.now(), &mut |_, _| {});
        }
        controller.events(0)
    };
    assert_eq!(watch(&mut *controller), Vec::<String>::new());
    model.state.borrow_mut().warnings = 2 | 8;
    // Temperature: type 1, what 1, log page 2.
    model.tell(1 | 1 << 8 | 2 << 16);
    let told = watch(&mut *controller);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("warns: its temperature") && told[1].contains("no writes"),
        "{told:?}"
    );
    assert_eq!(controller.unit(0).unwrap().health.failing, Some(true));
    model.state.borrow_mut().warnings = 8;
    model.tell(1 | 1 << 8 | 2 << 16);
    let told = watch(&mut *controller);
    assert!(
        told.len() == 1 && told[0].contains("not warn any more: its temperature"),
        "{told:?}"
    );
    // An error: type 0, one that stays, log page 1.
    model.state.borrow_mut().errors.extend([4, 5]);
    model.tell(3 << 8 | 1 << 16);
    let told = watch(&mut *controller);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("internal error that stays"), "{told:?}");
    assert!(
        told[1].starts_with("error 4 in the controller's log") && told[1].contains("sector 77"),
        "{told:?}"
    );
    assert!(told[2].starts_with("error 5"), "{told:?}");
    assert_eq!(watch(&mut *controller), Vec::<String>::new());
    // Without being told, at the next look at its condition.
    model.state.borrow_mut().errors.push(6);
    machine.pause(60_000);
    let told = watch(&mut *controller);
    assert!(told.len() == 1 && told[0].starts_with("error 6"), "{told:?}");
    // That nothing happens for a long time is no command that takes too long.
    for _ in 0..200 {
        machine.pause(250);
        controller.watch(machine.now(), &mut |_, _| {});
    }
    assert_eq!(controller.unit(0).unwrap().resets, 0);
    assert!(model.state.borrow().waiting.is_some());
}

#[test]
fn requests_are_quiet_if_they_may_and_there_is_room() {
    let (machine, _, model) = model();
    let mut controller = start(&with_interrupts(&machine, 3, model.clone()), 0).unwrap();
    assert_eq!(model.state.borrow().silent, [2]);
    let run = |controller: &mut dyn Controller, tag| {
        controller.submit(0, &Request::FLUSH, tag, machine.now()).unwrap();
        let quiet = controller.works_quietly();
        let mut ended = Vec::new();
        controller.poll(&mut |tag, outcome| ended.push((tag, outcome)));
        assert_eq!(ended, [(tag, Ok(()))]);
        assert!(!controller.works_quietly());
        quiet
    };
    assert!(!run(&mut *controller, 1));
    controller.set_quiet(true);
    assert!(run(&mut *controller, 2));
    controller.set_quiet(false);
    assert!(!run(&mut *controller, 3));
    // The silent queue has 63 places, the other as many.
    controller.set_quiet(true);
    for tag in 0..126 {
        controller.submit(0, &Request::FLUSH, tag, machine.now()).unwrap();
    }
    assert!(controller.submit(0, &Request::FLUSH, 200, machine.now()).is_err());
    let mut ended = 0;
    controller.poll(&mut |_, _| ended += 1);
    assert_eq!(ended, 126);
}

#[test]
fn a_command_that_hangs_ends_and_the_controller_works_again() {
    let (machine, _, model) = model();
    let mut controller = start(&device(&machine, vec![], 0, model.clone()), 0).unwrap();
    // The controller forgets its queues.
    let pairs = core::mem::take(&mut model.state.borrow_mut().pairs);
    assert_eq!(pairs.len(), 3);
    assert_eq!(run(&mut *controller, &machine, &Request::FLUSH), Err(IoError::Timeout));
    for _ in 0..20 {
        machine.time.set(machine.time.get() + 250);
        controller.watch(machine.time.get(), &mut |_, _| {});
    }
    assert_eq!(run(&mut *controller, &machine, &Request::FLUSH), Ok(()));
}

#[test]
fn what_does_not_stop_loses_its_access_to_memory_before_its_commands_end() {
    let (machine, _, model) = model();
    let mut controller = start(&device(&machine, vec![], 0, model.clone()), 0).unwrap();
    model.stuck.set(true);
    controller.submit(0, &Request::FLUSH, 7, machine.now()).unwrap();
    let mut ended = None;
    for _ in 0..1000 {
        machine.pause(250);
        controller.watch(machine.now(), &mut |tag, result| {
            assert!(!machine.allowed.get(), "the command ends while the controller may still write");
            ended = Some((tag, result));
        });
    }
    assert_eq!(ended, Some((7, Err(IoError::Timeout))));
    assert_eq!(controller.unit(0).unwrap().state, DiskState::Failed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_kept(seed: u64, interrupts in 0u16..4) {
        let (machine, medium, model) = model();
        let mut controller = start(&with_interrupts(&machine, interrupts, model), 0).unwrap();
        keeps_what_is_written(&mut *controller, &machine, &medium, seed);
        controller.set_quiet(true);
        keeps_what_is_written(&mut *controller, &machine, &medium, seed);
    }

    #[test]
    fn nonsense_is_survived(seed: u64, rate in 1u64..200) {
        let (machine, _, model) = model();
        let noisy = Noisy::new(model, &machine, seed, rate);
        survives(|device| start(device, 0), &device(&machine, vec![], 0, noisy.clone()), &machine, &|| noisy.pull_out());
    }
}
