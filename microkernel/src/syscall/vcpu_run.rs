//! `VcpuRun`: into the guest and back. Beside IPC this is the path that counts, so it takes no lock that another processor writes, and what is not needed
//! on every exit is out of line.

use core::hint::black_box;
use core::sync::atomic::Ordering;

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::syscall::{FLAG_DEADLINE, NOTIFIED};
use tessera_abi::trace::Event;
use tessera_abi::vcpu::ExitReason;

use crate::arch::percpu::PerCpu;
use crate::arch::timer;
use crate::kref::Ref;
use crate::lock::{self, SLOW_TRACE};
use crate::object::notification::Notification;
use crate::object::slot::Slot;
use crate::object::space::Space;
use crate::object::thread::Thread;
use crate::object::vcpu::Vcpu;
use crate::sched::dispatch;
use crate::syscall::{fast::own_slot, ipc};
use crate::trace;
use crate::virt::{self, Exit, Nested, fpu};

/// Status and `rdi`, in `rax` and `rdx`. A status of [`SWITCH`]: the thread's registers are stored, choose whom to resume.
#[repr(C)]
pub struct Outcome {
    status: u64,
    value: u64,
}

const SWITCH: Outcome = Outcome { status: u64::MAX, value: 0 };
/// The guest runs again; no outcome of a call.
const ON: Outcome = Outcome { status: u64::MAX - 1, value: 0 };

impl Outcome {
    const EXIT: Self = Self { status: 0, value: 0 };

    const fn notified(bits: u64) -> Self {
        Self { status: NOTIFIED, value: bits }
    }

    const fn error(error: Error) -> Self {
        Self { status: error as u64, value: 0 }
    }
}

/// The system call. Shared mode is on and on again on return. The thread's message words are in registers that this function preserves.
pub extern "C" fn vcpu_run(slot: u64, flags: u64, _second: u64, thread: Ref<Thread>, deadline: u64, cpu: &'static PerCpu) -> Outcome {
    let Some(cap) = own_slot(&thread, slot) else {
        return Outcome::error(Error::BadSlot);
    };
    if !cap.is(ObjectKind::Vcpu, Rights::WRITE) || flags >> 9 != 0 {
        return refuse(cap);
    }
    // SAFETY: the capability names a live vCPU.
    let vcpu: Ref<Vcpu> = unsafe { Ref::new(cap.object() as *mut Vcpu) };
    if cpu.fpu_vcpu.get() != Some(vcpu) || vcpu.thread.get() != Some(thread) {
        if let Err(error) = prepare(cpu, thread, vcpu) {
            return Outcome::error(error);
        }
    }
    let deadline = if flags & FLAG_DEADLINE != 0 { deadline } else { u64::MAX };
    cpu.vcpu_deadline.set(deadline);
    if deadline < cpu.run_queue.armed.get() {
        arm(cpu);
    }
    vcpu.runs.set(vcpu.runs.get() + 1);
    cpu.running_vcpu.set(Some(vcpu));
    // What to ask for again when others want the processor.
    let regs = &thread.regs;
    regs.rax.set(flags);
    regs.rdi.set(slot);
    regs.r8.set(deadline);
    let (mut cpu, mut thread, mut vcpu) = (cpu, thread, vcpu);
    loop {
        // SAFETY: a configured vCPU holds a capability to its live guest space.
        let space: Ref<Space> = unsafe { Ref::new(vcpu.space.object() as *mut Space) };
        let exit = match enter(cpu, thread, vcpu, space) {
            Ok(exit) => exit,
            Err(bits) => return settle(cpu, thread, Outcome::notified(bits)),
        };
        if let Exit::Guest(reason) = exit {
            lock::enter_shared(cpu);
            // One branch each, the likeliest first: as one condition it would be computed.
            if cpu.running_vcpu.get() == Some(vcpu) {
                // Neither tracing nor somebody to give way to.
                if cpu.slow.get() == 0 {
                    if space.doorbells_used.get() == 0 {
                        return finish(cpu, thread);
                    }
                    if !matches!(reason, ExitReason::Io | ExitReason::Memory) {
                        return finish(cpu, thread);
                    }
                }
            }
        }
        let outcome = after(cpu, thread, vcpu, space, exit);
        if outcome.status != ON.status {
            return outcome;
        }
        // The same again; but what the first round need not compute ahead for others, it does not.
        (cpu, thread, vcpu) = black_box((cpu, thread, vcpu));
    }
}

/// Sets the host's timer for a deadline that comes first, where it has to.
#[cold]
#[inline(never)]
fn arm(cpu: &PerCpu) {
    if !virt::keeps_deadlines() {
        dispatch::arm(cpu, timer::now());
    }
}

