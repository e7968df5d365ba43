//! What the drivers' tests share: a disk, and what every driver must do with one, whatever it is.

use super::Device;
use crate::controller::{Controller, Operation, Refused, Request, Segment};
use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_block::IoError;
use tessera_device::dma::DmaBuffer;
use tessera_device::hardware::Platform;
pub use tessera_device::testing::{Machine, Noisy, Nothing, Random, device};

/// What a disk holds.
pub struct Medium {
    pub bytes: RefCell<Vec<u8>>,
    /// Sectors that cannot be read or written.
    pub bad: Cell<Option<u64>>,
}

/// Sectors of a model's disk.
pub const SECTORS: u64 = 4096;

impl Medium {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            bytes: RefCell::new(vec![0; SECTORS as usize * 512]),
            bad: Cell::new(None),
        })
    }

    /// Moves bytes between the medium and memory: pieces of address and length. False: a sector is bad, or there is none.
    pub fn transfer(&self, machine: &Machine, sector: u64, pieces: &[(u64, u64)], writes: bool) -> bool {
        let length: u64 = pieces.iter().map(|piece| piece.1).sum();
        let end = sector.saturating_add(length / 512);
        if end > SECTORS || self.bad.get().is_some_and(|bad| (sector..end).contains(&bad)) {
            return false;
        }
        let mut medium = self.bytes.borrow_mut();
        let mut at = sector as usize * 512;
        for (physical, length) in pieces {
            let part = &mut medium[at..at + *length as usize];
            if writes {
                machine.load(*physical, part);
            } else {
                machine.store(*physical, part);
            }
            at += *length as usize;
        }
        true
    }

    pub fn zero(&self, sector: u64, sectors: u64) -> bool {
        let end = sector.saturating_add(sectors);
        let fits = end <= SECTORS;
        if fits {
            self.bytes.borrow_mut()[sector as usize * 512..end as usize * 512].fill(0);
        }
        fits
    }
}

/// Carries one request out and answers how it ended.
pub fn run(controller: &mut dyn Controller, machine: &Machine, request: &Request<'_>) -> Result<(), IoError> {
    assert!(controller.fits(0, request), "{request:?}");
    let mut result = None;
    let begun = (0..400).any(|_| match controller.submit(0, request, 7, machine.now()) {
        Ok(()) => true,
        Err(Refused::Error(error)) => {
            result = Some(Err(error));
            true
        }
        Err(Refused::Full) => {
            // A question of the driver's own may be under way.
            machine.pause(250);
            controller.watch(machine.now(), &mut |tag, _| panic!("{tag} was not asked for"));
            false
        }
    });
    assert!(begun, "an idle controller is full");
    if let Some(result) = result {
        return result;
    }
    for _ in 0..400 {
        controller.poll(&mut |tag, outcome| {
            assert_eq!(tag, 7);
            assert!(result.replace(outcome).is_none());
        });
        if let Some(result) = result {
            return result;
        }
        machine.pause(250);
        controller.watch(machine.now(), &mut |_, outcome| result = Some(outcome));
    }
    panic!("{request:?} never ends")
}

/// A request's memory: whole pages but for the ends, in random pieces.
fn pieces(machine: &Machine, random: &Random, bytes: u64) -> (Vec<DmaBuffer>, Vec<Segment>) {
    let (mut buffers, mut segments, mut left) = (Vec::new(), Vec::new(), bytes);
    while left > 0 {
        let first = segments.is_empty();
        let offset = if first { random.below(8) * 512 } else { 0 };
        let room = (1 + random.below(3)) * 4096 - offset;
        let length = room.min(left);
        let buffer = machine
            .allocate((offset + length) as usize)
            .unwrap()
            .part(offset as usize, length as usize);
        segments.push(Segment {
            physical: buffer.physical(),
            length: length as u32,
        });
        buffers.push(buffer);
        left -= length;
    }
    (buffers, segments)
}

