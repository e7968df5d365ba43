//! A guest's memory with guards around it, drivers that do their worst in it, and a neighbour whose driver is good.

use std::{cell::RefCell, ptr::NonNull, rc::Rc};
use tessera_device::{DmaBuffer, Ram, RamFrame, Segment, testing::Random};
use tessera_net::{
    guest::{Attachment, CONTROL_STATE, Device, Features, MAX_QUEUES},
    packet::{Bytes, Offload},
};
use tessera_virtqueue::{Layout, Record};

/// The neighbour's address.
pub const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Bytes of the hostile guest's memory, and of the guards before and behind it.
const LENGTH: u64 = 64 << 10;
const GUARD: usize = 4096;
const GUARDED: u8 = 0xa5;
/// Where devices find its two halves.
const PHYSICAL: [u64; 2] = [0x1000_0000, 0x2000_0000];
/// Frames with headers of the device in front, and commands.
const FRAMES: u64 = 0x8000;
const FRAME: u64 = 0x800;
const COMMANDS: u64 = 0x7000;
/// Flags of descriptors.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn records() -> [&'static Record; MAX_QUEUES] {
    std::array::from_fn(|_| &*Box::leak(Box::new(Record::new())))
}

fn ram(memory: &DmaBuffer, frames: &[RamFrame]) -> Rc<Ram> {
    let base = NonNull::new(memory.physical() as *mut u8).unwrap();
    // SAFETY: this process's memory, which is never freed and holds no Rust object; the frames are as long together, and it is aligned to pages.
    Rc::new(unsafe { Ram::new(base, frames) })
}

/// The hostile guest.
pub struct Guest {
    pub device: Device,
    all: DmaBuffer,
    memory: DmaBuffer,
}

impl Guest {
    pub fn new() -> Self {
        let all = DmaBuffer::of_this_process(LENGTH as usize + 2 * GUARD);
        all.copy_in(0, &vec![GUARDED; all.length()]);
        let place = all.physical() + GUARD as u64;
        let memory = all.part(GUARD, LENGTH as usize).said_to_be_at(place);
        memory.clear(0, LENGTH as usize);
        let frames = PHYSICAL.map(|physical| RamFrame {
            length: LENGTH / 2,
            physical,
        });
        let state = DmaBuffer::of_this_process(CONTROL_STATE);
        Self {
            device: Device::new(ram(&memory, &frames), MAC, 1500, records(), state),
            all,
            memory,
        }
    }

    /// Where its memory is in this process, and its bytes.
    pub fn memory(&self) -> (usize, usize) {
        (self.memory.physical() as usize, LENGTH as usize)
    }

    pub fn mac(&self) -> [u8; 6] {
        self.device.mac()
    }

    pub fn guards_are_whole(&self) -> bool {
        [0, GUARD + LENGTH as usize].into_iter().all(|place| {
            let mut bytes = [0; GUARD];
            self.all.copy_out(place, &mut bytes);
            bytes.iter().all(|byte| *byte == GUARDED)
        })
    }

