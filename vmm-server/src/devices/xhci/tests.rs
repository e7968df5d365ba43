//! The controller as a driver sees it.

use super::*;
use crate::apic::routing::tests::Kicks;
use crate::memory::tests::ram;
use proptest::prelude::*;
use ring::{CYCLE, IMMEDIATE, ON_COMPLETION, ON_SHORT, TOGGLE};
use std::vec::Vec;
use tessera_vm_state::{decode, encode};

/// Where a driver of these tests has what.
const LIST: u64 = 0x1000;
const COMMANDS: u64 = 0x2000;
const EVENTS: u64 = 0x3000;
const EVENT_COUNT: u64 = 32;
const EVENT_TABLE: u64 = 0x4000;
const OUTPUT: u64 = 0x5000;
const INPUT: u64 = 0x6000;
const CONTROL_RING: u64 = 0x7000;
const REPORT_RING: u64 = 0x8000;
const BUFFER: u64 = 0x9000;

struct Driver {
    xhci: Xhci,
    memory: GuestMemory,
    to: Interrupts<Kicks>,
    command: u64,
    control: u64,
    reports: u64,
    event: u64,
    cycle: u32,
}

impl Driver {
    fn new() -> Self {
        let mut driver = Self {
            xhci: Xhci::new(),
            memory: ram(&[0x1_0000]),
            to: Interrupts::new(1, Kicks::default()),
            command: COMMANDS,
            control: CONTROL_RING,
            reports: REPORT_RING,
            event: EVENTS,
            cycle: CYCLE,
        };
        driver.xhci.config_write(1, u32::MAX, 6, &driver.to);
        driver
    }

    fn write(&mut self, offset: u32, value: u32) {
        assert!(self.xhci.range_write(u64::from(ADDRESS + offset), 4, value.into(), &self.to));
        self.xhci.run(&self.memory, &self.to);
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.xhci.range_read(u64::from(ADDRESS + offset), 4).unwrap() as u32
    }

    fn put(&self, at: u64, block: Block) {
        self.memory.write_slice(at, &block.parameter.to_le_bytes()).unwrap();
        self.memory.write_u32(at + 8, block.status).unwrap();
        self.memory.write_u32(at + 12, block.control).unwrap();
    }

    fn words(&self, at: u64, words: &[u32]) {
        for (place, word) in (at..).step_by(4).zip(words) {
            self.memory.write_u32(place, *word).unwrap();
        }
    }

    /// The next event, which is taken.
    fn event(&mut self) -> Option<Block> {
        let control = self.memory.read_u32(self.event + 12).unwrap();
        if control & CYCLE != self.cycle {
            return None;
        }
        let block = Block {
            parameter: self.memory.read_u64(self.event).unwrap(),
            status: self.memory.read_u32(self.event + 8).unwrap(),
            control,
        };
        self.event += 16;
        if self.event == EVENTS + EVENT_COUNT * 16 {
            (self.event, self.cycle) = (EVENTS, self.cycle ^ CYCLE);
        }
        self.write(0x1038, self.event as u32 | BUSY as u32);
        self.write(0x103c, 0);
        Some(block)
    }

    /// Sets the controller up and lets it run.
    fn start(&mut self) {
        self.write(0x40, RESET);
        self.write(0x78, SLOTS as u32);
        for (register, value) in [(0x70, LIST), (0x58, COMMANDS | 1), (0x1030, EVENT_TABLE)] {
            if register == 0x1030 {
                self.words(EVENT_TABLE, &[EVENTS as u32, 0, EVENT_COUNT as u32, 0]);
                self.write(0x1028, 1);
                self.write(0x1038, EVENTS as u32);
            }
            self.write(register, value as u32);
            self.write(register + 4, 0);
        }
        self.write(0x1020, ENABLED);
        self.write(0x40, RUN | INTERRUPTS_ON);
    }

