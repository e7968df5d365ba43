//! Which device answers at which port and address, and where its interrupt goes. Shared by all vCPUs of a machine behind one lock.

mod saved;

pub use saved::SavedChipset;

use super::debug_port::{self, DebugPort};
use super::flash::Flash;
use super::fw_cfg::{self, FwCfg};
use super::keyboard::{self, Keyboard};
use super::pci::function::Space;
use super::pci::{self, Pci};
use super::pic::PicPair;
use super::pit::Pit;
use super::power::{self, Power, Request};
use super::rtc::{self, Rtc};
use super::uart::{self, Sink, Uart};
use super::vga;
use super::virtio::FIRST_SIGNAL;
use crate::apic::ioapic::{self, IoApic};
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;

/// Where the guest's serial port is connected to.
pub trait Console: Sink {
    /// The next byte for the guest, if there is one.
    fn receive(&mut self) -> Option<u8>;
    /// Whether [`Self::receive`] would answer a byte.
    fn has_input(&mut self) -> bool;
    /// Whether sent bytes wait for [`Self::flush`].
    fn has_unflushed(&self) -> bool;
    /// What was sent so far is shown now.
    fn flush(&mut self);
    /// A line that the guest's firmware tells whoever looks for a mistake in it.
    fn debug(&mut self, _line: &str) {}
}

/// Interrupt line of the PIT at the 8259.
const TIMER_LINE: usize = 0;
/// How long the end of an unfinished line may wait to be shown, in nanoseconds.
const FLUSH_AFTER: u64 = 1_000_000;
/// Pin of the I/O APIC to which the PIT is wired, as the MADT says.
pub const TIMER_PIN: usize = 2;

/// The board.
#[derive(Debug)]
pub struct Chipset<C> {
    pic: PicPair,
    ioapic: IoApic,
    pit: Pit,
    rtc: Rtc,
    power: Power,
    keyboard: Keyboard,
    uart: Uart,
    pci: Pci,
    /// What firmware asks about the machine; only where there is firmware.
    fw_cfg: Option<FwCfg>,
    pub(super) flash: Option<Flash>,
    debug: DebugPort,
    console: C,
    /// The guest last wrote to the console device and not to the serial port: what is typed goes where it reads.
    typed_to_port: bool,
    /// The console device's place on the bus.
    port: Option<usize>,
    /// When the console is flushed, or `u64::MAX`.
    flush_at: u64,
    /// Last byte written to the diagnostic port.
    diagnostic: u8,
}

impl<C: Console> Chipset<C> {
    /// The board after power-on, at `wall_clock` seconds since 1970.
    #[must_use]
    pub fn new(console: C, wall_clock: u64) -> Self {
        Self {
            pic: PicPair::new(),
            ioapic: IoApic::new(),
            pit: Pit::new(),
            rtc: Rtc::new(wall_clock),
            power: Power::default(),
            keyboard: Keyboard::default(),
            uart: Uart::new(),
            pci: Pci::new(),
            fw_cfg: None,
            flash: None,
            debug: DebugPort::default(),
            console,
            typed_to_port: false,
            port: None,
            flush_at: u64::MAX,
            diagnostic: 0,
        }
    }

    /// Makes the board one that firmware finds its way on, with what it is told about the machine. Before any device is added.
    pub fn add_firmware(&mut self, fw_cfg: FwCfg, memory: u64) {
        self.fw_cfg = Some(fw_cfg);
        self.pci.set_board(pci::Board::Q35);
        for (index, value) in fw_cfg::setup_memory(memory) {
            self.rtc.store(index, value);
        }
    }

    /// Carries out a [`Request::Transfer`].
    pub fn transfer(&mut self, memory: &GuestMemory) {
        if let Some(fw_cfg) = &mut self.fw_cfg {
            fw_cfg.transfer(memory);
        }
    }

