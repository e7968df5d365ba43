//! Guests that break the rules: each rule, and a million queues of chance.

mod common;

use common::{INDIRECT, NEXT, Ram, Random, WRITE, descriptor, layout, quiet};
use std::cell::Cell;
use std::collections::HashMap;
use std::mem::discriminant;
use tessera_virtqueue::{Area, Features, GuestMemory, Layout, MAX_INDIRECT, Queue, Record, Segment, Violation};

const BOTH: Features = Features {
    indirect: true,
    event_index: true,
};

fn chain(table: &[[u8; 16]], head: u16, features: Features) -> Result<Vec<Segment>, Violation> {
    let ram = quiet(0x1_0000);
    let record = Record::new();
    let queue = Queue::new(layout(8), features, &ram, &record)?;
    for (place, bytes) in table.iter().enumerate() {
        ram.put(0x1000 + 16 * place as u64, bytes);
    }
    // An indirect table at 0xc000: good, then back to its own beginning.
    ram.put(0xc000, &descriptor(0x8000, 16, NEXT, 1));
    ram.put(0xc010, &descriptor(0x9000, 32, WRITE, 0));
    ram.put(0xd000, &descriptor(0x8000, 16, NEXT, 0));
    ram.put(0xe000, &descriptor(0xc000, 16, INDIRECT, 0));
    ram.put(0xf000, &descriptor(0x8000, 16, NEXT, 5));
    queue.chain(&ram, head).collect()
}

#[test]
fn each_rule_of_a_chain() {
    let good = chain(
        &[descriptor(0x8000, 512, NEXT, 2), [0; 16], descriptor(0x9000, 1, WRITE, 0)],
        0,
        BOTH,
    )
    .unwrap();
    assert_eq!(good.len(), 2);
    let inside = chain(&[descriptor(0xc000, 32, INDIRECT, 0)], 0, BOTH).unwrap();
    assert_eq!((inside.len(), inside[1].length, inside[1].writable), (2, 32, true));
    let mixed = chain(&[descriptor(0x8000, 8, NEXT, 1), descriptor(0xc000, 32, INDIRECT, 0)], 0, BOTH).unwrap();
    assert_eq!(mixed.len(), 3);

    let one = |address, length, flags, next| chain(&[descriptor(address, length, flags, next)], 0, BOTH).unwrap_err();
    assert_eq!(one(0x8000, 16, NEXT, 0), Violation::Loop);
    assert_eq!(one(0x8000, 16, NEXT, 8), Violation::Next(8));
    assert_eq!(one(0x8000, 0, 0, 0), Violation::Empty);
    assert_eq!(
        one(0xffff, 2, 0, 0),
        Violation::BufferOutside {
            address: 0xffff,
            length: 2
        }
    );
    assert_eq!(
        one(u64::MAX, 2, 0, 0),
        Violation::BufferOutside {
            address: u64::MAX,
            length: 2
        },
        "the range wraps"
    );
    assert_eq!(one(0xc000, 0, INDIRECT, 0), Violation::IndirectLength(0));
    assert_eq!(one(0xc000, 17, INDIRECT, 0), Violation::IndirectLength(17));
    assert_eq!(
        one(0xc000, 16 * (MAX_INDIRECT + 1), INDIRECT, 0),
        Violation::IndirectLength(16 * (MAX_INDIRECT + 1))
    );
    assert_eq!(one(0xc004, 32, INDIRECT, 0), Violation::IndirectAlignment(0xc004));
    assert_eq!(one(0xfff8, 32, INDIRECT, 0), Violation::IndirectOutside(0xfff8));
    assert_eq!(one(0xc000, 32, INDIRECT | NEXT, 1), Violation::IndirectNext);
    assert_eq!(one(0xe000, 16, INDIRECT, 0), Violation::IndirectNested);
    assert_eq!(one(0xd000, 16, INDIRECT, 0), Violation::Loop);
    assert_eq!(
        one(0xf000, 16, INDIRECT, 0),
        Violation::Next(5),
        "outside its own table, inside the other"
    );
    let none = Features { indirect: false, ..BOTH };
    assert_eq!(
        chain(&[descriptor(0xc000, 32, INDIRECT, 0)], 0, none),
        Err(Violation::IndirectNotNegotiated)
    );
    let back = [descriptor(0x8000, 4, WRITE | NEXT, 1), descriptor(0x8000, 4, 0, 0)];
    assert_eq!(chain(&back, 0, BOTH), Err(Violation::Order));
}

