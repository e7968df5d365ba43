//! One guest's disk.

use super::pace::Pace;
use super::request::{self, Action, ID, SECTOR, Scratch, Status};
use super::{Backing, MAX_SEGMENTS, Ram};
use crate::controller::{Operation, Request};
use crate::disk::Sink;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Poll, Waker};
use tessera_block::{Geometry, IoError};
use tessera_virtqueue::{Features, Layout, Queue, Record, Segment, Violation};

/// Most queues.
pub const MAX_QUEUES: usize = 4;
/// Requests that are taken from a queue before others get their turn.
const TURN: usize = 64;

/// Tells a guest's processor of a queue's interrupt.
pub trait Signal {
    /// Does it.
    fn signal(&self);
}

/// How a guest's driver set the device up.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// What concerns the queues.
    pub features: Features,
    /// Queues in use, by number.
    pub queues: [Option<Layout>; MAX_QUEUES],
}

/// What was counted since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests to read, and bytes.
    pub reads: (u64, u64),
    /// Requests to write, discard or zero, and bytes of the first.
    pub writes: (u64, u64),
    /// Requests to flush.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Requests that an earlier server had begun.
    pub repeated: u64,
}

/// A request that a disk works on, and how it is answered.
#[derive(Clone, Copy)]
struct Pending {
    queue: usize,
    head: u16,
    answer: Answer,
}

impl Pending {
    /// The number under which a disk knows it.
    fn cookie(&self) -> u64 {
        (self.queue as u64) << u16::BITS | u64::from(self.head)
    }
}

/// Where the status goes, and how many bytes are said to be written before it.
#[derive(Clone, Copy)]
struct Answer {
    status: u64,
    written: u32,
}

struct Served {
    queue: Queue,
    record: &'static Record,
    /// Something was returned since the driver was last asked whether it wants an interrupt.
    returned: bool,
    pace: Pace,
    /// By head, for what a disk works on.
    pending: Vec<Option<Answer>>,
}

#[derive(Default)]
struct State {
    queues: [Option<Served>; MAX_QUEUES],
    /// Requests that a disk works on.
    pending: usize,
    /// No requests are taken any more.
    closed: bool,
    statistics: Statistics,
    waiting: Option<Waker>,
}

impl State {
    /// Where a request is remembered that a disk works on.
    fn place(&mut self, queue: usize, head: u16) -> Option<&mut Option<Answer>> {
        self.queues.get_mut(queue)?.as_mut()?.pending.get_mut(usize::from(head))
    }
}

/// A disk of a guest.
pub struct Device {
    ram: Rc<Ram>,
    backing: Rc<dyn Backing>,
    read_only: bool,
    serial: [u8; ID],
    records: [&'static Record; MAX_QUEUES],
    state: RefCell<State>,
    /// Not in use but while one request is read and handed on.
    scratch: RefCell<Scratch>,
    signals: RefCell<[Option<Box<dyn Signal>>; MAX_QUEUES]>,
    /// A rule that was broken, until it is told.
    broken: RefCell<Option<String>>,
    /// Queues that the driver uses: no more than these are looked at.
    used: Cell<usize>,
    /// There may be more in a queue than was taken.
    more: Cell<bool>,
    /// For how long interrupts and looks into queues may be put off while others are in flight, in ticks.
    patience: Cell<u64>,
    this: Weak<Self>,
}

impl Device {
    /// A disk with its bytes in `backing`; `records` outlive the server.
    #[must_use]
    pub fn new(ram: Rc<Ram>, backing: Rc<dyn Backing>, read_only: bool, serial: &str, records: [&'static Record; MAX_QUEUES]) -> Rc<Self> {
        let mut id = [0; ID];
        for (place, byte) in id.iter_mut().zip(serial.bytes()) {
            *place = byte;
        }
        Rc::new_cyclic(|this| Self {
            ram,
            backing,
            read_only,
            serial: id,
            records,
            state: RefCell::default(),
            scratch: RefCell::new(Scratch::new()),
            signals: RefCell::default(),
            broken: RefCell::default(),
            used: Cell::new(0),
            more: Cell::new(false),
            patience: Cell::new(0),
            this: this.clone(),
        })
    }

    /// Has the device disturb its guest less while many requests are in flight, each time for this long at most, in ticks; 0, as at first, for never.
    pub fn set_patience(&self, ticks: u64) {
        self.patience.set(ticks);
    }

    /// If its guest has many requests at once: ticks in which a batch of them ends.
    #[must_use]
    pub fn batch_time(&self) -> Option<u64> {
        let state = self.state.borrow();
        let queues = state.queues[..self.used.get()].iter().flatten().filter(|_| !state.closed);
        queues.filter_map(|served| served.pace.batch_time(self.patience.get())).min()
    }

    /// Sectors of 512 bytes.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        let geometry = self.backing.geometry();
        geometry.sectors.saturating_mul(u64::from(geometry.sector_size) / SECTOR)
    }

