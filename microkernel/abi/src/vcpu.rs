//! Running virtual processors: the page that kernel and VMM share, and why `VcpuRun` returns. Nothing here depends on VT-x or AMD-V.
//!
//! On every exit the kernel stores `exit`, the general registers, `rip`, `rflags`, `interrupt_shadow` and `vectoring`. The rest of [`VcpuState`] is stored on
//! the exits that say so ([`ExitReason::is_full`]) and on `vcpu::SYNC`; on other exits its fields hold older values. The kernel takes general registers, `rip`, `rflags`,
//! `interrupt_shadow` and `inject` at each entry, and of the rest the groups named in `dirty`, which it then clears.

use bitflags::bitflags;

/// Why `VcpuRun` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitReason {
    /// Never ran.
    None = 0,
    /// Port access. `info[0]` port | width in bytes << [`IO_WIDTH_SHIFT`] | [`IO_IN`] | [`IO_STRING`] | [`IO_REP`]; `info[1]` next instruction. For a plain `in`, the VMM puts the value into `rax`.
    Io = 1,
    /// `cpuid`.
    Cpuid = 2,
    /// `rdmsr` of an MSR the kernel does not pass through; number in `rcx`.
    ReadMsr = 3,
    /// `wrmsr`; number in `rcx`, value in `rdx:rax`.
    WriteMsr = 4,
    /// `hlt`.
    Halt = 5,
    /// Guest-physical address without mapping or without the right. `info[0]` address, `info[1]` [`ACCESS_WRITE`], [`ACCESS_EXECUTE`], [`ACCESS_PAGE_WALK`], `info[2]` guest-linear address if known (VT-x), `info[3]`
    /// number of valid `instruction` bytes (decode assists), else 0. Full.
    Memory = 6,
    /// The guest can take an interrupt now, as was asked for with `request_window`.
    InterruptWindow = 7,
    /// The deadline passed.
    Deadline = 8,
    /// Triple fault or shutdown. Full.
    Shutdown = 9,
    /// The processor refused the guest state or a control. `info[0]` backend's raw reason, `info[1]` field or instruction error. Full if the kernel refused by itself (`info[1]` is not 0);
    /// if the processor did, the page keeps what the VMM wrote and all groups are dirty: what the guest had beyond that is lost.
    EntryFailed = 10,
    /// `vmcall` or `vmmcall`.
    Hypercall = 11,
    /// `xsetbv`; register in `rcx`, value in `rdx:rax`.
    XSetBv = 12,
    /// Control-register access that the VMM must decide. `info[0]` register | 0x100 if a read | general register << 16. Full.
    ControlRegister = 13,
    /// `invd`, `wbinvd`.
    CacheFlush = 14,
    /// `monitor` (`info[0]` 0), `mwait` (1).
    Mwait = 15,
    /// `rdpmc`.
    ReadPmc = 16,
    /// Task switch. `info[0]` selector | source << 32 (0 call, 1 iret, 2 jmp, 3 gate), `info[1]` error code | 1 << 32 if there is one. Full.
    TaskSwitch = 17,
    /// An instruction of the virtualisation extension itself; the VMM injects #UD.
    Virtualisation = 18,
    /// An exception the kernel was told to intercept. `info[0]` vector, `info[1]` error code, `info[2]` address (page fault). Full.
    Exception = 19,
    /// `pause` where something is due behind it, as with single steps; any other lets the kernel run equals first.
    Pause = 20,
    /// Non-maskable interrupt can be taken now (`request_nmi_window`).
    NmiWindow = 21,
    /// Something this kernel has no name for. `info[0]` backend's raw reason, `info[1]`, `info[2]` its information. Full.
    Unknown = 22,
    /// The bound Notification was signalled; status of the call is [`crate::syscall::NOTIFIED`] and the bits are in `rdi`.
    Notified = 23,
    /// `iret` that ended NMI blocking, for backends without virtual NMI; internal to the kernel.
    Iret = 24,
    /// The guest ended an interrupt that is in the APIC page's `trigger_mode`, where the processor delivers; the instruction is done. `info[0]` vector.
    EndOfInterrupt = 25,
}

impl ExitReason {
    /// Number of reasons, for tables of counters.
    pub const COUNT: usize = 26;

