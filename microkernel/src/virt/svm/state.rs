//! The registers between the shared page and the VMCB, group by group. Cold: what every exit needs is copied in `run`.

use super::convert::{self, Invalid};
use super::vmcb::{Control, SegmentRegister, Vmcb, clean, virtual_interrupt};
use super::{ALWAYS_INTERCEPTED, Host, pending};
use crate::virt::{get, put};
use tessera_abi::vcpu::{Dirty, Segment, VcpuState, gpr, segment};

/// Debug status without causes.
const DR6_RESET: u64 = 0xffff_0ff0;
/// Debug control without breakpoints.
const DR7_RESET: u64 = 0x400;
/// The breakpoint-enable bits.
pub(super) const DR7_ARMED: u64 = 0xff;
/// PAT after reset.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// CR0 after reset: caches off.
const CR0_RESET: u64 = 0x6000_0010;

/// What `load` changed outside the VMCB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// XCR0 must be written: it differs from what the registers hold.
    pub xcr0: Option<u64>,
    /// Translations must be flushed.
    pub flush: bool,
}

fn register(vmcb: &mut Vmcb, index: usize) -> &mut SegmentRegister {
    match index {
        segment::LDTR => &mut vmcb.save.ldtr,
        segment::TR => &mut vmcb.save.tr,
        // ES, CS, SS, DS, FS, GS stand in the same order in both.
        other => &mut vmcb.save.segments[other % 6],
    }
}

/// Takes the named groups from the page, all or, on an error, possibly some of them. Nothing the page says can hurt more than its own guest.
///
/// # Errors
/// What VMRUN would refuse.
///
/// # Safety
/// `state` points at the shared page.
pub unsafe fn load(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState, groups: Dirty, supported_xcr0: u64) -> Result<Loaded, Invalid> {
    let mut loaded = Loaded { xcr0: None, flush: groups.contains(Dirty::FLUSH) };
    let mut changed = 0;
    if groups.contains(Dirty::CONTROL) {
        let (cr0, cr3, cr4) = (get!(state, cr0), get!(state, cr3), get!(state, cr4));
        let checked = convert::check_control(cr0, cr3, cr4, get!(state, efer), get!(state, xcr0), supported_xcr0)?;
        // A guest that has its translations cached under other paging modes must not see them.
        loaded.flush |=
            vmcb.save.cr0 != checked.cr0 || vmcb.save.cr4 != checked.cr4 || vmcb.save.efer != checked.efer || vmcb.save.cr3 != checked.cr3;
        vmcb.save.cr0 = checked.cr0;
        vmcb.save.cr3 = checked.cr3;
        vmcb.save.cr4 = checked.cr4;
        vmcb.save.efer = checked.efer;
        vmcb.save.cr2 = get!(state, cr2);
        if host.xcr0 != checked.xcr0 {
            host.xcr0 = checked.xcr0;
            loaded.xcr0 = Some(checked.xcr0);
        }
        changed |= clean::CONTROL | clean::CR2;
    }
    if groups.contains(Dirty::SEGMENTS) {
        for index in segment::ES..=segment::TR {
            let value: Segment = get!(state, segments[index]);
            if index == segment::CS && convert::code_segment_is_invalid(value.attributes) {
                return Err(Invalid::CodeSegment);
            }
            if index == segment::SS {
                vmcb.save.cpl = (value.attributes >> 5 & 3) as u8;
            }
            *register(vmcb, index) = convert::segment_to_vmcb(value);
        }
        for (table, value) in [(&mut vmcb.save.gdtr, get!(state, gdtr)), (&mut vmcb.save.idtr, get!(state, idtr))] {
            table.base = value.base;
            table.limit = value.limit as u32 & 0xffff;
        }
        changed |= clean::SEGMENTS | clean::TABLES;
    }
    if groups.contains(Dirty::DEBUG) {
        let (dr6, dr7) = (get!(state, dr6), get!(state, dr7));
        if dr6 >> 32 != 0 || dr7 >> 32 != 0 {
            return Err(Invalid::Debug);
        }
        vmcb.save.dr6 = dr6;
        vmcb.save.dr7 = dr7;
        if dr7 & DR7_ARMED != 0 {
            host.pending |= pending::DEBUG_LOADED;
        }
        changed |= clean::DEBUG;
    }
    if groups.contains(Dirty::MSRS) {
        vmcb.save.star = get!(state, star);
        vmcb.save.lstar = get!(state, lstar);
        vmcb.save.cstar = get!(state, cstar);
        vmcb.save.sfmask = get!(state, sfmask);
        vmcb.save.kernel_gs_base = get!(state, kernel_gs_base);
        vmcb.save.sysenter_cs = get!(state, sysenter_cs);
        vmcb.save.sysenter_esp = get!(state, sysenter_esp);
        vmcb.save.sysenter_eip = get!(state, sysenter_eip);
        vmcb.save.pat = get!(state, pat);
        // Bits 32 to 63 are reserved, and writing them would fault here.
        host.tsc_aux = get!(state, tsc_aux) & 0xffff_ffff;
        // The processor's TSC_AUX is written when the vCPU is bound to it.
        host.token = 0;
        changed |= clean::NESTED;
    }
    if groups.contains(Dirty::TSC) {
        vmcb.control.tsc_offset = get!(state, tsc_offset);
        changed |= clean::INTERCEPTS;
    }
    if groups.contains(Dirty::TPR) {
        let control = vmcb.control.virtual_interrupt & !virtual_interrupt::TPR;
        vmcb.control.virtual_interrupt = control | get!(state, cr8) as u32 & 0xf;
        changed |= clean::TPR;
    }
    if groups.contains(Dirty::INTERCEPTS) {
        host.exceptions = get!(state, exception_bitmap);
        vmcb.control.intercept_exceptions = host.exceptions | ALWAYS_INTERCEPTED;
        changed |= clean::INTERCEPTS;
    }
    vmcb.control.clean &= !changed;
    Ok(loaded)
}

