//! Interrupts of a virtual processor: the page behind [`crate::vcpu::VcpuState`], which kernel and VMM share as they do that one.
//!
//! It begins with the registers of the vCPU's local APIC that decide what is delivered when, laid out as the processor has them (virtual-APIC page, SDM
//! volume 3, 30.1): a register of 32 bits each 16 bytes. The VMM emulates the APIC on them. While the guest runs, the kernel or the processor delivers
//! from them too: a request becomes in service when the guest gets it. The VMM may look and write whenever its thread is not in `VcpuRun`.
//!
//! A *route* turns a bit of the Notification that is bound to the vCPU's thread into an edge-triggered interrupt: when `VcpuRun` finds the bit, it
//! requests `routes[bit]` and goes on in the guest, and the VMM does not see the bit. Whoever holds a badged capability to that Notification so interrupts the guest
//! without the VMM. A VMM thread that waits elsewhere (`Wait`, in a halted guest) gets the bits and requests the vectors itself. A bit without a route ends the run as `NOTIFIED`.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A register of an APIC.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub struct ApicRegister(AtomicU32);

impl ApicRegister {
    /// Its value. Relaxed: one thread and the kernel on its behalf write, one after the other.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it.
    #[inline(always)]
    pub fn set(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A set of vectors 0 to 255 in eight registers: ISR, TMR or IRR.
#[derive(Debug, Default)]
#[repr(C)]
pub struct VectorSet([ApicRegister; 8]);

impl VectorSet {
    #[inline(always)]
    fn place(&self, vector: u8) -> (&ApicRegister, u32) {
        (&self.0[usize::from(vector >> 5)], 1 << (vector & 31))
    }

    /// Register `index` (0 to 7, others count from 0 again).
    #[inline(always)]
    pub fn register(&self, index: usize) -> &ApicRegister {
        &self.0[index & 7]
    }

    /// Adds a vector.
    #[inline]
    pub fn insert(&self, vector: u8) {
        let (register, bit) = self.place(vector);
        register.set(register.get() | bit);
    }

    /// Takes a vector out.
    #[inline]
    pub fn remove(&self, vector: u8) {
        let (register, bit) = self.place(vector);
        register.set(register.get() & !bit);
    }

    /// Whether the vector is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, vector: u8) -> bool {
        let (register, bit) = self.place(vector);
        register.get() & bit != 0
    }

    /// The highest vector.
    #[inline(never)]
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        let [a, b, c, d, e, f, g, h] = core::array::from_fn(|index| self.0[index].get());
        // By halves: it is asked at every exit, and mostly there is one or none.
        let (base, four): (u8, _) = if e | f | g | h != 0 { (4, [e, f, g, h]) } else { (0, [a, b, c, d]) };
        let [a, b, c, d] = four;
        let (base, low, high) = if c | d != 0 { (base + 2, c, d) } else { (base, a, b) };
        let (base, value) = if high != 0 { (base + 1, high) } else { (base, low) };
        (value != 0).then(|| base << 5 | value.ilog2() as u8)
    }

    /// Whether this vector is the only one.
    #[must_use]
    pub fn is_only(&self, vector: u8) -> bool {
        let place = usize::from(vector >> 5);
        let mut others = self.0.iter().enumerate().filter(|(index, _)| *index != place);
        self.0[place].get() == 1 << (vector & 31) && others.all(|(_, register)| register.get() == 0)
    }

    /// Whether nothing is in it.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|register| register.get() == 0)
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|register| register.get().count_ones()).sum()
    }

    /// Takes everything out.
    pub fn clear(&self) {
        self.0.iter().for_each(|register| register.set(0));
    }
}

/// Vectors that another processor requests while the guest runs: a posted-interrupt descriptor (SDM volume 3, 30.6). The manual wants it aligned by 64 bytes; it has
/// a page of its own because Bochs refuses any that does not begin one.
#[derive(Debug, Default)]
#[repr(C, align(4096))]
pub struct Posted {
    requests: [AtomicU64; 4],
    /// Bit 0: there are requests. The processor clears it when it takes them.
    outstanding: AtomicU64,
}

