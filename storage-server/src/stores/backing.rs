//! A virtual disk of a datastore, as a guest's disk.
//!
//! A request whose metadata is in memory is translated and goes to the device at once, straight from and to the guest's memory, and nothing is allocated for it. Whatever
//! needs more (new blocks, metadata from the device, a flush) becomes a task of the executor.

use super::{Datastore, Space, Volume};
use crate::{
    controller::{Operation, Request, Segment},
    disk::{Disk, Sink},
    guest::Backing,
};
use alloc::{
    rc::{Rc, Weak},
    string::String,
    vec,
    vec::Vec,
};
use core::cell::{Cell, RefCell};
use tessera_block::{BlockDevice, Geometry, IoError};
use tessera_datastore::{Error, Extent, Info, Kind, Store, Ticket, Translated};
use tessera_device::{Executor, Memory};
use tessera_rt::log;

/// Most bytes that go through the server's own memory at once, where data has checksums.
const COPY: usize = 256 << 10;

/// A request whose parts the device works on.
struct Transfer {
    ticket: Ticket,
    left: usize,
    result: Result<(), IoError>,
    sink: Rc<dyn Sink>,
    cookie: u64,
}

/// Lists that are kept for their memory.
#[derive(Default)]
struct Scratch {
    extents: Vec<Extent>,
    segments: Vec<Segment>,
}

/// The disk.
pub struct StoreDisk {
    datastore: Rc<Datastore>,
    store: Rc<Store<Volume>>,
    object: u32,
    name: String,
    checksums: bool,
    frozen: bool,
    memory: Rc<dyn Memory>,
    executor: Rc<Executor>,
    space: Rc<Space>,
    transfers: RefCell<Vec<Option<Transfer>>>,
    free: RefCell<Vec<usize>>,
    scratch: RefCell<Scratch>,
    /// How often those who wait for space were told to give up.
    cancelled: Cell<u32>,
    /// The log says already that there is no space.
    told: Cell<bool>,
    this: Weak<Self>,
}

/// A request that waits.
struct Later {
    operation: Operation,
    sector: u64,
    sectors: u64,
    segments: Vec<Segment>,
    sink: Rc<dyn Sink>,
    cookie: u64,
    /// What [`StoreDisk::cancelled`] was when it began.
    cancelled: u32,
}

/// A datastore's refusal as a disk's.
fn io_error(error: &Error) -> IoError {
    match error {
        Error::Io { error, .. } => *error,
        Error::NoSpace { .. } => IoError::Full,
        Error::Damaged { block, .. } => IoError::Media { sector: *block },
        Error::NotFound(_) | Error::Failed => IoError::Gone,
        Error::ReadOnly => IoError::ReadOnly,
        _ => IoError::Unsupported,
    }
}

/// Takes `length` bytes off the front of `from` and puts them behind `into`. `offset`: bytes of the first one that are gone already.
fn take(from: &mut &[Segment], offset: &mut u32, mut length: u32, into: &mut Vec<Segment>) {
    while length > 0 {
        let Some((first, rest)) = from.split_first() else { return };
        let here = length.min(first.length - *offset);
        into.push(Segment {
            physical: first.physical + u64::from(*offset),
            length: here,
        });
        length -= here;
        *offset += here;
        if *offset == first.length {
            *offset = 0;
            *from = rest;
        }
    }
}

