//! A driver's view of the card, with a server behind it.

use super::*;
use crate::apic::routing::tests::Kicks;
use crate::devices::virtio::driver::tests::Device as Queue;
use crate::memory::tests::ram;
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0x54, 1, 2, 3, 4];
const AT: u64 = 0xfe06_0000;
const RING: u32 = 0x1000;
const BUFFERS: u64 = 0x1_0000;
const MEMORY: u64 = 0x20_0000;

struct Board {
    card: E1000e,
    memory: GuestMemory,
    devices: Vec<VirtioPci>,
    to: Interrupts<Kicks>,
    /// The server's side of the queues.
    queues: Vec<Queue>,
    /// Commands that it got.
    commands: Vec<[u8; 3]>,
}

impl Board {
    fn new() -> Self {
        let mut config = net::config(&net::Nic {
            mac: MAC,
            mtu: 1500,
            link: true,
            speed: 0,
            pairs: 1,
        });
        config.hide();
        let seat = Seat {
            place: 0,
            slot: 3,
            mac: MAC,
            memory: MEMORY,
        };
        let mut board = Self {
            card: E1000e::new(seat),
            memory: ram(&[4 << 20]),
            devices: vec![VirtioPci::new(3, 0xc000, 0xc000_0000, 8, config)],
            to: Interrupts::new(1, Kicks::default()),
            queues: Vec::new(),
            commands: Vec::new(),
        };
        board.card.function().write(1, u32::MAX, 7);
        board
    }

    fn read(&mut self, register: u32) -> u32 {
        self.card.range_read(AT + u64::from(register), 4).unwrap() as u32
    }

    fn write(&mut self, register: u32, value: u32) {
        assert!(self.card.range_write(AT + u64::from(register), 4, value.into()));
        self.run();
    }

    fn run(&mut self) {
        self.card.run(&self.memory, &mut self.devices, &self.to);
        if let Service::Wanted { .. } = self.devices[0].registers().service() {
            let used = self.devices[0].registers().used_queues();
            self.queues = used.iter().map(|(_, queue)| Queue::new(queue, &self.memory)).collect();
            self.devices[0].served(&self.to);
        }
    }

    /// Both directions on, with rings of 16, buffers of 2 KiB, of which all but one may be used.
    fn start(&mut self) {
        for (register, value) in [
            (register::RDBAL, RING),
            (register::RDLEN, 256),
            (register::RDT, 15),
            (register::TDBAL, RING + 0x1000),
            (register::TDLEN, 256),
            (register::RFCTL, EXTENDED),
            (register::IMS, RECEIVED | SENT),
            (register::RCTL, ON | BROADCAST | STRIPPED),
            (register::TCTL, ON),
        ] {
            if register == register::RCTL {
                for index in 0..16 {
                    self.memory
                        .write_slice(u64::from(RING) + 16 * index, &(BUFFERS + 2048 * index).to_le_bytes())
                        .unwrap();
                }
            }
            self.write(register, value);
        }
    }

    /// Puts a descriptor to transmit at its place, and says that it is there.
    fn send(&mut self, descriptor: [u32; 4]) {
        let tail = self.card.get(register::TDT);
        for (place, word) in (u64::from(RING) + 0x1000 + 16 * u64::from(tail)..).step_by(4).zip(descriptor) {
            self.memory.write_u32(place, word).unwrap();
        }
        self.write(register::TDT, (tail + 1) % 16);
    }

    /// What the server gets, with the header in front.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some((head, segments)) = self.queues[1].take(&self.memory) {
            let mut packet = Vec::new();
            for segment in &segments {
                assert!(!segment.writable);
                let start = packet.len();
                packet.resize(start + segment.length as usize, 0);
                self.memory.read_slice(segment.address, &mut packet[start..]).unwrap();
            }
            packets.push(packet);
            self.queues[1].finish(&self.memory, head, 0);
        }
        self.run();
        packets
    }

    /// A frame comes.
    fn receive(&mut self, frame: &[u8]) {
        let (head, segments) = self.queues[0].take(&self.memory).unwrap();
        self.memory.write_slice(segments[1].address, frame).unwrap();
        self.queues[0].finish(&self.memory, head, (HEADER + frame.len()) as u32);
        self.run();
    }

    /// Takes the commands.
    fn commands(&mut self) -> Vec<[u8; 3]> {
        while let Some((head, segments)) = self.queues[2].take(&self.memory) {
            self.commands.push(self.memory.read(segments[0].address).unwrap());
            self.queues[2].end(&self.memory, head, &segments, 0);
        }
        self.run();
        core::mem::take(&mut self.commands)
    }

    /// A receive descriptor: length, status.
    fn received(&self, index: u64) -> (u32, u32) {
        let word = |at| self.memory.read_u32(u64::from(RING) + 16 * index + at).unwrap();
        (word(12) & 0xffff, word(8))
    }
}