/// The page, and behind it what is posted.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct ApicPage {
    identity: [ApicRegister; 8],
    /// Task priority, offset 0x80. Where the processor keeps it here it is its own: the VMM goes by `VcpuState::cr8`.
    pub task_priority: ApicRegister,
    arbitration: ApicRegister,
    /// Processor priority, offset 0xa0: kept by the processor where that delivers, else by nobody.
    pub processor_priority: ApicRegister,
    destination: [ApicRegister; 5],
    /// Vectors in service, offset 0x100.
    pub in_service: VectorSet,
    /// Vectors whose end of interrupt the VMM must see: the level-triggered ones, offset 0x180.
    pub trigger_mode: VectorSet,
    /// Requested vectors, offset 0x200.
    pub requests: VectorSet,
    timers: [ApicRegister; 24],
    /// Offset 0x400: the vector that each bit of the bound Notification requests; below 16: the bit is a signal for the VMM.
    pub routes: [AtomicU8; 64],
    /// Not 0: the APIC is in x2APIC mode, so the kernel may end interrupts that are not in `trigger_mode` when the guest writes MSR 0x80b.
    pub x2apic: AtomicU32,
    /// Not 0: the guest may have ended the interrupt in service without anybody knowing (paravirtual end of interrupt). The kernel ends none then, and a routed
    /// interrupt that one in service would hold back is a signal for the VMM.
    pub end_unknown: AtomicU32,
    /// Offset 0x1000. Sequentially consistent, because whoever posts looks afterwards whether the guest still runs.
    pub posted: Posted,
}

const _: () = {
    assert!(size_of::<ApicPage>() == 2 * 4096);
    assert!(core::mem::offset_of!(ApicPage, task_priority) == 0x80);
    assert!(core::mem::offset_of!(ApicPage, in_service) == 0x100);
    assert!(core::mem::offset_of!(ApicPage, requests) == 0x200);
    assert!(core::mem::offset_of!(ApicPage, routes) == 0x400);
    assert!(core::mem::offset_of!(ApicPage, posted) == 0x1000);
};

impl Default for ApicPage {
    fn default() -> Self {
        Self {
            identity: Default::default(),
            task_priority: Default::default(),
            arbitration: Default::default(),
            processor_priority: Default::default(),
            destination: Default::default(),
            in_service: Default::default(),
            trigger_mode: Default::default(),
            requests: Default::default(),
            timers: Default::default(),
            routes: [const { AtomicU8::new(0) }; 64],
            x2apic: AtomicU32::new(0),
            end_unknown: AtomicU32::new(0),
            posted: Posted::default(),
        }
    }
}

impl ApicPage {
    /// The request that nothing in service holds back.
    #[inline(never)]
    #[must_use]
    pub fn request(&self) -> Option<u8> {
        let request = self.requests.highest()?;
        self.in_service.highest().is_none_or(|service| request >> 4 > service >> 4).then_some(request)
    }

    /// The guest gets the vector: from the requests to those in service.
    #[inline]
    pub fn accept(&self, vector: u8) {
        self.requests.remove(vector);
        self.in_service.insert(vector);
    }

    /// The vector to post for a signal, where that does what [`Self::route`] does.
    #[must_use]
    pub fn postable(&self, bits: u64) -> Option<u8> {
        let vector = self.routes[(bits.trailing_zeros() & 63) as usize].load(Ordering::Relaxed);
        let plain = bits.is_power_of_two() && vector >= 16 && self.end_unknown.load(Ordering::Relaxed) == 0;
        (plain && !self.trigger_mode.contains(vector)).then_some(vector)
    }

    /// Posts a vector to the processor that runs the guest, which has to be notified.
    pub fn post(&self, vector: u8) {
        self.posted.requests[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::SeqCst);
        self.posted.outstanding.fetch_or(1, Ordering::SeqCst);
    }