impl StoreDisk {
    pub(super) fn new(
        datastore: Rc<Datastore>,
        store: Rc<Store<Volume>>,
        info: &Info,
        memory: Rc<dyn Memory>,
        executor: Rc<Executor>,
        space: Rc<Space>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            datastore,
            store,
            object: info.id,
            name: info.name.clone(),
            checksums: info.checksums,
            frozen: info.kind == Kind::Snapshot,
            memory,
            executor,
            space,
            transfers: RefCell::default(),
            free: RefCell::default(),
            scratch: RefCell::default(),
            cancelled: Cell::new(0),
            told: Cell::new(false),
            this: this.clone(),
        })
    }

    fn device(&self) -> &Disk {
        &self.datastore.disk
    }

    fn remember(&self, transfer: Transfer) -> usize {
        let mut transfers = self.transfers.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(place) => {
                transfers[place] = Some(transfer);
                place
            }
            None => {
                transfers.push(Some(transfer));
                transfers.len() - 1
            }
        }
    }

    /// A part of a transfer ended.
    fn part_done(&self, place: usize, result: Result<(), IoError>) {
        let ended = {
            let mut transfers = self.transfers.borrow_mut();
            let Some(Some(transfer)) = transfers.get_mut(place) else { return };
            if transfer.result.is_ok() {
                transfer.result = result;
            }
            transfer.left -= 1;
            if transfer.left > 0 {
                return;
            }
            transfers[place].take()
        };
        if let Some(ended) = ended {
            self.free.borrow_mut().push(place);
            self.store.finish(ended.ticket, ended.result.is_ok());
            ended.sink.completed(ended.cookie, ended.result);
        }
    }

    /// Moves data between memory and the extents.
    fn transfer(&self, ticket: Ticket, operation: Operation, memory: &[Segment], extents: &[Extent], sink: &Rc<dyn Sink>, cookie: u64) {
        let place = self.remember(Transfer {
            ticket,
            // One more, so that it does not end before all parts are under way.
            left: extents.len() + 1,
            result: Ok(()),
            sink: sink.clone(),
            cookie,
        });
        let Some(this) = self.this.upgrade() else { return };
        let this: Rc<dyn Sink> = this;
        let size = u64::from(self.device().sector_size());
        let (mut left, mut offset) = (memory, 0);
        for extent in extents {
            // Not held while the device is asked: it may complete at once, and who is told may submit.
            let mut segments = core::mem::take(&mut self.scratch.borrow_mut().segments);
            segments.clear();
            take(&mut left, &mut offset, extent.length, &mut segments);
            match extent.sector {
                Some(sector) => {
                    let request = Request {
                        operation,
                        sector: self.datastore.first + sector,
                        sectors: u64::from(extent.length) / size,
                        segments: &segments,
                    };
                    self.device().submit(&request, &this, place as u64);
                }
                None => {
                    for segment in &segments {
                        self.memory.clear(*segment);
                    }
                    self.part_done(place, Ok(()));
                }
            }
            self.scratch.borrow_mut().segments = segments;
        }
        self.part_done(place, Ok(()));
    }

    fn postpone(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        let Some(this) = self.this.upgrade() else { return };
        let later = Later {
            operation: request.operation,
            sector: request.sector,
            sectors: request.sectors,
            segments: request.segments.into(),
            sink: sink.clone(),
            cookie,
            cancelled: self.cancelled.get(),
        };
        self.executor.spawn(async move {
            // Whoever starts a transfer leaves the end to it.
            if let Some(result) = this.work(&later).await {
                later.sink.completed(later.cookie, result);
            }
        });
    }

    async fn work(&self, later: &Later) -> Option<Result<(), IoError>> {
        loop {
            let error = match self.attempt(later).await {
                Ok(None) => return None,
                Ok(Some(())) => return Some(Ok(())),
                Err(error) => error,
            };
            if matches!(error, Error::NoSpace { .. }) && self.cancelled.get() == later.cancelled {
                if !self.told.replace(true) {
                    log::error!("{} in datastore {} waits for space: {error}", self.name, self.datastore.name);
                }
                self.space.wait().await;
                continue;
            }
            log::warn!("{} in datastore {}: {error}", self.name, self.datastore.name);
            return Some(Err(io_error(&error)));
        }
    }

    /// Does it, or starts the transfer that will end it (`None`).
    async fn attempt(&self, later: &Later) -> Result<Option<()>, Error> {
        let size = u64::from(self.device().sector_size());
        let (offset, length) = (later.sector.saturating_mul(size), later.sectors.saturating_mul(size));
        match later.operation {
            Operation::Flush => self.store.flush().await?,
            Operation::Discard => self.store.discard(self.object, offset, length).await?,
            Operation::WriteZeroes => self.store.write_zeroes(self.object, offset, length).await?,
            Operation::Read | Operation::Write if self.checksums => self.copy(later, offset).await?,
            Operation::Read | Operation::Write => {
                let mut extents = Vec::new();
                let ticket = if later.operation == Operation::Read {
                    self.store.prepare_read(self.object, offset, length, &mut extents).await?
                } else {
                    self.store.prepare_write(self.object, offset, length, &mut extents).await?
                };
                self.transfer(ticket, later.operation, &later.segments, &extents, &later.sink, later.cookie);
                return Ok(None);
            }
        }
        self.told.set(false);
        Ok(Some(()))
    }

    /// Reads or writes by way of the server's memory, where checksums are made and compared.
    async fn copy(&self, later: &Later, mut offset: u64) -> Result<(), Error> {
        for segment in &later.segments {
            let mut done = 0;
            while done < segment.length {
                let here = (segment.length - done).min(COPY as u32);
                let part = Segment {
                    physical: segment.physical + u64::from(done),
                    length: here,
                };
                let mut bytes = vec![0; here as usize];
                if later.operation == Operation::Read {
                    self.store.read(self.object, offset, &mut bytes).await?;
                    self.memory.copy_in(part, &bytes);
                } else {
                    self.memory.copy_out(part, &mut bytes);
                    self.store.write(self.object, offset, &bytes).await?;
                }
                done += here;
                offset += u64::from(here);
            }
        }
        Ok(())
    }
}

