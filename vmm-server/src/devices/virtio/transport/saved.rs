//! A device of a suspended machine.

use super::{Msix, Registers, VirtioPci};
use crate::apic::{Interrupts, Kick};
use crate::devices::pci::SavedFunction;
use crate::devices::virtio::{CONFIG_LENGTH, MAX_QUEUES};
use serde::{Deserialize, Serialize};

/// What the guest set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedVirtio {
    kind: u16,
    queues: u16,
    hidden: bool,
    function: SavedFunction,
    registers: Registers,
    msix: Msix,
    isr: u8,
    /// Its own configuration, which is the monitor's own where it serves the device itself.
    #[serde(with = "tessera_vm_state::array")]
    space: [u8; CONFIG_LENGTH],
}

impl VirtioPci {
    /// What it knows.
    #[must_use]
    pub fn save(&self) -> SavedVirtio {
        SavedVirtio {
            kind: self.config.kind,
            queues: self.config.queues,
            hidden: self.config.hidden,
            function: self.function.save(),
            registers: self.registers.clone(),
            msix: self.msix.clone(),
            isr: self.isr,
            space: self.config.space,
        }
    }

    /// Whether that is of such a device.
    #[must_use]
    pub fn is_like(&self, saved: &SavedVirtio) -> bool {
        self.config.kind == saved.kind
            && self.config.queues == saved.queues
            && self.config.hidden == saved.hidden
            && self.function.is_like(&saved.function)
            && self.msix.count() == saved.msix.count()
            && saved.registers.is_sound(&self.config, self.msix.count())
    }

    /// Makes it what the other was; its server is to go on.
    pub fn restore(&mut self, saved: &SavedVirtio) {
        self.function.restore(&saved.function);
        self.registers = if self.config.hidden {
            // What was in flight is begun again by whoever drives it, with a queue of its own.
            Registers::new(&self.config)
        } else {
            saved.registers.clone()
        };
        self.registers.paused();
        self.msix = saved.msix.clone();
        self.isr = saved.isr;
        if self.config.local {
            self.config.space = saved.space;
        }
        self.pointed = [0; MAX_QUEUES];
        self.routed = [0; MAX_QUEUES];
    }

    /// The server stopped, but the driver is not to know: it goes on when it is served again.
    pub fn paused<K: Kick>(&mut self, to: &Interrupts<K>) {
        self.registers.paused();
        self.reroute(to);
    }
}
