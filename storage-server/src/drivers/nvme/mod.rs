//! NVM Express controllers (Base Specification 2.0, NVM Command Set 1.0).
//!
//! ```text
//!             +-----------+   CSTS.RDY = 0   +----------+   CSTS.RDY = 1   +-----------+
//!  start ---> | Disabling | ---------------> | Enabling | ---------------> | Preparing | one admin command after the other
//!             +-----------+                  +----------+                  +-----------+
//!                   ^   a command takes too long, or the controller breaks a rule | the last one completed
//!                   |                                                             v
//!                   +------------------------------------------------------- +-------+
//!        Gone <------- every register reads as all ones -------------------- | Ready |
//!        Failed <----- a step took too long, or is refused                   +-------+
//! ```
//!
//! Nothing waits but the start. Each I/O queue has an interrupt of its own where there are enough.

mod command;
mod events;
mod identify;
mod queue;
mod steps;
#[cfg(test)]
mod tests;

use crate::controller::{COMMAND_MS, Controller, Done, Operation, Refused, Request, Unit};
use crate::drivers::Device;
use alloc::{boxed::Box, format, rc::Rc, string::String, vec::Vec};
use command::{Command, Status, io};
use events::Logs;
use identify::{ControllerInfo, NamespaceInfo};
use queue::{Broken, InFlight, MAX_PIECES, Queue, is_paged};
use steps::Phase;
use tessera_block::{Geometry, IoError};
use tessera_device::hardware::{Platform, Registers, wait_until};
use tessera_proto::storage::{DiskHealth, DiskState};
use tessera_rt::log;

/// Entries of an I/O queue.
const QUEUE_SIZE: u16 = 128;
/// Entries of the admin queue.
const ADMIN_SIZE: u16 = 16;
/// I/O queues that are used at most.
const MAX_QUEUES: u16 = 4;
/// Milliseconds between two looks at the controller's condition.
const HEALTH_MS: u64 = 30_000;
/// Resets without a completed command in between after which a controller is left alone.
const MAX_RESETS: u32 = 3;

/// Registers.
mod register {
    pub const CAPABILITIES: u64 = 0x00;
    pub const VERSION: u64 = 0x08;
    pub const CONFIGURATION: u64 = 0x14;
    pub const STATUS: u64 = 0x1c;
    pub const ADMIN_SIZES: u64 = 0x24;
    pub const ADMIN_SUBMISSIONS: u64 = 0x28;
    pub const ADMIN_COMPLETIONS: u64 = 0x30;
}

/// Tag of the commands of the preparation on the admin queue.
const STEP: u32 = 0;

/// A namespace.
#[derive(Clone, Debug)]
struct Namespace {
    number: u32,
    info: NamespaceInfo,
}

struct Nvme {
    name: String,
    platform: Rc<dyn Platform>,
    registers: Rc<dyn Registers>,
    interrupts: u16,
    stride: u64,
    /// Milliseconds that the controller may take for a change of its state.
    patience: u64,
    /// Entries that its queues have at most.
    most_entries: u16,
    phase: Phase,
    admin: Queue,
    queues: Vec<Queue>,
    /// Queues that the controller has granted.
    granted: usize,
    /// The last of them, if it interrupts nobody.
    silent: Option<usize>,
    /// Requests go there, as long as it has room.
    quiet: bool,
    next: usize,
    /// Where identify data and log pages arrive.
    scratch: tessera_device::dma::DmaBuffer,
    info: ControllerInfo,
    namespaces: Vec<Namespace>,
    health: DiskHealth,
    logs: Logs,
    /// Since a command has completed.
    resets: u32,
    /// Since the start.
    all_resets: u64,
    /// Why commands in flight fail, as soon as the controller has stopped: until then it may access their memory.
    draining: Option<IoError>,
}

