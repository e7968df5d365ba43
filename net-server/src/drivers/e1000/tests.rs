//! The drivers against a card made of code.

use super::registers::{CTRL, MRQC, RCTL, RETA, RSSRK, STATUS, TCTL, ctrl, queue, receive_queue, send_queue};
use super::start;
use crate::drivers::Device;
use crate::drivers::testing::{Scattered, Wire, carries, fills_up, frame, large, survives, takes_bursts};
use crate::nic::{Filter, Nic, Refused, Sink};
use crate::offload;
use crate::packet::{Offload, Packet};
use core::cell::{Cell, RefCell};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_device::hardware::Registers;
use tessera_device::testing::{Machine, Noisy, Random, device};
use tessera_proto::network::NicState;

/// What a card was told of the packets that follow.
#[derive(Clone, Copy, Default)]
struct Context {
    network: usize,
    transport: usize,
    field: usize,
    header: usize,
    size: usize,
    payload: usize,
    vlan: u16,
}

#[derive(Default)]
struct State {
    registers: BTreeMap<u64, u32>,
    context: Context,
    sent: Vec<(Vec<u8>, Offload)>,
    /// It takes packets and does nothing.
    hangs: bool,
    link: bool,
}

struct Model {
    machine: Rc<Machine>,
    advanced: bool,
    state: RefCell<State>,
    /// Its memory is scribbled over: what it finds there is not the driver's doing.
    disturbed: Cell<bool>,
}

impl Model {
    fn expect(&self, holds: bool, what: &str) {
        assert!(holds || self.disturbed.get(), "not so: {what}");
    }

    fn get(&self, register: u64) -> u32 {
        self.state.borrow().registers.get(&register).copied().unwrap_or(0)
    }

    fn set(&self, register: u64, value: u32) {
        self.state.borrow_mut().registers.insert(register, value);
    }

    fn base(&self, first: u64) -> u64 {
        u64::from(self.get(first)) | u64::from(self.get(first + 4)) << 32
    }

    fn context(&self, first: u64, second: u64) {
        let byte = |word: u64, at: u32| (word >> at & 0xff) as usize;
        let size = (second >> 48) as usize;
        let context = if self.advanced {
            let (ip, network) = ((first & 0x1ff) as usize, byte(first, 9) & 0x7f);
            let transport = network + ip;
            Context {
                network,
                transport,
                field: transport + if second >> 11 & 1 != 0 { 16 } else { 6 },
                header: transport + byte(second, 40),
                size,
                payload: 0,
                vlan: (first >> 16) as u16,
            }
        } else {
            Context {
                network: byte(first, 0),
                transport: byte(first, 32),
                field: byte(first, 40),
                header: byte(second, 40),
                size,
                payload: (second & 0xf_ffff) as usize,
                vlan: 0,
            }
        };
        self.state.borrow_mut().context = context;
    }

    /// The card works off a queue up to its tail.
    fn send(&self, number: u16) {
        let first = send_queue(self.advanced, number);
        let (base, count) = (self.base(first), u64::from(self.get(first + queue::LENGTH) / 16).max(1));
        let (mut bytes, mut guard) = (Vec::new(), 0);
        while self.get(first + queue::HEAD) != self.get(first + queue::TAIL) && guard < 1024 {
            guard += 1;
            let head = u64::from(self.get(first + queue::HEAD)) % count;
            let at = base + head * 16;
            let (one, two) = (self.machine.word(at), self.machine.word(at + 8));
            self.set(first + queue::HEAD, ((head + 1) % count) as u32);
            let kind = two >> 20 & 15;
            if kind == if self.advanced { 2 } else { 0 } {
                self.context(one, two);
                continue;
            }
            let length = if self.advanced { two & 0xffff } else { two & 0xf_ffff };
            self.expect(length > 0 && length <= 8192, "data is of a length that the card takes");
            let mut part = vec![0; length.min(8192) as usize];
            self.machine.load(one, &mut part);
            bytes.extend(part);
            if two >> 24 & 1 == 0 {
                continue;
            }
            self.expect(
                two >> 27 & 1 != 0 && two >> 25 & 1 != 0,
                "each packet is reported, with a check sequence",
            );
            self.leave(core::mem::take(&mut bytes), two);
            self.machine.store(at + 8, &(two | 1 << 32).to_le_bytes());
        }
    }

