//! Whatever is mapped, unmapped, attached and detached: a function reaches what its owner has, at once and no longer, on units that remember.

mod model;

use model::{Machine, Outcome};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tessera_iommu::{Error, FaultKind, Hardware, Iommu, Kind, Route, Source};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Ranges that do not overlap; some are neighbours, some need pages of all sizes.
const RANGES: [(u64, u64); 8] = [
    (0x1000, 0x1000),
    (0x2000, 0x3000),
    (2 * MIB, 2 * MIB),
    (4 * MIB - 0x1000 + MIB, 6 * MIB + 0x2000),
    (64 * MIB, 64 * MIB),
    (GIB, GIB),
    (2 * GIB, GIB + 2 * MIB + 0x1000),
    (300 * GIB, 0x5000),
];

#[derive(Clone, Debug)]
enum Step {
    Attach(usize, u16),
    Map(usize, usize),
    Unmap(usize, usize),
    Detach(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (owner, range) = (0..3usize, 0..RANGES.len());
    prop_oneof![
        2 => (owner.clone(), 0..5u16).prop_map(|(owner, source)| Step::Attach(owner, source)),
        4 => (owner.clone(), range.clone()).prop_map(|(owner, range)| Step::Map(owner, range)),
        3 => (owner.clone(), range).prop_map(|(owner, range)| Step::Unmap(owner, range)),
        1 => owner.prop_map(Step::Detach),
    ]
}

/// Functions on three buses.
fn source(number: u16) -> Source {
    Source::new(
        0,
        [0, 0, 3, 0xff, 0][usize::from(number)],
        [1, 31, 0, 2, 1][usize::from(number)],
        number as u8,
    )
}

fn kinds() -> impl Strategy<Value = (Kind, bool, u8)> {
    (any::<bool>(), any::<bool>(), 3..=4u8).prop_map(|(intel, coherent, levels)| {
        let kind = if intel { Kind::Vtd } else { Kind::Amd };
        (kind, coherent, levels)
    })
}

/// What should hold.
#[derive(Default)]
struct Expected {
    owners: BTreeMap<u16, usize>,
    ranges: BTreeSet<(usize, usize)>,
}

impl Expected {
    fn reaches(&self, source: u16, address: u64) -> bool {
        self.owners.get(&source).is_some_and(|owner| {
            let held = self.ranges.iter().filter(|(of, _)| of == owner).map(|(_, range)| RANGES[*range]);
            held.into_iter().any(|(start, length)| (start..start + length).contains(&address))
        })
    }
}

fn check(machine: &mut Machine, iommu: &mut Iommu, expected: &Expected) -> Result<(), TestCaseError> {
    for number in 0..5 {
        for (start, length) in RANGES {
            for address in [start - 1, start, start + length / 2, start + length - 1, start + length] {
                for write in [false, true] {
                    let outcome = machine.access(source(number), address, write);
                    let reaches = expected.reaches(number, address);
                    prop_assert_eq!(outcome == Outcome::Done, reaches, "function {} at {:#x}", number, address);
                    let (faults, lost) = iommu.faults(machine);
                    prop_assert!(!lost);
                    prop_assert_eq!(faults.len(), usize::from(!reaches));
                    for fault in faults {
                        prop_assert_eq!(fault.source, Some(source(number)));
                        prop_assert_eq!(fault.address.map(|address| address >> 12), Some(address >> 12));
                        prop_assert_eq!(fault.kind, if write { FaultKind::Write } else { FaultKind::Read });
                    }
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn functions_reach_what_their_owner_has(
        kind in kinds(),
        displaced in prop::sample::select(&[0, 0x1000, 2 * MIB, GIB, 5 * GIB + 6 * MIB + 0x3000]),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let (kind, coherent, levels) = kind;
        let mut machine = Machine::new(kind, coherent, levels);
        machine.memory.displaced = displaced;
        let description = machine.description();
        let mut iommu = Iommu::start(&mut machine, &description).unwrap();
        let mut expected = Expected::default();
        check(&mut machine, &mut iommu, &expected)?;
        for step in steps {
            match step {
                Step::Attach(owner, number) => {
                    let outcome = iommu.attach(&mut machine, owner, source(number));
                    let known = *expected.owners.entry(number).or_insert(owner);
                    prop_assert_eq!(outcome, if known == owner { Ok(()) } else { Err(Error::Taken) });
                }
                Step::Map(owner, range) => {
                    let (start, length) = RANGES[range];
                    let fresh = expected.ranges.insert((owner, range));
                    let outcome = iommu.map_at(&mut machine, owner, start, start + displaced, length);
                    prop_assert_eq!(outcome, if fresh { Ok(()) } else { Err(Error::Overlap(start)) });
                }
                Step::Unmap(owner, range) => {
                    let (start, length) = RANGES[range];
                    let there = expected.ranges.remove(&(owner, range));
                    let outcome = iommu.unmap(&mut machine, owner, start, length);
                    prop_assert_eq!(outcome, if there { Ok(()) } else { Err(Error::NotMapped(start)) });
                }
                Step::Detach(owner) => {
                    prop_assert_eq!(iommu.detach(&mut machine, owner), Ok(()));
                    expected.owners.retain(|_, of| *of != owner);
                    expected.ranges.retain(|(of, _)| *of != owner);
                }
            }
            check(&mut machine, &mut iommu, &expected)?;
        }
        for owner in 0..3 {
            prop_assert_eq!(iommu.detach(&mut machine, owner), Ok(()));
        }
        prop_assert!(iommu.domains().is_empty());
    }

    /// Where memory ends, nothing is half done and nothing is lost.
    #[test]
    fn memory_that_ends(kind in kinds(), left in 0u64..12, ranges in proptest::collection::vec(0..RANGES.len(), 1..8)) {
        let (kind, coherent, levels) = kind;
        let mut machine = Machine::new(kind, coherent, levels);
        let description = machine.description();
        let mut iommu = Iommu::start(&mut machine, &description).unwrap();
        let before = machine.pages_taken();
        machine.memory.left = left;
        let mut expected = Expected::default();
        let attached = iommu.attach(&mut machine, 0, source(0));
        prop_assert!(matches!(attached, Ok(()) | Err(Error::NoMemory)));
        if attached.is_ok() {
            expected.owners.insert(0, 0);
        }
        for range in ranges {
            let (start, length) = RANGES[range];
            match iommu.map(&mut machine, 0, start, length) {
                Ok(()) => {
                    prop_assert!(expected.ranges.insert((0, range)));
                }
                Err(Error::NoMemory) => {}
                Err(error) => prop_assert!(error == Error::Overlap(start) && expected.ranges.contains(&(0, range))),
            }
        }
        check(&mut machine, &mut iommu, &expected)?;
        machine.memory.left = 100;
        prop_assert_eq!(iommu.detach(&mut machine, 0), Ok(()));
        check(&mut machine, &mut iommu, &Expected::default())?;
        // A context table of VT-d stays.
        prop_assert!(machine.pages_taken() <= before + 1);
    }
}

fn started(kind: Kind) -> (Machine, Iommu) {
    let mut machine = Machine::new(kind, true, 4);
    let description = machine.description();
    let iommu = Iommu::start(&mut machine, &description).unwrap();
    (machine, iommu)
}

#[test]
fn a_unit_that_does_not_answer_is_no_success() {
    for kind in [Kind::Vtd, Kind::Amd] {
        let (mut machine, mut iommu) = started(kind);
        iommu.attach(&mut machine, 7, source(0)).unwrap();
        iommu.map(&mut machine, 7, 0x1000, 0x1000).unwrap();
        let taken = machine.pages_taken();
        machine.silent = true;
        assert_eq!(iommu.unmap(&mut machine, 7, 0x1000, 0x1000), Err(Error::Silent(0)));
        assert_eq!(iommu.detach(&mut machine, 7), Err(Error::Silent(0)));
        // It may still walk the tables.
        assert_eq!(machine.pages_taken(), taken);
    }
}

#[test]
fn ranges_that_make_no_sense() {
    for kind in [Kind::Vtd, Kind::Amd] {
        let (mut machine, mut iommu) = started(kind);
        iommu.attach(&mut machine, 0, source(0)).unwrap();
        for (start, length, error) in [
            (0x1000, 0, Error::BadRange),
            (0x1001, 0x1000, Error::BadRange),
            (0x1000, 0x1001, Error::BadRange),
            (1 << 48, 0x1000, Error::OutOfReach((1 << 48) + 0xfff)),
            (u64::MAX - 0xfff, 0x1000, Error::OutOfReach(u64::MAX - 0xfff)),
        ] {
            assert_eq!(iommu.map(&mut machine, 0, start, length), Err(error));
        }
        for physical in [0x1001, 1 << 52, u64::MAX - 0xfff] {
            assert_eq!(iommu.map_at(&mut machine, 0, 0x1000, physical, 0x1000), Err(Error::BadRange));
        }
        iommu.map(&mut machine, 0, 2 * MIB, 2 * MIB).unwrap();
        assert_eq!(iommu.map(&mut machine, 0, 3 * MIB, 0x1000), Err(Error::Overlap(3 * MIB)));
        assert_eq!(iommu.unmap(&mut machine, 0, 2 * MIB, 0x1000), Err(Error::NotMapped(2 * MIB)));
        assert_eq!(machine.access(source(0), 3 * MIB, true), Outcome::Done);
    }
}

#[test]
fn faults_that_were_lost_are_told() {
    for kind in [Kind::Vtd, Kind::Amd] {
        let (mut machine, mut iommu) = started(kind);
        for address in 0..1000 {
            machine.access(source(1), address << 12, true);
        }
        let (faults, lost) = iommu.faults(&mut machine);
        assert!(lost && !faults.is_empty());
        // And it goes on recording.
        machine.access(source(2), 0x5000, false);
        let (faults, lost) = iommu.faults(&mut machine);
        assert_eq!((faults.len(), lost), (1, false));
        assert_eq!((faults[0].source, faults[0].kind), (Some(source(2)), FaultKind::Read));
    }
}

#[test]
fn a_unit_without_what_is_needed_is_refused() {
    // Registers that are all ones, or all zeros.
    for value in [0, u32::MAX] {
        struct Dead(u32);
        impl Hardware for Dead {
            fn take(&mut self, _: u32) -> Option<u64> {
                Some(0x1000)
            }
            fn give(&mut self, _: u64) {}
            fn load(&self, _: u64) -> u64 {
                0
            }
            fn store(&mut self, _: u64, _: u64, _: bool) {}
            fn read(&self, _: usize, _: u64) -> u32 {
                self.0
            }
            fn write(&mut self, _: usize, _: u64, _: u32) {}
        }
        for kind in [Kind::Vtd, Kind::Amd] {
            let description = Machine::new(kind, true, 4).description();
            assert!(matches!(Iommu::start(&mut Dead(value), &description), Err(Error::Silent(0))));
        }
    }
}

#[test]
fn interrupts_are_whose_they_are() {
    for levels in [3, 4] {
        let mut machine = Machine::new(Kind::Vtd, true, levels);
        let mut description = machine.description();
        let mut iommu = Iommu::start(&mut machine, &description).unwrap();
        assert!(iommu.remaps_interrupts());
        let (address, data) = iommu.message(0x45, (0xfee0_3000, 0x45));
        // Nothing is let through before it is said, nor remembered.
        assert_eq!(machine.interrupt(source(1), address, data), None);
        let route = |vector, destination, source| Route {
            vector,
            destination,
            level: false,
            source,
        };
        iommu.let_through(&mut machine, &route(0x45, 3, Some(source(1)))).unwrap();
        assert_eq!(machine.interrupt(source(1), address, data), Some((0x45, 3)));
        assert_eq!(machine.interrupt(source(2), address, data), None, "another's");
        assert_eq!(machine.interrupt(source(1), iommu.message(0x46, (0, 0)).0, 0), None, "another");
        assert_eq!(machine.interrupt(source(1), 0xfee0_3000, 0x45), None, "not by the table");
        // All entries of the table, and one behind it.
        assert_eq!(machine.interrupt(source(1), 0xfee0_2010, 0), None);
        let (faults, _) = iommu.faults(&mut machine);
        assert_eq!((faults[0].source, faults[0].kind), (Some(source(1)), FaultKind::Interrupt));
        assert_eq!(faults[0].address, Some(address));
        // To another processor, and by whoever it is.
        iommu.let_through(&mut machine, &route(0x45, 200, None)).unwrap();
        assert_eq!(machine.interrupt(source(2), address, data), Some((0x45, 200)));
        machine.silent = true;
        assert_eq!(iommu.let_through(&mut machine, &route(0x45, 1, None)), Err(Error::Silent(0)));
        // Where the firmware says that the platform cannot, messages go as they are.
        let mut machine = Machine::new(Kind::Vtd, true, levels);
        description.remaps = false;
        let mut iommu = Iommu::start(&mut machine, &description).unwrap();
        assert!(!iommu.remaps_interrupts());
        iommu.let_through(&mut machine, &route(0x45, 3, Some(source(1)))).unwrap();
        assert_eq!(machine.interrupt(source(1), 0xfee0_3000, 0x45), Some((0x45, 3)));
    }
}

#[test]
fn functions_of_amd_have_interrupts_of_their_own() {
    let mut machine = Machine::new(Kind::Amd, true, 4);
    let mut description = machine.description();
    description.controllers = vec![source(3)];
    let mut iommu = Iommu::start(&mut machine, &description).unwrap();
    assert!(iommu.remaps_interrupts());
    let plain = (0xfee0_3000, 0x45);
    assert_eq!(iommu.message(0x45, plain), plain);
    let route = |vector, destination, source| Route {
        vector,
        destination,
        level: false,
        source,
    };
    assert_eq!(machine.interrupt(source(1), plain.0, plain.1), None);
    for (vector, destination) in [(0x45, 3), (0x44, 2), (0x45, 7)] {
        iommu
            .let_through(&mut machine, &route(vector, destination, Some(source(1))))
            .unwrap();
        let message = (0xfee0_0000, u32::from(vector));
        assert_eq!(machine.interrupt(source(1), message.0, message.1), Some((vector, destination)));
        assert_eq!(machine.interrupt(source(2), message.0, message.1), None, "another's");
    }
    assert_eq!(
        machine.interrupt(source(1), 0xfee0_0000, 0x44),
        Some((0x44, 2)),
        "its neighbour stays"
    );
    // Another vector, NMI, INIT, and what is past the table.
    for data in [0x46, 0x445, 0x545, 0x145] {
        assert_eq!(machine.interrupt(source(1), plain.0, data), None);
    }
    // A line.
    iommu.let_through(&mut machine, &route(0x30, 1, None)).unwrap();
    assert_eq!(machine.interrupt(source(3), 0xfee0_0000, 0x30), Some((0x30, 1)));
    assert_eq!(machine.interrupt(source(1), 0xfee0_0000, 0x30), None);
    // It may come into a domain and out of it.
    iommu.attach(&mut machine, 5, source(1)).unwrap();
    iommu.detach(&mut machine, 5).unwrap();
    assert_eq!(machine.interrupt(source(1), 0xfee0_0000, 0x44), Some((0x44, 2)));
    machine.silent = true;
    assert_eq!(
        iommu.let_through(&mut machine, &route(0x45, 1, Some(source(1)))),
        Err(Error::Silent(0))
    );
}