    /// Sizes and abilities of what holds its bytes.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.backing.geometry()
    }

    /// Whether a driver uses it.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.state.borrow().queues.iter().any(Option::is_some)
    }

    /// What was counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.state.borrow().statistics
    }

    /// Has a queue's interrupts signalled there.
    pub fn set_signal(&self, queue: usize, signal: Box<dyn Signal>) {
        if let Some(place) = self.signals.borrow_mut().get_mut(queue) {
            *place = Some(signal);
        }
    }

    /// Serves a driver's queues. `resume`: an earlier server did, and what it had begun is begun again.
    ///
    /// # Errors
    /// A queue is not as it has to be, or is in use already; the device does nothing then.
    pub fn attach(&self, attachment: &Attachment, resume: bool) -> Result<(), Violation> {
        {
            let mut state = self.state.borrow_mut();
            let mut queues = [const { None }; MAX_QUEUES];
            for ((layout, place), record) in attachment.queues.iter().zip(&mut queues).zip(self.records) {
                let Some(layout) = layout else { continue };
                let queue = if resume {
                    Queue::take_over(*layout, attachment.features, &*self.ram, record)?
                } else {
                    Queue::new(*layout, attachment.features, &*self.ram, record)?
                };
                *place = Some(Served {
                    queue,
                    record,
                    // The driver may not have been told of the last ones.
                    returned: resume,
                    pace: Pace::default(),
                    pending: vec![None; layout.size.into()],
                });
            }
            // They count from 0, with gaps or without.
            self.used.set(queues.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
            state.queues = queues;
            state.closed = false;
        }
        self.broken.take();
        if resume {
            self.repeat();
        }
        self.run();
        Ok(())
    }

    /// Begins again what is in flight, in the order in which it was taken.
    fn repeat(&self) {
        for queue in 0..MAX_QUEUES {
            let mut after = 0;
            while let Some((head, order)) = self.records[queue].next_in_flight(after) {
                after = order;
                let mut state = self.state.borrow_mut();
                if state.queues[queue].is_none() {
                    break;
                }
                state.statistics.repeated += 1;
                drop(state);
                self.begin(queue, head);
            }
        }
    }

    /// The driver said that there is something in a queue, or may have.
    pub fn run(&self) {
        self.more.set(false);
        for queue in 0..self.used.get() {
            self.take(queue);
        }
    }

    /// Whether [`Self::run`] is to be called again, when others had their turn.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more.get()
    }

    fn take(&self, number: usize) {
        let mut taken = 0;
        loop {
            let popped = {
                let mut state = self.state.borrow_mut();
                if state.closed {
                    return;
                }
                let Some(served) = &mut state.queues[number] else { return };
                if taken == TURN {
                    self.more.set(true);
                    return;
                }
                if taken == 0 {
                    served.queue.disable_notifications(&*self.ram);
                }
                match served.queue.pop(&*self.ram, served.record) {
                    Ok(None)
                        if served
                            .pace
                            .listens(self.patience.get(), served.queue.untold(), served.queue.in_flight())
                            && served.queue.enable_notifications(&*self.ram) =>
                    {
                        continue;
                    }
                    other => other,
                }
            };
            match popped {
                Ok(Some(head)) => {
                    taken += 1;
                    self.begin(number, head);
                }
                Ok(None) => return,
                Err(violation) => return self.violated(number, &violation.to_string()),
            }
        }
    }

    fn violated(&self, queue: usize, rule: &str) {
        self.state.borrow_mut().closed = true;
        let mut broken = self.broken.borrow_mut();
        broken.get_or_insert_with(|| format!("queue {queue}: {rule}"));
    }

    /// The rule that the driver broke, once.
    #[must_use]
    pub fn take_broken(&self) -> Option<String> {
        self.broken.take()
    }

    /// Reads a request and starts it.
    fn begin(&self, number: usize, head: u16) {
        let mut scratch = self.scratch.borrow_mut();
        match self.read(number, head, &mut scratch) {
            Ok(Some(parsed)) => self.start(number, head, &parsed, &scratch),
            Ok(None) => self.violated(number, "a request without a place for its status"),
            Err(violation) => self.violated(number, &violation.to_string()),
        }
    }

    fn read(&self, number: usize, head: u16, scratch: &mut Scratch) -> Result<Option<request::Parsed>, Violation> {
        let state = self.state.borrow();
        let Some(served) = &state.queues[number] else { return Ok(None) };
        if let Some(parsed) = request::transfer(&self.ram, &served.queue, head, &mut scratch.segments) {
            return Ok(Some(parsed));
        }
        scratch.buffers.clear();
        let mut last: Option<Segment> = None;
        for segment in served.queue.chain(&*self.ram, head) {
            let segment = segment?;
            // Header, data, status.
            if scratch.buffers.len() == MAX_SEGMENTS + 2 {
                last = Some(segment);
            } else {
                scratch.buffers.push(segment);
            }
        }
        let Some(last) = last else {
            return Ok(request::parse(&self.ram, scratch));
        };
        // More buffers than the driver was told of: refused, not punished.
        let refused = request::Parsed {
            action: Action::Done(Status::Error),
            status: last.address + u64::from(last.length) - 1,
            written: 0,
        };
        Ok(last.writable.then_some(refused))
    }

    fn start(&self, queue: usize, head: u16, parsed: &request::Parsed, scratch: &Scratch) {
        let pending = Pending {
            queue,
            head,
            answer: Answer {
                status: parsed.status,
                written: parsed.written,
            },
        };
        match parsed.action {
            Action::Done(status) => self.finish(&pending, status),
            Action::Identify(address, length) => {
                let done = self.ram.copy_in(address, &self.serial[..length]);
                self.finish(&pending, if done.is_some() { Status::Ok } else { Status::Error });
            }
            Action::Disk {
                operation,
                sector,
                sectors,
            } => self.submit(&pending, operation, sector, sectors, scratch),
        }
    }

    fn submit(&self, pending: &Pending, operation: Operation, sector: u64, sectors: u64, scratch: &Scratch) {
        let bytes = sectors * SECTOR;
        {
            let statistics = &mut self.state.borrow_mut().statistics;
            match operation {
                Operation::Read => statistics.reads = (statistics.reads.0 + 1, statistics.reads.1 + bytes),
                Operation::Write => statistics.writes = (statistics.writes.0 + 1, statistics.writes.1 + bytes),
                Operation::Discard | Operation::WriteZeroes => statistics.writes.0 += 1,
                Operation::Flush => statistics.flushes += 1,
            }
        }
        let scale = u64::from(self.backing.sector_size()) / SECTOR;
        let writes = !matches!(operation, Operation::Read | Operation::Flush);
        let aligned = scale > 0 && sector.is_multiple_of(scale) && sectors.is_multiple_of(scale);
        if (writes && self.read_only) || !aligned {
            return self.finish(pending, Status::Error);
        }
        {
            let mut state = self.state.borrow_mut();
            let Some(place) = state.place(pending.queue, pending.head) else {
                return;
            };
            *place = Some(pending.answer);
            state.pending += 1;
        }
        let request = Request {
            operation,
            sector: sector / scale,
            sectors: sectors / scale,
            segments: &scratch.segments,
        };
        let Some(this) = self.this.upgrade() else { return };
        let sink: Rc<dyn Sink> = this;
        self.backing.submit(&request, &sink, pending.cookie());
    }

    /// Returns a request to the driver.
    fn finish(&self, pending: &Pending, status: Status) {
        // It was RAM when the chain was read, and RAM stays.
        let _ = self.ram.copy_in(pending.answer.status, &[status as u8]);
        let written = if status == Status::Ok { pending.answer.written } else { 0 };
        let outcome = {
            let mut state = self.state.borrow_mut();
            if status != Status::Ok {
                state.statistics.errors += 1;
            }
            let Some(served) = &mut state.queues[pending.queue] else { return };
            served.returned = true;
            served.pace.ended();
            served
                .queue
                .push(&*self.ram, served.record, pending.head, written.saturating_add(1))
        };
        if let Err(violation) = outcome {
            self.violated(pending.queue, &violation.to_string());
        }
    }

    /// Interrupts the guest for what was returned, as far as its driver wants it, and looks for more where the driver was told not to notify. Called once after several
    /// requests, and before the server waits. When it wants to be called again at the latest, if it does; times are in ticks.
    pub fn settle(&self, now: u64) -> Option<u64> {
        let patience = self.patience.get();
        let mut next: Option<u64> = None;
        for number in 0..self.used.get() {
            let look = {
                let mut state = self.state.borrow_mut();
                state.queues[number].as_mut().is_some_and(|served| served.pace.is_time_to_look(now))
            };
            if look {
                self.take(number);
            }
            let mut state = self.state.borrow_mut();
            let State {
                queues,
                statistics,
                closed,
                ..
            } = &mut *state;
            let Some(served) = &mut queues[number] else { continue };
            // Of a queue that is not served any more nothing is put off.
            let patience = if *closed { 0 } else { patience };
            let interrupts = served.returned
                && served
                    .pace
                    .interrupts(now, patience, served.queue.untold(), served.queue.in_flight());
            let due = if *closed { None } else { served.pace.due(now, patience) };
            next = next.into_iter().chain(due).min();
            if interrupts {
                served.returned = false;
                if served.queue.needs_interrupt(&*self.ram) {
                    statistics.interrupts += 1;
                    drop(state);
                    if let Some(signal) = &self.signals.borrow()[number] {
                        signal.signal();
                    }
                }
            }
        }
        next
    }

    /// Takes no more requests, and waits until nothing is in flight. The driver's queues are forgotten then.
    pub async fn stop(&self) {
        self.state.borrow_mut().closed = true;
        self.backing.cancel();
        core::future::poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.pending == 0 {
                self.used.set(0);
                state.queues = Default::default();
                return Poll::Ready(());
            }
            state.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        for record in self.records {
            record.clear();
        }
        self.signals.take();
        self.broken.take();
        self.more.set(false);
    }
}

impl Sink for Device {
    fn completed(&self, cookie: u64, result: Result<(), IoError>) {
        let (queue, head) = ((cookie >> u16::BITS) as usize, cookie as u16);
        let pending = {
            let mut state = self.state.borrow_mut();
            let Some(answer) = state.place(queue, head).and_then(Option::take) else {
                return;
            };
            state.pending -= 1;
            Pending { queue, head, answer }
        };
        self.finish(
            &pending,
            match result {
                Ok(()) => Status::Ok,
                Err(IoError::Unsupported) => Status::Unsupported,
                Err(_) => Status::Error,
            },
        );
        let mut state = self.state.borrow_mut();
        if state.closed && state.pending == 0 {
            if let Some(waker) = state.waiting.take() {
                drop(state);
                waker.wake();
            }
        }
    }
}