    /// Whether a segment is this guest's.
    pub fn is_physical(&self, segment: Segment) -> bool {
        let inside = |base: &u64| segment.physical >= *base && segment.physical + u64::from(segment.length) <= base + LENGTH / 2;
        segment.length > 0 && PHYSICAL.iter().any(inside)
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.copy_in(address as usize, bytes);
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// A value that is likely to be near some edge.
fn edge(random: &Random) -> u64 {
    match random.below(8) {
        0 => random.next(),
        1 => u64::MAX - random.below(64),
        2 => LENGTH - random.below(64),
        3 => LENGTH + random.below(64),
        4 => random.below(256),
        _ => random.below(LENGTH),
    }
}

fn hostile_descriptor(random: &Random, size: u16, receives: bool) -> [u8; 16] {
    if receives && random.below(16) != 0 {
        // Mostly behind the queues and before the frames; what is received elsewhere changes those.
        let address = if random.below(16) == 0 {
            random.below(LENGTH / 2)
        } else {
            0x5000 + random.below(0x1000)
        };
        return descriptor(address, 1 + random.below(4096) as u32, WRITE, 0);
    }
    let next = random.below(u64::from(size)) as u16;
    match random.below(32) {
        // A frame in one piece, in two, and longer than it is.
        0..=11 => descriptor(FRAMES + FRAME * random.below(12), 12 + 14 + random.below(1500) as u32, 0, 0),
        12..=14 => descriptor(FRAMES + FRAME * random.below(12), 12 + random.below(60) as u32, NEXT, next),
        15 => descriptor(FRAMES, random.below(LENGTH - FRAMES) as u32, 0, 0),
        // A buffer to receive into.
        16..=24 => descriptor(random.below(LENGTH / 2), 1 + random.below(4096) as u32, WRITE, 0),
        // A command, and where its answer goes.
        25 | 26 => descriptor(COMMANDS + 256 * random.below(8), 2 + random.below(256) as u32, NEXT, next),
        27..=29 => descriptor(COMMANDS + random.below(2048), 1, WRITE, 0),
        _ => {
            let length = match random.below(6) {
                0 => random.next() as u32,
                1 => 16 * random.below(8) as u32,
                2 => u32::MAX - random.below(4) as u32,
                _ => random.below(2048) as u32,
            };
            let flags = match random.below(8) {
                0 => random.next() as u16,
                1 => INDIRECT,
                2 => 0,
                3 => WRITE,
                _ => NEXT | if random.below(3) == 0 { WRITE } else { 0 },
            };
            let next = if random.below(8) == 0 { random.next() as u16 } else { next };
            descriptor(
                edge(random) & if random.below(2) == 0 { !15 } else { u64::MAX },
                length,
                flags,
                next,
            )
        }
    }
}

/// A TCP segment with the device's header in front, of which any field may be wrong.
fn hostile_frame(random: &Random, to: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![0; FRAME as usize];
    // Checksum to be filled in and TCP to be cut, over IPv4 (virtio 1.2, 5.1.6).
    bytes[..12].copy_from_slice(&[1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0]);
    if random.below(2) == 0 {
        bytes[..2].fill(0);
    }
    let frame = &mut bytes[12..];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&MAC);
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[23] = 6;
    frame[46] = 0x50;
    for byte in &mut frame[54..200] {
        *byte = random.next() as u8;
    }
    for _ in 0..random.below(4) {
        bytes[random.below(70) as usize] = random.next() as u8;
    }
    bytes
}

/// A driver's set-up, and what it put into its queues.
pub fn hostile_attachment(guest: &Guest, random: &Random) -> Attachment {
    for place in 0..12 {
        if random.below(4) == 0 {
            let to = [NEIGHBOUR, [0xff; 6], MAC][random.below(3) as usize];
            guest.put(FRAMES + FRAME * place, &hostile_frame(random, to));
        }
    }
    for place in 0..8 {
        let mut command = [0; 64];
        command.fill_with(|| random.next() as u8);
        (command[0], command[1]) = (random.below(7) as u8, random.below(7) as u8);
        if random.below(2) == 0 {
            command[3..16].fill(0);
        }
        guest.put(COMMANDS + 256 * place, &command);
    }
    let pairs = if random.below(16) == 0 {
        random.next()
    } else {
        1 + random.below(4)
    } as u16;
    let mut attachment = Attachment {
        features: Features(if random.below(4) == 0 { random.next() } else { u64::MAX }),
        pairs,
        ..Attachment::default()
    };
    for (number, place) in (0..).zip(&mut attachment.queues) {
        if random.below(16) != 0 {
            *place = Some(hostile_queue(guest, number, random));
        }
    }
    attachment
}

fn hostile_queue(guest: &Guest, number: u64, random: &Random) -> Layout {
    let size = 1 << random.below(6);
    // Each has 2 KiB of its own: descriptors, available ring, used ring.
    let base = 0x800 * number;
    let mut layout = Layout {
        size,
        descriptors: base,
        available: base + 0x400,
        used: base + 0x600,
    };
    if random.below(256) == 0 {
        match random.below(4) {
            0 => layout.size = random.next() as u16,
            1 => layout.descriptors = edge(random),
            2 => layout.available = edge(random),
            _ => layout.used = edge(random),
        }
    }
    for index in 0..u64::from(size) {
        guest.put(base + 16 * index, &hostile_descriptor(random, size, number.is_multiple_of(2)));
        let head = if random.below(64) == 0 { random.next() } else { index } as u16;
        guest.put(base + 0x400 + 4 + 2 * index, &head.to_le_bytes());
    }
    let ahead = if random.below(64) == 0 {
        random.next()
    } else {
        random.below(u64::from(size) + 1)
    };
    // Where it was not moved: else the driver gave nothing.
    guest.put(base + 0x402, &(ahead as u16).to_le_bytes());
    layout
}

/// A guest whose driver is good: 256 buffers of 2 KiB, returned to the device as soon as it has used them.
pub struct Neighbour {
    pub device: Device,
    memory: DmaBuffer,
    seen: u16,
    given: u16,
    frames: RefCell<u64>,
}

const BUFFERS: u16 = 256;
const BUFFER: u64 = 2048;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x4000;
const DATA: u64 = 0x8000;
/// `VIRTIO_NET_F_MRG_RXBUF`, and all that a driver may take undone (virtio 1.2, 5.1.3).
const GOOD: u64 = 1 << 15 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 9;

impl Neighbour {
    pub fn new() -> Self {
        let length = DATA + u64::from(BUFFERS) * BUFFER;
        let memory = DmaBuffer::of_this_process(length as usize);
        let frame = RamFrame {
            length,
            physical: 0x4000_0000,
        };
        let device = Device::new(
            ram(&memory, &[frame]),
            NEIGHBOUR,
            1500,
            records(),
            DmaBuffer::of_this_process(CONTROL_STATE),
        );
        let mut neighbour = Self {
            device,
            memory,
            seen: 0,
            given: 0,
            frames: RefCell::new(0),
        };
        for index in 0..BUFFERS {
            let bytes = descriptor(DATA + BUFFER * u64::from(index), BUFFER as u32, WRITE, 0);
            neighbour.memory.copy_in(16 * usize::from(index), &bytes);
            neighbour.give(index);
        }
        let mut attachment = Attachment {
            features: Features(GOOD),
            pairs: 1,
            ..Attachment::default()
        };
        attachment.queues[0] = Some(Layout {
            size: BUFFERS,
            descriptors: 0,
            available: AVAILABLE,
            used: USED,
        });
        neighbour.device.attach(&attachment, false).unwrap();
        neighbour
    }

