//! The kernel lock: shared for what a processor does with its own threads, exclusive for what reaches across processors or changes structure.
//!
//! Every way into the kernel enters shared mode: one store to the processor's own flag and one look at the writer's. In shared mode a processor
//! touches only: capability tables (reading), threads that live on it, its run queue, its own receive queue of an endpoint, and atomics. That is all that the IPC path within
//! one processor and the exit path of a vCPU need, so neither takes a lock that another processor writes.
//!
//! Everything else (making, mapping, deleting, revoking; IPC between processors) runs in exclusive mode: the writer announces itself, waits until no processor is in
//! shared mode, and then owns the whole kernel. Code that finds in shared mode that it needs more gives up what it has not yet changed and starts again in exclusive mode.
//!
//! A processor in user or guest mode is not in the kernel, yet holds a thread's registers and translations. A writer that takes these away calls [`Exclusive::stop`]: it interrupts the
//! processor and waits for it to arrive at the kernel's door, where it answers before it waits. From then on the processor touches nothing until it has entered, and then looks at
//! everything afresh.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::arch::percpu::{self, PerCpu};
use crate::arch::{apic, cpu as arch_cpu, memory, vector};
use crate::object::vcpu::Vcpu;
use crate::sched::dispatch;
use crate::virt;

/// 1 while a writer waits or works. The entry code reads it by name.
#[unsafe(no_mangle)]
static KERNEL_WRITER: AtomicU32 = AtomicU32::new(0);

/// Answers another processor's [`Exclusive::stop`]: no translations of user or guest spaces stay in use.
#[inline]
pub fn answer(cpu: &PerCpu) {
    // Acquire and release: the requester's changes to page tables are seen before the flush, the flush is done before the answer.
    if cpu.stop_request.load(Ordering::Acquire) != 0 {
        let root = memory::kernel_pml4_phys();
        arch_cpu::write_cr3(root);
        cpu.active_cr3.set(root);
        cpu.shootdowns.set(cpu.shootdowns.get() + 1);
        virt::give_up(&cpu.virt);
        cpu.stop_request.store(0, Ordering::Release);
    }
}

/// Enters shared mode. The entry code does the same in assembly when no writer is there, and calls this when one is.
#[inline]
pub fn enter_shared(cpu: &PerCpu) {
    loop {
        // SeqCst: the flag must be visible before the writer's is read, as the writer's must before ours is.
        cpu.reading.store(1, Ordering::SeqCst);
        if KERNEL_WRITER.load(Ordering::SeqCst) == 0 {
            return;
        }
        cpu.reading.store(0, Ordering::Release);
        while KERNEL_WRITER.load(Ordering::Acquire) != 0 {
            answer(cpu);
            core::hint::spin_loop();
        }
    }
}

/// Called by the entry code when it met a writer; shared mode is entered on return.
#[unsafe(no_mangle)]
extern "C" fn kernel_enter_shared_slow() {
    let cpu = percpu::this();
    cpu.reading.store(0, Ordering::Release);
    enter_shared(cpu);
}

/// Leaves shared mode.
#[inline(always)]
pub fn leave_shared(cpu: &PerCpu) {
    // Release: what was done in shared mode is seen by the next writer.
    cpu.reading.store(0, Ordering::Release);
}

/// The whole kernel, owned. Dropping it goes back to shared mode with nobody in between.
pub struct Exclusive {
    cpu: &'static PerCpu,
}

impl Exclusive {
    /// Leaves shared mode and enters exclusive mode. What was learned in shared mode may have changed.
    #[must_use]
    pub fn enter(cpu: &'static PerCpu) -> Self {
        leave_shared(cpu);
        // SeqCst as in `enter_shared`.
        while KERNEL_WRITER.compare_exchange_weak(0, 1, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            answer(cpu);
            core::hint::spin_loop();
        }
        for other in percpu::all() {
            while other.reading.load(Ordering::SeqCst) != 0 {
                core::hint::spin_loop();
            }
        }
        Self { cpu }
    }

    /// The processor that owns the kernel.
    #[must_use]
    pub fn cpu(&self) -> &'static PerCpu {
        self.cpu
    }

    /// Brings `other` to the kernel's door: its thread's registers are saved, its guest has exited, and it uses no user or guest translations.
    pub fn stop(&self, other: &PerCpu) {
        if core::ptr::eq(other, self.cpu) {
            let root = memory::kernel_pml4_phys();
            arch_cpu::write_cr3(root);
            other.active_cr3.set(root);
            virt::give_up(&other.virt);
            return;
        }
        other.stop_request.store(1, Ordering::Release);
        apic::send_ipi(other.index.get(), vector::SHOOTDOWN);
        while other.stop_request.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
    }

    /// Makes the processor that ran `vcpu` let go of what the hardware keeps of it outside its memory.
    pub fn give_up(&self, vcpu: &Vcpu) {
        // SAFETY: the area belongs to this vCPU, and the kernel is owned.
        let vmcs = unsafe { (*vcpu.area()).vmcs() };
        if let (Some(vmcs), Some(home)) = (vmcs, vcpu.cpu.get().and_then(|cpu| percpu::get(cpu.into()))) {
            home.virt.ask_to_give_up(vmcs);
            self.stop(home);
        }
    }

    /// Makes `other` look at its run queue soon.
    pub fn reschedule(&self, other: &PerCpu) {
        dispatch::ask_reschedule(other);
        if !core::ptr::eq(other, self.cpu) {
            apic::send_ipi(other.index.get(), vector::RESCHEDULE);
        }
    }
}

/// Bit of [`PerCpu::slow`]: a reschedule is due.
pub const SLOW_RESCHEDULE: u32 = 1;
/// Bit of [`PerCpu::slow`]: events are traced.
pub const SLOW_TRACE: u32 = 2;

impl Drop for Exclusive {
    fn drop(&mut self) {
        // Shared mode is entered before the writer leaves, so nobody can come between.
        self.cpu.reading.store(1, Ordering::SeqCst);
        KERNEL_WRITER.store(0, Ordering::SeqCst);
    }
}
