//! A port's registers (AHCI 1.3.1, 3.3), and how the end of a command is told.

use super::command::{self, Left, READY};
use crate::memory::GuestMemory;
use serde::{Deserialize, Serialize};

/// Port command: start, receive, their echoes, override, what the guest can write beside (spin up, power).
pub const START: u32 = 1;
const OVERRIDE: u32 = 1 << 3;
const RECEIVE: u32 = 1 << 4;
const RECEIVING: u32 = 1 << 14;
const RUNNING: u32 = 1 << 15;
const COMMAND_PLAIN: u32 = 1 << 1 | 1 << 2 | 1 << 24 | 0xf << 28;
/// Port interrupts: a register FIS came; one with bits of queued commands; a command failed.
const REGISTERS_CAME: u32 = 1;
const BITS_CAME: u32 = 1 << 3;
pub const FAILED: u32 = 1 << 30;
/// Interrupts that can be enabled.
const ENABLES: u32 = 0xfdc0_00ff;
/// A device is there, at 1.5 Gbit/s, awake.
const LINK: u32 = 0x113;
/// Interrupt status and enable (3.3.5, 3.3.6).
const PORT_COMMAND: u32 = 0x18;

/// The registers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Port {
    pub list: u32,
    received: u32,
    pub status: u32,
    pub enable: u32,
    pub command: u32,
    task: u32,
    control: u32,
    error: u32,
    /// Commands that were issued, a bit for each slot.
    pub issued: u32,
    /// Queued commands that are not over.
    pub active: u32,
    /// A command failed: nothing more is done before the list is stopped.
    pub halted: bool,
}

impl Port {
    pub const fn new() -> Self {
        Self {
            list: 0,
            received: 0,
            status: 0,
            enable: 0,
            command: 1 << 1 | 1 << 2 | 1 << 24,
            task: READY as u32 | 1 << 8,
            control: 0,
            error: 0,
            issued: 0,
            active: 0,
            halted: false,
        }
    }

    /// Reads a register. `signature` is the device's, and `busy` whether it is still at work.
    pub const fn read(&self, offset: u32, signature: u32, busy: bool) -> u32 {
        match offset {
            0x00 => self.list,
            0x08 => self.received,
            0x10 => self.status,
            0x14 => self.enable,
            // The list has not stopped before nothing is moved any more (10.3.2).
            PORT_COMMAND if busy => self.command | RUNNING,
            PORT_COMMAND => self.command,
            0x20 => self.task,
            0x24 => signature,
            0x28 => LINK,
            0x2c => self.control,
            0x30 => self.error,
            0x34 => self.active,
            0x38 => self.issued,
            _ => 0,
        }
    }

    /// Writes a register. Answers whether the list was stopped: what is under way is void.
    pub const fn write(&mut self, offset: u32, value: u32) -> bool {
        match offset {
            0x00 => self.list = value & !0x3ff,
            0x08 => self.received = value & !0xff,
            0x10 => self.status &= !value,
            0x14 => self.enable = value & ENABLES,
            PORT_COMMAND => return self.write_command(value),
            0x2c => {
                // The link is reset while detection is 1, and comes up when it is 0 again (10.4.2).
                let came_up = self.control & 0xf == 1 && value & 0xf != 1;
                self.control = value & 0xfff;
                if came_up {
                    self.task = Self::new().task;
                    self.stop();
                }
                return came_up;
            }
            0x30 => self.error &= !value,
            0x34 if self.command & START != 0 => self.active |= value,
            0x38 if self.command & START != 0 => self.issued |= value,
            _ => (),
        }
        false
    }

    const fn write_command(&mut self, value: u32) -> bool {
        let mut command = value & (COMMAND_PLAIN | START | RECEIVE);
        if command & RECEIVE != 0 {
            command |= RECEIVING;
        }
        let mut stopped = false;
        if command & START != 0 {
            command |= RUNNING;
        } else if self.command & START != 0 {
            self.stop();
            stopped = true;
        }
        self.command = command;
        if value & OVERRIDE != 0 {
            self.task &= !0x88;
        }
        stopped
    }

    const fn stop(&mut self) {
        self.issued = 0;
        self.active = 0;
        self.halted = false;
    }

    /// Whether the adapter is to say that this port interrupts.
    pub const fn interrupts(&self) -> bool {
        self.status & self.enable != 0
    }

    /// Tells the driver how a command ended that was not queued.
    pub fn complete(&mut self, memory: &GuestMemory, slot: u8, (status, error): (u8, u8), left: Left, bytes: u32) {
        self.task = u32::from(error) << 8 | u32::from(status);
        command::answer(memory, self.list, slot, bytes);
        if self.command & RECEIVE != 0 {
            command::receive(memory, self.received, status, error, left);
        }
        self.status |= REGISTERS_CAME;
        if status & command::ERROR == 0 {
            self.issued &= !(1 << slot);
        } else {
            self.fail();
        }
    }

    /// Tells the driver how a queued command ended, whose bit was taken from those that were issued.
    pub fn complete_queued(&mut self, memory: &GuestMemory, slot: u8, (status, error): (u8, u8)) {
        self.task = u32::from(error) << 8 | u32::from(status);
        let failed = status & command::ERROR != 0;
        let ended = if failed { 0 } else { 1 << slot };
        if self.command & RECEIVE != 0 {
            command::receive_bits(memory, self.received, status, error, ended);
        }
        self.active &= !ended;
        self.status |= BITS_CAME;
        if failed {
            self.fail();
        }
    }

    const fn fail(&mut self) {
        self.status |= FAILED;
        self.halted = true;
    }
}
