//! Kernel objects, the operations each takes through `Syscall::Invoke`, and the rights that guard them.
//!
//! Arguments of an operation are the message words `w0` to `w5`; results come back in the same words. A slot argument
//! is an index into the caller's own capability table unless it says otherwise; slot 0 is always empty and stands for
//! "none" where an argument is optional.

use bitflags::bitflags;

/// What a capability names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// An empty slot.
    #[default]
    Null = 0,
    /// Memory that objects can be made of.
    Untyped = 1,
    /// Pages that can be mapped.
    Frame = 2,
    /// A capability table.
    CNode = 3,
    /// A user address space with its pool of page tables.
    AddressSpace = 4,
    /// Nested page tables of a virtual machine, with its doorbells.
    GuestSpace = 5,
    /// A device's DMA domain behind an IOMMU.
    IoSpace = 6,
    /// A thread with its message buffer.
    Thread = 7,
    /// A right to processor time: budget, period, weight.
    SchedContext = 8,
    /// A rendezvous for calls.
    Endpoint = 9,
    /// The right to answer one call at a time.
    Reply = 10,
    /// A word of bits to signal and to wait for.
    Notification = 11,
    /// One interrupt source.
    Irq = 12,
    /// The right to make `Irq` capabilities.
    IrqControl = 13,
    /// A range of I/O ports.
    IoPorts = 14,
    /// A virtual processor with its shared state page.
    Vcpu = 15,
    /// Switches tracing and reads processor statistics.
    Trace = 16,
}

impl ObjectKind {
    /// Decodes a kind, for tools and for the kernel's checks of user arguments.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Null,
            1 => Self::Untyped,
            2 => Self::Frame,
            3 => Self::CNode,
            4 => Self::AddressSpace,
            5 => Self::GuestSpace,
            6 => Self::IoSpace,
            7 => Self::Thread,
            8 => Self::SchedContext,
            9 => Self::Endpoint,
            10 => Self::Reply,
            11 => Self::Notification,
            12 => Self::Irq,
            13 => Self::IrqControl,
            14 => Self::IoPorts,
            15 => Self::Vcpu,
            16 => Self::Trace,
            _ => return None,
        })
    }

    /// The kind's name as the shell and the graph print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Untyped => "untyped",
            Self::Frame => "frame",
            Self::CNode => "cnode",
            Self::AddressSpace => "address-space",
            Self::GuestSpace => "guest-space",
            Self::IoSpace => "io-space",
            Self::Thread => "thread",
            Self::SchedContext => "sched-context",
            Self::Endpoint => "endpoint",
            Self::Reply => "reply",
            Self::Notification => "notification",
            Self::Irq => "irq",
            Self::IrqControl => "irq-control",
            Self::IoPorts => "io-ports",
            Self::Vcpu => "vcpu",
            Self::Trace => "trace",
        }
    }
}

bitflags! {
    /// Rights of a capability. A bit means what the kind says; the names below are per kind.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Frame: map readable. Thread, CNode, SchedContext, Endpoint, Vcpu, spaces: ask for information.
        const READ = 1;
        /// Frame: map writable. Everything else: change it (the "control" right).
        const WRITE = 2;
        /// Frame: map executable.
        const EXECUTE = 4;
        /// Endpoint: call. Notification: signal.
        const SEND = 8;
        /// Endpoint: receive. Notification: wait, bind.
        const RECEIVE = 16;
        /// Endpoint: capabilities may travel with messages, in both directions.
        const GRANT = 32;
    }
}

/// Size classes of kernel objects, in bytes; what `Untyped` loses when one is made.
pub mod size {
    /// Endpoint.
    pub const ENDPOINT: usize = 512;
    /// Notification.
    pub const NOTIFICATION: usize = 64;
    /// Reply.
    pub const REPLY: usize = 64;
    /// SchedContext.
    pub const SCHED_CONTEXT: usize = 128;
    /// Thread with its message buffer.
    pub const THREAD: usize = 8192;
    /// Vcpu: control block, extended state, shared page.
    pub const VCPU: usize = 32768;
    /// One slot of a CNode.
    pub const SLOT: usize = 64;
    /// Most slots of a CNode, as a power of two.
    pub const CNODE_MAX_BITS: u32 = 16;
}

