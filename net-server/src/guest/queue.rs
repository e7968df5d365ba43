//! A queue with what is on its way back to the driver.

use alloc::vec::Vec;
use tessera_device::Ram;
use tessera_virtqueue::{Features, Layout, Queue, Record, Segment, Violation};

/// Buffers of one request that are looked at; a driver that uses more is refused. Linux uses up to 19.
pub const MOST_BUFFERS: usize = 256;

/// A queue in use.
pub struct Served {
    pub queue: Queue,
    pub record: &'static Record,
    /// Taken, and not used yet; the first is at the end.
    pub stash: Vec<u16>,
    /// To be returned together: heads and bytes written.
    pub done: Vec<(u16, u32)>,
    /// Something was returned since the driver was last asked whether it wants an interrupt.
    pub returned: bool,
    /// Since when it waits for an interrupt that it wants (nanoseconds).
    since: Option<u64>,
}

/// Nanoseconds that an interrupt may wait which only says that a packet was sent. The driver mostly finds that out by itself before, when it sends or receives the next one.
const DELAY: u64 = 200_000;

/// Whether the driver is to be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It does not want to be.
    No,
    /// Now.
    Now,
    /// Not before then (nanoseconds), if it still wants it.
    At(u64),
}

impl Served {
    /// A queue that a driver just set up, or that a predecessor served: then what was taken waits in the stash.
    pub fn new(layout: Layout, features: Features, ram: &Ram, record: &'static Record, resume: bool) -> Result<Self, Violation> {
        let mut stash = Vec::new();
        let queue = if resume {
            let queue = Queue::take_over(layout, features, ram, record)?;
            let mut after = 0;
            while let Some((head, order)) = record.next_in_flight(after) {
                stash.push(head);
                after = order;
            }
            stash.reverse();
            queue
        } else {
            Queue::new(layout, features, ram, record)?
        };
        Ok(Self {
            queue,
            record,
            stash,
            done: Vec::new(),
            // The driver may not have been told of the last ones.
            returned: resume,
            since: None,
        })
    }

    /// The next request: one that was put back, or else the driver's next.
    #[inline]
    pub fn take(&mut self, ram: &Ram) -> Result<Option<u16>, Violation> {
        match self.stash.pop() {
            Some(head) => Ok(Some(head)),
            None => self.queue.pop(ram, self.record),
        }
    }

    /// Puts a request back, before those that were taken earlier and put back.
    pub fn put_back(&mut self, head: u16) {
        self.stash.push(head);
    }

    /// Reads a request's buffers behind those that stand in `buffers`. False: there are too many, and it is not to be carried out.
    #[inline]
    pub fn read(&self, ram: &Ram, head: u16, buffers: &mut Vec<Segment>) -> Result<bool, Violation> {
        let from = buffers.len();
        let most = from + MOST_BUFFERS;
        let plain = self.queue.plain_chain(ram, head, |segment| {
            if buffers.len() < most {
                buffers.push(segment);
            }
            buffers.len() < most
        });
        if plain {
            return Ok(true);
        }
        buffers.truncate(from);
        let mut fits = true;
        for segment in self.queue.chain(ram, head) {
            let segment = segment?;
            if buffers.len() < most {
                buffers.push(segment);
            } else {
                fits = false;
            }
        }
        Ok(fits)
    }

    /// Returns what is to be returned.
    #[inline]
    pub fn flush(&mut self, ram: &Ram) -> Result<(), Violation> {
        if self.done.is_empty() { Ok(()) } else { self.return_done(ram) }
    }

    fn return_done(&mut self, ram: &Ram) -> Result<(), Violation> {
        let outcome = self.queue.push_all(ram, self.record, &self.done);
        self.done.clear();
        self.returned = true;
        outcome
    }

    /// Whether the driver is to be interrupted.
    pub fn wants_interrupt(&mut self, ram: &Ram) -> bool {
        core::mem::take(&mut self.returned) && self.queue.needs_interrupt(ram)
    }

    /// The same where it can wait: until [`DELAY`] has passed, or much was returned.
    pub fn wants_interrupt_late(&mut self, ram: &Ram, now: u64) -> Wish {
        self.look_again(ram);
        if !self.returned {
            return Wish::No;
        }
        let due = *self.since.get_or_insert(now) + DELAY;
        if now < due && self.queue.untold() < self.queue.layout().size / 4 {
            return Wish::At(due);
        }
        self.since = None;
        if self.wants_interrupt(ram) { Wish::Now } else { Wish::No }
    }

    /// Forgets an interrupt that the driver does not want any more.
    pub fn look_again(&mut self, ram: &Ram) {
        if self.returned && !self.queue.would_interrupt(ram) {
            // So that what comes next is asked for by itself.
            let _ = self.wants_interrupt(ram);
            self.since = None;
        }
    }
}
