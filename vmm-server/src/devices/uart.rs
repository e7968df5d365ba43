//! The 16550A serial port (National Semiconductor PC16550D datasheet) at COM1. What the guest sends goes to a [`Sink`] at once; the line is as fast as that.

use heapless::Deque;
use serde::{Deserialize, Serialize};

/// First port.
pub const PORT: u16 = 0x3f8;
/// Interrupt line.
pub const LINE: usize = 4;
/// Bytes of the receive FIFO.
const FIFO: usize = 16;

const IER_RECEIVE: u8 = 1;
const IER_TRANSMIT: u8 = 2;
const IER_LINE: u8 = 4;
const IER_MODEM: u8 = 8;
const LSR_READY: u8 = 1;
const LSR_OVERRUN: u8 = 2;
const LSR_EMPTY: u8 = 0x60;
const LCR_DLAB: u8 = 0x80;
const MCR_OUT2: u8 = 8;
const MCR_LOOP: u8 = 0x10;
/// Carrier, data set ready, clear to send.
const MSR_CONNECTED: u8 = 0xb0;

/// Where sent bytes go.
pub trait Sink {
    /// Takes a byte.
    fn send(&mut self, byte: u8);
}

/// The serial port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Uart {
    received: Deque<u8, FIFO>,
    ier: u8,
    lcr: u8,
    mcr: u8,
    modem_delta: u8,
    scratch: u8,
    divisor: u16,
    fifo: bool,
    trigger: usize,
    overrun: bool,
    /// The transmitter became empty and nobody was told yet.
    transmit_pending: bool,
    /// The guest looked at what was received, less than the trigger level: tell it about the rest (character time-out).
    timed_out: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// After power-on.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            received: Deque::new(),
            ier: 0,
            lcr: 0,
            mcr: 0,
            modem_delta: 0,
            scratch: 0,
            divisor: 12,
            fifo: false,
            trigger: 1,
            overrun: false,
            transmit_pending: false,
            timed_out: false,
        }
    }

    /// Room for received bytes: who asks first loses nothing.
    #[must_use]
    pub fn room(&self) -> usize {
        (if self.fifo { FIFO } else { 1usize }).saturating_sub(self.received.len())
    }

    /// A byte arrives on the line.
    pub fn receive(&mut self, byte: u8) {
        if self.mcr & MCR_LOOP != 0 {
            return;
        }
        self.store(byte);
        // The line is idle again when this is looked at: a real FIFO would time out after four characters.
        self.timed_out = true;
    }

    fn store(&mut self, byte: u8) {
        if self.room() == 0 {
            self.overrun = true;
            if !self.fifo {
                self.received.clear();
                let _ = self.received.push_back(byte);
            }
        } else {
            let _ = self.received.push_back(byte);
        }
    }

    /// Identification of the most urgent interrupt (table IV of the datasheet).
    fn identification(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.overrun {
            6
        } else if self.ier & IER_RECEIVE != 0 && self.received.len() >= self.trigger {
            4
        } else if self.ier & IER_RECEIVE != 0 && self.timed_out && !self.received.is_empty() {
            if self.fifo { 0xc } else { 4 }
        } else if self.ier & IER_TRANSMIT != 0 && self.transmit_pending {
            2
        } else if self.ier & IER_MODEM != 0 && self.modem_delta != 0 {
            0
        } else {
            1
        }
    }

    /// Whether the interrupt line is up; OUT2 gates it on a PC.
    #[must_use]
    pub fn line(&self) -> bool {
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && self.identification() != 1
    }

    /// Reads register `offset` (0 to 7).
    pub fn read(&mut self, offset: u16) -> u8 {
        match offset {
            0 if self.lcr & LCR_DLAB != 0 => self.divisor as u8,
            1 if self.lcr & LCR_DLAB != 0 => (self.divisor >> 8) as u8,
            0 => {
                let byte = self.received.pop_front().unwrap_or(0);
                if self.received.is_empty() {
                    self.timed_out = false;
                }
                byte
            }
            1 => self.ier,
            2 => {
                let identification = self.identification();
                if identification == 2 {
                    self.transmit_pending = false;
                }
                identification | if self.fifo { 0xc0 } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let value = LSR_EMPTY | if self.received.is_empty() { 0 } else { LSR_READY } | if self.overrun { LSR_OVERRUN } else { 0 };
                self.overrun = false;
                value
            }
            6 => {
                let value = self.modem_lines() | self.modem_delta;
                self.modem_delta = 0;
                value
            }
            7 => self.scratch,
            _ => 0xff,
        }
    }

    fn modem_lines(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return MSR_CONNECTED;
        }
        // In loop mode the outputs come back: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
        (self.mcr & 2) << 3 | (self.mcr & 1) << 5 | (self.mcr & 4) << 4 | (self.mcr & 8) << 4
    }

    /// Writes register `offset`.
    pub fn write(&mut self, offset: u16, value: u8, sink: &mut impl Sink) {
        match offset {
            0 if self.lcr & LCR_DLAB != 0 => self.divisor = self.divisor & 0xff00 | u16::from(value),
            1 if self.lcr & LCR_DLAB != 0 => self.divisor = self.divisor & 0xff | u16::from(value) << 8,
            0 => {
                if self.mcr & MCR_LOOP != 0 {
                    self.store(value);
                    self.timed_out = true;
                } else {
                    sink.send(value);
                }
                self.transmit_pending = true;
            }
            1 => {
                // Enabling the transmit interrupt while the transmitter is empty gives one at once.
                if value & !self.ier & IER_TRANSMIT != 0 {
                    self.transmit_pending = true;
                }
                self.ier = value & 0xf;
            }
            2 => {
                let fifo = value & 1 != 0;
                if fifo != self.fifo || value & 2 != 0 {
                    self.received.clear();
                    self.timed_out = false;
                }
                self.fifo = fifo;
                self.trigger = if fifo { [1, 4, 8, 14][usize::from(value >> 6)] } else { 1 };
            }
            3 => self.lcr = value,
            4 => {
                let before = self.modem_lines();
                self.mcr = value & 0x1f;
                let changed = before ^ self.modem_lines();
                // Deltas of CTS, DSR and DCD; RI counts only its falling edge.
                self.modem_delta |= (changed >> 4) & 0b1011 | if changed & before & 0x40 != 0 { 4 } else { 0 };
            }
            7 => self.scratch = value,
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Sent(std::vec::Vec<u8>);

    impl Sink for Sent {
        fn send(&mut self, byte: u8) {
            self.0.push(byte);
        }
    }

    #[test]
    fn sends() {
        let (mut uart, mut sent) = (Uart::new(), Sent::default());
        uart.write(4, 0x0b, &mut sent);
        uart.write(1, IER_TRANSMIT, &mut sent);
        assert!(uart.line(), "enabling on an empty transmitter interrupts");
        assert_eq!(uart.read(2), 2);
        assert!(!uart.line(), "reading the cause clears it");
        for byte in *b"hello" {
            assert_eq!(uart.read(5) & LSR_EMPTY, LSR_EMPTY);
            uart.write(0, byte, &mut sent);
        }
        assert_eq!(sent.0, b"hello");
        assert!(uart.line());
    }

    #[test]
    fn receives_with_trigger_and_time_out() {
        let (mut uart, mut sent) = (Uart::new(), Sent::default());
        uart.write(2, 0xc1, &mut sent); // FIFO, trigger at 14
        uart.write(4, MCR_OUT2, &mut sent);
        uart.write(1, IER_RECEIVE, &mut sent);
        uart.receive(b'x');
        assert!(uart.line());
        assert_eq!(uart.read(2), 0xcc, "character time-out");
        assert_eq!(uart.read(5) & LSR_READY, LSR_READY);
        assert_eq!(uart.read(0), b'x');
        assert!(!uart.line());
        while uart.room() > 0 {
            uart.receive(b'y');
        }
        assert_eq!(uart.read(2), 0xc4);
        uart.receive(b'z');
        assert_eq!(uart.read(5) & LSR_OVERRUN, LSR_OVERRUN);
        assert_eq!(uart.read(5) & LSR_OVERRUN, 0);
        uart.write(2, 0x03, &mut sent);
        assert_eq!(uart.room(), FIFO);
    }

    /// How Linux recognises the chip: scratch, loop mode, FIFO bits, divisor latch.
    #[test]
    fn identifies_as_16550a() {
        let (mut uart, mut sent) = (Uart::new(), Sent::default());
        uart.write(7, 0xa5, &mut sent);
        assert_eq!(uart.read(7), 0xa5);
        uart.write(4, MCR_LOOP | 0x0a, &mut sent);
        assert_eq!(uart.read(6) & 0xf0, 0x90);
        uart.write(4, 0, &mut sent);
        uart.write(2, 1, &mut sent);
        assert_eq!(uart.read(2) >> 6, 3);
        uart.write(3, LCR_DLAB, &mut sent);
        uart.write(0, 1, &mut sent);
        uart.write(1, 2, &mut sent);
        assert_eq!((uart.read(0), uart.read(1)), (1, 2));
        uart.write(3, 3, &mut sent);
        assert_eq!(uart.read(1), 0, "the divisor is not the interrupt mask");
        assert!(sent.0.is_empty());
    }

    #[test]
    fn loop_mode_stays_inside() {
        let (mut uart, mut sent) = (Uart::new(), Sent::default());
        uart.write(4, MCR_LOOP, &mut sent);
        uart.write(0, b'q', &mut sent);
        uart.receive(b'x');
        assert_eq!(uart.read(0), b'q');
        assert_eq!(uart.read(5) & LSR_READY, 0);
        assert!(sent.0.is_empty());
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..3, 0u16..8, any::<u8>()), 1..400)) {
            let (mut uart, mut sent) = (Uart::new(), Sent::default());
            for (kind, offset, value) in operations {
                match kind {
                    0 => uart.write(offset, value, &mut sent),
                    1 => { uart.read(offset); }
                    _ => uart.receive(value),
                }
                prop_assert!(uart.received.len() <= FIFO);
            }
        }
    }
}
