//! A port with what is attached to it (AHCI 1.3.1, 3.3, 5.3, 6.2).
//!
//! ```text
//!          +----------+ list stopped  +-----------+ device there, not busy  +-------+
//!  late -> | Stopping | ------------> | Resetting | ----------------------> | Ready |
//!          +----------+               +-----------+                         +-------+
//!  error ->  Stopping --------------- list stopped: what was in flight is done again, one by one --^
//! ```

mod health;

use super::fis::{self, Command, HEADER, TABLE, Ways};
use crate::controller::{COMMAND_MS, Done, Operation, Refused, Request, Segment};
use crate::drivers::identify_ata::{self, AtaInfo};
use alloc::{rc::Rc, string::String};
use core::sync::atomic::{Ordering, fence};
use tessera_block::IoError;
use tessera_device::dma::DmaBuffer;
use tessera_device::hardware::{Platform, Registers, wait_until};
use tessera_proto::storage::{DiskHealth, DiskState};
use tessera_rt::log;

/// Registers of a port, from its base on.
mod register {
    pub const LIST: u64 = 0x00;
    pub const FRAMES: u64 = 0x08;
    pub const INTERRUPTS: u64 = 0x10;
    pub const INTERRUPT_MASK: u64 = 0x14;
    pub const COMMAND: u64 = 0x18;
    pub const TASK_FILE: u64 = 0x20;
    pub const SIGNATURE: u64 = 0x24;
    pub const LINK: u64 = 0x28;
    pub const LINK_CONTROL: u64 = 0x2c;
    pub const LINK_ERRORS: u64 = 0x30;
    pub const ACTIVE: u64 = 0x34;
    pub const ISSUED: u64 = 0x38;
}

/// Bits of the command register: list runs, spin up, power, frames are received; list is running.
const START: u32 = 1 << 0;
const SPIN_UP: u32 = 1 << 1;
const POWER: u32 = 1 << 2;
const RECEIVE: u32 = 1 << 4;
const RUNNING: u32 = 1 << 15;
/// Bits of the interrupt register: errors of the task file, the bus, the interface.
const ERRORS: u32 = 0x7800_0000;
/// What raises an interrupt: frames, errors, changes of the connection.
const WANTED: u32 = ERRORS | 1 << 22 | 1 << 6 | 0x2f;
/// Bits of the task file: busy, data wanted.
const BUSY: u32 = 0x88;
/// Signature of a CD-ROM drive.
const PACKET_DEVICE: u32 = 0xeb14_0101;
/// Signature of a disk.
const DISK: u32 = 0x0000_0101;
/// Slots.
const SLOTS: usize = 32;
/// Milliseconds that a port may take to stop or to come back.
const RESET_MS: u64 = 10_000;
/// Bytes of a sector of a CD-ROM.
const CD_SECTOR: u32 = 2048;
/// Tag of the driver's own commands.
const OWN: u32 = u32::MAX;

/// What the port is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    /// The list was told to stop after an error; it has until this moment.
    Stopping(u64),
    /// The device is being reset; it has until this moment.
    Resetting(u64),
    Failed,
    Gone,
}

/// A command in flight.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    tag: u32,
    operation: Operation,
    sector: u64,
    sectors: u64,
    since: u64,
    queued: bool,
    /// It is done again after an error, alone.
    again: bool,
    /// The controller has it.
    issued: bool,
}

/// What is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// A disk.
    Disk(AtaInfo),
    /// A CD-ROM drive, with the number of its sectors; 0: nothing is in it.
    Cd {
        /// Model, serial number, firmware.
        names: [String; 3],
        /// Sectors.
        sectors: u64,
    },
}

/// The port.
pub struct Port {
    name: String,
    platform: Rc<dyn Platform>,
    registers: Rc<dyn Registers>,
    base: u64,
    list: DmaBuffer,
    tables: DmaBuffer,
    /// Blocks of ranges, one for each slot.
    ranges: DmaBuffer,
    scratch: DmaBuffer,
    /// Slots of the controller.
    slots: usize,
    queues: bool,
    flying: [Option<InFlight>; SLOTS],
    phase: Phase,
    /// What is attached.
    pub attached: Attached,
    /// Condition.
    pub health: DiskHealth,
    health_asked: Option<u64>,
    /// The last question was whether the disk warns.
    asked_for_warning: bool,
    /// Resets of the device.
    pub resets: u64,
}