    /// Takes a vector back that nobody has taken over. Returns whether it was there.
    pub fn withdraw(&self, vector: u8) -> bool {
        let bit = 1 << (vector & 63);
        self.posted.requests[usize::from(vector >> 6)].fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Whether [`Self::take_posted`] has something to do.
    #[inline(always)]
    pub fn is_posted(&self) -> bool {
        self.posted.outstanding.load(Ordering::SeqCst) & 1 != 0
    }

    /// Requests what was posted and not taken over, while the guest does not run. Returns whether there may have been something.
    pub fn take_posted(&self) -> bool {
        // Before the requests: what is posted from here on sets it again.
        if self.posted.outstanding.fetch_and(!1, Ordering::SeqCst) & 1 == 0 {
            return false;
        }
        for (index, posted) in self.posted.requests.iter().enumerate() {
            let posted = posted.swap(0, Ordering::SeqCst);
            for half in 0..2 {
                let register = self.requests.register(index * 2 + half);
                register.set(register.get() | (posted >> (32 * half)) as u32);
            }
        }
        true
    }

    /// Requests the vectors that a signal's bits are routed to. Returns the bits that are not.
    pub fn route(&self, bits: u64) -> u64 {
        let mut rest = bits;
        let mut left = bits;
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            let vector = self.routes[bit as usize].load(Ordering::Relaxed);
            let held = || self.in_service.highest().is_some_and(|service| service >> 4 >= vector >> 4);
            if vector >= 16 && !(self.end_unknown.load(Ordering::Relaxed) != 0 && held()) {
                self.trigger_mode.remove(vector);
                self.requests.insert(vector);
                rest &= !(1 << bit);
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeSet;

    #[test]
    fn routed_bits_become_requests_and_others_stay_signals() {
        let page = Box::<ApicPage>::default();
        page.routes[3].store(0x41, Ordering::Relaxed);
        page.routes[63].store(0xf0, Ordering::Relaxed);
        page.routes[4].store(15, Ordering::Relaxed);
        page.trigger_mode.insert(0x41);
        assert_eq!(page.route(1 | 1 << 3 | 1 << 4 | 1 << 63), 1 | 1 << 4);
        assert!(page.requests.contains(0x41) && page.requests.contains(0xf0) && page.requests.len() == 2);
        assert!(page.trigger_mode.is_empty(), "a signal is an edge");
        assert_eq!(page.route(0), 0);
    }

    #[test]
    fn what_may_have_ended_unseen_sends_what_it_holds_back_to_the_monitor() {
        let page = Box::<ApicPage>::default();
        page.routes[1].store(0x41, Ordering::Relaxed);
        page.routes[2].store(0x51, Ordering::Relaxed);
        page.in_service.insert(0x42);
        page.end_unknown.store(1, Ordering::Relaxed);
        assert_eq!(page.route(6), 2);
        assert_eq!(page.request(), Some(0x51));
        page.end_unknown.store(0, Ordering::Relaxed);
        assert_eq!(page.route(6), 0);
    }

    #[test]
    fn what_is_posted_is_requested_once_or_taken_back() {
        let page = Box::<ApicPage>::default();
        page.routes[3].store(0x41, Ordering::Relaxed);
        page.routes[63].store(0xff, Ordering::Relaxed);
        page.routes[4].store(15, Ordering::Relaxed);
        assert_eq!([0, 1, 1 << 4, 1 << 3 | 1 << 63].map(|bits| page.postable(bits)), [None; 4]);
        assert_eq!([1 << 3, 1 << 63].map(|bits| page.postable(bits)), [Some(0x41), Some(0xff)]);
        assert!(!page.is_posted() && !page.take_posted());
        page.post(0x41);
        page.post(0xff);
        page.post(0x5f);
        assert!(page.is_posted() && page.requests.is_empty());
        assert_eq!([page.withdraw(0x5f), page.withdraw(0x5f)], [true, false]);
        assert_eq!([page.take_posted(), page.take_posted()], [true, false]);
        assert!(page.requests.contains(0x41) && page.requests.contains(0xff) && page.requests.len() == 2);
        assert!(!page.withdraw(0x41), "the guest has it");
        page.trigger_mode.insert(0x41);
        assert_eq!(page.postable(1 << 3), None, "its end would exit");
        page.end_unknown.store(1, Ordering::Relaxed);
        assert_eq!(page.postable(1 << 63), None);
    }

    #[test]
    fn a_request_waits_for_what_is_in_service() {
        let page = Box::<ApicPage>::default();
        page.requests.insert(0x41);
        assert_eq!(page.request(), Some(0x41));
        page.accept(0x41);
        page.requests.insert(0x4f);
        assert_eq!(page.request(), None, "the same class does not preempt");
        page.requests.insert(0x50);
        assert_eq!(page.request(), Some(0x50));
    }

    proptest! {
        #[test]
        fn is_a_set(operations in prop::collection::vec((any::<bool>(), any::<u8>()), 0..200)) {
            let set = VectorSet::default();
            let mut model = BTreeSet::new();
            for (insert, vector) in operations {
                if insert {
                    set.insert(vector);
                    model.insert(vector);
                } else {
                    set.remove(vector);
                    model.remove(&vector);
                }
                prop_assert_eq!(set.highest(), model.last().copied());
                prop_assert_eq!(model.last().is_some_and(|vector| set.is_only(*vector)), model.len() == 1);
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.len() as usize, model.len());
            }
            for vector in 0..=255_u8 {
                prop_assert_eq!(set.contains(vector), model.contains(&vector));
                prop_assert_eq!(set.register(usize::from(vector) / 32).get() >> (vector % 32) & 1 != 0, model.contains(&vector));
            }
        }
    }
}
