//! Which device answers at which port and address, and where its interrupt goes. Shared by all vCPUs of a machine behind one lock.

mod saved;

pub use saved::SavedChipset;

use super::debug_port::{self, DebugPort};
use super::flash::Flash;
use super::fw_cfg::{self, FwCfg};
use super::hpet::{self, Hpet};
use super::keyboard::{self, Keyboard};
use super::pci::function::Space;
use super::pci::{self, Pci};
use super::pic::PicPair;
use super::pit::Pit;
use super::power::{self, Power, Request};
use super::pvpanic::{self, PvPanic};
use super::rtc::{self, Rtc};
use super::uart::{self, Sink, Uart};
use super::vga;
use super::virtio::FIRST_SIGNAL;
use crate::apic::ioapic::{self, IoApic};
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;
use tessera_screen::Event;

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
/// Nanoseconds between two keys that go down: a text that is sent comes as quickly as hands could type it. A BIOS keeps fifteen keys for programs that are slow to ask, and drops the rest.
const KEY_INTERVAL: u64 = 25_000_000;
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
    /// Likewise.
    hpet: Option<Hpet>,
    pvpanic: PvPanic,
    pub(super) flash: Option<Flash>,
    debug: DebugPort,
    console: C,
    /// The guest last wrote to the console device and not to the serial port: what is typed goes where it reads.
    typed_to_port: bool,
    /// The console device's place on the bus.
    port: Option<usize>,
    /// When the console is flushed, or `u64::MAX`.
    flush_at: u64,
    /// Guest time from which on another key may go down.
    next_key: u64,
    /// Last byte written to the diagnostic port.
    diagnostic: u8,
    /// Lines that may be up, and pins that the event timer may have up: the others need not be let down again.
    raised: u32,
    raised_pins: u32,
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
            hpet: None,
            pvpanic: PvPanic::default(),
            flash: None,
            debug: DebugPort::default(),
            console,
            typed_to_port: false,
            port: None,
            flush_at: u64::MAX,
            next_key: 0,
            diagnostic: 0,
            raised: 0,
            raised_pins: 0,
        }
    }

    /// Makes the board one that firmware finds its way on, with what it is told about the machine. Before any device is added.
    pub fn add_firmware(&mut self, fw_cfg: FwCfg, memory: u64) {
        self.fw_cfg = Some(fw_cfg);
        self.hpet = Some(Hpet::new());
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
        if self.power.is_asleep() {
            // Nobody goes on where it slept.
            self.rtc.store(rtc::SHUTDOWN, 0);
        }
        self.power = Power::default();
        self.lose_power();
        // The clock's registers survive on their battery; only its interrupts go off.
        self.rtc.write(0x70, 0x0b, now);
        self.rtc.write(0x71, 0x02, now);
        self.settle(now, to);
    }

    /// The machine falls asleep with its RAM alone kept (ACPI S3): what is left beside it is the clock, which may wake it, and what counts events.
    pub fn sleep<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        self.lose_power();
        if self.fw_cfg.is_some() {
            self.rtc.store(rtc::SHUTDOWN, rtc::SHUTDOWN_WAKE);
        }
        self.settle(now, to);
    }

    /// Whether the machine sleeps, or is about to.
    #[must_use]
    pub const fn is_asleep(&self) -> bool {
        self.power.is_asleep()
    }

    /// Whether the machine sleeps, and is to wake.
    #[must_use]
    pub const fn is_woken(&self) -> bool {
        self.power.is_woken()
    }

    /// The machine is awake, with every device as after power-on.
    pub fn wake<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        self.power.wake();
        self.settle(now, to);
    }

    /// What devices without a supply of their own are afterwards.
    fn lose_power(&mut self) {
        self.pic = PicPair::new();
        self.ioapic = IoApic::new();
        self.pit = Pit::new();
        self.keyboard = Keyboard::new(self.keyboard.is_plugged());
        self.uart = Uart::new();
        self.typed_to_port = false;
        self.pci.reset();
        self.debug = DebugPort::default();
        if let Some(fw_cfg) = &mut self.fw_cfg {
            fw_cfg.reset();
        }
        self.hpet = self.hpet.as_ref().map(|_| Hpet::new());
    }

    /// Last byte that the guest wrote to port 0x80.
    #[must_use]
    pub const fn diagnostic(&self) -> u8 {
        self.diagnostic
    }

    /// Reads `width` (1, 2 or 4) bytes at `port`; the bits above are 0. Where nothing answers, all bits are 1.
    pub fn port_read<K: Kick>(&mut self, port: u16, width: u8, now: u64, to: &Interrupts<K>) -> u32 {
        if (power::EVENT..power::END).contains(&port) {
            // Firmware waits by reading the timer here, millions of times; nothing but this line can change by it.
            let value = self.power.read(port, width, now);
            self.set_line(power::LINE, self.power.line(), to);
            to.set_external(self.pic.output());
            return value;
        }
        let value = match port {
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
            pvpanic::PORT => self.pvpanic.read(),
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
            pvpanic::PORT => return self.pvpanic.write(value).then_some(Request::Panicked),
            debug_port::PORT if self.fw_cfg.is_some() => {
                if let Some(line) = self.debug.write(value) {
                    self.console.debug(line);
                }
            }
            _ => (),
        }
        None
    }

    /// The guest touched an address outside RAM, not to execute. Answers whether that was video RAM which it sees now: it is to try again.
    pub fn touch(&mut self, address: u64) -> bool {
        self.pci.display().is_some_and(|display| display.touch(address))
    }

    /// Reads at a guest-physical address outside RAM. Where nothing answers, all bits are 1.
    pub fn memory_read<K: Kick>(&mut self, address: u64, width: u8, now: u64, to: &Interrupts<K>) -> u64 {
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
        if let Some((hpet, offset)) = self.hpet_at(address, width) {
            return hpet.read(offset, width, now);
        }
        match address.wrapping_sub(ioapic::ADDRESS) {
            // The registers are 32 bits wide and answer at the low byte of each.
            offset @ 0..ioapic::LENGTH => u64::from(self.ioapic.read(offset & !3)) >> ((offset & 3) * 8),
            _ => u64::MAX >> (64 - 8 * u32::from(width.clamp(1, 8))),
        }
    }

    /// Writes at a guest-physical address outside RAM.
    pub fn memory_write<K: Kick>(&mut self, address: u64, width: u8, value: u64, now: u64, to: &Interrupts<K>) {
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
            if self.fw_cfg.is_some() || self.pci.hides_devices() {
                self.settle_pci(to);
            }
            self.settle_timers(now, to);
            return;
        }
        if self.pci.mapped_write(address, width, value, to) {
            self.settle_timers(now, to);
            return;
        }
        if let Some((hpet, offset)) = self.hpet_at(address, width) {
            hpet.write(offset, width, value, now);
            self.settle(now, to);
            return;
        }
        if let offset @ 0..ioapic::LENGTH = address.wrapping_sub(ioapic::ADDRESS)
            && (width >= 4 || offset == 0)
        {
            self.ioapic.write(offset, value as u32, to);
        }
    }

    /// The timer with its range at an address, and the offset in it.
    fn hpet_at(&mut self, address: u64, width: u8) -> Option<(&mut Hpet, u64)> {
        let offset = address.checked_sub(hpet::ADDRESS)?;
        let inside = offset + u64::from(width) <= hpet::LENGTH;
        Some((self.hpet.as_mut().filter(|_| inside)?, offset))
    }

    /// The machine was switched off by its watchdog.
    pub fn watchdog_switched_off(&mut self) -> bool {
        self.pci.watchdog().is_some_and(|watchdog| watchdog.switched_off())
    }

    /// How often the guest's kernel panicked, and did not come by at its watchdog, since the machine was made.
    pub fn incidents(&mut self) -> (u32, u32) {
        (self.pvpanic.panics(), self.pci.watchdog().map_or(0, |watchdog| watchdog.timeouts()))
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
            } else {
                self.pci.passed_signal(bit, to, from);
            }
        }
        self.settle_pci(to);
    }

    /// Goes on with devices that the guest reaches by a controller of another kind: after a register access, a signal of a vCPU thread, news of their server, or when somebody points.
    pub fn run_hidden<K: Kick>(&mut self, memory: &GuestMemory, to: &Interrupts<K>) {
        if self.pci.hides_devices() && self.pci.run_hidden(memory, to) {
            self.settle_pci(to);
        }
    }

    /// Something changed at a device on the bus other than by a register access.
    #[inline(never)]
    pub fn settle_pci<K: Kick>(&mut self, to: &Interrupts<K>) {
        if self.pci.devices().is_empty() && self.pci.ahci().is_none() {
            return;
        }
        let asked = self.pci.lines();
        for line in pci::LINES {
            self.set_line(line.into(), asked >> line & 1 != 0, to);
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

    /// Runs what is due, and takes what came from the console. The answer is what is to happen to the machine.
    pub fn run<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) -> Option<Request> {
        if self.pit.run(now) && !self.is_replaced() {
            // An edge: the line stays up until the next.
            self.set_line(TIMER_LINE, false, to);
            self.set_line(TIMER_LINE, true, to);
        }
        if self.rtc.run(now) {
            self.power.alarm();
        }
        self.power.run(now);
        if let Some(hpet) = &mut self.hpet {
            hpet.run(now);
        }
        let request = self.pci.watchdog().and_then(|watchdog| watchdog.run(now));
        if now >= self.flush_at {
            self.console.flush();
        }
        self.settle(now, to);
        request
    }

    /// Whether timers interrupt in the place of PIT and RTC.
    fn is_replaced(&self) -> bool {
        self.hpet.as_ref().is_some_and(Hpet::replaces)
    }

    fn settle_hpet<K: Kick>(&mut self, to: &Interrupts<K>) {
        let Some(hpet) = &mut self.hpet else { return };
        let (levels, edges) = (hpet.levels(), hpet.take_edges());
        let mut pins = (levels | edges | self.raised_pins) & hpet::PINS;
        self.raised_pins = (levels | edges) & hpet::PINS;
        while pins != 0 {
            let pin = pins.trailing_zeros();
            let pin_mask = 1 << pin;
            pins &= !pin_mask;
            if edges & pin_mask != 0 {
                self.ioapic.set_pin(pin as usize, false, to);
                self.ioapic.set_pin(pin as usize, true, to);
            }
            self.ioapic.set_pin(pin as usize, levels & pin_mask != 0, to);
        }
        for (pin, line) in [(TIMER_PIN, TIMER_LINE), (rtc::LINE, rtc::LINE)] {
            if edges >> pin & 1 != 0 {
                self.set_line(line, false, to);
                self.set_line(line, true, to);
            }
        }
    }

    /// Begins periods, and says when somebody must look again.
    fn settle_timers<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        let mut timers = self.pit.deadline().min(self.rtc.deadline()).min(self.power.deadline(now));
        if let Some(hpet) = &self.hpet {
            timers = timers.min(hpet.deadline(now));
        }
        if let Some(watchdog) = self.pci.watchdog() {
            watchdog.settle(now);
            timers = timers.min(watchdog.deadline());
        }
        if self.next_key > now {
            timers = timers.min(self.next_key);
        }
        to.set_chipset_deadline(timers.min(self.flush_at));
    }

    /// Presses the power button.
    pub fn press_power_button<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        self.power.press_button();
        self.settle(now, to);
    }

    /// Plugs in a screen, a keyboard, a mouse and a tablet.
    pub fn add_display(&mut self, display: vga::Display, fill: bool) {
        self.pci.add_display(display, fill);
        self.pci.add_xhci();
        self.keyboard = Keyboard::new(true);
    }

    /// Bytes of video RAM; 0: there is no screen.
    pub fn video_bytes(&mut self) -> u64 {
        self.pci.display().map_or(0, |vga| vga.video_bytes())
    }

    fn settle_keyboard<K: Kick>(&mut self, now: u64, to: &Interrupts<K>) {
        if !self.keyboard.is_plugged() {
            return;
        }
        // A byte that was read lets the line down before the next one raises it.
        self.set_keyboard_lines(to);
        while self.keyboard.has_room()
            && now >= self.next_key
            && let Some(event) = self.pci.display().and_then(vga::Vga::event)
        {
            if matches!(event, Event::Key { code, down: true } if !keyboard::is_modifier(code)) {
                self.next_key = now + KEY_INTERVAL;
            }
            // The pointer is one of both: the tablet's, or the mouse's where no driver asks the tablet.
            if self.power.is_asleep() {
                // The controller has no supply; a key is noticed all the same.
                if matches!(event, Event::Key { down: true, .. }) {
                    self.power.key();
                }
                continue;
            }
            let tablet = self.pci.xhci().filter(|xhci| xhci.has_pointer());
            match (event, tablet) {
                (Event::Point { x, y, wheel, buttons }, Some(tablet)) => tablet.point(x, y, wheel, buttons),
                (Event::Mouse { .. }, Some(_)) | (Event::Point { .. }, None) => {}
                (event, _) => self.keyboard.event(event),
            }
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
        // Every register access comes by here for every line, and nearly all of them are down and stay so.
        if !level && self.raised >> line & 1 == 0 {
            return;
        }
        self.raised = self.raised & !(1 << line) | u32::from(level) << line;
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
        self.settle_keyboard(now, to);
        self.set_line(uart::LINE, self.uart.line(), to);
        self.settle_hpet(to);
        if !self.is_replaced() {
            self.set_line(rtc::LINE, self.rtc.line(), to);
        }
        self.set_line(power::LINE, self.power.line(), to);
        self.settle_pci(to);
        to.set_external(self.pic.output());
        if !self.console.has_unflushed() {
            self.flush_at = u64::MAX;
        } else if self.flush_at == u64::MAX {
            self.flush_at = now + FLUSH_AFTER;
        }
        self.settle_timers(now, to);
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
#[path = "chipset_tests.rs"]
pub(crate) mod tests;
