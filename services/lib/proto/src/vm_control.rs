//! One virtual machine from the inside, served by its VMM on the `control` endpoint.

use crate::{declare::interface, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// How a monitor ends whose guest's watchdog had it switched off.
pub const WATCHDOG_OFF: &str = "the guest's watchdog switched it off";

/// What the virtual machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// Guest memory is being filled.
    Loading,
    /// Virtual processors run.
    Running,
    /// The guest did something that cannot be handled; `report` says what.
    Failed,
    /// The guest switched itself off.
    PoweredOff,
    /// It stands still, and its state is being written.
    Suspending,
    /// The guest sleeps, with its RAM kept (ACPI S3). The power button wakes it, a key at its keyboard, or its clock's alarm.
    Sleeping,
}

/// What a virtual processor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VcpuRunState {
    /// Waits for its start-up interrupt (SDM volume 3, 8.4).
    WaitForStart,
    /// In the guest or in an exit handler.
    Running,
    /// Halted until an interrupt.
    Halted,
    /// Ended with its machine.
    Stopped,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmInfo {
    /// State.
    pub state: RunState,
    /// State of each virtual processor.
    #[serde(with = "wire::list")]
    pub vcpus: Vec<VcpuRunState>,
    /// TSC when the guest last started to run.
    pub started_tsc: u64,
    /// How often the guest was reset.
    pub resets: u32,
    /// How often its kernel said that it panicked, since the machine's start.
    pub panics: u32,
    /// How often it did not come by at its watchdog in time, likewise.
    pub watchdog_timeouts: u32,
    /// Why it is not running, with registers and code bytes, lines of text; empty while it runs, unless it was to be suspended and that failed.
    pub report: String,
}

/// How often a virtual processor left the guest for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCount {
    /// `tessera_abi::vcpu::ExitReason`.
    pub reason: u8,
    /// Exits.
    pub count: u64,
    /// TSC ticks spent on them in the VMM: an estimate from one exit in 16; 0 if none was measured.
    pub ticks: u64,
}

/// Exits of one virtual processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuExits {
    /// Counts, reasons that never happened left out.
    #[serde(with = "wire::list")]
    pub exits: Vec<ExitCount>,
    /// Exits that the kernel handled alone.
    pub in_kernel: u64,
    /// Doorbells.
    pub doorbells: u64,
    /// TSC ticks in the guest.
    pub guest_ticks: u64,
    /// Interrupts injected.
    pub injected: u64,
}

/// A segment register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRegister {
    /// Selector.
    pub selector: u16,
    /// Attributes as in `tessera_abi::vcpu::Segment`.
    pub attributes: u32,
    /// Limit in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

/// Registers of a virtual processor: those at its last exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// What the processor is doing.
    pub state: VcpuRunState,
    /// General registers as instructions encode them: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8.
    pub cr8: u64,
    /// EFER.
    pub efer: u64,
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    pub segments: [SegmentRegister; 8],
    /// Base and limit of the GDT.
    pub gdtr: (u64, u64),
    /// Base and limit of the IDT.
    pub idtr: (u64, u64),
    /// Last exit: `tessera_abi::vcpu::ExitReason`.
    pub exit: u8,
    /// Bytes at the instruction pointer; empty if they cannot be read.
    #[serde(with = "wire::bytes")]
    pub code: Vec<u8>,
}

/// What a machine has of its memory, in bytes. What only the guest knows comes from its balloon driver, every 10 s; none without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmMemory {
    /// RAM.
    pub ram: u64,
    /// Pages of 4 KiB, 2 MiB and 1 GiB by which the processor's nested page tables map it: numbers.
    pub pages: [u64; 3],
    /// The guest is asked to do without this much.
    pub target: u64,
    /// It does without this much.
    pub given_up: u64,
    /// Not used for anything.
    pub free: Option<u64>,
    /// All that the guest's system manages.
    pub total: Option<u64>,
    /// Could be had without swapping.
    pub available: Option<u64>,
    /// Holds copies of what is on disks.
    pub caches: Option<u64>,
    /// Brought in from swap since the start.
    pub swapped_in: Option<u64>,
    /// Written out to swap since the start.
    pub swapped_out: Option<u64>,
    /// Page faults that waited for a disk, since the start: a number.
    pub major_faults: Option<u64>,
}

/// Most bytes that go to a guest's agent, or come from it, in a message.
pub const MAX_AGENT_DATA: usize = 3072;

/// What the agent in a guest said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOutput {
    /// A program in the guest has the agent's port open.
    pub open: bool,
    /// Bytes, at most [`MAX_AGENT_DATA`].
    #[serde(with = "wire::bytes")]
    pub data: Vec<u8>,
}

interface! {
    /// Looks into one virtual machine and controls it.
    vm_control = 4;

    /// State of the machine.
    0 idempotent fn info() -> VmInfo;
    /// Exit counters of a virtual processor.
    1 idempotent fn exits(vcpu: u32) -> VcpuExits;
    /// Registers of a virtual processor.
    2 idempotent fn registers(vcpu: u32) -> Registers;
    /// Presses the power button (ACPI); the guest may ignore it. A guest that sleeps wakes.
    3 once fn power_button() -> ();
    /// Resets the machine, as if its reset button was pressed.
    4 once fn reset() -> ();
    /// Sends a non-maskable interrupt to a virtual processor, so that a stuck guest shows where it is.
    5 once fn inject_nmi(vcpu: u32) -> ();
    /// How much memory the guest uses and does without.
    6 idempotent fn memory() -> VmMemory;
    /// Asks the guest to do without this many bytes of its memory; its balloon driver follows as far as it can.
    7 idempotent fn set_balloon(bytes: u64) -> ();
    /// Suspends the machine into its file (`vm_manager.set_state_file`). Answers when that has begun: when it is done the monitor ends and the machine is suspended; if it fails, the machine goes on, and `info` says why.
    8 once fn suspend() -> ();
    /// Sends bytes to the agent in the guest (qemu-guest-agent): how many were taken.
    9 once fn agent_write(data: &'a [u8]) -> u32;
    /// Takes what the agent said. What nobody takes keeps it waiting.
    10 once fn agent_read() -> AgentOutput;
}
