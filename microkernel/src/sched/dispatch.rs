//! The scheduler of the running processor: charging, waking, choosing, and what comes with a switch.

use core::sync::atomic::{AtomicU64, Ordering};

use tessera_abi::trace::Event;

use crate::arch::percpu::{self, PerCpu};
use crate::arch::{cpu as arch_cpu, memory, timer};
use crate::kref::Ref;
use crate::lock::{self, Exclusive, SLOW_RESCHEDULE};
use crate::object::sched_context::SchedContext;
use crate::object::thread::{State, Thread};
use crate::trace;
use crate::virt::fpu;

/// A thread runs this many microseconds before its equals get their turn.
const SLICE_US: u64 = 2000;

/// [`SLICE_US`] in TSC ticks.
static SLICE: AtomicU64 = AtomicU64::new(0);

/// To be called once the TSC's rate is known, before any thread runs.
pub fn calibrate() {
    SLICE.store(timer::tsc_hz() / 1_000_000 * SLICE_US, Ordering::Relaxed);
}

/// Charges the current thread, or idleness, up to `now`.
#[inline(always)]
pub fn charge(cpu: &PerCpu, now: u64) {
    let queue = &cpu.run_queue;
    let ticks = now.wrapping_sub(queue.charged_at.replace(now));
    let Some(thread) = cpu.current.get() else {
        queue.idle.set(queue.idle.get() + ticks);
        return;
    };
    thread.consumed.set(thread.consumed.get() + ticks);
    let Some(context) = thread.context.get() else { return };
    if context.charge(ticks, now) && thread.state.get() == State::Ready {
        throttle(cpu, thread, context);
    }
}

/// The budget of the context that the current thread runs on is used up.
#[cold]
#[inline(never)]
fn throttle(cpu: &PerCpu, thread: Ref<Thread>, context: Ref<SchedContext>) {
    context.throttled.set(context.throttled.get() + 1);
    if thread.context.get() == thread.own_context.get() {
        thread.state.set(State::Throttled);
        cpu.run_queue.timers.insert(thread, context.next_period());
    } else {
        // The caller's budget is gone in the middle of its request: the server goes on with its own, so that its other callers are served.
        thread.context.set(thread.own_context.get());
    }
    ask_reschedule(cpu);
}

/// Makes a processor choose again before it leaves the kernel: the running one, or in exclusive mode any. So a current thread that was put where it waits stops running.
#[inline]
pub fn ask_reschedule(cpu: &PerCpu) {
    cpu.reschedule.set(true);
    cpu.slow.set(cpu.slow.get() | SLOW_RESCHEDULE);
}

/// Lets the next of the current thread's equals have its turn, if one is ready.
pub fn give_way(cpu: &PerCpu, thread: Ref<Thread>) {
    if cpu.run_queue.give_way(thread) {
        ask_reschedule(cpu);
    }
}

/// Puts a thread that no longer waits into the run queue of `cpu`, which is its own. Returns whether that processor should choose again.
#[inline(always)]
fn enqueue(cpu: &PerCpu, thread: Ref<Thread>) -> bool {
    if let Some(context) = thread.context.get()
        && context.budget.get() != 0
        && is_throttled(cpu, thread, context)
    {
        return true;
    }
    thread.state.set(State::Ready);
    cpu.run_queue.wake(thread);
    cpu.current.get().is_none_or(|current| current.priority.get() <= thread.priority.get())
}

#[cold]
#[inline(never)]
fn is_throttled(cpu: &PerCpu, thread: Ref<Thread>, context: Ref<SchedContext>) -> bool {
    context.refill(timer::now());
    if context.left() != 0 {
        return false;
    }
    thread.state.set(State::Throttled);
    cpu.run_queue.timers.insert(thread, context.next_period());
    true
}

/// Makes a thread of the running processor ready.
#[inline(always)]
pub fn wake_local(cpu: &PerCpu, thread: Ref<Thread>) {
    if enqueue(cpu, thread) {
        match cpu.current.get() {
            Some(current) if current.priority.get() == thread.priority.get() => arm(cpu, timer::now()),
            _ => ask_reschedule(cpu),
        }
    }
}

