//! From functions to what a server is given of them.

use super::Devices;
use crate::process::{Granted, Source};
use crate::root::Root;
use alloc::string::ToString;
use alloc::vec::Vec;
use alloc::{format, string::String};
use tessera_abi::PAGE_SIZE;
use tessera_abi::object::Rights;
use tessera_manifest::{PciClass, StartDevice, StartInterrupt, StartRange, slots as fixed};
use tessera_pci::{BarKind, Function};
use tessera_proto::init::Level;

const PAGE: u64 = PAGE_SIZE as u64;
/// Longest range of a register that is given out.
const MAX_RANGE: u64 = 1 << 30;
/// IDE controllers in compatibility mode answer to these instead of what their registers say (PCI IDE Controller Specification 1.0): register, first port, ports.
const LEGACY_IDE: [(u8, u16, u64); 4] = [(0, 0x1f0, 8), (1, 0x3f6, 1), (2, 0x170, 8), (3, 0x376, 1)];
/// And raise these lines.
const LEGACY_IDE_LINES: [u32; 2] = [14, 15];

/// Part of a range: start and length in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: u64,
    length: u64,
}

/// What of a range of memory a server may have: all of it but the pages with the table of messages, which are init's to write.
fn parts(function: &Function, bar: u8, length: u64) -> Vec<Part> {
    let Some(msix) = function.msix.filter(|msix| msix.table_bar == bar) else {
        return alloc::vec![Part { start: 0, length }];
    };
    let start = u64::from(msix.table_offset) / PAGE * PAGE;
    let end = (u64::from(msix.table_offset) + msix.table_length()).next_multiple_of(PAGE);
    let below = Part {
        start: 0,
        length: start.min(length),
    };
    let above = Part {
        start: end,
        length: length.saturating_sub(end),
    };
    [below, above].into_iter().filter(|part| part.length > 0).collect()
}

impl Devices {
    /// Whether a function that another server could hold answers on one of these pages too.
    fn shared(&self, index: usize, first: u64, end: u64) -> bool {
        let entry = &self.entries[index];
        let class = entry.function.class.base;
        self.touches(first, end, |other, function| {
            other != index && (function.class.base != class || self.entries[other].reserved != entry.reserved)
        })
    }

    /// Whether any other function answers on one of these pages.
    #[must_use]
    pub fn touched_by_others(&self, index: usize, first: u64, end: u64) -> bool {
        self.touches(first, end, |other, _| other != index)
    }

    fn touches(&self, first: u64, end: u64, counts: impl Fn(usize, &Function) -> bool) -> bool {
        let counted = self
            .entries
            .iter()
            .enumerate()
            .filter(|(index, entry)| counts(*index, &entry.function));
        counted.flat_map(|(_, entry)| &entry.function.bars).any(|bar| {
            let memory = bar.kind != BarKind::Ports && bar.address != 0;
            memory && bar.address / PAGE * PAGE < end && first < (bar.address + bar.length).next_multiple_of(PAGE)
        })
    }
}

impl Root {
    /// Gives a server all functions of a class that nobody holds. What of a function cannot be given is left out, and the log says so.
    pub fn resolve_pci(&mut self, name: &str, class: PciClass, server: usize, granted: &mut Vec<Granted>, devices: &mut Vec<StartDevice>) {
        let wanted = |root: &Self, index: usize| {
            let entry = &root.devices.entries[index];
            entry.function.class.base == class.base() && !entry.reserved && entry.holder.is_none_or(|holder| holder == server)
        };
        for index in 0..self.devices.entries.len() {
            if wanted(self, index) {
                let device = self.give(name, index, server, granted);
                devices.push(device);
            }
        }
    }

