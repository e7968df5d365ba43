//! Exceptions and interrupts, as the entry code hands them over. NMI, double fault and machine check have entries of their own in
//! [`crate::arch::panic`]: they end the system or do nothing.

use tessera_abi::fault::FaultKind;
use tessera_abi::trace::Event;

use crate::arch::percpu::{self, PerCpu};
use crate::arch::{apic, ioapic, vector};
use crate::kref::Ref;
use crate::lock::{self, Exclusive};
use crate::object::irq::{IRQS, Irq, MSI};
use crate::object::notification::Notification;
use crate::object::thread::Thread;
use crate::sched::dispatch;
use crate::syscall::{fast, ipc};
use crate::trace;

const DEVICE_NOT_AVAILABLE: u64 = 7;
const PAGE_FAULT: u64 = 14;

/// An exception or interrupt came while a thread ran. Its registers are stored and shared mode is on. Returns whom to resume.
pub extern "C" fn from_user(number: u64, error: u64) -> Ref<Thread> {
    let cpu = percpu::this();
    if number >= 32 {
        interrupt(cpu, number as u8);
    } else if let Some(thread) = cpu.current.get() {
        exception(cpu, thread, number, error);
    }
    dispatch::next_thread(cpu)
}

fn exception(cpu: &'static PerCpu, thread: Ref<Thread>, number: u64, error: u64) {
    // Read before anything can fault again.
    let address = if number == PAGE_FAULT { x86_64::registers::control::Cr2::read_raw() } else { 0 };
    let kind = match number {
        PAGE_FAULT => FaultKind::Page,
        DEVICE_NOT_AVAILABLE => FaultKind::Fpu,
        _ => FaultKind::Exception,
    };
    let regs = &thread.regs;
    let words = [
        kind as u64 | number << 8 | error << 32,
        address,
        regs.rip.get(),
        regs.rsp.get(),
        regs.rflags.get(),
        u64::from(thread.priority.get()) | u64::from(thread.cpu.get()) << 8,
    ];
    trace::record(cpu, Event::Fault, thread.address(), number | address << 8);
    if fast::fault(cpu, thread, words) {
        return;
    }
    let exclusive = Exclusive::enter(cpu);
    if cpu.current.get() == Some(thread) {
        ipc::fault(&exclusive, thread, words);
    }
}

/// What the processor pushed when it interrupted the kernel.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// Error code, or 0.
    pub error: u64,
    /// Where.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack.
    pub rsp: u64,
}

/// An exception or interrupt came in the kernel: expected are interrupts of an idle processor and those let in after a guest's exit.
pub extern "C" fn from_kernel(number: u64, frame: &Frame) {
    if number < 32 {
        let address = if number == PAGE_FAULT { x86_64::registers::control::Cr2::read_raw() } else { 0 };
        panic!(
            "exception {number} ({}) in the kernel at {:#x}, error {:#x}, address {address:#x}, stack {:#x}",
            tessera_abi::fault::vector_name(number as u8),
            frame.rip,
            frame.error,
            frame.rsp
        );
    }
    in_kernel(number as u8);
}

/// Handles an interrupt that came outside of shared mode, or that a guest's exit has acknowledged.
pub fn in_kernel(number: u8) {
    let cpu = percpu::this();
    lock::enter_shared(cpu);
    interrupt(cpu, number);
    lock::leave_shared(cpu);
}

/// Handles an interrupt, in shared mode.
fn interrupt(cpu: &'static PerCpu, number: u8) {
    cpu.interrupts.set(cpu.interrupts.get() + 1);
    trace::record(cpu, Event::Interrupt, u64::from(number), cpu.current.get().map_or(0, Ref::address));
    match number {
        vector::SPURIOUS => {}
        vector::TIMER => {
            apic::eoi();
            dispatch::on_timer(cpu);
        }
        // Whoever sent it has set what this processor looks at on its way out.
        vector::RESCHEDULE | vector::SHOOTDOWN | vector::POSTED => apic::eoi(),
        vector::DEVICE_FIRST..=vector::DEVICE_LAST => device(cpu, number - vector::DEVICE_FIRST),
        _ => {}
    }
}

fn device(cpu: &'static PerCpu, index: u8) {
    let Some(irq) = IRQS.get(u64::from(index)) else { return };
    irq.count.set(irq.count.get() + 1);
    mask(irq);
    apic::eoi();
    let slot = &irq.notification;
    if !slot.is_empty() {
        // SAFETY: the capability names a live notification.
        let notification: Ref<Notification> = unsafe { Ref::new(slot.object() as *mut Notification) };
        ipc::signal_for(cpu, notification, slot.badge());
    }
}

/// Holds an interrupt back until it is acknowledged. One that a message signals comes all the same: only its device can hold it back.
pub fn mask(irq: &Irq) {
    irq.masked.set(true);
    if irq.line.get() != MSI {
        ioapic::mask(irq.line.get() as u32);
    }
}

/// Lets an interrupt through.
pub fn unmask(irq: &Irq) {
    irq.masked.set(false);
    if irq.line.get() != MSI {
        ioapic::unmask(irq.line.get() as u32);
    }
}