/// What all ports of a controller have in common.
#[derive(Clone)]
pub struct Common {
    /// Registers.
    pub registers: Rc<dyn Registers>,
    /// Memory and clock.
    pub platform: Rc<dyn Platform>,
    /// Slots.
    pub slots: usize,
    /// Commands may be queued.
    pub queues: bool,
}

impl Port {
    /// Sets up port `number`; `None`: nothing is attached.
    ///
    /// # Errors
    /// What is attached cannot be used.
    pub fn start(common: &Common, number: u32) -> Option<Result<Self, String>> {
        let base = 0x100 + u64::from(number) * 0x80;
        let registers = common.registers.clone();
        if registers.read32(base + register::LINK) & 15 != 3 {
            return None;
        }
        Some(Self::attach(common, base, number))
    }

    fn attach(common: &Common, base: u64, number: u32) -> Result<Self, String> {
        let memory = |bytes| {
            let none = "there is no memory for its commands: raise `device-memory` of the storage server in the manifest";
            common.platform.allocate(bytes).ok_or(none)
        };
        let mut port = Self {
            name: alloc::format!("port {number}"),
            platform: common.platform.clone(),
            registers: common.registers.clone(),
            base,
            // 32 headers, and behind them the frames that arrive.
            list: memory(4096)?,
            tables: memory(SLOTS * TABLE)?,
            ranges: memory(SLOTS * 512)?,
            scratch: memory(4096)?,
            slots: common.slots.clamp(1, SLOTS),
            queues: common.queues,
            flying: [None; SLOTS],
            phase: Phase::Ready,
            attached: Attached::Cd {
                names: Default::default(),
                sectors: 0,
            },
            health: DiskHealth::default(),
            health_asked: None,
            asked_for_warning: false,
            resets: 0,
        };
        port.write(register::LIST, port.list.physical() as u32);
        port.write(register::LIST + 4, (port.list.physical() >> 32) as u32);
        let frames = port.list.physical() + 1024;
        port.write(register::FRAMES, frames as u32);
        port.write(register::FRAMES + 4, (frames >> 32) as u32);
        port.write(register::LINK_ERRORS, u32::MAX);
        port.write(register::INTERRUPTS, u32::MAX);
        port.write(register::COMMAND, SPIN_UP | POWER | RECEIVE);
        let ready = wait_until(&*common.platform, RESET_MS, || port.read(register::TASK_FILE) & BUSY == 0);
        if !ready {
            return Err("the device stays busy".into());
        }
        port.write(register::COMMAND, SPIN_UP | POWER | RECEIVE | START);
        match port.read(register::SIGNATURE) {
            DISK => port.identify_disk(&*common.platform)?,
            PACKET_DEVICE => port.identify_cd(&*common.platform)?,
            other => {
                return Err(alloc::format!(
                    "what is attached is no disk and no CD-ROM drive (signature {other:#010x})"
                ));
            }
        }
        port.write(register::INTERRUPT_MASK, WANTED);
        Ok(port)
    }

    fn read(&self, register: u64) -> u32 {
        self.registers.read32(self.base + register)
    }

    fn write(&self, register: u64, value: u32) {
        self.registers.write32(self.base + register, value);
    }

    fn header(&self, slot: usize) -> DmaBuffer {
        self.list.part(slot * HEADER, HEADER)
    }

    fn table(&self, slot: usize) -> DmaBuffer {
        self.tables.part(slot * TABLE, TABLE)
    }

    /// A command of the driver's own, waited for. Only while it starts.
    fn command(&mut self, platform: &dyn Platform, command: &Command, bytes: u32) -> Result<(), String> {
        let segment = [Segment {
            physical: self.scratch.physical(),
            length: bytes,
        }];
        let segments = if bytes == 0 { &[][..] } else { &segment[..] };
        command.write(&self.header(0), &self.table(0), segments);
        self.issue(0, false);
        let mut failed = false;
        let done = wait_until(platform, COMMAND_MS, || {
            failed = self.read(register::INTERRUPTS) & ERRORS != 0;
            failed || self.read(register::ISSUED) & 1 == 0
        });
        self.write(register::INTERRUPTS, u32::MAX);
        if done && !failed {
            return Ok(());
        }
        let state = self.read(register::TASK_FILE);
        // The list starts anew after an error (6.2.2.1).
        self.write(register::COMMAND, SPIN_UP | POWER | RECEIVE);
        wait_until(platform, 500, || self.read(register::COMMAND) & RUNNING == 0);
        self.write(register::LINK_ERRORS, u32::MAX);
        self.write(register::INTERRUPTS, u32::MAX);
        self.write(register::COMMAND, SPIN_UP | POWER | RECEIVE | START);
        Err(alloc::format!("a command fails (task file {state:#x})"))
    }