    fn give(&mut self, name: &str, index: usize, server: usize, granted: &mut Vec<Granted>) -> StartDevice {
        self.devices.entries[index].holder = Some(server);
        self.devices.entries[index].passed = false;
        let function = self.devices.entries[index].function.clone();
        self.confine(server, function.address);
        let mut device = StartDevice {
            grant: name.to_string(),
            address: function.address.to_string(),
            ..StartDevice::default()
        };
        let legacy = function.class.base == 1 && function.class.sub == 1 && function.class.interface & 5 == 0;
        let cpu = self.servers[server].cpu;
        self.route_messages(index, cpu);
        let messages = self.devices.wake(index, &self.machine);
        for bar in function.bars.iter().filter(|bar| !legacy || bar.index > 3) {
            let trouble = match bar.kind {
                _ if bar.address == 0 => Some("has no address"),
                BarKind::Ports => {
                    add_ports(bar.index, bar.address as u16, bar.length, &mut device, granted);
                    None
                }
                BarKind::Memory { .. } => self.give_memory(index, bar.index, bar.address, bar.length, &mut device, granted),
            };
            if let Some(trouble) = trouble {
                let text = format!(
                    "PCI function {}: range {} {trouble} and is not given out",
                    function.address, bar.index
                );
                self.say(Level::Warn, &text);
            }
        }
        if legacy {
            for (bar, first, count) in LEGACY_IDE {
                add_ports(bar, first, count, &mut device, granted);
            }
        }
        let irq = |slot: u32| Source::Copy {
            slot,
            rights: Rights::READ | Rights::WRITE,
            badge: 0,
        };
        for slot in messages {
            device.interrupts.push(StartInterrupt {
                slot: next_slot(granted),
                message: true,
            });
            add(granted, part_name(&device, "irq"), irq(slot), 0);
        }
        for line in LEGACY_IDE_LINES.into_iter().filter(|_| legacy) {
            match self.line(line) {
                Ok(slot) => {
                    device.interrupts.push(StartInterrupt {
                        slot: next_slot(granted),
                        message: false,
                    });
                    add(granted, part_name(&device, "irq"), irq(slot), 0);
                }
                Err(failure) => self.say(Level::Warn, &format!("PCI function {}: {failure}", function.address)),
            }
        }
        device.configuration = self.devices.snapshot(index);
        device
    }

    /// Gives a range of memory; answers why not.
    pub(crate) fn give_memory(
        &self,
        index: usize,
        bar: u8,
        address: u64,
        length: u64,
        device: &mut StartDevice,
        granted: &mut Vec<Granted>,
    ) -> Option<&'static str> {
        if length > MAX_RANGE {
            return Some("is too long");
        }
        for part in parts(&self.devices.entries[index].function, bar, length) {
            let first = (address + part.start) / PAGE * PAGE;
            let end = (address + part.start + part.length).next_multiple_of(PAGE);
            if self.devices.shared(index, first, end) {
                return Some("shares a page with another class's function");
            }
            let Some((untyped, offset)) = self.machine.device(first, end - first) else {
                return Some("is not all device memory");
            };
            device.ranges.push(StartRange {
                bar,
                slot: next_slot(granted),
                ports: false,
                start: part.start,
                length: part.length,
                offset: (address + part.start) % PAGE,
            });
            let source = Source::Device {
                untyped,
                offset,
                pages: (end - first) / PAGE,
            };
            add(granted, part_name(device, "memory"), source, end - first);
        }
        None
    }
}

pub(crate) fn next_slot(granted: &[Granted]) -> u32 {
    fixed::GRANTS + granted.len() as u32
}

fn part_name(device: &StartDevice, what: &str) -> String {
    format!("{} {what}", device.address)
}

fn add(granted: &mut Vec<Granted>, name: String, source: Source, length: u64) {
    granted.push(Granted {
        name,
        source,
        length,
        large: false,
    });
}

fn add_ports(bar: u8, first: u16, count: u64, device: &mut StartDevice, granted: &mut Vec<Granted>) {
    let count = count.min(0x1_0000 - u64::from(first));
    device.ranges.push(StartRange {
        bar,
        slot: next_slot(granted),
        ports: true,
        start: first.into(),
        length: count,
        offset: 0,
    });
    let source = Source::Ports {
        first,
        count: count as u32,
    };
    add(granted, part_name(device, "ports"), source, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tessera_pci::{Address, Class, Header, Msix};

    fn function(bar: u8, table_offset: u32, vectors: u16) -> Function {
        Function {
            address: Address::default(),
            vendor: 1,
            device: 2,
            subsystem: (0, 0),
            class: Class::default(),
            revision: 0,
            header: Header::Device,
            bars: Vec::new(),
            capabilities: Vec::new(),
            line: 0,
            pin: 0,
            msi: None,
            msix: Some(Msix {
                offset: 0x40,
                vectors,
                table_bar: bar,
                table_offset,
                pending_bar: bar,
                pending_offset: 0,
            }),
        }
    }

    proptest! {
        /// No page with the table is given out; every other is.
        #[test]
        fn the_table_stays_with_init(table in 0u32..0x8000, vectors in 1u16..=2048, length in (12u32..18).prop_map(|power| 1u64 << power)) {
            let function = function(0, table & !7, vectors);
            let given = parts(&function, 0, length);
            let (start, end) = (u64::from(table & !7), u64::from(table & !7) + u64::from(vectors) * 16);
            for page in (0..length).step_by(PAGE as usize) {
                let holds_table = page < end && start < page + PAGE;
                let is_given = given.iter().any(|part| part.start <= page && page < part.start + part.length);
                prop_assert_eq!(is_given, !holds_table);
            }
            let whole = Part { start: 0, length };
            prop_assert_eq!(parts(&function, 1, length), [whole]);
        }
    }
}
