//! Disks as the rest of the server sees them: requests by number for guests, a [`BlockDevice`] for everything else.

pub mod events;
mod polling;

use crate::controller::{Controller, Operation, Refused, Request, Segment, Unit};
use crate::split::{Piece, split};
use alloc::{boxed::Box, collections::VecDeque, rc::Rc, string::String, vec::Vec};
use core::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};
use events::Events;
use polling::Polling;
use tessera_block::{BlockDevice, Geometry, IoError};
use tessera_device::dma::DmaBuffer;
use tessera_proto::storage::{DiskEvent, DiskInfo, DiskState, DiskStatistics};

/// Who is told that a request has completed.
pub trait Sink {
    /// The request that was submitted with `cookie` has completed, or was refused. May be called from inside of [`Disk::submit`], and may submit.
    fn completed(&self, cookie: u64, result: Result<(), IoError>);
}

/// A request that a controller works on, or will.
struct Pending {
    unit: u32,
    operation: Operation,
    bytes: u64,
    sink: Rc<dyn Sink>,
    cookie: u64,
}

/// A request that found no room.
struct Waiting {
    unit: u32,
    operation: Operation,
    piece: Piece,
    tag: u32,
}

/// What was counted for one disk.
#[derive(Default)]
struct Account {
    statistics: DiskStatistics,
    last_error: String,
}

/// A controller, with what it is working on.
pub struct Host {
    controller: RefCell<Box<dyn Controller>>,
    address: String,
    pending: RefCell<Vec<Option<Pending>>>,
    free: RefCell<Vec<u32>>,
    waiting: RefCell<VecDeque<Waiting>>,
    accounts: RefCell<Vec<Account>>,
    events: RefCell<Events>,
    /// Completions of one poll; kept for its memory.
    finished: RefCell<Vec<(u32, Result<(), IoError>)>>,
    now: Cell<u64>,
    polling: Cell<Polling>,
}

impl Host {
    /// A controller at a PCI address.
    #[must_use]
    pub fn new(controller: Box<dyn Controller>, address: String) -> Rc<Self> {
        Rc::new(Self {
            controller: RefCell::new(controller),
            address,
            pending: RefCell::default(),
            free: RefCell::default(),
            waiting: RefCell::default(),
            accounts: RefCell::default(),
            events: RefCell::default(),
            finished: RefCell::default(),
            now: Cell::new(0),
            polling: Cell::default(),
        })
    }

    /// Its disks.
    #[must_use]
    pub fn disks(self: &Rc<Self>, bounce: &Rc<Bounce>) -> Vec<Rc<Disk>> {
        let units = (0..).map_while(|unit| self.controller.borrow().unit(unit));
        let disks = units.zip(0..).map(|(known, unit)| {
            Rc::new(Disk {
                host: self.clone(),
                unit,
                geometry: Cell::new(known.geometry),
                name: known.name,
                bounce: bounce.clone(),
            })
        });
        disks.collect()
    }

    /// Takes what has completed and tells those who wait, then starts what waited for room. Answers how many have.
    pub fn poll(&self, now: u64) -> usize {
        self.now.set(now);
        let mut finished = self.finished.take();
        self.controller.borrow_mut().poll(&mut |tag, result| finished.push((tag, result)));
        let count = finished.len();
        self.tell(finished);
        count
    }

    /// As [`Self::poll`], and looks after what takes too long.
    pub fn watch(&self, now: u64) {
        self.now.set(now);
        let mut finished = self.finished.take();
        self.controller
            .borrow_mut()
            .watch(now, &mut |tag, result| finished.push((tag, result)));
        self.tell(finished);
        self.note_events(now);
    }

    /// Notes what the controller has to tell, and what its disks are doing.
    fn note_events(&self, now: u64) {
        let mut controller = self.controller.borrow_mut();
        let mut events = self.events.borrow_mut();
        for unit in 0.. {
            let Some(known) = controller.unit(unit) else { break };
            for text in controller.events(unit) {
                events.add(unit, &known.name, now, &text);
            }
            events.state(unit, &known.name, now, known.state);
        }
    }