    fn identify_disk(&mut self, platform: &dyn Platform) -> Result<(), String> {
        self.command(platform, &Command::identify(false), identify_ata::LENGTH as u32)?;
        let mut bytes = [0; identify_ata::LENGTH];
        self.scratch.copy_out(0, &mut bytes);
        let info = AtaInfo::parse(&bytes)?;
        if !info.dma {
            return Err("the disk takes no DMA".into());
        }
        if info.smart {
            self.first_health(platform);
        }
        self.attached = Attached::Disk(info);
        Ok(())
    }

    fn identify_cd(&mut self, platform: &dyn Platform) -> Result<(), String> {
        self.command(platform, &Command::identify(true), identify_ata::LENGTH as u32)?;
        let mut bytes = [0; identify_ata::LENGTH];
        self.scratch.copy_out(0, &mut bytes);
        // Names stand where those of disks do; the rest is meaningless there.
        let mut named = bytes;
        named[120..122].copy_from_slice(&[1, 0]);
        named[83 * 2..83 * 2 + 2].fill(0);
        named[106 * 2..106 * 2 + 2].fill(0);
        let info = AtaInfo::parse(&named)?;
        let mut sectors = 0;
        // The first commands after a reset or a change of the medium fail with that news.
        for _ in 0..4 {
            // READ CAPACITY: last sector and size of a sector, big-endian (MMC-6, 6.25).
            let packet = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            if self.command(platform, &Command::packet(packet, true), 8).is_ok() {
                let mut answer = [0; 8];
                self.scratch.copy_out(0, &mut answer);
                let last = u32::from_be_bytes([answer[0], answer[1], answer[2], answer[3]]);
                let size = u32::from_be_bytes([answer[4], answer[5], answer[6], answer[7]]);
                if size == CD_SECTOR && last < u32::MAX {
                    sectors = u64::from(last) + 1;
                }
                break;
            }
            // REQUEST SENSE takes the news.
            let packet = [3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0];
            let _ = self.command(platform, &Command::packet(packet, true), 18);
        }
        self.attached = Attached::Cd {
            names: [info.model, info.serial, info.firmware],
            sectors,
        };
        Ok(())
    }

    /// State for those who ask.
    pub fn state(&self) -> DiskState {
        match (self.phase, &self.attached) {
            (Phase::Ready, Attached::Cd { sectors: 0, .. }) => DiskState::Empty,
            (Phase::Ready, _) => DiskState::Ready,
            (Phase::Stopping(_) | Phase::Resetting(_), _) => DiskState::Resetting,
            (Phase::Failed, _) => DiskState::Failed,
            (Phase::Gone, _) => DiskState::Gone,
        }
    }

    fn ways(&self) -> Ways {
        match &self.attached {
            Attached::Disk(info) => Ways {
                queued: self.queues && info.queued > 0 && !self.flying.iter().flatten().any(|whose| whose.again),
                wide: info.wide,
            },
            Attached::Cd { .. } => Ways::default(),
        }
    }

    /// Slots that may be in use.
    fn depth(&self) -> usize {
        match &self.attached {
            Attached::Disk(info) if self.queues && info.queued > 0 => self.slots.min(info.queued as usize),
            _ => 1,
        }
    }

    /// Whether a request can be one command.
    pub fn fits(&self, request: &Request<'_>) -> bool {
        let most = if matches!(&self.attached, Attached::Disk(info) if !info.wide) {
            256
        } else {
            1 << 16
        };
        match request.operation {
            Operation::Read | Operation::Write => {
                fis::fits(request.segments) && request.sectors <= most && request.bytes() <= super::MAX_TRANSFER.into()
            }
            Operation::Discard => request.sectors <= fis::MAX_TRIM,
            Operation::Flush | Operation::WriteZeroes => true,
        }
    }

    fn issue(&self, slot: usize, queued: bool) {
        // Release: the command is there before it is issued.
        fence(Ordering::Release);
        if queued {
            self.write(register::ACTIVE, 1 << slot);
        }
        self.write(register::ISSUED, 1 << slot);
    }