/// Starts the driver.
///
/// # Errors
/// Why it cannot.
pub fn start(device: &Device, number: u32) -> Result<Box<dyn Controller>, String> {
    let registers = device.memory[0].clone().ok_or("its registers are missing")?;
    let capabilities = registers.read64(register::CAPABILITIES);
    if capabilities == u64::MAX {
        return Err("it does not answer".into());
    }
    // Bits 48 to 51: the smallest page, as a power of two from 4 KiB on. Bit 37: the NVM command set.
    if capabilities >> 48 & 15 != 0 || capabilities >> 37 & 1 == 0 {
        return Err(format!(
            "it cannot work with pages of 4 KiB, or has no NVM command set (capabilities {capabilities:#x})"
        ));
    }
    let stride = 4 << (capabilities >> 32 & 15);
    let most_entries = (capabilities as u16).saturating_add(1);
    let none = "there is no memory for its queues: raise `device-memory` of the storage server in the manifest";
    let platform = device.platform.clone();
    let mut nvme = Nvme {
        name: format!("nvme{number}"),
        admin: Queue::new(&*platform, 0, ADMIN_SIZE, stride).ok_or(none)?,
        scratch: platform.allocate(identify::LENGTH).ok_or(none)?,
        platform,
        registers,
        interrupts: device.interrupts,
        stride,
        patience: (capabilities >> 24 & 0xff).max(4) * 500,
        most_entries,
        phase: Phase::Failed,
        queues: Vec::new(),
        granted: 0,
        silent: None,
        quiet: false,
        next: 0,
        info: ControllerInfo::default(),
        namespaces: Vec::new(),
        health: DiskHealth::default(),
        logs: Logs::default(),
        resets: 0,
        all_resets: 0,
        draining: None,
    };
    nvme.disable(nvme.platform.now());
    let platform = nvme.platform.clone();
    let mut reason = None;
    wait_until(&*platform, nvme.patience * 2 + COMMAND_MS, || {
        reason = nvme.advance(platform.now()).err();
        reason.is_some() || matches!(nvme.phase, Phase::Ready | Phase::Failed)
    });
    match (reason, &nvme.phase) {
        (None, Phase::Ready) => Ok(Box::new(nvme)),
        (reason, _) => {
            // Whatever it may still be doing, it does not do it to memory.
            nvme.registers.write32(register::CONFIGURATION, 0);
            platform.deny_memory_access();
            Err(reason.unwrap_or_else(|| "it does not become ready".into()))
        }
    }
}

impl Nvme {
    fn status(&self) -> u32 {
        self.registers.read32(register::STATUS)
    }

    /// A controller that is not there reads as all ones, on some machines as zeros; its version is neither.
    fn is_gone(&self) -> bool {
        matches!(self.registers.read32(register::VERSION), 0 | u32::MAX)
    }

    /// Takes completions of admin commands.
    fn collect_admin(&mut self, now: u64) -> Result<Result<(), String>, Broken> {
        let mut finished: Vec<(u32, Status, u32)> = Vec::new();
        self.admin.completed(&*self.registers, &mut |whose, status, result| {
            finished.push((whose.tag, status, result))
        })?;
        for (tag, status, result) in finished {
            match tag {
                STEP => {
                    if let Err(reason) = self.step_completed(status, result, now) {
                        return Ok(Err(reason));
                    }
                }
                other => self.log_completed(other, status, result),
            }
        }
        Ok(Ok(()))
    }

    fn collect(&mut self, done: &mut Done<'_>) -> Result<(), Broken> {
        let mut any = false;
        for queue in &mut self.queues {
            queue.completed(&*self.registers, &mut |whose, status, _| {
                any = true;
                done(whose.tag, status.outcome(whose.sector));
            })?;
        }
        if any {
            self.resets = 0;
        }
        Ok(())
    }

    /// The controller is reset, unless it is gone or was reset too often; everything in flight fails when it has stopped.
    fn give_up(&mut self, why: &str, now: u64, done: &mut Done<'_>) {
        self.resets += 1;
        if self.is_gone() {
            log::warn!("{}: the controller is gone", self.name);
            self.phase = Phase::Gone;
            self.draining = Some(IoError::Gone);
        } else if self.resets > MAX_RESETS {
            log::error!("{}: {why}; resets do not help, it is left alone", self.name);
            self.registers.write32(register::CONFIGURATION, 0);
            // It may not have stopped.
            self.platform.deny_memory_access();
            self.phase = Phase::Failed;
            self.draining = Some(IoError::Timeout);
        } else {
            log::warn!("{}: {why}; it is reset", self.name);
            self.all_resets += 1;
            self.disable(now);
            self.draining = Some(IoError::Timeout);
        }
        self.drain(done);
    }

    /// Fails what was in flight, if the controller has stopped.
    fn drain(&mut self, done: &mut Done<'_>) {
        if matches!(self.phase, Phase::Disabling(_)) {
            return;
        }
        if let Some(error) = self.draining.take() {
            self.admin.forget();
            for queue in &mut self.queues {
                queue.drain(&mut |whose| done(whose.tag, Err(error)));
            }
        }
    }

    /// Goes on with the way to readiness.
    fn go_on(&mut self, now: u64, done: &mut Done<'_>) {
        let outcome = self.advance(now);
        self.drain(done);
        if let Err(reason) = outcome {
            self.give_up(&reason, now, done);
        }
    }

    fn command(&self, namespace: &Namespace, request: &Request<'_>) -> Result<(Command, Option<(u64, u32)>), IoError> {
        let count = request.sectors.saturating_sub(1) as u32;
        let place = [request.sector as u32, (request.sector >> 32) as u32, count & 0xffff, 0, 0, 0];
        let (opcode, arguments, range) = match request.operation {
            Operation::Read => (io::READ, place, None),
            Operation::Write => (io::WRITE, place, None),
            Operation::Flush => (io::FLUSH, [0; 6], None),
            Operation::WriteZeroes if self.info.write_zeroes => (io::WRITE_ZEROES, place, None),
            // One range; bit 2: deallocate.
            Operation::Discard if self.info.discard => (
                io::DATASET_MANAGEMENT,
                [0, 4, 0, 0, 0, 0],
                Some((request.sector, request.sectors.min(u32::MAX.into()) as u32)),
            ),
            _ => return Err(IoError::Unsupported),
        };
        let command = Command {
            opcode,
            namespace: namespace.number,
            arguments,
            ..Command::default()
        };
        Ok((command, range))
    }
}

