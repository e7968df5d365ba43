//! Reads every port in every width, and writes most of them.

use crate::{println, serial::Com1};
use core::arch::asm;

/// Ports where a write restarts the machine, as on real hardware: system control port A, keyboard controller command, reset control.
const RESTARTS: [u16; 3] = [0x92, 0x64, 0xcf9];

/// Walks all of port space.
pub fn walk() {
    let mut sum = 0u64;
    for port in 0..=u16::MAX {
        let (a, b, c): (u8, u16, u32);
        // SAFETY: this guest owns its whole virtual machine.
        unsafe {
            asm!("in al, dx", out("al") a, in("dx") port);
            asm!("in ax, dx", out("ax") b, in("dx") port);
            asm!("in eax, dx", out("eax") c, in("dx") port);
        }
        sum = sum.wrapping_add(u64::from(a) + u64::from(b) + u64::from(c));
    }
    println!("BARE ports read, sum {sum:#x}");
    for port in 0..=u16::MAX {
        let serial = (0x3f8..0x400).contains(&port) || (0x3f5..0x3f8).contains(&port);
        if serial || RESTARTS.iter().any(|&r| (port..port.saturating_add(4)).contains(&r)) {
            continue;
        }
        // Bit 13 starts a sleep state if the port is a PM1 control register: it stays clear.
        for value in [0u32, 0xffff_dfff, 0x5555_5555] {
            // SAFETY: as above.
            unsafe {
                asm!("out dx, al", in("al") value as u8, in("dx") port);
                asm!("out dx, ax", in("ax") value as u16, in("dx") port);
                asm!("out dx, eax", in("eax") value, in("dx") port);
            }
        }
    }
    // The serial port itself last: what is printed meanwhile is lost.
    for port in 0x3f8..0x400u16 {
        for value in [0u8, 0xff, 0x55, 0x80] {
            // SAFETY: as above.
            unsafe { asm!("out dx, al", in("al") value, in("dx") port) };
        }
    }
    Com1::initialise();
    println!("BARE ports end");
}
