//! What the processor can do, its control registers, and a few instructions.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use core::sync::atomic::{AtomicU64, Ordering};

use tessera_abi::boot::Features;
use x86_64::registers::model_specific::Msr;

pub use super::descriptors::ArchCpu;

/// Selector of the kernel's code.
pub const KERNEL_CS: u16 = 0x08;
/// Selector of the kernel's stack.
pub const KERNEL_SS: u16 = 0x10;
/// Selector of user stacks.
pub const USER_SS: u16 = 0x1b;
/// Selector of user code.
pub const USER_CS: u16 = 0x23;
/// Selector of the task state segment.
pub const TSS: u16 = 0x28;

/// Page attributes by index: write-back, write-combining, uncached (overridable), uncached, and the same again. Index 1 differs from what processors start with.
pub const PAT: u64 = 0x0007_0106_0007_0106;

const MSR_PAT: u32 = 0x277;
const MSR_EFER: u32 = 0xc000_0080;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_SFMASK: u32 = 0xc000_0084;

const EFER_SCE: u64 = 1 << 0;
const EFER_NXE: u64 = 1 << 11;

const CR0_PE: u64 = 1 << 0;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;

const CR4_PAE: u64 = 1 << 5;
const CR4_MCE: u64 = 1 << 6;
const CR4_PGE: u64 = 1 << 7;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// Flags that `syscall` clears: TF, IF, DF, IOPL, NT, RF, AC.
const SFMASK: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 3 << 12 | 1 << 14 | 1 << 16 | 1 << 18;

static FEATURES: AtomicU64 = AtomicU64::new(0);

/// Features in use, as [`detect`] found them on the first processor.
#[must_use]
pub fn features() -> Features {
    // Relaxed: written once, before other processors run.
    Features::from_bits_truncate(FEATURES.load(Ordering::Relaxed))
}

/// Looks at the processor.
///
/// # Errors
/// Name of a feature that the system cannot do without and this processor lacks.
pub fn detect() -> Result<Features, &'static str> {
    let absent = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    let leaf = |leaf: u32| {
        if __cpuid(leaf & 0x8000_0000).eax >= leaf { __cpuid_count(leaf, 0) } else { absent }
    };
    let (basic, extended, high, power) = (leaf(1), leaf(7), leaf(0x8000_0001), leaf(0x8000_0007));
    for (there, name) in [
        (basic.edx >> 9 & 1, "apic"),
        (basic.edx >> 13 & 1, "pge"),
        (basic.edx >> 16 & 1, "pat"),
        (basic.edx >> 24 & 1, "fxsr"),
        (basic.edx >> 4 & 1, "tsc"),
        (extended.ebx & 1, "fsgsbase"),
        (high.edx >> 20 & 1, "nx"),
        (high.edx >> 11 & 1, "syscall"),
    ] {
        if there == 0 {
            return Err(name);
        }
    }
    let mut features = Features::empty();
    for (there, feature) in [
        (basic.ecx >> 21, Features::X2APIC),
        (basic.ecx >> 24, Features::TSC_DEADLINE),
        (basic.ecx >> 26, Features::XSAVE),
        (basic.ecx >> 17, Features::PCID),
        (extended.ebx >> 7, Features::SMEP),
        (extended.ebx >> 20, Features::SMAP),
        (extended.ecx >> 2, Features::UMIP),
        (power.edx >> 8, Features::INVARIANT_TSC),
        (high.edx >> 26, Features::PAGE_1G),
    ] {
        features.set(feature, there & 1 != 0);
    }
    FEATURES.store(features.bits(), Ordering::Relaxed);
    Ok(features)
}

/// Bits of a physical address.
#[must_use]
pub fn physical_bits() -> u32 {
    if __cpuid(0x8000_0000).eax >= 0x8000_0008 { (__cpuid(0x8000_0008).eax & 0xff).clamp(36, 52) } else { 36 }
}

/// Sets this processor's control registers for the features in use. The caller's page tables must map what runs.
pub fn enable() {
    let features = features();
    let mut cr4 = CR4_PAE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE;
    for (feature, bit) in [
        (Features::UMIP, CR4_UMIP),
        (Features::PCID, CR4_PCIDE),
        (Features::XSAVE, CR4_OSXSAVE),
        (Features::SMEP, CR4_SMEP),
        (Features::SMAP, CR4_SMAP),
    ] {
        if features.contains(feature) {
            cr4 |= bit;
        }
    }
    // SAFETY: every bit is one that the processor has; paging and long mode stay as they are. CR3's low bits are 0, as setting PCIDE demands.
    unsafe {
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE | EFER_SCE);
        asm!("mov cr0, {}", in(reg) CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG, options(nostack, preserves_flags));
        asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
        wrmsr(MSR_PAT, PAT);
    }
}

/// Lets this processor take system calls.
pub fn enable_syscall(entry: unsafe extern "C" fn()) {
    // `sysret` takes CS from the upper base plus 16 and SS from it plus 8, both with ring 3.
    let star = u64::from(KERNEL_CS) << 32 | u64::from(KERNEL_SS) << 48;
    // SAFETY: the selectors are those of the descriptor table, `entry` is the kernel's entry.
    unsafe {
        wrmsr(MSR_STAR, star);
        wrmsr(MSR_LSTAR, entry as usize as u64);
        wrmsr(MSR_SFMASK, SFMASK);
    }
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor has it.
#[inline]
#[must_use]
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

/// Address of the last page fault.
#[inline]
#[must_use]
pub fn read_cr2() -> u64 {
    let address: u64;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) }
    address
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