    /// Decodes a reason.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::None,
            1 => Self::Io,
            2 => Self::Cpuid,
            3 => Self::ReadMsr,
            4 => Self::WriteMsr,
            5 => Self::Halt,
            6 => Self::Memory,
            7 => Self::InterruptWindow,
            8 => Self::Deadline,
            9 => Self::Shutdown,
            10 => Self::EntryFailed,
            11 => Self::Hypercall,
            12 => Self::XSetBv,
            13 => Self::ControlRegister,
            14 => Self::CacheFlush,
            15 => Self::Mwait,
            16 => Self::ReadPmc,
            17 => Self::TaskSwitch,
            18 => Self::Virtualisation,
            19 => Self::Exception,
            20 => Self::Pause,
            21 => Self::NmiWindow,
            22 => Self::Unknown,
            23 => Self::Notified,
            24 => Self::Iret,
            25 => Self::EndOfInterrupt,
            _ => return None,
        })
    }

    /// Name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Io => "port I/O",
            Self::Cpuid => "CPUID",
            Self::ReadMsr => "RDMSR",
            Self::WriteMsr => "WRMSR",
            Self::Halt => "HLT",
            Self::Memory => "memory",
            Self::InterruptWindow => "interrupt window",
            Self::Deadline => "deadline",
            Self::Shutdown => "shutdown",
            Self::EntryFailed => "entry failed",
            Self::Hypercall => "hypercall",
            Self::XSetBv => "XSETBV",
            Self::ControlRegister => "control register",
            Self::CacheFlush => "cache flush",
            Self::Mwait => "MONITOR/MWAIT",
            Self::ReadPmc => "RDPMC",
            Self::TaskSwitch => "task switch",
            Self::Virtualisation => "virtualisation instruction",
            Self::Exception => "exception",
            Self::Pause => "PAUSE",
            Self::NmiWindow => "NMI window",
            Self::Unknown => "unknown",
            Self::Notified => "notified",
            Self::Iret => "IRET",
            Self::EndOfInterrupt => "end of interrupt",
        }
    }

    /// Whether the whole state is stored with this exit.
    #[must_use]
    pub const fn is_full(self) -> bool {
        matches!(
            self,
            Self::Memory | Self::Shutdown | Self::EntryFailed | Self::ControlRegister | Self::TaskSwitch | Self::Exception | Self::Unknown
        )
    }
}

/// `info[0]` of [`ExitReason::Io`]: an `in`.
pub const IO_IN: u64 = 1 << 16;
/// `info[0]` of [`ExitReason::Io`]: `ins` or `outs`. Such an exit is full.
pub const IO_STRING: u64 = 1 << 18;
/// `info[0]` of [`ExitReason::Io`]: with a `rep` prefix.
pub const IO_REP: u64 = 1 << 19;
/// `info[0]` of [`ExitReason::Io`]: where the width in bytes (1, 2, 4) begins; three bits.
pub const IO_WIDTH_SHIFT: u32 = 20;
/// `info[1]` of [`ExitReason::Memory`]: a write.
pub const ACCESS_WRITE: u64 = 1;
/// `info[1]` of [`ExitReason::Memory`]: an instruction fetch.
pub const ACCESS_EXECUTE: u64 = 2;
/// `info[1]` of [`ExitReason::Memory`]: the processor was walking the guest's page tables.
pub const ACCESS_PAGE_WALK: u64 = 4;

bitflags! {
    /// Groups of [`VcpuState`] that the VMM changed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Dirty: u32 {
        /// `segments`, `gdtr`, `idtr`.
        const SEGMENTS = 1;
        /// `cr0`, `cr2`, `cr3`, `cr4`, `efer`, `xcr0`.
        const CONTROL = 2;
        /// `dr`, `dr6`, `dr7`.
        const DEBUG = 4;
        /// `star` to `sysenter_eip`, `pat`, `tsc_aux`.
        const MSRS = 8;
        /// `tsc_offset`.
        const TSC = 16;
        /// `cr8`.
        const TPR = 32;
        /// `exception_bitmap`.
        const INTERCEPTS = 64;
        /// The virtual TLB must be flushed.
        const FLUSH = 128;
    }
}

/// [`VcpuState::request_window`]: exit as soon as the guest can take an interrupt.
pub const WINDOW_EXIT: u32 = 1;
/// [`VcpuState::request_window`]: the VMM changed what is requested or in service in the APIC page, or the task priority, and leaves it to the kernel to deliver the highest request as
/// soon as the guest can take it.
pub const WINDOW_DELIVER: u32 = 2;

/// [`VcpuState::inject`] and [`VcpuState::vectoring`]: an event is there.
pub const EVENT_VALID: u32 = 1 << 31;
/// The event has an error code.
pub const EVENT_ERROR: u32 = 1 << 11;
/// Type field of an event, bits 8 to 10 (SDM volume 3, 26.8.3; the AMD-V backend translates).
pub const EVENT_INTERRUPT: u32 = 0 << 8;
/// Non-maskable interrupt.
pub const EVENT_NMI: u32 = 2 << 8;
/// Hardware exception.
pub const EVENT_EXCEPTION: u32 = 3 << 8;
/// Software interrupt (`int n`); needs `instruction_length`.
pub const EVENT_SOFTWARE: u32 = 4 << 8;

/// A segment register: `attributes` as in the VMX access-rights field (SDM volume 3, table 25-2): type, S, DPL, P, AVL, L, D/B, G; bit 16 unusable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Not used.
    pub reserved: u16,
    /// Attributes.
    pub attributes: u32,
    /// Limit in bytes.
    pub limit: u32,
    /// Not used.
    pub reserved2: u32,
    /// Base.
    pub base: u64,
}

