//! A host adapter for SATA with one port (AHCI 1.3.1), as ICH9 has it at 00:1f.2, and a CD-ROM drive at it. Only in machines with firmware.
//!
//! A write to a register issues commands; whoever has the medium takes them one by one ([`Ahci::take`]) outside of the chipset's lock and says how they ended ([`Ahci::finish`]).

mod atapi;
mod command;
mod saved;

pub use command::{Job, Outcome, SECTOR};
pub use saved::SavedAhci;

use super::pci::function::{Function, Space};
use super::pci::line_of;
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;
use atapi::Drive;
use command::{Command, Reply};
use serde::{Deserialize, Serialize};

/// Device and function on the bus.
pub const PLACE: (u8, u8) = (31, 2);
/// Base address register of the registers, and their length.
const REGISTERS: usize = 5;
const LENGTH: u32 = 0x1000;
/// Where the range is before firmware places it.
const ADDRESS: u32 = 0xfeb0_0000;
/// Capabilities: one port, 32 commands, 1.5 Gbit/s, AHCI only, command list override.
const CAPABILITIES: u32 = 31 << 8 | 1 << 18 | 1 << 20 | 1 << 24;
const VERSION: u32 = 0x1_0301;
/// Global control: AHCI is on; interrupts; reset.
const AHCI_ON: u32 = 1 << 31;
const INTERRUPTS_ON: u32 = 2;
const RESET: u32 = 1;
/// First register of the port.
const PORT: u32 = 0x100;
const PORT_LENGTH: u32 = 0x80;
/// Port command: start, receive, their echoes, override, what the guest can write beside (spin up, power).
const START: u32 = 1;
const OVERRIDE: u32 = 1 << 3;
const RECEIVE: u32 = 1 << 4;
const RECEIVING: u32 = 1 << 14;
const RUNNING: u32 = 1 << 15;
const COMMAND_PLAIN: u32 = 1 << 1 | 1 << 2 | 1 << 24 | 0xf << 28;
/// Port interrupts: a register FIS came; a command failed.
const REGISTERS_CAME: u32 = 1;
const FAILED: u32 = 1 << 30;
/// Interrupts that can be enabled.
const ENABLES: u32 = 0xfdc0_00ff;
/// A device is there, at 1.5 Gbit/s, awake.
const LINK: u32 = 0x113;
/// Signature of a drive that takes packets.
const SIGNATURE: u32 = 0xeb14_0101;

/// The adapter.
#[derive(Clone, Debug)]
pub struct Ahci {
    function: Function,
    control: u32,
    status: u32,
    port: Port,
    drive: Drive,
    /// Counts what makes commands under way void.
    epoch: u32,
    under_way: Option<u8>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Port {
    list: u32,
    received: u32,
    status: u32,
    enable: u32,
    command: u32,
    task: u32,
    control: u32,
    error: u32,
    issued: u32,
    /// A command failed: nothing more is done before the list is stopped.
    halted: bool,
}

impl Port {
    const fn reset() -> Self {
        Self {
            list: 0,
            received: 0,
            status: 0,
            enable: 0,
            command: 1 << 1 | 1 << 2 | 1 << 24,
            task: command::READY as u32 | 1 << 8,
            control: 0,
            error: 0,
            issued: 0,
            halted: false,
        }
    }
}

impl Ahci {
    /// With a medium of `bytes` bytes in the drive; `None`: it is empty.
    #[must_use]
    pub fn new(bytes: Option<u64>) -> Self {
        let mut function = Function::new(PLACE.0, 0x8086, 0x2922, 0x0106_0102);
        function.set_line(line_of(PLACE.0));
        function.set_range(REGISTERS, Space::Memory, LENGTH, ADDRESS);
        Self {
            function,
            control: AHCI_ON,
            status: 0,
            port: Port::reset(),
            drive: Drive::new(bytes),
            epoch: 0,
            under_way: None,
        }
    }

    /// Power-on state; the medium stays.
    pub fn reset(&mut self) {
        let (drive, epoch) = (self.drive.clone(), self.epoch);
        *self = Self::new(None);
        self.drive = drive.reset();
        self.epoch = epoch.wrapping_add(1);
    }

    /// Puts another medium of `bytes` bytes into the drive, or takes it out.
    pub const fn change_medium(&mut self, bytes: Option<u64>) {
        self.drive.change(bytes);
    }

