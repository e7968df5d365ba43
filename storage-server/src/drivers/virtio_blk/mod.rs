//! Virtio block devices over PCI (virtio 1.2, 4.1 and 5.2), without the transitional interface.
//!
//! A driver of our own: `virtio-drivers` takes one virtual buffer for each request, uses one queue, and has neither discard nor write-zeroes; here requests carry physical
//! segments, so that a guest's memory goes to the device as it is.

mod queue;
#[cfg(test)]
mod tests;

use crate::controller::{COMMAND_MS, Controller, Done, Operation, Refused, Request, Unit};
use crate::drivers::{Device, text};
use alloc::{boxed::Box, format, rc::Rc, string::String, vec::Vec};
use queue::{Broken, Queue};
use tessera_block::{Geometry, IoError};
use tessera_device::hardware::{Platform, wait_until};
use tessera_device::virtio::{Configuration, features as common, status};
use tessera_proto::storage::{DiskHealth, DiskState};
use tessera_rt::log;

/// Requests that a queue holds at most.
const QUEUE_SIZE: u16 = 128;
/// Queues that are used at most.
const MAX_QUEUES: u16 = 4;
/// Milliseconds that a reset may take.
const RESET_MS: u64 = 2000;
/// Bytes of the serial number (5.2.6).
const ID_LENGTH: u32 = 20;
/// Unit of addresses and lengths, whatever the size of a sector.
const UNIT: u64 = 512;

/// Feature bits (5.2.3).
mod features {
    /// The number of segments is told.
    pub const SEG_MAX: u64 = 1 << 2;
    /// Takes no writes.
    pub const READ_ONLY: u64 = 1 << 5;
    /// The size of a sector is told.
    pub const BLOCK_SIZE: u64 = 1 << 6;
    /// Has a write cache.
    pub const FLUSH: u64 = 1 << 9;
    /// Has several queues.
    pub const MULTI_QUEUE: u64 = 1 << 12;
    /// Takes discards.
    pub const DISCARD: u64 = 1 << 13;
    /// Takes write-zeroes.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Bytes of the configuration that are read (5.2.4), at least.
const CONFIGURATION: u64 = 36;

/// Request types (5.2.6).
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// Tag of the driver's own requests.
const OWN: u32 = u32::MAX;

struct Disk {
    name: String,
    platform: Rc<dyn Platform>,
    configuration: Configuration,
    interrupts: u16,
    queues: Vec<Queue>,
    next: usize,
    state: DiskState,
    geometry: Geometry,
    offered: u64,
    serial: String,
    /// Segments of a request, discarded or zeroed sectors in one.
    segments: u32,
    most_discarded: u64,
    most_zeroed: u64,
    /// Milliseconds: until then a reset may take.
    reset_until: u64,
    resets: u64,
}

/// Starts the driver.
///
/// # Errors
/// Why it cannot.
pub fn start(device: &Device, number: u32) -> Result<Box<dyn Controller>, String> {
    let configuration = Configuration::find(device, CONFIGURATION)?;
    let mut disk = Disk {
        name: format!("virtio{number}"),
        platform: device.platform.clone(),
        configuration,
        interrupts: device.interrupts,
        queues: Vec::new(),
        next: 0,
        state: DiskState::Resetting,
        geometry: Geometry {
            sector_size: 512,
            sectors: 0,
            max_transfer: 0,
            discard: false,
            write_cache: false,
            read_only: false,
        },
        offered: 0,
        serial: String::new(),
        segments: 0,
        most_discarded: 0,
        most_zeroed: 0,
        reset_until: 0,
        resets: 0,
    };
    disk.bring_up()?;
    disk.serial = disk.ask_serial();
    Ok(Box::new(disk))
}

impl Disk {
    /// Resets the device and sets it up (3.1.1).
    fn bring_up(&mut self) -> Result<(), String> {
        let registers = &self.configuration;
        registers.set_status(0);
        if !wait_until(&*self.platform, RESET_MS, || registers.status() == 0) {
            return Err("it does not come out of its reset".into());
        }
        self.platform.allow_memory_access()?;
        registers.set_status(status::ACKNOWLEDGE);
        registers.set_status(status::ACKNOWLEDGE | status::DRIVER);
        self.offered = registers.offered();
        let wanted = common::VERSION_1 | common::INDIRECT;
        if self.offered & wanted != wanted {
            return Err(format!("it lacks features of virtio 1.0 (it offers {:#x})", self.offered));
        }
        let known = wanted
            | features::SEG_MAX
            | features::READ_ONLY
            | features::BLOCK_SIZE
            | features::FLUSH
            | features::MULTI_QUEUE
            | features::DISCARD
            | features::WRITE_ZEROES
            | common::ACCESS_PLATFORM;
        registers.accept(self.offered & known, None);
        registers.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        if registers.status() & status::FEATURES_OK == 0 {
            return Err("it does not take the features that it offers".into());
        }
        self.read_geometry();
        let queues = if self.has(features::MULTI_QUEUE) {
            (self.configuration.device(34, 2) as u16).clamp(1, MAX_QUEUES)
        } else {
            1
        };
        for number in 0..queues {
            let vector = if self.interrupts == 0 {
                None
            } else {
                Some(number % self.interrupts)
            };
            let ready = self.queues.get_mut(usize::from(number));
            match ready {
                Some(queue) => queue.reset(&self.configuration, vector)?,
                None => {
                    let queue = Queue::new(&self.configuration, &*self.platform, number, QUEUE_SIZE, vector)?;
                    self.queues.push(queue);
                }
            }
        }
        self.configuration
            .set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK);
        self.state = DiskState::Ready;
        Ok(())
    }

