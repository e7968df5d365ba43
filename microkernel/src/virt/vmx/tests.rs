//! Tests of what needs no machine: formats, and the layout that the hardware is told.

use super::convert::{self, CR0_MASK, CR4_VMXE, cr0_write_faults, cr4_guest_bits};
use super::{MsrEntry, Own, SWITCHED_MSRS};
use crate::virt::convert::visible_attributes;
use crate::virt::{AREA_SIZE, VcpuArea};
use core::mem::offset_of;
use proptest::prelude::*;
use tessera_abi::vcpu::{
    ACCESS_EXECUTE, ACCESS_PAGE_WALK, ACCESS_WRITE, IO_IN, IO_REP, IO_STRING, IO_WIDTH_SHIFT, SEGMENT_UNUSABLE, segment,
};

#[test]
fn the_hardware_finds_what_it_needs_where_it_may_be() {
    assert_eq!(offset_of!(VcpuArea, vmcb) % 4096, 0);
    let msrs = offset_of!(VcpuArea, vmx) + offset_of!(Own, msrs);
    assert_eq!(msrs % 16, 0);
    assert_eq!(msrs / 4096, (msrs + SWITCHED_MSRS.len() * size_of::<MsrEntry>() - 1) / 4096);
    assert_eq!((size_of::<MsrEntry>(), size_of::<VcpuArea>()), (16, AREA_SIZE));
}

#[test]
fn port_accesses_decode() {
    let io = convert::io_exit(0x3f8 << 16 | 1 << 3, 0x1001);
    assert_eq!((io.port(), io.width(), io.is_plain(), io.is_plain_write(), io.next_rip), (0x3f8, 1, true, false, 0x1001));
    let io = convert::io_exit(0x80 << 16 | 3, 2);
    assert_eq!((io.port(), io.width(), io.is_plain_write()), (0x80, 4, true));
    let io = convert::io_exit(0x1f0 << 16 | 1 << 5 | 1 << 4 | 1 << 3 | 1, 2);
    assert_eq!(io.access, 0x1f0 | IO_IN | IO_STRING | IO_REP | 2 << IO_WIDTH_SHIFT);
}

#[test]
fn accesses_to_memory_decode() {
    assert_eq!(convert::memory_access(1 | 3 << 7), 0);
    assert_eq!(convert::memory_access(2 | 3 << 7), ACCESS_WRITE);
    assert_eq!(convert::memory_access(4 | 3 << 7), ACCESS_EXECUTE);
    assert_eq!(convert::memory_access(1 | 1 << 7), ACCESS_PAGE_WALK);
    // Without a linear address bit 8 means nothing.
    assert_eq!(convert::memory_access(3), ACCESS_WRITE);
}

#[test]
fn writes_to_control_registers_fault_as_without_vmx() {
    for bad in [1 << 32, 1 << 31, 1 << 29, 1 << 31 | 1 << 30] {
        assert!(cr0_write_faults(bad), "{bad:#x}");
    }
    for good in [0, 1, 0x6000_0010, 0x8000_0001, 1 << 30] {
        assert!(!cr0_write_faults(good), "{good:#x}");
    }
    let bits = cr4_guest_bits(u64::MAX);
    assert_eq!(bits & (CR4_VMXE | 3 << 22 | 1 << 14), 0);
    assert_eq!(bits & (1 << 5 | 1 << 18 | 1 << 20), 1 << 5 | 1 << 18 | 1 << 20);
    assert_eq!(cr4_guest_bits(1 << 5), 1 << 5);
    assert_eq!(CR0_MASK & (1 << 31 | 1 | 1 << 3), 0, "PG, PE and TS are the guest's own");
}

proptest! {
    /// What the VMCS gets for any segment passes the checks that do not depend on other registers (SDM volume 3, 27.3.1.2).
    #[test]
    fn any_segment_fits_the_vmcs(rights in 0u32..0x2_0000, limit: u32, index in 0usize..8) {
        let value = convert::attributes(visible_attributes(rights, limit, index));
        if value & u64::from(SEGMENT_UNUSABLE) != 0 {
            prop_assert_eq!(value, u64::from(SEGMENT_UNUSABLE));
        } else {
            prop_assert_eq!(value & !0xf0ff, 0);
            prop_assert_ne!(value & 1 << 7, 0, "present");
            if limit & 0xfff != 0xfff && limit >> 20 == 0 {
                prop_assert_eq!(value & 1 << 15, 0, "granularity");
            }
            if limit >> 20 != 0 {
                prop_assert_ne!(value & 1 << 15, 0, "granularity");
            }
            if index == segment::TR {
                prop_assert_ne!(value & 2, 0, "busy");
            }
        }
    }

    /// Port, width and direction of any qualification fit their fields.
    #[test]
    fn any_port_exit_decodes(qualification: u64, next: u64) {
        let io = convert::io_exit(qualification, next);
        prop_assert_eq!(u64::from(io.port()), qualification >> 16 & 0xffff);
        prop_assert_eq!(io.access & !(0xffff | 0xf << IO_WIDTH_SHIFT | IO_IN | IO_STRING | IO_REP), 0);
        prop_assert_eq!(io.access & IO_IN != 0, qualification & 8 != 0);
    }
}
