//! Threads: registers, what they wait for, and the capabilities they hold by themselves.

use core::cell::{Cell, UnsafeCell};

pub use tessera_abi::object::thread::ThreadState as State;
use tessera_abi::object::{ObjectKind, Rights, size, thread as op};
use tessera_abi::utcb::{MESSAGE_OFFSET, Utcb};

use super::Header;
use super::endpoint::Endpoint;
use super::notification::Notification;
use super::reply::Reply;
use super::sched_context::SchedContext;
use super::slot::Slot;
use crate::kref::Ref;

/// A thread's registers as the entry code stores them.
#[repr(C)]
#[derive(Default)]
pub struct Registers {
    /// RAX.
    pub rax: Cell<u64>,
    /// RCX; the return address after `syscall`.
    pub rcx: Cell<u64>,
    /// RDX.
    pub rdx: Cell<u64>,
    /// RSI.
    pub rsi: Cell<u64>,
    /// RDI.
    pub rdi: Cell<u64>,
    /// R8.
    pub r8: Cell<u64>,
    /// R9.
    pub r9: Cell<u64>,
    /// R10.
    pub r10: Cell<u64>,
    /// R11; the flags after `syscall`.
    pub r11: Cell<u64>,
    /// RBX, RBP, R12, R13, R14, R15: the message words.
    pub words: [Cell<u64>; 6],
    /// Instruction pointer.
    pub rip: Cell<u64>,
    /// Flags.
    pub rflags: Cell<u64>,
    /// Stack pointer.
    pub rsp: Cell<u64>,
}

/// Extended state as FXSAVE stores it (SDM volume 1, 10.5.1).
#[repr(C, align(64))]
pub struct FpuArea(pub UnsafeCell<[u8; 512]>);

/// Slots that a thread holds.
#[repr(C)]
#[derive(Default)]
pub struct ThreadSlots {
    /// Capability table.
    pub cspace: Slot,
    /// Address space.
    pub vspace: Slot,
    /// Endpoint that is told of faults.
    pub fault: Slot,
    /// Scheduling context.
    pub sched: Slot,
    /// Bound notification.
    pub notification: Slot,
}

/// A thread. Its message buffer is the page after it.
#[repr(C)]
#[derive(Default)]
pub struct Thread {
    /// Header.
    pub header: Header,
    /// Registers while it does not run.
    pub regs: Registers,
    /// Where its message buffer is mapped; FS base while it runs.
    pub utcb_address: Cell<u64>,
    /// Identity of the space in which it is mapped.
    pub mapped_in: Cell<u64>,
    /// Page-table root.
    pub cr3: Cell<u64>,
    /// First slot of its capability table.
    pub cnode: Cell<u64>,
    /// Slots of the table; 0 without one.
    pub cnode_slots: Cell<u64>,
    /// What it is doing.
    pub state: Cell<State>,
    /// Bits of all priorities above its own.
    pub above: Cell<u64>,
    /// Priority; set by [`Thread::set_priority`].
    pub priority: Cell<u8>,
    /// Processor.
    pub cpu: Cell<u8>,
    /// Flags of CONFIGURE.
    pub flags: Cell<u8>,
    /// It entered by `syscall`: scratch registers need not be restored, and `sysret` will do.
    pub by_syscall: Cell<bool>,
    /// It waits in a call that the kernel made for its fault.
    pub faulted: Cell<bool>,
    /// It is in the timer list.
    pub timed: Cell<bool>,
    /// It is in the run queue (as against current).
    pub queued: Cell<bool>,
    /// Rights of the capability it called with: whether the reply may bring capabilities.
    pub call_rights: Cell<Rights>,
    /// Its own scheduling context.
    pub own_context: Cell<Option<Ref<SchedContext>>>,
    /// The context it runs on: its own, or its caller's.
    pub context: Cell<Option<Ref<SchedContext>>>,
    /// [`Thread::receive_reply`] of a receiver that a fast call may take: it waits without a deadline.
    pub fast_reply: Cell<Option<Ref<Reply>>>,
    /// Its call was not delivered by the fast path, so neither may the reply be: it has a deadline, a fault, or another processor.
    pub slow_reply: Cell<bool>,
    /// Reply that the next call it receives goes to.
    pub receive_reply: Cell<Option<Ref<Reply>>>,
    /// Reply that holds it.
    pub held_by: Cell<Option<Ref<Reply>>>,
    /// Endpoint in whose queue it is, or that it called.
    pub endpoint: Cell<Option<Ref<Endpoint>>>,
    /// Notification whose waiter it is.
    pub waits_for: Cell<Option<Ref<Notification>>>,
    /// Notification bound to it.
    pub bound: Cell<Option<Ref<Notification>>>,
    /// Badge of the capability it called with.
    pub badge: Cell<u64>,
    /// The vCPU while it is in that one's guest, so that a signal must interrupt its processor; else null. Only exclusive mode changes it from elsewhere.
    pub in_guest: core::sync::atomic::AtomicPtr<super::vcpu::Vcpu>,
    /// The message of a fault.
    pub fault_words: [Cell<u64>; 6],
    /// Links of the list it is in.
    pub queue_next: Cell<Option<Ref<Thread>>>,
    /// Links of the list it is in.
    pub queue_previous: Cell<Option<Ref<Thread>>>,
    /// Links of the timer list.
    pub timer_next: Cell<Option<Ref<Thread>>>,
    /// Links of the timer list.
    pub timer_previous: Cell<Option<Ref<Thread>>>,
    /// When its wait ends (TSC).
    pub deadline: Cell<u64>,
    /// When it called (TSC), while calls are measured.
    pub called_at: Cell<u64>,
    /// TSC ticks it was the current thread, when last charged.
    pub consumed: Cell<u64>,
    /// Times it was switched to.
    pub switches: Cell<u64>,
    /// Capabilities it holds.
    pub slots: ThreadSlots,
    /// FPU and SSE registers while it does not run.
    pub fpu: FpuArea,
}