    /// Starts a request.
    pub fn submit(&mut self, request: &Request<'_>, tag: u32, now: u64) -> Result<(), Refused> {
        match self.phase {
            Phase::Ready => {}
            Phase::Failed | Phase::Gone => return Err(IoError::Gone.into()),
            _ => return Err(Refused::Full),
        }
        let depth = self.depth();
        let slot = (0..depth).find(|slot| self.flying[*slot].is_none()).ok_or(Refused::Full)?;
        let command = self.command_for(request, slot)?;
        // A queued command and another never meet, and of the others there is one at a time.
        let meets = self
            .flying
            .iter()
            .flatten()
            .any(|whose| !(command.queued && whose.queued && !whose.again));
        if meets {
            return Err(Refused::Full);
        }
        let range = [Segment {
            physical: self.ranges.physical() + slot as u64 * 512,
            length: 512,
        }];
        let segments = if request.operation == Operation::Discard {
            fis::write_ranges(&self.ranges.part(slot * 512, 512), request.sector, request.sectors);
            &range[..]
        } else {
            request.segments
        };
        command.write(&self.header(slot), &self.table(slot), segments);
        self.flying[slot] = Some(InFlight {
            tag,
            operation: request.operation,
            sector: request.sector,
            sectors: request.sectors,
            since: now,
            queued: command.queued,
            again: false,
            issued: true,
        });
        self.issue(slot, command.queued);
        Ok(())
    }

    fn command_for(&self, request: &Request<'_>, slot: usize) -> Result<Command, IoError> {
        match &self.attached {
            Attached::Disk(info) if request.operation == Operation::Discard && !info.trim => Err(IoError::Unsupported),
            Attached::Disk(_) => {
                Command::disk(request.operation, request.sector, request.sectors, self.ways(), slot as u32).ok_or(IoError::Unsupported)
            }
            Attached::Cd { .. } if request.operation == Operation::Read => {
                let (sector, count) = ((request.sector as u32).to_be_bytes(), (request.sectors as u32).to_be_bytes());
                // READ (12) (MMC-6, 6.16).
                let packet = [
                    0xa8, 0, sector[0], sector[1], sector[2], sector[3], count[0], count[1], count[2], count[3], 0, 0,
                ];
                Ok(Command::packet(packet, true))
            }
            // Nothing is ever written there.
            Attached::Cd { .. } if request.operation == Operation::Flush => Err(IoError::Unsupported),
            Attached::Cd { .. } => Err(IoError::ReadOnly),
        }
    }

    /// Takes what has completed.
    pub fn poll(&mut self, now: u64, done: &mut Done<'_>) {
        if self.phase != Phase::Ready {
            return self.go_on(now, done);
        }
        let news = self.read(register::INTERRUPTS);
        if matches!(self.read(register::LINK) & 15, 0 | 15) {
            return self.gone(done);
        }
        self.write(register::INTERRUPTS, news);
        self.collect(done);
        if news & ERRORS != 0 && self.flying.iter().any(Option::is_some) {
            self.write(register::COMMAND, SPIN_UP | POWER | RECEIVE);
            self.phase = Phase::Stopping(now.saturating_add(500));
            self.go_on(now, done);
        }
    }

    /// Whether a register says that slots are still in use. Nothing that stands there is more than was issued.
    fn collect(&mut self, done: &mut Done<'_>) {
        let active = self.read(register::ACTIVE);
        let issued = self.read(register::ISSUED);
        let failed = self.read(register::TASK_FILE) & 1 != 0;
        for slot in 0..SLOTS {
            let Some(whose) = self.flying[slot] else { continue };
            let working = (if whose.queued { active | issued } else { issued }) >> slot & 1 != 0;
            if working || !whose.issued {
                continue;
            }
            // The device says that its last command failed: the error's own way decides about this one.
            if failed && !whose.queued {
                continue;
            }
            self.flying[slot] = None;
            self.finish(whose, Ok(()), done);
        }
        self.issue_again();
    }

    fn finish(&mut self, whose: InFlight, result: Result<(), IoError>, done: &mut Done<'_>) {
        if whose.tag == OWN {
            if result.is_ok() {
                self.health_told();
            }
        } else {
            done(whose.tag, result);
        }
    }

    /// Issues the next of the commands that have to be done again, if none is at work.
    fn issue_again(&mut self) {
        if self.phase != Phase::Ready || self.flying.iter().flatten().any(|whose| whose.issued) {
            return;
        }
        for slot in 0..SLOTS {
            if let Some(whose) = &mut self.flying[slot] {
                whose.issued = true;
                self.issue(slot, false);
                return;
            }
        }
    }

