//! What each processor has for itself, at its GS base while it is in the kernel.

use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use tessera_abi::MAX_CPUS;

use crate::kref::Ref;
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::thread::Thread;
use crate::object::vcpu::Vcpu;
use crate::sched::RunQueue;
use crate::virt::CpuState;

use super::descriptors::ArchCpu;

/// One processor's data. The entry code knows the offsets of the first fields.
#[repr(C)]
#[derive(Default)]
pub struct PerCpu {
    /// Its own address, to get from GS to a reference. Offset 0.
    pub self_pointer: Cell<u64>,
    /// Offset of this processor's queue of receivers in an endpoint. Offset 8.
    pub receivers_offset: Cell<u64>,
    /// Top of the kernel stack. Offset 16.
    pub kernel_stack: Cell<u64>,
    /// The thread whose registers are in the processor; `None` when idle. Offset 24.
    pub current: Cell<Option<Ref<Thread>>>,
    /// 1 while this processor is in the kernel in shared mode; see [`crate::lock`]. Offset 32.
    pub reading: AtomicU32,
    /// Not 0: the fast paths must not be taken (tracing is on, a reschedule is due). Offset 36.
    pub slow: Cell<u32>,
    /// Page-table root that is loaded. Offset 40.
    pub active_cr3: Cell<u64>,
    /// Thread whose extended state is in the registers. Offset 48.
    pub fpu_thread: Cell<Option<Ref<Thread>>>,
    /// vCPU whose extended state is in the registers, if no thread's is.
    pub fpu_vcpu: Cell<Option<Ref<Vcpu>>>,
    /// CR0.TS is set.
    pub fpu_trapped: Cell<bool>,
    /// The vCPU whose state was in the registers ended: the host's XCR0 must come back.
    pub discard_vcpu: Cell<bool>,
    /// Number of this processor.
    pub index: Cell<usize>,
    /// Another processor waits for this one to be in the kernel with no user or guest translations in use.
    pub stop_request: AtomicU32,
    /// A reschedule was asked for.
    pub reschedule: Cell<bool>,
    /// The vCPU that this processor runs or is about to.
    pub running_vcpu: Cell<Option<Ref<Vcpu>>>,
    /// Deadline of the running vCPU, or `u64::MAX`.
    pub vcpu_deadline: Cell<u64>,
    /// The notification that this processor is about to signal across processors.
    pub signalling: Cell<Option<Ref<Notification>>>,
    /// Ready threads, timers, and accounting.
    pub run_queue: RunQueue,
    /// Interrupts taken.
    pub interrupts: Cell<u64>,
    /// Times another processor made this one flush its translations.
    pub shootdowns: Cell<u64>,
    /// What running guests needs per processor.
    pub virt: CpuState,
    /// Trace ring in the direct map, 0 before there is one.
    pub trace_ring: Cell<u64>,
    /// The architecture's part: descriptor tables, stacks, APIC identity.
    pub arch: ArchCpu,
}

// SAFETY: the cells of a `PerCpu` are touched by its own processor in shared mode, and by others only in exclusive mode, when the owner is
// held at the kernel's door; what others touch at any time is atomic.
unsafe impl Sync for PerCpu {}

const _: () = {
    assert!(core::mem::offset_of!(PerCpu, receivers_offset) == 8);
    assert!(core::mem::offset_of!(PerCpu, kernel_stack) == 16);
    assert!(core::mem::offset_of!(PerCpu, current) == 24);
    assert!(core::mem::offset_of!(PerCpu, reading) == 32);
    assert!(core::mem::offset_of!(PerCpu, slow) == 36);
    assert!(core::mem::offset_of!(PerCpu, active_cr3) == 40);
};

static CPUS: [AtomicPtr<PerCpu>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Bits of the `Trace` mask.
pub static TRACE_MASK: AtomicU64 = AtomicU64::new(0);

impl PerCpu {
    /// Makes this the running processor's data: sets GS base, and enters it into the table under `index`. `kernel_stack` must be set before.
    pub fn install(&'static self, index: usize) {
        let address = core::ptr::from_ref(self) as u64;
        self.self_pointer.set(address);
        self.index.set(index);
        self.receivers_offset.set(Endpoint::receivers_offset(index));
        CPUS[index].store(core::ptr::from_ref(self).cast_mut(), Ordering::Release);
        // Relaxed: a plain maximum; readers look at the table, whose stores carry the ordering.
        COUNT.fetch_max(index as u32 + 1, Ordering::Relaxed);
        // SAFETY: the address is this structure's, which lives forever; the kernel expects exactly it at GS base. KERNEL_GS_BASE is the user's: 0.
        unsafe {
            x86_64::registers::model_specific::Msr::new(0xc000_0101).write(address);
            x86_64::registers::model_specific::Msr::new(0xc000_0102).write(0);
        }
    }
}

/// The running processor's data.
#[inline(always)]
pub fn this() -> &'static PerCpu {
    let address: *const PerCpu;
    // SAFETY: GS base points at this processor's `PerCpu` whenever Rust code runs in the kernel, whose first field is its address.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) address, options(nostack, preserves_flags, pure, readonly));
        &*address
    }
}

/// Data of processor `index`, if it runs.
#[inline]
pub fn get(index: usize) -> Option<&'static PerCpu> {
    // Acquire pairs with the release in `install`: whoever sees the pointer sees the structure.
    let pointer = CPUS.get(index)?.load(Ordering::Acquire);
    // SAFETY: entries are null or set by `install` from a `&'static`.
    unsafe { pointer.as_ref() }
}

/// Number of processors that run.
#[inline]
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed) as usize
}

/// All processors.
pub fn all() -> impl Iterator<Item = &'static PerCpu> {
    (0..count()).filter_map(get)
}
