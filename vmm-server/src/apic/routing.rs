//! How interrupt messages reach local APICs: destination modes, delivery modes, and each vCPU's inbox.
//!
//! A local APIC belongs to its vCPU's thread alone. Everyone else puts what is for it into its [`Inbox`], a few atomic words, and kicks the thread;
//! the thread empties the inbox before it enters the guest. No lock is taken.

use super::lapic::Routes;
use crate::MAX_VCPUS;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Gets a vCPU's thread out of the guest or out of its sleep, so that it looks into its inbox.
pub trait Kick: Sync {
    /// Kicks vCPU `index`. A kick that comes while the thread is not in the guest makes its next entry return at once.
    fn kick(&self, index: usize);

    /// Wakes the thread that speaks with the servers of devices: there is something to tell them.
    fn wake_link(&self) {}

    /// Tells the server of device `device` on the bus that there is something in a queue.
    fn ring(&self, _device: usize) {}
}

/// Delivery mode of a message (SDM volume 3, 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To all destinations.
    Fixed,
    /// To one of the destinations.
    LowestPriority,
    /// System management interrupt: there is no SMM here, so it is dropped.
    Smi,
    /// Non-maskable.
    Nmi,
    /// INIT.
    Init,
    /// Start-up; the vector says where.
    StartUp,
    /// As if from the 8259.
    ExtInt,
}

impl Delivery {
    /// Decodes the three-bit field of interrupt commands, redirection entries and MSI data. The reserved value counts as `Smi`: dropped.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Smi,
        }
    }
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Destination: 8 bits, or 32 if `wide`.
    pub destination: u32,
    /// The destination is logical, else an APIC identity.
    pub logical: bool,
    /// The sender is in x2APIC mode.
    pub wide: bool,
    /// Delivery mode.
    pub delivery: Delivery,
    /// Vector.
    pub vector: u8,
    /// Level-triggered: the end of interrupt is broadcast to the I/O APIC.
    pub level: bool,
}

/// Something in an inbox besides vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub u32);

impl Event {
    /// Vectors are waiting.
    pub const VECTORS: u32 = 1;
    /// A non-maskable interrupt.
    pub const NMI: u32 = 2;
    /// INIT.
    pub const INIT: u32 = 4;
    /// Start-up.
    pub const START_UP: u32 = 8;
    /// Something outside changed (8259 output, timers of the chipset, phase of the machine): look again.
    pub const LOOK: u32 = 16;
    /// Routes changed.
    pub const ROUTES: u32 = 32;
}

/// [`Inbox::destination`]: the APIC is in x2APIC mode.
const X2APIC: u32 = 1 << 16;
/// [`Inbox::destination`]: the APIC is enabled in its base register.
const ENABLED: u32 = 1 << 17;
/// [`Inbox::destination`]: the destination format is flat.
const FLAT: u32 = 1 << 18;

/// What waits for one local APIC.
#[derive(Debug, Default)]
pub struct Inbox {
    events: AtomicU32,
    start_page: AtomicU32,
    /// Copy of the fields that senders match destinations with: logical identity (bits 0 to 7) and the flags above.
    destination: AtomicU32,
    vectors: [AtomicU64; 4],
    level: [AtomicU64; 4],
    /// Eight routes a word.
    routes: [AtomicU64; 8],
}

