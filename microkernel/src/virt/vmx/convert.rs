//! Between VT-x's formats and those of `abi::vcpu`. Nothing here touches the machine.

use crate::virt::convert::{CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_DEFINED, IoExit};
use tessera_abi::vcpu::{ACCESS_EXECUTE, ACCESS_PAGE_WALK, ACCESS_WRITE, IO_IN, IO_REP, IO_STRING, IO_WIDTH_SHIFT, SEGMENT_UNUSABLE};

/// CR0.NE, which VMX operation demands.
pub const CR0_NE: u64 = 1 << 5;
/// CR4.VMXE, likewise.
pub const CR4_VMXE: u64 = 1 << 13;
/// Bits of CR0 that the guest sees as it wrote them while the processor has something else: it never loads CD and NW at an entry.
pub const CR0_MASK: u64 = CR0_NE | CR0_NW | CR0_CD;
/// CR4.PKE, CR4.CET: the kernel does not switch the registers behind them.
const CR4_NOT_OFFERED: u64 = 3 << 22;

/// Bits of CR4 that a guest can set; the others belong to the host.
pub const fn cr4_guest_bits(allowed: u64) -> u64 {
    CR4_DEFINED & !CR4_NOT_OFFERED & allowed
}

/// Decodes the qualification of an I/O exit (SDM volume 3, table 28-5).
#[must_use]
#[inline(always)]
pub const fn io_exit(qualification: u64, next_rip: u64) -> IoExit {
    let width = (qualification & 7) + 1;
    // IN, string and repeat follow each other in bits 3 to 5; the interface has no second of three.
    let kind = ((qualification >> 3 & 1) * IO_IN) | ((qualification >> 4 & 1) * IO_STRING) | ((qualification >> 5 & 1) * IO_REP);
    IoExit { access: qualification >> 16 & 0xffff | kind | width << IO_WIDTH_SHIFT, next_rip }
}

/// `ACCESS_*` of an EPT violation (SDM volume 3, table 28-7).
#[must_use]
pub const fn memory_access(qualification: u64) -> u64 {
    let walk = (qualification & 3 << 7 == 1 << 7) as u64;
    ((qualification >> 1 & 1) * ACCESS_WRITE) | ((qualification >> 2 & 1) * ACCESS_EXECUTE) | (walk * ACCESS_PAGE_WALK)
}

/// Attributes for the VMCS: only what it may hold. An unusable segment has that bit alone.
#[must_use]
pub const fn attributes(attributes: u32) -> u64 {
    if attributes & SEGMENT_UNUSABLE != 0 { SEGMENT_UNUSABLE as u64 } else { attributes as u64 & 0xf0ff }
}

/// Whether a MOV to CR0 faults before anything else is looked at (SDM volume 2, MOV to control registers).
#[must_use]
pub const fn cr0_write_faults(value: u64) -> bool {
    value >> 32 != 0 || value & (CR0_PG | CR0_PE) == CR0_PG || value & (CR0_NW | CR0_CD) == CR0_NW
}