    /// Whether nothing is in flight: there is nothing to start, to look for or to wait for then.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free.borrow().len() == self.pending.borrow().len()
    }

    /// Whether it has to be polled because no interrupt will come.
    #[must_use]
    pub fn wants_polling(&self) -> bool {
        !self.is_idle() && !self.controller.borrow().has_interrupts()
    }

    /// Guests have so much to do that they come by every so many ticks, so that the controller need not interrupt; none: no guest has. [`Self::quiet_wait`] says when it is polled at the
    /// latest. A device that is slow interrupts, for a while, whatever is said here.
    pub fn set_quiet(&self, wait: Option<u64>) {
        let mut polling = self.polling.get();
        self.controller.borrow_mut().set_quiet(polling.pays(wait));
        self.polling.set(polling);
    }

    /// Ticks until the controller is to be polled, if requests are in flight that will not interrupt; `otherwise`, if nobody is busy any more.
    #[must_use]
    pub fn quiet_wait(&self, otherwise: u64) -> Option<u64> {
        let quiet = self.controller.borrow().works_quietly();
        quiet.then(|| self.polling.get().wait(otherwise))
    }

    /// As [`Self::poll`], where [`Self::quiet_wait`] asks for it; `ticks` is now.
    pub fn poll_quietly(&self, now: u64, ticks: u64) {
        if self.controller.borrow().works_quietly() {
            let ended = self.poll(now);
            let mut polling = self.polling.get();
            polling.polled(ticks, ended);
            self.polling.set(polling);
        }
    }

    /// Has the controller start what was prepared. To be called before the server waits.
    pub fn commit(&self) {
        self.controller.borrow_mut().commit();
    }

    fn tell(&self, mut finished: Vec<(u32, Result<(), IoError>)>) {
        for (tag, result) in finished.drain(..) {
            let pending = self.pending.borrow_mut().get_mut(tag as usize).and_then(Option::take);
            let Some(pending) = pending else { continue };
            self.free.borrow_mut().push(tag);
            self.account(&pending, result);
            pending.sink.completed(pending.cookie, result);
        }
        self.finished.replace(finished);
        self.start_waiting();
    }

    fn account(&self, pending: &Pending, result: Result<(), IoError>) {
        let mut accounts = self.accounts.borrow_mut();
        let needed = pending.unit as usize + 1;
        if accounts.len() < needed {
            accounts.resize_with(needed, Account::default);
        }
        let account = &mut accounts[pending.unit as usize];
        let statistics = &mut account.statistics;
        match pending.operation {
            Operation::Read => {
                statistics.reads += 1;
                statistics.read_bytes += pending.bytes;
            }
            Operation::Write => {
                statistics.writes += 1;
                statistics.written_bytes += pending.bytes;
            }
            Operation::Discard | Operation::WriteZeroes => statistics.writes += 1,
            Operation::Flush => statistics.flushes += 1,
        }
        if let Err(error) = result {
            statistics.errors += 1;
            match error {
                IoError::Media { .. } => statistics.media_errors += 1,
                IoError::Timeout => statistics.timeouts += 1,
                _ => {}
            }
            let name = self
                .controller
                .borrow()
                .unit(pending.unit)
                .map(|unit| unit.name)
                .unwrap_or_default();
            let text = alloc::format!("{:?} failed: {error}", pending.operation);
            // One line for each new trouble: a disk that is gone fails everything.
            if account.last_error != text {
                self.events.borrow_mut().add(pending.unit, &name, self.now.get(), &text);
            }
            account.last_error = text;
        }
    }

    fn tag(&self, pending: Pending) -> u32 {
        let mut all = self.pending.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(tag) => {
                all[tag as usize] = Some(pending);
                tag
            }
            None => {
                all.push(Some(pending));
                all.len() as u32 - 1
            }
        }
    }

    /// Starts a request that fits, or has it wait for its turn.
    #[inline]
    fn start(&self, unit: u32, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        let tag = self.tag(Pending {
            unit,
            operation: request.operation,
            bytes: request.bytes(),
            sink: sink.clone(),
            cookie,
        });
        let refused = if self.waiting.borrow().is_empty() {
            self.controller.borrow_mut().submit(unit, request, tag, self.now.get())
        } else {
            Err(Refused::Full)
        };
        match refused {
            Ok(()) => {}
            Err(Refused::Full) => self.waiting.borrow_mut().push_back(Waiting {
                unit,
                operation: request.operation,
                piece: Piece {
                    sector: request.sector,
                    sectors: request.sectors,
                    segments: request.segments.into(),
                },
                tag,
            }),
            Err(Refused::Error(error)) => self.fail(tag, error),
        }
    }

    fn fail(&self, tag: u32, error: IoError) {
        let pending = self.pending.borrow_mut().get_mut(tag as usize).and_then(Option::take);
        if let Some(pending) = pending {
            self.free.borrow_mut().push(tag);
            self.account(&pending, Err(error));
            pending.sink.completed(pending.cookie, Err(error));
        }
    }

    fn start_waiting(&self) {
        loop {
            let Some(next) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            let request = Request {
                operation: next.operation,
                sector: next.piece.sector,
                sectors: next.piece.sectors,
                segments: &next.piece.segments,
            };
            let refused = self.controller.borrow_mut().submit(next.unit, &request, next.tag, self.now.get());
            match refused {
                Ok(()) => {}
                Err(Refused::Full) => return self.waiting.borrow_mut().push_front(next),
                Err(Refused::Error(error)) => self.fail(next.tag, error),
            }
        }
    }
}