fn frame(to: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|at| at as u8).collect();
    frame[..6].copy_from_slice(&to);
    frame
}

#[test]
fn a_driver_finds_the_card() {
    let mut board = Board::new();
    assert_eq!(board.card.function().read(0), 0x10d3_8086);
    assert_eq!(
        (board.read(register::RAL), board.read(register::RAH)),
        (0x0201_5402, VALID | 0x0403)
    );
    let mut sum = 0u16;
    for word in 0..64 {
        board.write(register::EERD, word << 2 | 1);
        let answer = board.read(register::EERD);
        assert_eq!(answer & NVM_DONE, NVM_DONE);
        sum = sum.wrapping_add((answer >> 16) as u16);
    }
    assert_eq!(sum, 0xbaba);
    let mut phy = |register: u32, address: u32| {
        board.write(register::MDIC, 2 << 26 | address << 21 | register << 16);
        board.read(register::MDIC)
    };
    assert_eq!((phy(2, 1) & 0x5000_ffff, phy(3, 1) & 0xffff), (0x1000_0141, 0x0cb1));
    assert_eq!(phy(1, 1) & 0x24, 0x24, "linked");
    assert_eq!(phy(2, 2) >> 30, 1, "there is none");
    assert_eq!(board.read(register::STATUS), 0x8_0083);
    assert_eq!(board.read(register::ICR), LINK_CHANGED, "masked");
}

#[test]
fn packets_are_sent() {
    let mut board = Board::new();
    board.start();
    assert_eq!(board.to.kicked().links(), 1, "its server is asked for");
    assert_eq!(board.commands(), [[0, 0, 0], [0, 1, 1]]);
    board.memory.write_slice(BUFFERS, &frame([1; 6], 3000)).unwrap();
    board.send([BUFFERS as u32, 0, 1000, 0]);
    assert_eq!(board.sent().len(), 0, "it has not ended");
    board.send([BUFFERS as u32 + 1000, 0, 1 << 27 | 1 << 25 | 1 << 24 | 2000, 0]);
    let packets = board.sent();
    assert_eq!((packets.len(), packets[0].len()), (1, HEADER + 3000));
    assert!(packets[0][HEADER..] == frame([1; 6], 3000));
    assert_eq!(board.memory.read_u32(u64::from(RING) + 0x1000 + 16 + 12), Some(DONE));
    assert!(board.card.line_interrupt());
    assert_eq!(board.read(register::ICR), LINK_CHANGED | SENT | SENT_ALL | ASSERTED);
    assert!(!board.card.line_interrupt());
    // The server does not come for them: what has no room waits, and goes later.
    for _ in 0..40 {
        board.send([BUFFERS as u32, 0, 1 << 24 | 3000, 0]);
    }
    let waits = board.card.get(register::TDH);
    assert_ne!(waits, board.card.get(register::TDT));
    while !board.sent().is_empty() {}
    assert_eq!(board.card.get(register::TDH), board.card.get(register::TDT));
}

