//! The first serial port (16550A), polled: the kernel's voice while it boots and when it panics.

use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;
const LINE_STATUS: u16 = BASE + 5;
const TRANSMITTER_EMPTY: u8 = 0x20;
/// Looks at a transmitter that does not empty before the port is given up: at 115,200 baud a byte takes 87 microseconds.
const PATIENCE: u32 = 100_000;

static PRESENT: AtomicBool = AtomicBool::new(false);

fn write(register: u16, value: u8) {
    // SAFETY: the registers of COM1 have no effect on memory.
    unsafe { Port::new(register).write(value) }
}

fn read(register: u16) -> u8 {
    // SAFETY: as in `write`.
    unsafe { Port::new(register).read() }
}

/// Sets 115,200 baud, 8 bits, no parity, interrupts off. A port that is not there is noted and never waited for.
pub fn init() {
    write(BASE + 1, 0);
    write(BASE + 3, 0x80);
    write(BASE, 1);
    write(BASE + 1, 0);
    write(BASE + 3, 3);
    write(BASE + 2, 0xc7);
    write(BASE + 4, 3);
    // Relaxed: a flag of its own, set before other processors run.
    PRESENT.store(read(LINE_STATUS) != 0xff, Ordering::Relaxed);
}

/// Sends bytes, with a carriage return before each line feed.
#[inline(never)]
pub fn send(text: &[u8]) {
    for &byte in text {
        if byte == b'\n' {
            send_byte(b'\r');
        }
        send_byte(byte);
    }
}

fn send_byte(byte: u8) {
    // Relaxed: see `init`.
    if !PRESENT.load(Ordering::Relaxed) {
        return;
    }
    for _ in 0..PATIENCE {
        if read(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            return write(BASE, byte);
        }
        core::hint::spin_loop();
    }
    PRESENT.store(false, Ordering::Relaxed);
}