    /// Puts every device into its power-on state. The clock keeps its time.
    pub fn reset<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        self.pic = PicPair::new();
        self.ioapic = IoApic::new();
        self.pit = Pit::new();
        self.power = Power::default();
        self.keyboard = Keyboard::new(self.keyboard.is_plugged());
        self.uart = Uart::new();
        self.typed_to_port = false;
        self.pci.reset();
        self.debug = DebugPort::default();
        if let Some(fw_cfg) = &mut self.fw_cfg {
            fw_cfg.reset();
        }
        // The clock's registers survive on their battery; only its interrupts go off.
        self.rtc.write(0x70, 0x0b, now);
        self.rtc.write(0x71, 0x02, now);
        self.settle(now, to);
    }

    /// Last byte that the guest wrote to port 0x80.
    #[must_use]
    pub const fn diagnostic(&self) -> u8 {
        self.diagnostic
    }

    /// Reads `width` (1, 2 or 4) bytes at `port`; the bits above are 0. Where nothing answers, all bits are 1.
    pub fn port_read<K: Kick>(&mut self, port: u16, width: u8, now: u64, to: &Interrupts<K>) -> u32 {
        let value = match port {
            power::EVENT..power::END => self.power.read(port, width, now),
            power::RESET if width == 1 => self.power.read(port, width, now),
            pci::ADDRESS..=0xcff => self.pci.read(port, width, to),
            vga::EXTENSIONS..=vga::EXTENSIONS_END
                if width == 2
                    && let Some(display) = self.pci.display() =>
            {
                display.extension_read(port).into()
            }
            power::SMI if width == 4 && self.fw_cfg.is_some() => power::SMI_READY,
            fw_cfg::SELECTOR..=fw_cfg::LAST if let Some(fw_cfg) = &mut self.fw_cfg => fw_cfg.read(port, width),
            _ if let Some(value) = self.pci.range_read(Space::Io, port.into(), width, to) => value as u32,
            _ => (0..u16::from(width)).fold(0, |value, i| {
                value | u32::from(self.byte_read(port.wrapping_add(i), now)) << (i * 8)
            }),
        };
        self.settle(now, to);
        if width >= 4 { value } else { value & ((1 << (width * 8)) - 1) }
    }

    /// Writes; the answer is what the guest asks of the machine with it.
    pub fn port_write<K: Kick>(&mut self, port: u16, width: u8, value: u32, now: u64, to: &Interrupts<K>) -> Option<Request> {
        let request = match port {
            power::EVENT..power::END => self.power.write(port, width, value, now),
            power::RESET if width == 1 => self.power.write(port, width, value, now),
            pci::ADDRESS..=0xcff => {
                self.pci.write(port, width, value, to);
                None
            }
            vga::EXTENSIONS..=vga::EXTENSIONS_END
                if width == 2
                    && let Some(display) = self.pci.display() =>
            {
                display.extension_write(port, value as u16);
                display.settle();
                None
            }
            vga::FIRST_PORT..=vga::LAST_PORT if let Some(display) = self.pci.display() => {
                for (place, byte) in (port..).zip(&value.to_le_bytes()[..usize::from(width.min(4))]) {
                    display.write(place, *byte);
                }
                display.settle();
                None
            }
            fw_cfg::SELECTOR..=fw_cfg::LAST if let Some(fw_cfg) = &mut self.fw_cfg => fw_cfg.write(port, width, value),
            _ if self.pci.range_write(Space::Io, port.into(), width, value.into(), to) => None,
            _ => {
                let bytes = value.to_le_bytes();
                (0..u16::from(width.min(4))).fold(None, |request, i| {
                    let next = self.byte_write(port.wrapping_add(i), bytes[usize::from(i)], now);
                    request.or(next)
                })
            }
        };
        self.settle(now, to);
        request
    }

    fn byte_read(&mut self, port: u16, now: u64) -> u8 {
        match port {
            uart::PORT..=0x3ff => self.uart.read(port - uart::PORT),
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => self.pic.read(port),
            0x40..=0x43 | 0x61 => self.pit.read(port, now),
            0x60 | 0x64 => self.keyboard.read(port),
            0x70 | 0x71 => self.rtc.read(port, now),
            0x80 => self.diagnostic,
            vga::FIRST_PORT..=vga::LAST_PORT => self.pci.display().map_or(0xff, |display| display.read(port)),
            0x92 => self.keyboard.read_system_port(),
            debug_port::PORT if self.fw_cfg.is_some() => debug_port::PRESENT,
            _ => 0xff,
        }
    }

    fn byte_write(&mut self, port: u16, value: u8, now: u64) -> Option<Request> {
        match port {
            uart::PORT..=0x3ff => {
                let mut line = SerialLine {
                    console: &mut self.console,
                    used: false,
                };
                self.uart.write(port - uart::PORT, value, &mut line);
                self.typed_to_port &= !line.used;
            }
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => self.pic.write(port, value),
            0x40..=0x43 | 0x61 => self.pit.write(port, value, now),
            0x60 | 0x64 => return self.keyboard.write(port, value),
            0x70 | 0x71 => self.rtc.write(port, value, now),
            0x80 => self.diagnostic = value,
            0x92 => return self.keyboard.write_system_port(value),
            debug_port::PORT if self.fw_cfg.is_some() => {
                if let Some(line) = self.debug.write(value) {
                    self.console.debug(line);
                }
            }
            _ => (),
        }
        None
    }

    /// Reads at a guest-physical address outside RAM. Where nothing answers, all bits are 1.
    pub fn memory_read<K: Kick>(&mut self, address: u64, width: u8, to: &Interrupts<K>) -> u64 {
        if vga::WINDOW.contains(&address)
            && let Some(display) = self.pci.display()
        {
            let offset = (address - vga::WINDOW.start) as u32;
            return (0..u32::from(width)).fold(0, |value, place| {
                value | u64::from(display.window_read(offset.wrapping_add(place))) << (8 * place)
            });
        }
        if let Some(value) = self.pci.range_read(Space::Memory, address, width, to) {
            // An interrupt status that was read does not ask for its line any more.
            self.settle_pci(to);
            return value;
        }
        if let Some(value) = self.pci.mapped_read(address, width, to) {
            return value;
        }
        match address.wrapping_sub(ioapic::ADDRESS) {
            // The registers are 32 bits wide and answer at the low byte of each.
            offset @ 0..ioapic::LENGTH => u64::from(self.ioapic.read(offset & !3)) >> ((offset & 3) * 8),
            _ => u64::MAX >> (64 - 8 * u32::from(width.clamp(1, 8))),
        }
    }

    /// Writes at a guest-physical address outside RAM.
    pub fn memory_write<K: Kick>(&mut self, address: u64, width: u8, value: u64, to: &Interrupts<K>) {
        if vga::WINDOW.contains(&address)
            && let Some(display) = self.pci.display()
        {
            let offset = (address - vga::WINDOW.start) as u32;
            for (place, byte) in (offset..).zip(&value.to_le_bytes()[..usize::from(width.min(8))]) {
                display.window_write(place, *byte);
            }
            return;
        }
        if self.pci.range_write(Space::Memory, address, width, value, to) {
            // An interrupt that was acknowledged does not ask for its line any more.
            if self.fw_cfg.is_some() {
                self.settle_pci(to);
            }
            return;
        }
        if self.pci.mapped_write(address, width, value, to) {
            return;
        }
        if let offset @ 0..ioapic::LENGTH = address.wrapping_sub(ioapic::ADDRESS)
            && (width >= 4 || offset == 0)
        {
            self.ioapic.write(offset, value as u32, to);
        }
    }

    /// The device at this place on the bus is the console device: it is rung when something is typed for it.
    pub const fn set_port(&mut self, device: usize) {
        self.port = Some(device);
    }

    /// The guest wrote to its console device.
    pub fn show<K: Kick>(&mut self, bytes: &[u8], now: u64, to: &Interrupts<K>) {
        self.typed_to_port = true;
        for byte in bytes {
            self.console.send(*byte);
        }
        self.settle(now, to);
    }

    /// Takes what was typed for the console device: the number of bytes.
    pub fn typed(&mut self, bytes: &mut [u8]) -> usize {
        let typed = bytes.iter_mut().map_while(|byte| {
            let next = if self.typed_to_port { self.console.receive() } else { None };
            next.map(|next| *byte = next)
        });
        typed.count()
    }

    /// The bus.
    pub const fn pci(&mut self) -> &mut Pci {
        &mut self.pci
    }

    /// Queues of devices on the bus interrupt: those of these bits of a vCPU thread's signals. `from` is the vCPU whose thread this is.
    pub fn signalled<K: Kick>(&mut self, signals: u64, to: &Interrupts<K>, from: Option<usize>) {
        for bit in (FIRST_SIGNAL..u64::BITS).filter(|bit| signals >> bit & 1 != 0) {
            if let Some((device, queue)) = self.pci.signalled(bit)
                && let Some(device) = self.pci.device(device)
            {
                device.queue_interrupt(queue, to, from);
            }
        }
        self.settle_pci(to);
    }

    /// Something changed at a device on the bus other than by a register access.
    pub fn settle_pci<K: Kick>(&mut self, to: &Interrupts<K>) {
        if self.pci.devices().is_empty() && self.pci.ahci().is_none() {
            return;
        }
        for line in pci::LINES {
            let level = self.pci.line(line);
            self.set_line(line.into(), level, to);
        }
        to.set_external(self.pic.output());
    }

    /// A level-triggered interrupt ended.
    pub fn end_of_interrupt<K: Kick>(&mut self, vector: u8, to: &Interrupts<K>) {
        self.ioapic.end(vector, to);
    }

    /// The boot processor takes an interrupt from the 8259.
    pub fn acknowledge<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) -> Option<u8> {
        let vector = self.pic.output().then(|| self.pic.acknowledge());
        self.settle(now, to);
        vector
    }

    /// Runs what is due, and takes what came from the console.
    pub fn run<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        if self.pit.run(now) {
            // An edge: the line stays up until the next.
            self.set_line(TIMER_LINE, false, to);
            self.set_line(TIMER_LINE, true, to);
        }
        self.rtc.run(now);
        self.power.run(now);
        if now >= self.flush_at {
            self.console.flush();
        }
        self.settle(now, to);
    }

    /// Presses the power button.
    pub fn press_power_button<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        self.power.press_button();
        self.settle(now, to);
    }

    /// Plugs in a screen, a keyboard and a mouse.
    pub fn add_display(&mut self, display: vga::Display) {
        self.pci.add_display(display);
        self.keyboard = Keyboard::new(true);
    }

    fn settle_keyboard<K: Kick>(&mut self, to: &Interrupts<K>) {
        if !self.keyboard.is_plugged() {
            return;
        }
        // A byte that was read lets the line down before the next one raises it.
        self.set_keyboard_lines(to);
        while self.keyboard.has_room()
            && let Some(event) = self.pci.display().and_then(vga::Vga::event)
        {
            self.keyboard.event(event);
        }
        self.keyboard.fill();
        self.set_keyboard_lines(to);
    }

    fn set_keyboard_lines<K: Kick>(&mut self, to: &Interrupts<K>) {
        for (line, level) in keyboard::LINES.into_iter().zip(self.keyboard.lines()) {
            self.set_line(line, level, to);
        }
    }

    fn set_line<K: Kick>(&mut self, line: usize, level: bool, to: &Interrupts<K>) {
        self.pic.set_line(line, level);
        self.ioapic.set_pin(if line == TIMER_LINE { TIMER_PIN } else { line }, level, to);
    }

    /// Carries the devices' lines to the interrupt controllers and their deadlines to vCPU 0.
    fn settle<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        if self.typed_to_port {
            if let Some(port) = self.port
                && self.console.has_input()
            {
                to.ring(port);
            }
        }
        while !self.typed_to_port
            && self.uart.room() > 0
            && let Some(byte) = self.console.receive()
        {
            self.uart.receive(byte);
        }
        self.settle_keyboard(to);
        self.set_line(uart::LINE, self.uart.line(), to);
        self.set_line(rtc::LINE, self.rtc.line(), to);
        self.set_line(power::LINE, self.power.line(), to);
        self.settle_pci(to);
        to.set_external(self.pic.output());
        if !self.console.has_unflushed() {
            self.flush_at = u64::MAX;
        } else if self.flush_at == u64::MAX {
            self.flush_at = now + FLUSH_AFTER;
        }
        let timers = self.pit.deadline().min(self.rtc.deadline()).min(self.power.deadline(now));
        to.set_chipset_deadline(timers.min(self.flush_at));
    }
}

