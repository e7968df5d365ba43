//! The card of a suspended machine.

use super::transmit::{Context, Packet};
use super::{E1000e, KEPT};
use crate::devices::pci::SavedFunction;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What the guest set up. Packets that were on their way are sent by then; those that came and were not taken are lost, as on a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedE1000e {
    function: SavedFunction,
    registers: Vec<u32>,
    phy: Vec<u16>,
    causes: u32,
    mask: u32,
    link: bool,
    context: Context,
    packet: Packet,
}

impl E1000e {
    /// What it knows.
    #[must_use]
    pub fn save(&self) -> SavedE1000e {
        SavedE1000e {
            function: self.function.save(),
            registers: self.registers.clone(),
            phy: self.phy.clone(),
            causes: self.causes,
            mask: self.mask,
            link: self.link,
            context: self.context,
            packet: self.packet.clone(),
        }
    }

    /// Whether that is of such a card.
    #[must_use]
    pub fn is_like(&self, saved: &SavedE1000e) -> bool {
        self.function.is_like(&saved.function) && saved.registers.len() == (KEPT / 4) as usize && saved.phy.len() == self.phy.len()
    }

    /// Makes it what the other was.
    pub fn restore(&mut self, saved: &SavedE1000e) {
        self.function.restore(&saved.function);
        self.registers.clone_from(&saved.registers);
        self.phy.clone_from(&saved.phy);
        (self.causes, self.mask, self.link) = (saved.causes, saved.mask, saved.link);
        self.context = saved.context;
        self.packet = saved.packet.clone();
        self.queues = None;
    }
}
