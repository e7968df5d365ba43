//! What the drivers' tests share: packets in a machine's memory, whoever hears of them, and what every driver must do, whatever its card is.

use super::Device;
use crate::nic::{Nic, Refused, Sink};
use crate::packet::{Offload, Packet, Segmentation, SegmentationKind};
use std::collections::BTreeSet;
use std::rc::Rc;
use tessera_device::testing::{Machine, Noisy, Random};
use tessera_device::{DmaBuffer, Platform, Segment};
use tessera_proto::network::NicState;

/// A packet in pieces.
pub struct Scattered {
    pub bytes: Vec<u8>,
    segments: Vec<Segment>,
    offload: Offload,
    _memory: Vec<DmaBuffer>,
}

impl Scattered {
    /// Bytes in random pieces of a machine's memory.
    pub fn new(machine: &Machine, random: &Random, bytes: &[u8], offload: Offload) -> Self {
        let (mut segments, mut memory, mut at) = (Vec::new(), Vec::new(), 0);
        while at < bytes.len() {
            let left = bytes.len() - at;
            let length = if segments.len() > 20 {
                left
            } else {
                left.min(1 + random.below(9000) as usize)
            };
            let offset = random.below(64) as usize;
            let buffer = machine.allocate(offset + length).unwrap().part(offset, length);
            buffer.copy_in(0, &bytes[at..at + length]);
            segments.push(Segment {
                physical: buffer.physical(),
                length: length as u32,
            });
            memory.push(buffer);
            at += length;
        }
        Self {
            bytes: bytes.into(),
            segments,
            offload,
            _memory: memory,
        }
    }
}

impl Packet for Scattered {
    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }
    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        for (place, byte) in (offset as usize..).zip(bytes) {
            *byte = self.bytes.get(place).copied().unwrap_or(0);
        }
    }
    fn segments(&self) -> Option<&[Segment]> {
        Some(&self.segments)
    }
    fn offload(&self) -> Offload {
        self.offload
    }
}

/// What a driver told.
#[derive(Default)]
pub struct Told {
    pub open: BTreeSet<u32>,
    pub received: Vec<(Vec<u8>, Option<u16>, Offload)>,
}

impl Sink for Told {
    fn sent(&mut self, tag: u32) {
        assert!(self.open.remove(&tag), "{tag} comes back twice, or was never given");
    }
    fn received(&mut self, packet: &dyn Packet, vlan: Option<u16>) {
        let mut bytes = vec![0; packet.length() as usize];
        packet.copy_out(0, &mut bytes);
        let length: u32 = packet.segments().unwrap().iter().map(|segment| segment.length).sum();
        assert_eq!(length, packet.length());
        self.received.push((bytes, vlan, packet.offload()));
    }
}

/// The card's side of the cable.
pub trait Wire {
    /// Frames that were sent since the last question, as they are on the cable, or packets with what is still to be done to them.
    fn take(&self) -> Vec<(Vec<u8>, Offload)>;
    /// A frame arrives, perhaps with a wrong checksum. False: the card had no room.
    fn arrive(&self, bytes: &[u8], verified: bool) -> bool;
}

/// A frame of these many bytes that is not tagged.
pub fn frame(random: &Random, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    bytes[12] = 8;
    bytes
}

fn tag(bytes: &[u8], vlan: u16) -> Vec<u8> {
    let mut tagged = bytes.to_vec();
    tagged.splice(12..12, [0x81, 0, (vlan >> 8) as u8, vlan as u8]);
    tagged
}

/// A large TCP packet over IPv4 or IPv6, and what is to be done to it.
pub fn large(random: &Random, version6: bool, payload: usize, size: u16) -> (Vec<u8>, Offload) {
    let network = if version6 { 40 } else { 20 };
    let start = 14 + network;
    let mut bytes = frame(random, start + 32 + payload);
    let length = bytes.len();
    let mut put = |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    put(12, if version6 { 0x86dd } else { 0x0800 });
    if version6 {
        put(14, 0x6000);
        put(18, (length - 54) as u16);
        put(20, 0x0640);
    } else {
        put(14, 0x4500);
        put(16, (length - 14) as u16);
        put(22, 0x4006);
        put(24, 0x1234);
    }
    put(start + 12, 0x8019);
    let kind = if version6 { SegmentationKind::Tcp6 } else { SegmentationKind::Tcp4 };
    let segmentation = Segmentation {
        kind,
        congestion: false,
        size,
        header: (start + 32) as u16,
    };
    let offload = Offload {
        checksum: Some((start as u16, 16)),
        verified: false,
        segmentation: Some(segmentation),
    };
    (bytes, offload)
}