impl Inbox {
    /// Whether anything waits. One load: this is on the way of every exit.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Relaxed: whoever posted kicks afterwards, and the kick orders.
        self.events.load(Ordering::Relaxed) == 0
    }

    /// Takes the events. Take the vectors after it, if it says so.
    #[must_use]
    pub fn take_events(&self) -> u32 {
        // Acquire: pairs with the release of `post`, so that the vectors posted before are seen.
        self.events.swap(0, Ordering::AcqRel)
    }

    /// Takes the vectors, each word with the mask of those that are level-triggered.
    pub fn take_vectors(&self, mut each: impl FnMut(usize, u64, u64)) {
        for index in 0..4 {
            // Relaxed: `take_events` ordered.
            if self.vectors[index].load(Ordering::Relaxed) != 0 {
                let level = self.level[index].load(Ordering::Relaxed);
                let vectors = self.vectors[index].swap(0, Ordering::AcqRel);
                each(index, vectors, level);
            }
        }
    }

    /// The routes, after an event said that they changed.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let mut routes = [0; 64];
        for (bytes, word) in routes.chunks_exact_mut(8).zip(&self.routes) {
            // Relaxed: `take_events` ordered.
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        routes
    }

    /// Page number at which the last start-up message wants the processor to start.
    #[must_use]
    pub fn start_page(&self) -> u8 {
        self.start_page.load(Ordering::Relaxed) as u8
    }

    /// Empties the inbox, when the machine is reset.
    pub fn clear(&self) {
        for word in self.vectors.iter().chain(&self.level).chain(&self.routes) {
            word.store(0, Ordering::Relaxed);
        }
        self.events.store(0, Ordering::Release);
    }

    /// Says how senders reach this APIC from now on.
    pub fn set_destination(&self, enabled: bool, x2apic: bool, flat: bool, logical: u8) {
        let flags = if enabled { ENABLED } else { 0 } | if x2apic { X2APIC } else { 0 } | if flat { FLAT } else { 0 };
        // Relaxed: a message in flight may take the old or the new identity, as on hardware.
        self.destination.store(flags | u32::from(logical), Ordering::Relaxed);
    }

    /// Adds events; true if there were none before, so that a kick is needed.
    fn post(&self, events: u32) -> bool {
        // Release: pairs with `take_events`.
        self.events.fetch_or(events, Ordering::AcqRel) == 0
    }

    fn post_vector(&self, vector: u8, level: bool) -> bool {
        let (index, bit) = (usize::from(vector >> 6), 1 << (vector & 63));
        // Relaxed: published by `post`.
        if level {
            self.level[index].fetch_or(bit, Ordering::Relaxed);
        } else {
            self.level[index].fetch_and(!bit, Ordering::Relaxed);
        }
        self.vectors[index].fetch_or(bit, Ordering::Relaxed);
        self.post(Event::VECTORS)
    }
}

/// All inboxes of a machine.
#[derive(Debug)]
pub struct Interrupts<K> {
    inboxes: [Inbox; MAX_VCPUS],
    count: usize,
    turn: AtomicU32,
    external: AtomicBool,
    chipset_deadline: AtomicU64,
    kick: K,
}

impl<K: Kick> Interrupts<K> {
    /// Inboxes for `count` vCPUs, at most [`MAX_VCPUS`].
    pub fn new(count: usize, kick: K) -> Self {
        let this = Self {
            inboxes: Default::default(),
            count: count.clamp(1, MAX_VCPUS),
            turn: AtomicU32::new(0),
            external: AtomicBool::new(false),
            chipset_deadline: AtomicU64::new(u64::MAX),
            kick,
        };
        for inbox in &this.inboxes {
            inbox.set_destination(true, false, true, 0);
        }
        this
    }

    /// The inbox of a vCPU.
    ///
    /// # Panics
    /// If there is no such vCPU.
    #[inline]
    #[must_use]
    pub fn inbox(&self, index: usize) -> &Inbox {
        &self.inboxes[index]
    }

    /// Number of vCPUs.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Makes a vCPU look at the world again.
    pub fn look(&self, index: usize) {
        if self.inboxes[index].post(Event::LOOK) {
            self.kick.kick(index);
        }
    }

    /// From now on, bit `bit` (1 to 63) of the notification of vCPU `index`'s thread requests `vector` there, edge-triggered; 0 to 15: nothing. A device's server that was given
    /// the notification with that badge interrupts the guest by signalling it.
    pub fn set_route(&self, index: usize, bit: u32, vector: u8) {
        let (word, shift) = (&self.inboxes[index].routes[(bit / 8) as usize & 7], bit % 8 * 8);
        // Relaxed: published by `post`.
        word.fetch_and(!(0xff << shift), Ordering::Relaxed);
        word.fetch_or(u64::from(vector) << shift, Ordering::Relaxed);
        if self.inboxes[index].post(Event::ROUTES) {
            self.kick.kick(index);
        }
    }

    /// Gets vCPU `index`'s thread to look at the phase of the machine, without a mark in its inbox.
    pub fn kick(&self, index: usize) {
        self.kick.kick(index);
    }

    /// See [`Kick::wake_link`].
    pub fn wake_link(&self) {
        self.kick.wake_link();
    }

    /// See [`Kick::ring`].
    pub fn ring(&self, device: usize) {
        self.kick.ring(device);
    }

    /// Whether a message is for no more than one vCPU.
    #[must_use]
    pub fn is_for_one(&self, message: &Message) -> bool {
        (0..self.count).filter(|&index| self.matches(index, message)).count() <= 1
    }

    /// The first vCPU that a message is for.
    #[must_use]
    pub fn first_target(&self, message: &Message) -> Option<usize> {
        (0..self.count).find(|&index| self.matches(index, message))
    }

    /// Makes all vCPUs look at the world again.
    pub fn look_all(&self) {
        (0..self.count).for_each(|index| self.look(index));
    }

