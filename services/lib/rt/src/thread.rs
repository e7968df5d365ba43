//! Threads of a server. They live as long as the server: there is nothing to join.

use crate::{AddressSpace, CNode, Endpoint, Notification, Reply, SchedContext, Thread, ThreadConfig, Untyped, slots, start_info, vm};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};
use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::{Error, PAGE_SIZE, layout};
use tessera_manifest::slots as fixed;

pub use tessera_abi::object::thread::NO_FPU;

/// How a thread is to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Priority, not above the first thread's.
    pub priority: u8,
    /// Processor; one past the machine's last is an error.
    pub cpu: u32,
    /// Stack in bytes, rounded up to pages.
    pub stack: usize,
    /// Flags, such as [`NO_FPU`].
    pub flags: u64,
    /// Microseconds of processor time per period, 0: unlimited.
    pub budget_us: u64,
    /// Period in microseconds.
    pub period_us: u64,
    /// Weight among its equals.
    pub weight: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            priority: 0,
            cpu: 0,
            stack: 16 << 10,
            flags: 0,
            budget_us: 0,
            period_us: 0,
            weight: 100,
        }
    }
}

/// A thread's capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Handle {
    /// The thread.
    pub thread: Thread,
    /// Its processor time.
    pub sched_context: SchedContext,
    /// Bound to it: a signal wakes it from waiting for messages and from running a vCPU.
    pub notification: Notification,
    /// For its own server loop.
    pub reply: Reply,
}

/// The first thread's capabilities.
pub const FIRST: Handle = Handle {
    thread: Thread::FIRST,
    sched_context: SchedContext::new(fixed::SCHED_CONTEXT),
    notification: Notification::FIRST,
    reply: Reply::FIRST,
};

struct Beginning {
    handle: Handle,
    run: Box<dyn FnOnce(Handle) + Send>,
}

/// Number of the next thread; the first has 0.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Starts a thread that runs `run` with its own capabilities, and stops when that returns. Everything it needs is made out of the server's `Untyped`: about 12 KiB and
/// the stack.
///
/// # Errors
/// `NoMemory`: `untyped` or `slots` in the manifest is too small. `BadArgument`: priority above the first thread's or no such processor.
pub fn spawn(options: &Options, run: impl FnOnce(Handle) + Send + 'static) -> Result<Handle, Error> {
    spawn_of(Untyped::OWN, Some(Endpoint::new(fixed::FAULT)), options, run)
}

/// As [`spawn`], of given memory, with an endpoint for its faults; without one it stops at the first.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_of(
    untyped: Untyped,
    fault: Option<Endpoint>,
    options: &Options,
    run: impl FnOnce(Handle) + Send + 'static,
) -> Result<Handle, Error> {
    if options.priority > start_info().priority {
        return Err(Error::BadArgument);
    }
    let handle = Handle {
        thread: Thread::new(untyped.make(ObjectKind::Thread, 0)?),
        sched_context: SchedContext::new(untyped.make(ObjectKind::SchedContext, 0)?),
        notification: untyped.notification()?,
        reply: untyped.reply()?,
    };
    let pages = options.stack.div_ceil(PAGE_SIZE).max(1);
    let stack = vm::map(untyped.frame(pages as u64)?, Rights::READ | Rights::WRITE, 0)?;
    // Relaxed: only the numbers' difference matters.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    handle
        .sched_context
        .configure(options.budget_us, options.period_us, options.weight.into())?;
    handle.thread.configure(&ThreadConfig {
        cnode: CNode::OWN,
        space: AddressSpace::OWN,
        fault,
        sched_context: handle.sched_context,
        priority: options.priority,
        cpu: options.cpu,
        flags: options.flags,
        utcb: layout::UTCB_BASE + u64::from(number) * layout::UTCB_STRIDE,
    })?;
    handle.thread.bind(Some(handle.notification))?;
    let beginning = Box::into_raw(Box::new(Beginning {
        handle,
        run: Box::new(run),
    }));
    let top = stack.address + stack.length as u64;
    let started = handle.thread.start(trampoline as *const () as u64, top, beginning as u64);
    if started.is_err() {
        // SAFETY: the thread did not start, so the box is still ours alone.
        drop(unsafe { Box::from_raw(beginning) });
    }
    started.map(|()| handle)
}

/// The first instructions of a thread: as in `_start`.
#[cfg(target_os = "tessera")]
#[unsafe(naked)]
extern "C" fn trampoline() -> ! {
    core::arch::naked_asm!("xor ebp, ebp", "and rsp, -16", "call {begin}", "ud2", begin = sym begin)
}

#[cfg(not(target_os = "tessera"))]
extern "C" fn trampoline() -> ! {
    // There are no threads without a kernel; the reference keeps the code checked.
    begin(core::ptr::null_mut())
}

extern "C" fn begin(beginning: *mut Beginning) -> ! {
    // SAFETY: `spawn` made the pointer by Box::into_raw and gave it to this thread alone.
    let beginning = unsafe { Box::from_raw(beginning) };
    let thread = beginning.handle.thread;
    (beginning.run)(beginning.handle);
    stop(thread)
}

fn stop(thread: Thread) -> ! {
    loop {
        let _ = thread.stop();
        // Not reached unless the capability is gone.
        crate::sys::yield_now();
    }
}

/// Stops the first thread's like for the runtime's own ends: the server is over, init takes the rest.
pub(crate) fn stop_current() -> ! {
    #[cfg(target_os = "tessera")]
    crate::panic::trap();
    #[cfg(not(target_os = "tessera"))]
    stop(Thread::FIRST)
}

/// Slots that a spawned thread takes, for sizing `slots` in the manifest.
pub const SLOTS_PER_THREAD: u32 = 5;

/// Takes back a spawned thread that will not be needed again: stops it and deletes its capabilities. Its memory comes back when the server ends.
pub fn discard(handle: Handle) {
    let _ = handle.thread.stop();
    for slot in [
        handle.thread.slot(),
        handle.sched_context.slot(),
        handle.notification.slot(),
        handle.reply.slot(),
    ] {
        slots::free(slot);
    }
}
