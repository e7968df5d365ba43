//! A host adapter for SATA (AHCI 1.3.1), as ICH9 has it at 00:1f.2: a CD-ROM drive at the first port in machines with firmware, hard disks at the ports behind.
//!
//! A write to a register issues commands. Those of the drive whoever has the medium takes one by one ([`Ahci::take`]) outside of the chipset's lock and says how they ended ([`Ahci::finish`]). Those of disks become
//! requests to the disks' server at once ([`Ahci::run`]), without another thread.

mod ata;
mod atapi;
mod command;
mod disk;
mod identify;
mod port;
mod saved;

pub use command::{Job, Outcome, SECTOR};
pub use disk::Seat;
pub use saved::SavedAhci;

use super::pci::function::{Function, Space};
use super::pci::{Board, line_of};
use super::virtio::VirtioPci;
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;
use alloc::vec::Vec;
use atapi::Drive;
use command::{Command, Left, Reply};
use disk::Disk;
use port::{Port, START};

/// Device and function on the bus of a Q35.
pub const PLACE: (u8, u8) = (31, 2);
/// The same on a board whose device 31 is empty.
pub const PLAIN_PLACE: (u8, u8) = (30, 0);
/// Base address register of the registers, and their length.
const REGISTERS: usize = 5;
const LENGTH: u32 = 0x1000;
/// Where the range is before firmware places it.
const ADDRESS: u32 = 0xfeb0_0000;
/// Capabilities: 32 commands, 1.5 Gbit/s, AHCI only, command list override, native queueing; with the number of ports less one.
const CAPABILITIES: u32 = 31 << 8 | 1 << 18 | 1 << 20 | 1 << 24 | 1 << 30;
const VERSION: u32 = 0x1_0301;
/// Global control: AHCI is on; interrupts; reset.
const AHCI_ON: u32 = 1 << 31;
const INTERRUPTS_ON: u32 = 2;
const RESET: u32 = 1;
/// First register of the first port, and the distance to the next.
const PORT: u32 = 0x100;
const PORT_LENGTH: u32 = 0x80;
/// Signature of a drive that takes packets.
const SIGNATURE: u32 = 0xeb14_0101;

/// The adapter.
#[derive(Clone, Debug)]
pub struct Ahci {
    place: (u8, u8),
    function: Function,
    control: u32,
    status: u32,
    /// The drive's, then the disks'.
    ports: Vec<Port>,
    drive: Option<Drive>,
    disks: Vec<Disk>,
    /// Counts what makes the drive's commands under way void.
    epoch: u32,
    under_way: Option<u8>,
}

impl Ahci {
    /// On a board, with a drive or without: with a medium of that many bytes in it, or empty; and with hard disks.
    #[must_use]
    pub fn new(board: Board, drive: Option<Option<u64>>, disks: Vec<Seat>) -> Self {
        let place = match board {
            Board::Plain => PLAIN_PLACE,
            Board::Q35 => PLACE,
        };
        Self {
            place,
            function: Self::function_at(place),
            control: AHCI_ON,
            status: 0,
            ports: (0..=disks.len()).map(|_| Port::new()).collect(),
            drive: drive.map(Drive::new),
            disks: disks.into_iter().map(Disk::new).collect(),
            epoch: 0,
            under_way: None,
        }
    }

    fn function_at(place: (u8, u8)) -> Function {
        let mut function = Function::new(place.0, 0x8086, 0x2922, 0x0106_0102);
        function.set_line(line_of(place.0));
        function.set_range(REGISTERS, Space::Memory, LENGTH, ADDRESS);
        function
    }

    /// Device and function on the bus.
    #[must_use]
    pub const fn place(&self) -> (u8, u8) {
        self.place
    }

    /// Power-on state; the medium stays. The disks' devices are reset too.
    pub fn reset(&mut self) {
        self.function = Self::function_at(self.place);
        self.reset_adapter();
        self.drive = self.drive.take().map(Drive::reset);
        for disk in &mut self.disks {
            disk.reset();
        }
    }

