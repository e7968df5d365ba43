//! The driver's side, and a world around the devices, for their tests.

use super::{Outside, Queues};
use crate::devices::virtio::QueueConfig;
use crate::memory::GuestMemory;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::vec::Vec;
use tessera_virtqueue::Violation;

/// Descriptors of each queue.
const SIZE: u16 = 128;
/// Bytes for each queue's tables, and for its buffers.
const TABLES: u64 = 0x4000;
const BUFFERS: u64 = 0x10_0000;
const BUFFER_BYTES: u64 = 0x2_0000;

/// A guest with `count` queues.
pub(super) struct Driver {
    pub(super) queues: Queues,
    pub(super) memory: GuestMemory,
    /// For each queue: free descriptor, place for buffers, requests added, requests seen.
    state: Vec<(u16, u64, u16, u16)>,
}

fn tables(queue: u16) -> QueueConfig {
    let base = 0x1000 + TABLES * u64::from(queue);
    QueueConfig {
        size: SIZE,
        enabled: true,
        vector: 0,
        descriptors: base,
        available: base + 0x1000,
        used: base + 0x2000,
    }
}

impl Driver {
    pub(super) fn new(count: u16) -> Self {
        Self::with(count, 0)
    }

    /// The driver accepted these features.
    pub(super) fn with(count: u16, features: u64) -> Self {
        let memory = crate::memory::tests::ram(&[2 << 20]);
        let used: Vec<_> = (0..count).map(|queue| (queue, tables(queue))).collect();
        Self {
            queues: Queues::new(&used, features, &memory, false).unwrap(),
            memory,
            state: (0..count)
                .map(|queue| (0, BUFFERS + BUFFER_BYTES * u64::from(queue), 0, 0))
                .collect(),
        }
    }

    /// Adds a request with these bytes to read and room to write.
    pub(super) fn add(&mut self, queue: u16, read: &[&[u8]], write: &[u32]) {
        let config = tables(queue);
        let (free, place, added, _) = &mut self.state[usize::from(queue)];
        let head = *free;
        let count = read.len() + write.len();
        let mut lengths: Vec<(u32, u16)> = read.iter().map(|bytes| (bytes.len() as u32, 0)).collect();
        lengths.extend(write.iter().map(|length| (*length, 2)));
        for (index, (length, writable)) in lengths.into_iter().enumerate() {
            if let Some(bytes) = read.get(index) {
                self.memory.write_slice(*place, bytes).unwrap();
            }
            let flags = writable | u16::from(index + 1 < count);
            let mut descriptor = place.to_le_bytes().to_vec();
            descriptor.extend(length.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend((*free + 1).to_le_bytes());
            self.memory
                .write_slice(config.descriptors + 16 * u64::from(*free), &descriptor)
                .unwrap();
            *free += 1;
            *place += u64::from(length);
        }
        let slot = config.available + 4 + 2 * u64::from(*added % SIZE);
        self.memory.write_slice(slot, &head.to_le_bytes()).unwrap();
        *added += 1;
        self.memory.write_slice(config.available + 2, &added.to_le_bytes()).unwrap();
    }

    /// Index of the request from which on the driver notifies, with event indices.
    pub(super) fn notify_from(&self, queue: u16) -> u16 {
        let place = tables(queue).used + 4 + 8 * u64::from(SIZE);
        u16::from_le_bytes(self.memory.read(place).unwrap())
    }

    /// The next request that came back: what was written into its first writable buffers.
    pub(super) fn used(&mut self, queue: u16) -> Option<Vec<u8>> {
        let config = tables(queue);
        let (_, _, _, seen) = &mut self.state[usize::from(queue)];
        let index = u16::from_le_bytes(self.memory.read(config.used + 2).unwrap());
        if index == *seen {
            return None;
        }
        let element = self.memory.read_u64(config.used + 4 + 8 * u64::from(*seen % SIZE)).unwrap();
        *seen += 1;
        let (mut descriptor, mut left) = (element as u32, (element >> 32) as usize);
        let mut bytes = Vec::new();
        loop {
            let at = config.descriptors + 16 * u64::from(descriptor);
            let (address, rest) = (self.memory.read_u64(at).unwrap(), self.memory.read_u64(at + 8).unwrap());
            if rest >> 32 & 2 != 0 {
                let mut part = vec![0; left.min(rest as u32 as usize)];
                self.memory.read_slice(address, &mut part).unwrap();
                left -= part.len();
                bytes.extend(part);
            }
            if rest >> 32 & 1 == 0 {
                return Some(bytes);
            }
            descriptor = (rest >> 48) as u32;
        }
    }
}

/// What is outside.
#[derive(Default)]
pub(super) struct World {
    pub(super) shown: Vec<u8>,
    pub(super) typed: VecDeque<u8>,
    pub(super) dry: bool,
    pub(super) counter: u8,
}

impl Outside for World {
    fn random(&mut self, bytes: &mut [u8]) -> bool {
        bytes.fill_with(|| {
            self.counter = self.counter.wrapping_mul(5).wrapping_add(3);
            self.counter
        });
        !self.dry
    }

    fn show(&mut self, bytes: &[u8]) {
        self.shown.extend(bytes);
    }

    fn typed(&mut self, bytes: &mut [u8]) -> usize {
        let count = self.typed.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(self.typed.drain(..count)) {
            *to = from;
        }
        count
    }
}

/// A device lives through queues full of anything: a number of words at random places, and an index that promises requests.
fn survives(mut device: impl super::Local, words: &[(u16, u64)], indices: &[u16]) -> Result<(), Violation> {
    let count = device.config().queues;
    let mut driver = Driver::new(count);
    for (place, value) in words {
        // The tables of all queues.
        let address = 0x1000 + u64::from(*place) % (TABLES * u64::from(count) / 8) * 8;
        driver.memory.write_slice(address, &value.to_le_bytes()).unwrap();
    }
    for (queue, index) in (0..count).zip(indices) {
        driver
            .memory
            .write_slice(tables(queue).available + 2, &(index % (SIZE + 2)).to_le_bytes())
            .unwrap();
    }
    for _ in 0..4 {
        device.serve(&mut driver.queues, &driver.memory, &mut World::default())?;
    }
    Ok(())
}

/// A descriptor's half that is often sensible.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..0x40_0000,
        (0u64..0x8000, 0u64..8, 0u64..130).prop_map(|(length, flags, next)| length | flags << 32 | next << 48),
    ]
}

proptest! {
    #[test]
    fn anything_in_the_queues(words in prop::collection::vec((any::<u16>(), word()), 0..200), indices in any::<[u16; 3]>(), which in 0u8..3) {
        // What matters is that it comes back; both outcomes are fine.
        let _ = match which {
            0 => survives(super::Rng, &words, &indices),
            1 => survives(super::Port::default(), &words, &indices),
            _ => survives(super::Balloon::default(), &words, &indices),
        };
    }
}
