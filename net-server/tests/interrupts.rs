//! When a driver is asked to ring, and when it is interrupted: at once for what it receives, late for what it sent, and not at all for what it has found out by itself.

use std::{cell::Cell, ptr::NonNull, rc::Rc};
use tessera_device::{DmaBuffer, Ram, RamFrame};
use tessera_net::{
    guest::{Attachment, CONTROL_STATE, Device, Features, Sent, Signal},
    packet::Bytes,
};
use tessera_virtqueue::{Layout, Record};

const SIZE: u16 = 64;
const AVAILABLE: usize = 0x1000;
const USED: usize = 0x2000;
const DATA: u64 = 0x3000;
/// The driver's event index, behind the available ring (virtio 1.2, 2.7.6).
const EVENT: usize = AVAILABLE + 4 + 2 * SIZE as usize;
/// The device's, behind the used ring (2.7.8).
const RING: usize = USED + 4 + 8 * SIZE as usize;
/// `VIRTIO_F_EVENT_IDX`.
const EVENT_INDEX: u64 = 1 << 29;
const TRANSMIT: usize = 1;
/// A queue to receive, with one buffer for each round; the driver gives them all at once.
const RECEIVE: usize = 0;
const BUFFERS: [usize; 3] = [0x4000, 0x5000, 0x6000];
const ROUNDS: u16 = 10;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An answer: 60 bytes to the guest.
fn answer() -> Bytes<[u8; 60]> {
    let mut bytes = [0; 60];
    bytes[..6].copy_from_slice(&MAC);
    Bytes::plain(bytes)
}

struct Driver {
    device: Device,
    memory: DmaBuffer,
    interrupts: Rc<Cell<u32>>,
    given: u16,
    now: u64,
}

struct Count(Rc<Cell<u32>>);

