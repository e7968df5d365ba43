//! Tests of what needs no machine: formats, checks, maps, ASIDs, and the shared page's way through the VMCB.

use super::convert;
use super::vmcb::{Vmcb, clean, code, intercept, tlb, virtual_interrupt};
use super::{ALWAYS_INTERCEPTED, state};
use crate::virt::convert::{self as common, Invalid};
use crate::virt::host::{Host, pending};
use crate::virt::reset::{Loaded, store_reset};
use proptest::prelude::*;
use tessera_abi::vcpu::{
    ACCESS_EXECUTE, ACCESS_PAGE_WALK, ACCESS_WRITE, Dirty, EVENT_ERROR, EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_NMI, EVENT_SOFTWARE,
    EVENT_VALID, IO_IN, IO_REP, IO_STRING, IO_WIDTH_SHIFT, SEGMENT_UNUSABLE, Segment, Table, VcpuState, segment,
};

const SUPPORTED: u64 = 7;
const CR0_SANE: u64 = 0x8000_0011;
const PAE: u64 = 1 << 5;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;

fn zeroed<T>() -> Box<T> {
    // SAFETY: used for VMCB, book-keeping and shared page only, which are plain numbers.
    unsafe { Box::new_zeroed().assume_init() }
}

fn fresh() -> (Box<Vmcb>, Box<Host>, Box<VcpuState>) {
    let (mut vmcb, mut host, mut page) = (zeroed::<Vmcb>(), zeroed::<Host>(), zeroed::<VcpuState>());
    super::reset(&mut vmcb, &mut host);
    // SAFETY: the page is live.
    unsafe { store_reset(&raw mut *page, SUPPORTED, 832) };
    (vmcb, host, page)
}

fn load(vmcb: &mut Vmcb, host: &mut Host, page: &mut VcpuState, groups: Dirty) -> Result<Loaded, Invalid> {
    // SAFETY: the page is live.
    unsafe { state::load(vmcb, host, &raw mut *page, groups, SUPPORTED) }
}

fn store(vmcb: &Vmcb, host: &Host) -> Box<VcpuState> {
    let mut page = zeroed::<VcpuState>();
    // SAFETY: the page is live.
    unsafe { state::store_full(vmcb, host, &raw mut *page) };
    page
}

#[test]
fn reset_state_is_accepted_and_comes_back() {
    let (mut vmcb, mut host, mut page) = fresh();
    assert_eq!(page.dirty, Dirty::all().bits());
    assert_eq!((page.rip, page.segments[segment::CS].base), (0xfff0, 0xffff_0000));
    assert_eq!((page.supported_xcr0, page.xsave_size), (SUPPORTED, 832));
    assert_eq!(load(&mut vmcb, &mut host, &mut page, Dirty::all()).map(|loaded| loaded.flush), Ok(true));
    assert_ne!(vmcb.save.efer & convert::EFER_SVME, 0);
    let back = store(&vmcb, &host);
    assert_eq!(back.segments, page.segments);
    assert_eq!((back.gdtr, back.idtr), (page.gdtr, page.idtr));
    assert_eq!((back.cr0, back.cr4, back.efer, back.xcr0), (page.cr0, 0, 0, 1));
    assert_eq!((back.dr6, back.dr7, back.pat), (page.dr6, page.dr7, page.pat));
}

#[test]
fn groups_not_named_are_not_taken() {
    let (mut vmcb, mut host, mut page) = fresh();
    page.cr3 = 0x1000;
    page.star = 1;
    page.tsc_offset = 2;
    page.cr8 = 3;
    page.exception_bitmap = 1 << 6;
    page.dr7 = 0x401;
    page.segments[segment::CS].base = 4;
    assert_eq!(load(&mut vmcb, &mut host, &mut page, Dirty::empty()), Ok(Loaded::default()));
    assert_eq!((vmcb.save.cr3, vmcb.save.star, vmcb.control.tsc_offset, vmcb.save.dr7), (0, 0, 0, 0));
    assert_eq!((state::cr8(&vmcb.control), vmcb.save.segments[segment::CS].base), (0, 0));
    assert_eq!(vmcb.control.intercept_exceptions, ALWAYS_INTERCEPTED);
}