/// Several commands that are one request.
struct Group {
    left: Cell<usize>,
    result: Cell<Result<(), IoError>>,
    sink: Rc<dyn Sink>,
    cookie: u64,
}

impl Sink for Group {
    fn completed(&self, _cookie: u64, result: Result<(), IoError>) {
        if result.is_err() && self.result.get().is_ok() {
            self.result.set(result);
        }
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            self.sink.completed(self.cookie, self.result.get());
        }
    }
}

/// A disk.
pub struct Disk {
    host: Rc<Host>,
    unit: u32,
    name: String,
    geometry: Cell<Geometry>,
    bounce: Rc<Bounce>,
}

impl Disk {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of a sector.
    #[must_use]
    pub fn sector_size(&self) -> u32 {
        self.geometry.get().sector_size
    }

    /// Starts a request: `sink` is told how it ended, once. Nothing is allocated for one that fits into a command and finds room in a queue.
    ///
    /// Answers with `Misaligned` if the memory lies so that the device cannot reach it piece by piece (see [`Controller::fits`]): the caller has to copy it.
    pub fn submit(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        if let Err(error) = self.check(request) {
            sink.completed(cookie, Err(error));
            return;
        }
        if request.operation == Operation::WriteZeroes && !self.host.controller.borrow().zeroes(self.unit) {
            self.write_zero_chunks(request, sink, cookie);
            return;
        }
        let fits = self.host.controller.borrow().fits(self.unit, request);
        if fits || request.operation == Operation::Flush {
            self.host.start(self.unit, request, sink, cookie);
            return;
        }
        let pieces = split(
            &**self.host.controller.borrow(),
            self.unit,
            request,
            self.geometry.get().sector_size,
        );
        match pieces {
            Err(error) => sink.completed(cookie, Err(error)),
            Ok(pieces) if pieces.is_empty() => sink.completed(cookie, Ok(())),
            Ok(pieces) => {
                let group: Rc<dyn Sink> = Rc::new(Group {
                    left: Cell::new(pieces.len()),
                    result: Cell::new(Ok(())),
                    sink: sink.clone(),
                    cookie,
                });
                for piece in pieces {
                    let part = Request {
                        operation: request.operation,
                        sector: piece.sector,
                        sectors: piece.sectors,
                        segments: &piece.segments,
                    };
                    self.host.start(self.unit, &part, &group, 0);
                }
            }
        }
    }