#[test]
fn frames_are_received() {
    let mut board = Board::new();
    board.start();
    board.receive(&frame(MAC, 100));
    assert_eq!((board.received(0), board.card.get(register::RDH)), ((100, 7), 1));
    assert_eq!(board.memory.read(BUFFERS + 20), Some([20u8]));
    assert_eq!(board.read(register::ICR) & (RECEIVED | ASSERTED), RECEIVED | ASSERTED);
    // What is for others, a group, all; one that is too short.
    board.receive(&frame([2, 0, 0, 0, 0, 9], 100));
    board.receive(&frame([0x33, 0x33, 0, 0, 0, 1], 100));
    assert_eq!(board.card.get(register::RDH), 1);
    board.receive(&frame([0xff; 6], 20));
    assert_eq!(board.received(1), (60, 7));
    // The group's bit of the table: the upper 12 bits of the last two bytes.
    board.write(register::MTA, 1 << 0x10);
    board.receive(&frame([0x33, 0x33, 0, 0, 0, 1], 100));
    assert_eq!(board.received(2).0, 100);
    // Everything: the server is told.
    assert_eq!(board.commands().len(), 2);
    board.write(register::RCTL, ON | UNICAST | MULTICAST);
    assert_eq!(board.commands(), [[0, 0, 1], [0, 1, 1]]);
    board.receive(&frame([2, 0, 0, 0, 0, 9], 100));
    assert_eq!(board.received(3), (104, 7), "with its check sequence");
    // Smaller buffers: of 256 bytes, in the form of old.
    board.write(register::RFCTL, 0);
    board.write(register::RCTL, ON | STRIPPED | 3 << 16);
    board.receive(&frame(MAC, 600));
    let word = |index: u64| board.memory.read_u64(u64::from(RING) + 16 * index + 8).unwrap();
    assert_eq!([4, 5, 6].map(word), [256 | 5 << 32, 256 | 5 << 32, 88 | 7 << 32]);
    // No buffers.
    board.write(register::RDT, 7);
    board.read(register::ICR);
    board.receive(&frame(MAC, 100));
    assert_eq!((board.card.get(register::RDH), board.read(register::ICR)), (7, OVERRUN));
}

#[test]
fn reading_the_causes_masks_them() {
    let mut board = Board::new();
    board.write(register::CTRL_EXT, AUTO_MASK);
    board.write(register::IAM, u32::MAX);
    board.write(register::IMS, LINK_CHANGED);
    board.write(register::ICS, RECEIVED);
    assert!(board.card.line_interrupt());
    assert_eq!(board.read(register::ICR), ASSERTED | LINK_CHANGED | RECEIVED);
    assert_eq!(board.read(register::IMS), 0);
    board.write(register::ICS, LINK_CHANGED);
    assert!(!board.card.line_interrupt());
}

#[test]
fn a_reset_forgets_and_a_suspended_card_goes_on() {
    let mut board = Board::new();
    board.start();
    let saved = board.card.save();
    let mut other = Board::new();
    core::mem::swap(&mut other.memory, &mut board.memory);
    assert!(other.card.is_like(&saved));
    other.card.restore(&saved);
    other.run();
    other.receive(&frame(MAC, 100));
    assert_eq!(other.received(0), (100, 7));
    other.write(register::CTRL, RESET);
    assert_eq!(
        (other.read(register::RCTL), other.read(register::RAH), other.read(register::CTRL)),
        (0, VALID | 0x0403, 0)
    );
    other.receive(&frame(MAC, 100));
    assert_eq!(other.card.get(register::RDH), 0, "nothing is received");
}

proptest! {
    #[test]
    fn survives_anything(content in prop::collection::vec(any::<u8>(), 0x2000),
        operations in prop::collection::vec((0u8..8, prop::sample::select(&[0u32, 0x10, 0x14, 0x18, 0x20, 0xc0, 0xc8, 0xd0, 0xd8, 0xe0, 0x100, 0x400, 0x2800, 0x2808, 0x2810, 0x2818, 0x3800, 0x3808, 0x3810, 0x3818, 0x5008, 0x5200, 0x5400, 0x5404, 0x1_fffc]), any::<u32>(), prop::sample::select(&[1u8, 2, 4, 8])), 1..100)) {
        let mut board = Board::new();
        board.start();
        board.memory.write_slice(RING.into(), &content).unwrap();
        for (kind, register, value, width) in operations {
            match kind {
                0 => { board.card.range_read(AT + u64::from(register), width); }
                1 => { board.card.range_write(AT + u64::from(register), width, value.into()); board.run(); }
                2 => { board.write(register::TDT, value % 16); }
                3 => { board.write(register::RDT, value % 16); }
                4 => { board.sent(); }
                5 => { board.commands(); }
                // The guest writes where the queues are.
                6 if value % 32 == 0 => board.memory.write_slice(MEMORY + 0x280 + u64::from(value >> 5) % 0x100, &[value as u8]).unwrap(),
                6 => (),
                _ => {
                    if let Some((head, segments)) = board.queues[0].try_take(&board.memory) {
                        let length = value % 2049;
                        board.memory.write_slice(segments.last().unwrap().address, &value.to_le_bytes()).unwrap();
                        let _ = board.queues[0].try_finish(&board.memory, head, HEADER as u32 + length);
                        board.run();
                    }
                }
            }
        }
    }
}
