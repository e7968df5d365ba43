//! Device against a simple driver: nothing is lost, nothing comes twice, whatever the order and wherever the device's process ends.

mod common;

use common::{Driver, Ram, layout, quiet};
use proptest::prelude::*;
use std::cell::Cell;
use tessera_virtqueue::{Features, Queue, Record, Segment};

#[derive(Clone, Debug)]
enum Step {
    /// A request of these numbers of buffers to read and to write.
    Offer(u8, u8),
    Pop,
    /// Returns one of those in flight.
    Push(prop::sample::Index, u32),
    Reap,
    /// The process ends in the middle of returning one: after so many writes, odd ones half done.
    End(prop::sample::Index, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u8..4, 0u8..4).prop_map(|(read, write)| Step::Offer(read, write)),
        Just(Step::Pop),
        Just(Step::Pop),
        (any::<prop::sample::Index>(), any::<u32>()).prop_map(|(which, length)| Step::Push(which, length)),
        Just(Step::Reap),
        (any::<prop::sample::Index>(), 0u8..5).prop_map(|(which, writes)| Step::End(which, writes)),
    ]
}

fn buffers(number: u64, read: u8, write: u8) -> Vec<(u64, u32, bool)> {
    let all = u64::from(read + write);
    (0..all)
        .map(|i| {
            (
                0x8000 + (number * 7 + i) * 64 % 0x4000,
                1 + (number as u32 * 3 + i as u32) % 64,
                i >= u64::from(read),
            )
        })
        .collect()
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(
        bits in 2u32..9,
        event_index: bool,
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let ram: Ram<_> = quiet(0x1_0000);
        let place = layout(1 << bits);
        let features = Features { indirect: false, event_index };
        let record = Record::new();
        let mut queue = Queue::new(place, features, &ram, &record).unwrap();
        let mut driver = Driver::new(place);
        let mut offered: std::collections::HashMap<u16, Vec<(u64, u32, bool)>> = Default::default();
        let mut waiting = std::collections::VecDeque::new();
        let mut flying: Vec<u16> = vec![];
        let mut returned: std::collections::VecDeque<(u16, u32)> = Default::default();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Offer(read, write) => {
                    number += 1;
                    let wanted = buffers(number, read, write);
                    if let Some(head) = driver.offer(&ram, &wanted) {
                        offered.insert(head, wanted);
                        waiting.push_back(head);
                    }
                }
                Step::Pop => {
                    let head = queue.pop(&ram, &record).unwrap();
                    prop_assert_eq!(head, waiting.pop_front());
                    if let Some(head) = head {
                        let chain: Result<Vec<Segment>, _> = queue.chain(&ram, head).collect();
                        let chain: Vec<_> = chain.unwrap().iter().map(|it| (it.address, it.length, it.writable)).collect();
                        prop_assert_eq!(&chain, &offered[&head]);
                        flying.push(head);
                    }
                }
                Step::Push(which, length) => {
                    if !flying.is_empty() {
                        let head = flying.remove(which.index(flying.len()));
                        queue.push(&ram, &record, head, length).unwrap();
                        returned.push_back((head, length));
                        prop_assert!(queue.push(&ram, &record, head, length).is_err(), "twice");
                    }
                }
                Step::Reap => {
                    for found in driver.reap(&ram) {
                        prop_assert_eq!(Some(found), returned.pop_front());
                    }
                }
                Step::End(which, writes) => {
                    if !flying.is_empty() {
                        let place = which.index(flying.len());
                        ram.writes_left.set(writes.into());
                        let before = u16::from_le_bytes(ram.get(layout(1).used + 2));
                        let _ = queue.push(&ram, &record, flying[place], 99);
                        ram.writes_left.set(u64::MAX);
                        // The driver believes the index.
                        if u16::from_le_bytes(ram.get(layout(1).used + 2)) != before {
                            returned.push_back((flying.remove(place), 99));
                        }
                    }
                    queue = Queue::take_over(place, features, &ram, &record).unwrap();
                    let mut after = 0;
                    let mut found = vec![];
                    while let Some((head, order)) = record.next_in_flight(after) {
                        found.push(head);
                        after = order;
                    }
                    // In the order in which they were taken.
                    prop_assert_eq!(&found, &flying);
                    prop_assert_eq!(usize::from(queue.in_flight()), flying.len());
                }
            }
        }
    }

    /// The driver sleeps and the device sleeps, each when the other says so; neither misses the other.
    #[test]
    fn nobody_sleeps_through_work(event_index: bool, rounds in prop::collection::vec((1u8..5, 0u8..4, any::<bool>()), 1..200)) {
        let ram = quiet(0x1_0000);
        let place = layout(8);
        let record = Record::new();
        let mut queue = Queue::new(place, Features { indirect: false, event_index }, &ram, &record).unwrap();
        let mut driver = Driver::new(place);
        // What the driver wants to be told of: everything from its own index on.
        let want = |driver: &Driver| {
            ram.put(place.available, &0u16.to_le_bytes());
            ram.put(place.available + 4 + 16, &driver.seen.to_le_bytes());
        };
        want(&driver);
        let mut interrupt = false;
        prop_assert!(!queue.enable_notifications(&ram));
        for (offers, pushes, reap) in rounds {
            let mut notify = false;
            for _ in 0..offers {
                let old = driver.available;
                if driver.offer(&ram, &[(0x8000, 16, false)]).is_some() {
                    let event = u16::from_le_bytes(ram.get(place.used + 4 + 64));
                    let flags = u16::from_le_bytes(ram.get(place.used));
                    notify |= if event_index { event == old } else { flags == 0 };
                }
            }
            // The device sleeps until it is notified.
            if notify {
                queue.disable_notifications(&ram);
                loop {
                    while queue.pop(&ram, &record).unwrap().is_some() {}
                    if !queue.enable_notifications(&ram) {
                        break;
                    }
                }
            }
            let returned = u16::from_le_bytes(ram.get(place.used + 2));
            prop_assert_eq!(queue.in_flight(), driver.available - returned, "the device sleeps while requests wait");
            for _ in 0..pushes {
                if let Some((head, _)) = record.next_in_flight(0) {
                    queue.push(&ram, &record, head, 0).unwrap();
                }
            }
            interrupt |= queue.needs_interrupt(&ram);
            let waits = u16::from_le_bytes(ram.get(place.used + 2)) != driver.seen;
            prop_assert!(interrupt || !waits, "the driver sleeps while requests are done");
            if reap && interrupt {
                interrupt = false;
                driver.reap(&ram);
                want(&driver);
            }
        }
    }
}