#[test]
fn a_chain_of_4_gib_is_refused() {
    /// A guest with so much RAM, of which nothing is there but the table.
    struct Large(Vec<[u8; 16]>);
    impl GuestMemory for Large {
        fn contains(&self, address: u64, length: u64) -> bool {
            address.checked_add(length).is_some_and(|end| end <= 8 << 30)
        }
        fn read_u16(&self, _: u64) -> Option<u16> {
            Some(0)
        }
        fn read_u64(&self, address: u64) -> Option<u64> {
            let bytes = self.0.get((address.checked_sub(0x1000)? / 16) as usize)?;
            let half = &bytes[(address % 16) as usize..][..8];
            Some(u64::from_le_bytes(half.try_into().unwrap()))
        }
        fn write_u16(&self, _: u64, _: u16) -> Option<()> {
            Some(())
        }
        fn write_pair(&self, _: u64, _: u32, _: u32) -> Option<()> {
            Some(())
        }
    }
    let memory = Large(vec![descriptor(0, u32::MAX, NEXT, 1), descriptor(0, 1, 0, 0)]);
    let queue = Queue::new(layout(8), BOTH, &memory, &Record::new()).unwrap();
    let all: Result<Vec<_>, _> = queue.chain(&memory, 0).collect();
    assert_eq!(all, Err(Violation::TotalLength));
}

#[test]
fn each_rule_of_a_layout() {
    let ram = quiet(0x1_0000);
    let with = |change: fn(&mut Layout)| {
        let mut place = layout(8);
        change(&mut place);
        Queue::new(place, BOTH, &ram, &Record::new()).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(|it| it.size = 0), Violation::Size(0));
    assert_eq!(with(|it| it.size = 7), Violation::Size(7));
    assert_eq!(with(|it| it.size = 1024), Violation::Size(1024));
    assert_eq!(with(|it| it.descriptors += 8), Violation::Alignment(Area::Descriptors, 0x1008));
    assert_eq!(with(|it| it.available += 1), Violation::Alignment(Area::Available, 0x3001));
    assert_eq!(with(|it| it.used += 2), Violation::Alignment(Area::Used, 0x4002));
    assert_eq!(with(|it| it.descriptors = 0xff90), Violation::Outside(Area::Descriptors, 0xff90));
    assert_eq!(
        with(|it| it.available = u64::MAX - 1),
        Violation::Outside(Area::Available, u64::MAX - 1)
    );
    assert_eq!(with(|it| it.used = 1 << 63), Violation::Outside(Area::Used, 1 << 63));
}

#[test]
fn each_rule_of_the_available_ring() {
    let ram = quiet(0x1_0000);
    let fresh = |index: u16, heads: [u16; 2]| {
        let record = Record::new();
        let mut queue = Queue::new(layout(8), BOTH, &ram, &record).unwrap();
        ram.put(0x3002, &index.to_le_bytes());
        ram.put(0x3004, &heads[0].to_le_bytes());
        ram.put(0x3006, &heads[1].to_le_bytes());
        let first = queue.pop(&ram, &record);
        first.and_then(|first| queue.pop(&ram, &record).map(|second| [first, second]))
    };
    assert_eq!(fresh(2, [3, 4]), Ok([Some(3), Some(4)]));
    assert_eq!(fresh(0, [3, 4]), Ok([None, None]));
    assert_eq!(fresh(9, [3, 4]), Err(Violation::AvailableIndex { index: 9, taken: 0 }));
    assert_eq!(
        fresh(u16::MAX, [3, 4]),
        Err(Violation::AvailableIndex { index: u16::MAX, taken: 0 })
    );
    assert_eq!(fresh(2, [8, 4]), Err(Violation::Head(8)));
    assert_eq!(fresh(2, [3, 3]), Err(Violation::HeadInFlight(3)));
}

/// A value that is likely to be near some edge.
fn edge(random: &mut Random, ram: u64) -> u64 {
    match random.below(8) {
        0 => random.next(),
        1 => u64::MAX - random.below(64),
        2 => ram - random.below(64),
        3 => ram + random.below(64),
        4 => random.below(256),
        _ => random.below(ram),
    }
}

fn hostile_descriptor(random: &mut Random, ram: u64, size: u16) -> [u8; 16] {
    if random.below(4) != 0 {
        let flags = if random.below(2) == 0 { WRITE } else { 0 };
        return descriptor(random.below(ram / 2), 1 + random.below(ram / 2) as u32, flags, 0);
    }
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
    let next = match random.below(8) {
        0 => random.next() as u16,
        _ => random.below(u64::from(size)) as u16,
    };
    let address = edge(random, ram) & if random.below(2) == 0 { !15 } else { u64::MAX };
    descriptor(address, length, flags, next)
}

