//! IDE controllers with bus-master DMA (ATA8-APT; Programming Interface for Bus Master IDE Controller, 1994): registers behind ports, one command at a time on each of two channels.

#[cfg(test)]
mod tests;

use crate::controller::{COMMAND_MS, Controller, Done, Operation, Refused, Request, Segment, Unit};
use crate::drivers::Device;
use crate::drivers::identify_ata::{self, AtaInfo};
use alloc::{boxed::Box, format, rc::Rc, string::String, vec::Vec};
use core::sync::atomic::{Ordering, fence};
use tessera_block::{Geometry, IoError};
use tessera_device::dma::DmaBuffer;
use tessera_device::hardware::{Platform, Ports, wait_until};
use tessera_proto::storage::{DiskHealth, DiskState};
use tessera_rt::log;

/// Registers of a channel's command block.
mod register {
    pub const DATA: u16 = 0;
    pub const ERROR: u16 = 1;
    pub const COUNT: u16 = 2;
    pub const ADDRESS: u16 = 3;
    pub const DEVICE: u16 = 6;
    pub const STATUS: u16 = 7;
}

/// Registers of a channel's bus master.
mod master {
    pub const COMMAND: u16 = 0;
    pub const STATUS: u16 = 2;
    pub const TABLE: u16 = 4;
}

/// Bits of the status register: busy, fault, data wanted, error.
const BUSY: u8 = 0x80;
const FAULT: u8 = 0x20;
const DATA: u8 = 0x08;
const ERROR: u8 = 0x01;
/// Bits of the bus master's status: interrupt, error.
const MASTER_INTERRUPT: u8 = 4;
const MASTER_ERROR: u8 = 2;
/// Milliseconds that a reset may take.
const RESET_MS: u64 = 5000;
/// Bytes of a command's table of memory, and entries that fit.
const TABLE: usize = 4096;
const MAX_PIECES: usize = TABLE / 8;
/// Bytes that a command transfers at most.
const MAX_TRANSFER: u32 = 256 << 10;
/// A piece of memory lies inside of one such block.
const BLOCK: u64 = 64 << 10;

/// A command in flight.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    tag: u32,
    sector: u64,
    since: u64,
    dma: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    /// It has until this moment to come out of its reset.
    Resetting(u64),
    Failed,
    Gone,
}

struct Channel {
    command: Rc<dyn Ports>,
    /// The control block, with the offset of its one register.
    control: (Rc<dyn Ports>, u16),
    master: (Rc<dyn Ports>, u16),
    table: DmaBuffer,
    phase: Phase,
    flying: Option<InFlight>,
    resets: u64,
}

struct Drive {
    channel: usize,
    /// 0 or 1.
    number: u8,
    name: String,
    info: AtaInfo,
}

struct Ata {
    platform: Rc<dyn Platform>,
    channels: Vec<Channel>,
    drives: Vec<Drive>,
    interrupts: bool,
}

/// Starts the driver. `names` counts disks.
///
/// # Errors
/// Why it cannot.
pub fn start(device: &Device, names: &mut u32) -> Result<Box<dyn Controller>, String> {
    let master = device.ports[4].clone().ok_or("it has no bus master")?;
    for channel in 0..2 {
        master.write8(channel * 8 + master::COMMAND, 0);
    }
    device.platform.allow_memory_access()?;
    let mut ata = Ata {
        platform: device.platform.clone(),
        channels: Vec::new(),
        drives: Vec::new(),
        interrupts: device.lines > 0 || device.interrupts > 0,
    };
    for number in 0..2u16 {
        let bar = usize::from(number) * 2;
        let (Some(command), Some(control)) = (&device.ports[bar], &device.ports[bar + 1]) else {
            continue;
        };
        let table = device.platform.allocate(TABLE);
        let mut channel = Channel {
            command: command.clone(),
            // Of four ports the third; in compatibility mode only that one is given.
            control: (control.clone(), if control.length() >= 3 { 2 } else { 0 }),
            master: (master.clone(), number * 8),
            table: table
                .filter(|table| table.physical() < 1 << 32)
                .ok_or("there is no memory below 4 GiB for its tables: raise `device-memory` of the storage server in the manifest")?,
            phase: Phase::Ready,
            flying: None,
            resets: 0,
        };
        if !channel.bring_up(&*ata.platform) {
            continue;
        }
        for drive in 0..2 {
            let Some(info) = channel.identify(&*ata.platform, drive) else {
                continue;
            };
            match info {
                Ok(info) => {
                    ata.drives.push(Drive {
                        channel: ata.channels.len(),
                        number: drive,
                        name: format!("ata{names}"),
                        info,
                    });
                    *names += 1;
                }
                Err(reason) => log::warn!("IDE channel {number}, drive {drive}: {reason}"),
            }
        }
        ata.channels.push(channel);
    }
    Ok(Box::new(ata))
}