/// An interrupt that the driver does not want is not sent.
#[test]
fn interrupts_are_spared() {
    let ram = quiet(0x1_0000);
    let place = layout(8);
    let record = Record::new();
    for event_index in [false, true] {
        let mut queue = Queue::new(
            place,
            Features {
                indirect: false,
                event_index,
            },
            &ram,
            &record,
        )
        .unwrap();
        let mut driver = Driver::new(place);
        // "No interrupts", and an event far away.
        ram.put(place.available, &1u16.to_le_bytes());
        ram.put(place.available + 4 + 16, &100u16.to_le_bytes());
        for _ in 0..4 {
            driver.offer(&ram, &[(0x8000, 16, false)]);
            let head = queue.pop(&ram, &record).unwrap().unwrap();
            queue.push(&ram, &record, head, 0).unwrap();
            assert!(!queue.needs_interrupt(&ram));
        }
        ram.put(place.available, &0u16.to_le_bytes());
        ram.put(place.available + 4 + 16, &4u16.to_le_bytes());
        assert!(!queue.needs_interrupt(&ram), "nothing new");
        driver.offer(&ram, &[(0x8000, 16, false)]);
        let head = queue.pop(&ram, &record).unwrap().unwrap();
        queue.push(&ram, &record, head, 0).unwrap();
        assert!(queue.needs_interrupt(&ram));
        ram.put(place.used, &[0; 6]);
        ram.put(place.available, &[0; 4]);
    }
}

/// Indices wrap after 65,536 requests.
#[test]
fn indices_wrap() {
    let ram = quiet(0x1_0000);
    let place = layout(4);
    let record = Record::new();
    let features = Features {
        indirect: false,
        event_index: true,
    };
    let mut queue = Queue::new(place, features, &ram, &record).unwrap();
    let mut driver = Driver::new(place);
    let done = Cell::new(0);
    for round in 0..70_000u32 {
        driver.offer(&ram, &[(0x8000, 16, true)]).unwrap();
        if round % 1000 == 0 {
            queue = Queue::take_over(place, features, &ram, &record).unwrap();
        }
        let head = queue.pop(&ram, &record).unwrap().unwrap();
        queue.push(&ram, &record, head, round).unwrap();
        assert_eq!(driver.reap(&ram), [(head, round)]);
        done.set(done.get() + 1);
    }
    assert_eq!(done.get(), 70_000);
}