#[test]
fn changed_groups_lose_their_clean_bits() {
    for (group, bits) in [
        (Dirty::CONTROL, clean::CONTROL | clean::CR2),
        (Dirty::SEGMENTS, clean::SEGMENTS | clean::TABLES),
        (Dirty::DEBUG, clean::DEBUG),
        (Dirty::MSRS, clean::NESTED),
        (Dirty::TSC, clean::INTERCEPTS),
        (Dirty::TPR, clean::TPR),
        (Dirty::INTERCEPTS, clean::INTERCEPTS),
    ] {
        let (mut vmcb, mut host, mut page) = fresh();
        vmcb.control.clean = clean::ALL;
        assert!(load(&mut vmcb, &mut host, &mut page, group).is_ok());
        assert_eq!(vmcb.control.clean, clean::ALL & !bits, "{group:?}");
    }
}

#[test]
fn combinations_that_vmrun_refuses_are_named() {
    let check = |cr0, cr3, cr4, efer, xcr0| common::check_control(cr0, cr3, cr4, efer, xcr0, SUPPORTED).err();
    assert_eq!(check(CR0_SANE, 0, 0, 0, 1), None);
    assert_eq!(check(1 << 32, 0, 0, 0, 1), Some(Invalid::Cr0));
    assert_eq!(check(1 << 31, 0, 0, 0, 1), Some(Invalid::Cr0));
    assert_eq!(check(1 << 29, 0, 0, 0, 1), Some(Invalid::Cr0));
    assert_eq!(check(3 << 29, 0, 0, 0, 1), None);
    assert_eq!(check(1, 1 << 52, 0, 0, 1), Some(Invalid::Cr3));
    assert_eq!(check(1, 0, 1 << 13, 0, 1), Some(Invalid::Cr4));
    assert_eq!(check(1, 0, 1 << 63, 0, 1), Some(Invalid::Cr4));
    assert_eq!(check(1, 0, 0, 1 << 12, 1), Some(Invalid::Efer));
    assert_eq!(check(CR0_SANE, 0, 0, LME, 1), Some(Invalid::Efer));
    assert_eq!(check(CR0_SANE, 0, PAE, LME, 1), None);
    for xcr0 in [0, 2, 5, 8, 1 | 1 << 63] {
        assert_eq!(check(1, 0, 0, 0, xcr0), Some(Invalid::Xcr0), "{xcr0:#x}");
    }
    for xcr0 in [1, 3, 7] {
        assert_eq!(check(1, 0, 0, 0, xcr0), None, "{xcr0:#x}");
    }
}

#[test]
fn long_mode_active_follows_paging() {
    let active = |cr0, efer| common::check_control(cr0, 0, PAE, efer, 1, SUPPORTED).map(|checked| checked.efer & LMA != 0);
    assert_eq!(active(CR0_SANE, LME), Ok(true));
    assert_eq!(active(CR0_SANE, 0), Ok(false));
    assert_eq!(active(CR0_SANE, LMA), Ok(false));
    assert_eq!(active(1, LME | LMA), Ok(false));
}

#[test]
fn refused_debug_and_code_registers() {
    let (mut vmcb, mut host, mut page) = fresh();
    page.dr7 = 1 << 32;
    assert_eq!(load(&mut vmcb, &mut host, &mut page, Dirty::DEBUG), Err(Invalid::Debug));
    assert_eq!(vmcb.save.dr7, 0);
    page.segments[segment::CS].attributes = 0x9b | 1 << 13 | 1 << 14;
    assert_eq!(load(&mut vmcb, &mut host, &mut page, Dirty::SEGMENTS), Err(Invalid::CodeSegment));
}

#[test]
fn armed_breakpoints_bring_their_addresses_along() {
    let (mut vmcb, mut host, mut page) = fresh();
    assert!(load(&mut vmcb, &mut host, &mut page, Dirty::DEBUG).is_ok());
    assert_eq!(host.pending & pending::DEBUG_LOADED, 0);
    page.dr7 = 0x401;
    assert!(load(&mut vmcb, &mut host, &mut page, Dirty::DEBUG).is_ok());
    assert_ne!(host.pending & pending::DEBUG_LOADED, 0);
}

