//! What the debug shell asks init about servers, capabilities and memory. Only servers to which the manifest grants it (`supervisor` = use of `init`) are heard.

use crate::{Page, declare::interface, init::Level, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The machine and what runs on it; constant while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// Product name and version.
    pub product: String,
    /// Version of the kernel interface.
    pub abi_version: u32,
    /// Running processors.
    pub cpus: u32,
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// TSC when the kernel was entered.
    pub boot_tsc: u64,
    /// `tessera_abi::boot::Features` bits.
    pub features: u64,
    /// RAM of the machine in bytes.
    pub ram_bytes: u64,
    /// Seconds since 1970 at `boot_tsc`, 0 if unknown.
    pub wall_clock: u64,
    /// Kernel command line.
    pub command_line: String,
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerState {
    /// Started, has not said that it is ready.
    Starting,
    /// Says that it serves.
    Running,
    /// Ended; will be started again when its back-off is over.
    Waiting,
    /// Ended for good.
    Ended,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Its number: the badge of its calls to init.
    pub id: u64,
    /// Name.
    pub name: String,
    /// State.
    pub state: ServerState,
    /// How often it was started again.
    pub restarts: u32,
    /// Pages it holds: program data, stack, heap, kernel objects, what it may make objects of. Guest RAM is not counted.
    pub pages: u64,
    /// Priority of the first thread.
    pub priority: u8,
    /// Threads, or 0 if it does not run.
    pub threads: u32,
    /// Processor time of all its present threads in TSC ticks.
    pub cpu_ticks: u64,
    /// TSC at its last start.
    pub started_tsc: u64,
    /// The virtual machine it belongs to.
    pub vm: Option<String>,
    /// Why it last ended; empty if it never did.
    pub last_end: String,
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThreadState {
    /// Not started.
    Stopped,
    /// Running or ready to.
    Ready,
    /// Waits for a request.
    Receiving,
    /// Waits for a server to take its request.
    Calling,
    /// Waits for an answer.
    AwaitingReply,
    /// Waits for a notification or a deadline.
    Waiting,
    /// Faulted.
    Faulted,
    /// Used up its budget until the next period.
    Throttled,
}

/// A thread of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadInfo {
    /// Slot in the server's capability table.
    pub slot: u32,
    /// Kernel's identity of the thread, as in trace records.
    pub object: u64,
    /// State.
    pub state: ThreadState,
    /// Priority.
    pub priority: u8,
    /// Processor.
    pub cpu: u32,
    /// Uses no FPU.
    pub no_fpu: bool,
    /// Processor time in TSC ticks.
    pub cpu_ticks: u64,
    /// Times it was switched to.
    pub switches: u64,
    /// Instruction pointer.
    pub rip: u64,
}

/// A capability of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityInfo {
    /// Slot in the server's table.
    pub slot: u32,
    /// Name it was granted under; empty for what the server made itself.
    pub name: String,
    /// `tessera_abi::object::ObjectKind`.
    pub kind: u8,
    /// `tessera_abi::object::Rights` bits.
    pub rights: u8,
    /// Badge, mapped address or first port.
    pub badge: u64,
    /// Identity of the object: equal for capabilities to the same object.
    pub object: u64,
    /// Pages, ports or slots.
    pub size: u64,
    /// Capabilities to the object in the whole system.
    pub copies: u64,
}

/// A named endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Name.
    pub name: String,
    /// The server that receives on it; empty if there is none.
    pub provider: String,
    /// Calls delivered.
    pub calls: u64,
    /// Callers that wait.
    pub callers_waiting: u64,
    /// Receivers that wait.
    pub receivers_waiting: u64,
    /// Sum of call-to-reply times in TSC ticks, measured while tracing is on.
    pub latency_ticks: u64,
    /// Number of measured calls.
    pub latency_count: u64,
}

/// Where the machine's memory is, in pages. `kernel + bundle + init + servers + guests + free == total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryInfo {
    /// RAM.
    pub total: u64,
    /// Kept by the kernel and the firmware.
    pub kernel: u64,
    /// The boot bundle: programs and files.
    pub bundle: u64,
    /// init's own: heap, stack, endpoints.
    pub init: u64,
    /// Servers, without guest RAM.
    pub servers: u64,
    /// Guest RAM.
    pub guests: u64,
    /// Free.
    pub free: u64,
    /// Longest free run.
    pub largest_free: u64,
    /// Free, and zeroed ahead.
    pub zeroed: u64,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// TSC when init received it.
    pub tsc: u64,
    /// Server that wrote it; `init` for init.
    pub server: String,
    /// Level.
    pub level: Level,
    /// Text, one line.
    pub text: String,
}

