//! COM1, polled.

use core::fmt::{self, Write};

/// Writes a byte to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: this guest owns its whole virtual machine.
    unsafe { core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Reads a byte from a port.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { core::arch::asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack)) };
    value
}

/// The serial port as a `fmt` sink.
pub struct Com1;

impl Com1 {
    /// 115200 baud, 8N1, no interrupts: also after a test wrote to the port's registers.
    pub fn initialise() {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            out8(0x3f8 + register, value);
        }
    }
}

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // A port that never gets ready must not hang the test: a lost byte shows in its output.
            for _ in 0..100_000 {
                if in8(0x3fd) & 0x20 != 0 {
                    break;
                }
            }
            out8(0x3f8, byte);
        }
        Ok(())
    }
}

/// Prints a line on the serial port.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {{
        use core::fmt::Write;
        // Writing to the port does not fail.
        let _ = core::writeln!($crate::serial::Com1, $($arg)*);
    }};
}