    /// Gives a command and takes its answer: code and slot.
    fn command(&mut self, kind: u8, parameter: u64, more: u32) -> (u8, u8) {
        let at = self.command;
        self.put(
            at,
            Block {
                parameter,
                status: 0,
                control: u32::from(kind) << 10 | more | CYCLE,
            },
        );
        self.command += 16;
        self.write(DOORBELLS, 0);
        let event = self.event().expect("no answer");
        assert_eq!((event.kind(), event.parameter), (kind::COMMAND_EVENT, at));
        ((event.status >> 24) as u8, event.slot())
    }

    /// As far as the device's control endpoint answers.
    fn address(&mut self) {
        self.start();
        let news = self.event().unwrap();
        assert_eq!((news.kind(), news.parameter), (kind::PORT_EVENT, 1 << 24));
        assert_eq!(self.read(PORTS) & 3, 1, "connected, not enabled");
        self.write(PORTS, 1 << 4 | 1 << 9 | 1 << 17);
        assert_eq!(self.event().unwrap().kind(), kind::PORT_EVENT);
        self.write(PORTS, 1 << 9 | 1 << 21);
        assert_eq!(self.read(PORTS) & 0xfe_0003, 3);
        assert_eq!(self.command(kind::ENABLE_SLOT, 0, 0), (1, 1));
        self.words(LIST + 8, &[OUTPUT as u32, 0]);
        self.words(INPUT, &[0, 3]);
        self.words(INPUT + 0x20, &[1 << 27 | 3 << 20, 1 << 16, 0, 0]);
        self.words(INPUT + 0x40, &[0, 64 << 16 | 4 << 3, CONTROL_RING as u32 | 1, 0]);
        assert_eq!(self.command(kind::ADDRESS_DEVICE, INPUT, 1 << 24), (1, 1));
        assert_eq!(self.memory.read_u32(OUTPUT + 12), Some(2 << 27 | 1));
        assert_eq!(self.memory.read_u32(OUTPUT + 0x20).unwrap() & 7, 1);
    }

    /// A control transfer that reads, with its code and what came.
    fn get(&mut self, setup: [u8; 8]) -> (u8, Vec<u8>) {
        let length = u32::from(u16::from_le_bytes([setup[6], setup[7]]));
        let of = |kind: u8, more: u32| u32::from(kind) << 10 | more | CYCLE;
        self.put(
            self.control,
            Block {
                parameter: u64::from_le_bytes(setup),
                status: 8,
                control: of(kind::SETUP, IMMEDIATE),
            },
        );
        self.control += 16;
        if length > 0 {
            self.put(
                self.control,
                Block {
                    parameter: BUFFER,
                    status: length,
                    control: of(kind::DATA, ON_SHORT | 1 << 16),
                },
            );
            self.control += 16;
        }
        self.put(
            self.control,
            Block {
                parameter: 0,
                status: 0,
                control: of(kind::STATUS, ON_COMPLETION),
            },
        );
        self.control += 16;
        self.write(DOORBELLS + 4, 1);
        let mut left = 0;
        loop {
            let event = self.event().expect("the transfer does not end");
            assert_eq!((event.kind(), event.endpoint(), event.slot()), (kind::TRANSFER_EVENT, 1, 1));
            let code = (event.status >> 24) as u8;
            if code == Code::Short as u8 {
                left = event.status & 0xff_ffff;
                continue;
            }
            let mut bytes = std::vec![0; (length - left) as usize];
            self.memory.read_slice(BUFFER, &mut bytes).unwrap();
            return (code, bytes);
        }
    }

    fn configure(&mut self) {
        self.address();
        assert_eq!(self.get([0, 9, 1, 0, 0, 0, 0, 0]).0, 1);
        self.words(INPUT, &[0, 1 | 1 << 3]);
        self.words(INPUT + 0x20, &[3 << 27 | 3 << 20, 1 << 16, 0, 0]);
        self.words(INPUT + 0x80, &[3 << 16, 8 << 16 | 7 << 3, REPORT_RING as u32 | 1, 0]);
        assert_eq!(self.command(kind::CONFIGURE_ENDPOINT, INPUT, 1 << 24), (1, 1));
        assert_eq!(self.memory.read_u32(OUTPUT + 12), Some(3 << 27 | 1));
        assert_eq!(self.memory.read_u32(OUTPUT), Some(3 << 27 | 3 << 20));
    }