/// Part of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// Cursor for what follows; equal to the asked one when there is nothing new.
    pub next: u64,
    /// Lines between the asked cursor and the first returned line that are no longer kept.
    pub lost: u64,
    /// Lines, oldest first.
    #[serde(with = "wire::list")]
    pub lines: Vec<LogLine>,
}

/// What a look through page tables found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteExecute {
    /// Pages looked at.
    pub pages: u64,
    /// Of these writable and executable; anything but 0 is a defect.
    pub violations: u64,
    /// Address of the first.
    pub first: u64,
}

/// A range of addresses of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciRange {
    /// Number of the base address register.
    pub bar: u8,
    /// I/O ports instead of memory.
    pub ports: bool,
    /// First address or port; 0: the firmware gave it none.
    pub address: u64,
    /// Length in bytes or ports.
    pub length: u64,
}

/// How a PCI function raises interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PciInterrupts {
    /// Not at all.
    None,
    /// By the line that the firmware wrote down, which is not used.
    Line(u8),
    /// By one message (MSI).
    Message {
        /// It is in use.
        used: bool,
    },
    /// By a table of messages (MSI-X).
    Table {
        /// Entries in use.
        used: u16,
        /// Entries there are.
        offered: u16,
    },
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Segment, bus, device and function, such as `0000:00:1f.2`.
    pub address: String,
    /// Who made it.
    pub vendor: u16,
    /// What they call it.
    pub device: u16,
    /// Subsystem vendor and device.
    pub subsystem: (u16, u16),
    /// Base class, sub-class, programming interface.
    pub class: (u8, u8, u8),
    /// Revision.
    pub revision: u8,
    /// It still answers.
    pub present: bool,
    /// It may access memory by itself.
    pub bus_master: bool,
    /// Ranges of addresses.
    #[serde(with = "wire::list")]
    pub ranges: Vec<PciRange>,
    /// Interrupts.
    pub interrupts: PciInterrupts,
    /// The server that holds it; empty if nobody does.
    pub holder: String,
}

interface! {
    /// Servers, their capabilities and memory, for the debug shell.
    supervisor = 2;

    /// The machine and what runs on it.
    0 idempotent fn system() -> SystemInfo;
    /// Servers, from the `first`th on. init itself is number 0.
    1 idempotent fn servers(first: u32) -> Page<ServerInfo>;
    /// Threads of the server with that number, from slot `first` of its capability table on.
    2 idempotent fn threads(server: u64, first: u32) -> Page<ThreadInfo>;
    /// Capabilities of the server with that number (0: init), from slot `first` on.
    3 idempotent fn capabilities(server: u64, first: u32) -> Page<CapabilityInfo>;
    /// Named endpoints, from the `first`th on.
    4 idempotent fn endpoints(first: u32) -> Page<EndpointInfo>;
    /// Where the memory is.
    5 idempotent fn memory() -> MemoryInfo;
    /// Ends a server as if it had failed; its restart policy applies. Ending the caller itself gives no answer.
    6 once fn kill(server: &'a str) -> ();
    /// Ends a server if it runs and starts it at once, whatever its policy.
    7 once fn restart(server: &'a str) -> ();
    /// Lines of the log from `cursor` on (0: the oldest kept).
    8 idempotent fn log(cursor: u64) -> LogChunk;
    /// Signals the Notification that comes along whenever a line is added; replaces the caller's earlier one.
    9 idempotent fn follow_log() takes 1 -> ();
    /// Looks for pages that are writable and executable in a server's address space (0: init's own; 2^64 - 1: the kernel's).
    10 idempotent fn check_wx(server: u64) -> WriteExecute;
    /// PCI functions, from the `first`th on.
    11 idempotent fn pci(first: u32) -> Page<PciFunction>;
    /// Ends the machine at once: starts it again, or switches it off. Whoever asks has seen to everything that has to be safe before.
    12 once fn end_machine(restart: bool) -> ();
}
