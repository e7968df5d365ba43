//! Where things stand in a user address space. One place, so that kernel, init and image-builder agree.

/// First address that may be mapped; the null page and what small offsets from it reach stay empty.
pub const USER_BOTTOM: u64 = 0x1_0000;
/// One past the last address that may be mapped. The page below the end of the canonical half is never mapped, so a
/// `syscall` there cannot leave a return address that `sysret` would fault on in ring 0.
pub const USER_TOP: u64 = 0x0000_7fff_ffff_f000;

/// Where programs are linked.
pub const PROGRAM_BASE: u64 = 0x40_0000;
/// `StartInfo` of a server (postcard), or [`crate::boot::BootInfo`] for init; read-only.
pub const START_INFO: u64 = 0x1000_0000;
/// Thread `i` of a process has its message buffer at `UTCB_BASE + i * UTCB_STRIDE`.
pub const UTCB_BASE: u64 = 0x1100_0000;
/// Distance of two message buffers: each is followed by an unmapped page.
pub const UTCB_STRIDE: u64 = 0x2000;
/// First thread's stack ends here; unmapped guard pages on both sides.
pub const STACK_TOP: u64 = 0x1200_0000;
/// The heap that the runtime's allocator starts with.
pub const HEAP_BASE: u64 = 0x2000_0000;
/// From here the runtime places what a server maps by itself.
pub const DYNAMIC_BASE: u64 = 0x4000_0000;
/// init maps the boot bundle here, read-only.
pub const BUNDLE_BASE: u64 = 0x1_0000_0000;