/// The console, with a note of whether it was written to.
struct SerialLine<'c, C> {
    console: &'c mut C,
    used: bool,
}

impl<C: Console> Sink for SerialLine<'_, C> {
    fn send(&mut self, byte: u8) {
        self.used = true;
        self.console.send(byte);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::apic::routing::{Event, tests::Kicks};
    use proptest::prelude::*;

    /// A console that remembers.
    #[derive(Debug, Default)]
    pub(crate) struct Terminal {
        pub(crate) shown: std::vec::Vec<u8>,
        pub(crate) typed: std::collections::VecDeque<u8>,
        pub(crate) unflushed: bool,
    }

    impl Sink for Terminal {
        fn send(&mut self, byte: u8) {
            self.shown.push(byte);
            self.unflushed = byte != b'\n';
        }
    }

    impl Console for Terminal {
        fn receive(&mut self) -> Option<u8> {
            self.typed.pop_front()
        }
        fn has_input(&mut self) -> bool {
            !self.typed.is_empty()
        }
        fn has_unflushed(&self) -> bool {
            self.unflushed
        }
        fn flush(&mut self) {
            self.unflushed = false;
        }
    }

    fn board() -> (Chipset<Terminal>, Interrupts<Kicks>) {
        (Chipset::new(Terminal::default(), 0), Interrupts::new(2, Kicks::default()))
    }

    #[test]
    fn timer_interrupt_through_the_8259() {
        let (mut board, to) = board();
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 4),
            (0x21, 1),
            (0x21, 0xfe),
            (0x43, 0x34),
            (0x40, 0xa9),
            (0x40, 4),
        ] {
            board.port_write(port, 1, value, 0, &to);
        }
        let deadline = to.chipset_deadline();
        assert!((999_000..1_001_000).contains(&deadline));
        assert!(!to.external());
        board.run(deadline, &to);
        assert!(to.external());
        assert!(!to.inbox(0).is_empty(), "vCPU 0 must look");
        assert_eq!(board.acknowledge(deadline, &to), Some(0x30));
        assert!(!to.external());
        assert_eq!(board.acknowledge(deadline, &to), None);
    }

    #[test]
    fn serial_port_through_the_io_apic() {
        let (mut board, to) = board();
        board.memory_write(ioapic::ADDRESS, 4, 0x18, &to);
        board.memory_write(ioapic::ADDRESS + 0x10, 4, 0x44, &to);
        for (port, value) in [(0x3fa, 1), (0x3fc, 0xb), (0x3f9, 1)] {
            board.port_write(port, 1, value, 0, &to);
        }
        board.console.typed.extend(0..40);
        board.run(0, &to);
        assert_eq!(to.inbox(0).take_events() & Event::VECTORS, Event::VECTORS);
        let read: std::vec::Vec<_> = (0..40).map(|_| board.port_read(0x3f8, 1, 0, &to) as u8).collect();
        assert_eq!(read, (0..40).collect::<std::vec::Vec<_>>(), "the FIFO is refilled as it is read");
        board.port_write(0x3f8, 1, u32::from(b'A'), 0, &to);
        assert_eq!(board.console.shown, b"A");
    }

    #[test]
    fn the_end_of_a_line_does_not_wait_for_ever() {
        let (mut board, to) = board();
        board.port_write(0x3f8, 1, u32::from(b'#'), 500, &to);
        assert!(board.console.unflushed);
        assert_eq!(to.chipset_deadline(), 500 + FLUSH_AFTER);
        board.port_write(0x3f8, 1, u32::from(b' '), 900, &to);
        assert_eq!(to.chipset_deadline(), 500 + FLUSH_AFTER, "later bytes do not put it off");
        board.run(500 + FLUSH_AFTER, &to);
        assert!(!board.console.unflushed);
        assert_eq!(to.chipset_deadline(), u64::MAX);
    }

    #[test]
    fn what_is_typed_goes_where_the_guest_wrote_last() {
        let (mut board, to) = board();
        board.port_write(0x3fa, 1, 1, 0, &to);
        board.set_port(3);
        board.console.typed.extend(*b"ab");
        let mut bytes = [0; 8];
        assert_eq!(board.typed(&mut bytes), 0, "nothing was written to the device");
        board.show(b"hvc0> ", 0, &to);
        assert_eq!(board.console.shown, b"hvc0> ");
        assert_eq!(to.kicked().rings(), [3]);
        assert_eq!(board.port_read(0x3f8, 1, 0, &to), 0);
        assert_eq!((board.typed(&mut bytes), bytes[0], bytes[1]), (2, b'a', b'b'));
        board.port_write(0x3f8, 1, u32::from(b'#'), 0, &to);
        board.console.typed.extend(*b"c");
        assert_eq!(board.typed(&mut bytes), 0);
        board.run(0, &to);
        assert_eq!(board.port_read(0x3f8, 1, 0, &to), u32::from(b'c'));
    }

    #[test]
    fn open_bus() {
        let (mut board, to) = board();
        assert_eq!(board.port_read(0x1234, 4, 0, &to), u32::MAX);
        assert_eq!(board.port_read(0x1234, 1, 0, &to), 0xff);
        assert_eq!(board.port_read(0xffff, 4, 0, &to), u32::MAX, "wraps around the end of port space");
        assert_eq!(board.memory_read(0xe000_0000, 2, &to), 0xffff);
    }

    proptest! {
        #[test]
        fn survives_a_walk_of_all_ports(
            operations in prop::collection::vec((0u8..5, any::<u16>(), prop::sample::select(&[1u8, 2, 4]), any::<u32>(), 0u64..100_000_000), 1..200),
        ) {
            let (mut board, to) = board();
            let mut now = 0;
            for (kind, port, width, value, step) in operations {
                now += step;
                // Half of the accesses go where devices are.
                let port = if port & 1 == 0 { port >> 5 } else { port };
                match kind {
                    0 => { board.port_write(port, width, value, now, &to); }
                    1 => { let got = board.port_read(port, width, now, &to); prop_assert!(width == 4 || got >> (width * 8) == 0); }
                    2 => board.memory_write(ioapic::ADDRESS + u64::from(port), width, u64::from(value), &to),
                    3 => { board.memory_read(ioapic::ADDRESS + u64::from(port), width, &to); }
                    _ => board.run(now, &to),
                }
            }
        }
    }
}
