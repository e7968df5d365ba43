//! The 16550 UART (PC16550D data sheet): receives by interrupt into a bounded queue, sends by polling with a bound.
//!
//! Flow control: what does not fit into the queue stays in the UART, whose interrupt then stays unacknowledged; the sender is held up (a virtual machine's port) or loses bytes (a real
//! one without handshake), but nothing here grows.

use alloc::collections::VecDeque;

/// Access to the port's eight registers.
pub trait Registers {
    /// Reads register `offset`.
    fn read(&mut self, offset: u16) -> u8;
    /// Writes register `offset`.
    fn write(&mut self, offset: u16, value: u8);
    /// Lets the next interrupt come.
    fn acknowledge(&mut self);
}

/// Receiver buffer and transmitter holding register; divisor low byte.
const DATA: u16 = 0;
/// Interrupt enable; divisor high byte.
const INTERRUPT_ENABLE: u16 = 1;
/// FIFO control (write), interrupt identification (read).
const FIFO_CONTROL: u16 = 2;
/// Line control.
const LINE_CONTROL: u16 = 3;
/// Modem control.
const MODEM_CONTROL: u16 = 4;
/// Line status.
const LINE_STATUS: u16 = 5;

/// Line status: a byte has been received.
const DATA_READY: u8 = 1;
/// Line status: the transmitter's FIFO is empty.
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes of the transmitter's FIFO.
const FIFO: usize = 16;
/// Bytes of input that are kept.
const QUEUE: usize = 4096;
/// Looks at the line status before a stuck line is given up: far longer than 16 bytes take at 115200 baud, where each look costs at least a system call.
const MAX_LOOKS: u32 = 100_000;

/// The port.
pub struct Serial<R> {
    registers: R,
    input: VecDeque<u8>,
    /// An interrupt has not been acknowledged.
    raised: bool,
    /// The line took nothing the last time: it is tried, but not waited for.
    stuck: bool,
}

impl<R: Registers> Serial<R> {
    /// Sets the port to 115200 baud, 8 data bits, no parity, one stop bit, FIFOs on, interrupts for received bytes.
    pub fn new(mut registers: R) -> Self {
        const DIVISOR_ACCESS: u8 = 0x80;
        const EIGHT_NONE_ONE: u8 = 3;
        for (register, value) in [
            (INTERRUPT_ENABLE, 0),
            (LINE_CONTROL, DIVISOR_ACCESS),
            (DATA, 1),
            (INTERRUPT_ENABLE, 0),
            (LINE_CONTROL, EIGHT_NONE_ONE),
            // FIFOs on and emptied by half: the receiver's content is kept, as somebody may have typed already; interrupt from the 8th byte or after a pause.
            (FIFO_CONTROL, 0x81),
            // Terminal ready, request to send, interrupt line connected (OUT2).
            (MODEM_CONTROL, 0x0b),
            (INTERRUPT_ENABLE, 1),
        ] {
            registers.write(register, value);
        }
        let mut serial = Self {
            registers,
            input: VecDeque::new(),
            raised: true,
            stuck: false,
        };
        serial.fill();
        serial
    }

    /// The interrupt has come.
    pub fn interrupted(&mut self) {
        self.raised = true;
        self.fill();
    }

    /// The next byte of input.
    pub fn read(&mut self) -> Option<u8> {
        if self.input.is_empty() {
            self.fill();
        }
        self.input.pop_front()
    }

    /// Takes what the UART holds; acknowledges the interrupt when that was everything.
    fn fill(&mut self) {
        loop {
            while self.input.len() < QUEUE {
                if self.registers.read(LINE_STATUS) & DATA_READY == 0 {
                    break;
                }
                let byte = self.registers.read(DATA);
                self.input.push_back(byte);
            }
            if !self.raised || self.input.len() >= QUEUE {
                return;
            }
            // A byte that came between the last look and this acknowledgement raised no new edge: look once more.
            self.registers.acknowledge();
            self.raised = false;
            if self.registers.read(LINE_STATUS) & DATA_READY == 0 {
                return;
            }
        }
    }

    /// Sends bytes, as fast as the line takes them. What a stuck line does not take is lost.
    pub fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(FIFO) {
            let mut looks = if self.stuck { 1 } else { MAX_LOOKS };
            while self.registers.read(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
                looks -= 1;
                if looks == 0 {
                    self.stuck = true;
                    return;
                }
            }
            self.stuck = false;
            for &byte in piece {
                self.registers.write(DATA, byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Uart {
        received: VecDeque<u8>,
        late: Vec<u8>,
        sent: Vec<u8>,
        acknowledged: u32,
        jammed: bool,
        looks: u32,
        divisor_access: bool,
    }

    impl Registers for &mut Uart {
        fn read(&mut self, offset: u16) -> u8 {
            match offset {
                DATA => self.received.pop_front().expect("read without data"),
                LINE_STATUS => {
                    self.looks += 1;
                    u8::from(!self.received.is_empty()) | if self.jammed { 0 } else { TRANSMITTER_EMPTY }
                }
                _ => 0,
            }
        }

        fn write(&mut self, offset: u16, value: u8) {
            match offset {
                LINE_CONTROL => self.divisor_access = value & 0x80 != 0,
                DATA if !self.divisor_access => self.sent.push(value),
                _ => {}
            }
        }

        fn acknowledge(&mut self) {
            self.acknowledged += 1;
            let late = core::mem::take(&mut self.late);
            self.received.extend(late);
        }
    }

    #[test]
    fn bytes_that_come_while_acknowledging_are_not_forgotten() {
        let mut uart = Uart {
            received: (*b"ab").into(),
            late: b"c".to_vec(),
            ..Uart::default()
        };
        let mut serial = Serial::new(&mut uart);
        let read: Vec<u8> = core::iter::from_fn(|| serial.read()).collect();
        assert_eq!(read, b"abc");
        serial.write(&[b'x'; 50]);
        assert_eq!(uart.sent.len(), 50);
        assert_eq!(uart.acknowledged, 1);
    }

    #[test]
    fn a_flood_stays_in_the_device_until_there_is_room() {
        let mut uart = Uart {
            received: vec![7; 3 * QUEUE].into(),
            ..Uart::default()
        };
        let mut serial = Serial::new(&mut uart);
        assert_eq!((serial.input.len(), serial.registers.acknowledged), (QUEUE, 0));
        let mut count = 0;
        while serial.read().is_some() {
            count += 1;
            assert!(serial.input.len() <= QUEUE);
        }
        assert_eq!((count, uart.acknowledged), (3 * QUEUE, 1));
    }

    #[test]
    fn a_stuck_line_is_given_up() {
        let mut uart = Uart {
            jammed: true,
            ..Uart::default()
        };
        let mut serial = Serial::new(&mut uart);
        serial.write(&[0; 1000]);
        serial.write(&[0; 1000]);
        serial.registers.jammed = false;
        serial.write(b"back");
        assert!(uart.looks < 2 * MAX_LOOKS);
        assert_eq!(uart.sent, b"back");
    }
}
