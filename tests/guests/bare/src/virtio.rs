//! A driver of a virtio disk or network card that breaks every rule of the queues (virtio 1.2, 2.7), and rings doorbells in storms. Between offences it behaves: the device must work again after each
//! reset.

use crate::{
    println,
    trap::{Random, Raw},
};
use core::arch::asm;

/// What kind of device is offended.
struct Kind {
    name: &'static str,
    /// Red Hat's identity with a device of the standard.
    identity: u32,
    /// The features of the first word that are taken where they are offered.
    features: u32,
    /// Queues. The hostile driver has all of them in the same memory.
    queues: core::ops::Range<u16>,
    /// Does what any driver does, on a device that was just reset.
    works: fn(&Device) -> bool,
}
const DISK: Kind = Kind {
    name: "disk",
    identity: 0x1042_1af4,
    features: 3 << 28,
    queues: 0..1,
    works: reads,
};
/// One pair of queues, and that for control: all features but several pairs.
const NETWORK: Kind = Kind {
    name: "network card",
    identity: 0x1041_1af4,
    features: !(1 << 22),
    queues: 0..3,
    works: sends,
};
/// Queue and buffers: descriptors, available ring, used ring, header, status, data.
const AREA: usize = 0x8000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADER: u64 = 0x3000;
const STATUS: u64 = 0x3100;
const DATA: u64 = 0x4000;
const SIZE: u16 = 64;
const NEXT: u64 = 1;
const WRITE: u64 = 2;
const INDIRECT: u64 = 4;
const NEEDS_RESET: u8 = 64;
/// Queues of chance.
const ROUNDS: u32 = 400;
/// Notifications without anything to notify of.
const STORM: u32 = 200_000;
/// Looks at the status, each an exit, until a device counts as hung.
const PATIENCE: u32 = 20_000_000;

#[repr(align(4096))]
#[allow(dead_code)]
struct Area([u8; AREA]);
static QUEUE: Raw<Area> = Raw::new(Area([0; AREA]));

fn area() -> u64 {
    QUEUE.get() as u64
}

fn put<T>(offset: u64, value: T) {
    // SAFETY: inside of the area, which only this program and the device know.
    unsafe { ((area() + offset) as *mut T).write_volatile(value) };
}

fn get<T>(offset: u64) -> T {
    // SAFETY: as in `put`; only integers are read.
    unsafe { ((area() + offset) as *const T).read_volatile() }
}

fn config(slot: u32, register: u32) -> u32 {
    let value: u32;
    // SAFETY: this guest owns its whole virtual machine.
    unsafe {
        asm!("out dx, eax", in("eax") 1u32 << 31 | slot << 11 | register, in("dx") 0xcf8u16);
        asm!("in eax, dx", out("eax") value, in("dx") 0xcfcu16);
    }
    value
}

/// The device's ranges.
struct Device {
    kind: &'static Kind,
    port: u16,
    memory: u64,
}

impl Device {
    fn find(kind: &'static Kind) -> Option<Self> {
        let slot = (0..32).find(|slot| config(*slot, 0) == kind.identity)?;
        config(slot, 4);
        // SAFETY: as in `config`; the address register names the command register.
        unsafe { asm!("out dx, ax", in("ax") 7u16, in("dx") 0xcfcu16) };
        Some(Self {
            kind,
            port: config(slot, 0x10) as u16 & !3,
            memory: u64::from(config(slot, 0x18) & !15),
        })
    }

    fn write<T>(&self, offset: u64, value: T) {
        // SAFETY: a register of the device; memory below 4 GiB is mapped one to one.
        unsafe { ((self.memory + offset) as *mut T).write_volatile(value) };
    }

    fn offered(&self) -> u32 {
        self.write(0, 0u32);
        // SAFETY: as in `write`.
        unsafe { ((self.memory + 4) as *const u32).read_volatile() }
    }

    fn status(&self) -> u8 {
        // SAFETY: as in `write`.
        unsafe { ((self.memory + 20) as *const u8).read_volatile() }
    }

    fn notify(&self) {
        // SAFETY: as in `config`.
        unsafe { asm!("out dx, ax", in("ax") 0u16, in("dx") self.port) };
    }

    /// Resets the device. False: it never says that it did.
    fn reset(&self) -> bool {
        self.write(20, 0u8);
        (0..PATIENCE).any(|_| self.status() == 0)
    }

    /// Starts it with these queues, all at these offsets of the area, or elsewhere.
    fn start(&self, queues: core::ops::Range<u16>, parts: [u64; 3], size: u16) {
        self.write(20, 3u8);
        for (select, features) in [(0u32, self.kind.features & self.offered()), (1, 1)] {
            self.write(8, select);
            self.write(12, features);
        }
        self.write(20, 11u8);
        for queue in queues {
            self.write(22, queue);
            self.write(24, size);
            for (register, part) in (32..).step_by(8).zip(parts) {
                self.write(register, part);
            }
            self.write(28, 1u16);
        }
        self.write(20, 15u8);
    }

    fn works(&self) -> bool {
        clear();
        (self.kind.works)(self)
    }
}

fn clear() {
    for offset in (0..AREA as u64).step_by(8) {
        put(offset, 0u64);
    }
}

