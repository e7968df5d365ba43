//! A USB host controller (xHCI 1.2) with a tablet plugged in, on machines with a screen: a pointer that is where the viewer's is, which a mouse that tells movements cannot be.
//!
//! ```text
//!  doorbell --> command ring, transfer rings --+
//!  VMX's ring of events --> tablet ------------+--> event ring, interrupt
//! ```
//!
//! Nothing here waits: a register is written, or somebody points, and what can go on goes on at once, on that thread. All that lies in the guest's memory is looked at once and believed as little as possible; how many blocks
//! of a ring are done at a time is bounded, and nothing is done that there is no room to tell of.

mod commands;
mod port;
mod ring;
mod saved;
mod slot;
mod tablet;
mod transfers;

pub use saved::SavedXhci;

use super::pci::function::{Function, Space};
use super::pci::line_of;
use super::pci::msix::{self, Msix};
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;
use port::Port;
use ring::{Block, Code, EventRing, Ring, kind};
use serde::{Deserialize, Serialize};
use slot::{SLOTS, Slot, State};
use tablet::Tablet;

/// Device number on the bus.
pub const SLOT: u8 = 29;
/// Base address register of the registers, their length, and where they are before firmware places them.
const RANGE: usize = 0;
const LENGTH: u32 = 0x4000;
const ADDRESS: u32 = 0xfeb2_0000;
/// Where the groups of registers are in it (5.2): operational, ports, runtime, doorbells; table and pending bits of MSI-X.
const OPERATIONAL: u32 = 0x40;
const PORTS: u32 = 0x440;
const PORTS_END: u32 = PORTS + 0x10 * PORT_COUNT as u32;
const RUNTIME: u32 = 0x1000;
const DOORBELLS: u32 = 0x2000;
const TABLE: u32 = 0x3000;
const PENDING: u32 = 0x3800;

/// Registers by name (5.4, 5.5).
mod register {
    pub const USBCMD: u32 = 0x40;
    pub const USBSTS: u32 = 0x44;
    pub const PAGESIZE: u32 = 0x48;
    pub const DNCTRL: u32 = 0x54;
    pub const CRCR: u32 = 0x58;
    pub const CRCR_HIGH: u32 = 0x5c;
    pub const DCBAAP: u32 = 0x70;
    pub const DCBAAP_HIGH: u32 = 0x74;
    pub const CONFIG: u32 = 0x78;
    pub const IMAN: u32 = 0x1020;
    pub const IMOD: u32 = 0x1024;
    pub const ERSTSZ: u32 = 0x1028;
    pub const ERSTBA: u32 = 0x1030;
    pub const ERSTBA_HIGH: u32 = 0x1034;
    pub const ERDP: u32 = 0x1038;
    pub const ERDP_HIGH: u32 = 0x103c;
}

const PORT_COUNT: usize = 2;
/// The tablet's port.
const TABLET_PORT: usize = 0;
/// Capabilities (5.3), and behind them one for each kind of port (7.2): version 1.0, slots, interrupter, ports; addresses of 64 bits.
const CAPABILITIES: [u32; 16] = [
    OPERATIONAL | 0x0100 << 16,
    SLOTS as u32 | 1 << 8 | (PORT_COUNT as u32) << 24,
    0xf,
    0,
    1 | (0x20 / 4) << 16,
    DOORBELLS,
    RUNTIME,
    0,
    // USB 2.0: the first port. USB 3.0: the second.
    0x0200_0402,
    PROTOCOL_NAME,
    1 | 1 << 8,
    0,
    0x0300_0002,
    PROTOCOL_NAME,
    2 | 1 << 8,
    0,
];
const PROTOCOL_NAME: u32 = u32::from_le_bytes(*b"USB ");

/// Command register: run, reset, interrupts, save, restore; what is kept of it.
const RUN: u32 = 1;
const RESET: u32 = 1 << 1;
const INTERRUPTS_ON: u32 = 1 << 2;
const RESTORE: u32 = 1 << 9;
const COMMAND_KEPT: u32 = RUN | INTERRUPTS_ON | 1 << 3 | 1 << 10;
/// Status register: halted, an interrupt, a port changed, restoring failed, the controller failed; what writing clears.
const HALTED: u32 = 1;
const INTERRUPT: u32 = 1 << 3;
const PORT_CHANGED: u32 = 1 << 4;
const RESTORE_FAILED: u32 = 1 << 10;
const FAILED: u32 = 1 << 12;
const STATUS_CLEARED: u32 = 1 << 2 | INTERRUPT | PORT_CHANGED | RESTORE_FAILED;
/// Command ring control: stop, abort, runs.
const STOP: u32 = 3 << 1;
const RUNS: u64 = 1 << 3;
/// Interrupter: pending, enabled; its events are being looked at.
const IS_PENDING: u32 = 1;
const ENABLED: u32 = 2;
const BUSY: u64 = 1 << 3;

