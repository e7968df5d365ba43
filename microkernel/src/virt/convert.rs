//! Checks and formats that both backends share. Nothing here touches the machine.

use tessera_abi::vcpu::{
    EVENT_ERROR, EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_NMI, EVENT_SOFTWARE, EVENT_VALID, IO_IN, IO_REP, IO_STRING, IO_WIDTH_SHIFT,
    SEGMENT_UNUSABLE,
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
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4 bits that have a meaning: 0 to 12, 16 to 18, 20 to 23. What this processor lacks, VMRUN refuses.
pub const CR4_DEFINED: u64 = 0x00f7_1fff;
/// EFER.SCE, LME, LMA, NXE, FFXSR.
const EFER_DEFINED: u64 = 1 | EFER_LME | EFER_LMA | 1 << 11 | 1 << 14;
/// EFER.LME.
const EFER_LME: u64 = 1 << 8;
/// EFER.LMA.
pub const EFER_LMA: u64 = 1 << 10;

/// Checked values of the `CONTROL` group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER, with LMA as LME and PG demand.
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
    Ok(ControlRegisters { cr0, cr3, cr4, efer: (efer & !EFER_LMA) | long_mode_active, xcr0 })
}

/// Whether XSETBV takes the value: x87 always, nothing unsupported, AVX only with SSE.
#[must_use]
pub const fn xcr0_is_valid(xcr0: u64, supported: u64) -> bool {
    xcr0 & 1 != 0 && xcr0 & !supported == 0 && (xcr0 & 4 == 0 || xcr0 & 2 != 0)
}

/// Whether CS claims to be 64-bit and 32-bit code at once, which VMRUN refuses in long mode.
#[must_use]
pub const fn code_segment_is_invalid(attributes: u32) -> bool {
    const L: u32 = 1 << 13;
    const DB: u32 = 1 << 14;
    attributes & L != 0 && attributes & DB != 0
}

/// An event of the shared page as the hardware takes it, with its error code in the upper half. The formats agree, so this only checks.
///
/// # Errors
/// The event is one that VMRUN refuses or that the interface does not have.
pub const fn check_event(event: u32, error: u32) -> Result<u64, Invalid> {
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

/// Takes an event apart whose delivery an exit interrupted (valid bit set): event and error code that the VMM injects again, or `None` where the guest runs the instruction that
/// caused it (`int n`, `int3`, `into`, `int1`) once more, and so causes it again. One that went through a task gate has arrived: its task switch is for the VMM to carry out.
#[must_use]
pub const fn interrupted_event(info: u64, task_switch: bool) -> Option<(u32, u32)> {
    let event = info as u32 & (EVENT_VALID | EVENT_ERROR | 7 << 8 | 0xff);
    // AMD-V has the exceptions of INT3 and INTO among all others, VT-x those two and INT1's as types of their own.
    let kind = event & 7 << 8;
    let by_instruction = kind >= EVENT_SOFTWARE || kind == EVENT_EXCEPTION && matches!(event & 0xff, 3 | 4);
    if by_instruction && !task_switch {
        // The instruction pointer still stands at the instruction.
        return None;
    }
    let event = if kind > EVENT_SOFTWARE { event & !(7 << 8) | EVENT_EXCEPTION } else { event };
    Some((event, if event & EVENT_ERROR != 0 { (info >> 32) as u32 } else { 0 }))
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

/// Everything that `info[0]` of a port access may hold.
pub const IO_FIELDS: u32 = (0xffff | IO_IN | IO_STRING | IO_REP | 7 << IO_WIDTH_SHIFT) as u32;

/// Attributes of a segment register as VT-x has them: granularity fits the limit, the accessed bit of usable data and the busy bit of TR are set.
#[must_use]
#[inline(always)]
pub const fn visible_attributes(rights: u32, limit: u32, index: usize) -> u32 {
    use tessera_abi::vcpu::segment::{LDTR, TR};
    const PRESENT: u32 = 1 << 7;
    const GRANULARITY: u32 = 1 << 15;
    if rights & PRESENT == 0 || rights & SEGMENT_UNUSABLE != 0 {
        return rights | SEGMENT_UNUSABLE;
    }
    let set = match index {
        TR => 2,
        LDTR => 0,
        _ => 1,
    };
    let rights = if limit & 0xfff == 0xfff { rights } else { rights & !GRANULARITY };
    rights | set | if limit > 0xf_ffff { GRANULARITY } else { 0 }
}
