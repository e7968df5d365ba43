//! Configuration space in memory, for tests: functions whose registers behave, and such that hold anything.

use crate::{Address, ConfigSpace, bar, capability, enumerate, register};
use core::cell::RefCell;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// One function: values, and which bits of them can be written.
#[derive(Clone)]
pub struct Registers {
    pub values: [u32; 64],
    pub writable: [u32; 64],
}

#[derive(Default)]
pub struct Space {
    pub functions: RefCell<BTreeMap<Address, Registers>>,
}

impl ConfigSpace for Space {
    fn read(&self, address: Address, offset: u16) -> u32 {
        let functions = self.functions.borrow();
        functions
            .get(&address)
            .map_or(u32::MAX, |one| one.values.get(usize::from(offset / 4)).copied().unwrap_or(u32::MAX))
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        if let Some(one) = self.functions.borrow_mut().get_mut(&address)
            && let (Some(old), Some(mask)) = (
                one.values.get_mut(usize::from(offset / 4)),
                one.writable.get(usize::from(offset / 4)),
            )
        {
            *old = *old & !mask | value & mask;
        }
    }

    fn buses(&self) -> (u16, RangeInclusive<u8>) {
        (0, 0..=255)
    }
}

fn at(bus: u8, device: u8, function: u8) -> Address {
    Address {
        segment: 0,
        bus,
        device,
        function,
    }
}

fn function(identity: u32, class: u32, header: u8) -> Registers {
    let mut one = Registers {
        values: [0; 64],
        writable: [0; 64],
    };
    one.values[0] = identity;
    one.values[1] = 0x0010_0007;
    one.writable[1] = 0xffff;
    one.values[2] = class;
    one.values[3] = u32::from(header) << 16;
    one
}

/// A bridge to bus 1, there an NVMe controller with 16 KiB of registers, MSI-X and MSI.
fn machine() -> Space {
    let space = Space::default();
    let mut bridge = function(0x0001_1b36, 0x0604_0000, 1);
    bridge.values[6] = 0x0001_0100;
    let mut nvme = function(0x0010_1b36, 0x0108_0202, 0);
    nvme.values[4..6].copy_from_slice(&[0xfe00_0004, 0]);
    nvme.writable[4..6].copy_from_slice(&[0xffff_c000, u32::MAX]);
    nvme.values[6] = 0xc001;
    nvme.writable[6] = 0xffe0;
    nvme.values[13] = 0x40;
    nvme.values[16..19].copy_from_slice(&[0x0040_5011, 0x2000, 0x3000]);
    nvme.values[20..24].copy_from_slice(&[0x0080_0005, 0, 0, 0]);
    nvme.writable[20..24].copy_from_slice(&[0xffff_0000, u32::MAX, u32::MAX, u32::MAX]);
    space.functions.borrow_mut().extend([(at(0, 2, 0), bridge), (at(1, 0, 0), nvme)]);
    space
}

#[test]
fn a_function_behind_a_bridge_is_found_and_measured() {
    let space = machine();
    let found = enumerate(&space);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].header, enumerate::Header::Bridge { secondary: 1, last: 1 });
    let nvme = &found[1];
    assert_eq!(
        (nvme.address, nvme.class.base, nvme.class.sub, nvme.class.interface),
        (at(1, 0, 0), 1, 8, 2)
    );
    let [memory, ports] = nvme.bars[..] else {
        panic!("{:?}", nvme.bars)
    };
    let kind = bar::BarKind::Memory { prefetchable: false };
    assert_eq!(
        (memory.index, memory.kind, memory.address, memory.length),
        (0, kind, 0xfe00_0000, 0x4000)
    );
    assert_eq!(
        (ports.index, ports.kind, ports.address, ports.length),
        (2, bar::BarKind::Ports, 0xc000, 0x20)
    );
    let msix = nvme.msix.unwrap();
    assert_eq!(
        (msix.vectors, msix.table_bar, msix.table_offset, msix.pending_offset),
        (65, 0, 0x2000, 0x3000)
    );
    // What was there before is there again, but for the right to access memory.
    assert_eq!(space.read(nvme.address, register::BAR), 0xfe00_0004);
    assert_eq!(space.read(nvme.address, register::COMMAND), 0x0010_0003);
    nvme.msi.unwrap().enable(&space, nvme.address, 0xfee0_1000, 0x41);
    let words: Vec<u32> = (0..4).map(|word| space.read(nvme.address, 0x50 + 4 * word)).collect();
    assert_eq!(words, [0x0081_0005, 0xfee0_1000, 0, 0x41]);
}

#[test]
fn a_slot_is_asked_once_and_switched_off() {
    let space = machine();
    let port = at(0, 2, 0);
    {
        let mut functions = space.functions.borrow_mut();
        let bridge = functions.get_mut(&port).unwrap();
        bridge.values[13] = 0x40;
        bridge.values[16] = 0x0142_0010;
        bridge.values[21] = 0x40;
        bridge.values[22] = 0x0001_0100;
        bridge.writable[22] = 0xffff;
    }
    let slot = capability::Slot::read(&space, port, &enumerate(&space)[0].capabilities).unwrap();
    assert!(slot.is_asked_for(&space, port));
    slot.power_off(&space, port);
    assert_eq!(space.read(port, 0x58) & 0xffff, 0x0700);
    space.functions.borrow_mut().get_mut(&port).unwrap().values[21] = 0;
    assert_eq!(capability::Slot::read(&space, port, &enumerate(&space)[0].capabilities), None);
}

#[test]
fn lists_in_a_circle_end() {
    let space = machine();
    space.functions.borrow_mut().get_mut(&at(1, 0, 0)).unwrap().values[20] = 0x0080_4005;
    assert_eq!(capability::list(&space, at(1, 0, 0)).len(), 2);
    // A bridge to its own bus.
    space.functions.borrow_mut().get_mut(&at(0, 2, 0)).unwrap().values[6] = 0x0000_0000;
    assert_eq!(enumerate(&space).len(), 1);
}

proptest! {
    #[test]
    fn registers_that_hold_anything(
        values in proptest::collection::vec(any::<[u32; 16]>(), 4),
        writable in proptest::collection::vec(prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)], 64),
        header: u8,
    ) {
        let mut one = Registers { values: [0; 64], writable: [0; 64] };
        one.values.copy_from_slice(&values.concat());
        one.writable.copy_from_slice(&writable);
        one.values[3] = u32::from(header) << 16;
        let space = Space::default();
        space.functions.borrow_mut().insert(at(0, 0, 0), one);
        for function in enumerate(&space) {
            for bar in &function.bars {
                prop_assert!(bar.length.is_power_of_two() && bar.index < 6);
            }
            prop_assert!(function.capabilities.len() <= 48);
        }
    }
}
