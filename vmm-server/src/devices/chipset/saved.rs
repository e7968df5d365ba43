//! The board of a suspended machine.

use super::{Chipset, Console};
use crate::apic::ioapic::IoApic;
use crate::apic::{Interrupts, Kick};
use crate::devices::flash::{Flash, SavedFlash};
use crate::devices::fw_cfg;
use crate::devices::hpet::Hpet;
use crate::devices::keyboard::Keyboard;
use crate::devices::pci::SavedPci;
use crate::devices::pic::PicPair;
use crate::devices::pit::Pit;
use crate::devices::power::Power;
use crate::devices::pvpanic::PvPanic;
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
    flash: Option<SavedFlash>,
    hpet: Option<Hpet>,
    pvpanic: PvPanic,
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
            flash: self.flash.as_ref().map(Flash::save),
            hpet: self.hpet.clone(),
            pvpanic: self.pvpanic,
            typed_to_port: self.typed_to_port,
            diagnostic: self.diagnostic,
        }
    }

    /// Makes this board, on which nothing ran yet, what another one was. `shift` is how much later, in seconds, it is at guest time 0 than it was there. `now` is the guest's time.
    ///
    /// # Errors
    /// The other board had other devices: nothing is changed then.
    pub fn restore<K: Kick>(&mut self, saved: &SavedChipset, shift: u64, now: u64, to: &Interrupts<K>) -> Result<(), &'static str> {
        let same = saved.keyboard.is_plugged() == self.keyboard.is_plugged()
            && saved.fw_cfg.is_some() == self.fw_cfg.is_some()
            && saved.flash.is_some() == self.flash.is_some()
            && saved.hpet.is_some() == self.hpet.is_some();
        if !same {
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
        if let (Some(flash), Some(saved)) = (&mut self.flash, &saved.flash) {
            flash.restore(saved);
        }
        self.hpet.clone_from(&saved.hpet);
        self.pvpanic = saved.pvpanic;
        self.typed_to_port = saved.typed_to_port;
        self.diagnostic = saved.diagnostic;
        // What is up there is not known here.
        (self.raised, self.raised_pins) = (u32::MAX, u32::MAX);
        self.settle(now, to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::routing::tests::Kicks;
    use crate::devices::chipset::tests::Terminal;
    use crate::devices::flash::BLOCK;
    use crate::devices::vga;
    use crate::devices::virtio::block;
    use crate::memory::tests::ram;
    use proptest::prelude::*;
    use tessera_vm_state::{decode, encode};

    /// Where the writable part of the flash memory is, and how long.
    const FLASH: u64 = 0xffc0_0000;
    const FLASH_BYTES: u64 = 4 * BLOCK;
    /// What is written to flash memory: OVMF's commands, and something else.
    const COMMANDS: &[u8] = &[0xff, 0x70, 0x50, 0x10, 0x20, 0xd0, 7];

    fn board(disks: usize) -> (Chipset<Terminal>, Interrupts<Kicks>) {
        let mut board = Chipset::new(Terminal::default(), 1000);
        for _ in 0..disks {
            assert!(board.pci.add(block::config(&block::tests::disk())));
        }
        board.add_display(vga::tests::display_with(&vga::tests::Desk::default(), 64 << 10), true);
        board.add_flash(Flash::new(FLASH, FLASH_BYTES));
        (board, Interrupts::new(2, Kicks::default()))
    }

    #[test]
    fn a_board_without_a_screen_is_another() {
        let (one, _) = board(1);
        let mut two = Chipset::new(Terminal::default(), 1000);
        assert!(two.pci.add(block::config(&block::tests::disk())));
        two.add_flash(Flash::new(FLASH, FLASH_BYTES));
        let to = Interrupts::new(2, Kicks::default());
        let before = encode(&two.save());
        assert!(two.restore(&one.save(), 0, 0, &to).is_err());
        assert_eq!(encode(&two.save()), before, "nothing changed");
    }

    #[test]
    fn another_board_is_refused() {
        let (one, _) = board(1);
        let (mut two, to) = board(2);
        let before = encode(&two.save());
        assert!(two.restore(&one.save(), 0, 0, &to).is_err());
        assert_eq!(encode(&two.save()), before, "nothing changed");
    }

    proptest! {
        #[test]
        fn a_board_comes_back(operations in prop::collection::vec((any::<u16>(), prop::sample::select(&[1u8, 2, 4]), any::<u32>(), 0u64..100_000_000), 0..200),
            screen in prop::collection::vec((0x3b0u16..0x3e0, any::<u8>()), 0..100),
            flash in prop::collection::vec((0..FLASH_BYTES, prop::sample::select(COMMANDS)), 0..5)) {
            let (mut one, to_one) = board(1);
            let memory = ram(&[1 << 20]);
            for (port, value) in screen {
                one.port_write(port, 1, value.into(), 0, &to_one);
            }
            for (offset, value) in flash {
                one.flash_write(FLASH + offset, value, &memory, &to_one);
            }
            let mut now = 0;
            for (port, width, value, step) in operations {
                now += step;
                let port = if port & 1 == 0 { port >> 5 } else { port };
                one.port_write(port, width, value, now, &to_one);
                one.run(now, &to_one);
            }
            let saved = encode(&one.save()).unwrap();
            let (mut two, to_two) = board(1);
            let state: SavedChipset = decode(&saved).unwrap();
            two.restore(&state, 0, now, &to_two).unwrap();
            prop_assert_eq!(encode(&two.save()).unwrap(), saved, "what it was is what it is");
            prop_assert_eq!(to_two.external(), to_one.external());
            for port in (0x20..0x100).chain(0x1ce..0x1d1).chain(0x3b0..0x3e0).chain(0x3f8..0x400).chain(0x600..0x610) {
                prop_assert_eq!(one.port_read(port, 1, now, &to_one), two.port_read(port, 1, now, &to_two), "port {:#x}", port);
            }
        }

        #[test]
        fn damage_is_survived(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), ports in prop::collection::vec((any::<u16>(), any::<u32>()), 0..50)) {
            let (one, _) = board(1);
            let mut saved = encode(&one.save()).unwrap();
            for (place, bits) in places {
                let at = place.index(saved.len());
                saved[at] ^= bits;
            }
            if let Ok(state) = decode::<SavedChipset>(&saved) {
                let memory = ram(&[1 << 20]);
                let (mut two, to) = board(1);
                let _ = two.restore(&state, 0, 5, &to);
                for (port, value) in ports {
                    let port = if port & 1 == 0 { port >> 5 } else { port };
                    two.port_write(port, 1, value, 10, &to);
                    two.port_read(port, 1, 20, &to);
                    two.memory_write(0xa_0000 + u64::from(value) % 0x2_0000, 1, value.into(), 20, &to);
                    two.memory_read(0xa_0000 + u64::from(value) % 0x2_0000, 1, 20, &to);
                    two.flash_write(FLASH + u64::from(port) % FLASH_BYTES, value as u8, &memory, &to);
                }
                for port in 0x3b0..0x3e0 {
                    two.port_read(port, 1, 20, &to);
                    two.port_write(port, 1, 0xff, 20, &to);
                }
                two.run(1_000_000_000, &to);
            }
        }
    }
}
