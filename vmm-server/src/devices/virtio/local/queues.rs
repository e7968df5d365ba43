//! The queues of one device, with what their driver is to be told.

use super::super::{QueueConfig, feature};
use crate::memory::GuestMemory;
use alloc::boxed::Box;
use alloc::vec::Vec;
use tessera_virtqueue::{Features, Layout, Queue, Record, Segment, Violation};

/// A queue and what is in flight in it.
#[derive(Debug)]
struct Served {
    number: u16,
    queue: Queue,
    record: Box<Record>,
}

/// A request that was taken and not returned.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    number: u16,
    head: u16,
    /// Its buffers, all RAM: those to read, then those to write.
    pub segments: Vec<Segment>,
}

/// Queues in use.
#[derive(Debug, Default)]
pub struct Queues {
    queues: Vec<Served>,
    /// A bit for each queue whose driver is to get an interrupt.
    interrupts: u16,
}

impl Queues {
    /// What the driver set up. `resume`: it is in the middle of its work, and nothing of it is under way.
    ///
    /// # Errors
    /// Size, alignment or place of a queue's part is wrong.
    pub fn new(used: &[(u16, QueueConfig)], features: u64, memory: &GuestMemory, resume: bool) -> Result<Self, Violation> {
        let agreed = Features {
            indirect: features & feature::INDIRECT != 0,
            event_index: features & feature::EVENT_INDEX != 0,
        };
        let mut queues = Vec::new();
        for (number, config) in used {
            let layout = Layout {
                size: config.size,
                descriptors: config.descriptors,
                available: config.available,
                used: config.used,
            };
            let record = Box::new(Record::new());
            let queue = if resume {
                Queue::take_over(layout, agreed, memory, &record)?
            } else {
                Queue::new(layout, agreed, memory, &record)?
            };
            queues.push(Served {
                number: *number,
                queue,
                record,
            });
        }
        Ok(Self { queues, interrupts: 0 })
    }

    /// Takes a queue's next request. None also where the driver does not use the queue; else it will notify of the next.
    ///
    /// # Errors
    /// The driver broke a rule.
    pub fn pop(&mut self, number: u16, memory: &GuestMemory) -> Result<Option<Request>, Violation> {
        let Some(served) = self.queues.iter_mut().find(|served| served.number == number) else {
            return Ok(None);
        };
        let mut head = served.queue.pop(memory, &served.record)?;
        // Once is enough: a driver that takes its request back meanwhile is told of by the next notification.
        if head.is_none() && served.queue.enable_notifications(memory) {
            head = served.queue.pop(memory, &served.record)?;
        }
        let Some(head) = head else { return Ok(None) };
        let segments = served.queue.chain(memory, head).collect::<Result<_, _>>()?;
        Ok(Some(Request { number, head, segments }))
    }

    /// Returns a request of which `written` bytes were written.
    ///
    /// # Errors
    /// The used ring is not RAM any more.
    pub fn push(&mut self, request: &Request, written: u32, memory: &GuestMemory) -> Result<(), Violation> {
        let Some(served) = self.queues.iter_mut().find(|served| served.number == request.number) else {
            return Err(Violation::Record);
        };
        served.queue.push(memory, &served.record, request.head, written)?;
        if served.queue.needs_interrupt(memory) {
            self.interrupts |= 1 << (request.number & 15);
        }
        Ok(())
    }

    /// The queues whose driver is to get an interrupt, each once.
    pub fn take_interrupts(&mut self) -> impl Iterator<Item = u16> + use<> {
        let interrupts = core::mem::take(&mut self.interrupts);
        (0..u16::BITS as u16).filter(move |number| interrupts >> number & 1 != 0)
    }
}

impl Request {
    /// Bytes that may be read.
    #[must_use]
    pub fn readable(&self) -> u64 {
        let readable = self.segments.iter().filter(|segment| !segment.writable);
        readable.map(|segment| u64::from(segment.length)).sum()
    }

    /// Reads from byte `offset` of the readable buffers on: the number of bytes.
    pub fn read(&self, memory: &GuestMemory, mut offset: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.segments.iter().filter(|segment| !segment.writable) {
            let length = u64::from(segment.length);
            if offset >= length {
                offset -= length;
                continue;
            }
            let part = ((length - offset) as usize).min(bytes.len() - done);
            // It was RAM when the request was taken, and RAM does not go away.
            let _ = memory.read_slice(segment.address + offset, &mut bytes[done..done + part]);
            (done, offset) = (done + part, 0);
            if done == bytes.len() {
                break;
            }
        }
        done
    }

    /// Writes into the writable buffers as far as they reach: the number of bytes.
    pub fn write(&self, memory: &GuestMemory, bytes: &[u8]) -> u32 {
        let mut left = bytes;
        for segment in self.segments.iter().filter(|segment| segment.writable) {
            let part = (segment.length as usize).min(left.len());
            let _ = memory.write_slice(segment.address, &left[..part]);
            left = &left[part..];
        }
        (bytes.len() - left.len()) as u32
    }

    /// Bytes that may be written.
    #[must_use]
    pub fn writable(&self) -> u64 {
        let writable = self.segments.iter().filter(|segment| segment.writable);
        writable.map(|segment| u64::from(segment.length)).sum()
    }
}
