//! The bus of a suspended machine.

use super::function::REGISTERS;
use super::{Function, Pci};
use crate::devices::ahci::SavedAhci;
use crate::devices::e1000e::SavedE1000e;
use crate::devices::vga::SavedVga;
use crate::devices::virtio::SavedVirtio;
use crate::devices::watchdog::SavedWatchdog;
use crate::devices::xhci::SavedXhci;
use alloc::boxed::Box;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Configuration space of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFunction(#[serde(with = "tessera_vm_state::array")] [u32; REGISTERS]);

impl Function {
    /// What its registers hold.
    #[must_use]
    pub const fn save(&self) -> SavedFunction {
        SavedFunction(self.registers)
    }

    /// Whether this is the same function: vendor, device, class, subsystem.
    #[must_use]
    pub fn is_like(&self, saved: &SavedFunction) -> bool {
        [0, 2, 11].iter().all(|register| self.registers[*register] == saved.0[*register])
    }

    /// Sets what the guest can set.
    pub fn restore(&mut self, saved: &SavedFunction) {
        for ((register, writable), value) in self.registers.iter_mut().zip(&self.writable).zip(&saved.0) {
            *register = *register & !writable | value & writable;
        }
    }
}

/// The bus with its devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedPci {
    address: u32,
    bridges: [SavedFunction; 2],
    devices: Vec<SavedVirtio>,
    // On the heap: what is decoded is moved from frame to frame of a small stack.
    display: Option<Box<SavedVga>>,
    ahci: Option<Box<SavedAhci>>,
    cards: Vec<SavedE1000e>,
    watchdog: Option<SavedWatchdog>,
    xhci: Option<Box<SavedXhci>>,
}

impl Pci {
    /// What the devices on the bus know.
    #[must_use]
    pub fn save(&self) -> SavedPci {
        SavedPci {
            address: self.address,
            bridges: self.bridges.each_ref().map(Function::save),
            devices: self.devices.iter().map(super::VirtioPci::save).collect(),
            display: self.display.as_ref().map(|display| Box::new(display.save())),
            ahci: self.ahci.as_ref().map(|ahci| Box::new(ahci.save())),
            cards: self.cards.iter().map(super::E1000e::save).collect(),
            watchdog: self.watchdog.as_ref().map(|watchdog| watchdog.save()),
            xhci: self.xhci.as_ref().map(|xhci| Box::new(xhci.save())),
        }
    }

    /// Makes the devices what those of another machine were.
    ///
    /// # Errors
    /// They are others: nothing is changed then.
    pub fn restore(&mut self, saved: &SavedPci) -> Result<(), &'static str> {
        const OTHERS: &str = "the machine had other devices on its bus: disks, network cards, or what this version of the monitor adds";
        let same = self.devices.len() == saved.devices.len()
            && self.devices.iter().zip(&saved.devices).all(|(device, saved)| device.is_like(saved))
            && self.bridges.iter().zip(&saved.bridges).all(|(bridge, saved)| bridge.is_like(saved))
            && self.display.is_some() == saved.display.is_some()
            && self.ahci.is_some() == saved.ahci.is_some()
            && self.ahci.iter().zip(&saved.ahci).all(|(ahci, saved)| ahci.is_like(saved))
            && self.cards.len() == saved.cards.len()
            && self.cards.iter().zip(&saved.cards).all(|(card, saved)| card.is_like(saved))
            && self.watchdog.is_some() == saved.watchdog.is_some()
            && self.xhci.is_some() == saved.xhci.is_some()
            && self.xhci.iter().zip(&saved.xhci).all(|(xhci, saved)| xhci.is_like(saved));
        if !same {
            return Err(OTHERS);
        }
        self.address = saved.address;
        for (bridge, saved) in self.bridges.iter_mut().zip(&saved.bridges) {
            bridge.restore(saved);
        }
        for (device, saved) in self.devices.iter_mut().zip(&saved.devices) {
            device.restore(saved);
        }
        if let (Some(display), Some(saved)) = (&mut self.display, &saved.display) {
            display.restore(saved);
        }
        if let (Some(ahci), Some(saved)) = (&mut self.ahci, &saved.ahci) {
            ahci.restore(saved);
        }
        for (card, saved) in self.cards.iter_mut().zip(&saved.cards) {
            card.restore(saved);
        }
        if let (Some(watchdog), Some(saved)) = (&mut self.watchdog, &saved.watchdog) {
            watchdog.restore(saved);
        }
        if let (Some(xhci), Some(saved)) = (&mut self.xhci, &saved.xhci) {
            xhci.restore(saved);
        }
        Ok(())
    }
}
