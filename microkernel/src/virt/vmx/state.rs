//! The registers between the shared page and the VMCS, group by group. Cold: what every exit needs is copied in `run`.

use super::convert::{self, CR0_MASK, CR0_NE, CR4_VMXE, cr4_guest_bits};
use super::vmcs::{field, read, write};
use super::{ALWAYS_INTERCEPTED, SWITCHED_MSRS, machine::controls};
use crate::arch::memory::phys_to_virt;
use crate::object::page_tables;
use crate::virt::convert::{CR0_PG, CR4_PAE, EFER_LMA, Invalid, check_control, visible_attributes};
use crate::virt::host::pending;
use crate::virt::reset::{DR7_ARMED, Loaded};
use crate::virt::{Nested, VcpuArea, apic, get, put, put_all};
use tessera_abi::vcpu::{Dirty, Segment, VcpuState, segment};
use tessera_boot::vmx::ENTRY_LONG_MODE;

/// Takes the named groups from the page, all or, on an error, possibly some of them. Nothing the page says can hurt more than its own guest.
///
/// # Errors
/// What the processor could not be given; it checks the rest at the entry.
///
/// # Safety
/// `state` points at the shared page, and the area's VMCS is current.
pub unsafe fn load(area: &mut VcpuArea, state: *mut VcpuState, groups: Dirty, xcr0: u64, nested: Nested) -> Result<Loaded, Invalid> {
    let mut loaded = Loaded { xcr0: None, flush: groups.contains(Dirty::FLUSH) };
    let host = &mut area.host;
    if groups.contains(Dirty::CONTROL) {
        let (cr0, cr3, cr4) = (get!(state, cr0), get!(state, cr3), get!(state, cr4));
        let checked = check_control(cr0, cr3, cr4, get!(state, efer), get!(state, xcr0), xcr0)?;
        if checked.cr4 & !cr4_guest_bits(controls().cr4_allowed) != 0 {
            return Err(Invalid::Cr4);
        }
        let registers = [
            (field::GUEST_CR0, checked.cr0 | CR0_NE),
            (field::GUEST_CR3, checked.cr3),
            (field::GUEST_CR4, checked.cr4 | CR4_VMXE),
            (field::GUEST_EFER, checked.efer),
        ];
        let changed = registers.into_iter().any(|(field, value)| read(field) != value);
        // A guest that has its translations cached under other paging modes must not see them.
        loaded.flush |= changed;
        for (field, value) in registers {
            write(field, value);
        }
        write(field::CR0_SHADOW, checked.cr0);
        write(field::CR4_SHADOW, checked.cr4);
        let long_mode = checked.efer & EFER_LMA != 0;
        write(field::ENTRY, u64::from(controls().entry | if long_mode { ENTRY_LONG_MODE } else { 0 }));
        if changed && checked.cr0 & CR0_PG != 0 && checked.cr4 & CR4_PAE != 0 && !long_mode {
            load_directory_pointers(checked.cr3, nested);
        }
        area.vmx.cr2 = get!(state, cr2);
        if host.xcr0 != checked.xcr0 {
            host.xcr0 = checked.xcr0;
            loaded.xcr0 = Some(checked.xcr0);
        }
    }
    if groups.contains(Dirty::SEGMENTS) {
        for index in segment::ES..=segment::TR {
            let value: Segment = get!(state, segments[index]);
            let step = index as u64 * 2;
            write(field::GUEST_SELECTOR + step, value.selector.into());
            write(field::GUEST_BASE + step, value.base);
            write(field::GUEST_LIMIT + step, value.limit.into());
            let attributes = visible_attributes(value.attributes, value.limit, index);
            write(field::GUEST_ATTRIBUTES + step, convert::attributes(attributes));
        }
        write(field::GUEST_GDTR_BASE, get!(state, gdtr.base));
        write(field::GUEST_GDTR_LIMIT, get!(state, gdtr.limit) & 0xffff);
        write(field::GUEST_IDTR_BASE, get!(state, idtr.base));
        write(field::GUEST_IDTR_LIMIT, get!(state, idtr.limit) & 0xffff);
    }
    if groups.contains(Dirty::DEBUG) {
        let (dr6, dr7) = (get!(state, dr6), get!(state, dr7));
        if dr6 >> 32 != 0 || dr7 >> 32 != 0 {
            return Err(Invalid::Debug);
        }
        host.debug = get!(state, dr);
        area.vmx.dr6 = dr6;
        write(field::GUEST_DR7, dr7);
        if dr7 & DR7_ARMED != 0 {
            host.pending |= pending::DEBUG_LOADED;
        }
    }
    if groups.contains(Dirty::MSRS) {
        let values: [u64; SWITCHED_MSRS.len()] =
            [get!(state, star), get!(state, lstar), get!(state, cstar), get!(state, sfmask), get!(state, kernel_gs_base)];
        for (entry, value) in area.vmx.msrs.iter_mut().zip(values) {
            entry.value = value;
        }
        write(field::GUEST_SYSENTER_CS, get!(state, sysenter_cs));
        write(field::GUEST_SYSENTER_ESP, get!(state, sysenter_esp));
        write(field::GUEST_SYSENTER_EIP, get!(state, sysenter_eip));
        write(field::GUEST_PAT, get!(state, pat));
        // Bits 32 to 63 are reserved, and writing them would fault here.
        host.tsc_aux = get!(state, tsc_aux) & 0xffff_ffff;
        // The processor's TSC_AUX is written when the vCPU is bound to it.
        host.token = 0;
    }
    if groups.contains(Dirty::TSC) {
        write(field::TSC_OFFSET, get!(state, tsc_offset));
    }
    if groups.contains(Dirty::TPR) {
        // SAFETY: the caller's promise.
        unsafe { apic(state) }.task_priority.set((get!(state, cr8) as u32 & 0xf) << 4);
    }
    if groups.contains(Dirty::INTERCEPTS) {
        host.exceptions = get!(state, exception_bitmap);
        write(field::EXCEPTIONS, (host.exceptions | ALWAYS_INTERCEPTED).into());
    }
    Ok(loaded)
}