#[test]
fn privilege_level_stands_in_the_stack_segment() {
    let (mut vmcb, mut host, mut page) = fresh();
    page.segments[segment::SS].attributes = 0xf3;
    assert!(load(&mut vmcb, &mut host, &mut page, Dirty::SEGMENTS).is_ok());
    assert_eq!(vmcb.save.cpl, 3);
    vmcb.save.cpl = 0;
    assert_eq!(store(&vmcb, &host).segments[segment::SS].attributes >> 5 & 3, 0);
}

#[test]
fn host_state_stays_hidden_and_in_force() {
    let (mut vmcb, mut host, mut page) = fresh();
    page.exception_bitmap = 0;
    page.tsc_aux = u64::MAX;
    host.token = 99;
    assert!(load(&mut vmcb, &mut host, &mut page, Dirty::INTERCEPTS | Dirty::MSRS).is_ok());
    assert_eq!(vmcb.control.intercept_exceptions, ALWAYS_INTERCEPTED);
    assert_eq!(host.tsc_aux, 0xffff_ffff);
    assert_eq!(host.token, 0, "TSC_AUX is written when the vCPU is bound again");
    let back = store(&vmcb, &host);
    assert_eq!((back.exception_bitmap, back.efer), (0, 0));
    // Every exit that protects the host.
    let (first, second) = (vmcb.control.intercept_1, vmcb.control.intercept_2);
    let needed =
        intercept::INTR | intercept::NMI | intercept::INIT | intercept::IO | intercept::MSR | intercept::SHUTDOWN | intercept::INVLPGA;
    assert_eq!(first & needed, needed);
    let needed = intercept::VMRUN
        | intercept::VMLOAD
        | intercept::VMSAVE
        | intercept::STGI
        | intercept::CLGI
        | intercept::SKINIT
        | intercept::XSETBV;
    assert_eq!(second & needed, needed);
    assert_ne!(vmcb.control.virtual_interrupt & virtual_interrupt::MASKING, 0);
}

#[test]
fn events_translate_or_are_refused() {
    let valid = EVENT_VALID;
    assert_eq!(common::check_event(valid | EVENT_INTERRUPT | 0x30, 7), Ok(u64::from(valid) | 0x30));
    assert_eq!(common::check_event(valid | EVENT_NMI | 2, 0), Ok(u64::from(valid) | 0x202));
    assert_eq!(common::check_event(valid | EVENT_EXCEPTION | EVENT_ERROR | 14, 6), Ok(u64::from(valid) | 6 << 32 | 0xb0e));
    assert_eq!(common::check_event(valid | EVENT_SOFTWARE | 0x80, 0), Ok(u64::from(valid) | 0x480));
    for bad in [
        EVENT_EXCEPTION | 2,
        EVENT_EXCEPTION | 31,
        EVENT_EXCEPTION | 255,
        EVENT_NMI | 3,
        EVENT_INTERRUPT | EVENT_ERROR | 32,
        1 << 8 | 32,
        5 << 8 | 1,
        6 << 8 | 3,
        7 << 8,
        EVENT_INTERRUPT | 1 << 12 | 32,
        EVENT_INTERRUPT | 1 << 30 | 32,
    ] {
        assert_eq!(common::check_event(valid | bad, 0), Err(Invalid::Event), "{bad:#x}");
    }
    assert_eq!(common::reflected_exception(17), valid | EVENT_EXCEPTION | EVENT_ERROR | 17);
    assert_eq!(common::reflected_exception(1), valid | EVENT_EXCEPTION | 1);
}

#[test]
fn interrupted_events_come_back_or_repeat() {
    let info = |event: u32, error: u64| common::interrupted_event(u64::from(EVENT_VALID | event) | error << 32, false);
    assert_eq!(info(EVENT_INTERRUPT | 0x41, 0), Some((EVENT_VALID | 0x41, 0)));
    assert_eq!(info(EVENT_EXCEPTION | EVENT_ERROR | 14, 2), Some((EVENT_VALID | 0xb0e, 2)));
    assert_eq!(info(EVENT_EXCEPTION | 6, 0xdead), Some((EVENT_VALID | 0x306, 0)));
    assert_eq!(info(EVENT_SOFTWARE | 0x80, 0), None);
    assert_eq!(info(EVENT_EXCEPTION | 3, 0), None);
    assert_eq!(info(EVENT_EXCEPTION | 4, 0), None);
    // VT-x's types for INT1, and for INT3 and INTO.
    assert_eq!((info(5 << 8 | 1, 0), info(6 << 8 | 3, 0)), (None, None));
    let by_task_gate = |event: u32| common::interrupted_event(u64::from(EVENT_VALID | event), true);
    assert_eq!(by_task_gate(EVENT_SOFTWARE | 0x80), Some((EVENT_VALID | EVENT_SOFTWARE | 0x80, 0)));
    assert_eq!(by_task_gate(6 << 8 | 3), Some((EVENT_VALID | EVENT_EXCEPTION | 3, 0)));
}

