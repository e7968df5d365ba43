//! The processor's own interrupt controller, as xAPIC (registers in memory) or x2APIC (registers as MSRs).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tessera_abi::boot::Features;

use super::{cpu, memory, percpu, vector};
use crate::klog;

const MSR_APIC_BASE: u32 = 0x1b;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;

/// Registers, by their offset in memory (Intel SDM volume 3, table 11-1); the MSR is 0x800 + offset / 16.
mod register {
    crate::virt::constants! { u32:
        ID = 0x20; VERSION = 0x30; TASK_PRIORITY = 0x80; EOI = 0xb0; SPURIOUS = 0xf0; IN_SERVICE = 0x100; ERROR_STATUS = 0x280;
        LVT_CMCI = 0x2f0; COMMAND = 0x300; COMMAND_HIGH = 0x310; LVT_TIMER = 0x320; LVT_THERMAL = 0x330; LVT_PERFORMANCE = 0x340;
        LVT_LINT0 = 0x350; LVT_LINT1 = 0x360; LVT_ERROR = 0x370; INITIAL_COUNT = 0x380; CURRENT_COUNT = 0x390; DIVIDE = 0x3e0;
    }
}

const LVT_MASKED: u32 = 1 << 16;
const LVT_PERIODIC: u32 = 1 << 17;
const LVT_TSC_DEADLINE: u32 = 2 << 17;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const DELIVERY_PENDING: u32 = 1 << 12;
const LEVEL_ASSERT: u32 = 1 << 14;
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_INIT: u32 = 5 << 8;
const DELIVER_STARTUP: u32 = 6 << 8;
const ALL_BUT_SELF: u32 = 3 << 18;
/// Looks at a command that does not go out before it is given up.
const PATIENCE: u32 = 1_000_000;

static READY: AtomicBool = AtomicBool::new(false);
static X2APIC: AtomicBool = AtomicBool::new(false);
static REGISTERS: AtomicU64 = AtomicU64::new(0);

// Relaxed throughout: mode, address and identities are written at boot before the processors that read them run.

fn x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

#[inline(never)]
fn read(register: u32) -> u32 {
    if x2apic() {
        // SAFETY: x2APIC mode is on, and `register` is one of the module's.
        unsafe { cpu::rdmsr(0x800 + register / 16) as u32 }
    } else {
        // SAFETY: the address is the local APIC's in the direct map, uncached.
        unsafe { memory::phys_to_virt(REGISTERS.load(Ordering::Relaxed) + u64::from(register)).cast::<u32>().read_volatile() }
    }
}

#[inline(never)]
fn write(register: u32, value: u32) {
    write_here(register, value);
}

/// [`write`] for the few places that are run all the time.
#[inline(always)]
fn write_here(register: u32, value: u32) {
    if x2apic() {
        // SAFETY: as in `read`.
        unsafe { cpu::wrmsr(0x800 + register / 16, value.into()) }
    } else {
        // SAFETY: as in `read`.
        unsafe { memory::phys_to_virt(REGISTERS.load(Ordering::Relaxed) + u64::from(register)).cast::<u32>().write_volatile(value) }
    }
}

/// Chooses the mode, from the first processor's features and its state, and enables that processor's APIC. `address` is where the firmware says the registers are.
pub(super) fn init_boot(address: u64) {
    // SAFETY: every processor with an APIC of this kind has the register.
    let base = unsafe { cpu::rdmsr(MSR_APIC_BASE) };
    // Leaving x2APIC mode is not possible without a reset, so a firmware that turned it on has decided.
    X2APIC.store(cpu::features().contains(Features::X2APIC) || base & BASE_X2APIC != 0, Ordering::Relaxed);
    REGISTERS.store(address, Ordering::Relaxed);
    init_cpu();
    READY.store(true, Ordering::Release);
    klog!("apic: {}, identity {}", if x2apic() { "x2APIC" } else { "xAPIC" }, id());
}

/// Enables the running processor's APIC with everything masked, and enters its identity.
pub(super) fn init_cpu() {
    // SAFETY: the register exists; the address stays what the firmware chose.
    unsafe {
        let base = cpu::rdmsr(MSR_APIC_BASE);
        cpu::wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
        if x2apic() {
            cpu::wrmsr(MSR_APIC_BASE, base | BASE_ENABLE | BASE_X2APIC);
        }
    }
    let last_entry = read(register::VERSION) >> 16 & 0xff;
    for entry in [register::LVT_TIMER, register::LVT_LINT0, register::LVT_LINT1, register::LVT_ERROR] {
        write(entry, LVT_MASKED | u32::from(vector::SPURIOUS));
    }
    for (number, entry) in [(4, register::LVT_PERFORMANCE), (5, register::LVT_THERMAL), (6, register::LVT_CMCI)] {
        if last_entry >= number {
            write(entry, LVT_MASKED | u32::from(vector::SPURIOUS));
        }
    }
    write(register::TASK_PRIORITY, 0);
    write(register::SPURIOUS, SOFTWARE_ENABLE | u32::from(vector::SPURIOUS));
    write(register::ERROR_STATUS, 0);
    // What the firmware had taken and not ended.
    for _ in 0..256 {
        if (0..8).all(|word| read(register::IN_SERVICE + word * 16) == 0) {
            break;
        }
        eoi();
    }
    percpu::this().arch.apic_id.store(id(), Ordering::Relaxed);
}