/// Writes and reads at random places, and compares with what was written.
pub fn keeps_what_is_written(controller: &mut dyn Controller, machine: &Machine, medium: &Medium, seed: u64) {
    let random = Random::new(seed);
    for _ in 0..30 {
        let sectors = 1 + random.below(100);
        let sector = random.below(SECTORS - sectors);
        let writes = random.below(2) == 0;
        let (buffers, segments) = pieces(machine, &random, sectors * 512);
        let mut written = Vec::new();
        for buffer in &buffers {
            let bytes: Vec<u8> = (0..buffer.length()).map(|_| random.next() as u8).collect();
            if writes {
                buffer.copy_in(0, &bytes);
            }
            written.extend(bytes);
        }
        let operation = if writes { Operation::Write } else { Operation::Read };
        let request = Request {
            operation,
            sector,
            sectors,
            segments: &segments,
        };
        assert_eq!(run(controller, machine, &request), Ok(()));
        let mut in_memory = Vec::new();
        for buffer in &buffers {
            let mut bytes = vec![0; buffer.length()];
            buffer.copy_out(0, &mut bytes);
            in_memory.extend(bytes);
        }
        let on_medium = medium.bytes.borrow()[sector as usize * 512..(sector + sectors) as usize * 512].to_vec();
        assert!(in_memory == on_medium, "{operation:?} of {sectors} sectors at {sector}");
        assert!(!writes || in_memory == written);
    }
    assert_eq!(run(controller, machine, &Request::FLUSH), Ok(()));
    medium.bad.set(Some(100));
    let memory = machine.allocate(4096).unwrap();
    let segments = [Segment {
        physical: memory.physical(),
        length: 4096,
    }];
    let bad = Request {
        operation: Operation::Read,
        sector: 96,
        sectors: 8,
        segments: &segments,
    };
    assert!(matches!(run(controller, machine, &bad), Err(IoError::Media { .. })));
    medium.bad.set(None);
    assert_eq!(run(controller, machine, &bad), Ok(()));
}

/// Whatever a device answers, each request ends exactly once, and at the latest when the device is gone, which `pull_out` sees to.
pub fn survives(
    start: impl FnOnce(&Device) -> Result<Box<dyn Controller>, String>,
    device: &Device,
    machine: &Machine,
    pull_out: &dyn Fn(),
) {
    let random = Random::new(machine.now());
    let Ok(mut controller) = start(device) else { return };
    let mut open: BTreeMap<u32, ()> = BTreeMap::new();
    let memory = machine.allocate(1 << 16).unwrap();
    for tag in 0..300u32 {
        let segments = [Segment {
            physical: memory.physical(),
            length: 4096 << (tag % 4),
        }];
        let operation = [Operation::Read, Operation::Write, Operation::Flush][tag as usize % 3];
        let request = if operation == Operation::Flush {
            Request::FLUSH
        } else {
            Request {
                operation,
                sector: u64::from(tag) % (SECTORS - 64),
                sectors: u64::from(segments[0].length) / 512,
                segments: &segments,
            }
        };
        for unit in 0..2 {
            let _ = controller.unit(unit);
        }
        if controller.fits(0, &request) && controller.submit(0, &request, tag, machine.now()).is_ok() {
            open.insert(tag, ());
        }
        let mut done = |tag: u32, _: Result<(), IoError>| assert!(open.remove(&tag).is_some(), "{tag} ends twice, or was never begun");
        controller.poll(&mut done);
        if tag % 7 == 0 {
            machine.pause(250 * (1 + random.below(8)));
            controller.watch(machine.now(), &mut done);
        }
    }
    pull_out();
    for _ in 0..400 {
        machine.pause(250);
        controller.watch(machine.now(), &mut |tag, _| {
            assert!(open.remove(&tag).is_some(), "{tag} ends twice")
        });
    }
    assert!(open.is_empty(), "requests that never end: {:?}", open.keys());
}