/// Takes the four page-directory pointers of PAE paging from guest memory, as a MOV to CR3 would; where there is none, they are not present.
fn load_directory_pointers(cr3: u64, nested: Nested) {
    let table = cr3 & 0xffff_ffe0;
    let memory = page_tables::look_up(&*nested.space, nested.space.root.get(), table);
    for i in 0..4 {
        // SAFETY: guests' memory is made of frames that the direct map shows; the 32 bytes do not cross a page.
        let entry = memory.map_or(0, |(physical, ..)| unsafe { phys_to_virt(physical).cast::<u64>().add(i as usize).read_volatile() });
        write(field::GUEST_PDPTE + i * 2, entry);
    }
}

/// Stores everything into the page.
///
/// # Safety
/// As [`load`].
pub unsafe fn store_full(area: &VcpuArea, state: *mut VcpuState) {
    let [star, lstar, cstar, sfmask, kernel_gs_base] = area.vmx.msrs.each_ref().map(|entry| entry.value);
    // SAFETY: the caller's promise.
    let cr8 = unsafe { cr8(state) };
    put_all!(state, {
        cr0 = read(field::GUEST_CR0) & !CR0_MASK | read(field::CR0_SHADOW) & CR0_MASK;
        cr2 = area.vmx.cr2;
        cr3 = read(field::GUEST_CR3);
        cr4 = read(field::GUEST_CR4) & !CR4_VMXE;
        cr8 = cr8;
        efer = read(field::GUEST_EFER);
        xcr0 = area.host.xcr0;
        dr = area.host.debug;
        dr6 = area.vmx.dr6;
        dr7 = read(field::GUEST_DR7);
        gdtr.base = read(field::GUEST_GDTR_BASE);
        gdtr.limit = read(field::GUEST_GDTR_LIMIT);
        idtr.base = read(field::GUEST_IDTR_BASE);
        idtr.limit = read(field::GUEST_IDTR_LIMIT);
        star = star;
        lstar = lstar;
        cstar = cstar;
        sfmask = sfmask;
        kernel_gs_base = kernel_gs_base;
        sysenter_cs = read(field::GUEST_SYSENTER_CS);
        sysenter_esp = read(field::GUEST_SYSENTER_ESP);
        sysenter_eip = read(field::GUEST_SYSENTER_EIP);
        pat = read(field::GUEST_PAT);
        tsc_aux = area.host.tsc_aux;
        tsc_offset = read(field::TSC_OFFSET);
        exception_bitmap = area.host.exceptions;
    });
    for index in segment::ES..=segment::TR {
        let step = index as u64 * 2;
        let segment = Segment {
            selector: read(field::GUEST_SELECTOR + step) as u16,
            reserved: 0,
            attributes: read(field::GUEST_ATTRIBUTES + step) as u32,
            limit: read(field::GUEST_LIMIT + step) as u32,
            reserved2: 0,
            base: read(field::GUEST_BASE + step),
        };
        put!(state, segment, segments[index]);
    }
}

/// The guest's CR8, as the processor keeps it in the APIC's page.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub unsafe fn cr8(state: *mut VcpuState) -> u64 {
    // SAFETY: the caller's promise.
    u64::from(unsafe { apic(state) }.task_priority.get() >> 4 & 0xf)
}
