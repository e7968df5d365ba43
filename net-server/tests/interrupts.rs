//! When a driver is interrupted: at once for what it receives, late for what it sent, and not at all for what it has found out by itself.

use std::{cell::Cell, ptr::NonNull, rc::Rc};
use tessera_device::{DmaBuffer, Ram, RamFrame};
use tessera_net::guest::{Attachment, CONTROL_STATE, Device, Features, Sent, Signal};
use tessera_virtqueue::{Layout, Record};

const SIZE: u16 = 64;
const AVAILABLE: usize = 0x1000;
const USED: usize = 0x2000;
const DATA: u64 = 0x3000;
/// The driver's event index, behind the available ring (virtio 1.2, 2.7.6).
const EVENT: usize = AVAILABLE + 4 + 2 * SIZE as usize;
/// `VIRTIO_F_EVENT_IDX`.
const EVENT_INDEX: u64 = 1 << 29;
const TRANSMIT: usize = 1;

struct Driver {
    device: Device,
    memory: DmaBuffer,
    interrupts: Rc<Cell<u32>>,
    given: u16,
}

struct Count(Rc<Cell<u32>>);

impl Signal for Count {
    fn signal(&self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Driver {
    fn new() -> Self {
        let memory = DmaBuffer::of_this_process(0x4000);
        let frame = RamFrame {
            length: 0x4000,
            physical: 0,
        };
        let base = NonNull::new(memory.physical() as *mut u8).unwrap();
        // SAFETY: this process's memory, which is never freed and holds no Rust object; it is as long as the frame, and aligned to pages.
        let ram = Rc::new(unsafe { Ram::new(base, &[frame]) });
        let records = std::array::from_fn(|_| &*Box::leak(Box::new(Record::new())));
        let device = Device::new(ram, [2, 0, 0, 0, 0, 1], 1500, records, DmaBuffer::of_this_process(CONTROL_STATE));
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
        }
    }

    /// Sends packets, which the others take at once.
    fn send(&mut self, count: u16) {
        for _ in 0..count {
            let place = self.given % SIZE;
            self.memory.write(AVAILABLE + 4 + 2 * usize::from(place), place);
            self.given += 1;
            self.memory.write(AVAILABLE + 2, self.given);
        }
        self.device.rang();
        self.device.transmit(64, &mut |_, _, _| Sent::Done);
        assert_eq!(self.memory.read::<u16>(USED + 2), self.given, "they are returned at once");
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
