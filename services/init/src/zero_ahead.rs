//! Free memory is zeroed while a processor has nothing else to do, so that a machine's start does not wait for it, and what ended programs and guests left does not stay.
//!
//! A thread of the lowest priority asks the kernel for portion after portion, and rests for nine times as long as it worked, for each portion keeps the others
//! from making anything. It gets its work from init's first thread, by slot; what it has done stands in the memory capability itself ([`Untyped::info`]), so nothing is
//! lost or believed when a block is taken, freed or joined with another meanwhile.

use crate::machine::Machine;
use core::sync::atomic::{AtomicU32, Ordering};
use tessera_abi::Error;
use tessera_abi::object::Rights;
use tessera_rt::{CNode, Notification, Untyped, slots, thread, time};

/// Milliseconds without anything taken or given back after which memory is looked at.
const QUIET_MS: u64 = 100;
/// Portions between two rests: 4 MiB.
const PORTIONS: u32 = 64;
/// A rest is so many times as long as the work before.
const REST: u64 = 9;
/// Bytes of the thread's stack.
const STACK: usize = 8 << 10;
/// Order of the block that the thread is made of: 32 KiB.
const THREAD_ORDER: u32 = 3;

/// Slots of blocks to zero; 0: none.
static WORK: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];

/// What init knows of it.
#[derive(Debug)]
pub struct ZeroAhead {
    /// Wakes the thread.
    wake: Notification,
    /// [`Machine::changed`] when all was found to be zero.
    settled: Option<u64>,
    /// When to look again at the earliest.
    next: u64,
}

impl ZeroAhead {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's; `NoMemory`.
    pub fn start(machine: &mut Machine) -> Result<Self, Error> {
        let block = machine.take(THREAD_ORDER).ok_or(Error::NoMemory)?;
        machine.own_pages += block.pages();
        let options = thread::Options {
            cpu: machine.cpus - 1,
            stack: STACK,
            ..thread::Options::default()
        };
        let handle = thread::spawn_of(Untyped::new(block.slot), None, &options, |handle| work(handle.notification))?;
        let wake = slots::take()?;
        CNode::OWN.copy(wake, CNode::OWN, handle.notification.slot(), Rights::SEND, 1)?;
        Ok(Self {
            wake: Notification::new(wake),
            settled: None,
            next: 0,
        })
    }

    /// Gives the thread what there is to zero, if it is due.
    pub fn look(&mut self, machine: &Machine) {
        let now = time::now();
        if self.deadline(machine).is_none_or(|due| now < due) {
            return;
        }
        self.next = now.saturating_add(time::milliseconds(QUIET_MS));
        // Relaxed: the numbers alone matter.
        if WORK.iter().any(|entry| entry.load(Ordering::Relaxed) != 0) {
            return;
        }
        let mut slots = machine.not_zeroed().peekable();
        if slots.peek().is_none() {
            self.settled = Some(machine.changed);
            return;
        }
        for (entry, slot) in WORK.iter().zip(slots) {
            entry.store(slot, Ordering::Relaxed);
        }
        // The thread lives as long as init.
        let _ = self.wake.signal();
    }

    /// When to look next, as a TSC value.
    #[must_use]
    pub fn deadline(&self, machine: &Machine) -> Option<u64> {
        let quiet = machine.changed.saturating_add(time::milliseconds(QUIET_MS));
        (self.settled != Some(machine.changed)).then(|| quiet.max(self.next))
    }
}

/// The thread.
fn work(wake: Notification) {
    while wake.wait(None).is_ok() {
        for entry in &WORK {
            zero(Untyped::new(entry.load(Ordering::Relaxed)));
            entry.store(0, Ordering::Relaxed);
        }
    }
}

/// Zeroes a block that may be in use by now, or have become something else: the kernel refuses what is no memory, and zeroes what is unused alone.
fn zero(block: Untyped) {
    loop {
        let begin = time::now();
        for _ in 0..PORTIONS {
            if block.zero_ahead() != Err(Error::Again) {
                return;
            }
        }
        time::sleep_until(time::after((time::now() - begin).saturating_mul(REST)));
    }
}