/// Identity of the running processor.
#[inline(never)]
pub fn id() -> u32 {
    let value = read(register::ID);
    if x2apic() { value } else { value >> 24 }
}

/// Identity of processor `index`, if it runs.
pub fn id_of(index: usize) -> Option<u32> {
    percpu::get(index).map(|cpu| cpu.arch.apic_id.load(Ordering::Relaxed)).filter(|&id| id != u32::MAX)
}

/// Number of the running processor, by its identity; 0 while there is only the first. For panics, which trust no other register.
pub fn cpu_index() -> usize {
    if !READY.load(Ordering::Acquire) {
        return 0;
    }
    let id = id();
    percpu::all().position(|cpu| cpu.arch.apic_id.load(Ordering::Relaxed) == id).unwrap_or(0)
}

/// Ends the interrupt that is being handled.
pub fn eoi() {
    write_here(register::EOI, 0);
}

fn command(target: u32, command: u32) {
    if x2apic() {
        // The MSR write does not wait for earlier stores as a write to memory does; the other processor must see them.
        // SAFETY: x2APIC mode is on; fences have no effect on memory safety.
        unsafe {
            core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
            cpu::wrmsr(0x800 + register::COMMAND / 16, u64::from(target) << 32 | u64::from(command));
        }
        return;
    }
    wait_for_delivery();
    write_here(register::COMMAND_HIGH, target << 24);
    write_here(register::COMMAND, command);
}

#[inline(never)]
fn wait_for_delivery() {
    for _ in 0..PATIENCE {
        if read(register::COMMAND) & DELIVERY_PENDING == 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Interrupts processor `cpu_index` with `vector`. Nothing happens if it does not run.
pub fn send_ipi(cpu_index: usize, vector: u8) {
    if let Some(target) = id_of(cpu_index) {
        command(target, LEVEL_ASSERT | u32::from(vector));
    }
}

/// Address and data with which a device sends `vector` to processor `cpu_index` (Intel SDM volume 3, 11.11): fixed delivery, edge-triggered. A processor whose identity does
/// not fit into 8 bits cannot be reached this way; the first one is taken then.
pub fn message(cpu_index: usize, vector: u8) -> (u64, u32) {
    let target = id_of(cpu_index).filter(|&id| id < 0xff).or(id_of(0)).unwrap_or(0);
    (0xfee0_0000 | u64::from(target & 0xff) << 12, vector.into())
}

/// Stops all other processors for a panic, by NMI.
pub(super) fn stop_others() {
    // A processor that is being started is not yet among them and has no NMI handler; it stays in its start.
    if READY.load(Ordering::Acquire) && percpu::count() > 1 {
        command(0, LEVEL_ASSERT | DELIVER_NMI | ALL_BUT_SELF);
    }
}

/// Resets the processor with this identity; it waits for [`send_startup`].
pub(super) fn send_init(target: u32) {
    command(target, LEVEL_ASSERT | DELIVER_INIT);
}

/// Starts a processor that was reset, in real mode at a page below 1 MiB.
pub(super) fn send_startup(target: u32, page: u64) {
    command(target, LEVEL_ASSERT | DELIVER_STARTUP | (page >> 12 & 0xff) as u32);
}

/// Lets the timer of this processor fire at an absolute TSC value (MSR 0x6e0).
pub(super) fn timer_use_deadline() {
    write(register::LVT_TIMER, LVT_TSC_DEADLINE | u32::from(vector::TIMER));
    // The mode must be in effect before the first deadline is written.
    // SAFETY: fences have no effect on memory safety.
    unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) }
}

/// Lets the timer of this processor count down again and again, at the speed of its bus clock.
pub(super) fn timer_use_countdown() {
    write(register::DIVIDE, 0b1011);
    write(register::LVT_TIMER, LVT_PERIODIC | u32::from(vector::TIMER));
}

/// Starts the countdown; 0 stops it.
pub(super) fn timer_count(count: u32) {
    write_here(register::INITIAL_COUNT, count);
}

/// Where the countdown stands.
pub(super) fn timer_current() -> u32 {
    read(register::CURRENT_COUNT)
}