impl Controller for Nvme {
    fn driver(&self) -> &'static str {
        "nvme"
    }

    fn unit(&self, unit: u32) -> Option<Unit> {
        let namespace = self.namespaces.get(unit as usize)?;
        let name = if unit == 0 {
            self.name.clone()
        } else {
            format!("{}n{}", self.name, namespace.number)
        };
        Some(Unit {
            name,
            model: self.info.model.clone(),
            serial: self.info.serial.clone(),
            firmware: self.info.firmware.clone(),
            geometry: Geometry {
                sector_size: namespace.info.sector_size,
                sectors: namespace.info.sectors,
                max_transfer: self.info.max_transfer,
                discard: self.info.discard,
                write_cache: self.info.write_cache,
                read_only: namespace.info.read_only,
            },
            queues: self.granted as u16,
            state: match self.phase {
                Phase::Ready => DiskState::Ready,
                Phase::Gone => DiskState::Gone,
                Phase::Failed => DiskState::Failed,
                _ => DiskState::Resetting,
            },
            health: self.health,
            resets: self.all_resets,
        })
    }

    fn events(&mut self, unit: u32) -> Vec<String> {
        // They are the controller's, so the first namespace tells them.
        if unit == 0 { self.logs.told.take() } else { Vec::new() }
    }

    fn fits(&self, _unit: u32, request: &Request<'_>) -> bool {
        match request.operation {
            Operation::Read | Operation::Write => {
                let lies_well = is_paged(request.segments) || (self.info.lists && request.segments.len() <= MAX_PIECES);
                lies_well && request.bytes() <= self.info.max_transfer.into() && request.sectors <= 1 << 16
            }
            Operation::Flush => true,
            Operation::Discard => request.sectors <= u32::MAX.into(),
            Operation::WriteZeroes => request.sectors <= 1 << 16,
        }
    }

    fn zeroes(&self, _unit: u32) -> bool {
        self.info.write_zeroes
    }

    fn submit(&mut self, unit: u32, request: &Request<'_>, tag: u32, now: u64) -> Result<(), Refused> {
        match self.phase {
            Phase::Ready => {}
            Phase::Gone | Phase::Failed => return Err(IoError::Gone.into()),
            _ => return Err(Refused::Full),
        }
        let namespace = self.namespaces.get(unit as usize).ok_or(IoError::Gone)?;
        let (command, range) = self.command(namespace, request)?;
        let whose = InFlight {
            tag,
            sector: request.sector,
            since: now,
        };
        let others = self.silent.unwrap_or(self.granted);
        let mut silent = self.silent.filter(|_| self.quiet);
        let mut left = others;
        loop {
            let place = match silent.take() {
                Some(silent) => silent,
                None if left == 0 => return Err(Refused::Full),
                None => {
                    let place = self.next;
                    self.next = if place + 1 < others { place + 1 } else { 0 };
                    left -= 1;
                    place
                }
            };
            let Some(queue) = self.queues.get_mut(place) else { continue };
            if queue.submit(&command, request.segments, range, whose).is_ok() {
                return Ok(());
            }
        }
    }

    fn commit(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.ring(&*self.registers));
    }

    fn poll(&mut self, done: &mut Done<'_>) {
        self.commit();
        let phase = self.phase;
        match phase {
            Phase::Ready if self.collect(done).is_err() => {
                let now = self.platform.now();
                self.give_up("the controller completes what it was not given", now, done);
            }
            Phase::Preparing(..) => {
                let now = self.platform.now();
                self.go_on(now, done);
            }
            _ => {}
        }
    }

    fn watch(&mut self, now: u64, done: &mut Done<'_>) {
        self.poll(done);
        match self.phase {
            Phase::Gone | Phase::Failed => {}
            Phase::Ready => {
                let status = self.status();
                let queues = self.queues.iter().chain([&self.admin]);
                let late = queues.filter_map(Queue::oldest).any(|since| now.saturating_sub(since) > COMMAND_MS);
                // Bit 1: fatal. Bit 0: ready.
                if status & 3 != 1 {
                    self.give_up("the controller has failed", now, done);
                } else if late {
                    self.give_up("a command takes too long", now, done);
                } else if self.collect_admin(now).is_err() {
                    self.give_up("the controller completes what it was not given", now, done);
                } else {
                    self.tend_logs(now);
                }
            }
            _ => self.go_on(now, done),
        }
    }

    fn has_interrupts(&self) -> bool {
        self.interrupts > 0
    }

    fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    fn works_quietly(&self) -> bool {
        let silent = self.silent.and_then(|silent| self.queues.get(silent));
        silent.is_some_and(|queue| !queue.is_idle())
    }
}