/// Sends and receives random frames, and compares both ends.
pub fn carries(nic: &mut dyn Nic, machine: &Machine, wire: &dyn Wire, seed: u64) {
    let random = Random::new(seed);
    let mut told = Told::default();
    for number in 0..600u32 {
        let bytes = {
            let length = 14 + random.below(1500) as usize;
            frame(&random, length)
        };
        let vlan = (random.below(3) == 0).then(|| random.next() as u16);
        let packet = Scattered::new(machine, &random, &bytes, Offload::default());
        // Packets that are not taken now are not taken later either, once room is made.
        assert_eq!(nic.transmit(number as u16, &packet, vlan, number), Ok(()), "packet {number}");
        told.open.insert(number);
        nic.flush();
        let on_wire = wire.take();
        assert_eq!(on_wire.len(), 1);
        let expected = vlan.map_or(bytes.clone(), |vlan| tag(&bytes, vlan));
        assert!(on_wire[0].0 == expected, "packet {number} ({vlan:?}) is not what was given");

        let length = if random.below(4) == 0 {
            14 + random.below(8900)
        } else {
            14 + random.below(1500)
        };
        let bytes = frame(&random, length as usize);
        let vlan = (random.below(3) == 0).then(|| random.next() as u16);
        let verified = random.below(2) == 0;
        assert!(wire.arrive(&vlan.map_or(bytes.clone(), |vlan| tag(&bytes, vlan)), verified));
        nic.poll(64, &mut told);
        let found = told.received.pop();
        let (got, got_vlan, offload) = found.unwrap_or_else(|| panic!("frame {number} of {} bytes is lost", bytes.len()));
        assert!(told.received.is_empty());
        assert!(
            got == bytes && got_vlan == vlan,
            "frame {number} ({vlan:?}, {got_vlan:?}) of {} bytes arrives as {}",
            bytes.len(),
            got.len()
        );
        assert_eq!(offload.verified, verified);
    }
    nic.poll(64, &mut told);
    assert!(told.open.is_empty());
    let statistics = nic.statistics();
    assert_eq!((statistics.sent, statistics.received, statistics.received_errors), (600, 600, 0));
}

/// A queue that is full says so, and takes packets again when it is not.
pub fn fills_up(nic: &mut dyn Nic, machine: &Machine) {
    let random = Random::new(1);
    let mut told = Told::default();
    for round in 0..3 {
        let mut count = 0;
        let refused = loop {
            let packet = Scattered::new(machine, &random, &frame(&random, 60), Offload::default());
            match nic.transmit(0, &packet, None, round * 10_000 + count) {
                Ok(()) => told.open.insert(round * 10_000 + count),
                Err(refused) => break refused,
            };
            count += 1;
            assert!(count < 5000);
        };
        assert_eq!(refused, Refused::Full);
        assert!(count > 30, "only {count} fit");
        nic.flush();
        nic.poll(64, &mut told);
        assert!(told.open.is_empty());
    }
}

/// A burst that is longer than a budget is taken in portions, in order where there is one queue.
pub fn takes_bursts(nic: &mut dyn Nic, wire: &dyn Wire, count: usize) {
    let random = Random::new(2);
    let mut told = Told::default();
    nic.poll(64, &mut told);
    assert!(!nic.listen(), "nothing has arrived");
    let frames: Vec<Vec<u8>> = (0..count).map(|_| frame(&random, 60)).collect();
    for bytes in &frames {
        assert!(wire.arrive(bytes, true));
    }
    assert!(nic.listen(), "what has arrived is found");
    assert!(nic.poll(40, &mut told).more);
    assert_eq!(told.received.len(), 40);
    assert!(!nic.poll(64, &mut told).more);
    let mut received: Vec<_> = told.received.iter().map(|one| one.0.clone()).collect();
    let mut frames = frames;
    if nic.capabilities().queues > 1 {
        received.sort();
        frames.sort();
    }
    assert_eq!(received, frames);
}

/// Whatever a card answers, each packet comes back exactly once, and at the latest when the card is gone.
pub fn survives(start: impl FnOnce(&Device) -> Result<Box<dyn Nic>, String>, device: &Device, noisy: &Noisy, wire: &dyn Wire) {
    let machine: &Rc<Machine> = &noisy.machine;
    let random = Random::new(noisy.random.next());
    let Ok(mut nic) = start(device) else { return };
    let mut told = Told::default();
    for tag in 0..400u32 {
        let (bytes, offload) = match random.below(4) {
            0 => large(&random, random.below(2) == 0, 3000, 1000 + random.below(400) as u16),
            _ => {
                let length = 14 + random.below(1500) as usize;
                (frame(&random, length), Offload::default())
            }
        };
        let packet = Scattered::new(machine, &random, &bytes, offload);
        let vlan = (random.below(3) == 0).then_some(5);
        if nic.transmit(tag as u16, &packet, vlan, tag).is_ok() {
            told.open.insert(tag);
        }
        nic.flush();
        let length = 14 + random.below(3000) as usize;
        wire.arrive(&frame(&random, length), true);
        nic.poll(64, &mut told);
        let _ = nic.listen();
        if tag % 7 == 0 {
            machine.pause(250 * (1 + random.below(8)));
            nic.watch(machine.now(), &mut told);
        }
        told.received.clear();
    }
    noisy.pull_out();
    for _ in 0..60 {
        machine.pause(250);
        nic.watch(machine.now(), &mut told);
    }
    assert!(told.open.is_empty(), "packets that never come back: {:?}", told.open);
    assert!(matches!(nic.state(), NicState::Gone | NicState::Failed), "{:?}", nic.state());
    assert!(!nic.link().up || nic.state() == NicState::Failed);
    let packet = Scattered::new(machine, &random, &frame(&random, 60), Offload::default());
    assert_eq!(nic.transmit(0, &packet, None, 9), Err(Refused::Down));
}