fn descriptor(index: u64, address: u64, length: u64, flags: u64, next: u64) {
    put(16 * index, address);
    put(16 * index + 8, length | flags << 32 | next << 48);
}

/// One sector is read, as any driver would.
fn reads(disk: &Device) -> bool {
    descriptor(0, area() + HEADER, 16, NEXT, 1);
    descriptor(1, area() + DATA, 512, NEXT | WRITE, 2);
    descriptor(2, area() + STATUS, 1, WRITE, 0);
    put(STATUS, 0xffu8);
    disk.start(0..1, [area(), area() + AVAILABLE, area() + USED], SIZE);
    put(AVAILABLE + 2, 1u16);
    disk.notify();
    // The look at the status gives others time.
    (0..PATIENCE).any(|_| disk.status() != 0 && get::<u16>(USED + 2) == 1) && get::<u8>(STATUS) == 0 && disk.reset()
}

/// A frame of a type that nobody knows is sent to everybody.
fn sends(card: &Device) -> bool {
    for offset in 12..18 {
        put(DATA + offset, 0xffu8);
    }
    for (offset, byte) in (18..).zip([2u8, 0, 0, 0, 0, 66, 0x88, 0xb5]) {
        put(DATA + offset, byte);
    }
    descriptor(0, area() + DATA, 72, 0, 0);
    card.start(1..2, [area(), area() + AVAILABLE, area() + USED], SIZE);
    put(AVAILABLE + 2, 1u16);
    card.notify();
    (0..PATIENCE).any(|_| card.status() != 0 && get::<u16>(USED + 2) == 1) && card.reset()
}

fn hostile_descriptor(random: &mut Random, index: u64) {
    let area = area();
    let address = match random.next() % 6 {
        0 => random.next(),
        1 => u64::MAX - random.next() % 64,
        2 => 64 << 20,
        _ => area + random.next() % AREA as u64,
    };
    let length = match random.next() % 5 {
        0 => random.next() & 0xffff_ffff,
        1 => 0xffff_ffff,
        2 => 16 * (random.next() % 80),
        _ => 1 + random.next() % 1024,
    };
    let flags = match random.next() % 6 {
        0 => random.next() & 0xffff,
        1 => INDIRECT,
        2 => WRITE,
        _ => NEXT | random.next() & WRITE,
    };
    let next = if random.next().is_multiple_of(8) {
        random.next() & 0xffff
    } else {
        random.next() % u64::from(SIZE)
    };
    descriptor(index, address, length, flags, next);
}

/// Offends a device.
pub fn offend_disk() {
    offend(&DISK);
}

/// Offends a network card.
pub fn offend_network() {
    offend(&NETWORK);
}

/// All of it.
fn offend(kind: &'static Kind) {
    let name = kind.name;
    let Some(device) = Device::find(kind) else {
        println!("BARE virtio end no {name}");
        return;
    };
    if !device.reset() || !device.works() {
        println!("BARE virtio end the {name} does not work");
        return;
    }
    let mut random = Random::new(0x5eed_0009);
    let (mut refused, mut worked) = (0u32, 0u32);
    for round in 0..ROUNDS {
        clear();
        // Headers, commands and frames of small numbers.
        for offset in HEADER..AREA as u64 {
            if random.next().is_multiple_of(4) {
                put(offset, (random.next() % 8) as u8);
            }
        }
        for index in 0..u64::from(SIZE) {
            hostile_descriptor(&mut random, index);
            put(
                AVAILABLE + 4 + 2 * index,
                if random.next().is_multiple_of(8) {
                    random.next() as u16
                } else {
                    index as u16
                },
            );
        }
        let mut parts = [area(), area() + AVAILABLE, area() + USED];
        if round % 8 == 0 {
            parts[round as usize / 8 % 3] = random.next();
        }
        device.start(kind.queues.clone(), parts, SIZE);
        put(
            AVAILABLE + 2,
            if random.next().is_multiple_of(8) {
                random.next() as u16
            } else {
                SIZE
            },
        );
        device.notify();
        // The queue changes while it is read.
        for _ in 0..2000 {
            let offset = random.next() % 0x1800;
            put(offset, random.next() as u8);
            if random.next().is_multiple_of(64) {
                device.notify();
            }
        }
        refused += u32::from((0..200).any(|_| device.status() & NEEDS_RESET != 0));
        if !device.reset() {
            println!("BARE virtio end the {name} hangs in round {round}");
            return;
        }
        if round % 16 == 0 {
            worked += u32::from(device.works());
        }
    }
    println!("BARE virtio next storm, {refused} refused, {worked} worked between");
    clear();
    device.start(kind.queues.clone(), [area(), area() + AVAILABLE, area() + USED], SIZE);
    for count in 0..STORM {
        device.notify();
        if count % 1000 == 0 {
            put(AVAILABLE + 2, get::<u16>(AVAILABLE + 2).wrapping_add(1));
        }
    }
    let calm = device.reset() && device.works();
    let verdict = if calm && refused > 0 && worked == ROUNDS.div_ceil(16) {
        "ok"
    } else {
        "FAILED"
    };
    println!("BARE virtio end {verdict}");
}