    fn word(&self, address: u64) -> u16 {
        self.memory.read(address as usize)
    }

    fn give(&mut self, head: u16) {
        let place = AVAILABLE + 4 + 2 * u64::from(self.given % BUFFERS);
        self.memory.copy_in(place as usize, &head.to_le_bytes());
        self.given = self.given.wrapping_add(1);
        self.memory.copy_in(AVAILABLE as usize + 2, &self.given.to_le_bytes());
    }

    /// A frame of chance to somebody: good ones, short ones, giants, with offloads that may make no sense.
    pub fn frame(&self, random: &Random, to: [u8; 6]) -> Bytes<Vec<u8>> {
        let length = match random.below(8) {
            0 => random.below(60),
            1 => random.below(65_550),
            _ => 60 + random.below(1454),
        };
        let bytes = hostile_frame(random, to);
        let mut frame = bytes[12..].to_vec();
        frame.resize(length as usize, 0x5a);
        let checksum = (random.below(2) == 0).then(|| (random.below(64) as u16, random.below(32) as u16));
        Bytes(
            frame,
            Offload {
                checksum,
                ..Offload::default()
            },
        )
    }

    /// Its driver takes what came, and gets a frame as it was sent.
    pub fn goes_on(&mut self) {
        self.take();
        let number = self.frames.replace_with(|number| *number + 1);
        let mut bytes = vec![0; 100];
        bytes[..6].copy_from_slice(&NEIGHBOUR);
        bytes[14..22].copy_from_slice(&number.to_le_bytes());
        self.device.receive(&Bytes::plain(bytes.clone()), None).unwrap();
        self.device.settle(0);
        assert_eq!(self.device.take_news().broken, None);
        let (head, length) = self.take().expect("the frame");
        assert_eq!(length, 112);
        let mut got = vec![0; 100];
        self.memory.copy_out((DATA + BUFFER * u64::from(head)) as usize + 12, &mut got);
        assert_eq!(got, bytes);
    }

    /// Takes all that came; the last one's head and bytes.
    fn take(&mut self) -> Option<(u16, u32)> {
        self.device.settle(0);
        let mut last = None;
        while self.seen != self.word(USED + 2) {
            let place = (USED + 4 + 8 * u64::from(self.seen % BUFFERS)) as usize;
            let (head, length) = (self.memory.read::<u32>(place) as u16, self.memory.read::<u32>(place + 4));
            self.seen = self.seen.wrapping_add(1);
            self.give(head);
            last = Some((head, length));
        }
        last
    }
}
