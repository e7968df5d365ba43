//! Capabilities by kind. Each type is a slot number that its methods may use for that kind's operations; the kernel checks kind and rights at every call, so a wrong
//! number is an error and never a danger. They are plain values: dropping one deletes nothing (see [`crate::slots::free`]).

macro_rules! capability {
    ($(#[doc = $doc:literal])* $name:ident) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(transparent)]
        pub struct $name(u32);

        impl $name {
            /// The capability in a slot.
            #[inline]
            #[must_use]
            pub const fn new(slot: u32) -> Self {
                Self(slot)
            }

            /// Its slot.
            #[inline]
            #[must_use]
            pub const fn slot(self) -> u32 {
                self.0
            }
        }
    };
}

mod cnode;
mod endpoint;
mod frame;
mod io_ports;
mod irq;
mod notification;
mod sched_context;
mod space;
mod thread;
mod trace;
mod untyped;
mod vcpu;

pub use cnode::{CNode, Description};
pub use endpoint::{Endpoint, EndpointStatus, Reply};
pub use frame::{Frame, FrameStatus};
pub use io_ports::IoPorts;
pub use irq::{Irq, IrqControl, IrqMessage, IrqStatus};
pub use notification::Notification;
pub use sched_context::{SchedContext, SchedContextStatus};
pub use space::{AddressSpace, Doorbell, GuestSpace, SpaceStatus, Translation};
pub use thread::{Thread, ThreadConfig, ThreadStatus};
pub use trace::{CpuStatus, MachineStatus, ResetKind, Trace, WxReport};
pub use untyped::{Untyped, UntypedStatus};
pub use vcpu::{RunOutcome, Vcpu, VcpuStatus};

use crate::sys::{self, Words};
use tessera_abi::Error;

/// An operation whose results matter.
#[inline]
fn ask(slot: u32, operation: u64, arguments: &[u64]) -> Result<Words, Error> {
    let mut words: Words = [0; 6];
    words[..arguments.len()].copy_from_slice(arguments);
    sys::invoke(slot, operation, &mut words)?;
    Ok(words)
}

/// An operation without results.
#[inline]
fn order(slot: u32, operation: u64, arguments: &[u64]) -> Result<(), Error> {
    ask(slot, operation, arguments).map(|_| ())
}
