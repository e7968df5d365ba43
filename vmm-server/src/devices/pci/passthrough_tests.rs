//! Tests of functions of the host on the guest's bus.

use super::*;
use crate::apic::routing::tests::Kicks;
use proptest::prelude::*;
use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec;
use std::vec::Vec;

/// Notes what is asked of the outside.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn take(&self) -> Vec<String> {
        core::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Backing for Notes {
    fn place(&mut self, bar: u8, address: Option<u32>) {
        self.0.lock().unwrap().push(match address {
            Some(address) => std::format!("{bar} at {address:x}"),
            None => std::format!("{bar} gone"),
        });
    }
    fn bus_master(&mut self, may: bool) {
        self.0.lock().unwrap().push(std::format!("master {may}"));
    }
    fn point(&mut self, vector: u16, vcpu: usize) {
        self.0.lock().unwrap().push(std::format!("{vector} to {vcpu}"));
    }
}

/// An NVMe controller as QEMU has it: 16 KiB, table at 0x2000, pending bits at 0x3000; and a second range. Capabilities: MSI-X, power management, a vendor's, PCI Express.
fn nvme() -> Description {
    let mut words = [0_u32; 64];
    words[0] = 0x0010_1b36;
    words[1] = 0x0010_0406;
    words[2] = 0x0108_0202;
    words[4] = 0xfebd_4004;
    words[5] = 8;
    words[0xb] = 0x1100_1af4;
    words[0xd] = 0x40;
    words[0xf] = 0x010b;
    words[0x10..0x13].copy_from_slice(&[0x0040_6011, 0x2000, 0x3000]);
    words[0x18] = 0x0003_8001;
    words[0x20..0x22].copy_from_slice(&[0x0008_9009, 0x1234_5678]);
    words[0x24] = 0x0002_0010;
    Description {
        configuration: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        ranges: vec![(0, 0x4000), (2, 0x100)],
        vectors: 3,
    }
}

fn function(description: &Description) -> (Passthrough, Interrupts<Kicks>, Notes) {
    let notes = Notes::default();
    let mut address = Passthrough::first_address();
    let function = Passthrough::new(25, 61, &mut address, description, Box::new(notes.clone())).unwrap();
    assert_eq!(address, 0xe000_5000);
    (function, Interrupts::new(2, Kicks::default()), notes)
}

/// Writes all of a register.
fn set(function: &mut Passthrough, register: usize, value: u32, to: &Interrupts<Kicks>) {
    function.config_write(register, u32::MAX, value, to);
}

fn program(function: &mut Passthrough, entry: u64, words: [u32; 4], to: &Interrupts<Kicks>) {
    for (word, value) in (0..).zip(words) {
        assert!(function.range_write(0xe000_2000 + entry * 16 + word * 4, 4, value.into(), to));
    }
}

#[test]
fn the_guest_sees_what_is_safe() {
    let (function, ..) = function(&nvme());
    assert_eq!(function.config_read(0), 0x0010_1b36);
    assert_eq!(function.config_read(2), 0x0108_0202);
    assert_eq!(function.config_read(0xb), 0x1100_1af4);
    assert_eq!(function.config_read(0xf) >> 8, 0, "no line");
    assert_eq!((function.config_read(4), function.config_read(5)), (0xe000_0000, 0), "32 bits");
    assert_eq!(function.config_read(6), 0xe000_4000);
    let mut kinds = Vec::new();
    let mut next = function.config_read(0xd) as usize & 0xff;
    while next != 0 {
        let head = function.config_read(next / 4);
        kinds.push(head as u8);
        if head as u8 == msix::CAPABILITY {
            assert_eq!(head >> 16, 2, "three vectors");
            assert_eq!(
                (function.config_read(next / 4 + 1), function.config_read(next / 4 + 2)),
                (0x2000, 0x3000)
            );
        }
        next = (head >> 8) as usize & 0xff;
    }
    assert_eq!(kinds, [VENDOR_CAPABILITY, msix::CAPABILITY]);
    let areas = hidden(&nvme());
    assert_eq!(
        areas.iter().map(Area::pages).collect::<Vec<_>>(),
        [(0x2000, 0x3000), (0x3000, 0x4000)]
    );
}

#[test]
fn ranges_follow_the_guest_and_never_reach_ram() {
    let (mut function, to, notes) = function(&nvme());
    set(&mut function, 1, 2, &to);
    assert_eq!(notes.take(), ["0 at e0000000", "2 at e0004000"]);
    // They change places.
    set(&mut function, 4, 0xe000_8000, &to);
    assert_eq!(notes.take(), ["0 gone", "0 at e0008000"]);
    for outside in [0, 0x1000_0000, 0xbfff_c000, 0xfec0_0000, 0xffff_c000] {
        set(&mut function, 4, outside, &to);
        let seen = notes.take();
        assert!(seen.iter().all(|note| note == "0 gone"), "{outside:x}: {seen:?}");
    }
    set(&mut function, 4, 0xc000_0000, &to);
    set(&mut function, 1, 6, &to);
    assert_eq!(notes.take(), ["0 at c0000000", "master true"]);
    function.reset();
    assert_eq!(notes.take(), ["master false", "0 gone", "2 gone"]);
    assert_eq!(function.config_read(4), 0xe000_0000);
}