/// Makes a thread of any processor ready.
pub fn wake(exclusive: &Exclusive, thread: Ref<Thread>) {
    let cpu = exclusive.cpu();
    if usize::from(thread.cpu.get()) == cpu.index.get() {
        wake_local(cpu, thread);
    } else if let Some(other) = percpu::get(usize::from(thread.cpu.get()))
        && enqueue(other, thread)
    {
        exclusive.reschedule(other);
    }
}

/// Sets the timer for whatever comes next.
#[inline(always)]
pub fn arm(cpu: &PerCpu, now: u64) {
    let queue = &cpu.run_queue;
    let mut next = queue.timers.next().min(cpu.vcpu_deadline.get());
    // Where the processor chooses again anyway, its choice arms anew; a time that has passed would only interrupt again and again until then.
    if !cpu.reschedule.get()
        && let Some(current) = cpu.current.get()
    {
        if queue.has_equal(current.priority.get()) {
            next = next.min(queue.slice_end.get());
        }
        if let Some(context) = current.context.get()
            && context.budget.get() != 0
        {
            next = next.min(now.saturating_add(context.left()));
        }
    }
    // An interrupt that comes too early only looks and arms again; most re-arming is saved by it.
    if next < queue.armed.get() {
        queue.armed.set(next);
        timer::set_deadline(next.max(now + 1));
    }
}

/// Chooses the thread to run and makes it current. Idles in shared mode's absence while there is none.
pub fn schedule(cpu: &'static PerCpu) -> Ref<Thread> {
    let queue = &cpu.run_queue;
    loop {
        let now = timer::now();
        charge(cpu, now);
        cpu.reschedule.set(false);
        cpu.slow.set(cpu.slow.get() & !SLOW_RESCHEDULE);
        let previous = cpu.current.get();
        if let Some(thread) = previous
            && thread.state.get() == State::Ready
            && !thread.queued.get()
        {
            queue.insert(thread);
        }
        if let Some(next) = queue.pop() {
            if previous != Some(next) || now >= queue.slice_end.get() {
                queue.slice_end.set(now + SLICE.load(Ordering::Relaxed));
            }
            if previous != Some(next) {
                queue.switches.set(queue.switches.get() + 1);
                next.switches.set(next.switches.get() + 1);
                trace::record(cpu, Event::Switch, previous.map_or(0, Ref::address), next.address());
            }
            cpu.current.set(Some(next));
            switch_fpu(cpu, next);
            arm(cpu, now);
            return next;
        }
        cpu.current.set(None);
        if let Some(previous) = previous {
            trace::record(cpu, Event::Switch, previous.address(), 0);
        }
        arm(cpu, now);
        // An idle processor holds no user translations, so spaces can end without asking it.
        let root = memory::kernel_pml4_phys();
        if cpu.active_cr3.get() != root {
            cpu.active_cr3.set(root);
            arch_cpu::write_cr3(root);
        }
        lock::leave_shared(cpu);
        // A wake-up between these two lines arrives as an interrupt, which `idle` cannot miss: it enables interrupts and halts in one step.
        arch_cpu::idle();
        lock::enter_shared(cpu);
    }
}

/// What runs when the kernel is left: the current thread, or whom the scheduler chooses.
#[inline]
pub fn next_thread(cpu: &'static PerCpu) -> Ref<Thread> {
    match cpu.current.get() {
        Some(thread) if !cpu.reschedule.get() => thread,
        _ => schedule(cpu),
    }
}

/// Puts `next`'s extended state into the registers, the eager way: the registers never hold one thread's secrets while another can read them.
#[inline(always)]
pub fn switch_fpu(cpu: &PerCpu, next: Ref<Thread>) {
    if cpu.fpu_thread.get() == Some(next) {
        return;
    }
    match cpu.fpu_thread.get() {
        Some(previous) if !next.is_without_fpu() && !cpu.fpu_trapped.get() => {
            cpu.fpu_thread.set(Some(next));
            // SAFETY: both areas are 64-byte aligned images of 512 bytes inside live threads, and CR0.TS is clear.
            unsafe {
                core::arch::asm!("fxsave64 [{}]", "fxrstor64 [{}]", in(reg) previous.fpu.0.get(), in(reg) next.fpu.0.get(), options(nostack, preserves_flags));
            }
        }
        _ => switch_fpu_slow(cpu, next),
    }
}

