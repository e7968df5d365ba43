//! The host adapter of a suspended machine.

use super::atapi::Drive;
use super::{Ahci, Port};
use crate::devices::pci::SavedFunction;
use serde::{Deserialize, Serialize};

/// Adapter and drive. A command that was under way is begun again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedAhci {
    function: SavedFunction,
    control: u32,
    status: u32,
    port: Port,
    drive: Drive,
}

impl Ahci {
    /// What they know.
    #[must_use]
    pub fn save(&self) -> SavedAhci {
        SavedAhci {
            function: self.function.save(),
            control: self.control,
            status: self.status,
            port: self.port.clone(),
            drive: self.drive.clone(),
        }
    }

    /// Makes them what the others were. The medium is the one that is in the drive now.
    pub fn restore(&mut self, saved: &SavedAhci) {
        self.function.restore(&saved.function);
        self.control = saved.control;
        self.status = saved.status;
        self.port = saved.port.clone();
        if self.drive.has_same_medium(&saved.drive) {
            self.drive = saved.drive.clone();
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.under_way = None;
    }
}