#[test]
fn port_accesses_decode() {
    // out 0x3f8, al: port in the upper half, 8 bits, 16-bit address.
    let out = convert::io_exit(0x03f8_0000 | 1 << 4 | 1 << 7, 0x1002);
    assert_eq!((out.port(), out.width(), out.next_rip), (0x3f8, 1, 0x1002));
    assert!(out.is_plain_write() && out.is_plain());
    let input = convert::io_exit(0xffff_0000 | 1 << 6 | 1, 0);
    assert_eq!((input.port(), input.width(), input.access & IO_IN), (0xffff, 4, IO_IN));
    assert!(!input.is_plain_write() && input.is_plain());
    let string = convert::io_exit(0x0060_0000 | 1 << 5 | 1 << 2 | 1 << 3, 0);
    assert_eq!(string.access, 0x60 | 2 << IO_WIDTH_SHIFT | IO_STRING | IO_REP);
    assert!(!string.is_plain_write() && !string.is_plain());
}

#[test]
fn nested_faults_decode() {
    assert_eq!(convert::memory_access(1 << 32), 0);
    assert_eq!(convert::memory_access(1 << 32 | 2), ACCESS_WRITE);
    assert_eq!(convert::memory_access(1 << 32 | 1 << 4), ACCESS_EXECUTE);
    assert_eq!(convert::memory_access(1 << 33 | 7), ACCESS_PAGE_WALK | ACCESS_WRITE);
}

#[test]
fn task_switches_decode() {
    assert_eq!(convert::task_switch(0x28, 0, false), (0x28, 0));
    assert_eq!(convert::task_switch(0x28, 1 << 36, false), (0x28 | 1 << 32, 0));
    assert_eq!(convert::task_switch(0x28, 1 << 38, false), (0x28 | 2 << 32, 0));
    assert_eq!(convert::task_switch(0x28, 1 << 44 | 5, true), (0x28 | 3 << 32, 1 << 32 | 5));
}

#[test]
fn constants_agree_with_the_manual() {
    // APM volume 2, tables B-1 and C-1: a few that a slip would shift.
    assert_eq!((code::CPUID, code::HLT, code::IO, code::MSR, code::VMMCALL, code::XSETBV), (0x72, 0x78, 0x7b, 0x7c, 0x81, 0x8d));
    assert_eq!(code::CPUID - code::INTR, (intercept::CPUID.trailing_zeros()));
    assert_eq!(code::IRET - code::INTR, (intercept::IRET.trailing_zeros()));
    assert_eq!(code::SHUTDOWN - code::INTR, (intercept::SHUTDOWN.trailing_zeros()));
    assert_eq!(code::VINTR - code::INTR, (intercept::VINTR.trailing_zeros()));
    assert_eq!(code::XSETBV - code::VMRUN, (intercept::XSETBV.trailing_zeros()));
    assert_eq!(code::RDPRU - code::VMRUN, (intercept::RDPRU.trailing_zeros()));
    assert_eq!((tlb::KEEP, tlb::FLUSH_ALL), (0, 1));
}

prop_compose! {
    fn any_segment()(selector: u16, attributes in 0u32..0x2_0000, limit: u32, base: u64) -> Segment {
        Segment { selector, reserved: 0, attributes, limit, reserved2: 0, base }
    }
}