    /// Whether the 8259 asks vCPU 0 for an interrupt.
    #[inline]
    #[must_use]
    pub fn external(&self) -> bool {
        // Relaxed: who sets it makes vCPU 0 look, and that orders.
        self.external.load(Ordering::Relaxed)
    }

    /// Sets the output of the 8259.
    pub fn set_external(&self, level: bool) {
        if self.external.swap(level, Ordering::Relaxed) != level && level {
            self.look(0);
        }
    }

    /// Guest time in nanoseconds at which vCPU 0 must run the chipset, or `u64::MAX`.
    #[inline]
    #[must_use]
    pub fn chipset_deadline(&self) -> u64 {
        // Relaxed: as for `external`.
        self.chipset_deadline.load(Ordering::Relaxed)
    }

    /// Sets that time; vCPU 0 looks if it comes sooner than it knew.
    pub fn set_chipset_deadline(&self, deadline: u64) {
        if deadline < self.chipset_deadline.swap(deadline, Ordering::Relaxed) {
            self.look(0);
        }
    }

    /// Delivers a message to those whom it is for. `from` is the sending vCPU, which needs no kick.
    pub fn send(&self, message: &Message, from: Option<usize>) {
        let matching = (0..self.count)
            .filter(|&index| self.matches(index, message))
            .fold(0u32, |set, index| set | 1 << index);
        self.deliver(matching, message, from);
    }

    /// Delivers a message to a set of vCPUs, one bit each, whatever its destination says.
    pub fn deliver(&self, set: u32, message: &Message, from: Option<usize>) {
        let set = if message.delivery == Delivery::LowestPriority {
            self.one_of(set)
        } else {
            set
        };
        for index in (0..self.count).filter(|index| set >> index & 1 != 0) {
            let inbox = &self.inboxes[index];
            let fresh = match message.delivery {
                Delivery::Fixed | Delivery::LowestPriority => inbox.post_vector(message.vector, message.level),
                Delivery::Nmi => inbox.post(Event::NMI),
                Delivery::Init => inbox.post(Event::INIT),
                Delivery::StartUp => {
                    inbox.start_page.store(u32::from(message.vector), Ordering::Relaxed);
                    inbox.post(Event::START_UP)
                }
                // The 8259 is asked by the vCPU itself when it looks.
                Delivery::ExtInt => inbox.post(Event::LOOK),
                Delivery::Smi => false,
            };
            if fresh && from != Some(index) {
                self.kick.kick(index);
            }
        }
    }