/// Into the guest and out of it, once. Shared mode is left; an error is the bits of the bound notification, found before, in shared mode still.
#[inline(always)]
fn enter(cpu: &'static PerCpu, thread: Ref<Thread>, vcpu: Ref<Vcpu>, space: Ref<Space>) -> Result<Exit, u64> {
    // Whoever signals sets the bits and then looks here; this looks at the bits afterwards, so one of the two sees the other.
    thread.in_guest.swap(vcpu.as_ptr(), Ordering::SeqCst);
    if let Some(notification) = thread.bound.get()
        && notification.is_set()
    {
        let bits = signalled(cpu, thread, vcpu, notification);
        if bits != 0 {
            return Err(bits);
        }
    }
    let nested = Nested { space, generation: space.generation.get() };
    if cpu.slow.get() & SLOW_TRACE != 0 {
        trace_entry(cpu, vcpu);
    }
    lock::leave_shared(cpu);
    // SAFETY: area and page belong to this vCPU, interrupts are off, this processor was enabled at boot, the vCPU's extended state is in the registers, and the
    // nested tables map only frames that the guest space's owner holds. Neither goes away before this processor has answered at the kernel's door.
    Ok(unsafe { virt::run(vcpu.area(), &cpu.virt, nested, &cpu.vcpu_deadline) })
}

/// The processor runs this thread's vCPU no longer.
#[inline(always)]
fn stop_running(cpu: &PerCpu, thread: Ref<Thread>) {
    cpu.running_vcpu.set(None);
    cpu.vcpu_deadline.set(u64::MAX);
    // The VMM looks afterwards for what was posted, and whoever posts looks here afterwards: one of the two sees the other.
    thread.in_guest.swap(core::ptr::null_mut(), Ordering::SeqCst);
}

/// Takes the signals. Those that are routed become the guest's interrupts; others end the run.
#[cold]
#[inline(never)]
fn signalled(cpu: &PerCpu, thread: Ref<Thread>, vcpu: Ref<Vcpu>, notification: Ref<Notification>) -> u64 {
    // SAFETY: the area belongs to this vCPU, which is not running.
    let bits = unsafe { virt::route(vcpu.area(), notification.take()) };
    if bits != 0 {
        leave(cpu, thread, vcpu, ExitReason::Notified);
    }
    bits
}

/// The exit is the VMM's.
#[inline(always)]
fn finish(cpu: &PerCpu, thread: Ref<Thread>) -> Outcome {
    stop_running(cpu, thread);
    if !thread.is_without_fpu() {
        dispatch::switch_fpu(cpu, thread);
    }
    Outcome::EXIT
}

/// What the short way leaves: host interrupts, doorbells, tracing, vCPUs that ended. [`ON`]: the guest runs again.
#[inline(never)]
fn after(cpu: &'static PerCpu, thread: Ref<Thread>, vcpu: Ref<Vcpu>, space: Ref<Space>, exit: Exit) -> Outcome {
    let Exit::Guest(reason) = exit else { return after_interrupt(cpu, thread, vcpu, exit == Exit::Spinning) };
    lock::enter_shared(cpu);
    if cpu.running_vcpu.get() != Some(vcpu) {
        return ended(cpu, thread);
    }
    if cpu.slow.get() & SLOW_TRACE != 0 {
        trace_exit(cpu, vcpu, reason);
    }
    if space.doorbells_used.get() == 0 || !ring(cpu, vcpu, space, reason) {
        return settle(cpu, thread, finish(cpu, thread));
    }
    // Signalling may have left shared mode for a moment, or made somebody more important ready.
    if cpu.running_vcpu.get() != Some(vcpu) {
        return ended(cpu, thread);
    }
    if cpu.reschedule.get() { preempt(cpu, thread) } else { ON }
}

/// Others want the processor: the thread asks again when its turn comes.
#[cold]
#[inline(never)]
fn preempt(cpu: &PerCpu, thread: Ref<Thread>) -> Outcome {
    stop_running(cpu, thread);
    let regs = &thread.regs;
    // `syscall` is two bytes long.
    regs.rip.set(regs.rip.get().wrapping_sub(2));
    SWITCH
}

/// The call is done; but if others want the processor meanwhile, its thread gets the result when its turn comes.
#[inline(never)]
fn settle(cpu: &PerCpu, thread: Ref<Thread>, outcome: Outcome) -> Outcome {
    if !cpu.reschedule.get() {
        return outcome;
    }
    thread.set_result(outcome.status, outcome.value, 0);
    SWITCH
}

/// The vCPU was taken away while it ran, perhaps with its thread.
#[cold]
fn ended(cpu: &PerCpu, thread: Ref<Thread>) -> Outcome {
    if cpu.current.get() != Some(thread) {
        return SWITCH;
    }
    thread.in_guest.store(core::ptr::null_mut(), Ordering::Release);
    cpu.vcpu_deadline.set(u64::MAX);
    dispatch::switch_fpu(cpu, thread);
    Outcome::error(Error::Deleted)
}

/// Out of line, so that the test before it keeps nothing for it.
#[cold]
#[inline(never)]
fn refuse(cap: &Slot) -> Outcome {
    Outcome::error(cap.require(ObjectKind::Vcpu, Rights::WRITE).err().unwrap_or(Error::UnknownOperation))
}

/// Ends a run without an exit of the guest's own.
#[inline(never)]
fn leave(cpu: &PerCpu, thread: Ref<Thread>, vcpu: Ref<Vcpu>, reason: ExitReason) -> Outcome {
    // SAFETY: the page belongs to the vCPU; user level may read it at any time.
    unsafe { (&raw mut (*vcpu.state()).reason).write_volatile(reason as u32) };
    finish(cpu, thread)
}