    fn ask_for_report(&mut self, length: u32) {
        self.put(
            self.reports,
            Block {
                parameter: BUFFER,
                status: length,
                control: u32::from(kind::NORMAL) << 10 | ON_COMPLETION | ON_SHORT | CYCLE,
            },
        );
        self.reports += 16;
        self.write(DOORBELLS + 4, 3);
    }

    /// Somebody points.
    fn point(&mut self, x: u16, y: u16, buttons: u8) {
        self.xhci.point(x, y, 0, buttons);
        self.xhci.run(&self.memory, &self.to);
    }
}

#[test]
fn a_driver_finds_the_tablet_and_reads_what_it_reports() {
    let mut driver = Driver::new();
    driver.address();
    let (code, device) = driver.get([0x80, 6, 0, 1, 0, 0, 64, 0]);
    assert_eq!((code, device.len(), &device[8..12]), (1, 18, &[0x27, 6, 1, 0][..]));
    let (code, _) = driver.get([0x80, 6, 0, 9, 0, 0, 64, 0]);
    assert_eq!(code, Code::Stall as u8);
    assert_eq!(driver.memory.read_u32(OUTPUT + 0x20).unwrap() & 7, 2, "halted");
    assert_eq!(driver.command(kind::RESET_ENDPOINT, 0, 1 << 24 | 1 << 16), (1, 1));
    assert_eq!(driver.command(kind::SET_DEQUEUE, driver.control | 1, 1 << 24 | 1 << 16), (1, 1));
    assert_eq!(driver.get([0x81, 6, 0, 0x22, 0, 0, 74, 0]).1.len(), 74);
}

#[test]
fn reports_come_as_they_are_asked_for() {
    let mut driver = Driver::new();
    driver.configure();
    assert!(!driver.xhci.has_pointer(), "nobody asks");
    driver.ask_for_report(8);
    assert!(driver.xhci.has_pointer());
    assert_eq!(driver.event(), None);
    driver.point(0x1234, 0x5678, 1);
    let event = driver.event().unwrap();
    assert_eq!(
        (event.kind(), event.endpoint(), event.status),
        (kind::TRANSFER_EVENT, 3, 13 << 24 | 2)
    );
    assert_eq!(driver.memory.read::<6>(BUFFER), Some([1, 0x34, 0x12, 0x78, 0x56, 0]));
    driver.point(1, 1, 0);
    assert_eq!(driver.event(), None, "there is nowhere to put it");
    driver.ask_for_report(6);
    assert_eq!(driver.event().unwrap().status, 1 << 24);
    assert_eq!(driver.command(kind::STOP_ENDPOINT, 0, 1 << 24 | 3 << 16), (1, 1));
    assert!(!driver.xhci.has_pointer());
    assert_eq!(
        driver.memory.read_u64(OUTPUT + 0x68),
        Some(driver.reports | 1),
        "where the ring goes on"
    );
    assert_eq!(
        driver.command(kind::STOP_ENDPOINT, 0, 1 << 24 | 3 << 16).0,
        Code::ContextState as u8
    );
    driver.ask_for_report(4);
    driver.point(1, 2, 0);
    assert_eq!(
        driver.event().unwrap().status >> 24,
        Code::Babble as u32,
        "a report of six bytes for four"
    );
    driver.write(0x40, RESET);
    assert_eq!(driver.read(0x44) & HALTED, HALTED);
    assert!(!driver.xhci.has_pointer());
}

#[test]
fn each_event_interrupts_once_until_it_is_looked_at() {
    let mut driver = Driver::new();
    driver.start();
    assert!(driver.xhci.line_interrupt());
    driver.write(0x1020, ENABLED | IS_PENDING);
    assert!(!driver.xhci.line_interrupt(), "acknowledged");
    driver.xhci.config_write(driver.xhci.msix_register, u32::MAX, 1 << 31, &driver.to);
    for (word, value) in (0..).zip([0xfee0_0000, 0, 0x51, 0]) {
        driver.write(TABLE + 4 * word, value);
    }
    let sent = |driver: &Driver| {
        let mut vectors = Vec::new();
        driver.to.inbox(0).take_vectors(|index, bits, _| vectors.push((index, bits)));
        vectors.len()
    };
    driver.event().unwrap();
    sent(&driver);
    assert_eq!(driver.command(kind::NO_OP_COMMAND, 0, 0), (1, 0));
    assert_eq!(sent(&driver), 1);
    assert_eq!(sent(&driver), 0);
    assert!(!driver.xhci.line_interrupt(), "messages go in the place of the line");
}

