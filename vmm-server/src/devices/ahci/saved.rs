//! The host adapter of a suspended machine.

use super::ata::Settings;
use super::atapi::Drive;
use super::{Ahci, Port};
use crate::devices::pci::SavedFunction;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Adapter, drive and disks. A command that was under way is begun again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedAhci {
    function: SavedFunction,
    control: u32,
    status: u32,
    ports: Vec<Port>,
    drive: Option<Drive>,
    disks: Vec<Settings>,
}

impl Ahci {
    /// What they know.
    #[must_use]
    pub fn save(&self) -> SavedAhci {
        SavedAhci {
            function: self.function.save(),
            control: self.control,
            status: self.status,
            ports: self.ports.clone(),
            drive: self.drive.clone(),
            disks: self.disks.iter().map(|disk| disk.settings).collect(),
        }
    }

    /// Whether that is of such an adapter.
    #[must_use]
    pub fn is_like(&self, saved: &SavedAhci) -> bool {
        self.ports.len() == saved.ports.len()
            && self.disks.len() == saved.disks.len()
            && self.drive.is_some() == saved.drive.is_some()
            && self.function.is_like(&saved.function)
    }

    /// Makes them what the others were. The medium is the one that is in the drive now.
    pub fn restore(&mut self, saved: &SavedAhci) {
        self.function.restore(&saved.function);
        self.control = saved.control;
        self.status = saved.status;
        self.ports.clone_from(&saved.ports);
        for port in &mut self.ports {
            // Queued commands are taken again, as those whose bits are there yet.
            port.issued |= port.active;
        }
        for (disk, saved) in self.disks.iter_mut().zip(&saved.disks) {
            disk.reset();
            disk.settings = *saved;
        }
        if let (Some(drive), Some(saved)) = (&mut self.drive, &saved.drive)
            && drive.has_same_medium(saved)
        {
            *drive = saved.clone();
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.under_way = None;
    }
}
