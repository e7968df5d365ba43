//! Between AMD's formats and those of `abi::vcpu`. Nothing here touches the machine.

use super::vmcb::SegmentRegister;
use crate::virt::convert::{IO_FIELDS, IoExit, visible_attributes};
use tessera_abi::vcpu::{ACCESS_EXECUTE, ACCESS_PAGE_WALK, ACCESS_WRITE, SEGMENT_UNUSABLE, Segment};

/// EFER.SVME: set while the processor can run guests, never shown to them.
pub const EFER_SVME: u64 = 1 << 12;

/// Segment register for the VMCB. An unusable segment becomes one that is not present.
#[must_use]
pub const fn segment_to_vmcb(segment: Segment) -> SegmentRegister {
    let rights = segment.attributes;
    let attributes = if rights & SEGMENT_UNUSABLE != 0 { 0 } else { (rights & 0xff | rights >> 4 & 0xf00) as u16 };
    SegmentRegister { selector: segment.selector, attributes, limit: segment.limit, base: segment.base }
}

/// Attributes from the VMCB, as the interface has them.
#[must_use]
#[inline(always)]
pub const fn attributes_from_vmcb(attributes: u16, limit: u32, index: usize) -> u32 {
    let raw = attributes as u32;
    visible_attributes(raw & 0xff | (raw & 0xf00) << 4, limit, index)
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

/// `ACCESS_*` of a nested page fault (APM volume 2, 15.25.6).
#[must_use]
pub const fn memory_access(info_1: u64) -> u64 {
    ((info_1 >> 1 & 1) * ACCESS_WRITE) | ((info_1 >> 4 & 1) * ACCESS_EXECUTE) | ((info_1 >> 33 & 1) * ACCESS_PAGE_WALK)
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