const _: () = assert!(size_of::<Thread>() <= 4096);
const _: () = assert!(size::THREAD == 2 * 4096);

impl Thread {
    /// A stopped thread with nothing.
    #[inline(never)]
    pub fn new() -> Self {
        let new = Self { header: Header::new(ObjectKind::Thread), ..Self::default() };
        new.set_priority(0);
        new
    }

    /// Slot 0 of its capability table; null without one.
    #[inline(always)]
    pub fn table(&self) -> *const Slot {
        self.cnode.get() as *const Slot
    }

    /// Marks its slots as standing inside an object. Done once it is in its place.
    pub fn embed_slots(&self) {
        for slot in [&self.slots.cspace, &self.slots.vspace, &self.slots.fault, &self.slots.sched, &self.slots.notification] {
            slot.embed();
        }
    }

    /// The message buffer, shared with user level: only ever read and written through raw pointers.
    #[inline(always)]
    pub fn utcb(&self) -> *mut Utcb {
        (core::ptr::from_ref(self) as usize + 4096) as *mut Utcb
    }

    /// The message bytes of the buffer.
    #[inline(always)]
    pub fn message(&self) -> *mut u8 {
        (core::ptr::from_ref(self) as usize + 4096 + MESSAGE_OFFSET) as *mut u8
    }

    /// Whether it declared that it uses no FPU.
    #[inline(always)]
    pub fn is_without_fpu(&self) -> bool {
        self.flags.get() & op::NO_FPU as u8 != 0
    }

    /// Sets the priority, 0 to 63.
    pub fn set_priority(&self, priority: u8) {
        self.priority.set(priority);
        // Shifting in two steps keeps priority 63 within bounds.
        self.above.set(!0 << 1 << (priority & 63));
    }

    /// Sets what the system call it is in returns.
    #[inline(always)]
    pub fn set_status(&self, status: u64) {
        self.regs.rax.set(status);
    }

    /// As [`Self::set_status`], with the values that come with it in RDI and RSI.
    #[inline(always)]
    pub fn set_result(&self, status: u64, value: u64, info: u64) {
        self.set_status(status);
        self.regs.rdi.set(value);
        self.regs.rsi.set(info);
    }

    /// Registers and extended state of a thread that begins.
    pub fn reset_registers(&self, rip: u64, rsp: u64, argument: u64) {
        let r = &self.regs;
        for register in [&r.rax, &r.rcx, &r.rdx, &r.rsi, &r.r8, &r.r9, &r.r10, &r.r11].into_iter().chain(&r.words) {
            register.set(0);
        }
        r.rdi.set(argument);
        r.rip.set(rip);
        r.rsp.set(rsp);
        // Interrupts on; bit 1 always reads as 1.
        r.rflags.set(0x202);
        self.by_syscall.set(false);
        // SAFETY: the thread does not run and its state is in no processor's registers, so nobody else looks at the area.
        unsafe { *self.fpu.0.get() = initial_fpu() };
    }

    /// What user level is told of its state.
    pub fn public_state(&self) -> State {
        match self.state.get() {
            State::Stopped => State::Stopped,
            // It may wait for its handler as a caller does.
            _ if self.faulted.get() => State::Faulted,
            state => state,
        }
    }
}

impl Default for FpuArea {
    fn default() -> Self {
        Self(UnsafeCell::new(initial_fpu()))
    }
}

/// FXSAVE image after FNINIT with the default MXCSR.
const fn initial_fpu() -> [u8; 512] {
    let mut area = [0; 512];
    area[0] = 0x7f; // FCW 0x037f
    area[1] = 0x03;
    area[24] = 0x80; // MXCSR 0x1f80
    area[25] = 0x1f;
    area
}