/// Stores one segment register. Unrolled by its index: this is most of what a full exit costs.
///
/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store_segment<const INDEX: usize>(register: &SegmentRegister, state: *mut VcpuState) {
    let attributes = convert::attributes_from_vmcb(register.attributes, register.limit, INDEX);
    put!(state, register.selector, segments[INDEX].selector);
    put!(state, attributes, segments[INDEX].attributes);
    put!(state, register.limit, segments[INDEX].limit);
    put!(state, register.base, segments[INDEX].base);
}

/// Stores everything into the page.
///
/// # Safety
/// As [`load`].
pub unsafe fn store_full(vmcb: &Vmcb, host: &Host, state: *mut VcpuState) {
    let save = &vmcb.save;
    put!(state, save.cr0, cr0);
    put!(state, save.cr2, cr2);
    put!(state, save.cr3, cr3);
    put!(state, save.cr4, cr4);
    put!(state, cr8(&vmcb.control), cr8);
    put!(state, save.efer & !convert::EFER_SVME, efer);
    put!(state, host.xcr0, xcr0);
    put!(state, save.dr6, dr6);
    put!(state, save.dr7, dr7);
    // SAFETY: the caller's promise.
    unsafe {
        store_segment::<{ segment::ES }>(&save.segments[segment::ES], state);
        store_segment::<{ segment::CS }>(&save.segments[segment::CS], state);
        store_segment::<{ segment::SS }>(&save.segments[segment::SS], state);
        store_segment::<{ segment::DS }>(&save.segments[segment::DS], state);
        store_segment::<{ segment::FS }>(&save.segments[segment::FS], state);
        store_segment::<{ segment::GS }>(&save.segments[segment::GS], state);
        store_segment::<{ segment::LDTR }>(&save.ldtr, state);
        store_segment::<{ segment::TR }>(&save.tr, state);
    }
    // The privilege level has a field of its own here and stands in SS everywhere else.
    let stack = convert::attributes_from_vmcb(save.segments[segment::SS].attributes, save.segments[segment::SS].limit, segment::SS);
    put!(state, stack & !(3 << 5) | u32::from(save.cpl & 3) << 5, segments[segment::SS].attributes);
    put!(state, save.gdtr.base, gdtr.base);
    put!(state, u64::from(save.gdtr.limit & 0xffff), gdtr.limit);
    put!(state, save.idtr.base, idtr.base);
    put!(state, u64::from(save.idtr.limit & 0xffff), idtr.limit);
    put!(state, save.star, star);
    put!(state, save.lstar, lstar);
    put!(state, save.cstar, cstar);
    put!(state, save.sfmask, sfmask);
    put!(state, save.kernel_gs_base, kernel_gs_base);
    put!(state, save.sysenter_cs, sysenter_cs);
    put!(state, save.sysenter_esp, sysenter_esp);
    put!(state, save.sysenter_eip, sysenter_eip);
    put!(state, save.pat, pat);
    put!(state, host.tsc_aux, tsc_aux);
    put!(state, vmcb.control.tsc_offset, tsc_offset);
    put!(state, host.exceptions, exception_bitmap);
}