#[test]
fn commands_out_of_place_are_refused() {
    let mut driver = Driver::new();
    driver.address();
    for (kind, parameter, more, code) in [
        (kind::DISABLE_SLOT, 0, 2 << 24, Code::SlotNotEnabled),
        (kind::DISABLE_SLOT, 0, 0, Code::SlotNotEnabled),
        (kind::ADDRESS_DEVICE, INPUT, 1 << 24, Code::ContextState),
        (kind::CONFIGURE_ENDPOINT, 1 << 40, 1 << 24, Code::BlockError),
        (kind::CONFIGURE_ENDPOINT, u64::MAX, 1 << 24, Code::BlockError),
        (kind::STOP_ENDPOINT, 0, 1 << 24 | 3 << 16, Code::EndpointNotEnabled),
        (kind::STOP_ENDPOINT, 0, 1 << 24 | 31 << 16, Code::EndpointNotEnabled),
        (kind::SET_DEQUEUE, 0, 1 << 24 | 1 << 16, Code::ContextState),
        (kind::RESET_ENDPOINT, 0, 1 << 24 | 1 << 16, Code::ContextState),
        (63, 0, 0, Code::BlockError),
    ] {
        assert_eq!(
            driver.command(kind, parameter, more).0,
            code as u8,
            "{kind} {parameter:#x} {more:#x}"
        );
    }
    driver.words(INPUT, &[0, 1 | 1 << 5]);
    assert_eq!(driver.command(kind::CONFIGURE_ENDPOINT, INPUT, 1 << 24).0, Code::Parameter as u8);
    for _ in 1..SLOTS {
        assert_eq!(driver.command(kind::ENABLE_SLOT, 0, 0).0, 1);
    }
    assert_eq!(driver.command(kind::ENABLE_SLOT, 0, 0).0, Code::NoSlots as u8);
    assert_eq!(driver.command(kind::DISABLE_SLOT, 0, 1 << 24).0, 1);
    assert_eq!(driver.memory.read_u32(OUTPUT + 12), Some(0));
}

#[test]
fn nothing_is_done_that_cannot_be_told() {
    let mut driver = Driver::new();
    driver.start();
    driver.event().unwrap();
    for place in 0..40 {
        driver.put(
            COMMANDS + place * 16,
            Block {
                parameter: 0,
                status: 0,
                control: u32::from(kind::NO_OP_COMMAND) << 10 | CYCLE,
            },
        );
    }
    driver.write(DOORBELLS, 0);
    let events = (0..40).map_while(|_| driver.event()).count();
    assert_eq!(events, 40, "those that found no room come when there is some");
    assert_eq!(driver.read(0x44) & FAILED, 0);
}

#[test]
fn rings_without_an_end_end() {
    let mut driver = Driver::new();
    driver.start();
    driver.event().unwrap();
    let link = |to: u64| Block {
        parameter: to,
        status: 0,
        control: u32::from(kind::LINK) << 10 | CYCLE,
    };
    driver.put(COMMANDS, link(COMMANDS));
    driver.write(DOORBELLS, 0);
    assert_eq!(driver.read(0x44) & FAILED, FAILED, "a link to itself");
    let mut driver = Driver::new();
    driver.configure();
    // Blocks that make no event, and a link back, again and again.
    for place in 0..8 {
        let control = u32::from(kind::NO_OP) << 10 | CYCLE;
        driver.put(
            REPORT_RING + place * 16,
            Block {
                control,
                ..Block::default()
            },
        );
    }
    driver.put(REPORT_RING + 8 * 16, link(REPORT_RING));
    driver.write(DOORBELLS + 4, 3);
    assert_eq!(driver.read(0x44) & FAILED, 0);
    assert_eq!(driver.command(kind::NO_OP_COMMAND, 0, 0), (1, 0), "it goes on");
    let mut driver = Driver::new();
    driver.configure();
    driver.put(
        REPORT_RING,
        Block {
            control: link(0).control | TOGGLE,
            parameter: 1 << 40,
            status: 0,
        },
    );
    driver.write(DOORBELLS + 4, 3);
    assert_eq!(
        driver.event().unwrap().status >> 24,
        Code::BlockError as u32,
        "a ring where there is no RAM"
    );
    assert_eq!(driver.memory.read_u32(OUTPUT + 0x60).unwrap() & 7, 4);
}

