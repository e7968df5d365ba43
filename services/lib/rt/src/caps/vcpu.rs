//! Virtual processors.

use super::{AddressSpace, GuestSpace, ask, order};
use crate::sys;
pub use crate::sys::RunOutcome;
use tessera_abi::Error;
use tessera_abi::object::vcpu;

capability! {
    /// A virtual processor with its three shared pages ([`tessera_abi::vcpu::VcpuState`], [`tessera_abi::apic::ApicPage`]).
    Vcpu
}

/// Counters of a virtual processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuStatus {
    /// Times it was run.
    pub runs: u64,
    /// Exits that the kernel handled alone.
    pub in_kernel: u64,
    /// Doorbells rung.
    pub doorbells: u64,
    /// TSC ticks in the guest.
    pub guest_ticks: u64,
}

impl Vcpu {
    /// Ties it to a guest's memory and maps its three pages at `state` in `space`. `index` is its number in the machine.
    ///
    /// # Errors
    /// `Unsupported` without VT-x or AMD-V, `BadArgument`, `NoMemory` (page tables).
    pub fn configure(self, guest: GuestSpace, space: AddressSpace, state: u64, index: u32) -> Result<(), Error> {
        order(
            self.slot(),
            vcpu::CONFIGURE,
            &[guest.slot().into(), space.slot().into(), state, index.into()],
        )
    }

    /// Runs the guest until something is to be done. The deadline is a TSC value.
    ///
    /// # Errors
    /// `BadState` if not configured or running elsewhere; `Unsupported` on a processor that could not be made to run guests.
    #[inline(always)]
    pub fn run(self, deadline: Option<u64>) -> Result<RunOutcome, Error> {
        sys::vcpu_run(self.slot(), deadline)
    }

    /// Brings all of the guest's state into the shared page.
    ///
    /// # Errors
    /// `BadState` while it runs.
    pub fn sync(self) -> Result<(), Error> {
        order(self.slot(), vcpu::SYNC, &[])
    }

    /// Counters.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn info(self) -> Result<VcpuStatus, Error> {
        let [runs, in_kernel, doorbells, guest_ticks, ..] = ask(self.slot(), vcpu::INFO, &[])?;
        Ok(VcpuStatus {
            runs,
            in_kernel,
            doorbells,
            guest_ticks,
        })
    }
}
