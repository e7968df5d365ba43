//! The virtual machine control structure: its fields (Intel SDM volume 3, appendix B), exit reasons (appendix C), and the instructions that reach it.

use crate::virt::constants;

/// Field encodings, by the manual's names. ES, CS, SS, DS, FS, GS, LDTR and TR follow each other in steps of two behind `GUEST_SELECTOR`, `_LIMIT`, `_ATTRIBUTES` and `_BASE`.
pub mod field {
    super::constants! { u64:
        VPID = 0x0000; POSTED_VECTOR = 0x0002; GUEST_SELECTOR = 0x0800; INTERRUPT_STATUS = 0x0810; HOST_CS = 0x0c02; HOST_SS = 0x0c04; HOST_TR = 0x0c0c;
        IO_BITMAP_A = 0x2000; IO_BITMAP_B = 0x2002; MSR_BITMAP = 0x2004; EXIT_MSR_STORE = 0x2006; EXIT_MSR_LOAD = 0x2008; ENTRY_MSR_LOAD = 0x200a;
        TSC_OFFSET = 0x2010; VIRTUAL_APIC = 0x2012; POSTED_DESCRIPTOR = 0x2016; EPT_POINTER = 0x201a; EOI_EXITS = 0x201c; GUEST_PHYSICAL = 0x2400;
        LINK_POINTER = 0x2800; GUEST_PAT = 0x2804; GUEST_EFER = 0x2806; GUEST_PDPTE = 0x280a; HOST_PAT = 0x2c00; HOST_EFER = 0x2c02; PIN = 0x4000; PRIMARY = 0x4002;
        EXCEPTIONS = 0x4004; EXIT = 0x400c; EXIT_MSR_STORE_COUNT = 0x400e; EXIT_MSR_LOAD_COUNT = 0x4010; ENTRY = 0x4012; ENTRY_MSR_LOAD_COUNT = 0x4014;
        ENTRY_EVENT = 0x4016; ENTRY_ERROR = 0x4018; ENTRY_LENGTH = 0x401a; TPR_THRESHOLD = 0x401c; SECONDARY = 0x401e; PAUSE_GAP = 0x4020; PAUSE_WINDOW = 0x4022;
        INSTRUCTION_ERROR = 0x4400; REASON = 0x4402; EXIT_EVENT = 0x4404; EXIT_ERROR = 0x4406; VECTORING = 0x4408; VECTORING_ERROR = 0x440a; EXIT_LENGTH = 0x440c;
        GUEST_LIMIT = 0x4800; GUEST_GDTR_LIMIT = 0x4810; GUEST_IDTR_LIMIT = 0x4812; GUEST_ATTRIBUTES = 0x4814; INTERRUPTIBILITY = 0x4824; GUEST_SYSENTER_CS = 0x482a;
        TIMER = 0x482e; CR0_MASK = 0x6000; CR4_MASK = 0x6002; CR0_SHADOW = 0x6004; CR4_SHADOW = 0x6006; QUALIFICATION = 0x6400; GUEST_LINEAR = 0x640a;
        GUEST_CR0 = 0x6800; GUEST_CR3 = 0x6802; GUEST_CR4 = 0x6804; GUEST_BASE = 0x6806; GUEST_GDTR_BASE = 0x6816; GUEST_IDTR_BASE = 0x6818; GUEST_DR7 = 0x681a;
        GUEST_RSP = 0x681c; GUEST_RIP = 0x681e; GUEST_RFLAGS = 0x6820; PENDING_DEBUG = 0x6822; GUEST_SYSENTER_ESP = 0x6824; GUEST_SYSENTER_EIP = 0x6826;
        HOST_CR0 = 0x6c00; HOST_CR3 = 0x6c02; HOST_CR4 = 0x6c04; HOST_GS_BASE = 0x6c08; HOST_TR_BASE = 0x6c0a; HOST_GDTR_BASE = 0x6c0c; HOST_IDTR_BASE = 0x6c0e;
        HOST_RSP = 0x6c14; HOST_RIP = 0x6c16;
    }
}

/// Basic exit reasons, and the bit that says that the entry failed.
pub mod reason {
    super::constants! { u32:
        EXCEPTION_OR_NMI = 0; EXTERNAL_INTERRUPT = 1; TRIPLE_FAULT = 2; INIT = 3; OTHER_SMI = 6; INTERRUPT_WINDOW = 7; NMI_WINDOW = 8; TASK_SWITCH = 9; CPUID = 10;
        GETSEC = 11; HLT = 12; INVD = 13; RDPMC = 15; VMCALL = 18; VMCLEAR = 19; VMXON = 27; CONTROL_REGISTER = 28; MOV_DR = 29; IO = 30; RDMSR = 31; WRMSR = 32;
        MWAIT = 36; MONITOR = 39; PAUSE = 40; BELOW_THRESHOLD = 43; VIRTUAL_EOI = 45; EPT_VIOLATION = 48; INVEPT = 50; TIMER = 52; INVVPID = 53; WBINVD = 54;
        XSETBV = 55; ENTRY_FAILED = 1 << 31;
    }
}

