//! Endpoints: where callers and receivers meet.

use core::cell::Cell;

use tessera_abi::MAX_CPUS;
use tessera_abi::object::{ObjectKind, size};

use super::Header;
use super::thread::Thread;
use crate::kref::Ref;
use crate::sched::queue::Queue;

/// An endpoint. Callers that found no receiver wait in one queue, the highest priority first; receivers wait in one queue per processor, so that a call takes
/// one on its own processor without asking anyone.
#[repr(C)]
#[derive(Default)]
pub struct Endpoint {
    /// Header.
    pub header: Header,
    /// Waiting callers. Changed in exclusive mode only.
    pub callers: Queue,
    /// Calls delivered.
    pub calls: Cell<u64>,
    /// Sum of measured times from call to reply.
    pub latency: Cell<u64>,
    /// How many were measured.
    pub measured: Cell<u64>,
    /// Waiting receivers by processor.
    pub receivers: [Queue; MAX_CPUS],
}

const _: () = assert!(size_of::<Endpoint>() <= size::ENDPOINT);

impl Endpoint {
    /// One where nobody waits.
    pub fn new() -> Self {
        Self { header: Header::new(ObjectKind::Endpoint), ..Self::default() }
    }

    /// Offset of the queue of processor `index`.
    pub const fn receivers_offset(index: usize) -> u64 {
        assert!(index < MAX_CPUS);
        (core::mem::offset_of!(Self, receivers) + index * size_of::<Queue>()) as u64
    }

    /// The queue of the processor whose [`Self::receivers_offset`] is given.
    #[inline(always)]
    pub fn receivers_at(&self, offset: u64) -> &Queue {
        // SAFETY: the offset is one that `receivers_offset` computed, of a queue inside this object.
        unsafe { &*core::ptr::from_ref(self).byte_add(offset as usize).cast() }
    }

    /// A waiting receiver, on processor `first` if there is one.
    pub fn receiver(&self, first: usize) -> Option<Ref<Thread>> {
        self.receivers[first].head().or_else(|| self.receivers.iter().find_map(Queue::head))
    }

    /// Puts a caller where its priority belongs.
    pub fn enqueue_caller(&self, thread: Ref<Thread>) {
        self.callers.insert(thread, |other| other.priority.get() < thread.priority.get());
    }
}
