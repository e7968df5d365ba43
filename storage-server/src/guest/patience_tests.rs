//! A device that puts interrupts and looks off, against a driver that sleeps until it is interrupted and notifies only when it has to.

use super::tests::{Bench, Driver, attachment, bench};
use proptest::prelude::*;
use tessera_virtqueue::{Features, GuestMemory};

const PATIENCE: u64 = 50;
const READ: u32 = 0;

struct World {
    bench: Bench,
    driver: Driver,
    event_index: bool,
    now: u64,
    due: Option<u64>,
    told: u32,
    given: usize,
    ended: usize,
    notifications: usize,
}

impl World {
    fn new(event_index: bool) -> Self {
        let bench = bench();
        let mut attachment = attachment();
        attachment.features = Features {
            indirect: false,
            event_index,
        };
        bench.device.attach(&attachment, false).unwrap();
        bench.device.set_patience(PATIENCE);
        let driver = Driver::new(&bench.ram, 0);
        let mut world = Self {
            bench,
            driver,
            event_index,
            now: 1,
            due: None,
            told: 0,
            given: 0,
            ended: 0,
            notifications: 0,
        };
        world.settle();
        world
    }

    /// As the server does before it waits.
    fn settle(&mut self) {
        self.due = self.bench.device.settle(self.now);
        if let Some(due) = self.due {
            assert!(due <= self.now + PATIENCE, "it waits until {due}, now is {}", self.now);
        }
        if self.bench.bell.0.get() != self.told {
            self.told = self.bench.bell.0.get();
            self.reap();
        }
    }

    /// The driver's interrupt handler.
    fn reap(&mut self) {
        self.ended += self.driver.reap().len();
        let (ram, layout) = (&self.bench.ram, self.driver.layout);
        if self.event_index {
            ram.write_u16(layout.available + 4 + 2 * u64::from(layout.size), self.driver.seen)
                .unwrap();
        }
    }

    /// The driver offers requests one after the other, and notifies where it is asked to.
    fn offer(&mut self, count: usize) {
        for _ in 0..count {
            if self.given - self.ended >= 20 {
                return;
            }
            self.driver.offer(READ, 0, &[(0x9_0000, 512, true)], 0x8_0000);
            self.given += 1;
            let (ram, layout) = (self.bench.ram.clone(), self.driver.layout);
            let wants = if self.event_index {
                let event = ram.read_u16(layout.used + 4 + 8 * u64::from(layout.size)).unwrap();
                event == self.driver.available.wrapping_sub(1)
            } else {
                ram.read_u16(layout.used).unwrap() & 1 == 0
            };
            if wants {
                self.notifications += 1;
                self.bench.device.run();
                self.settle();
            }
        }
    }

    fn complete(&mut self, which: usize) {
        let jobs = self.bench.disk.jobs.borrow().len();
        if jobs > 0 {
            self.bench.disk.complete(which % jobs);
            self.settle();
        }
    }

    fn pass(&mut self, ticks: u64) {
        let until = self.now + ticks;
        while let Some(due) = self.due.filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = until;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer(usize),
    Complete(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1usize..12).prop_map(Step::Offer),
        any::<usize>().prop_map(Step::Complete),
        any::<usize>().prop_map(Step::Complete),
        (1u64..120).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever the order: the device never sleeps while there is something in its queue that nobody will tell it of, and the driver is told of everything.
    #[test]
    fn a_patient_device_forgets_nothing(event_index: bool, steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new(event_index);
        for step in steps {
            match step {
                Step::Offer(count) => world.offer(count),
                Step::Complete(which) => world.complete(which),
                Step::Pass(ticks) => world.pass(ticks),
            }
        }
        world.pass(2 * PATIENCE);
        let taken = world.bench.disk.jobs.borrow().len();
        prop_assert_eq!(world.given - world.ended, taken, "the device knows of every request, and the driver of every answer");
        while !world.bench.disk.jobs.borrow().is_empty() {
            world.complete(0);
        }
        world.pass(2 * PATIENCE);
        prop_assert_eq!((world.given, world.due), (world.ended, None));
    }
}

#[test]
fn a_busy_guest_is_disturbed_less() {
    let rounds = |patience| {
        let mut world = World::new(true);
        world.bench.device.set_patience(patience);
        for _ in 0..100 {
            world.offer(20);
            for _ in 0..8 {
                world.complete(0);
                world.pass(1);
            }
        }
        (world.ended, world.told as usize, world.notifications)
    };
    let (ended, interrupts, notifications) = rounds(0);
    assert!(
        interrupts == ended && notifications >= ended,
        "{interrupts}, {notifications} of {ended}"
    );
    let (ended, interrupts, notifications) = rounds(PATIENCE);
    assert!(
        ended > 500 && interrupts * 3 < ended && notifications * 10 < ended,
        "{interrupts}, {notifications} of {ended}"
    );
}
