//! The USB controller of a suspended machine. Its rings and contexts are in the guest's memory.

use super::{Controller, Xhci};
use crate::devices::pci::SavedFunction;
use crate::devices::pci::msix::Msix;
use serde::{Deserialize, Serialize};

/// Controller and tablet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedXhci {
    function: SavedFunction,
    msix: Msix,
    controller: Controller,
}

impl Xhci {
    /// What they know.
    #[must_use]
    pub fn save(&self) -> SavedXhci {
        SavedXhci {
            function: self.function.save(),
            msix: self.msix.clone(),
            controller: self.controller.clone(),
        }
    }

    /// Whether that is of such a controller.
    #[must_use]
    pub fn is_like(&self, saved: &SavedXhci) -> bool {
        self.function.is_like(&saved.function) && self.msix.count() == saved.msix.count() && saved.controller.interrupter.events.is_sound()
    }

    /// Makes them what the others were.
    pub fn restore(&mut self, saved: &SavedXhci) {
        self.function.restore(&saved.function);
        self.msix = saved.msix.clone();
        self.controller = saved.controller.clone();
    }
}