    /// The guest resets the adapter (10.4.3).
    fn reset_adapter(&mut self) {
        self.control = AHCI_ON;
        self.status = 0;
        self.ports.fill(Port::new());
        for index in 0..self.ports.len() {
            self.stopped(index);
        }
    }

    /// Puts another medium of `bytes` bytes into the drive, or takes it out.
    pub const fn change_medium(&mut self, bytes: Option<u64>) {
        if let Some(drive) = &mut self.drive {
            drive.change(bytes);
        }
    }

    /// Bytes of the medium that the guest sees, and whether it wants to keep it.
    #[must_use]
    pub fn medium(&self) -> (Option<u64>, bool) {
        self.drive.as_ref().map_or((None, false), Drive::medium)
    }

    /// Its configuration space.
    pub const fn function(&mut self) -> &mut Function {
        &mut self.function
    }

    /// Reads its range; `None` if the address is not in it.
    #[must_use]
    pub fn range_read(&self, address: u64, width: u8) -> Option<u64> {
        let offset = self.function.offset(REGISTERS, Space::Memory, address, width)?;
        let word = u64::from(self.register(offset & !3)) >> ((offset & 3) * 8);
        // An access of 8 bytes reads two registers.
        let upper = if width == 8 {
            u64::from(self.register((offset & !3) + 4)) << 32
        } else {
            0
        };
        Some(if width >= 8 {
            word | upper
        } else {
            word & ((1 << (8 * u32::from(width))) - 1)
        })
    }

    /// Writes its range; `None` if the address is not in it, else whether commands were issued.
    pub fn range_write(&mut self, address: u64, width: u8, value: u64) -> Option<bool> {
        let offset = self.function.offset(REGISTERS, Space::Memory, address, width)?;
        // Registers are written whole (3.1).
        if offset & 3 == 0 && width >= 4 {
            self.write(offset, value as u32);
            if width == 8 {
                self.write(offset + 4, (value >> 32) as u32);
            }
        }
        Some(self.has_work())
    }

    /// Ports at which there is something.
    const fn implemented(&self) -> u32 {
        // There are no more than fit into the range.
        let disks = ((1 << self.disks.len()) - 1) << 1;
        disks | self.drive.is_some() as u32
    }

    /// Whether the disks' server still has requests of a port's.
    fn is_busy(&self, index: usize) -> bool {
        index
            .checked_sub(1)
            .and_then(|disk| self.disks.get(disk))
            .is_some_and(Disk::is_busy)
    }

    fn register(&self, offset: u32) -> u32 {
        match offset {
            0x00 => CAPABILITIES | (self.ports.len() as u32 - 1),
            // A reset is over when nothing is moved any more.
            0x04 if self.resetting() => self.control | RESET,
            0x04 => self.control,
            0x08 => self.status,
            0x0c => self.implemented(),
            0x10 => VERSION,
            PORT.. => {
                let (index, offset) = (((offset - PORT) / PORT_LENGTH) as usize, offset % PORT_LENGTH);
                let signature = if index == 0 { SIGNATURE } else { disk::SIGNATURE };
                let port = self.ports.get(index).filter(|_| self.implemented() >> index & 1 != 0);
                port.map_or(0, |port| port.read(offset, signature, self.is_busy(index)))
            }
            _ => 0,
        }
    }

    /// All ports are as after a reset, and the server has requests from before.
    fn resetting(&self) -> bool {
        let idle = self.ports.iter().all(|port| port.command & START == 0 && port.list == 0);
        idle && (0..self.ports.len()).any(|index| self.is_busy(index))
    }

    fn write(&mut self, offset: u32, value: u32) {
        match offset {
            0x04 if value & RESET != 0 => self.reset_adapter(),
            0x04 => self.control = AHCI_ON | value & INTERRUPTS_ON,
            0x08 => self.status &= !value,
            PORT.. => {
                let (index, offset) = (((offset - PORT) / PORT_LENGTH) as usize, offset % PORT_LENGTH);
                if self.implemented() >> (index & 31) & 1 != 0
                    && let Some(port) = self.ports.get_mut(index)
                    && port.write(offset, value)
                {
                    self.stopped(index);
                }
            }
            _ => (),
        }
        self.settle();
    }

