//! What the kernel tells init, and the capabilities init starts with.

use bitflags::bitflags;

/// Slots of init's capability table (2^[`INIT_CNODE_BITS`] of them).
pub mod slot {
    /// init's own CNode.
    pub const CNODE: u32 = 1;
    /// init's own AddressSpace.
    pub const ADDRESS_SPACE: u32 = 2;
    /// init's own Thread.
    pub const THREAD: u32 = 3;
    /// init's own SchedContext.
    pub const SCHED_CONTEXT: u32 = 4;
    /// IrqControl.
    pub const IRQ_CONTROL: u32 = 5;
    /// IoPorts 0 to 0xffff.
    pub const IO_PORTS: u32 = 6;
    /// Trace.
    pub const TRACE: u32 = 7;
    /// Read-only Frame of the boot bundle.
    pub const BUNDLE: u32 = 8;
    /// Read-only Frame of the kernel's log (see [`super::LogHeader`]).
    pub const KERNEL_LOG: u32 = 9;
    /// Read-only Frame of what the last panic left, one page; empty when its first byte is 0 (UTF-8, zero-terminated).
    pub const PANIC_RECORD: u32 = 10;
    /// Read-only Frames of the trace rings, one per processor, from here on.
    pub const TRACE_RINGS: u32 = 16;
    /// Untyped of RAM and of device memory, `BootInfo::untyped_count` of them, from here on.
    pub const UNTYPED: u32 = 64;
}

/// init's capability table has two to this many slots.
pub const INIT_CNODE_BITS: u32 = 13;
/// Most `Untyped` that the kernel hands over.
pub const MAX_UNTYPED: usize = 128;

bitflags! {
    /// What the processors can do, as far as user level cares.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// AMD-V with nested paging works.
        const SVM = 1 << 0;
        /// VT-x with EPT and unrestricted guest works.
        const VMX = 1 << 1;
        /// x2APIC in use.
        const X2APIC = 1 << 2;
        /// TSC-deadline timer in use.
        const TSC_DEADLINE = 1 << 3;
        /// Supervisor-mode execution prevention in use.
        const SMEP = 1 << 4;
        /// Supervisor-mode access prevention in use.
        const SMAP = 1 << 5;
        /// User-mode instruction prevention in use.
        const UMIP = 1 << 6;
        /// Process-context identifiers in use.
        const PCID = 1 << 7;
        /// XSAVE in use for guests.
        const XSAVE = 1 << 8;
        /// The TSC runs at a constant rate in all states.
        const INVARIANT_TSC = 1 << 9;
        /// 1 GiB pages.
        const PAGE_1G = 1 << 10;
    }
}

/// One `Untyped` of init.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct UntypedInfo {
    /// Physical address.
    pub base: u64,
    /// Length in pages.
    pub pages: u64,
    /// 1 for device memory.
    pub device: u64,
}

/// The page at [`crate::layout::START_INFO`] in init (it may be longer than one page).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    /// [`crate::ABI_VERSION`] of the kernel.
    pub abi_version: u32,
    /// Processors that run.
    pub cpu_count: u32,
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// TSC when the kernel was entered.
    pub boot_tsc: u64,
    /// Processor features in use.
    pub features: u64,
    /// RAM of the machine in bytes.
    pub ram_bytes: u64,
    /// RAM that the kernel keeps for itself in bytes.
    pub kernel_bytes: u64,
    /// Physical address of the ACPI root pointer, or 0.
    pub rsdp: u64,
    /// Length of the bundle in bytes.
    pub bundle_length: u64,
    /// Where the manifest stands in it.
    pub manifest_offset: u64,
    /// Its length.
    pub manifest_length: u64,
    /// Seconds since 1970 at boot, from the real-time clock; 0 if unreadable.
    pub wall_clock: u64,
    /// Pages of each trace ring frame.
    pub trace_ring_pages: u32,
    /// Used entries of `untyped`.
    pub untyped_count: u32,
    /// Kernel command line, zero-terminated, cut at 255 bytes.
    pub command_line: [u8; 256],
    /// The slots from [`slot::UNTYPED`] on.
    pub untyped: [UntypedInfo; MAX_UNTYPED],
}

/// Start of the kernel-log frame; text follows as a ring of `capacity` bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogHeader {
    /// Bytes ever written; the newest byte stands at `(written - 1) % capacity`.
    pub written: u64,
    /// Bytes of the ring.
    pub capacity: u64,
}
