//! The registers between the shared page and the VMCB, group by group. Cold: what every exit needs is copied in `run`.

use super::vmcb::{Control, SegmentRegister, Vmcb, clean, virtual_interrupt};
use super::{ALWAYS_INTERCEPTED, convert};
use crate::virt::convert::{Invalid, check_control, code_segment_is_invalid};
use crate::virt::host::{Host, pending};
use crate::virt::reset::{DR7_ARMED, Loaded};
use crate::virt::{get, put, put_all, take_all};
use tessera_abi::vcpu::{Dirty, Segment, VcpuState, segment};

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
        let checked = check_control(cr0, cr3, cr4, get!(state, efer), get!(state, xcr0), supported_xcr0)?;
        let efer = checked.efer | convert::EFER_SVME;
        // A guest that has its translations cached under other paging modes must not see them.
        loaded.flush |=
            vmcb.save.cr0 != checked.cr0 || vmcb.save.cr4 != checked.cr4 || vmcb.save.efer != efer || vmcb.save.cr3 != checked.cr3;
        vmcb.save.cr0 = checked.cr0;
        vmcb.save.cr3 = checked.cr3;
        vmcb.save.cr4 = checked.cr4;
        vmcb.save.efer = efer;
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
            if index == segment::CS && code_segment_is_invalid(value.attributes) {
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
        host.debug = get!(state, dr);
        vmcb.save.dr6 = dr6;
        vmcb.save.dr7 = dr7;
        if dr7 & DR7_ARMED != 0 {
            host.pending |= pending::DEBUG_LOADED;
        }
        changed |= clean::DEBUG;
    }
    if groups.contains(Dirty::MSRS) {
        let save = &mut vmcb.save;
        take_all!(state,
            save.star = star; save.lstar = lstar; save.cstar = cstar; save.sfmask = sfmask; save.kernel_gs_base = kernel_gs_base;
            save.sysenter_cs = sysenter_cs; save.sysenter_esp = sysenter_esp; save.sysenter_eip = sysenter_eip; save.pat = pat;
        );
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
    put_all!(state, {
        cr0 = save.cr0;
        cr2 = save.cr2;
        cr3 = save.cr3;
        cr4 = save.cr4;
        cr8 = cr8(&vmcb.control);
        efer = save.efer & !convert::EFER_SVME;
        xcr0 = host.xcr0;
        dr = host.debug;
        dr6 = save.dr6;
        dr7 = save.dr7;
        gdtr.base = save.gdtr.base;
        gdtr.limit = u64::from(save.gdtr.limit & 0xffff);
        idtr.base = save.idtr.base;
        idtr.limit = u64::from(save.idtr.limit & 0xffff);
        star = save.star;
        lstar = save.lstar;
        cstar = save.cstar;
        sfmask = save.sfmask;
        kernel_gs_base = save.kernel_gs_base;
        sysenter_cs = save.sysenter_cs;
        sysenter_esp = save.sysenter_esp;
        sysenter_eip = save.sysenter_eip;
        pat = save.pat;
        tsc_aux = host.tsc_aux;
        tsc_offset = vmcb.control.tsc_offset;
        exception_bitmap = host.exceptions;
    });
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
}

/// The guest's CR8: the virtual TPR has no more than these four bits.
#[inline(always)]
pub const fn cr8(control: &Control) -> u64 {
    control.virtual_interrupt as u8 as u64
}