#[test]
fn interrupts_go_where_the_table_says() {
    let (mut function, to, notes) = function(&nvme());
    set(&mut function, 1, 2, &to);
    notes.take();
    let control = function.msix_register;
    program(&mut function, 1, [0xfee0_1000, 0, 0x61, 0], &to);
    assert!(notes.take().is_empty(), "not in use yet");
    set(&mut function, control, 0x8000_0000, &to);
    assert_eq!(notes.take(), ["1 to 1"]);
    assert_eq!(to.inbox(1).routes()[62], 0x61);
    assert_eq!(function.range_read(0xe000_2018, 4), Some(0x61));
    // Another processor.
    program(&mut function, 1, [0xfee0_0000, 0, 0x62, 0], &to);
    assert_eq!(notes.take(), ["1 to 0"]);
    assert_eq!((to.inbox(1).routes()[62], to.inbox(0).routes()[62]), (0, 0x62));
    // Masked: the model keeps it.
    program(&mut function, 1, [0xfee0_0000, 0, 0x62, 1], &to);
    assert_eq!(to.inbox(0).routes()[62], 0);
    let _ = to.inbox(0).take_events();
    function.interrupt(function.vector_of(62).unwrap(), &to, None);
    assert_eq!(function.range_read(0xe000_3000, 8), Some(2));
    program(&mut function, 1, [0xfee0_0000, 0, 0x62, 0], &to);
    assert_eq!(function.range_read(0xe000_3000, 8), Some(0), "delivered");
    assert_eq!((function.vector_of(60), function.vector_of(64)), (None, None));
    // Beside the tables there is nothing, and entries that the host has no interrupt for are none.
    assert_eq!(function.range_read(0xe000_2800, 4), Some(0));
    program(&mut function, 3, [u32::MAX; 4], &to);
    assert_eq!(function.range_read(0xe000_2030, 8), Some(0));
    assert_eq!(function.range_read(0xe000_5000, 4), None);
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |change: &dyn Fn(&mut Description)| {
        let mut description = nvme();
        change(&mut description);
        let mut address = Passthrough::first_address();
        Passthrough::new(25, 61, &mut address, &description, Box::new(Notes::default())).err()
    };
    assert_eq!(refused(&|_| ()), None);
    assert_eq!(refused(&|given| given.configuration[0x40] = 5), Some("it has no table of messages"));
    assert_eq!(
        refused(&|given| given.configuration.truncate(16)),
        Some("it has no table of messages")
    );
    assert_eq!(refused(&|given| given.vectors = 0), Some("the host has no interrupt for it"));
    assert_eq!(refused(&|given| given.ranges[0].1 = 1 << 31), Some("a range is too long"));
    let far = Some("its ranges do not fit below 4 GiB");
    assert_eq!(refused(&|given| given.ranges = vec![(0, 1 << 29), (1, 1 << 29)]), far);
    assert_eq!(refused(&|given| given.ranges[1].0 = 6), far);
    assert_eq!(refused(&|given| given.ranges[1].0 = 0), far);
    assert!(refused(&|given| given.configuration[0x82] = 0xff).is_some());
}

proptest! {
    #[test]
    fn survives_anything(
        configuration in prop::collection::vec(any::<u8>(), 0..300),
        listed: bool,
        operations in prop::collection::vec((0u8..6, any::<u32>(), prop::sample::select(&[1u8, 2, 4, 8]), any::<u64>()), 1..200),
    ) {
        let mut description = nvme();
        if !listed {
            description.configuration = configuration;
        }
        let (mut address, notes) = (Passthrough::first_address(), Notes::default());
        let to = Interrupts::new(2, Kicks::default());
        let made = Passthrough::new(25, 61, &mut address, &description, Box::new(notes.clone()));
        let Ok(mut function) = made else { return Ok(()) };
        set(&mut function, 1, 2, &to);
        for (kind, place, width, value) in operations {
            let inside = 0xe000_0000 + u64::from(place % 0x6000);
            match kind {
                0 => function.config_write(place as usize % 64, value as u32, (value >> 32) as u32, &to),
                1 => { function.range_write(inside, width, value, &to); }
                2 => { let _ = function.range_read(inside, width); }
                3 => function.interrupt(place as u16 % 5, &to, None),
                4 => { function.range_write(0xe000_2000 + u64::from(place % 0x40), width, value, &to); }
                _ => if place % 16 == 0 { function.reset() },
            }
        }
        for note in notes.take() {
            if let Some((_, address)) = note.split_once(" at ") {
                let address = u64::from_str_radix(address, 16).unwrap();
                prop_assert!((layout::DEVICES..LAST_ADDRESS).contains(&address));
            }
        }
    }
}