/// Operations on `Untyped`.
pub mod untyped {
    /// Makes objects. `w0` [`super::ObjectKind`], `w1` size (pages for Untyped and Frame; slot bits for CNode; pool pages
    /// for AddressSpace and GuestSpace; else 0), `w2` destination CNode (0: own), `w3` first slot, `w4` count (1 to 64).
    /// Memory is zeroed, except frames of device memory.
    pub const RETYPE: u64 = 0;
    /// Device memory only: makes a Frame at a place. `w0` offset in bytes, `w1` pages, `w2` CNode, `w3` slot.
    pub const FRAME_AT: u64 = 1;
    /// Results: `w0` physical base, `w1` pages, `w2` bytes used, `w3` 1 for device memory, `w4` bytes behind the used ones that are known to be zero.
    pub const INFO: u64 = 2;
    /// Zeroes the next 64 KiB of what is unused, so that making objects of it later takes no time for that. `Again`: there is more. Device memory stays as it is.
    pub const ZERO_AHEAD: u64 = 3;
}

/// Operations on `Frame`.
pub mod frame {
    /// Maps the whole frame. `w0` AddressSpace or GuestSpace, `w1` address, `w2` rights (of [`super::Rights`]) in bits
    /// 0 to 2, with flags: bit 8 uncached, bit 9 write-combining, bit 10 only 4 KiB pages. A capability is mapped once; copy it to map twice.
    pub const MAP: u64 = 0;
    /// Takes the mapping back.
    pub const UNMAP: u64 = 1;
    /// Derives a capability to a part. `w0` first page, `w1` pages, `w2` CNode (0: own), `w3` slot, `w4` rights.
    pub const SLICE: u64 = 2;
    /// Results: `w0` physical address, `w1` pages, `w2` mapped address or 0.
    pub const INFO: u64 = 3;

    /// MAP flag: no caching (device registers).
    pub const UNCACHED: u64 = 1 << 8;
    /// MAP flag: write combining (frame buffers).
    pub const WRITE_COMBINING: u64 = 1 << 9;
    /// MAP flag: only 4 KiB pages, where single pages will be treated apart.
    pub const SMALL_PAGES: u64 = 1 << 10;
}

/// Operations on `CNode`. The invoked capability is the table that is changed.
pub mod cnode {
    /// Copies a capability as a descendant of the original. `w0` destination slot, `w1` source slot, `w2` rights mask, `w3` badge (0: keep; only an
    /// unbadged Endpoint or Notification takes one), `w4` source CNode (0: own).
    pub const COPY: u64 = 0;
    /// Moves a capability with its place in the derivation tree. `w0` destination slot, `w1` source slot, `w4` source CNode (0: own).
    pub const MOVE: u64 = 1;
    /// Deletes one capability; the object goes with its last. `w0` slot.
    pub const DELETE: u64 = 2;
    /// Deletes all descendants, not the capability itself. `w0` slot. Answers [`crate::Error::Again`] when it stopped part-way to let others run.
    pub const REVOKE: u64 = 3;
    /// `w0` slot. Results: `w0` kind, `w1` rights, `w2` badge, mapped address or first port, `w3` object's identity (stable, meaningless), `w4` size in
    /// pages, ports or slots, `w5` number of capabilities to the object.
    pub const DESCRIBE: u64 = 4;
    /// `w0` first slot to look at. Result: `w0` the first occupied slot from there on, or the table's size. Read right.
    pub const NEXT_USED: u64 = 5;
    /// Result: `w0` number of slots.
    pub const INFO: u64 = 6;
}

