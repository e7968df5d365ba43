//! Between AMD's formats and those of `abi::vcpu`. Nothing here touches the machine.

use super::vmcb::SegmentRegister;
use tessera_abi::vcpu::{
    ACCESS_EXECUTE, ACCESS_PAGE_WALK, ACCESS_WRITE, EVENT_ERROR, EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_NMI, EVENT_SOFTWARE, EVENT_VALID,
    IO_IN, IO_REP, IO_STRING, IO_WIDTH_SHIFT, SEGMENT_UNUSABLE, Segment,
};

/// What the guest state violates: `info[1]` of an `EntryFailed` exit that the kernel itself caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Invalid {
    /// The processor refused and did not say what.
    Unknown = 0,
    /// CR0: reserved bits, PG without PE, or NW without CD.
    Cr0 = 1,
    /// CR3: reserved bits.
    Cr3 = 2,
    /// CR4: reserved bits.
    Cr4 = 3,
    /// EFER: reserved bits, or long mode without PAE or protection.
    Efer = 4,
    /// XCR0: bits that guests may not have, or a combination that XSETBV refuses.
    Xcr0 = 5,
    /// DR6 or DR7: the upper halves are not zero.
    Debug = 6,
    /// The event to inject: reserved type, or an exception above 31.
    Event = 7,
    /// CS: 64-bit and 32-bit code at once in long mode.
    CodeSegment = 8,
}

/// CR0.PE.
pub const CR0_PE: u64 = 1;
/// CR0.NW.
const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
const CR0_CD: u64 = 1 << 30;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PAE.
const CR4_PAE: u64 = 1 << 5;
/// CR4 bits that have a meaning: 0 to 12, 16 to 18, 20 to 23. What this processor lacks, VMRUN refuses.
const CR4_DEFINED: u64 = 0x00f7_1fff;
/// EFER.SCE, LME, LMA, NXE, FFXSR.
const EFER_DEFINED: u64 = 1 | EFER_LME | EFER_LMA | 1 << 11 | 1 << 14;
/// EFER.LME.
const EFER_LME: u64 = 1 << 8;
/// EFER.LMA.
const EFER_LMA: u64 = 1 << 10;
/// EFER.SVME: set while the processor can run guests, never shown to them.
pub const EFER_SVME: u64 = 1 << 12;

/// Checked values of the `CONTROL` group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER, as the VMCB wants it: with SVME, and LMA as LME and PG demand.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
}

/// Checks what VMRUN would refuse (APM volume 2, 15.5.1) or, worse, this processor would fault on in ring 0.
///
/// # Errors
/// The first register that is wrong.
pub fn check_control(cr0: u64, cr3: u64, cr4: u64, efer: u64, xcr0: u64, supported_xcr0: u64) -> Result<ControlRegisters, Invalid> {
    let paging = cr0 & CR0_PG != 0;
    if cr0 >> 32 != 0 || (paging && cr0 & CR0_PE == 0) || (cr0 & CR0_NW != 0 && cr0 & CR0_CD == 0) {
        return Err(Invalid::Cr0);
    }
    if cr3 >> 52 != 0 {
        return Err(Invalid::Cr3);
    }
    if cr4 & !CR4_DEFINED != 0 {
        return Err(Invalid::Cr4);
    }
    if efer & !EFER_DEFINED != 0 || (paging && efer & EFER_LME != 0 && cr4 & CR4_PAE == 0) {
        return Err(Invalid::Efer);
    }
    let long_mode_active = if paging && efer & EFER_LME != 0 { EFER_LMA } else { 0 };
    if !xcr0_is_valid(xcr0, supported_xcr0) {
        return Err(Invalid::Xcr0);
    }
    Ok(ControlRegisters { cr0, cr3, cr4, efer: (efer & !EFER_LMA) | long_mode_active | EFER_SVME, xcr0 })
}

/// Whether XSETBV takes the value: x87 always, nothing unsupported, AVX only with SSE. Without XSAVE any value passes, for it is not used.
#[must_use]
pub const fn xcr0_is_valid(xcr0: u64, supported: u64) -> bool {
    supported == 0 || (xcr0 & 1 != 0 && xcr0 & !supported == 0 && (xcr0 & 4 == 0 || xcr0 & 2 != 0))
}

/// Whether CS claims to be 64-bit and 32-bit code at once, which VMRUN refuses in long mode.
#[must_use]
pub const fn code_segment_is_invalid(attributes: u32) -> bool {
    const L: u32 = 1 << 13;
    const DB: u32 = 1 << 14;
    attributes & L != 0 && attributes & DB != 0
}

/// Segment register for the VMCB. An unusable segment becomes one that is not present.
#[must_use]
pub const fn segment_to_vmcb(segment: Segment) -> SegmentRegister {
    let rights = segment.attributes;
    let attributes = if rights & SEGMENT_UNUSABLE != 0 { 0 } else { (rights & 0xff | rights >> 4 & 0xf00) as u16 };
    SegmentRegister { selector: segment.selector, attributes, limit: segment.limit, base: segment.base }
}

