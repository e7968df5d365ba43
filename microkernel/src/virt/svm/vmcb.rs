//! The virtual machine control block (AMD APM volume 2, appendix B).

use crate::virt::constants;
use core::mem::offset_of;

/// Control area: what the hypervisor asks for and what it is told.
#[repr(C)]
pub struct Control {
    /// CR0 to CR15: reads in bits 0 to 15, writes in 16 to 31.
    pub intercept_cr: u32,
    /// DR0 to DR15, likewise.
    pub intercept_dr: u32,
    /// Exception vectors.
    pub intercept_exceptions: u32,
    /// [`intercept`] word 1.
    pub intercept_1: u32,
    /// [`intercept`] word 2.
    pub intercept_2: u32,
    /// INVLPGB and the like.
    pub intercept_3: u32,
    reserved_18: [u8; 0x3c - 0x18],
    /// PAUSE filter threshold, in cycles.
    pub pause_threshold: u16,
    /// PAUSE filter count.
    pub pause_count: u16,
    /// Physical address of the I/O permission map.
    pub iopm: u64,
    /// Physical address of the MSR permission map.
    pub msrpm: u64,
    /// Added to the TSC.
    pub tsc_offset: u64,
    /// Address-space identifier, never 0.
    pub asid: u32,
    /// [`tlb`].
    pub tlb_control: u32,
    /// [`virtual_interrupt`] bits; bits 0 to 7 are the guest's TPR.
    pub virtual_interrupt: u32,
    /// Vector of the virtual interrupt.
    pub virtual_vector: u32,
    /// Bit 0: interrupt shadow.
    pub interrupt_state: u64,
    /// [`code`].
    pub exit_code: u64,
    /// Depends on the exit.
    pub exit_info_1: u64,
    /// Depends on the exit.
    pub exit_info_2: u64,
    /// Event whose delivery the exit interrupted.
    pub exit_event: u64,
    /// Bit 0: nested paging.
    pub nested_control: u64,
    reserved_98: [u8; 0xa8 - 0x98],
    /// Event to inject.
    pub inject: u64,
    /// Physical address of the nested page tables.
    pub nested_cr3: u64,
    reserved_b8: [u8; 0xc0 - 0xb8],
    /// [`clean`] bits.
    pub clean: u32,
    reserved_c4: u32,
    /// Next instruction, if the processor reports it, else 0.
    pub next_rip: u64,
    /// Number of valid bytes in `instruction`.
    pub instruction_count: u8,
    /// Fetched bytes of the instruction (decode assists).
    pub instruction: [u8; 15],
    reserved_e0: [u8; 0x400 - 0xe0],
}

/// A segment register, as the VMCB has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SegmentRegister {
    /// Selector.
    pub selector: u16,
    /// Descriptor bits 40 to 47 and 52 to 55.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

/// Save area: the guest's registers.
#[repr(C)]
pub struct Save {
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [SegmentRegister; 6],
    /// GDTR.
    pub gdtr: SegmentRegister,
    /// LDTR.
    pub ldtr: SegmentRegister,
    /// IDTR.
    pub idtr: SegmentRegister,
    /// TR.
    pub tr: SegmentRegister,
    reserved_a0: [u8; 0xcb - 0xa0],
    /// Current privilege level.
    pub cpl: u8,
    reserved_cc: u32,
    /// EFER.
    pub efer: u64,
    reserved_d8: [u8; 0x148 - 0xd8],
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    reserved_180: [u8; 0x1d8 - 0x180],
    /// RSP.
    pub rsp: u64,
    reserved_1e0: [u8; 0x1f8 - 0x1e0],
    /// RAX.
    pub rax: u64,
    /// STAR.
    pub star: u64,
    /// LSTAR.
    pub lstar: u64,
    /// CSTAR.
    pub cstar: u64,
    /// SFMASK.
    pub sfmask: u64,
    /// KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// SYSENTER_CS.
    pub sysenter_cs: u64,
    /// SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// CR2.
    pub cr2: u64,
    reserved_248: [u8; 0x268 - 0x248],
    /// PAT, with nested paging.
    pub pat: u64,
    reserved_270: [u8; 0xc00 - 0x270],
}

impl Save {
    /// No register set.
    // SAFETY: the structure consists of numbers, for which zeros are a value.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

/// The block: one page.
#[repr(C, align(4096))]
pub struct Vmcb {
    /// Controls.
    pub control: Control,
    /// Registers.
    pub save: Save,
}

const _: () = {
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Control, pause_threshold) == 0x3c);
    assert!(offset_of!(Control, iopm) == 0x40);
    assert!(offset_of!(Control, asid) == 0x58);
    assert!(offset_of!(Control, interrupt_state) == 0x68);
    assert!(offset_of!(Control, exit_code) == 0x70);
    assert!(offset_of!(Control, nested_control) == 0x90);
    assert!(offset_of!(Control, inject) == 0xa8);
    assert!(offset_of!(Control, clean) == 0xc0);
    assert!(offset_of!(Control, next_rip) == 0xc8);
    assert!(offset_of!(Control, instruction) == 0xd1);
    assert!(offset_of!(Save, tr) == 0x90);
    assert!(offset_of!(Save, cpl) == 0xcb);
    assert!(offset_of!(Save, efer) == 0xd0);
    assert!(offset_of!(Save, cr4) == 0x148);
    assert!(offset_of!(Save, rip) == 0x178);
    assert!(offset_of!(Save, rsp) == 0x1d8);
    assert!(offset_of!(Save, rax) == 0x1f8);
    assert!(offset_of!(Save, cr2) == 0x240);
    assert!(offset_of!(Save, pat) == 0x268);
};