#[cfg(target_os = "none")]
pub use machine::{clear, host_cr0, host_cr3, invalidate_ept, invalidate_vpids, load, on, read, read_to, write, write_from};

/// The instructions. Reading a field that the processor lacks gives any value, writing it does nothing: fields of features that are not used are written at most.
#[cfg(target_os = "none")]
mod machine {
    use core::arch::asm;
    use tessera_abi::vcpu::VcpuState;

    /// Reads a field of the current VMCS.
    #[inline(always)]
    pub fn read(field: u64) -> u64 {
        let value;
        // SAFETY: reading has no effect; VMX operation is on where this module is used.
        unsafe { asm!("vmread {0}, {1}", out(reg) value, in(reg) field, options(nostack)) };
        value
    }

    /// Writes a field of the current VMCS.
    #[inline(always)]
    pub fn write(field: u64, value: u64) {
        // SAFETY: what the VMCS holds takes effect at an entry, whose caller vouches for it.
        unsafe { asm!("vmwrite {0}, {1}", in(reg) field, in(reg) value, options(nostack)) };
    }

    /// Reads a field of the current VMCS into memory, `OFFSET` bytes behind `base`.
    ///
    /// # Safety
    /// The place is writable.
    #[inline(always)]
    pub unsafe fn read_to<const OFFSET: usize>(field: u64, base: *mut VcpuState) {
        // SAFETY: the caller's promise.
        unsafe { asm!("vmread [{0} + {2}], {1}", in(reg) base, in(reg) field, const OFFSET, options(nostack)) };
    }

    /// Writes a field of the current VMCS from memory, `OFFSET` bytes behind `base`.
    ///
    /// # Safety
    /// The place is readable.
    #[inline(always)]
    pub unsafe fn write_from<const OFFSET: usize>(field: u64, base: *const VcpuState) {
        // SAFETY: the caller's promise.
        unsafe { asm!("vmwrite {0}, [{1} + {2}]", in(reg) field, in(reg) base, const OFFSET, options(nostack)) };
    }

    /// CR0 as it is in the host.
    #[inline(always)]
    pub fn host_cr0() -> u64 {
        let value;
        // SAFETY: reading has no effect.
        unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    /// CR3, likewise.
    #[inline(always)]
    pub fn host_cr3() -> u64 {
        let value;
        // SAFETY: reading has no effect.
        unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    /// Runs an instruction that names a physical address in memory; true if it succeeded.
    macro_rules! with_address {
        ($name:ident, $instruction:literal, $about:literal) => {
            #[doc = $about]
            ///
            /// # Safety
            /// `physical` is that of a page for this purpose, and VMX can be used.
            pub unsafe fn $name(physical: u64) -> bool {
                let failed: u8;
                // SAFETY: the caller's promise.
                unsafe { asm!(concat!($instruction, " [{}]"), "setbe {}", in(reg) &raw const physical, out(reg_byte) failed, options(nostack)) };
                failed == 0
            }
        };
    }
    with_address!(on, "vmxon", "Enters VMX operation.");
    with_address!(clear, "vmclear", "Writes a VMCS back to memory, where it is neither current nor launched.");
    with_address!(load, "vmptrld", "Makes a VMCS the current one.");

    /// Drops what is cached of all nested page tables whose root is `pointer`'s, or of all.
    pub fn invalidate_ept(pointer: u64) {
        let descriptor = [pointer, 0];
        // Type 1: one context, which all processors of interest have; 2, all, is needed by `Capabilities::controls` for those that do not.
        // SAFETY: dropping translations changes nothing else.
        unsafe {
            asm!("invept {0}, [{2}]", "ja 2f", "invept {1}, [{2}]", "2:", in(reg) 1_u64, in(reg) 2_u64, in(reg) &raw const descriptor,
                options(nostack));
        }
    }

    /// Drops all translations of guests (INVVPID of all contexts).
    pub fn invalidate_vpids() {
        let descriptor = [0_u64; 2];
        // SAFETY: as above.
        unsafe { asm!("invvpid {}, [{}]", in(reg) 2_u64, in(reg) &raw const descriptor, options(nostack)) };
    }
}