/// Operations on `AddressSpace` and `GuestSpace`.
pub mod space {
    /// Results: `w0` pool pages, `w1` pool pages in use, `w2` the space's number.
    pub const INFO: u64 = 0;
    /// GuestSpace only: `w0` 0 port or 1 physical address, `w1` port or address, `w2` length of the access in bytes (0: any), `w3` Notification,
    /// signalled with its badge when a guest writes there; the write's value is lost.
    pub const DOORBELL: u64 = 1;
    /// GuestSpace only: removes the doorbell that DOORBELL made with the same `w0` and `w1`.
    pub const DOORBELL_REMOVE: u64 = 2;
    /// Looks a mapping up. `w0` address. Results: `w0` physical address, `w1` rights, `w2` page size; NotMapped else. Read right.
    pub const LOOKUP: u64 = 3;
    /// GuestSpace only: reads and clears what the processors recorded of the guest's accesses. `w0` address, `w1` pages, up to [`MAX_TAKEN`], `w2` 0 pages that were written, 1 those that
    /// were touched at all. Result: `w0` how many; which, says a bit each, the lowest first, in the message buffer behind the bytes that travel in registers. A larger page counts for all of its
    /// pages in the range, and is cleared only if the range has all of it. `Unsupported` where nothing is recorded.
    pub const TAKE_FLAGS: u64 = 4;
    /// Most pages of TAKE_FLAGS.
    pub const MAX_TAKEN: u64 = 4096;
    /// Doorbells of one GuestSpace.
    pub const MAX_DOORBELLS: usize = 32;
}

/// Operations on `Thread`.
pub mod thread {
    /// `w0` CNode, `w1` AddressSpace, `w2` fault Endpoint (0: none; needs the send right), `w3` SchedContext, `w4` priority | cpu << 8 | flags << 16, `w5` address
    /// where the message buffer is mapped. The thread must be stopped.
    pub const CONFIGURE: u64 = 0;
    /// `w0` instruction pointer, `w1` stack pointer, `w2` argument (arrives in `rdi`).
    pub const START: u64 = 1;
    /// Stops it wherever it is. Starting it again begins anew.
    pub const STOP: u64 = 2;
    /// `w0` priority, 0 to [`MAX_PRIORITY`]; not above the caller's own.
    pub const SET_PRIORITY: u64 = 3;
    /// `w0` Notification (0: unbind). Its signals then end the thread's `Recv` and `VcpuRun`.
    pub const BIND: u64 = 4;
    /// Results: `w0` [`ThreadState`], `w1` priority | cpu << 8 | flags << 16, `w2` processor time consumed (TSC ticks), `w3` times it was switched to, `w4` instruction
    /// pointer, `w5` stack pointer.
    pub const INFO: u64 = 5;
    /// `w0` 0: rax rbx rcx rdx rsi rdi; 1: rbp r8 r9 r10 r11 r12; 2: r13 r14 r15 rflags. The thread must not be running.
    pub const REGISTERS: u64 = 6;

    /// Flag: uses neither FPU nor SSE nor AVX; doing so is a fault. Its vCPU's state then stays in the registers.
    pub const NO_FPU: u64 = 1;
    /// Highest priority.
    pub const MAX_PRIORITY: u8 = 63;

    /// What a thread is doing.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    #[repr(u8)]
    pub enum ThreadState {
        /// Not configured or not started.
        #[default]
        Stopped = 0,
        /// Running or ready to.
        Ready = 1,
        /// In `Recv` or `ReplyRecv`, no message yet.
        Receiving = 2,
        /// In `Call`, no receiver yet.
        Calling = 3,
        /// In `Call`, the server has the message.
        AwaitingReply = 4,
        /// In `Wait`.
        Waiting = 5,
        /// Faulted, and its handler has been told or there is none.
        Faulted = 6,
        /// Used up its budget until the next period.
        Throttled = 7,
    }
}

/// Operations on `SchedContext`.
pub mod sched_context {
    /// `w0` budget in microseconds per period (0: unlimited), `w1` period in microseconds, `w2` weight 1 to 10,000 (100: normal).
    pub const CONFIGURE: u64 = 0;
    /// Results: `w0` budget, `w1` period, `w2` weight, `w3` consumed TSC ticks, `w4` times throttled.
    pub const INFO: u64 = 1;
    /// The weight a new context has.
    pub const NORMAL_WEIGHT: u64 = 100;
}