    /// A port's list was stopped: nothing that is under way is told of any more.
    fn stopped(&mut self, index: usize) {
        match index.checked_sub(1) {
            None => {
                self.under_way = None;
                self.epoch = self.epoch.wrapping_add(1);
            }
            Some(disk) => {
                if let Some(disk) = self.disks.get_mut(disk) {
                    disk.abandon();
                }
            }
        }
    }

    /// The ports' interrupts show in the adapter's status.
    fn settle(&mut self) {
        for (index, port) in self.ports.iter().enumerate() {
            self.status |= u32::from(port.interrupts()) << index;
        }
    }

    /// Whether it asks for its line.
    pub const fn line_interrupt(&mut self) -> bool {
        let pending = self.status != 0 && self.control & INTERRUPTS_ON != 0;
        self.function.set_interrupt(pending)
    }

    /// Whether a command of the drive waits to be taken.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let port = &self.ports[0];
        self.drive.is_some() && port.issued != 0 && !port.halted && self.under_way.is_none()
    }

    /// Whether there are disks.
    #[must_use]
    pub const fn has_disks(&self) -> bool {
        !self.disks.is_empty()
    }

    /// Goes on with what was issued to disks, and with what ended there. `devices` are the bus's. Answers whether registers changed.
    pub fn run<K: Kick>(&mut self, memory: &GuestMemory, devices: &mut [VirtioPci], to: &Interrupts<K>) -> bool {
        let mut changed = false;
        for (port, disk) in self.ports.iter_mut().skip(1).zip(&mut self.disks) {
            if let Some(device) = devices.get_mut(disk.place()) {
                changed |= disk.run(port, memory, device, to);
            }
        }
        if changed {
            self.settle();
        }
        changed
    }

    /// Goes on with what was issued to the drive, until something has to be read from the medium, or nothing is left.
    pub fn take(&mut self, memory: &GuestMemory) -> Option<Job> {
        while self.has_work() {
            let slot = self.ports[0].issued.trailing_zeros() as u8;
            let command = Command::read(memory, self.ports[0].list, slot);
            let (Some(command), Some(drive)) = (command, &mut self.drive) else {
                // The list is where there is no RAM.
                self.complete(memory, slot, &Reply::failed(command::ABORTED), 0);
                continue;
            };
            match drive.execute(&command) {
                Reply::Read { sector, count } => {
                    if let Some(job) = command.job(memory, slot, self.epoch, sector, count) {
                        self.under_way = Some(slot);
                        return Some(job);
                    }
                    self.complete(memory, slot, &Reply::failed(command::ABORTED), 0);
                }
                Reply::Data(data) => {
                    let count = command.write(memory, &data);
                    self.complete(memory, slot, &Reply::Data(data), count);
                }
                reply => self.complete(memory, slot, &reply, 0),
            }
        }
        None
    }

    /// A job ended.
    pub fn finish<K: Kick>(&mut self, job: &Job, outcome: Outcome, memory: &GuestMemory, _to: &Interrupts<K>) {
        if job.epoch != self.epoch || self.under_way != Some(job.slot) {
            return;
        }
        self.under_way = None;
        let (reply, count) = match (outcome, &mut self.drive) {
            (Outcome::Failed, Some(drive)) => (drive.unreadable(), 0),
            _ => (Reply::Data(Vec::new()), job.bytes()),
        };
        self.complete(memory, job.slot, &reply, count);
    }

    /// Tells the driver how a command of the drive ended.
    fn complete(&mut self, memory: &GuestMemory, slot: u8, reply: &Reply, bytes: u32) {
        self.ports[0].complete(memory, slot, reply.registers(), Left::PACKETS, bytes);
        self.settle();
    }
}

#[cfg(test)]
mod tests;