impl Signal for Count {
    fn signal(&self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Driver {
    fn new() -> Self {
        let memory = DmaBuffer::of_this_process(0x7000);
        let frame = RamFrame {
            length: 0x7000,
            physical: 0,
        };
        let base = NonNull::new(memory.physical() as *mut u8).unwrap();
        // SAFETY: this process's memory, which is never freed and holds no Rust object; it is as long as the frame, and aligned to pages.
        let ram = Rc::new(unsafe { Ram::new(base, &[frame]) });
        let records = std::array::from_fn(|_| &*Box::leak(Box::new(Record::new())));
        let device = Device::new(ram, MAC, 1500, records, DmaBuffer::of_this_process(CONTROL_STATE));
        let mut attachment = Attachment {
            features: Features(EVENT_INDEX),
            pairs: 1,
            ..Attachment::default()
        };
        attachment.queues[TRANSMIT] = Some(Layout {
            size: SIZE,
            descriptors: 0,
            available: AVAILABLE as u64,
            used: USED as u64,
        });
        let [descriptors, available, used] = BUFFERS;
        attachment.queues[RECEIVE] = Some(Layout {
            size: SIZE,
            descriptors: descriptors as u64,
            available: available as u64,
            used: used as u64,
        });
        for index in 0..ROUNDS {
            memory.write(descriptors + 16 * usize::from(index), DATA);
            // Its length, and that the device may write it (2.7.5).
            memory.write(descriptors + 16 * usize::from(index) + 8, 512_u32);
            memory.write(descriptors + 16 * usize::from(index) + 12, 2_u16);
            memory.write(available + 4 + 2 * usize::from(index), index);
        }
        memory.write(available + 2, ROUNDS);
        let interrupts = Rc::<Cell<u32>>::default();
        device.attach(&attachment, false).unwrap();
        device.set_signal(TRANSMIT, Box::new(Count(interrupts.clone())));
        for index in 0..usize::from(SIZE) {
            memory.write(16 * index, DATA);
            memory.write(16 * index + 8, 100_u32);
        }
        Self {
            device,
            memory,
            interrupts,
            given: 0,
            now: 0,
        }
    }

    /// Puts packets into its queue. True: it rings.
    fn put(&mut self, count: u16) -> bool {
        let asked: u16 = self.memory.read(RING);
        for _ in 0..count {
            let place = self.given % SIZE;
            self.memory.write(AVAILABLE + 4 + 2 * usize::from(place), place);
            self.given += 1;
            self.memory.write(AVAILABLE + 2, self.given);
        }
        // As drivers decide it (virtio 1.2, 2.7.10.1).
        self.given.wrapping_sub(asked).wrapping_sub(1) < count
    }

    /// The others take what is there. Packets that were taken.
    fn look(&mut self) -> u16 {
        let before: u16 = self.memory.read(USED + 2);
        self.device.transmit(64, self.now, &mut |_, _, _| Sent::Done);
        self.memory.read::<u16>(USED + 2) - before
    }

    /// Sends packets, which the others take at once.
    fn send(&mut self, count: u16) {
        self.put(count);
        self.device.rang();
        assert_eq!(self.look(), count, "they are returned at once");
        assert_eq!(self.memory.read::<u16>(USED + 2), self.given);
    }

    /// Wants an interrupt for the packet after this many.
    fn wants(&self, after: u16) {
        self.memory.write(EVENT, after);
    }
}

#[test]
fn an_interrupt_for_what_was_sent_waits() {
    let mut driver = Driver::new();
    driver.wants(0);
    driver.send(1);
    let due = driver.device.settle(1000).unwrap();
    assert!(due > 1000 && driver.interrupts.get() == 0);
    assert_eq!(driver.device.settle(due - 1), Some(due), "it waits since the first time");
    assert_eq!(driver.device.settle(due), None);
    assert_eq!(driver.interrupts.get(), 1);
    assert_eq!(driver.device.settle(due * 2), None);
    assert_eq!(driver.interrupts.get(), 1, "it is told once");
}

#[test]
fn what_the_driver_has_found_out_needs_no_interrupt() {
    let mut driver = Driver::new();
    driver.wants(0);
    driver.send(1);
    let due = driver.device.settle(0).unwrap();
    driver.wants(1);
    assert_eq!(driver.device.settle(due), None);
    // One that looks each time before it sends is never interrupted, however long that goes on.
    for number in 1..100 {
        driver.wants(number);
        driver.send(1);
        assert!(driver.device.settle(u64::from(number) * due / 2).is_some());
    }
    assert_eq!(driver.interrupts.get(), 0);
}

#[test]
fn much_that_was_sent_is_told_at_once() {
    let mut driver = Driver::new();
    driver.wants(0);
    driver.send(SIZE / 4);
    assert_eq!(driver.device.settle(0), None);
    assert_eq!(driver.interrupts.get(), 1);
}

/// Sends one packet after the other, as often as a driver that waits for nothing does, until it is not asked to ring for the next one.
fn send_much(driver: &mut Driver) {
    for _ in 0..100 {
        driver.now += 1000;
        if !driver.put(1) {
            return;
        }
        driver.device.rang();
        assert_eq!(driver.look(), 1);
    }
    panic!("it has to ring for each packet");
}

#[test]
fn who_only_sends_rings_seldom() {
    let mut driver = Driver::new();
    send_much(&mut driver);
    assert_eq!(driver.look(), 0, "nobody looks before it is time");
    let due = driver.device.settle(driver.now).unwrap();
    assert!(due > driver.now && due <= driver.now + 200_000);
    driver.now = due;
    assert_eq!(driver.look(), 1, "its packet is found without a ring");
    // A quarter of the queue is worth a ring.
    assert!(!driver.put(SIZE / 4 - 1));
    assert!(driver.put(1));
    driver.device.rang();
    assert_eq!(driver.look(), SIZE / 4);
    assert!(!driver.put(1));
}

#[test]
fn who_stops_to_send_rings_again() {
    let mut driver = Driver::new();
    send_much(&mut driver);
    for found in [1, 0] {
        driver.now = driver.device.settle(driver.now).unwrap();
        assert_eq!(driver.look(), found);
    }
    assert_eq!(driver.device.settle(driver.now + 1_000_000), None, "nobody looks for nothing");
    assert!(driver.put(1));
}

#[test]
fn who_gets_answers_rings_for_each_packet() {
    let mut driver = Driver::new();
    for _ in 0..ROUNDS {
        for _ in 0..8 {
            driver.now += 1000;
            assert!(driver.put(1));
            driver.device.rang();
            assert_eq!(driver.look(), 1);
        }
        driver.device.receive(&answer(), None).unwrap();
    }
}