/// A million queues full of chance, half of them changed while they are read. Work is bounded, nothing panics, every buffer that comes out is in RAM.
#[test]
fn a_million_queues() {
    const QUEUES: u64 = 1_000_000;
    const LENGTH: u64 = 0x2000;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut found: HashMap<std::mem::Discriminant<Violation>, u64> = HashMap::new();
    let mut served = 0u64;
    let mut note = |violation: Violation| {
        assert!(!violation.to_string().is_empty());
        *found.entry(discriminant(&violation)).or_default() += 1;
    };
    let changes = Cell::new(false);
    let chance = std::cell::RefCell::new(Random(7));
    let ram = Ram::new(LENGTH as usize, |bytes: &[Cell<u8>]| {
        if changes.get() {
            let mut chance = chance.borrow_mut();
            if chance.below(4) == 0 {
                let at = chance.below(LENGTH) as usize;
                bytes[at].set(chance.next() as u8);
            }
        }
    });
    let record = Record::new();
    for number in 0..QUEUES {
        changes.set(number % 2 == 1);
        let size = 1u16 << random.below(5);
        let mut place = Layout {
            size,
            descriptors: 16 * random.below(64),
            available: 0x800 + 2 * random.below(64),
            used: 0xc00 + 4 * random.below(64),
        };
        if random.below(16) == 0 {
            match random.below(4) {
                0 => place.size = random.next() as u16,
                1 => place.descriptors = edge(&mut random, LENGTH),
                2 => place.available = edge(&mut random, LENGTH),
                _ => place.used = edge(&mut random, LENGTH),
            }
        }
        let features = Features {
            indirect: random.below(4) != 0,
            event_index: random.below(2) == 0,
        };
        record.clear();
        let queue = if random.below(8) == 0 {
            Queue::take_over(place, features, &ram, &record)
        } else {
            Queue::new(place, features, &ram, &record)
        };
        let mut queue = match queue {
            Ok(queue) => queue,
            Err(violation) => {
                note(violation);
                continue;
            }
        };
        for index in 0..u64::from(size) {
            let at = place.descriptors + 16 * index;
            ram.put(at, &hostile_descriptor(&mut random, LENGTH, size));
            let head = if random.below(8) == 0 { random.next() } else { index } as u16;
            ram.put(place.available + 4 + 2 * index, &head.to_le_bytes());
        }
        if random.below(4) == 0 {
            // An indirect table where one of the descriptors may lead.
            for index in 0..8 {
                ram.put(0x1000 + 16 * index, &hostile_descriptor(&mut random, LENGTH, 8));
            }
            ram.put(place.descriptors, &descriptor(0x1000, 128, INDIRECT, 0));
        }
        let ahead = if random.below(16) == 0 {
            random.next()
        } else {
            random.below(u64::from(size) + 1)
        } as u16;
        ram.put(place.available + 2, &ahead.to_le_bytes());
        for _ in 0..random.below(2 * u64::from(size) + 1) {
            let before = ram.reads.get();
            match queue.pop(&ram, &record) {
                Ok(Some(head)) => {
                    let mut bytes = 0u64;
                    let mut failed = None;
                    let mut told = Vec::new();
                    for segment in queue.chain(&ram, head) {
                        match segment {
                            Ok(segment) => {
                                assert!(segment.length > 0 && ram.contains(segment.address, segment.length.into()));
                                bytes += u64::from(segment.length);
                                told.push(segment);
                            }
                            Err(violation) => failed = Some(violation),
                        }
                    }
                    assert!(bytes <= u64::from(u32::MAX));
                    // Index, head, and two for each descriptor of both tables.
                    let most = 2 + 2 * (u64::from(size) + u64::from(MAX_INDIRECT));
                    assert!(ram.reads.get() - before <= most, "unbounded work");
                    let mut plain = Vec::new();
                    let before = ram.reads.get();
                    let whole = queue.plain_chain(&ram, head, |segment| {
                        assert!(ram.contains(segment.address, segment.length.into()));
                        plain.push(segment);
                        true
                    });
                    assert!(ram.reads.get() - before <= 2 * u64::from(size), "unbounded work");
                    if !changes.get() {
                        assert!(
                            !whole || failed.is_none() && plain == told,
                            "the short way takes what the long one refuses, or something else"
                        );
                        assert!(
                            whole || failed.is_some() || features.indirect,
                            "the short way refuses what the long one takes"
                        );
                    }
                    if let Some(violation) = failed {
                        note(violation);
                        break;
                    }
                    if random.below(4) != 0 {
                        queue.push(&ram, &record, head, bytes as u32).unwrap();
                        queue.needs_interrupt(&ram);
                    }
                    served += 1;
                }
                Ok(None) => {
                    let _ = queue.enable_notifications(&ram);
                }
                Err(violation) => {
                    note(violation);
                    break;
                }
            }
        }
        assert!(record.in_flight() <= usize::from(size));
    }
    // Otherwise the queues were not hostile, or not good, enough to say anything.
    assert!(served > QUEUES / 10, "{served}");
    assert!(found.len() >= 17, "{} rules were broken", found.len());
}
