//! The board of a suspended machine.

use super::{Chipset, Console};
use crate::apic::ioapic::IoApic;
use crate::apic::{Interrupts, Kick};
use crate::devices::fw_cfg;
use crate::devices::keyboard::Keyboard;
use crate::devices::pci::SavedPci;
use crate::devices::pic::PicPair;
use crate::devices::pit::Pit;
use crate::devices::power::Power;
use crate::devices::rtc::Rtc;
use crate::devices::uart::Uart;
use serde::{Deserialize, Serialize};

/// All devices but those whose bytes are elsewhere: the console's rings, media.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedChipset {
    pic: PicPair,
    ioapic: IoApic,
    pit: Pit,
    rtc: Rtc,
    power: Power,
    keyboard: Keyboard,
    uart: Uart,
    pci: SavedPci,
    fw_cfg: Option<fw_cfg::Place>,
    typed_to_port: bool,
    diagnostic: u8,
}

impl<C: Console> Chipset<C> {
    /// What the devices know, while nobody uses them.
    #[must_use]
    pub fn save(&self) -> SavedChipset {
        SavedChipset {
            pic: self.pic.clone(),
            ioapic: self.ioapic.clone(),
            pit: self.pit.clone(),
            rtc: self.rtc.clone(),
            power: self.power.clone(),
            keyboard: self.keyboard.clone(),
            uart: self.uart.clone(),
            pci: self.pci.save(),
            fw_cfg: self.fw_cfg.as_ref().map(fw_cfg::FwCfg::place),
            typed_to_port: self.typed_to_port,
            diagnostic: self.diagnostic,
        }
    }

    /// Makes this board, on which nothing ran yet, what another one was. `shift` is how much later, in seconds, it is at guest time 0 than it was there. `now` is the guest's time.
    ///
    /// # Errors
    /// The other board had other devices: nothing is changed then.
    pub fn restore<K: Kick>(&mut self, saved: &SavedChipset, shift: u64, now: u64, to: &Interrupts<K>) -> Result<(), &'static str> {
        if saved.keyboard.is_plugged() != self.keyboard.is_plugged() || saved.fw_cfg.is_some() != self.fw_cfg.is_some() {
            return Err("the machine had other devices: a screen, a keyboard or firmware");
        }
        self.pci.restore(&saved.pci)?;
        self.pic = saved.pic.clone();
        self.ioapic = saved.ioapic.clone();
        self.pit = saved.pit.clone();
        self.rtc = saved.rtc.clone();
        self.rtc.shift(shift);
        self.power = saved.power.clone();
        self.keyboard = saved.keyboard.clone();
        self.uart = saved.uart.clone();
        if let (Some(fw_cfg), Some(place)) = (&mut self.fw_cfg, &saved.fw_cfg) {
            fw_cfg.set_place(place);
        }
        self.typed_to_port = saved.typed_to_port;
        self.diagnostic = saved.diagnostic;
        self.settle(now, to);
        Ok(())
    }
}