    /// After an error the list has to stop; then what was in flight is done again without queueing, so that it shows which one failed.
    fn go_on(&mut self, now: u64, done: &mut Done<'_>) {
        match self.phase {
            Phase::Stopping(deadline) => {
                let state = self.read(register::COMMAND);
                if state == u32::MAX {
                    self.gone(done);
                } else if state & RUNNING == 0 {
                    self.stopped(now, done);
                } else if now >= deadline {
                    self.reset(now);
                }
            }
            Phase::Resetting(deadline) => {
                let link = self.read(register::LINK);
                if self.read(register::LINK_CONTROL) & 15 == 1 {
                    // At least a millisecond has passed.
                    self.write(register::LINK_CONTROL, 0);
                } else if link == u32::MAX {
                    self.gone(done);
                } else if link & 15 == 3 && self.read(register::TASK_FILE) & BUSY == 0 {
                    self.fail_all(IoError::Timeout, done);
                    self.restart();
                } else if now >= deadline {
                    log::error!("AHCI {}: the device does not come back from its reset", self.name);
                    self.phase = if link & 15 == 0 { Phase::Gone } else { Phase::Failed };
                    if self.read(register::COMMAND) & RUNNING != 0 {
                        // The list did not stop either. The other ports lose their access too, and their requests end by taking too long.
                        self.platform.deny_memory_access();
                    }
                    self.fail_all(IoError::Gone, done);
                }
            }
            _ => {}
        }
    }

    fn stopped(&mut self, now: u64, done: &mut Done<'_>) {
        let state = self.read(register::TASK_FILE);
        if state & BUSY != 0 {
            return self.reset(now);
        }
        let error = (state >> 8) as u8;
        let alone = self.flying.iter().flatten().all(|whose| !whose.queued);
        if alone {
            let at_work = (0..SLOTS).find(|slot| self.flying[*slot].is_some_and(|whose| whose.issued));
            if let Some(whose) = at_work.and_then(|slot| self.flying[slot].take()) {
                let result = Err(cause(error, &whose, self.packet_device()));
                self.finish(whose, result, done);
            }
        } else {
            let wide = self.ways().wide;
            for slot in 0..SLOTS {
                let Some(whose) = self.flying[slot].as_mut() else { continue };
                (whose.queued, whose.again, whose.issued, whose.since) = (false, true, false, now);
                let ways = Ways { queued: false, wide };
                let plain = Command::disk(whose.operation, whose.sector, whose.sectors, ways, slot as u32);
                if let Some(plain) = plain {
                    plain.rewrite(&self.header(slot), &self.table(slot));
                }
            }
        }
        self.restart();
    }

    fn packet_device(&self) -> bool {
        matches!(self.attached, Attached::Cd { .. })
    }

    fn restart(&mut self) {
        self.write(register::LINK_ERRORS, u32::MAX);
        self.write(register::INTERRUPTS, u32::MAX);
        self.write(register::COMMAND, SPIN_UP | POWER | RECEIVE | START);
        self.phase = Phase::Ready;
        self.issue_again();
    }

    /// Resets the device (10.4.2).
    fn reset(&mut self, now: u64) {
        log::warn!("AHCI {}: the device hangs; it is reset", self.name);
        self.write(register::COMMAND, SPIN_UP | POWER | RECEIVE);
        self.write(register::LINK_CONTROL, 1);
        self.resets += 1;
        self.phase = Phase::Resetting(now.saturating_add(RESET_MS));
    }

    fn gone(&mut self, done: &mut Done<'_>) {
        log::warn!("AHCI {}: the device is gone", self.name);
        self.write(register::COMMAND, 0);
        self.phase = Phase::Gone;
        self.fail_all(IoError::Gone, done);
    }

    fn fail_all(&mut self, error: IoError, done: &mut Done<'_>) {
        for slot in 0..SLOTS {
            if let Some(whose) = self.flying[slot].take() {
                self.finish(whose, Err(error), done);
            }
        }
    }

    /// Looks after what takes too long, and asks for the condition.
    pub fn watch(&mut self, now: u64, done: &mut Done<'_>) {
        self.poll(now, done);
        if self.phase != Phase::Ready {
            return;
        }
        if self
            .flying
            .iter()
            .flatten()
            .any(|whose| now.saturating_sub(whose.since) > COMMAND_MS)
        {
            return self.reset(now);
        }
        self.ask_health(now);
    }
}

/// What the error register means (ACS-3, 6.2). CD-ROM drives have a sense key in its upper half: 2 is that there is no medium.
fn cause(error: u8, whose: &InFlight, packet_device: bool) -> IoError {
    match whose.operation {
        Operation::Read if packet_device && error >> 4 == 2 => IoError::Gone,
        // The request was sound: whatever the device says, it cannot read or write there.
        Operation::Read | Operation::Write => IoError::Media { sector: whose.sector },
        _ => IoError::Device { code: error.into() },
    }
}
