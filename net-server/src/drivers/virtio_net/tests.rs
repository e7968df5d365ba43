//! The driver against a device made of code.

use super::{header, start};
use crate::drivers::Device;
use crate::drivers::testing::{Scattered, Told, Wire, carries, fills_up, frame, large, survives, takes_bursts};
use crate::nic::{Filter, Nic, Refused};
use crate::packet::Offload;
use core::cell::{Cell, RefCell};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;
use tessera_device::hardware::Registers;
use tessera_device::testing::{Machine, Noisy, Random, device};
use tessera_proto::network::NicState;

/// Where the structures are in the range: common configuration, notification, the device's own.
const NOTIFY: u64 = 0x100;
const DEVICE: u64 = 0x200;
/// Checksums both ways, address, cutting of both, several buffers, state, control, filters, several queues, indirect descriptors, version 1.
const FEATURES: u64 =
    0x3 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 22 | 1 << 28 | 1 << 32;
const EVENT_INDEX: u64 = 1 << 29;

/// A queue: size, addresses of descriptors, available and used ring, and how far it has come.
#[derive(Clone, Copy, Default)]
struct Queue {
    size: u16,
    addresses: [u64; 3],
    seen: u16,
    used: u16,
}

#[derive(Default)]
struct State {
    status: u8,
    select: u32,
    queue: u16,
    vector: u16,
    queues: BTreeMap<u16, Queue>,
    sent: Vec<(Vec<u8>, Offload)>,
    commands: Vec<Vec<u8>>,
    notified: u32,
    link_down: bool,
    /// It takes packets and does nothing.
    hangs: bool,
}

struct Model {
    machine: Rc<Machine>,
    features: u64,
    state: RefCell<State>,
    /// Its memory is scribbled over: what it finds there is not the driver's doing.
    disturbed: Cell<bool>,
}

impl Model {
    fn expect(&self, holds: bool, what: &str) {
        assert!(holds || self.disturbed.get(), "not so: {what}");
    }

