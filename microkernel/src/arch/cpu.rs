//! What the processor can do, its control registers, and a few instructions.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use core::sync::atomic::{AtomicU64, Ordering};

use tessera_abi::boot::Features;
use x86_64::VirtAddr;
use x86_64::registers::control::{Cr0, Cr4, Efer, EferFlags};
use x86_64::registers::model_specific::{LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

pub use super::descriptors::ArchCpu;

/// Selector of the kernel's code.
pub const KERNEL_CS: u16 = 0x08;
/// Selector of the kernel's stack.
pub const KERNEL_SS: u16 = 0x10;
/// Selector of the task state segment.
pub const TSS: u16 = 0x28;

/// Page attributes by index: write-back, write-combining, uncached (overridable), uncached, and the same again. Index 1 differs from what processors start with.
pub const PAT: u64 = 0x0007_0106_0007_0106;

const MSR_PAT: u32 = 0x277;
const MSR_STAR: u32 = 0xc000_0081;

static FEATURES: AtomicU64 = AtomicU64::new(0);

/// Features in use, as [`detect`] found them on the first processor.
pub fn features() -> Features {
    // Relaxed: written once, before other processors run.
    Features::from_bits_truncate(FEATURES.load(Ordering::Relaxed))
}

/// Looks at the processor.
///
/// # Errors
/// Name of a feature that the system cannot do without and this processor lacks.
pub fn detect() -> Result<Features, &'static str> {
    let features = tessera_boot::features::detect(leaf)?;
    add_features(features);
    Ok(features)
}

/// Adds features that are in use to those that [`features`] names.
pub fn add_features(features: Features) {
    FEATURES.fetch_or(features.bits(), Ordering::Relaxed);
}

/// A CPUID leaf as `[eax, ebx, ecx, edx]`; zero where the processor has none.
pub fn leaf(number: u32) -> [u32; 4] {
    if __cpuid(number & 0x8000_0000).eax < number {
        return [0; 4];
    }
    let CpuidResult { eax, ebx, ecx, edx } = __cpuid_count(number, 0);
    [eax, ebx, ecx, edx]
}

/// Bits of a physical address.
pub fn physical_bits() -> u32 {
    (leaf(0x8000_0008)[0] & 0xff).clamp(36, 52)
}

/// Sets this processor's control registers for the features in use. The caller's page tables must map what runs.
pub fn enable() {
    let (cr0, cr4) = tessera_boot::features::control_registers(features());
    // SAFETY: every bit is one that the processor has; paging and long mode stay as they are. CR3's low bits are 0, as setting PCIDE demands.
    unsafe {
        Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS));
        Cr0::write_raw(cr0);
        Cr4::write_raw(cr4);
        wrmsr(MSR_PAT, PAT);
    }
}

/// Lets this processor take system calls.
pub fn enable_syscall(entry: unsafe extern "C" fn()) {
    // `sysret` takes CS from the upper base plus 16 and SS from it plus 8, both with ring 3.
    let star = u64::from(KERNEL_CS) << 32 | u64::from(KERNEL_SS) << 48;
    let cleared = RFlags::TRAP_FLAG
        | RFlags::INTERRUPT_FLAG
        | RFlags::DIRECTION_FLAG
        | RFlags::IOPL_LOW
        | RFlags::IOPL_HIGH
        | RFlags::NESTED_TASK
        | RFlags::RESUME_FLAG
        | RFlags::ALIGNMENT_CHECK;
    // SAFETY: the selectors are those of the descriptor table, `entry` is the kernel's entry.
    unsafe {
        wrmsr(MSR_STAR, star);
        LStar::write(VirtAddr::from_ptr(entry as *const ()));
        SFMask::write(cleared);
    }
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor has it.
#[inline]
pub unsafe fn rdmsr(register: u32) -> u64 {
    // SAFETY: the caller vouches for it.
    unsafe { Msr::new(register).read() }
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor has it and the value keeps the kernel's promises.
#[inline]
pub unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: the caller vouches for it.
    unsafe { Msr::new(register).write(value) }
}

/// Loads a page-table root, with the translations of its identifier dropped.
#[inline(always)]
pub fn write_cr3(root: u64) {
    // SAFETY: every root has the kernel's upper half.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) }
}

/// Waits for an interrupt and takes it.
#[inline]
pub fn idle() {
    // SAFETY: interrupts are allowed exactly for the wait; `sti` takes effect after the next instruction, so none is missed.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Takes the interrupts that are pending, and no others.
#[inline]
pub fn interrupt_window() {
    // SAFETY: interrupts are taken before the `nop` ends, after the one instruction that `sti` holds them back for.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) }
}

/// Stops this processor for good.
pub fn halt_loop() -> ! {
    loop {
        // SAFETY: nothing runs here any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Restarts the machine by a fault that has no handler.
pub fn triple_fault() -> ! {
    let empty = [0u16; 5];
    // SAFETY: an empty interrupt table is what this is about.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) empty.as_ptr(), options(noreturn)) }
}