    /// Zeroes by writing the same chunk over and over.
    fn write_zero_chunks(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        let mut left = request.sectors.saturating_mul(self.geometry.get().sector_size.into());
        let mut segments = Vec::new();
        while left > 0 {
            let length = left.min(CHUNK as u64);
            segments.push(Segment {
                physical: self.bounce.zeroes.physical(),
                length: length as u32,
            });
            left -= length;
        }
        let write = Request {
            operation: Operation::Write,
            segments: &segments,
            ..*request
        };
        self.submit(&write, sink, cookie);
    }

    fn check(&self, request: &Request<'_>) -> Result<(), IoError> {
        let geometry = self.geometry.get();
        if request.operation == Operation::Flush {
            return Ok(());
        }
        if geometry.read_only && request.operation != Operation::Read {
            return Err(IoError::ReadOnly);
        }
        geometry.check(request.sector, request.sectors)?;
        if request.operation == Operation::Discard && !geometry.discard {
            return Err(IoError::Unsupported);
        }
        let bytes = request.bytes();
        let expected = match request.operation {
            Operation::Read | Operation::Write => request.sectors.checked_mul(geometry.sector_size.into()),
            _ => Some(0),
        };
        if expected != Some(bytes) || request.segments.iter().any(|segment| segment.length == 0) {
            return Err(IoError::Misaligned {
                length: bytes as usize,
                sector_size: geometry.sector_size,
            });
        }
        Ok(())
    }

    /// Everything about it.
    #[must_use]
    pub fn info(&self) -> DiskInfo {
        let controller = self.host.controller.borrow();
        let accounts = self.host.accounts.borrow();
        let account = accounts.get(self.unit as usize);
        let unit = controller.unit(self.unit).unwrap_or_else(|| Unit {
            name: self.name.clone(),
            model: String::new(),
            serial: String::new(),
            firmware: String::new(),
            geometry: self.geometry.get(),
            queues: 0,
            state: DiskState::Gone,
            health: Default::default(),
            resets: 0,
        });
        self.geometry.set(unit.geometry);
        DiskInfo {
            name: self.name.clone(),
            driver: controller.driver().into(),
            address: self.host.address.clone(),
            model: unit.model,
            serial: unit.serial,
            firmware: unit.firmware,
            state: unit.state,
            sector_size: unit.geometry.sector_size,
            sectors: unit.geometry.sectors,
            read_only: unit.geometry.read_only,
            discard: unit.geometry.discard,
            write_cache: unit.geometry.write_cache,
            queues: unit.queues,
            health: unit.health,
            statistics: DiskStatistics {
                resets: unit.resets,
                ..account.map(|account| account.statistics).unwrap_or_default()
            },
            last_error: account.map(|account| account.last_error.clone()).unwrap_or_default(),
        }
    }