    fn has(&self, feature: u64) -> bool {
        self.offered & feature != 0
    }

    fn read_geometry(&mut self) {
        let read = |offset, bytes| self.configuration.device(offset, bytes);
        let block = if self.has(features::BLOCK_SIZE) { read(20, 4) } else { UNIT };
        let sector_size = if block.is_power_of_two() && (UNIT..=65536).contains(&block) {
            block
        } else {
            UNIT
        };
        let segments = if self.has(features::SEG_MAX) { read(12, 4) } else { 1 };
        self.segments = segments.clamp(1, queue::MAX_SEGMENTS as u64) as u32;
        let limit = |value: u64| (value * UNIT / sector_size).max(1);
        self.most_discarded = limit(read(36, 4));
        self.most_zeroed = limit(read(48, 4));
        self.geometry = Geometry {
            sector_size: sector_size as u32,
            // What would wrap in bytes is no capacity.
            sectors: (read(0, 8).min(u64::MAX / UNIT)) * UNIT / sector_size,
            max_transfer: self.segments.saturating_mul(4096).min(1 << 20),
            discard: self.has(features::DISCARD),
            write_cache: self.has(features::FLUSH),
            read_only: self.has(features::READ_ONLY),
        };
    }

    fn ask_serial(&mut self) -> String {
        let Some(memory) = self.platform.allocate(64) else {
            return String::new();
        };
        let segment = crate::controller::Segment {
            physical: memory.physical(),
            length: ID_LENGTH,
        };
        let Some(queue) = self.queues.first_mut() else {
            return String::new();
        };
        if queue.add(kind::GET_ID, 0, &[segment], true, None, OWN, 0).is_err() {
            return String::new();
        }
        queue.notify(&self.configuration);
        let mut answer = None;
        let done = wait_until(&*self.platform, RESET_MS, || {
            let _ = queue.completed(&mut |_, status| answer = Some(status));
            answer.is_some()
        });
        let mut bytes = [0; ID_LENGTH as usize];
        memory.copy_out(0, &mut bytes);
        if done && answer == Some(0) { text(&bytes) } else { String::new() }
    }

    /// The device is reset, or is gone; everything in flight fails when it has stopped.
    fn give_up(&mut self, why: &str, now: u64, done: &mut Done<'_>) {
        self.configuration.set_status(0);
        log::warn!("disk {}: {why}; it is reset", self.name);
        self.state = DiskState::Resetting;
        self.resets += 1;
        self.reset_until = now.saturating_add(RESET_MS);
        self.go_on(now, done);
    }

    /// Goes on with a reset.
    fn go_on(&mut self, now: u64, done: &mut Done<'_>) {
        let error = match self.configuration.status() {
            _ if !self.configuration.is_there() => {
                log::warn!("disk {} is gone", self.name);
                self.state = DiskState::Gone;
                IoError::Gone
            }
            0 => IoError::Timeout,
            // It still has its queues.
            _ if now < self.reset_until => return,
            _ => {
                log::error!(
                    "disk {}: it does not come out of its reset, and loses its access to memory",
                    self.name
                );
                self.platform.deny_memory_access();
                self.state = DiskState::Failed;
                IoError::Timeout
            }
        };
        for queue in &mut self.queues {
            queue.drain(&mut |tag| {
                if tag != OWN {
                    done(tag, Err(error));
                }
            });
        }
        if self.state == DiskState::Resetting
            && let Err(reason) = self.bring_up()
        {
            log::error!("disk {}: {reason}", self.name);
            self.state = DiskState::Failed;
        }
    }

