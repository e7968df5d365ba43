//! Register values at the two ways a vCPU can start: at a kernel's 64-bit entry point, and by a start-up message in real mode.

use super::layout;
use tessera_abi::vcpu::{Dirty, SEGMENT_UNUSABLE, Segment, Table, VcpuState, gpr, segment};

/// CR0: protection.
pub const CR0_PE: u64 = 1;
/// CR0: extension type, always one.
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_CD: u64 = 1 << 30;
const CR0_NW: u64 = 1 << 29;
/// CR0: paging.
pub const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Power-on value of the PAT (SDM volume 3, table 12-12).
pub const PAT: u64 = 0x0007_0406_0007_0406;
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;

const fn flat(selector: u16, attributes: u32) -> Segment {
    Segment {
        selector,
        reserved: 0,
        attributes,
        limit: 0xffff_ffff,
        reserved2: 0,
        base: 0,
    }
}

const fn real(selector: u16, attributes: u32) -> Segment {
    Segment {
        selector,
        reserved: 0,
        attributes,
        limit: 0xffff,
        reserved2: 0,
        base: (selector as u64) << 4,
    }
}

/// Everything as after power-on or INIT, starting at page `start_page` in real mode (SDM volume 3, table 10-1).
pub fn start_in_real_mode(state: &mut VcpuState, start_page: u8) {
    clear(state);
    state.cr0 = CR0_ET | CR0_CD | CR0_NW;
    let data = real(0, 0x93);
    state.segments = [data; 8];
    state.segments[segment::CS] = real(u16::from(start_page) << 8, 0x9b);
    state.segments[segment::LDTR] = real(0, 0x82);
    state.segments[segment::TR] = real(0, 0x8b);
    state.gdtr = Table { base: 0, limit: 0xffff };
    state.idtr = Table { base: 0, limit: 0xffff };
}

/// At the 64-bit entry point of a kernel that was loaded by [`super::load`].
pub fn start_at_kernel(state: &mut VcpuState, entry: u64) {
    clear(state);
    state.rip = entry;
    state.gpr[gpr::RSI] = layout::BOOT_PARAMS;
    state.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    state.cr3 = layout::PAGE_TABLES;
    state.cr4 = CR4_PAE;
    state.efer = EFER_LME | EFER_LMA;
    let data = flat(0x18, 0xc093);
    state.segments = [data; 8];
    state.segments[segment::CS] = flat(0x10, 0xa09b);
    state.segments[segment::LDTR] = Segment {
        attributes: SEGMENT_UNUSABLE | 0x82,
        ..Segment::default()
    };
    state.segments[segment::TR] = Segment {
        attributes: 0x8b,
        limit: 0x67,
        ..Segment::default()
    };
    state.gdtr = Table {
        base: layout::GDT,
        limit: 4 * 8 - 1,
    };
    state.idtr = Table { base: 0, limit: 0 };
}

/// What both have in common. The constants that the kernel put there stay, and so does the TSC offset.
fn clear(state: &mut VcpuState) {
    state.gpr = [0; 16];
    state.rip = 0;
    state.rflags = 2;
    state.interrupt_shadow = 0;
    state.vectoring = 0;
    state.vectoring_error = 0;
    state.inject = 0;
    state.inject_error = 0;
    state.request_window = 0;
    state.request_nmi_window = 0;
    state.cr2 = 0;
    state.cr3 = 0;
    state.cr4 = 0;
    state.cr8 = 0;
    state.efer = 0;
    state.xcr0 = 1;
    state.dr6 = DR6;
    state.dr7 = DR7;
    state.star = 0;
    state.lstar = 0;
    state.cstar = 0;
    state.sfmask = 0;
    state.kernel_gs_base = 0;
    state.sysenter_cs = 0;
    state.sysenter_esp = 0;
    state.sysenter_eip = 0;
    state.pat = PAT;
    state.tsc_aux = 0;
    state.exception_bitmap = 0;
    state.dirty = Dirty::all().bits();
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A state page as the kernel would hand it over.
    pub(crate) fn blank() -> std::boxed::Box<VcpuState> {
        // SAFETY: every field is an integer or an array or struct of integers, for which zero is a value.
        #[allow(unsafe_code)]
        let mut state: std::boxed::Box<VcpuState> = unsafe { std::boxed::Box::new_zeroed().assume_init() };
        state.supported_xcr0 = 7;
        state.xsave_size = 832;
        state
    }

    #[test]
    fn real_mode_starts_where_the_message_says() {
        let mut state = blank();
        start_in_real_mode(&mut state, 0x9a);
        let cs = state.segments[segment::CS];
        assert_eq!((cs.selector, cs.base, state.rip), (0x9a00, 0x9_a000, 0));
        assert_eq!(state.cr0 & CR0_PE, 0);
        assert_eq!(state.supported_xcr0, 7, "the kernel's constants stay");
    }

    #[test]
    fn kernel_starts_in_long_mode() {
        let mut state = blank();
        start_at_kernel(&mut state, 0x100_0200);
        assert_eq!(state.gpr[gpr::RSI], layout::BOOT_PARAMS);
        assert_ne!(state.efer & EFER_LMA, 0);
        assert_eq!(state.rflags, 2, "interrupts are off");
    }
}