    /// Takes turns among the candidates: hardware arbitrates by priority, any choice is allowed.
    fn one_of(&self, set: u32) -> u32 {
        if set.count_ones() <= 1 {
            return set;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % set.count_ones();
        let mut rest = set;
        for _ in 0..turn {
            rest &= rest - 1;
        }
        rest & rest.wrapping_neg()
    }

    /// SDM volume 3, 11.6.2: physical, logical flat, logical cluster, and the x2APIC's (11.12.10).
    fn matches(&self, index: usize, message: &Message) -> bool {
        let state = self.inboxes[index].destination.load(Ordering::Relaxed);
        if state & ENABLED == 0 {
            return false;
        }
        let destination = message.destination;
        let broadcast = if message.wide { u32::MAX } else { 0xff };
        if destination == broadcast {
            return true;
        }
        if !message.logical {
            return destination == index as u32;
        }
        if state & X2APIC != 0 {
            // The logical identity of an x2APIC follows from its identity: cluster in the upper half, one bit of sixteen in the lower.
            return destination >> 16 == index as u32 >> 4 && destination & 1 << (index & 15) != 0;
        }
        let logical = state & 0xff;
        if state & FLAT != 0 {
            destination <= 0xff && destination & logical != 0
        } else {
            destination <= 0xff && destination >> 4 == logical >> 4 && destination & logical & 0xf != 0
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Counts kicks.
    #[derive(Debug, Default)]
    pub(crate) struct Kicks(pub Mutex<std::vec::Vec<usize>>, Mutex<usize>, Mutex<std::vec::Vec<usize>>);

    impl Kick for Kicks {
        fn kick(&self, index: usize) {
            self.0.lock().unwrap().push(index);
        }
        fn wake_link(&self) {
            *self.1.lock().unwrap() += 1;
        }
        fn ring(&self, device: usize) {
            self.2.lock().unwrap().push(device);
        }
    }

    impl Kicks {
        /// Times that the link was woken.
        pub(crate) fn links(&self) -> usize {
            *self.1.lock().unwrap()
        }
        /// Devices that were rung.
        pub(crate) fn rings(&self) -> std::vec::Vec<usize> {
            self.2.lock().unwrap().clone()
        }
    }

    impl Interrupts<Kicks> {
        pub(crate) fn kicked(&self) -> &Kicks {
            &self.kick
        }
    }

    fn fixed(destination: u32) -> Message {
        Message {
            destination,
            logical: false,
            wide: false,
            delivery: Delivery::Fixed,
            vector: 0x41,
            level: false,
        }
    }

    fn receivers(interrupts: &Interrupts<Kicks>, message: &Message) -> std::vec::Vec<usize> {
        interrupts.send(message, None);
        (0..interrupts.count())
            .filter(|&i| {
                let got = interrupts.inbox(i).take_events() & Event::VECTORS != 0;
                interrupts.inbox(i).take_vectors(|_, _, _| ());
                got
            })
            .collect()
    }

    #[test]
    fn physical_destinations() {
        let interrupts = Interrupts::new(4, Kicks::default());
        assert_eq!(receivers(&interrupts, &fixed(2)), [2]);
        assert_eq!(receivers(&interrupts, &fixed(0xff)), [0, 1, 2, 3]);
        assert_eq!(receivers(&interrupts, &fixed(9)), [0usize; 0]);
        assert_eq!(
            receivers(
                &interrupts,
                &Message {
                    wide: true,
                    ..fixed(u32::MAX)
                }
            ),
            [0, 1, 2, 3]
        );
        assert_eq!(
            receivers(&interrupts, &Message { wide: true, ..fixed(0xff) }),
            [0usize; 0],
            "0xff is an ordinary x2APIC identity"
        );
    }

    #[test]
    fn logical_destinations() {
        let interrupts = Interrupts::new(4, Kicks::default());
        for i in 0..4 {
            interrupts.inbox(i).set_destination(true, false, true, 1 << i);
        }
        let logical = |destination| Message {
            logical: true,
            ..fixed(destination)
        };
        assert_eq!(receivers(&interrupts, &logical(0b1010)), [1, 3]);
        for (i, identity) in [0x11, 0x12, 0x21, 0x22].into_iter().enumerate() {
            interrupts.inbox(i).set_destination(true, false, false, identity);
        }
        assert_eq!(receivers(&interrupts, &logical(0x13)), [0, 1]);
        assert_eq!(receivers(&interrupts, &logical(0x22)), [3]);
        for i in 0..4 {
            interrupts.inbox(i).set_destination(true, true, false, 0);
        }
        assert_eq!(
            receivers(
                &interrupts,
                &Message {
                    wide: true,
                    ..logical(0b0110)
                }
            ),
            [1, 2]
        );
        assert_eq!(
            receivers(
                &interrupts,
                &Message {
                    wide: true,
                    ..logical(0x1_0001)
                }
            ),
            [0usize; 0]
        );
    }

    #[test]
    fn lowest_priority_takes_one_and_takes_turns() {
        let interrupts = Interrupts::new(4, Kicks::default());
        let message = Message {
            delivery: Delivery::LowestPriority,
            ..fixed(0xff)
        };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let got = receivers(&interrupts, &message);
            assert_eq!(got.len(), 1);
            seen.insert(got[0]);
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn kicks_once_until_the_inbox_is_emptied_and_never_the_sender() {
        let interrupts = Interrupts::new(2, Kicks::default());
        interrupts.send(&fixed(1), Some(0));
        interrupts.send(&fixed(1), Some(0));
        interrupts.send(&fixed(0), Some(0));
        assert_eq!(*interrupts.kick.0.lock().unwrap(), [1]);
        assert!(!interrupts.inbox(0).is_empty());
        let _ = interrupts.inbox(1).take_events();
        interrupts.send(&fixed(1), None);
        assert_eq!(*interrupts.kick.0.lock().unwrap(), [1, 1]);
    }

    #[test]
    fn disabled_apics_receive_nothing() {
        let interrupts = Interrupts::new(2, Kicks::default());
        interrupts.inbox(1).set_destination(false, false, true, 0);
        assert_eq!(receivers(&interrupts, &fixed(0xff)), [0]);
    }

    #[test]
    fn level_and_start_page_arrive() {
        let interrupts = Interrupts::new(1, Kicks::default());
        interrupts.send(&Message { level: true, ..fixed(0) }, None);
        let mut got = std::vec::Vec::new();
        interrupts
            .inbox(0)
            .take_vectors(|index, vectors, level| got.push((index, vectors, level)));
        assert_eq!(got, [(1, 2, 2)]);
        interrupts.send(
            &Message {
                delivery: Delivery::StartUp,
                vector: 0x9a,
                ..fixed(0)
            },
            None,
        );
        assert_eq!(interrupts.inbox(0).start_page(), 0x9a);
    }
}