    /// Bytes of the medium that the guest sees, and whether it wants to keep it.
    #[must_use]
    pub fn medium(&self) -> (Option<u64>, bool) {
        self.drive.medium()
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

    const fn register(&self, offset: u32) -> u32 {
        let port = &self.port;
        match offset {
            0x00 => CAPABILITIES,
            0x04 => self.control,
            0x08 => self.status,
            // Ports that are there.
            0x0c => 1,
            0x10 => VERSION,
            0x100 => port.list,
            0x108 => port.received,
            0x110 => port.status,
            0x114 => port.enable,
            0x118 => port.command,
            0x120 => port.task,
            0x124 => SIGNATURE,
            0x128 => LINK,
            0x12c => port.control,
            0x130 => port.error,
            0x138 => port.issued,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        match offset {
            0x04 if value & RESET != 0 => {
                let function = self.function.clone();
                self.reset();
                self.function = function;
            }
            0x04 => self.control = AHCI_ON | value & INTERRUPTS_ON,
            0x08 => self.status &= !value,
            PORT.. if offset < PORT + PORT_LENGTH => self.write_port(offset - PORT, value),
            _ => (),
        }
        self.settle();
    }

    fn write_port(&mut self, offset: u32, value: u32) {
        let port = &mut self.port;
        match offset {
            0x00 => port.list = value & !0x3ff,
            0x08 => port.received = value & !0xff,
            0x10 => port.status &= !value,
            0x14 => port.enable = value & ENABLES,
            0x18 => self.write_command(value),
            0x2c => {
                // The link is reset while detection is 1, and comes up when it is 0 again (10.4.2).
                if port.control & 0xf == 1 && value & 0xf != 1 {
                    port.task = Port::reset().task;
                    self.stop();
                }
                self.port.control = value & 0xfff;
            }
            0x30 => port.error &= !value,
            0x38 if port.command & START != 0 => port.issued |= value,
            _ => (),
        }
    }

    fn write_command(&mut self, value: u32) {
        let port = &mut self.port;
        let mut command = value & (COMMAND_PLAIN | START | RECEIVE);
        if command & RECEIVE != 0 {
            command |= RECEIVING;
        }
        if command & START != 0 {
            command |= RUNNING;
        } else if port.command & START != 0 {
            self.stop();
        }
        self.port.command = command;
        if value & OVERRIDE != 0 {
            self.port.task &= !0x88;
        }
    }

    /// The list stops: nothing is issued any more.
    const fn stop(&mut self) {
        self.port.issued = 0;
        self.port.halted = false;
        self.under_way = None;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The port's interrupts show in the adapter's status.
    const fn settle(&mut self) {
        if self.port.status & self.port.enable != 0 {
            self.status |= 1;
        }
    }

    /// Whether it asks for its line.
    pub const fn line_interrupt(&mut self) -> bool {
        let pending = self.status != 0 && self.control & INTERRUPTS_ON != 0;
        self.function.set_interrupt(pending)
    }

    /// Whether a command waits to be taken.
    #[must_use]
    pub const fn has_work(&self) -> bool {
        self.port.issued != 0 && !self.port.halted && self.under_way.is_none()
    }

    /// Goes on with what was issued, until something has to be read from the medium, or nothing is left.
    pub fn take(&mut self, memory: &GuestMemory) -> Option<Job> {
        while self.has_work() {
            let slot = self.port.issued.trailing_zeros() as u8;
            let Some(command) = Command::read(memory, self.port.list, slot) else {
                // The list is where there is no RAM.
                self.complete(memory, slot, &Reply::failed(command::ABORTED), 0);
                continue;
            };
            match self.drive.execute(&command) {
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
        let (reply, count) = match outcome {
            Outcome::Done => (Reply::Data(alloc::vec::Vec::new()), job.bytes()),
            Outcome::Failed => (self.drive.unreadable(), 0),
        };
        self.complete(memory, job.slot, &reply, count);
    }

    /// Tells the driver how a command ended.
    fn complete(&mut self, memory: &GuestMemory, slot: u8, reply: &Reply, bytes: u32) {
        let (status, error) = reply.registers();
        self.port.task = u32::from(error) << 8 | u32::from(status);
        command::answer(memory, self.port.list, slot, bytes);
        if self.port.command & RECEIVE != 0 {
            command::receive(memory, self.port.received, status, error);
        }
        self.port.status |= REGISTERS_CAME;
        if status & command::ERROR == 0 {
            self.port.issued &= !(1 << slot);
        } else {
            self.port.status |= FAILED;
            self.port.halted = true;
        }
        self.settle();
    }
}

#[cfg(test)]
mod tests;
