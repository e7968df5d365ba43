use super::*;
use crate::apic::routing::{Event, tests::Kicks};
use crate::devices::watchdog;
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

/// One with firmware and a watchdog.
fn machine() -> (Chipset<Terminal>, Interrupts<Kicks>) {
    let (mut board, to) = board();
    board.add_firmware(FwCfg::new(1), 64 << 20);
    board.pci().add_watchdog(watchdog::Action::PowerOff);
    (board, to)
}

#[test]
fn only_the_clock_and_what_counts_events_outlive_sleep() {
    const SECOND: u64 = 1_000_000_000;
    let (mut board, to) = machine();
    let cmos = |board: &mut Chipset<Terminal>, index: u8| {
        board.port_write(0x70, 1, index.into(), 0, &to);
        board.port_read(0x71, 1, 0, &to)
    };
    // An alarm at the third second, for which the machine is to wake.
    for (index, value) in [(0x40, 0x5a), (1, 3), (3, 0xff), (5, 0xff), (0x0b, 0x22)] {
        board.port_write(0x70, 1, index, 0, &to);
        board.port_write(0x71, 1, value, 0, &to);
    }
    board.port_write(0x602, 2, 1 << 10, 0, &to);
    board.port_write(0x21, 1, 0x55, 0, &to);
    board.memory_write(hpet::ADDRESS + 0x10, 4, 3, 0, &to);
    assert_eq!(board.port_write(power::CONTROL, 2, 3 << 10 | 1 << 13, 0, &to), Some(Request::Sleep));
    board.sleep(SECOND / 2, &to);
    assert!(board.is_asleep() && !board.is_woken());
    assert_ne!(
        board.port_read(0x21, 1, SECOND / 2, &to),
        0x55,
        "the interrupt controller has no power"
    );
    assert_eq!(
        board.memory_read(hpet::ADDRESS + 0x10, 4, SECOND / 2, &to),
        0,
        "nor has the event timer"
    );
    assert_eq!(cmos(&mut board, 0x40), 0x5a);
    assert_eq!(cmos(&mut board, rtc::SHUTDOWN), rtc::SHUTDOWN_WAKE.into(), "what firmware looks at");
    let mut now = SECOND / 2;
    while !board.is_woken() {
        now = to.chipset_deadline();
        assert!(now <= 3 * SECOND, "the alarm wakes it");
        board.run(now, &to);
    }
    assert_eq!(now, 3 * SECOND);
    board.wake(now, &to);
    assert!(!board.is_asleep());
    assert_eq!(
        board.port_read(power::EVENT, 2, now, &to) & 0x8400,
        0x8400,
        "it slept, and why it woke"
    );
    // A reset of a machine that sleeps is no waking.
    board.port_write(power::CONTROL, 2, 3 << 10 | 1 << 13, now, &to);
    board.sleep(now, &to);
    board.reset(now, &to);
    assert_eq!((cmos(&mut board, rtc::SHUTDOWN), board.is_asleep()), (0, false));
}

#[test]
fn a_key_wakes_who_sleeps_and_goes_no_further() {
    let (mut board, to) = board();
    let desk = vga::tests::Desk::default();
    board.add_display(vga::tests::display_with(&desk, 64 << 10), true);
    board.port_write(power::CONTROL, 2, 3 << 10 | 1 << 13, 0, &to);
    board.sleep(0, &to);
    for down in [false, true] {
        assert!(!board.is_woken());
        desk.events
            .lock()
            .unwrap()
            .push_back(tessera_screen::Event::Key { code: 0x1e, down });
        board.run(0, &to);
    }
    assert!(board.is_woken());
    board.wake(0, &to);
    assert_eq!(board.port_read(0x64, 1, 0, &to) & 1, 0, "nothing for the guest to read");
}

#[test]
fn event_timers_through_the_io_apic_and_in_the_place_of_the_pit() {
    let (mut board, to) = machine();
    for (offset, value) in [(0x10, 1), (0x100, 1 << 2 | 20 << 9), (0x108, 1000)] {
        board.memory_write(hpet::ADDRESS + offset, 8, value, 0, &to);
    }
    // Pin 20 is vector 0x44, pin 2 vector 0x45.
    for (register, value) in [(0x10 + 2 * 20, 0x44), (0x10 + 2 * 2, 0x45)] {
        board.memory_write(ioapic::ADDRESS, 4, register, 0, &to);
        board.memory_write(ioapic::ADDRESS + 0x10, 4, value, 0, &to);
    }
    assert_eq!(to.chipset_deadline(), 10_000);
    assert_eq!(to.inbox(0).take_events() & Event::VECTORS, 0);
    assert_eq!(board.run(10_000, &to), None);
    assert_eq!(to.inbox(0).take_events() & Event::VECTORS, Event::VECTORS);
    // The PIT's own ticks are not seen any more.
    board.memory_write(hpet::ADDRESS + 0x10, 4, 3, 10_000, &to);
    for (port, value) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 4)] {
        board.port_write(port, 1, value, 10_000, &to);
    }
    board.run(5_000_000, &to);
    assert_eq!(to.inbox(0).take_events() & Event::VECTORS, 0);
    board.memory_write(hpet::ADDRESS + 0x108, 8, 600_000, 5_000_000, &to);
    board.run(6_000_000, &to);
    assert_eq!(to.inbox(0).take_events() & Event::VECTORS, Event::VECTORS);
    assert_eq!(board.memory_read(hpet::ADDRESS + 0xf0, 8, 6_000_000, &to), 600_000);
    board.reset(7_000_000, &to);
    assert_eq!(board.memory_read(hpet::ADDRESS + 0xf0, 8, 8_000_000, &to), 0);
}