/// Operations on `Endpoint`.
pub mod endpoint {
    /// Results: `w0` calls delivered, `w1` callers waiting, `w2` receivers waiting, `w3` sum and `w4` number of measured call-to-reply times (TSC ticks; measured while tracing is on).
    pub const INFO: u64 = 0;
}

/// Operations on `IrqControl`.
pub mod irq_control {
    /// Takes an interrupt line of the IOAPICs. `w0` global system interrupt (for ISA lines 0 to 15 the line, translated by the firmware's overrides), `w1` CNode (0: own), `w2`
    /// slot, `w3` bit 0 level-triggered, bit 1 active low, bit 2 "as the firmware says", bit 3 an
    /// IOMMU remaps it: what is sent names the entry in its table that has the vector's number (VT-d 5.1.5.1). Results: `w0` vector index, `w1` 1 if level-triggered.
    pub const LINE: u64 = 0;
    /// Takes a message-signalled interrupt. `w0` processor, `w1` CNode (0: own), `w2` slot.
    pub const MSI: u64 = 1;
    /// `w0` vector index from 0. Results: `w0` 1 if in use, `w1` count of interrupts, `w2` line or all ones for MSI, `w3` processor, `w4` 1 if masked until acknowledged. `BadArgument` past the end.
    pub const INFO: u64 = 2;
}

/// Operations on `Irq`.
pub mod irq {
    /// `w0` Notification, signalled with its badge at each interrupt. The source then stays masked until ACK.
    pub const BIND: u64 = 0;
    /// Handled: unmask.
    pub const ACK: u64 = 1;
    /// What is sent, were nothing remapped. Results: `w0` message address, `w1` message data.
    pub const MESSAGE: u64 = 2;
}

/// Operations on `IoPorts`.
pub mod io_ports {
    /// `w0` port, `w1` width in bytes (1, 2, 4). Result: `w0` value. Read right.
    pub const IN: u64 = 0;
    /// `w0` port, `w1` width, `w2` value. Write right.
    pub const OUT: u64 = 1;
    /// Derives a capability to a part. `w0` first port, `w1` count, `w2` CNode (0: own), `w3` slot, `w4` rights.
    pub const SLICE: u64 = 2;
}

/// Operations on `Vcpu`.
pub mod vcpu {
    /// `w0` GuestSpace, `w1` AddressSpace, `w2` address where three pages are mapped, [`crate::vcpu::VcpuState`] and behind it [`crate::apic::ApicPage`], `w3` index of the vCPU in its VM.
    pub const CONFIGURE: u64 = 0;
    /// Brings all of the guest's state into the shared page, where the last exit brought only a part.
    pub const SYNC: u64 = 1;
    /// Results: `w0` runs, `w1` exits handled inside the kernel, `w2` doorbells rung, `w3` time in the guest (TSC ticks).
    pub const INFO: u64 = 2;
}

/// Operations on `Trace`.
pub mod trace {
    /// `w0` mask of [`crate::trace`] events to record, 0: off. Processors with a mask take the measured path for IPC.
    pub const SET_MASK: u64 = 0;
    /// `w0` processor. Results: `w0` APIC identity, `w1` idle TSC ticks, `w2` interrupts, `w3` context switches, `w4` current TSC, `w5` shoot-downs. `BadArgument` past the last.
    pub const CPU_INFO: u64 = 1;
    /// Results: `w0` features of the processors (see [`crate::boot::Features`]), `w1` TSC ticks per second, `w2` number of processors, `w3` virtualisation backend (0 none, 1 VT-x, 2 AMD-V), `w4` features of the backend that were found, `w5` those in use ([`crate::virt::VirtFeatures`]).
    pub const MACHINE: u64 = 2;
    /// Looks through a space's page tables for pages that are writable and executable. `w0` 0: the kernel's, else a slot with an AddressSpace. Results: `w0` pages looked at, `w1` violations, `w2` first violating address.
    pub const CHECK_WX: u64 = 3;
    /// Restarts (`w0` 0) or powers down (`w0` 1) the machine. `w0` 2 panics the kernel, for tests of the panic record.
    pub const MACHINE_RESET: u64 = 4;
}