/// The interrupter (5.5.2).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Interrupter {
    management: u32,
    moderation: u32,
    table_size: u32,
    table: u64,
    dequeue: u64,
    events: EventRing,
    /// The table was placed, and is to be read.
    placed: bool,
    /// An interrupt is due.
    due: bool,
}

impl Interrupter {
    fn raise(&mut self) {
        self.management |= IS_PENDING;
        self.due |= self.dequeue & BUSY == 0;
        self.dequeue |= BUSY;
    }
}

/// What a reset of the controller resets.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Controller {
    command: u32,
    status: u32,
    notifications: u32,
    /// Command ring, what was written to its register, whether it runs and its doorbell was rung; it was asked to stop.
    commands: Ring,
    commands_pointer: u64,
    commands_run: bool,
    commands_rung: bool,
    commands_stop: bool,
    /// The register takes a pointer: the ring did not run when its lower half was written.
    commands_open: bool,
    /// Address of the list of contexts.
    contexts: u64,
    enabled_slots: u8,
    interrupter: Interrupter,
    ports: [Port; PORT_COUNT],
    slots: [Slot; SLOTS],
    tablet: Tablet,
    frames: u32,
}

impl Controller {
    fn new() -> Self {
        Self {
            command: 0,
            status: HALTED,
            notifications: 0,
            commands: Ring::default(),
            commands_pointer: 0,
            commands_run: false,
            commands_rung: false,
            commands_stop: false,
            commands_open: false,
            contexts: 0,
            enabled_slots: 0,
            interrupter: Interrupter::default(),
            ports: [Port::new(true), Port::new(false)],
            slots: Default::default(),
            tablet: Tablet::default(),
            frames: 0,
        }
    }

    const fn runs(&self) -> bool {
        self.command & RUN != 0 && self.status & FAILED == 0
    }

    /// Nothing more can be made of what the driver says (4.24.1).
    const fn die(&mut self) {
        self.status |= FAILED | HALTED;
    }