#[test]
fn a_watchdog_ends_the_machine_and_a_panic_does_not() {
    let (mut board, to) = machine();
    let slot = 1 << 31 | u32::from(watchdog::SLOT) << 11;
    let mut configure = |register: u32, value: u32| {
        board.port_write(pci::ADDRESS, 4, slot | register, 0, &to);
        board.port_write(pci::DATA, 4, value, 0, &to);
    };
    configure(0x60, 1 << 2);
    configure(0x68, 2);
    // Two periods of 2^20 ticks of 1 MHz.
    let first = to.chipset_deadline();
    assert_eq!(first, (1 << 25) * 30);
    assert_eq!(board.run(first, &to), None);
    assert_eq!(board.run(2 * first, &to), Some(Request::PowerOff));
    assert_eq!(board.port_read(pvpanic::PORT, 1, 0, &to), 3);
    assert_eq!(board.port_write(pvpanic::PORT, 1, 1, 0, &to), Some(Request::Panicked));
    assert_eq!(board.port_write(pvpanic::PORT, 1, 0, 0, &to), None);
    assert_eq!(board.incidents(), (1, 1));
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
    board.memory_write(ioapic::ADDRESS, 4, 0x18, 0, &to);
    board.memory_write(ioapic::ADDRESS + 0x10, 4, 0x44, 0, &to);
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
fn keys_of_a_text_come_one_by_one() {
    let (mut board, to) = board();
    let desk = vga::tests::Desk::default();
    board.add_display(vga::tests::display_with(&desk, 1 << 20), false);
    // The firmware's interrupt handler takes each byte at once: the moments at which it had something to take.
    let mut come = std::vec::Vec::new();
    let key = |code, down| tessera_screen::Event::Key { code, down };
    desk.events.lock().unwrap().extend([
        key(0x1e, true),
        key(0x1e, false),
        key(0x2a, true),
        key(0x30, true),
        key(0x30, false),
        key(0x2a, false),
    ]);
    let mut now = 0;
    while now != u64::MAX {
        board.run(now, &to);
        while board.port_read(0x64, 1, now, &to) & 1 != 0 {
            come.push((now, board.port_read(0x60, 1, now, &to)));
        }
        now = to.chipset_deadline();
    }
    let second = KEY_INTERVAL;
    assert_eq!(
        come,
        [
            (0, 0x1e),
            (second, 0x9e),
            (second, 0x2a),
            (second, 0x30),
            (2 * second, 0xb0),
            (2 * second, 0xaa)
        ]
    );
}

#[test]
fn open_bus() {
    let (mut board, to) = board();
    assert_eq!(board.port_read(0x1234, 4, 0, &to), u32::MAX);
    assert_eq!(board.port_read(0x1234, 1, 0, &to), 0xff);
    assert_eq!(board.port_read(0xffff, 4, 0, &to), u32::MAX, "wraps around the end of port space");
    assert_eq!(board.memory_read(0xe000_0000, 2, 0, &to), 0xffff);
}

proptest! {
    #[test]
    fn survives_a_walk_of_all_ports(
        operations in prop::collection::vec((0u8..7, any::<u16>(), prop::sample::select(&[1u8, 2, 4]), any::<u32>(), 0u64..100_000_000), 1..200),
    ) {
        let (mut board, to) = machine();
        let mut now = 0;
        for (kind, port, width, value, step) in operations {
            now += step;
            // Half of the accesses go where devices are.
            let port = if port & 1 == 0 { port >> 5 } else { port };
            match kind {
                0 => { board.port_write(port, width, value, now, &to); }
                1 => { let got = board.port_read(port, width, now, &to); prop_assert!(width == 4 || got >> (width * 8) == 0); }
                2 => board.memory_write(ioapic::ADDRESS + u64::from(port), width, u64::from(value), now, &to),
                3 => { board.memory_read(ioapic::ADDRESS + u64::from(port), width, now, &to); }
                4 => board.memory_write(hpet::ADDRESS + u64::from(port % 0x140), width, u64::from(value), now, &to),
                5 => { board.memory_read(hpet::ADDRESS + u64::from(port % 0x140), width, now, &to); }
                _ => { board.run(now, &to); }
            }
        }
    }
}