/// Attributes from the VMCB, made to look as VT-x reports them: granularity follows the limit, the accessed bit of usable data and the busy bit of TR are set.
#[must_use]
#[inline(always)]
pub const fn attributes_from_vmcb(attributes: u16, limit: u32, index: usize) -> u32 {
    use tessera_abi::vcpu::segment::{LDTR, TR};
    const PRESENT: u32 = 1 << 7;
    const GRANULARITY: u32 = 1 << 15;
    let raw = attributes as u32;
    let rights = raw & 0xff | (raw & 0xf00) << 4;
    if rights & PRESENT == 0 {
        return rights | SEGMENT_UNUSABLE;
    }
    let set = match index {
        TR => 2,
        LDTR => 0,
        _ => 1,
    };
    rights | set | if limit > 0xf_ffff { GRANULARITY } else { 0 }
}

/// `EVENTINJ` for an event of the shared page; the formats agree, so this only checks.
///
/// # Errors
/// The event is one that VMRUN refuses or that the interface does not have.
pub const fn event_to_vmcb(event: u32, error: u32) -> Result<u64, Invalid> {
    let vector = event & 0xff;
    let kind = event & 7 << 8;
    let with_error = event & EVENT_ERROR != 0;
    let known = match kind {
        EVENT_INTERRUPT | EVENT_SOFTWARE => !with_error,
        EVENT_NMI => vector == 2 && !with_error,
        // Vector 2 is the NMI, 31 and up are refused.
        EVENT_EXCEPTION => vector < 31 && vector != 2,
        _ => false,
    };
    if !known || event & !(EVENT_VALID | EVENT_ERROR | 7 << 8 | 0xff) != 0 {
        return Err(Invalid::Event);
    }
    let error = if with_error { (error as u64) << 32 } else { 0 };
    Ok((event | EVENT_VALID) as u64 | error)
}

/// The event that gives the guest an exception which was intercepted against its will and the VMM's.
#[must_use]
pub const fn reflected_exception(vector: u32) -> u32 {
    const ALIGNMENT_CHECK: u32 = 17;
    EVENT_VALID | EVENT_EXCEPTION | vector | if vector == ALIGNMENT_CHECK { EVENT_ERROR } else { 0 }
}

/// What becomes of an event whose delivery an exit interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The guest runs the instruction that caused it once more, and so causes it again: `int n`, `int3`, `into`.
    Repeat,
    /// The VMM injects it again: event and error code.
    Reinject(u32, u32),
}

/// Takes `EXITINTINFO` (valid bit set) apart.
#[must_use]
pub const fn interrupted_event(info: u64) -> Interrupted {
    let event = info as u32 & (EVENT_VALID | EVENT_ERROR | 7 << 8 | 0xff);
    let vector = event & 0xff;
    match event & 7 << 8 {
        EVENT_SOFTWARE => Interrupted::Repeat,
        // The instruction pointer still stands at the breakpoint or overflow instruction.
        EVENT_EXCEPTION if vector == 3 || vector == 4 => Interrupted::Repeat,
        _ => Interrupted::Reinject(event, if event & EVENT_ERROR != 0 { (info >> 32) as u32 } else { 0 }),
    }
}

/// A port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoExit {
    /// As `info[0]` of `ExitReason::Io`.
    pub access: u64,
    /// The next instruction.
    pub next_rip: u64,
}

impl IoExit {
    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.access as u16
    }

    /// Bytes: 1, 2 or 4.
    #[must_use]
    pub const fn width(self) -> u64 {
        self.access >> IO_WIDTH_SHIFT & 7
    }

    /// Neither string nor repeated.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.access & (IO_STRING | IO_REP) == 0
    }

    /// A plain `out`, neither string nor repeated: what can ring a doorbell.
    #[must_use]
    pub const fn is_plain_write(self) -> bool {
        self.access & (IO_IN | IO_STRING | IO_REP) == 0
    }
}

/// Decodes the exit information of an I/O intercept (APM volume 2, 15.10.2).
#[must_use]
#[inline]
pub const fn io_exit(info_1: u64, info_2: u64) -> IoExit {
    // Bit 0: IN; bits 2 and 3: string, repeat; bits 4 to 6: one of them set, so that they read as 1, 2 or 4; bits 16 to 31: port. The interface has the halves
    // the other way round.
    let access = ((info_1 as u32).rotate_left(16) & IO_FIELDS) as u64;
    IoExit { access, next_rip: info_2 }
}

/// Everything that `info[0]` of a port access may hold.
const IO_FIELDS: u32 = (0xffff | IO_IN | IO_STRING | IO_REP | 7 << IO_WIDTH_SHIFT) as u32;

/// `ACCESS_*` of a nested page fault (APM volume 2, 15.25.6).
#[must_use]
pub const fn memory_access(info_1: u64) -> u64 {
    let mut access = 0;
    if info_1 & 1 << 1 != 0 {
        access |= ACCESS_WRITE;
    }
    if info_1 & 1 << 4 != 0 {
        access |= ACCESS_EXECUTE;
    }
    if info_1 & 1 << 33 != 0 {
        access |= ACCESS_PAGE_WALK;
    }
    access
}

/// `info[0]` and `info[1]` of a task switch (APM volume 2, 15.14.1). `during_delivery`: an event was being delivered.
#[must_use]
pub const fn task_switch(info_1: u64, info_2: u64, during_delivery: bool) -> (u64, u64) {
    let source = if info_2 & 1 << 36 != 0 {
        1
    } else if info_2 & 1 << 38 != 0 {
        2
    } else if during_delivery {
        3
    } else {
        0
    };
    let error = if info_2 & 1 << 44 != 0 { info_2 & 0xffff_ffff | 1 << 32 } else { 0 };
    (info_1 & 0xffff | source << 32, error)
}