    /// What happened to it lately, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<DiskEvent> {
        self.host.events.borrow().of(self.unit)
    }

    /// One request of one's own, waited for.
    async fn request(&self, request: &Request<'_>, lent: Option<Lent>) -> (Result<(), IoError>, Option<Lent>) {
        let wait = Rc::new(Wait {
            result: Cell::new(None),
            waker: RefCell::new(None),
            lent: RefCell::new(lent),
        });
        let sink: Rc<dyn Sink> = wait.clone();
        self.submit(request, &sink, 0);
        drop(sink);
        poll_fn(|context| match wait.result.get() {
            Some(result) => Poll::Ready((result, wait.lent.take())),
            None => {
                wait.waker.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// Somebody who waits for a request. It holds the memory that the device uses until the request has completed, even if nobody waits any more.
struct Wait {
    result: Cell<Option<Result<(), IoError>>>,
    waker: RefCell<Option<Waker>>,
    lent: RefCell<Option<Lent>>,
}

impl Sink for Wait {
    fn completed(&self, _cookie: u64, result: Result<(), IoError>) {
        self.result.set(Some(result));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Bytes of one chunk of the bounce memory.
pub const CHUNK: usize = 64 << 10;

/// Memory through which the server's own reads and writes go: devices reach no heap.
pub struct Bounce {
    memory: DmaBuffer,
    /// The last chunk, which nobody writes.
    zeroes: DmaBuffer,
    free: RefCell<Vec<usize>>,
    waiting: RefCell<VecDeque<Waker>>,
}

/// A chunk, until it is dropped.
struct Lent {
    bounce: Rc<Bounce>,
    chunk: usize,
    memory: DmaBuffer,
}

impl Bounce {
    /// Cuts zeroed memory into chunks; it should hold several.
    #[must_use]
    pub fn new(memory: DmaBuffer) -> Rc<Self> {
        let chunks = (memory.length() / CHUNK).saturating_sub(1);
        Rc::new(Self {
            zeroes: memory.part(chunks * CHUNK, CHUNK),
            memory,
            free: RefCell::new((0..chunks).collect()),
            waiting: RefCell::default(),
        })
    }

    async fn lend(self: &Rc<Self>) -> Lent {
        poll_fn(|context| match self.free.borrow_mut().pop() {
            Some(chunk) => Poll::Ready(Lent {
                bounce: self.clone(),
                chunk,
                memory: self.memory.part(chunk * CHUNK, CHUNK),
            }),
            None => {
                self.waiting.borrow_mut().push_back(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.bounce.free.borrow_mut().push(self.chunk);
        if let Some(waker) = self.bounce.waiting.borrow_mut().pop_front() {
            waker.wake();
        }
    }
}

impl Disk {
    fn piece(&self, geometry: &Geometry) -> usize {
        let size = geometry.sector_size as usize;
        CHUNK.min(geometry.max_transfer as usize) / size.max(1) * size
    }

    async fn transfer(&self, operation: Operation, sector: u64, lent: Lent, length: usize) -> Result<Option<Lent>, IoError> {
        let segment = Segment {
            physical: lent.memory.physical(),
            length: length as u32,
        };
        let request = Request {
            operation,
            sector,
            sectors: length as u64 / u64::from(self.geometry.get().sector_size.max(1)),
            segments: &[segment],
        };
        let (result, lent) = self.request(&request, Some(lent)).await;
        result.map(|()| lent)
    }
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        if let Some(unit) = self.host.controller.borrow().unit(self.unit) {
            self.geometry.set(unit.geometry);
        }
        self.geometry.get()
    }

    async fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), IoError> {
        let geometry = self.geometry();
        geometry.check_buffer(sector, buffer.len())?;
        let piece = self.piece(&geometry);
        let mut at = sector;
        for part in buffer.chunks_mut(piece.max(1)) {
            let lent = self.bounce.lend().await;
            if let Some(lent) = self.transfer(Operation::Read, at, lent, part.len()).await? {
                lent.memory.copy_out(0, part);
            }
            at += (part.len() / geometry.sector_size as usize) as u64;
        }
        Ok(())
    }

    async fn write(&self, sector: u64, data: &[u8]) -> Result<(), IoError> {
        let geometry = self.geometry();
        geometry.check_buffer(sector, data.len())?;
        let piece = self.piece(&geometry);
        let mut at = sector;
        for part in data.chunks(piece.max(1)) {
            let lent = self.bounce.lend().await;
            lent.memory.copy_in(0, part);
            self.transfer(Operation::Write, at, lent, part.len()).await?;
            at += (part.len() / geometry.sector_size as usize) as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.request(&Request::FLUSH, None).await.0
    }

    async fn discard(&self, sector: u64, count: u64) -> Result<(), IoError> {
        let request = Request {
            operation: Operation::Discard,
            sector,
            sectors: count,
            segments: &[],
        };
        self.request(&request, None).await.0
    }

    async fn write_zeroes(&self, sector: u64, count: u64) -> Result<(), IoError> {
        let request = Request {
            operation: Operation::WriteZeroes,
            sector,
            sectors: count,
            segments: &[],
        };
        self.request(&request, None).await.0
    }
}

impl Disk {
    /// Whether anything can still be asked of it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let unit = self.host.controller.borrow().unit(self.unit);
        unit.is_some_and(|unit| !matches!(unit.state, DiskState::Gone | DiskState::Empty))
    }
}

#[cfg(test)]
mod tests;