    fn read(&mut self, offset: u32) -> u32 {
        let half = |value: u64| if offset & 4 == 0 { value as u32 } else { (value >> 32) as u32 };
        match offset {
            0..OPERATIONAL => CAPABILITIES[(offset / 4) as usize],
            register::USBCMD => self.command,
            register::USBSTS => self.status,
            // Pages of 4 KiB.
            register::PAGESIZE => 1,
            register::DNCTRL => self.notifications,
            register::CRCR if self.commands_run => RUNS as u32,
            register::DCBAAP | register::DCBAAP_HIGH => half(self.contexts),
            register::CONFIG => self.enabled_slots.into(),
            PORTS..PORTS_END if offset & 0xf == 0 => self.ports[((offset - PORTS) / 0x10) as usize].read(),
            RUNTIME => {
                // Whoever waits for frames sees them go by.
                self.frames = self.frames.wrapping_add(8) & 0x3fff;
                self.frames
            }
            register::IMAN => self.interrupter.management,
            register::IMOD => self.interrupter.moderation,
            register::ERSTSZ => self.interrupter.table_size,
            register::ERSTBA | register::ERSTBA_HIGH => half(self.interrupter.table),
            register::ERDP | register::ERDP_HIGH => half(self.interrupter.dequeue),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        let half = |old: u64| {
            if offset & 4 == 0 {
                old >> 32 << 32 | u64::from(value)
            } else {
                old & 0xffff_ffff | u64::from(value) << 32
            }
        };
        match offset {
            register::USBCMD => self.write_command(value),
            register::USBSTS => self.status &= !(value & STATUS_CLEARED),
            register::DNCTRL => self.notifications = value & 0xffff,
            register::CRCR | register::CRCR_HIGH => {
                self.commands_pointer = half(self.commands_pointer);
                if offset == register::CRCR {
                    self.commands_open = !self.commands_run;
                    self.commands_stop |= self.commands_run && value & STOP != 0;
                }
                if self.commands_open {
                    self.commands = Ring::at(self.commands_pointer & !0x3e);
                }
            }
            register::DCBAAP | register::DCBAAP_HIGH => self.contexts = half(self.contexts) & !0x3f,
            register::CONFIG => self.enabled_slots = value as u8,
            PORTS..PORTS_END => {
                let reset = offset & 0xf == 0 && self.ports[((offset - PORTS) / 0x10) as usize].write(value);
                if reset {
                    self.tablet.reset();
                }
            }
            register::IMAN => {
                let pending = self.interrupter.management & IS_PENDING & !value;
                self.interrupter.management = pending | value & ENABLED;
            }
            register::IMOD => self.interrupter.moderation = value,
            register::ERSTSZ => self.interrupter.table_size = value & 0xffff,
            register::ERSTBA | register::ERSTBA_HIGH => {
                self.interrupter.table = half(self.interrupter.table) & !0x3f;
                self.interrupter.placed |= offset == register::ERSTBA_HIGH;
            }
            register::ERDP | register::ERDP_HIGH => self.write_dequeue(half(self.interrupter.dequeue), offset == register::ERDP),
            DOORBELLS..TABLE => self.ring(((offset - DOORBELLS) / 4) as usize, value as u8),
            _ => {}
        }
    }

    fn write_command(&mut self, value: u32) {
        if value & RESET != 0 {
            *self = Self::new();
            return;
        }
        self.command = value & COMMAND_KEPT;
        // What was saved is not there any more: the driver sets everything up anew.
        if value & RESTORE != 0 {
            self.status |= RESTORE_FAILED;
        }
        if self.runs() {
            self.status &= !HALTED;
        } else {
            self.status |= HALTED;
            self.commands_run = false;
        }
    }

    fn write_dequeue(&mut self, value: u64, low: bool) {
        let interrupter = &mut self.interrupter;
        let cleared = low && value & BUSY != 0;
        let busy = interrupter.dequeue & BUSY != 0 && !cleared;
        interrupter.dequeue = value & !BUSY | if busy { BUSY } else { 0 };
        interrupter.events.taken(value);
        if cleared && interrupter.events.has_events() {
            interrupter.raise();
        }
    }

    fn ring(&mut self, number: usize, target: u8) {
        if !self.runs() {
            return;
        }
        match number.checked_sub(1) {
            None => self.commands_rung |= target == 0,
            Some(index) => {
                if let Some(endpoint) = self.slots.get_mut(index).and_then(|slot| slot.endpoint(target)) {
                    endpoint.rung = true;
                }
            }
        }
    }

    /// Tells the driver of something.
    fn tell(&mut self, memory: &GuestMemory, event: Block) {
        if self.interrupter.events.put(memory, event).is_none() {
            return self.die();
        }
        self.status |= INTERRUPT;
        self.interrupter.raise();
    }

    /// Does what is to be done.
    fn work(&mut self, memory: &GuestMemory) {
        if core::mem::take(&mut self.interrupter.placed) {
            let table = self.interrupter.table;
            let found = (self.interrupter.table_size > 0)
                .then(|| EventRing::of_table(memory, table))
                .flatten();
            self.interrupter.events = found.unwrap_or_default();
            self.interrupter.events.taken(self.interrupter.dequeue);
        }
        if !self.runs() {
            return;
        }
        for index in 0..PORT_COUNT {
            if self.ports[index].news && self.interrupter.events.has_room(1) {
                self.ports[index].news = false;
                self.status |= PORT_CHANGED;
                let event = Block {
                    parameter: (index as u64 + 1) << 24,
                    status: u32::from(Code::Success as u8) << 24,
                    control: u32::from(kind::PORT_EVENT) << 10,
                };
                self.tell(memory, event);
            }
        }
        if self.commands_stop && self.interrupter.events.has_room(1) {
            (self.commands_stop, self.commands_run, self.commands_rung) = (false, false, false);
            self.tell_command(memory, self.commands.pointer() & !0xf, Code::CommandRingStopped, 0);
        }
        self.run_commands(memory);
        self.run_endpoints(memory);
    }

    /// Whether a driver asks the tablet what it has to report.
    fn is_polled(&self) -> bool {
        let polled = |slot: &Slot| slot.reports.polled && slot.reports.state == State::Running;
        self.runs() && self.tablet.is_configured() && self.slots.iter().any(polled)
    }
}

/// The controller on the bus.
#[derive(Clone, Debug)]
pub struct Xhci {
    function: Function,
    msix: Msix,
    msix_register: usize,
    controller: Controller,
}

impl Default for Xhci {
    fn default() -> Self {
        Self::new()
    }
}

impl Xhci {
    /// After power-on.
    #[must_use]
    pub fn new() -> Self {
        let msix = Msix::new(1);
        // Red Hat's controller, which drivers know to need nothing of its own.
        let mut function = Function::new(SLOT, 0x1b36, 0x000d, 0x0c03_3001);
        function.set_subsystem(0x1af4, 0x1100);
        function.set_line(line_of(SLOT));
        function.set_range(RANGE, Space::Memory, LENGTH, ADDRESS);
        let capability = function.add_capability(msix::CAPABILITY, &msix.capability(RANGE as u8, TABLE, PENDING), &msix::WRITABLE);
        // USB 3.0, frames of 60,000 bit times (5.2.3, 5.2.4).
        function.set_register(0x60 / 4, 0x2030, 0);
        Self {
            function,
            msix,
            msix_register: usize::from(capability.unwrap_or(0)) / 4,
            controller: Controller::new(),
        }
    }