/// As [`switch_fpu`], from the thread that runs: quick where both use the FPU.
#[inline(always)]
pub fn switch_fpu_between(cpu: &PerCpu, current: Ref<Thread>, next: Ref<Thread>) {
    // While a thread owns the registers, CR0.TS is clear.
    if cpu.fpu_thread.get() == Some(current) && !next.is_without_fpu() {
        cpu.fpu_thread.set(Some(next));
        // SAFETY: both areas are 64-byte aligned images of 512 bytes inside live threads.
        unsafe {
            core::arch::asm!("fxsave64 [{} + {area}]", "fxrstor64 [{} + {area}]", in(reg) current.as_ptr(), in(reg) next.as_ptr(),
                area = const core::mem::offset_of!(Thread, fpu), options(nostack, preserves_flags));
        }
    } else {
        switch_fpu_slow(cpu, next);
    }
}

#[cold]
#[inline(never)]
fn switch_fpu_slow(cpu: &PerCpu, next: Ref<Thread>) {
    if cpu.fpu_thread.get() == Some(next) {
        return;
    }
    if next.is_without_fpu() {
        // Its own vCPU's state may stay: the thread cannot look at it, and would be allowed to.
        let keeps = cpu.fpu_vcpu.get().is_some_and(|vcpu| vcpu.thread.get() == Some(next));
        if !keeps && (cpu.fpu_vcpu.get().is_some() || cpu.fpu_thread.get().is_some()) {
            save_fpu(cpu);
            fpu::load_clean();
        }
        if !cpu.fpu_trapped.replace(true) {
            fpu::set_ts();
        }
        return;
    }
    save_fpu(cpu);
    // SAFETY: the area holds the thread's state; what was in the registers is saved.
    unsafe { fpu::restore_thread(next.fpu.0.get().cast()) };
    cpu.fpu_thread.set(Some(next));
}

/// Saves whatever extended state is in the registers to whom it belongs, and leaves the registers usable.
pub fn save_fpu(cpu: &PerCpu) {
    if cpu.fpu_trapped.replace(false) {
        fpu::clear_ts();
    }
    if cpu.discard_vcpu.replace(false) {
        fpu::discard_vcpu();
    }
    if let Some(vcpu) = cpu.fpu_vcpu.take() {
        // SAFETY: its state is in the registers, and nobody else uses the area while it does not run.
        unsafe { fpu::save_vcpu(&mut *vcpu.area()) };
    }
    if let Some(thread) = cpu.fpu_thread.take() {
        // SAFETY: the area is the thread's own, and its state is in the registers.
        unsafe { fpu::save_thread(thread.fpu.0.get().cast()) };
    }
}

/// The timer fired.
pub fn on_timer(cpu: &'static PerCpu) {
    timer::fired();
    let now = timer::now();
    let queue = &cpu.run_queue;
    queue.armed.set(u64::MAX);
    if cpu.vcpu_deadline.get() <= now {
        // `VcpuRun` looks at the time when this interrupt has ended its guest's run.
        cpu.vcpu_deadline.set(u64::MAX);
    }
    while let Some(thread) = queue.timers.expired(now) {
        let state = thread.state.get();
        if !matches!(state, State::Throttled | State::Waiting) {
            let exclusive = Exclusive::enter(cpu);
            // Another processor may have ended the wait in between.
            if queue.timers.expired(now) == Some(thread) && crate::syscall::ipc::abort(&exclusive, thread, tessera_abi::Error::TimedOut) {
                wake(&exclusive, thread);
            }
            continue;
        }
        queue.timers.remove(thread);
        if state == State::Waiting {
            // Its own processor's timer against a signal from another: the waiter field decides, and only exclusive mode changes it from elsewhere.
            if let Some(notification) = thread.waits_for.take() {
                notification.set_waiter(None);
            }
            thread.set_status(tessera_abi::Error::TimedOut as u64);
        } else if let Some(context) = thread.context.get() {
            context.refill(now);
        }
        wake_local(cpu, thread);
    }
    if let Some(current) = cpu.current.get() {
        if now >= queue.slice_end.get() && queue.has_equal(current.priority.get()) {
            ask_reschedule(cpu);
        }
        charge(cpu, now);
    }
    arm(cpu, now);
}