/// Bits of the intercept words, by the manual's names: VINTR exits when the virtual interrupt is about to be taken, PAUSE after the filter, IO and MSR where the maps
/// say so, FERR_FREEZE where a legacy floating-point error would freeze the processor, SHUTDOWN at a triple fault. VMRUN refuses to work without its own.
pub mod intercept {
    super::constants! { u32:
        INTR = 1; NMI = 1 << 1; INIT = 1 << 3; VINTR = 1 << 4; RDPMC = 1 << 15; CPUID = 1 << 18; IRET = 1 << 20; INVD = 1 << 22; PAUSE = 1 << 23;
        HLT = 1 << 24; INVLPGA = 1 << 26; IO = 1 << 27; MSR = 1 << 28; TASK_SWITCH = 1 << 29; FERR_FREEZE = 1 << 30; SHUTDOWN = 1 << 31;
        // Word 2.
        VMRUN = 1; VMMCALL = 1 << 1; VMLOAD = 1 << 2; VMSAVE = 1 << 3; STGI = 1 << 4; CLGI = 1 << 5; SKINIT = 1 << 6; WBINVD = 1 << 9;
        MONITOR = 1 << 10; MWAIT = 1 << 11; XSETBV = 1 << 13; RDPRU = 1 << 14;
        // Of the control registers' word.
        WRITE_CR8 = 1 << 24;
        // What exits from every guest, of word 1 and of word 2.
        FIRST = INTR | NMI | INIT | RDPMC | CPUID | INVD | HLT | INVLPGA | IO | MSR | TASK_SWITCH | PAUSE | FERR_FREEZE | SHUTDOWN;
        SECOND = VMRUN | VMMCALL | VMLOAD | VMSAVE | STGI | CLGI | SKINIT | WBINVD | MONITOR | MWAIT | XSETBV | RDPRU;
    }
}

/// Bits of [`Control::virtual_interrupt`].
pub mod virtual_interrupt {
    /// The guest's TPR, of which CR8 is bits 0 to 3.
    pub const TPR: u32 = 0xff;
    /// A virtual interrupt is pending.
    pub const PENDING: u32 = 1 << 8;
    /// Its priority, highest.
    pub const PRIORITY: u32 = 0xf << 16;
    /// The guest's TPR does not hold it back.
    pub const IGNORE_TPR: u32 = 1 << 20;
    /// The guest's IF and CR8 do not touch physical interrupts.
    pub const MASKING: u32 = 1 << 24;
}

/// Values of [`Control::tlb_control`].
pub mod tlb {
    /// Flush nothing.
    pub const KEEP: u32 = 0;
    /// Flush everything.
    pub const FLUSH_ALL: u32 = 1;
}

/// [`Control::clean`], what the processor may take from its cache: intercepts with TSC offset and pause filter; ASID; virtual interrupt and TPR; nested root and PAT;
/// CR0, CR3, CR4 and EFER; DR6 and DR7; GDTR and IDTR; the other segments and the privilege level; CR2. ALL is everything defined.
pub mod clean {
    super::constants! { u32:
        INTERCEPTS = 1; ASID = 1 << 2; TPR = 1 << 3; NESTED = 1 << 4; CONTROL = 1 << 5; DEBUG = 1 << 6; TABLES = 1 << 7;
        SEGMENTS = 1 << 8; CR2 = 1 << 9; ALL = 0x7ff;
    }
}

/// Exit codes (appendix C), by the manual's names; 32 bits tell them all apart, and QEMU writes no more for `INVALID`.
pub mod code {
    super::constants! { u32:
        WRITE_CR8 = 0x18; READ_DR0 = 0x20; WRITE_DR15 = 0x3f; EXCEPTION_0 = 0x40; DEBUG = 0x41; MACHINE_CHECK = 0x52; EXCEPTION_31 = 0x5f;
        INTR = 0x60; NMI = 0x61; SMI = 0x62; INIT = 0x63; VINTR = 0x64; RDPMC = 0x6f; CPUID = 0x72; IRET = 0x74; INVD = 0x76;
        PAUSE = 0x77; HLT = 0x78; INVLPGA = 0x7a; IO = 0x7b; MSR = 0x7c; TASK_SWITCH = 0x7d; SHUTDOWN = 0x7f; VMRUN = 0x80;
        VMMCALL = 0x81; VMLOAD = 0x82; SKINIT = 0x86; WBINVD = 0x89; MONITOR = 0x8a; MWAIT = 0x8b; MWAIT_ARMED = 0x8c;
        XSETBV = 0x8d; RDPRU = 0x8e; NESTED_FAULT = 0x400; INVALID = u32::MAX;
    }
}