impl Channel {
    fn status(&self) -> u8 {
        self.control.0.read8(self.control.1)
    }

    fn master(&self, register: u16) -> u8 {
        self.master.0.read8(self.master.1 + register)
    }

    fn set_master(&self, register: u16, value: u8) {
        self.master.0.write8(self.master.1 + register, value);
    }

    fn reset(&self) {
        self.set_master(master::COMMAND, 0);
        // Bit 2: reset. Bit 1, which holds interrupts back, stays clear.
        self.control.0.write8(self.control.1, 4);
    }

    /// Whether there is anything on the channel.
    fn bring_up(&mut self, platform: &dyn Platform) -> bool {
        if self.status() == 0xff {
            return false;
        }
        self.reset();
        platform.pause(1);
        self.control.0.write8(self.control.1, 0);
        platform.pause(2);
        wait_until(platform, RESET_MS, || self.status() & BUSY == 0)
    }

    fn select(&self, drive: u8, high: u8) {
        self.command.write8(register::DEVICE, 0xe0 | drive << 4 | high & 15);
        // 400 ns, as four reads take.
        for _ in 0..4 {
            self.status();
        }
    }

    /// Asks a drive what it is; `None`: there is none, or it is no disk.
    fn identify(&mut self, platform: &dyn Platform, drive: u8) -> Option<Result<AtaInfo, &'static str>> {
        self.select(drive, 0);
        if matches!(self.status(), 0 | 0xff) {
            return None;
        }
        self.command.write8(register::STATUS, 0xec);
        for _ in 0..4 {
            self.status();
        }
        let answered = wait_until(platform, 2000, || self.status() & BUSY == 0);
        let state = self.status();
        if !answered || state == 0 || state & (ERROR | FAULT) != 0 || state & DATA == 0 {
            return None;
        }
        let mut bytes = [0; identify_ata::LENGTH];
        for word in bytes.as_chunks_mut::<2>().0 {
            *word = self.command.read16(register::DATA).to_le_bytes();
        }
        // Takes the interrupt away.
        self.command.read8(register::STATUS);
        let info = AtaInfo::parse(&bytes);
        Some(info.and_then(|info| if info.dma { Ok(info) } else { Err("the disk takes no DMA") }))
    }

    /// Writes the table of memory: address, length, and the last one's mark.
    fn write_table(&self, segments: &[Segment]) {
        let mut entry = 0;
        for piece in pieces(segments) {
            self.table.write(entry * 8, piece.physical as u32);
            // 0 stands for 64 KiB.
            self.table.write(entry * 8 + 4, piece.length & 0xffff);
            entry += 1;
        }
        if let Some(last) = entry.checked_sub(1) {
            let at = last * 8 + 4;
            self.table.write(at, self.table.read::<u32>(at) | 1 << 31);
        }
        // Release: the table is there before the command.
        fence(Ordering::Release);
    }

    fn finish(&mut self, result: Result<(), IoError>, done: &mut Done<'_>) {
        if let Some(whose) = self.flying.take() {
            done(whose.tag, result);
        }
    }

    /// Takes what has completed.
    fn poll(&mut self, done: &mut Done<'_>) {
        let (Phase::Ready, Some(whose)) = (self.phase, self.flying) else {
            return;
        };
        let state = self.status();
        if state == 0xff {
            log::warn!("an IDE channel is gone");
            self.phase = Phase::Gone;
            return self.finish(Err(IoError::Gone), done);
        }
        if state & BUSY != 0 {
            return;
        }
        let mut master = 0;
        if whose.dma {
            master = self.master(master::STATUS);
            // Without its interrupt the transfer goes on, unless the drive has given up.
            if master & MASTER_INTERRUPT == 0 && state & (ERROR | FAULT) == 0 {
                return;
            }
            self.set_master(master::COMMAND, 0);
        }
        // Takes the interrupt away.
        let state = self.command.read8(register::STATUS);
        self.set_master(master::STATUS, MASTER_INTERRUPT | MASTER_ERROR);
        let result = if state & (ERROR | FAULT) != 0 {
            match self.command.read8(register::ERROR) {
                // The request was sound: whatever the drive says, it cannot read or write there.
                _ if whose.dma => Err(IoError::Media { sector: whose.sector }),
                error => Err(IoError::Device { code: error.into() }),
            }
        } else if master & MASTER_ERROR != 0 {
            Err(IoError::Device { code: 0x100 })
        } else {
            Ok(())
        };
        self.finish(result, done);
    }

    fn watch(&mut self, now: u64, done: &mut Done<'_>) {
        self.poll(done);
        match self.phase {
            Phase::Ready if self.flying.is_some_and(|whose| now.saturating_sub(whose.since) > COMMAND_MS) => {
                log::warn!("an IDE channel hangs; it is reset");
                self.reset();
                self.resets += 1;
                self.phase = Phase::Resetting(now.saturating_add(RESET_MS));
                // The bus master is stopped: it accesses no memory any more.
                self.finish(Err(IoError::Timeout), done);
            }
            Phase::Resetting(deadline) => {
                self.control.0.write8(self.control.1, 0);
                let state = self.status();
                if state == 0xff {
                    self.phase = Phase::Gone;
                } else if state & BUSY == 0 {
                    self.phase = Phase::Ready;
                } else if now >= deadline {
                    log::error!("an IDE channel does not come out of its reset");
                    self.phase = Phase::Failed;
                }
            }
            _ => {}
        }
    }
}