/// The guest's CR8: the virtual TPR has no more than these four bits.
#[inline(always)]
pub const fn cr8(control: &Control) -> u64 {
    control.virtual_interrupt as u8 as u64
}

/// Stores the state after reset (SDM volume 3, table 10-1) with all groups dirty.
///
/// # Safety
/// As [`load`].
pub unsafe fn store_reset(state: *mut VcpuState, supported_xcr0: u64, extended_size: u64) {
    for register in 0..16 {
        put!(state, 0, gpr[register]);
    }
    // Family 6: what EDX says after reset.
    put!(state, 0x600, gpr[gpr::RDX]);
    put!(state, 0xfff0, rip);
    put!(state, 2, rflags);
    put!(state, 0, interrupt_shadow);
    put!(state, 0, vectoring);
    put!(state, 0, inject);
    put!(state, 0, request_window);
    put!(state, 0, request_nmi_window);
    put!(state, CR0_RESET, cr0);
    put!(state, 0, cr2);
    put!(state, 0, cr3);
    put!(state, 0, cr4);
    put!(state, 0, cr8);
    put!(state, 0, efer);
    put!(state, 1, xcr0);
    put!(state, DR6_RESET, dr6);
    put!(state, DR7_RESET, dr7);
    for index in segment::ES..=segment::TR {
        let (selector, attributes, base) = match index {
            segment::CS => (0xf000, 0x9b, 0xffff_0000),
            segment::LDTR => (0, 0x82, 0),
            segment::TR => (0, 0x8b, 0),
            _ => (0, 0x93, 0),
        };
        put!(state, Segment { selector, reserved: 0, attributes, limit: 0xffff, reserved2: 0, base }, segments[index]);
    }
    put!(state, 0, gdtr.base);
    put!(state, 0xffff, gdtr.limit);
    put!(state, 0, idtr.base);
    put!(state, 0xffff, idtr.limit);
    put!(state, 0, star);
    put!(state, 0, lstar);
    put!(state, 0, cstar);
    put!(state, 0, sfmask);
    put!(state, 0, kernel_gs_base);
    put!(state, 0, sysenter_cs);
    put!(state, 0, sysenter_esp);
    put!(state, 0, sysenter_eip);
    put!(state, PAT_RESET, pat);
    put!(state, 0, tsc_aux);
    put!(state, 0, tsc_offset);
    put!(state, 0, exception_bitmap);
    put!(state, supported_xcr0, supported_xcr0);
    put!(state, extended_size, xsave_size);
    put!(state, Dirty::all().bits(), dirty);
}