/// Ties the vCPU to its thread and processor and brings its extended state into the registers.
#[cold]
#[inline(never)]
fn prepare(cpu: &PerCpu, thread: Ref<Thread>, vcpu: Ref<Vcpu>) -> Result<(), Error> {
    if !vcpu.configured.get() {
        return Err(Error::BadState);
    }
    // One that differs from the first was told of at boot; there the instructions would fault.
    if !cpu.virt.is_enabled() {
        return Err(Error::Unsupported);
    }
    let here = cpu.index.get() as u8;
    // Its extended state may be in the registers of the processor it ran on first, so it stays there.
    if vcpu.cpu.get().is_some_and(|other| other != here) {
        return Err(Error::BadState);
    }
    vcpu.cpu.set(Some(here));
    vcpu.thread.set(Some(thread));
    if cpu.fpu_vcpu.get() != Some(vcpu) {
        dispatch::save_fpu(cpu);
        // SAFETY: the registers' state was saved just now; the area belongs to a live vCPU.
        unsafe { fpu::restore_vcpu(&*vcpu.area()) };
        cpu.fpu_vcpu.set(Some(vcpu));
    }
    if thread.is_without_fpu() {
        fpu::set_ts();
        cpu.fpu_trapped.set(true);
    }
    Ok(())
}

/// A host interrupt ended the guest's time, or the guest `spins`. Lets the interrupt in, and decides whether the guest goes on.
fn after_interrupt(cpu: &'static PerCpu, thread: Ref<Thread>, vcpu: Ref<Vcpu>, spins: bool) -> Outcome {
    crate::arch::cpu::interrupt_window();
    lock::enter_shared(cpu);
    if cpu.running_vcpu.get() != Some(vcpu) {
        return ended(cpu, thread);
    }
    vcpu.internal_exits.set(vcpu.internal_exits.get() + 1);
    // The processor's own deadline is gone when its timer has fired.
    let deadline = thread.regs.r8.get();
    if deadline != u64::MAX && timer::now() >= deadline {
        let outcome = leave(cpu, thread, vcpu, ExitReason::Deadline);
        return settle(cpu, thread, outcome);
    }
    if spins {
        dispatch::give_way(cpu, thread);
    }
    if cpu.reschedule.get() {
        return preempt(cpu, thread);
    }
    if cpu.fpu_vcpu.get() != Some(vcpu) && prepare(cpu, thread, vcpu).is_err() {
        return leave(cpu, thread, vcpu, ExitReason::Unknown);
    }
    ON
}

/// Rings the doorbell that the guest's write may be. Returns whether the guest goes on; a write to memory is left for the VMM to step over, which
/// knows how long the instruction is.
#[inline(never)]
fn ring(cpu: &'static PerCpu, vcpu: Ref<Vcpu>, space: Ref<Space>, reason: ExitReason) -> bool {
    // SAFETY: the area belongs to this vCPU, which is not running.
    let area = unsafe { &mut *vcpu.area() };
    let (doorbell, next) = match reason {
        ExitReason::Io => {
            let io = area.io_exit();
            if !io.is_plain_write() {
                return false;
            }
            (space.doorbell(0, u64::from(io.port()), io.width()), Some(io.next_rip))
        }
        ExitReason::Memory => {
            let (address, access) = area.memory_exit();
            if access & tessera_abi::vcpu::ACCESS_WRITE == 0 {
                return false;
            }
            (space.doorbell(1, address, 0), None)
        }
        _ => return false,
    };
    let Some(doorbell) = doorbell else { return false };
    // SAFETY: the capability names a live notification.
    let notification: Ref<Notification> = unsafe { Ref::new(doorbell.object() as *mut Notification) };
    let badge = doorbell.badge();
    vcpu.doorbells.set(vcpu.doorbells.get() + 1);
    if let Some(next) = next {
        // SAFETY: the page belongs to this vCPU.
        unsafe { (&raw mut (*vcpu.state()).rip).write_volatile(next) };
        vcpu.internal_exits.set(vcpu.internal_exits.get() + 1);
    }
    ipc::signal_for(cpu, notification, badge);
    next.is_some()
}

#[cold]
#[inline(never)]
fn trace_entry(cpu: &PerCpu, vcpu: Ref<Vcpu>) {
    // SAFETY: the page belongs to this vCPU.
    let rip = unsafe { (&raw const (*vcpu.state()).rip).read_volatile() };
    vcpu.guest_ticks.set(vcpu.guest_ticks.get().wrapping_sub(timer::now()));
    trace::record(cpu, Event::VmEntry, vcpu.address(), rip);
}

#[cold]
#[inline(never)]
fn trace_exit(cpu: &PerCpu, vcpu: Ref<Vcpu>, reason: ExitReason) {
    vcpu.guest_ticks.set(vcpu.guest_ticks.get().wrapping_add(timer::now()));
    trace::record(cpu, Event::VmExit, vcpu.address(), reason as u64);
}