    fn short(&self, address: u64) -> u16 {
        let mut bytes = [0; 2];
        self.machine.load(address, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// The next head that was made available, if there is one.
    fn next(&self, number: u16) -> Option<(Queue, u16)> {
        let state = self.state.borrow();
        let queue = state.queues.get(&number).copied()?;
        let available = self.short(queue.addresses[1] + 2);
        let ready = !state.hangs && state.status & 4 != 0 && queue.seen != available;
        ready.then(|| {
            (
                queue,
                self.short(queue.addresses[1] + 4 + u64::from(queue.seen % queue.size.max(1)) * 2),
            )
        })
    }

    /// Pieces of a chain: address, length, written by the device.
    fn chain(&self, queue: &Queue, head: u16) -> Vec<(u64, u64, bool)> {
        let second = self.machine.word(queue.addresses[0] + u64::from(head) * 16 + 8);
        let (mut table, mut index, mut found) = (queue.addresses[0], u64::from(head), Vec::new());
        if second >> 32 & 4 != 0 {
            (table, index) = (self.machine.word(queue.addresses[0] + u64::from(head) * 16), 0);
        }
        for _ in 0..64 {
            let second = self.machine.word(table + index * 16 + 8);
            found.push((
                self.machine.word(table + index * 16),
                (second & 0xffff_ffff).min(1 << 17),
                second >> 33 & 1 != 0,
            ));
            if second >> 32 & 1 == 0 {
                return found;
            }
            index = second >> 48;
        }
        self.expect(false, "a chain ends");
        found
    }

    fn put(&self, number: u16, queue: &mut Queue, head: u16, length: u64) {
        let entry = queue.addresses[2] + 4 + u64::from(queue.used % queue.size.max(1)) * 8;
        self.machine.store(entry, &(u64::from(head) | length << 32).to_le_bytes());
        queue.seen = queue.seen.wrapping_add(1);
        queue.used = queue.used.wrapping_add(1);
        self.state.borrow_mut().queues.insert(number, *queue);
    }

    fn notify(&self, number: u16) {
        self.state.borrow_mut().notified += 1;
        if number < 4 && number.is_multiple_of(2) {
            return;
        }
        let mut end = None;
        while let Some((mut queue, head)) = self.next(number) {
            let chain = self.chain(&queue, head);
            let mut bytes = Vec::new();
            for (address, length, _) in chain.iter().filter(|piece| !piece.2) {
                let mut part = vec![0; *length as usize];
                self.machine.load(*address, &mut part);
                bytes.extend(part);
            }
            if number == 4 {
                let answer = chain.iter().find(|piece| piece.2).map_or(0, |piece| piece.0);
                self.machine.store(answer, &[0]);
                self.state.borrow_mut().commands.push(bytes);
            } else {
                self.expect(chain.iter().all(|piece| !piece.2), "what is sent is only read");
                self.expect(bytes.len() >= 26, "a packet has a header");
                if bytes.len() >= 12 {
                    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                    let told = header::decode([word(0), word(4), word(8)], bytes.len() as u32 - 12);
                    self.expect(told.is_some(), "a header makes sense");
                    let offload = told.map_or(Offload::default(), |told| told.0);
                    self.state.borrow_mut().sent.push((bytes[12..].to_vec(), offload));
                }
            }
            self.put(number, &mut queue, head, u64::from(number == 4));
            end = Some(queue);
        }
        if let Some(queue) = end {
            self.machine.store(queue.addresses[2] + 2, &queue.used.to_le_bytes());
            // The device wishes to be notified at the next.
            let event = queue.addresses[2] + 4 + u64::from(queue.size) * 8;
            self.machine.store(event, &queue.seen.to_le_bytes());
        }
    }

    /// A packet arrives in buffers of queue 0.
    fn deliver(&self, words: [u32; 3], bytes: &[u8]) -> bool {
        let whole = [&[0; 12], bytes].concat();
        let pieces: Vec<&[u8]> = whole.chunks(2048).collect();
        let Some((queue, _)) = self.next(0) else { return false };
        let available = self.short(queue.addresses[1] + 2);
        if usize::from(available.wrapping_sub(queue.seen)) < pieces.len() {
            return false;
        }
        let mut end = queue;
        for (number, piece) in pieces.iter().enumerate() {
            let Some((mut queue, head)) = self.next(0) else { return false };
            let chain = self.chain(&queue, head);
            self.expect(
                chain.len() == 1 && chain[0].1 == 2048 && chain[0].2,
                "a buffer is one piece to be written",
            );
            self.machine.store(chain[0].0, piece);
            if number == 0 {
                let last = words[2] & 0xffff | (pieces.len() as u32) << 16;
                for (place, word) in [words[0], words[1], last].into_iter().enumerate() {
                    self.machine.store(chain[0].0 + place as u64 * 4, &word.to_le_bytes());
                }
            }
            self.put(0, &mut queue, head, piece.len() as u64);
            end = queue;
        }
        self.machine.store(end.addresses[2] + 2, &end.used.to_le_bytes());
        true
    }
}

impl Wire for Model {
    fn take(&self) -> Vec<(Vec<u8>, Offload)> {
        core::mem::take(&mut self.state.borrow_mut().sent)
    }

    fn arrive(&self, bytes: &[u8], verified: bool) -> bool {
        self.deliver([if verified { 2 } else { 0 }, 0, 0], bytes)
    }
}

impl Registers for Model {
    fn read8(&self, offset: u64) -> u8 {
        match offset {
            20 => self.state.borrow().status,
            offset if (DEVICE..DEVICE + 6).contains(&offset) => (offset - DEVICE) as u8 * 2,
            _ => 0,
        }
    }
    fn read16(&self, offset: u64) -> u16 {
        let state = self.state.borrow();
        match offset {
            18 => 5,
            24 if state.queue < 5 => 64,
            26 => state.vector,
            30 => state.queue,
            offset if offset == DEVICE + 6 => u16::from(!state.link_down),
            offset if offset == DEVICE + 8 => 2,
            _ => 0,
        }
    }
    fn read32(&self, offset: u64) -> u32 {
        match offset {
            4 => (self.features >> (32 * self.state.borrow().select)) as u32,
            _ => 0,
        }
    }
    fn write8(&self, offset: u64, value: u8) {
        let mut state = self.state.borrow_mut();
        if offset == 20 {
            state.status = value;
            if value == 0 {
                state.queues.clear();
            }
        }
    }
    fn write16(&self, offset: u64, value: u16) {
        let mut state = self.state.borrow_mut();
        let number = state.queue;
        match offset {
            22 => state.queue = value,
            24 => state.queues.entry(number).or_default().size = value.clamp(1, 64),
            26 => state.vector = value,
            offset if (NOTIFY..DEVICE).contains(&offset) => {
                drop(state);
                self.expect((offset - NOTIFY) / 4 == u64::from(value), "the notification is the queue's own");
                self.notify(value);
            }
            _ => {}
        }
    }
    fn write32(&self, offset: u64, value: u32) {
        let mut state = self.state.borrow_mut();
        let number = state.queue;
        match offset {
            0 => state.select = value & 1,
            32..56 => {
                let place = &mut state.queues.entry(number).or_default().addresses[(offset - 32) as usize / 8];
                let shift = (offset % 8) * 8;
                *place = *place & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            _ => {}
        }
    }
}

/// Configuration space with the three structures in range 4.
fn configuration() -> Vec<u8> {
    let mut bytes = vec![0; 256];
    bytes[0x34] = 0x40;
    for (place, next, kind, offset, length) in [
        (0x40, 0x60, 1, 0, 56u32),
        (0x60, 0x80, 2, NOTIFY as u32, 0x100),
        (0x80, 0, 4, DEVICE as u32, 24),
    ] {
        bytes[place..place + 5].copy_from_slice(&[9, next, 20, kind, 4]);
        bytes[place + 8..place + 12].copy_from_slice(&offset.to_le_bytes());
        bytes[place + 12..place + 16].copy_from_slice(&length.to_le_bytes());
        bytes[place + 16] = 4;
    }
    bytes
}

fn model(features: u64) -> (Rc<Machine>, Rc<Model>) {
    let machine = Rc::new(Machine::default());
    let model = Model {
        machine: machine.clone(),
        features,
        state: RefCell::default(),
        disturbed: Cell::new(false),
    };
    (machine, Rc::new(model))
}

fn attach(machine: &Rc<Machine>, registers: Rc<dyn Registers>) -> Device {
    device(machine, configuration(), 4, registers)
}

fn started(features: u64) -> (Rc<Machine>, Rc<Model>, Box<dyn Nic>) {
    let (machine, model) = model(features);
    let nic = start(&attach(&machine, model.clone()), "nic0").unwrap();
    (machine, model, nic)
}

#[test]
fn a_device_tells_of_itself_and_obeys() {
    let (machine, model, mut nic) = started(FEATURES);
    assert_eq!(nic.capabilities().mac, [0, 2, 4, 6, 8, 10]);
    assert_eq!((nic.capabilities().queues, nic.link().up), (2, true));
    let mut told = Told::default();
    model.state.borrow_mut().link_down = true;
    assert!(nic.watch(machine.time.get(), &mut told).changed);
    assert!(!nic.link().up);
    nic.filter(&Filter {
        promiscuous: false,
        multicast: true,
        addresses: &[[2, 0, 0, 0, 0, 7], [0x33, 0x33, 0, 0, 0, 1]],
    });
    for _ in 0..10 {
        nic.poll(64, &mut told);
    }
    let commands = model.state.borrow().commands.clone();
    let last = &commands[commands.len() - 3..];
    assert!(commands.contains(&vec![4, 0, 2, 0]), "two pairs of queues are asked for");
    assert_eq!(last[0], [0, 0, 0]);
    assert_eq!(last[1], [0, 1, 1]);
    assert_eq!(last[2], [1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0x33, 0x33, 0, 0, 0, 1]);
}

#[test]
fn full_queues_and_bursts() {
    for features in [FEATURES, FEATURES | EVENT_INDEX] {
        let (machine, model, mut nic) = started(features);
        fills_up(&mut *nic, &machine);
        // The ring has room for 64.
        takes_bursts(&mut *nic, &*model, 60);
    }
}

#[test]
fn many_packets_are_one_notification() {
    let (machine, model, mut nic) = started(FEATURES | EVENT_INDEX);
    let random = Random::new(1);
    let before = model.state.borrow().notified;
    for number in 0..20 {
        let packet = Scattered::new(&machine, &random, &frame(&random, 60), Offload::default());
        nic.transmit(0, &packet, None, number).unwrap();
    }
    nic.flush();
    nic.flush();
    assert_eq!(model.state.borrow().notified, before + 1);
}

#[test]
fn a_device_that_hangs_is_reset_and_works_again() {
    let (machine, model, mut nic) = started(FEATURES);
    let random = Random::new(3);
    let mut told = Told::default();
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

#[test]
fn what_the_device_lacks_is_refused() {
    let (machine, _, mut nic) = started(FEATURES & !(1 | 1 << 11 | 1 << 12));
    let random = Random::new(4);
    let (bytes, offload) = large(&random, false, 3000, 1000);
    let packet = Scattered::new(&machine, &random, &bytes, offload);
    assert_eq!(nic.transmit(0, &packet, None, 1), Err(Refused::Unfit));
    let long = Scattered::new(&machine, &random, &frame(&random, 12_000), Offload::default());
    assert_eq!(nic.transmit(0, &long, None, 1), Err(Refused::Impossible));
}

#[test]
fn a_packet_that_lies_twice_in_one_buffer_is_none() {
    let (machine, model, mut nic) = started(FEATURES);
    let mut told = Told::default();
    assert!(model.arrive(&frame(&Random::new(1), 100), true));
    nic.poll(64, &mut told);
    assert_eq!(told.received.len(), 1);
    model.state.borrow_mut().hangs = true;
    let queue = model.state.borrow().queues[&0];
    // One packet in two buffers, which are the same.
    let buffer = machine.word(queue.addresses[0] + 5 * 16);
    machine.store(buffer + 10, &2u16.to_le_bytes());
    for (place, head) in [(1, 5u64), (2, 5)] {
        machine.store(queue.addresses[2] + 4 + place * 8, &(head | 100 << 32).to_le_bytes());
    }
    machine.store(queue.addresses[2] + 2, &3u16.to_le_bytes());
    nic.poll(64, &mut told);
    assert_eq!(nic.statistics().resets, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn frames_are_carried(seed: u64, event: bool) {
        let (machine, model, mut nic) = started(FEATURES | if event { EVENT_INDEX } else { 0 });
        carries(&mut *nic, &machine, &*model, seed);
    }

    #[test]
    fn offloads_are_handed_on(seed: u64, version6: bool, payload in 1usize..60_000, size in 500u16..1460, vlan: Option<u16>) {
        let (machine, model, mut nic) = started(FEATURES);
        let random = Random::new(seed);
        let (bytes, offload) = large(&random, version6, payload, size);
        let packet = Scattered::new(&machine, &random, &bytes, offload);
        prop_assert_eq!(nic.transmit(0, &packet, vlan, 1), Ok(()));
        nic.flush();
        let (sent, mut told) = model.take().remove(0);
        let shift = if vlan.is_some() { 4 } else { 0 };
        prop_assert_eq!(sent.len(), bytes.len() + shift);
        prop_assert_eq!(&sent[12 + shift..], &bytes[12..]);
        let (start, offset) = told.checksum.unwrap();
        told.checksum = Some((start - shift as u16, offset));
        if let Some(segmentation) = &mut told.segmentation {
            segmentation.header -= shift as u16;
        }
        prop_assert_eq!(told, offload);

        // And the other way round.
        prop_assert!(model.deliver(header::encode(&offload, 0), &bytes));
        let mut heard = Told::default();
        heard.open.insert(1);
        nic.poll(64, &mut heard);
        prop_assert_eq!(heard.received.len(), 1);
        prop_assert!(heard.received[0].0 == bytes);
        prop_assert_eq!(heard.received[0].2, offload);
    }

    #[test]
    fn nonsense_is_survived(seed: u64, rate in 1u64..200, event: bool) {
        let (machine, model) = model(FEATURES | if event { EVENT_INDEX } else { 0 });
        model.disturbed.set(true);
        let noisy = Noisy::new(model.clone(), &machine, seed, rate);
        survives(|device| start(device, "nic0"), &attach(&machine, noisy.clone()), &noisy, &*model);
    }

    #[test]
    fn used_rings_of_anything_are_survived(seed: u64, entries in proptest::collection::vec((any::<u32>(), 0u32..3000), 1..20), idx: u16) {
        let (machine, model, mut nic) = started(FEATURES);
        let random = Random::new(seed);
        let packet = Scattered::new(&machine, &random, &frame(&random, 60), Offload::default());
        let mut told = Told::default();
        model.state.borrow_mut().hangs = true;
        nic.transmit(0, &packet, None, 1).unwrap();
        told.open.insert(1);
        nic.flush();
        for queue in [0, 1] {
            let used = model.state.borrow().queues[&queue].addresses[2];
            for (place, (head, length)) in (0..).zip(&entries) {
                let head = if *head % 3 == 0 { *head } else { *head % 70 };
                machine.store(used + 4 + place * 8, &(u64::from(head) | u64::from(*length) << 32).to_le_bytes());
            }
            machine.store(used + 2, &(idx % 70).to_le_bytes());
        }
        nic.poll(64, &mut told);
        for _ in 0..24 {
            machine.time.set(machine.time.get() + 250);
            nic.watch(machine.time.get(), &mut told);
        }
        prop_assert!(told.open.is_empty());
        prop_assert_eq!(nic.state(), NicState::Ready);
    }
}
