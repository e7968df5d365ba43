//! A hard disk at a port: commands become requests to the server of the disks, through a queue that the monitor drives (`virtio::driver`). What does not fit into one request becomes several, one after the other.
//!
//! ```text
//!  PxCI --take--> decode --+--> answered at once
//!                          +--> Task: steps -- submit --> queue --> server --> ended -- next step, or PxCI/PxSACT, FIS, interrupt
//! ```
//!
//! Queued commands are under way together, others alone. When the driver stops the list, the requests of what was under way are still there; their slots are taken again when they have ended, and until then the list
//! says that it runs.

use super::ata::{self, Action, Settings};
use super::command::{ABORTED, Command, ERROR, Left, READY};
use super::identify;
use super::port::{Port, START};
use crate::apic::{Interrupts, Kick};
use crate::devices::virtio::driver::{Driver, FEATURES, MAX_PIECES, SLOTS};
use crate::devices::virtio::{Service, VirtioPci, block};
use crate::memory::GuestMemory;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Signature of a disk.
pub const SIGNATURE: u32 = 0x0101;
/// Bytes of the sectors that requests have.
const SECTOR: u64 = 512;
/// Kinds of requests (virtio 1.2, 5.2.6).
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;

/// A disk that is plugged into a port.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Place of its device among the bus's, which is not on the bus.
    pub place: usize,
    /// Serial number; the first 20 characters are shown.
    pub serial: String,
    /// Reserved RAM for its queue: `virtio::driver::LENGTH` bytes.
    pub queue: u64,
}

/// A request to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Move { write: bool, sector: u64, pieces: Vec<(u64, u32)> },
    Flush,
    Discard { sector: u64, sectors: u32 },
}

/// A command that is under way.
#[derive(Clone, Debug)]
struct Task {
    queued: bool,
    /// The first is at the server.
    steps: VecDeque<Step>,
    bytes: u32,
    /// First logical sector.
    sector: u64,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Disk {
    seat: Seat,
    pub(super) settings: Settings,
    driver: Option<Driver>,
    /// For each slot the command that is under way.
    tasks: Vec<Option<Task>>,
    /// The queued command that failed last: slot, error register, sector.
    failed: Option<(u8, u8, u64)>,
}

/// Cuts what a command moves into requests, each of whole sectors. `None`: its pieces are so small that a request of them holds no sector, or they are no whole sectors.
fn cut(write: bool, mut sector: u64, pieces: Vec<(u64, u64)>) -> Option<VecDeque<Step>> {
    let mut left = VecDeque::from(pieces);
    let mut steps = VecDeque::new();
    while !left.is_empty() {
        // No command moves as much as 4 GiB.
        let taken = left.drain(..left.len().min(MAX_PIECES));
        let mut pieces: Vec<_> = taken.map(|(address, length)| (address, length as u32)).collect();
        let bytes: u64 = pieces.iter().map(|(_, length)| u64::from(*length)).sum();
        // What there is of a sector goes with the next request.
        let mut over = (bytes % SECTOR) as u32;
        (over == 0 || !left.is_empty()).then_some(())?;
        let whole = bytes - u64::from(over);
        while over > 0 {
            let (address, length) = pieces.pop()?;
            let back = length.min(over);
            let keep = length - back;
            if keep > 0 {
                pieces.push((address, keep));
            }
            left.push_front((address + u64::from(keep), back.into()));
            over -= back;
        }
        (!pieces.is_empty()).then_some(())?;
        steps.push_back(Step::Move { write, sector, pieces });
        sector += whole / SECTOR;
    }
    Some(steps)
}

impl Disk {
    /// A disk after power-on.
    pub fn new(seat: Seat) -> Self {
        Self {
            seat,
            settings: Settings { write_cache: true },
            driver: None,
            tasks: vec![None; SLOTS.into()],
            failed: None,
        }
    }

    /// The same after power-on. Its device has forgotten its queue.
    pub fn reset(&mut self) {
        *self = Self::new(self.seat.clone());
    }

    /// Place of its device among the bus's.
    pub const fn place(&self) -> usize {
        self.seat.place
    }

    /// Whether the server has requests of it.
    pub fn is_busy(&self) -> bool {
        self.driver.as_ref().is_some_and(Driver::is_busy)
    }

    /// The list was stopped: what is under way is not told of any more.
    pub fn abandon(&mut self) {
        self.tasks.fill(None);
    }

