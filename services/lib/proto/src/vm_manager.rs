//! Virtual machines as a whole, served by init. Only servers to which the manifest grants it (`vm_manager` = use of `init`) are heard.

use crate::{Page, declare::interface};
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// What a virtual machine is doing, as far as init knows. Its VMM knows more, see `vm_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// Not started, or ended in order.
    Stopped,
    /// Its VMM runs.
    Running,
    /// Its VMM failed; `reason` says why.
    Failed,
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSummary {
    /// Name.
    pub name: String,
    /// State.
    pub state: VmState,
    /// RAM in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Host pages it takes beyond its RAM: VMM, VMX and their kernel objects. 0 if it does not run.
    pub overhead_pages: u64,
    /// How often it was started since boot.
    pub starts: u32,
    /// TSC of the last start.
    pub started_tsc: u64,
    /// Why it last ended; empty if it never did.
    pub reason: String,
}

/// A service of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmService {
    /// `vm_control`, served by its VMM.
    Control,
    /// `vm_console`, served by its VMX.
    Console,
}

interface! {
    /// Lists, starts and stops virtual machines, and connects to them.
    vm_manager = 3;

    /// Virtual machines, from the `first`th on.
    0 idempotent fn list(first: u32) -> Page<VmSummary>;
    /// Starts a machine that is stopped.
    1 once fn start(name: &'a str) -> ();
    /// Ends a running machine at once, as if its power failed, and takes back its memory.
    2 once fn stop(name: &'a str) -> ();
    /// Gives an Endpoint on which to call a service of the machine. It stays good when the serving process is restarted, and dies with the machine.
    3 idempotent fn connect(name: &'a str, service: VmService) gives 1 -> ();
}
