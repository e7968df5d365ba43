//! The state of a processor after reset, and what both backends' `load` answer.

use super::{put, put_all};
use tessera_abi::vcpu::{Dirty, Segment, VcpuState, gpr, segment};

/// Debug status without causes.
const DR6_RESET: u64 = 0xffff_0ff0;
/// Debug control without breakpoints.
const DR7_RESET: u64 = 0x400;
/// PAT after reset.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// CR0 after reset: caches off.
const CR0_RESET: u64 = 0x6000_0010;

/// The breakpoint-enable bits.
pub const DR7_ARMED: u64 = 0xff;
/// What `load` changed outside the VMCB or VMCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// XCR0 must be written: it differs from what the registers hold.
    pub xcr0: Option<u64>,
    /// Translations must be flushed.
    pub flush: bool,
}

/// Stores the state after reset (SDM volume 3, table 10-1) with all groups dirty.
///
/// # Safety
/// `state` points at the shared page, which is zeroed.
pub unsafe fn store_reset(state: *mut VcpuState, supported_xcr0: u64, extended_size: u64) {
    // Family 6: what EDX says after reset.
    put!(state, 0x600, gpr[gpr::RDX]);
    put_all!(state, {
        rip = 0xfff0;
        rflags = 2;
        cr0 = CR0_RESET;
        xcr0 = 1;
        dr6 = DR6_RESET;
        dr7 = DR7_RESET;
        gdtr.limit = 0xffff;
        idtr.limit = 0xffff;
        pat = PAT_RESET;
        supported_xcr0 = supported_xcr0;
        xsave_size = extended_size;
        dirty = Dirty::all().bits();
    });
    for index in segment::ES..=segment::TR {
        let (selector, attributes, base) = match index {
            segment::CS => (0xf000, 0x9b, 0xffff_0000),
            segment::LDTR => (0, 0x82, 0),
            segment::TR => (0, 0x8b, 0),
            _ => (0, 0x93, 0),
        };
        put!(state, Segment { selector, reserved: 0, attributes, limit: 0xffff, reserved2: 0, base }, segments[index]);
    }
}
