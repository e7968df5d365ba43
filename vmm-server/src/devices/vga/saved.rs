//! The graphics card of a suspended machine. Its video RAM is saved with the RAM.

use super::{GRAPHICS_MASK, SEQUENCER_MASK, Vga, power_on};
use crate::devices::pci::SavedFunction;
use serde::{Deserialize, Serialize};
use tessera_screen::{REGISTERS_LENGTH, Registers, VIDEO_BYTES, vbe};

/// What the card knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedVga {
    function: SavedFunction,
    /// As VMX reads them.
    #[serde(with = "tessera_vm_state::array")]
    registers: [u8; REGISTERS_LENGTH],
    /// Of sequencer, CRTC, graphics and attribute controller.
    indices: [u8; 4],
    attribute_data: bool,
    dac_reads: bool,
    dac_place: (u8, u8),
    dac_cache: [u8; 2],
    extension_index: u16,
    latch: u32,
    looks: u8,
}

impl Vga {
    /// What the card knows.
    #[must_use]
    pub fn save(&self) -> SavedVga {
        SavedVga {
            function: self.function.save(),
            registers: self.registers.to_bytes(),
            indices: [self.sequencer_index, self.crtc_index, self.graphics_index, self.attribute_index],
            attribute_data: self.attribute_data,
            dac_reads: self.dac_reads,
            dac_place: self.dac_place,
            dac_cache: self.dac_cache,
            extension_index: self.extension_index,
            latch: self.latch,
            looks: self.looks,
        }
    }

    /// Makes this card what another was, as far as a guest could have made it that, and shows it.
    pub fn restore(&mut self, saved: &SavedVga) {
        self.function.restore(&saved.function);
        let mut registers = Registers::from_bytes(&saved.registers);
        for (register, mask) in registers.sequencer.iter_mut().zip(SEQUENCER_MASK) {
            *register &= mask;
        }
        for (register, mask) in registers.graphics.iter_mut().zip(GRAPHICS_MASK) {
            *register &= mask;
        }
        let modes = &mut registers.vbe;
        // As they are before anybody sets one they follow no rules.
        let set = *modes != power_on::registers().vbe;
        if set {
            modes[vbe::WIDTH] = modes[vbe::WIDTH].min(vbe::MOST_WIDTH) & !7;
            modes[vbe::HEIGHT] = modes[vbe::HEIGHT].min(vbe::MOST_HEIGHT);
            if !matches!(modes[vbe::BITS], 4 | 8 | 15 | 16 | 24 | 32) {
                modes[vbe::BITS] = 8;
            }
            modes[vbe::BANK] &= (VIDEO_BYTES >> 16) as u16 - 1;
        }
        self.registers = registers;
        if set {
            self.fix();
        }
        let [sequencer, crtc, graphics, attribute] = saved.indices;
        (self.sequencer_index, self.crtc_index) = (sequencer & 7, crtc);
        (self.graphics_index, self.attribute_index) = (graphics & 15, attribute & 31);
        (self.attribute_data, self.dac_reads) = (saved.attribute_data, saved.dac_reads);
        let (entry, colour) = saved.dac_place;
        (self.dac_place, self.dac_cache) = ((entry, colour.min(2)), saved.dac_cache);
        (self.extension_index, self.latch, self.looks) = (saved.extension_index, saved.latch, saved.looks);
        self.stale = true;
        self.settle();
    }
}