    /// A packet goes out.
    fn leave(&self, mut bytes: Vec<u8>, word: u64) {
        let context = self.state.borrow().context;
        let fill = word >> 41 & 1 != 0;
        let cut = if self.advanced { word >> 31 & 1 } else { word >> 26 & 1 } != 0;
        let fits = !fill && !cut || context.field + 2 <= bytes.len() && context.transport < bytes.len();
        self.expect(fits, "the context is the packet's");
        if !fits {
            return;
        }
        let mut frames = Vec::new();
        if cut {
            frames = self.cut(&bytes, context, word);
        } else {
            if fill {
                let sum = !offload::sum(&bytes[context.transport..]);
                bytes[context.field..context.field + 2].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
            }
            frames.push(bytes);
        }
        let vlan = if self.advanced { context.vlan } else { (word >> 48) as u16 };
        for mut frame in frames {
            if word >> 30 & 1 != 0 && frame.len() >= 14 {
                frame.splice(12..12, [0x81, 0, (vlan >> 8) as u8, vlan as u8]);
            }
            self.state.borrow_mut().sent.push((frame, Offload::default()));
        }
    }

    /// What the hardware does to a large packet: lengths, identities, sequence numbers, flags and sums (8254x manual, 3.5).
    fn cut(&self, bytes: &[u8], at: Context, word: u64) -> Vec<Vec<u8>> {
        let fits = at.size > 0 && at.header < bytes.len() && at.transport + 20 <= at.header && at.network + 20 <= at.transport;
        self.expect(fits, "a packet that is cut has headers and a size");
        if !fits {
            return Vec::new();
        }
        let (headers, payload) = bytes.split_at(at.header);
        let told = if self.advanced { (word >> 46) as usize } else { at.payload };
        self.expect(told == payload.len(), "the length of the payload is told");
        let get = |frame: &[u8], place: usize| u16::from_be_bytes([frame[place], frame[place + 1]]);
        let mut frames = Vec::new();
        for (number, part) in payload.chunks(at.size).enumerate() {
            let mut frame = [headers, part].concat();
            let length = frame.len();
            let put = |frame: &mut [u8], place: usize, value: u16| frame[place..place + 2].copy_from_slice(&value.to_be_bytes());
            if word >> 40 & 1 != 0 {
                put(&mut frame, at.network + 2, (length - at.network) as u16);
                let identity = get(&frame, at.network + 4).wrapping_add(number as u16);
                put(&mut frame, at.network + 4, identity);
                let sum = !offload::sum(&frame[at.network..at.transport]);
                put(&mut frame, at.network + 10, sum);
            } else {
                put(&mut frame, at.network + 4, (length - at.network - 40) as u16);
            }
            let sequence = u32::from_be_bytes(frame[at.transport + 4..at.transport + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((number * at.size) as u32);
            frame[at.transport + 4..at.transport + 8].copy_from_slice(&sequence.to_be_bytes());
            if (number + 1) * at.size < payload.len() {
                frame[at.transport + 13] &= !9;
            }
            if number > 0 {
                frame[at.transport + 13] &= !0x80;
            }
            let seed = u32::from(get(&frame, at.field)) + (length - at.transport) as u32;
            put(&mut frame, at.field, ((seed & 0xffff) + (seed >> 16)) as u16);
            let sum = !offload::sum(&frame[at.transport..]);
            put(&mut frame, at.field, if sum == 0 { 0xffff } else { sum });
            frames.push(frame);
        }
        frames
    }
}

impl Wire for Model {
    fn take(&self) -> Vec<(Vec<u8>, Offload)> {
        core::mem::take(&mut self.state.borrow_mut().sent)
    }

    fn arrive(&self, bytes: &[u8], verified: bool) -> bool {
        self.arrive_in_part(bytes, verified, usize::MAX)
    }
}

impl Model {
    /// The hash of receive-side scaling (82576 datasheet, 7.1.2.8.1).
    fn hash(&self, input: &[u8]) -> u32 {
        let key: Vec<u8> = (0..10).flat_map(|word| self.get(RSSRK + 4 * word).to_le_bytes()).collect();
        let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
        let window = |at: usize| (at..at + 32).fold(0, |word, at| word << 1 | u32::from(bit(&key, at)));
        let set = (0..8 * input.len()).filter(|at| bit(input, *at) != 0);
        set.fold(0, |hash, at| hash ^ window(at))
    }

    /// The queue that a frame goes to.
    fn queue_of(&self, frame: &[u8]) -> u16 {
        let rules = self.get(MRQC);
        let has = |rule: u32| rules >> rule & 1 != 0;
        if !self.advanced || rules & 7 != 2 {
            return 0;
        }
        let version6 = frame[12..14] == [0x86, 0xdd];
        let (addresses, protocol, ports, [tcp, ip]) = match (&frame[12..14], version6) {
            ([8, 0], _) => (26..34, 23, 34..38, [16, 17]),
            (_, true) => (22..54, 20, 54..58, [21, 20]),
            _ => return 0,
        };
        let Some(input) = frame.get(addresses) else { return 0 };
        let hash = match frame.get(ports) {
            Some(ports) if has(tcp) && frame[protocol] == 6 => self.hash(&[input, ports].concat()),
            _ if has(ip) => self.hash(input),
            _ => return 0,
        };
        let place = u64::from(hash & 0x7f);
        (self.get(RETA + (place & !3)) >> (8 * (place & 3)) & 7) as u16
    }

    /// A frame of which the card has written `written` pieces until now.
    fn arrive_in_part(&self, bytes: &[u8], verified: bool, written: usize) -> bool {
        if self.get(RCTL) & 2 == 0 {
            return false;
        }
        let first = receive_queue(self.advanced, self.queue_of(bytes));
        let (base, count) = (self.base(first), u64::from(self.get(first + queue::LENGTH) / 16).max(1));
        // A tag is taken off.
        let tagged = bytes[12..14] == [0x81, 0];
        let (vlan, frame) = if tagged {
            let frame = [&bytes[..12], &bytes[16..]].concat();
            (u16::from_be_bytes([bytes[14], bytes[15]]), frame)
        } else {
            (0, bytes.to_vec())
        };
        let pieces: Vec<&[u8]> = frame.chunks(2048).collect();
        let room = (self.get(first + queue::TAIL) as u64 + count - self.get(first + queue::HEAD) as u64 % count) % count;
        if (room as usize) < pieces.len() {
            return false;
        }
        for (number, piece) in pieces.iter().enumerate().take(written) {
            let head = u64::from(self.get(first + queue::HEAD)) % count;
            let at = base + head * 16;
            self.expect(self.machine.word(at + 8) & 1 << 32 == 0, "a descriptor is clean");
            let buffer = self.machine.word(at);
            self.machine.store(buffer, piece);
            let last = number + 1 == pieces.len();
            let status = 1 | u64::from(last) << 1 | u64::from(tagged) << 3 | 1 << 5;
            let error = if verified { 0 } else { 0x20 };
            let length = piece.len() as u64;
            let word = if self.advanced {
                self.machine.store(at, &[0xff; 8]);
                status | error << 24 | length << 32
            } else {
                length | status << 32 | error << 40
            };
            self.machine.store(at + 8, &(word | u64::from(vlan) << 48).to_le_bytes());
            self.set(first + queue::HEAD, ((head + 1) % count) as u32);
        }
        true
    }
}

impl Registers for Model {
    fn read8(&self, _: u64) -> u8 {
        0
    }
    fn read16(&self, _: u64) -> u16 {
        0
    }
    fn read32(&self, offset: u64) -> u32 {
        match offset {
            STATUS => 0x81 | u32::from(self.state.borrow().link) << 1,
            0x5400 => u32::from_le_bytes([0x52, 0x54, 0, 1]),
            0x5404 => 0x8000_0302,
            _ => self.get(offset),
        }
    }
    fn write8(&self, _: u64, _: u8) {}
    fn write16(&self, _: u64, _: u16) {}
    fn write32(&self, offset: u64, value: u32) {
        if offset == CTRL && value & ctrl::RESET != 0 {
            self.state.borrow_mut().registers.clear();
            return;
        }
        self.set(offset, if offset == super::registers::MDIC { value | 1 << 28 } else { value });
        let number = (0..4).find(|number| offset == send_queue(self.advanced, *number) + queue::TAIL);
        if let Some(number) = number
            && self.get(TCTL) & 2 != 0
            && !self.state.borrow().hangs
        {
            self.send(number);
        }
    }
}

fn model(advanced: bool) -> (Rc<Machine>, Rc<Model>) {
    let machine = Rc::new(Machine::default());
    let model = Model {
        machine: machine.clone(),
        advanced,
        state: RefCell::new(State {
            link: true,
            ..State::default()
        }),
        disturbed: Cell::new(false),
    };
    (machine, Rc::new(model))
}

/// The cards: number of the device, and whether its descriptors are advanced.
const CARDS: [(u16, bool); 3] = [(0x100e, false), (0x10d3, false), (0x10c9, true)];

fn attach(machine: &Rc<Machine>, number: u16, registers: Rc<dyn Registers>) -> Device {
    let mut configuration = vec![0; 256];
    configuration[..2].copy_from_slice(&[0x86, 0x80]);
    configuration[2..4].copy_from_slice(&number.to_le_bytes());
    device(machine, configuration, 0, registers)
}

fn started(number: u16, advanced: bool) -> (Rc<Machine>, Rc<Model>, Box<dyn Nic>) {
    let (machine, model) = model(advanced);
    let nic = start(&attach(&machine, number, model.clone()), "nic0").unwrap().unwrap();
    (machine, model, nic)
}

#[test]
fn a_card_tells_of_itself_and_its_link() {
    for (number, advanced) in CARDS {
        let (machine, model, mut nic) = started(number, advanced);
        assert_eq!(nic.capabilities().mac, [0x52, 0x54, 0, 1, 2, 3]);
        assert_eq!((nic.link().up, nic.link().speed), (true, 1000));
        model.state.borrow_mut().link = false;
        let mut told = crate::drivers::testing::Told::default();
        assert!(nic.watch(machine.time.get(), &mut told).changed);
        assert!(!nic.link().up);
        nic.filter(&Filter {
            promiscuous: true,
            ..Filter::default()
        });
        assert_eq!(model.get(RCTL) & 0x18, 0x18);
        nic.filter(&Filter {
            addresses: &[[2, 0, 0, 0, 0, 7]],
            ..Filter::default()
        });
        assert_eq!(model.get(RCTL) & 0x18, 0);
        assert_eq!((model.get(0x5408), model.get(0x540c)), (2, 0x8000_0700));
        nic.filter(&Filter {
            addresses: &[[2; 6]; 20],
            ..Filter::default()
        });
        assert_eq!(model.get(RCTL) & 0x18, 0x18, "too many addresses");
    }
}

/// The frame of a connection with a number in it.
fn of_connection(version6: bool, port: u16, number: u8) -> Vec<u8> {
    let mut frame = vec![0; 80];
    frame[12..14].copy_from_slice(if version6 { &[0x86, 0xdd] } else { &[8, 0] });
    frame[14] = if version6 { 0x60 } else { 0x45 };
    let (protocol, ports) = if version6 { (20, 54) } else { (23, 34) };
    frame[protocol] = 6;
    frame[ports..ports + 2].copy_from_slice(&port.to_be_bytes());
    frame[79] = number;
    frame
}

#[test]
fn what_is_received_is_spread() {
    let (_, model, mut nic) = started(0x10c9, true);
    // Microsoft's "Verifying the RSS Hash Calculation".
    let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
    assert_eq!((model.hash(&input), model.hash(&input[..8])), (0x51cc_c178, 0x323e_8fc2));
    let queues = nic.capabilities().queues;
    assert_eq!(queues, 4);
    for version6 in [false, true] {
        let mut used = vec![0; usize::from(queues)];
        for port in 0..64 {
            for number in 0..3 {
                let frame = of_connection(version6, 1000 + port, number);
                used[usize::from(model.queue_of(&frame))] += 1;
                assert!(model.arrive(&frame, true));
            }
        }
        // All of them come out, each connection's in order.
        let mut told = crate::drivers::testing::Told::default();
        while nic.poll(64, &mut told).more {}
        let mut frames: Vec<Vec<u8>> = told.received.iter().map(|(frame, ..)| frame.clone()).collect();
        // Stable: it leaves the order of each connection.
        frames.sort_by(|one, other| one[..79].cmp(&other[..79]));
        let wanted = (0..64).flat_map(|port| (0..3).map(move |number| of_connection(version6, 1000 + port, number)));
        assert!(frames.into_iter().eq(wanted));
        // A quarter each, as well as chance has it.
        assert!(used.iter().all(|count| (20..80).contains(count)), "{used:?}");
    }
    // What is no IP goes to the first.
    assert_eq!(model.queue_of(&[0; 60]), 0);
}

#[test]
fn full_queues_and_bursts() {
    for (number, advanced) in CARDS {
        let (machine, model, mut nic) = started(number, advanced);
        fills_up(&mut *nic, &machine);
        takes_bursts(&mut *nic, &*model, 100);
    }
}

#[test]
fn a_card_that_hangs_is_reset_and_works_again() {
    for (number, advanced) in CARDS {
        let (machine, model, mut nic) = started(number, advanced);
        let random = Random::new(3);
        let mut told = crate::drivers::testing::Told::default();
        model.state.borrow_mut().hangs = true;
        let packet = Scattered::new(&machine, &random, &frame(&random, 60), Offload::default());
        nic.transmit(0, &packet, None, 1).unwrap();
        told.open.insert(1);
        nic.flush();
        for _ in 0..24 {
            machine.time.set(machine.time.get() + 250);
            nic.watch(machine.time.get(), &mut told);
        }
        assert!(told.open.is_empty());
        assert_eq!((nic.state(), nic.statistics().resets), (NicState::Ready, 1));
        model.state.borrow_mut().hangs = false;
        nic.transmit(0, &packet, None, 2).unwrap();
        told.open.insert(2);
        nic.flush();
        nic.poll(64, &mut told);
        assert!(told.open.is_empty() && model.take().len() == 1);
    }
}

#[test]
fn a_frame_that_is_not_whole_keeps_its_buffers() {
    for (number, advanced) in CARDS {
        let (_, model, mut nic) = started(number, advanced);
        let mut told = crate::drivers::testing::Told::default();
        assert!(model.arrive_in_part(&frame(&Random::new(1), 8000), true, 3));
        nic.poll(64, &mut told);
        assert!(told.received.is_empty());
        let first = receive_queue(advanced, 0);
        let (head, tail) = (model.get(first + queue::HEAD), model.get(first + queue::TAIL));
        // All others, but for the one that is always left out.
        assert_eq!((tail + 256 - head) % 256, 256 - 3 - 1);
    }
}

#[test]
fn a_card_that_forgot_everything_is_set_up_again() {
    for (number, advanced) in CARDS {
        let (machine, model, mut nic) = started(number, advanced);
        model.state.borrow_mut().registers.clear();
        let mut told = crate::drivers::testing::Told::default();
        nic.watch(machine.time.get(), &mut told);
        assert_eq!((nic.state(), nic.statistics().resets), (NicState::Ready, 1));
        assert!(model.arrive(&frame(&Random::new(1), 100), true));
        nic.poll(64, &mut told);
        assert_eq!(told.received.len(), 1);
    }
}

/// Frames that software makes of a packet.
fn in_software(packet: &dyn Packet) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let done = offload::finish::<()>(packet, &mut offload::Scratch::default(), &mut |frame| {
        let mut bytes = vec![0; frame.length() as usize];
        frame.copy_out(0, &mut bytes);
        frames.push(bytes);
        Ok(())
    });
    assert!(done.is_some());
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn frames_are_carried(seed: u64, card in 0usize..3) {
        let (number, advanced) = CARDS[card];
        let (machine, model, mut nic) = started(number, advanced);
        carries(&mut *nic, &machine, &*model, seed);
    }

    #[test]
    fn a_card_cuts_and_fills_in_as_software_does(seed: u64, card in 0usize..3, version6: bool, payload in 1usize..60_000, size in 500u16..1460) {
        let (number, advanced) = CARDS[card];
        let (machine, model, mut nic) = started(number, advanced);
        let random = Random::new(seed);
        let (bytes, offload) = large(&random, version6, payload, size);
        let packet = Scattered::new(&machine, &random, &bytes, offload);
        let mut told = crate::drivers::testing::Told::default();
        told.open.insert(1);
        prop_assert_eq!(nic.transmit(0, &packet, None, 1), Ok(()));
        nic.flush();
        let sent: Vec<Vec<u8>> = model.take().into_iter().map(|one| one.0).collect();
        prop_assert!(sent == in_software(&packet), "{} frames", sent.len());

        // One frame, whose checksum alone is left.
        let (bytes, offload) = large(&random, version6, payload.min(1400), size);
        let packet = Scattered::new(&machine, &random, &bytes, Offload { segmentation: None, ..offload });
        told.open.insert(2);
        prop_assert_eq!(nic.transmit(0, &packet, Some(9), 2), Ok(()));
        nic.flush();
        let mut expected = in_software(&packet);
        expected[0].splice(12..12, [0x81, 0, 0, 9]);
        let sent: Vec<Vec<u8>> = model.take().into_iter().map(|one| one.0).collect();
        prop_assert!(sent == expected);
        nic.poll(64, &mut told);
        prop_assert!(told.open.is_empty());
    }

    #[test]
    fn offloads_without_sense_are_refused_or_carried_out(seed: u64, card in 0usize..3, length in 1usize..2000, checksum in proptest::option::of((any::<u16>(), any::<u16>())), size in proptest::option::of(any::<u16>()), kind in 0usize..3, start in 0u16..300) {
        let (number, advanced) = CARDS[card];
        let (machine, model, mut nic) = started(number, advanced);
        let random = Random::new(seed);
        let kinds = [crate::packet::SegmentationKind::Tcp4, crate::packet::SegmentationKind::Tcp6, crate::packet::SegmentationKind::Udp];
        let segmentation = size.map(|size| crate::packet::Segmentation { kind: kinds[kind], congestion: false, size, header: start });
        let bytes = if length > 100 && seed % 2 == 0 { large(&random, kind == 1, length, 1).0 } else { (0..length).map(|_| random.next() as u8).collect() };
        let checksum = checksum.map(|(from, to)| if seed % 3 == 0 { (start, 16) } else { (from % 3000, to % 300) });
        let packet = Scattered::new(&machine, &random, &bytes, Offload { checksum, verified: false, segmentation });
        let outcome = nic.transmit(0, &packet, None, 1);
        nic.flush();
        if outcome.is_ok() {
            struct One(u32);
            impl Sink for One {
                fn sent(&mut self, _: u32) { self.0 += 1; }
                fn received(&mut self, _: &dyn Packet, _: Option<u16>) {}
            }
            let mut one = One(0);
            nic.poll(64, &mut one);
            prop_assert_eq!(one.0, 1);
            prop_assert!(model.take().len() <= 300);
        } else {
            prop_assert!(matches!(outcome, Err(Refused::Unfit | Refused::Impossible)));
        }
    }

    #[test]
    fn nonsense_is_survived(seed: u64, rate in 1u64..200, card in 0usize..3) {
        let (number, advanced) = CARDS[card];
        let (machine, model) = model(advanced);
        model.disturbed.set(true);
        let noisy = Noisy::new(model.clone(), &machine, seed, rate);
        survives(|device| start(device, "nic0").unwrap(), &attach(&machine, number, noisy.clone()), &noisy, &*model);
    }
}