/// Memory cut where the bus master wants it cut.
fn pieces(segments: &[Segment]) -> impl Iterator<Item = Segment> + '_ {
    segments.iter().flat_map(|segment| {
        let end = segment.physical + u64::from(segment.length);
        let mut at = segment.physical;
        core::iter::from_fn(move || {
            let until = ((at / BLOCK + 1) * BLOCK).min(end);
            let piece = Segment {
                physical: at,
                length: (until - at) as u32,
            };
            at = until;
            (piece.length > 0).then_some(piece)
        })
    })
}

/// Whether the bus master reaches memory: whole words below 4 GiB, in few enough pieces.
fn reaches(segments: &[Segment]) -> bool {
    let good = |segment: &Segment| {
        let end = segment.physical.checked_add(segment.length.into());
        segment.physical.is_multiple_of(2) && segment.length.is_multiple_of(2) && end.is_some_and(|end| end <= 1 << 32)
    };
    segments.iter().all(good) && pieces(segments).count() <= MAX_PIECES
}

impl Controller for Ata {
    fn driver(&self) -> &'static str {
        "ata"
    }

    fn unit(&self, unit: u32) -> Option<Unit> {
        let drive = self.drives.get(unit as usize)?;
        let info = &drive.info;
        let phase = self.channels.get(drive.channel).map_or(Phase::Gone, |channel| channel.phase);
        Some(Unit {
            name: drive.name.clone(),
            model: info.model.clone(),
            serial: info.serial.clone(),
            firmware: info.firmware.clone(),
            geometry: Geometry {
                sector_size: info.sector_size,
                sectors: info.sectors,
                max_transfer: if info.wide { MAX_TRANSFER } else { 128 << 10 },
                discard: false,
                write_cache: info.write_cache,
                read_only: false,
            },
            queues: 1,
            state: match phase {
                Phase::Ready => DiskState::Ready,
                Phase::Resetting(_) => DiskState::Resetting,
                Phase::Failed => DiskState::Failed,
                Phase::Gone => DiskState::Gone,
            },
            health: DiskHealth::default(),
            resets: self.channels.get(drive.channel).map_or(0, |channel| channel.resets),
        })
    }

    fn fits(&self, unit: u32, request: &Request<'_>) -> bool {
        let wide = self.drives.get(unit as usize).is_some_and(|drive| drive.info.wide);
        match request.operation {
            Operation::Read | Operation::Write => {
                let most = if wide { MAX_TRANSFER.into() } else { 128 << 10 };
                request.bytes() <= most && request.sectors <= 256 * if wide { 2 } else { 1 } && reaches(request.segments)
            }
            _ => true,
        }
    }

    fn zeroes(&self, _unit: u32) -> bool {
        false
    }

    fn submit(&mut self, unit: u32, request: &Request<'_>, tag: u32, now: u64) -> Result<(), Refused> {
        let drive = self.drives.get(unit as usize).ok_or(IoError::Gone)?;
        let channel = self.channels.get_mut(drive.channel).ok_or(IoError::Gone)?;
        match channel.phase {
            Phase::Ready if channel.flying.is_none() => {}
            Phase::Ready | Phase::Resetting(_) => return Err(Refused::Full),
            Phase::Failed | Phase::Gone => return Err(IoError::Gone.into()),
        }
        let wide = drive.info.wide;
        let (opcode, writes) = match request.operation {
            Operation::Read => (if wide { 0x25 } else { 0xc8 }, false),
            Operation::Write => (if wide { 0x35 } else { 0xca }, true),
            Operation::Flush => (if wide { 0xea } else { 0xe7 }, false),
            Operation::Discard | Operation::WriteZeroes => return Err(IoError::Unsupported.into()),
        };
        let dma = request.operation != Operation::Flush;
        let address = request.sector.to_le_bytes();
        channel.select(drive.number, if wide { 0 } else { address[3] });
        if channel.status() & (BUSY | DATA) != 0 {
            // The drive is not where it should be: a reset brings it back.
            channel.reset();
            channel.resets += 1;
            channel.phase = Phase::Resetting(now.saturating_add(RESET_MS));
            return Err(Refused::Full);
        }
        if dma {
            channel.write_table(request.segments);
            channel.set_master(master::STATUS, MASTER_INTERRUPT | MASTER_ERROR);
            let table = channel.table.physical() as u32;
            channel.master.0.write32(channel.master.1 + master::TABLE, table);
            // Bit 3: to memory.
            channel.set_master(master::COMMAND, if writes { 0 } else { 8 });
        }
        let count = (request.sectors as u16).to_le_bytes();
        if wide {
            // Each register takes two bytes, the higher one first.
            channel.command.write8(register::COUNT, count[1]);
            for index in 0..3 {
                channel.command.write8(register::ADDRESS + index, address[usize::from(index) + 3]);
            }
        }
        channel.command.write8(register::COUNT, count[0]);
        for index in 0..3 {
            channel.command.write8(register::ADDRESS + index, address[usize::from(index)]);
        }
        channel.command.write8(register::STATUS, opcode);
        if dma {
            channel.set_master(master::COMMAND, 1 | if writes { 0 } else { 8 });
        }
        channel.flying = Some(InFlight {
            tag,
            sector: request.sector,
            since: now,
            dma,
        });
        Ok(())
    }

    fn poll(&mut self, done: &mut Done<'_>) {
        for channel in &mut self.channels {
            channel.poll(done);
        }
    }

    fn watch(&mut self, now: u64, done: &mut Done<'_>) {
        for channel in &mut self.channels {
            channel.watch(now, done);
        }
    }

    fn has_interrupts(&self) -> bool {
        self.interrupts
    }
}