    /// Goes on: takes what ended, and begins what was issued. Answers whether the port's registers changed.
    pub fn run<K: Kick>(&mut self, port: &mut Port, memory: &GuestMemory, device: &mut VirtioPci, to: &Interrupts<K>) -> bool {
        let mut changed = false;
        let mut rings = false;
        while let Some((slot, status, _)) = self.driver.as_mut().and_then(|driver| driver.ended(memory)) {
            rings |= self.ended(port, memory, slot, status);
            changed = true;
        }
        let broken = device.registers().is_broken();
        if broken {
            changed |= self.give_up(port, memory);
        }
        let disk = block::disk(device.config());
        while let Some(slot) = self.next(port) {
            let Some(command) = Command::read(memory, port.list, slot) else {
                // The list is where there is no RAM.
                port.complete(memory, slot, (READY | ERROR, ABORTED), Left::default(), 0);
                changed = true;
                continue;
            };
            let queued = ata::is_queued(command.code) && port.active >> slot & 1 != 0;
            // Queued ones go together, others alone.
            let others = self.tasks.iter().flatten().any(|task| !(task.queued && queued));
            if others || self.driver.as_ref().is_some_and(|driver| driver.is_in_flight(slot)) {
                break;
            }
            let action = if broken || ata::is_queued(command.code) && !queued {
                Action::Refused(ABORTED)
            } else {
                ata::decode(&command, &disk, &self.seat.serial, &mut self.settings, self.failed)
            };
            if queued {
                port.issued &= !(1 << slot);
            }
            changed = true;
            match self.plan(&command, memory, &disk, queued, action) {
                Ok(task) => {
                    if self.driver.is_none() && !self.connect(memory, device, to) {
                        self.refuse(port, memory, slot, queued, ABORTED, command.sector);
                        continue;
                    }
                    let begun = self.begin(memory, slot, task);
                    rings |= begun;
                    if !begun {
                        self.refuse(port, memory, slot, queued, ABORTED, command.sector);
                    }
                }
                Err(Action::Answer(data)) => {
                    let bytes = command.write(memory, &data);
                    port.complete(memory, slot, (READY, 0), Left::default(), bytes);
                }
                Err(Action::Refused(error)) => self.refuse(port, memory, slot, queued, error, command.sector),
                Err(Action::Done(left)) => port.complete(memory, slot, (READY, 0), left, 0),
                // The others are planned.
                Err(_) => port.complete(memory, slot, (READY, 0), Left::default(), 0),
            }
        }
        if rings && self.driver.as_ref().is_some_and(|driver| driver.wants_notification(memory)) {
            to.ring(self.seat.place);
        }
        changed
    }

    /// The next slot to be begun.
    fn next(&self, port: &Port) -> Option<u8> {
        let runs = port.command & START != 0 && !port.halted && port.issued != 0;
        runs.then(|| port.issued & !self.under_way())
            .filter(|waiting| *waiting != 0)
            .map(|waiting| waiting.trailing_zeros() as u8)
    }

    /// A bit for each slot with a command that is not told to be over.
    fn under_way(&self) -> u32 {
        let tasks = (0..).zip(&self.tasks).filter(|(_, task)| task.is_some());
        tasks.fold(0, |bits, (slot, _)| bits | 1 << slot)
    }

    /// Sets the queue up and asks for its server.
    fn connect<K: Kick>(&mut self, memory: &GuestMemory, device: &mut VirtioPci, to: &Interrupts<K>) -> bool {
        if device.registers().service() != Service::Idle {
            return false;
        }
        self.driver = Driver::new(memory, self.seat.queue);
        if let Some(driver) = &self.driver {
            device.adopt(FEATURES, &[driver.queue()], to);
        }
        self.driver.is_some()
    }

