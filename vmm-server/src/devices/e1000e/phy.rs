//! What stands behind the card's registers: the transceiver (IEEE 802.3, 22.2.4; 82574 datasheet 10.2.5) and the configuration memory (6).

use alloc::vec;
use alloc::vec::Vec;

/// Words of the configuration memory, and what they add up to (6.1.8).
const WORDS: usize = 64;
const SUM: u16 = 0xbaba;

/// Bits of the register of the management interface (10.2.2.7).
const READ: u32 = 2;
const WRITE: u32 = 1;
const READY: u32 = 1 << 28;
const ERROR: u32 = 1 << 30;
/// The transceiver's own address.
const ADDRESS: u32 = 1;
/// Its registers: control, status.
const CONTROL: usize = 0;
const STATUS: usize = 1;
/// Bits of control that end by themselves: reset, restart of negotiation.
const RESET: u16 = 1 << 15;
const RESTART: u16 = 1 << 9;
/// Bits of status: negotiation is over, the link is up.
const LINKED: u16 = 1 << 5 | 1 << 2;

/// The transceiver's registers after a reset: it has agreed on 1000 Mbit/s in both directions.
pub fn registers() -> Vec<u16> {
    let mut registers = vec![0; 32];
    registers[CONTROL] = 0x1140;
    registers[STATUS] = 0x7949;
    // Its identity, which drivers look for.
    (registers[2], registers[3]) = (0x0141, 0x0cb1);
    // What each side offers: 10 and 100 Mbit/s; 1000 Mbit/s.
    (registers[4], registers[5]) = (0x0de1, 0x45e1);
    (registers[6], registers[9], registers[10], registers[15]) = (0x000f, 0x0e00, 0x3c00, 0x3000);
    registers[17] = 0xac08;
    registers
}

/// Carries out a command of the management interface. Answers what its register reads then.
pub fn command(registers: &mut [u16], value: u32, link: bool) -> u32 {
    let (index, address) = ((value >> 16 & 31) as usize, value >> 21 & 31);
    let value = value & !ERROR | READY;
    match (value >> 26 & 3, registers.get_mut(index)) {
        (READ, Some(register)) if address == ADDRESS => {
            let data = if index == STATUS && link { *register | LINKED } else { *register };
            value & !0xffff | u32::from(data)
        }
        (WRITE, Some(register)) if address == ADDRESS => {
            match index {
                CONTROL => *register = value as u16 & !(RESET | RESTART),
                STATUS | 2 | 3 | 5 | 10 | 17 => (),
                _ => *register = value as u16,
            }
            value
        }
        _ => value | ERROR,
    }
}

/// A word of the configuration memory of a card with this address.
pub fn word(mac: [u8; 6], index: usize) -> u16 {
    let plain = |index: usize| match index {
        0..3 => u16::from_le_bytes([mac[2 * index], mac[2 * index + 1]]),
        // Compatibility; version of the image; subsystem, device.
        3 => 0x0420,
        5 => 0x2010,
        0x0b => 0,
        0x0c => 0x8086,
        0x0d => 0x10d3,
        0x0f => 0x8058,
        _ => 0,
    };
    match index {
        0x3f => (0..WORDS - 1).fold(SUM, |left, index| left.wrapping_sub(plain(index))),
        index => plain(index),
    }
}