    /// Reads a register of configuration space.
    #[must_use]
    pub const fn config_read(&self, register: usize) -> u32 {
        self.function.read(register)
    }

    /// Writes one.
    pub fn config_write<K: Kick>(&mut self, register: usize, mask: u32, value: u32, to: &Interrupts<K>) {
        self.function.write(register, mask, value);
        if register == self.msix_register {
            let control = (self.function.read(register) >> 16) as u16;
            self.msix.set_control(control, &mut |message| to.send(&message, None));
        }
    }

    /// Whether it asks for its line.
    pub const fn line_interrupt(&mut self) -> bool {
        let controller = &self.controller;
        let pending = controller.interrupter.management == IS_PENDING | ENABLED && controller.command & INTERRUPTS_ON != 0;
        self.function.set_interrupt(pending && !self.msix.is_enabled())
    }

    fn word(&mut self, offset: u32) -> u32 {
        match offset {
            TABLE..PENDING => self.msix.read_table(offset - TABLE),
            PENDING.. => self.msix.read_pending(offset - PENDING),
            _ => self.controller.read(offset),
        }
    }

    /// Reads its range; `None` if the address is not in it.
    pub fn range_read(&mut self, address: u64, width: u8) -> Option<u64> {
        let offset = self.function.offset(RANGE, Space::Memory, address, width)?;
        let word = u64::from(self.word(offset & !3)) >> ((offset & 3) * 8);
        Some(match width {
            8 if offset & 3 == 0 => word | u64::from(self.word(offset + 4)) << 32,
            8 => word,
            width => word & ((1 << (8 * u32::from(width.min(4)))) - 1),
        })
    }

    /// Writes its range; false if the address is not in it. [`Self::run`] does what was asked for with it.
    pub fn range_write<K: Kick>(&mut self, address: u64, width: u8, value: u64, to: &Interrupts<K>) -> bool {
        let Some(offset) = self.function.offset(RANGE, Space::Memory, address, width) else {
            return false;
        };
        // Registers are written whole.
        if offset & 3 == 0 && width >= 4 {
            for (offset, value) in (offset..)
                .step_by(4)
                .zip([value as u32, (value >> 32) as u32])
                .take(usize::from(width / 4))
            {
                match offset {
                    TABLE..PENDING => {
                        self.msix.write_table(offset - TABLE, value, &mut |message| to.send(&message, None));
                    }
                    _ => self.controller.write(offset, value),
                }
            }
        }
        true
    }

    /// Goes on with what the driver asked for and with what the tablet has to report. Answers whether its line may have changed.
    pub fn run<K: Kick>(&mut self, memory: &GuestMemory, to: &Interrupts<K>) -> bool {
        let before = self.line_interrupt();
        self.controller.work(memory);
        let interrupter = &mut self.controller.interrupter;
        if interrupter.due && interrupter.management & ENABLED != 0 && self.controller.command & INTERRUPTS_ON != 0 {
            interrupter.due = false;
            if self.msix.is_enabled() {
                // The message takes it along (5.5.2.1).
                interrupter.management &= !IS_PENDING;
                self.msix.raise(0, &mut |message| to.send(&message, None));
            }
        }
        before != self.line_interrupt()
    }

    /// Whether a driver asks the tablet: what a viewer does with the pointer is for it then, and not for the mouse.
    #[must_use]
    pub fn has_pointer(&self) -> bool {
        self.controller.is_polled()
    }

    /// Somebody points somewhere, in parts of 7FFF of the screen.
    pub fn point(&mut self, x: u16, y: u16, wheel: i8, buttons: u8) {
        self.controller.tablet.point(x, y, wheel, buttons);
    }
}

#[cfg(test)]
mod tests;