#[test]
fn it_goes_on_where_it_was() {
    let mut driver = Driver::new();
    driver.configure();
    driver.ask_for_report(8);
    let saved = encode(&driver.xhci.save()).unwrap();
    driver.xhci = Xhci::new();
    let state: SavedXhci = decode(&saved).unwrap();
    assert!(driver.xhci.is_like(&state));
    driver.xhci.restore(&state);
    // What the line does is found again, not kept.
    driver.xhci.line_interrupt();
    assert_eq!(encode(&driver.xhci.save()).unwrap(), saved);
    assert!(driver.xhci.has_pointer());
    driver.point(7, 9, 2);
    assert_eq!(driver.event().unwrap().endpoint(), 3);
    assert_eq!(driver.memory.read::<6>(BUFFER), Some([2, 7, 0, 9, 0, 0]));
}

/// Registers of which writing does something.
const REGISTERS: &[u32] = &[
    0x40,
    0x44,
    0x58,
    0x5c,
    0x70,
    0x74,
    0x78,
    PORTS,
    PORTS + 0x10,
    0x1020,
    0x1028,
    0x1030,
    0x1034,
    0x1038,
    0x103c,
    DOORBELLS,
    DOORBELLS + 4,
    DOORBELLS + 8,
    TABLE,
    TABLE + 12,
];

proptest! {
    #[test]
    fn survives_any_driver(configured: bool, operations in prop::collection::vec((0u8..5, any::<prop::sample::Index>(), any::<u32>()), 1..200)) {
        let mut driver = Driver::new();
        if configured { driver.configure() } else { driver.start() }
        for (kind, place, value) in operations {
            match kind {
                // A ring or a context is scribbled over, mostly with what means something.
                0 => {
                    let at = 0x1000 + (place.index(0x8000) & !3) as u64;
                    driver.memory.write_u32(at, value).unwrap();
                }
                1 => {
                    let at = [COMMANDS, CONTROL_RING, REPORT_RING][place.index(3)] + u64::from(value >> 8 & 0xff) * 16;
                    let block = Block { parameter: u64::from(value) & 0xffff, status: value >> 16, control: value & !0xfc00 | (value >> 3 & 0x1f) << 10 };
                    driver.put(at, block);
                }
                2 => driver.write(REGISTERS[place.index(REGISTERS.len())], value),
                3 => driver.write(REGISTERS[place.index(REGISTERS.len())], value & 0xf00f),
                _ => driver.point(value as u16, (value >> 16) as u16, place.index(16) as u8),
            }
            driver.read((value & 0x3ffc).min(LENGTH - 4));
        }
    }

    #[test]
    fn survives_any_state(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), values in prop::collection::vec(any::<u32>(), 0..20)) {
        let mut driver = Driver::new();
        driver.configure();
        driver.ask_for_report(8);
        let mut saved = encode(&driver.xhci.save()).unwrap();
        for (place, bits) in places {
            let at = place.index(saved.len());
            saved[at] ^= bits;
        }
        if let Ok(state) = decode::<SavedXhci>(&saved) && driver.xhci.is_like(&state) {
            driver.xhci.restore(&state);
            for value in values {
                driver.xhci.point(value as u16, 0, 0, 1);
                driver.xhci.range_write(u64::from(ADDRESS + (value & 0x3ffc)), 4, value.into(), &driver.to);
                driver.xhci.run(&driver.memory, &driver.to);
            }
        }
    }
}