    /// What an action takes, or the action that takes nothing.
    fn plan(&self, command: &Command, memory: &GuestMemory, disk: &block::Disk, queued: bool, action: Action) -> Result<Task, Action> {
        let refused = || Action::Refused(ABORTED);
        let scale = u64::from(identify::sector_bytes(disk)) / SECTOR;
        let (steps, bytes) = match action {
            Action::Transfer {
                write,
                sector,
                count,
                safe,
            } => {
                let bytes = u64::from(count) * scale * SECTOR;
                let pieces = command.pieces(memory, bytes).ok_or_else(refused)?;
                if pieces.iter().map(|(_, length)| length).sum::<u64>() != bytes {
                    return Err(refused());
                }
                let mut steps = cut(write, sector * scale, pieces).ok_or_else(refused)?;
                if safe {
                    steps.push_back(Step::Flush);
                }
                (steps, bytes as u32)
            }
            Action::Flush => (VecDeque::from([Step::Flush]), 0),
            Action::Trim(blocks) => {
                let bytes = u64::from(blocks) * SECTOR;
                let list = command.read_all(memory, bytes).ok_or_else(refused)?;
                let mut steps = VecDeque::new();
                for (sector, count) in ata::ranges(&list) {
                    if sector + u64::from(count) > identify::sectors(disk) {
                        return Err(Action::Refused(ata::NO_SECTOR));
                    }
                    steps.push_back(Step::Discard {
                        sector: sector * scale,
                        sectors: count * scale as u32,
                    });
                }
                if steps.is_empty() {
                    return Err(Action::Done(Left::default()));
                }
                (steps, bytes as u32)
            }
            other => return Err(other),
        };
        Ok(Task {
            queued,
            steps,
            bytes,
            sector: command.sector,
        })
    }

    /// Has the server begin a command. False: it cannot.
    fn begin(&mut self, memory: &GuestMemory, slot: u8, task: Task) -> bool {
        let begun = self.submit(memory, slot, task.steps.front());
        if begun {
            self.tasks[usize::from(slot)] = Some(task);
        }
        begun
    }

    fn submit(&mut self, memory: &GuestMemory, slot: u8, step: Option<&Step>) -> bool {
        let (Some(driver), Some(step)) = (&mut self.driver, step) else {
            return false;
        };
        let mut header = [0; 32];
        let (kind, sector) = match step {
            Step::Move { write: false, sector, .. } => (READ, *sector),
            Step::Move { sector, .. } => (WRITE, *sector),
            Step::Flush => (FLUSH, 0),
            Step::Discard { .. } => (DISCARD, 0),
        };
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&sector.to_le_bytes());
        let (length, pieces) = match step {
            Step::Move { pieces, .. } => (16, &pieces[..]),
            Step::Flush => (16, &[][..]),
            Step::Discard { sector, sectors } => {
                header[16..24].copy_from_slice(&sector.to_le_bytes());
                header[24..28].copy_from_slice(&sectors.to_le_bytes());
                (32, &[][..])
            }
        };
        driver.submit(memory, slot, &header[..length], pieces, kind == READ).is_some()
    }

    /// A request ended. Answers whether another one was submitted.
    fn ended(&mut self, port: &mut Port, memory: &GuestMemory, slot: u8, status: u8) -> bool {
        // One that was abandoned is nobody's any more.
        let Some(mut task) = self.tasks[usize::from(slot)].take() else {
            return false;
        };
        let step = task.steps.pop_front();
        if status == 0 && self.submit(memory, slot, task.steps.front()) {
            self.tasks[usize::from(slot)] = Some(task);
            return true;
        }
        if status == 0 && task.steps.is_empty() {
            if task.queued {
                port.complete_queued(memory, slot, (READY, 0));
            } else {
                port.complete(memory, slot, (READY, 0), Left::default(), task.bytes);
            }
            return false;
        }
        let error = match step {
            Some(Step::Move { write: false, .. }) => ata::UNREADABLE,
            _ => ABORTED,
        };
        self.refuse(port, memory, slot, task.queued, error, task.sector);
        false
    }

    /// A command failed.
    fn refuse(&mut self, port: &mut Port, memory: &GuestMemory, slot: u8, queued: bool, error: u8, sector: u64) {
        if queued {
            self.failed = Some((slot, error, sector));
            port.complete_queued(memory, slot, (READY | ERROR, error));
        } else {
            let left = Left {
                sector: sector as u32 & 0xff_ffff,
                count: 0,
            };
            port.complete(memory, slot, (READY | ERROR, error), left, 0);
        }
    }

    /// Nobody serves the disk any more: what is under way fails.
    fn give_up(&mut self, port: &mut Port, memory: &GuestMemory) -> bool {
        let under_way = self.under_way();
        for slot in (0..SLOTS).filter(|slot| under_way >> slot & 1 != 0) {
            if let Some(task) = self.tasks[usize::from(slot)].take() {
                self.refuse(port, memory, slot, task.queued, ABORTED, task.sector);
            }
        }
        // Nothing comes back of what it had.
        if let Some(driver) = &mut self.driver {
            driver.forget();
        }
        under_way != 0
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