/// [`Segment::attributes`]: the register holds no segment.
pub const SEGMENT_UNUSABLE: u32 = 1 << 16;

/// Base and limit of a descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Table {
    /// Base.
    pub base: u64,
    /// Limit.
    pub limit: u64,
}

/// Index into [`VcpuState::segments`].
pub mod segment {
    /// ES.
    pub const ES: usize = 0;
    /// CS.
    pub const CS: usize = 1;
    /// SS.
    pub const SS: usize = 2;
    /// DS.
    pub const DS: usize = 3;
    /// FS.
    pub const FS: usize = 4;
    /// GS.
    pub const GS: usize = 5;
    /// LDTR.
    pub const LDTR: usize = 6;
    /// TR.
    pub const TR: usize = 7;
}

/// Index into [`VcpuState::gpr`], as instructions encode registers.
pub mod gpr {
    /// RAX.
    pub const RAX: usize = 0;
    /// RCX.
    pub const RCX: usize = 1;
    /// RDX.
    pub const RDX: usize = 2;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RBP.
    pub const RBP: usize = 5;
    /// RSI.
    pub const RSI: usize = 6;
    /// RDI.
    pub const RDI: usize = 7;
}

/// The shared page.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4096))]
pub struct VcpuState {
    /// Why the guest stopped; an [`ExitReason`].
    pub reason: u32,
    /// Length of the instruction that exited, if known; else 0 (AMD-V without next-RIP, except for port I/O): the VMM knows the lengths of
    /// `cpuid`, `rdmsr`, `wrmsr`, `hlt` without prefixes or decodes.
    pub instruction_length: u32,
    /// See the reason.
    pub info: [u64; 4],
    /// General registers; `rsp` among them.
    pub gpr: [u64; 16],
    /// Instruction pointer: of the instruction that exited.
    pub rip: u64,
    /// Flags register.
    pub rflags: u64,
    /// Bit 0: `sti` or `mov ss` blocks interrupts for one instruction. Bit 1: NMI blocked.
    pub interrupt_shadow: u32,
    /// The event whose delivery the exit interrupted: the VMM injects it again. What stands here at an entry, while `inject` holds nothing, the kernel does.
    pub vectoring: u32,
    /// [`Dirty`] groups for the next entry.
    pub dirty: u32,
    /// Event to inject at the next entry: [`EVENT_VALID`] | type | vector. The kernel clears it; after an exit that is not the guest's own it may stand there again, when something of the host's came first.
    pub inject: u32,
    /// [`WINDOW_EXIT`] and [`WINDOW_DELIVER`], of which the kernel clears the latter.
    pub request_window: u32,
    /// 1: exit as soon as the guest can take an NMI.
    pub request_nmi_window: u32,
    /// Error code of `vectoring`.
    pub vectoring_error: u32,
    /// Error code of `inject`.
    pub inject_error: u32,
    /// Fetched instruction bytes, if the processor gives them.
    pub instruction: [u8; 16],
    /// Control registers.
    pub cr0: u64,
    /// Page-fault address.
    pub cr2: u64,
    /// Page-table root.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Task priority (bits 0 to 3), kept current on every exit.
    pub cr8: u64,
    /// Extended features.
    pub efer: u64,
    /// Extended control register 0, within what the kernel manages (`supported_xcr0`). Also current at a `cpuid` of leaf 0xd, whose answer depends on it.
    pub xcr0: u64,
    /// Debug status.
    pub dr6: u64,
    /// Debug control.
    pub dr7: u64,
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    pub segments: [Segment; 8],
    /// Global descriptor table.
    pub gdtr: Table,
    /// Interrupt descriptor table.
    pub idtr: Table,
    /// MSR STAR.
    pub star: u64,
    /// MSR LSTAR.
    pub lstar: u64,
    /// MSR CSTAR.
    pub cstar: u64,
    /// MSR SFMASK.
    pub sfmask: u64,
    /// MSR KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// MSR SYSENTER_CS.
    pub sysenter_cs: u64,
    /// MSR SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// MSR SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// MSR PAT.
    pub pat: u64,
    /// MSR TSC_AUX.
    pub tsc_aux: u64,
    /// Added to the host's TSC when the guest reads it.
    pub tsc_offset: u64,
    /// Exception vectors that exit instead of going to the guest.
    pub exception_bitmap: u32,
    /// Kernel to VMM, constant: 1 if the processor delivers from the APIC page by itself. The VMM then injects no interrupt that it requested there.
    pub processor_delivers: u32,
    /// Breakpoint addresses: DR0 to DR3.
    pub dr: [u64; 4],
    /// Kernel to VMM, constant: XCR0 bits that guests may have.
    pub supported_xcr0: u64,
    /// Kernel to VMM, constant: bytes of extended state for them.
    pub xsave_size: u64,
}

const _: () = assert!(size_of::<VcpuState>() == 4096);