impl Sink for StoreDisk {
    fn completed(&self, cookie: u64, result: Result<(), IoError>) {
        self.part_done(cookie as usize, result);
    }
}

impl Backing for StoreDisk {
    fn geometry(&self) -> Geometry {
        let below = BlockDevice::geometry(self.device());
        let bytes = self.store.info(self.object).map_or(0, |info| info.size);
        Geometry {
            sectors: bytes / u64::from(below.sector_size.max(1)),
            // Space can always be given back to the datastore.
            discard: true,
            write_cache: true,
            read_only: below.read_only || self.frozen,
            ..below
        }
    }

    fn sector_size(&self) -> u32 {
        self.device().sector_size()
    }

    fn submit(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        let direct = matches!(request.operation, Operation::Read | Operation::Write) && !self.checksums;
        if !direct {
            return self.postpone(request, sink, cookie);
        }
        let size = u64::from(self.device().sector_size());
        let (offset, length) = (request.sector.saturating_mul(size), request.sectors.saturating_mul(size));
        let mut extents = core::mem::take(&mut self.scratch.borrow_mut().extents);
        extents.clear();
        let translated = if request.operation == Operation::Read {
            self.store.translate_read(self.object, offset, length, &mut extents)
        } else {
            self.store.translate_write(self.object, offset, length, &mut extents)
        };
        match translated {
            Ok(Translated::Ready(ticket)) => self.transfer(ticket, request.operation, request.segments, &extents, sink, cookie),
            Ok(Translated::NeedsWork) => self.postpone(request, sink, cookie),
            Err(error) => sink.completed(cookie, Err(io_error(&error))),
        }
        self.scratch.borrow_mut().extents = extents;
    }

    fn cancel(&self) {
        self.cancelled.set(self.cancelled.get().wrapping_add(1));
        self.space.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Segments cut in any pieces are the same bytes in the same order.
        #[test]
        fn cut_segments_are_the_same_bytes(lengths in prop::collection::vec(1u32..50, 1..8), cuts in prop::collection::vec(1u32..60, 1..40)) {
            let memory: Vec<Segment> = (0..).zip(&lengths).map(|(number, &length)| Segment { physical: number * 1000, length }).collect();
            let bytes = |list: &[Segment]| -> Vec<u64> { list.iter().flat_map(|part| part.physical..part.physical + u64::from(part.length)).collect() };
            let (mut left, mut offset, mut out) = (&memory[..], 0, Vec::new());
            for cut in &cuts {
                take(&mut left, &mut offset, *cut, &mut out);
            }
            let all = bytes(&memory);
            let taken = (cuts.iter().sum::<u32>() as usize).min(all.len());
            prop_assert_eq!(bytes(&out), &all[..taken]);
        }
    }
}
