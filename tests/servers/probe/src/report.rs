//! Where results go: straight to a serial port, so that neither the log's bounds nor the shell's pace matter.

use alloc::string::String;
use core::fmt::{Arguments, Write};
use tessera_rt::{IoPorts, Mutex, grant, log, time};

/// Divisor latch, line control, FIFO control and transmit registers of a 16550 (datasheet, table 2), from its base port.
const BASE: u16 = 0x2f8;

static SET_UP: Mutex<bool> = Mutex::new(false);

/// Prints a line.
pub fn line(text: Arguments<'_>) {
    let mut line = String::new();
    // Writing to a String does not fail.
    let _ = line.write_fmt(text);
    match grant("report") {
        Some(slot) => print(IoPorts::new(slot), &line),
        None => log::info!("{line}"),
    }
}

/// Prints a test's result.
pub fn verdict(name: &str, problem: Option<Arguments<'_>>) {
    match problem {
        None => line(format_args!("probe: {name} ok")),
        Some(text) => line(format_args!("probe: {name} FAILED {text}")),
    }
}

fn print(ports: IoPorts, text: &str) {
    let mut set_up = SET_UP.lock();
    let out = |port: u16, value: u8| {
        // A refused port shows as missing output, which the test reports.
        let _ = ports.write_u8(BASE + port, value);
    };
    if !*set_up {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            out(register, value);
        }
        *set_up = true;
    }
    for byte in text.bytes().chain([b'\n']) {
        while ports.read_u8(BASE + 5).is_ok_and(|status| status & 0x20 == 0) {}
        out(0, byte);
    }
}

/// Waits until a byte comes in on the report port.
pub fn wait_for_byte() {
    let Some(slot) = grant("report") else { return };
    let ports = IoPorts::new(slot);
    while ports.read_u8(BASE + 5).is_ok_and(|status| status & 1 == 0) {
        time::sleep_until(time::after(time::milliseconds(2)));
    }
    // What the byte says does not matter.
    let _ = ports.read_u8(BASE);
}
