//! Tracing, and what only the whole machine knows.

use super::{AddressSpace, ask, order};
use tessera_abi::Error;
use tessera_abi::boot::Features;
use tessera_abi::object::trace;
use tessera_abi::virt::VirtFeatures;

capability! {
    /// Switches tracing, reads processor statistics, restarts the machine.
    Trace
}

/// Counters of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuStatus {
    /// APIC identity.
    pub apic: u32,
    /// Idle TSC ticks.
    pub idle: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Context switches.
    pub switches: u64,
    /// TSC of this answer.
    pub tsc: u64,
    /// TLB shoot-downs.
    pub shootdowns: u64,
}

/// What the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineStatus {
    /// Features in use.
    pub features: Features,
    /// TSC ticks per second.
    pub tsc_hz: u64,
    /// Processors.
    pub cpus: u32,
    /// Virtualisation backend: 0 none, 1 VT-x, 2 AMD-V.
    pub backend: u64,
    /// What its hardware offers.
    pub virt_found: VirtFeatures,
    /// Those in use.
    pub virt_used: VirtFeatures,
}

/// What a look through page tables found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WxReport {
    /// Pages looked at.
    pub pages: u64,
    /// Of these writable and executable.
    pub violations: u64,
    /// First such address, if there is one.
    pub first: u64,
}

/// How the machine is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Restart.
    Restart = 0,
    /// Power down.
    PowerOff = 1,
    /// Kernel panic, for tests of the panic record.
    Panic = 2,
}

impl Trace {
    /// Records the events of `mask` ([`tessera_abi::trace::Event`] numbers as bits); 0 switches tracing off.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn set_mask(self, mask: u64) -> Result<(), Error> {
        order(self.slot(), trace::SET_MASK, &[mask])
    }

    /// Counters of a processor; `None` past the last.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn cpu(self, cpu: u32) -> Result<Option<CpuStatus>, Error> {
        match ask(self.slot(), trace::CPU_INFO, &[cpu.into()]) {
            Ok([apic, idle, interrupts, switches, tsc, shootdowns]) => Ok(Some(CpuStatus {
                apic: apic as u32,
                idle,
                interrupts,
                switches,
                tsc,
                shootdowns,
            })),
            Err(Error::BadArgument) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the machine is.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn machine(self) -> Result<MachineStatus, Error> {
        let [features, tsc_hz, cpus, backend, found, used] = ask(self.slot(), trace::MACHINE, &[])?;
        Ok(MachineStatus {
            features: Features::from_bits_truncate(features),
            tsc_hz,
            cpus: cpus as u32,
            backend,
            virt_found: VirtFeatures::from_bits_truncate(found),
            virt_used: VirtFeatures::from_bits_truncate(used),
        })
    }

    /// Looks for pages that are writable and executable in the kernel (`None`) or in a space.
    ///
    /// # Errors
    /// `NoRight`, `WrongKind`.
    pub fn check_wx(self, space: Option<AddressSpace>) -> Result<WxReport, Error> {
        let [pages, violations, first, ..] = ask(self.slot(), trace::CHECK_WX, &[space.map_or(0, AddressSpace::slot).into()])?;
        Ok(WxReport { pages, violations, first })
    }

    /// Ends the machine; does not return if it succeeds.
    ///
    /// # Errors
    /// `NoRight`, `Unsupported`.
    pub fn reset(self, kind: ResetKind) -> Result<(), Error> {
        order(self.slot(), trace::MACHINE_RESET, &[kind as u64])
    }
}