    fn collect(&mut self, done: &mut Done<'_>) -> Result<(), Broken> {
        for queue in &mut self.queues {
            queue.completed(&mut |request, status| {
                if request.tag != OWN {
                    done(request.tag, outcome(status, request.sector));
                }
            })?;
        }
        Ok(())
    }
}

/// The status byte (5.2.6): 0 done, 1 error, 2 unsupported.
fn outcome(status: u8, sector: u64) -> Result<(), IoError> {
    match status {
        0 => Ok(()),
        1 => Err(IoError::Media { sector }),
        2 => Err(IoError::Unsupported),
        other => Err(IoError::Device { code: other.into() }),
    }
}

impl Controller for Disk {
    fn driver(&self) -> &'static str {
        "virtio-blk"
    }

    fn unit(&self, unit: u32) -> Option<Unit> {
        (unit == 0).then(|| Unit {
            name: self.name.clone(),
            model: "virtio block device".into(),
            serial: self.serial.clone(),
            firmware: String::new(),
            geometry: self.geometry,
            queues: self.queues.len() as u16,
            state: self.state,
            health: DiskHealth::default(),
            resets: self.resets,
        })
    }

    fn fits(&self, _unit: u32, request: &Request<'_>) -> bool {
        match request.operation {
            Operation::Read | Operation::Write => request.segments.len() <= self.segments as usize && request.bytes() <= 16 << 20,
            Operation::Flush => true,
            Operation::Discard => request.sectors <= self.most_discarded,
            Operation::WriteZeroes => request.sectors <= self.most_zeroed,
        }
    }

    fn zeroes(&self, _unit: u32) -> bool {
        self.has(features::WRITE_ZEROES)
    }

    fn submit(&mut self, _unit: u32, request: &Request<'_>, tag: u32, now: u64) -> Result<(), Refused> {
        match self.state {
            DiskState::Ready => {}
            DiskState::Resetting => return Err(Refused::Full),
            _ => return Err(IoError::Gone.into()),
        }
        let per_sector = u64::from(self.geometry.sector_size) / UNIT;
        let place = request.sector.saturating_mul(per_sector);
        let range = (place, request.sectors.saturating_mul(per_sector).min(u32::MAX.into()) as u32);
        let (kind, range) = match request.operation {
            Operation::Read => (kind::IN, None),
            Operation::Write => (kind::OUT, None),
            Operation::Flush if self.geometry.write_cache => (kind::FLUSH, None),
            // Without a cache everything is safe already; an empty request would be none.
            Operation::Flush => (kind::FLUSH, None),
            Operation::Discard if self.has(features::DISCARD) => (kind::DISCARD, Some(range)),
            Operation::WriteZeroes if self.has(features::WRITE_ZEROES) => (kind::WRITE_ZEROES, Some(range)),
            _ => return Err(IoError::Unsupported.into()),
        };
        let first = match request.operation {
            Operation::Read | Operation::Write => place,
            _ => 0,
        };
        let writes = request.operation == Operation::Read;
        for attempt in 0..self.queues.len() {
            let place = (self.next + attempt) % self.queues.len();
            let Some(queue) = self.queues.get_mut(place) else { continue };
            if queue.add(kind, first, request.segments, writes, range, tag, now).is_ok() {
                queue.notify(&self.configuration);
                self.next = (place + 1) % self.queues.len();
                return Ok(());
            }
        }
        Err(Refused::Full)
    }

    fn poll(&mut self, done: &mut Done<'_>) {
        if self.state == DiskState::Ready && self.collect(done).is_err() {
            let now = self.platform.now();
            self.give_up("the device completes what it was not given", now, done);
        }
    }

    fn watch(&mut self, now: u64, done: &mut Done<'_>) {
        self.poll(done);
        match self.state {
            DiskState::Ready => {
                let state = self.configuration.status();
                let late = self
                    .queues
                    .iter()
                    .any(|queue| queue.oldest().is_some_and(|since| now.saturating_sub(since) > COMMAND_MS));
                if state & status::NEEDS_RESET != 0 || state & status::DRIVER_OK == 0 || late {
                    self.give_up("the device hangs", now, done);
                    return;
                }
                // A device may grow (5.2.3): the capacity is told again.
                let capacity = self.configuration.device(0, 8).min(u64::MAX / UNIT);
                self.geometry.sectors = capacity * UNIT / u64::from(self.geometry.sector_size);
            }
            DiskState::Resetting => self.go_on(now, done),
            _ => {}
        }
    }

    fn has_interrupts(&self) -> bool {
        self.interrupts > 0
    }
}