proptest! {
    /// Whatever the page says, taking it neither panics nor gives the guest what belongs to the host.
    #[test]
    fn any_page_is_taken_or_refused(
        groups in 0u32..256,
        control in prop::array::uniform6(any::<u64>()),
        debug: (u64, u64),
        segments in prop::array::uniform8(any_segment()),
        tables: (u64, u64, u64, u64),
        others in prop::array::uniform12(any::<u64>()),
        bitmap: u32,
    ) {
        let (mut vmcb, mut host, mut page) = fresh();
        [page.cr0, page.cr2, page.cr3, page.cr4, page.efer, page.xcr0] = control;
        (page.dr6, page.dr7) = debug;
        page.segments = segments;
        page.gdtr = Table { base: tables.0, limit: tables.1 };
        page.idtr = Table { base: tables.2, limit: tables.3 };
        [page.star, page.lstar, page.cstar, page.sfmask, page.kernel_gs_base, page.sysenter_cs,
            page.sysenter_esp, page.sysenter_eip, page.pat, page.tsc_aux, page.tsc_offset, page.cr8] = others;
        page.exception_bitmap = bitmap;
        let groups = Dirty::from_bits_truncate(groups);
        let outcome = load(&mut vmcb, &mut host, &mut page, groups);
        prop_assert_ne!(vmcb.save.efer & convert::EFER_SVME, 0);
        prop_assert_eq!(vmcb.control.intercept_exceptions & ALWAYS_INTERCEPTED, ALWAYS_INTERCEPTED);
        prop_assert_ne!(vmcb.control.virtual_interrupt & virtual_interrupt::MASKING, 0);
        prop_assert_eq!(vmcb.control.virtual_interrupt & !(virtual_interrupt::MASKING | 0xf), 0);
        prop_assert!(common::xcr0_is_valid(host.xcr0, SUPPORTED));
        prop_assert_eq!(host.tsc_aux >> 32, 0);
        if let Ok(loaded) = outcome {
            prop_assert!(loaded.xcr0.is_none_or(|xcr0| common::xcr0_is_valid(xcr0, SUPPORTED)));
            prop_assert!(!groups.contains(Dirty::FLUSH) || loaded.flush);
        }
    }

    /// What VMRUN accepts of an event is exactly what the translation lets through.
    #[test]
    fn any_event_is_well_formed_or_refused(event: u32, error: u32) {
        if let Ok(inject) = common::check_event(event | EVENT_VALID, error) {
            let (kind, vector) = (inject >> 8 & 7, inject & 0xff);
            prop_assert!(matches!(kind, 0 | 2 | 3 | 4));
            prop_assert!(kind != 3 || vector < 31 && vector != 2);
            prop_assert!(inject & 1 << 11 != 0 || inject >> 32 == 0);
            prop_assert_eq!(inject & 0x7fff_f000, 0);
        }
    }

    /// Usable segments survive the way to the VMCB and back; what VT-x would report set, is set.
    #[test]
    fn segments_round_trip(mut value in any_segment(), index in 0usize..8) {
        const DEFINED: u32 = 0xf0ff;
        value.attributes = value.attributes & DEFINED | 0x80;
        if value.limit & 0xfff != 0xfff { value.attributes &= !(1 << 15); }
        if value.limit > 0xf_ffff { value.attributes |= 1 << 15; }
        value.attributes |= match index { segment::TR => 2, segment::LDTR => 0, _ => 1 };
        let register = convert::segment_to_vmcb(value);
        prop_assert_eq!(convert::attributes_from_vmcb(register.attributes, register.limit, index), value.attributes);
        prop_assert_eq!((register.selector, register.limit, register.base), (value.selector, value.limit, value.base));
        value.attributes |= SEGMENT_UNUSABLE;
        let register = convert::segment_to_vmcb(value);
        prop_assert_eq!(convert::attributes_from_vmcb(register.attributes, register.limit, index), SEGMENT_UNUSABLE);
    }

    /// Port, width and direction of any exit information fit their fields.
    #[test]
    fn any_port_exit_decodes(info_1: u64, info_2: u64) {
        let io = convert::io_exit(info_1, info_2);
        prop_assert_eq!(u64::from(io.port()), info_1 >> 16 & 0xffff);
        prop_assert!(io.width() <= 7);
        prop_assert_eq!(io.access & !(0xffff | 7 << IO_WIDTH_SHIFT | IO_IN | IO_STRING | IO_REP), 0);
        prop_assert_eq!(io.next_rip, info_2);
    }
}
