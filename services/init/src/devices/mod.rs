//! PCI functions: which there are, who holds them, and what of them a server gets. Configuration space, and with it interrupts and the right to access memory, stays here.

mod grant;
mod reset;
mod space;

pub(crate) use grant::next_slot;

use crate::machine::Machine;
use crate::window::Registers;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use space::Space;
pub(crate) use space::Tables;
use tessera_abi::boot::slot;
use tessera_pci::{Address, ConfigSpace, Function, Header, Slot, change_command, command, enumerate, register};
use tessera_proto::supervisor::{PciFunction, PciInterrupts, PciRange};
use tessera_proto::{Failure, FailureKind};
use tessera_rt::{CNode, IrqControl, slots, time};

/// Interrupts that one function gets at most; there are 192 vectors for all.
pub const MAX_INTERRUPTS: u16 = 8;

/// Milliseconds between two looks at slots.
const SLOT_MS: u64 = 500;

/// A function.
#[derive(Debug)]
pub struct Entry {
    /// What it says of itself.
    pub function: Function,
    /// Index of the server that holds it.
    pub holder: Option<usize>,
    /// Index of its segment's way to configuration space.
    space: usize,
    /// Slots of its interrupts by message. init takes them once and keeps them, so that a server that is started again gets the same.
    messages: Vec<u32>,
    /// What it writes to raise each of them: address and data.
    written: Vec<(u64, u32)>,
    /// Its table of messages.
    table: Option<Registers>,
    /// A machine of the manifest has it, or is to have it: no server gets it.
    pub reserved: bool,
    /// A machine has it, or had it last.
    pub passed: bool,
    /// Its reset, while there is one under way.
    reset: Option<reset::Resetting>,
    /// It did not come back from its last reset.
    pub gone: bool,
}

/// All functions.
#[derive(Debug, Default)]
pub struct Devices {
    spaces: Vec<Space>,
    /// In the order of their addresses.
    pub entries: Vec<Entry>,
    /// Ports with slots: index of the way, address, slot.
    slots: Vec<(usize, Address, Slot)>,
    /// When slots are looked at next (TSC).
    slots_due: u64,
}

impl Devices {
    /// Finds them. No function may access memory by itself afterwards.
    #[must_use]
    pub fn find(machine: &Machine) -> Self {
        let spaces = space::find(machine);
        let mut entries = Vec::new();
        for (space, way) in spaces.iter().enumerate() {
            entries.extend(enumerate(way).into_iter().map(|function| Entry {
                function,
                holder: None,
                space,
                messages: Vec::new(),
                written: Vec::new(),
                table: None,
                reserved: false,
                passed: false,
                reset: None,
                gone: false,
            }));
        }
        entries.sort_by_key(|entry| entry.function.address);
        let ports = entries
            .iter()
            .filter(|entry| matches!(entry.function.header, Header::Bridge { .. }));
        let slots = ports.filter_map(|port| {
            let (address, way) = (port.function.address, spaces.get(port.space)?);
            Some((port.space, address, Slot::read(way, address, &port.function.capabilities)?))
        });
        let slots = slots.collect();
        Self {
            spaces,
            entries,
            slots,
            slots_due: 0,
        }
    }

    /// One line for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let way = match self.spaces.first() {
            Some(Space::Ecam { .. }) => "memory",
            _ => "ports",
        };
        format!("PCI: {} functions, configuration through {way}", self.entries.len())
    }

    /// Looks whether somebody asked for what is in a slot, and switches it off then. Servers see their functions vanish, as if they had been pulled out. Answers lines for the log.
    pub fn look_at_slots(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.slots.is_empty() || time::now() < self.slots_due {
            return lines;
        }
        self.slots_due = time::after(time::milliseconds(SLOT_MS));
        for (space, address, slot) in &self.slots {
            if let Some(space) = self.spaces.get(*space)
                && slot.is_asked_for(space, *address)
            {
                slot.power_off(space, *address);
                lines.push(format!(
                    "PCI port {address}: what is in its slot was asked for, and is switched off"
                ));
            }
        }
        lines
    }

    /// When [`Self::look_at_slots`] or [`Self::look_at_resets`] is due next (TSC).
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let slots = (!self.slots.is_empty()).then_some(self.slots_due);
        slots.into_iter().chain(self.reset_deadline()).min()
    }

    /// The functions of a server may not access memory any more and raise no interrupts. Nobody holds them then. Those of a machine begin their reset.
    pub fn release(&mut self, server: usize) {
        for index in 0..self.entries.len() {
            if self.entries[index].holder == Some(server) {
                self.quiet(index);
                self.entries[index].holder = None;
                if self.entries[index].passed {
                    self.begin_reset(index);
                }
            }
        }
    }

    fn quiet(&self, index: usize) {
        let entry = &self.entries[index];
        let Some(space) = self.spaces.get(entry.space) else { return };
        let at = entry.function.address;
        change_command(space, at, command::NO_LINE, command::BUS_MASTER);
        if let Some(msix) = entry.function.msix {
            msix.enable(space, at, false);
        }
        if let Some(msi) = entry.function.msi {
            msi.disable(space, at);
        }
    }

    /// Makes a function answer to its registers, and raise its interrupts as messages if it can: as [`Root::route_messages`] said. Returns the slots of these; it may not access memory yet.
    ///
    /// [`Root::route_messages`]: crate::root::Root::route_messages
    pub(crate) fn wake(&mut self, index: usize, machine: &Machine) -> Vec<u32> {
        self.quiet(index);
        let (msix, msi, at) = {
            let function = &self.entries[index].function;
            (function.msix, function.msi, function.address)
        };
        if self.entries[index].table.is_none()
            && let Some(msix) = msix
        {
            self.entries[index].table = self.map_table(index, machine, msix.table_bar, msix.table_offset, msix.table_length());
        }
        let entry = &self.entries[index];
        let Some(space) = self.spaces.get(entry.space) else {
            return vec![];
        };
        change_command(space, at, command::IO | command::MEMORY | command::NO_LINE, command::BUS_MASTER);
        let messages = &entry.written;
        if let (Some(msix), Some(table)) = (msix, &entry.table)
            && !messages.is_empty()
        {
            for (number, (address, data)) in (0..).zip(messages) {
                let place = number * 16;
                table.write(place, *address as u32);
                table.write(place + 4, (address >> 32) as u32);
                table.write(place + 8, *data);
                table.write(place + 12, 0);
            }
            // What others said of the rest does not count.
            for number in messages.len() as u64..u64::from(msix.vectors) {
                table.write(number * 16 + 12, 1);
            }
            msix.enable(space, at, true);
            return entry.messages.clone();
        }
        if let (Some(msi), Some((address, data))) = (msi, messages.first()) {
            msi.enable(space, at, *address, *data);
            return entry.messages.iter().take(1).copied().collect();
        }
        // What it has is a line, which nobody can tell without interpreting the firmware's code: it has to be polled.
        vec![]
    }

    /// Takes what a function needs to interrupt by messages, if it can; once for all times.
    pub(crate) fn take_messages(&mut self, index: usize, cpu: u32) {
        let function = &self.entries[index].function;
        let wanted = match (function.msix, function.msi) {
            (Some(msix), _) => msix.vectors.min(MAX_INTERRUPTS),
            (None, Some(_)) => 1,
            (None, None) => 0,
        };
        let messages = &mut self.entries[index].messages;
        while messages.len() < usize::from(wanted) {
            let Ok(slot) = slots::take() else { return };
            if IrqControl::new(slot::IRQ_CONTROL).msi(cpu, CNode::OWN, slot).is_err() {
                // All vectors are taken: fewer interrupts will do.
                slots::free(slot);
                return;
            }
            messages.push(slot);
        }
    }

    /// The slots of a function's interrupts by message.
    pub(crate) fn messages(&self, index: usize) -> &[u32] {
        &self.entries[index].messages
    }

    /// Says what a function is to write to raise them.
    pub(crate) fn set_written(&mut self, index: usize, written: Vec<(u64, u32)>) {
        self.entries[index].written = written;
    }

    fn map_table(&self, index: usize, machine: &Machine, bar: u8, offset: u32, length: u64) -> Option<Registers> {
        let bar = self.entries[index].function.bar(bar)?;
        let address = bar.address.checked_add(offset.into()).filter(|_| bar.address != 0)?;
        if u64::from(offset).checked_add(length)? > bar.length {
            return None;
        }
        let (memory, place) = machine.device(address, length)?;
        Registers::map(memory, place, length).ok()
    }

    /// Lets the `number`th function of a server access memory, which the server has reset; or not any more.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn bus_master(&self, server: usize, number: u32, may: bool) -> Result<(), Failure> {
        let entry = &self.entries[self.held(server, number)?];
        if entry.is_resetting() {
            return Err(Failure::new(FailureKind::BadState, "the function is being reset"));
        }
        if let Some(space) = self.spaces.get(entry.space) {
            let (set, clear) = if may { (command::BUS_MASTER, 0) } else { (0, command::BUS_MASTER) };
            change_command(space, entry.function.address, set, clear);
        }
        Ok(())
    }

    /// The `number`th function of a server.
    fn held(&self, server: usize, number: u32) -> Result<usize, Failure> {
        let mut held = (0..self.entries.len()).filter(|index| self.entries[*index].holder == Some(server));
        held.nth(number as usize)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("the server holds no device {number}")))
    }

    /// The first 256 bytes of a function's configuration space.
    #[must_use]
    pub fn snapshot(&self, index: usize) -> Vec<u8> {
        let entry = &self.entries[index];
        let Some(space) = self.spaces.get(entry.space) else {
            return vec![];
        };
        let words = (0..64).flat_map(|word| space.read(entry.function.address, word * 4).to_le_bytes());
        words.collect()
    }

    /// Why a function's requests may be taken for others', or reach others, before an IOMMU sees them: a bridge above it (PCI Express 5.0, 1.3.3, 7.5.3.2).
    #[must_use]
    pub fn is_beside_others(&self, address: Address) -> Option<&'static str> {
        if self.alias(address).is_some() {
            return Some("it is behind a bridge to conventional PCI, which the IOMMU cannot look behind");
        }
        let above = |entry: &&Entry| match entry.function.header {
            Header::Bridge { secondary, last } => {
                entry.function.address.segment == address.segment && (secondary..=last).contains(&address.bus)
            }
            _ => false,
        };
        let switch = self.entries.iter().filter(above).any(|entry| {
            let express = tessera_pci::find(&entry.function.capabilities, tessera_pci::capability_id::EXPRESS);
            let kind = express.and_then(|offset| Some(self.spaces.get(entry.space)?.read(entry.function.address, offset) >> 20 & 15));
            // Ports of a switch, up and down.
            matches!(kind, Some(5 | 6))
        });
        switch.then_some("it is behind a switch, whose ports may pass requests to each other past the IOMMU")
    }

    /// Bus right below the bridge at an address.
    #[must_use]
    pub fn secondary_bus(&self, segment: u16, bus: u8, device: u8, function: u8) -> Option<u8> {
        let at = Address {
            segment,
            bus,
            device,
            function,
        };
        let entry = self.entries.iter().find(|entry| entry.function.address == at)?;
        match entry.function.header {
            Header::Bridge { secondary, .. } => Some(secondary),
            _ => None,
        }
    }

    /// Whose requests a function's look like to an IOMMU, if it is behind a bridge of conventional PCI (PCI Express to PCI/PCI-X Bridge 1.0, 2.3): the bridge's own, or those of the first place behind it.
    #[must_use]
    pub fn alias(&self, address: Address) -> Option<Address> {
        self.entries.iter().find_map(|entry| {
            let Header::Bridge { secondary, last } = entry.function.header else {
                return None;
            };
            let above = entry.function.address.segment == address.segment && (secondary..=last).contains(&address.bus);
            let express = entry
                .function
                .capabilities
                .iter()
                .find(|capability| capability.id == tessera_pci::capability_id::EXPRESS);
            let kind = express.and_then(|capability| {
                let space = self.spaces.get(entry.space)?;
                Some(space.read(entry.function.address, capability.offset & !3) >> 20 & 15)
            });
            match kind {
                _ if !above => None,
                // A bridge to conventional PCI.
                Some(7) => Some(Address {
                    segment: address.segment,
                    bus: secondary,
                    device: 0,
                    function: 0,
                }),
                Some(_) => None,
                None => Some(entry.function.address),
            }
        })
    }

    /// Whether a function has signalled an abort (PCI 3.0, 6.2.3) since this was last asked.
    #[must_use]
    pub fn take_abort(&self, address: Address) -> bool {
        const ABORT: u32 = 1 << 27;
        self.spaces.iter().any(|space| {
            let (segment, buses) = space.buses();
            if segment != address.segment || !buses.contains(&address.bus) {
                return false;
            }
            let word = space.read(address, register::COMMAND);
            let aborted = word != u32::MAX && word & ABORT != 0;
            if aborted {
                space.write(address, register::COMMAND, (word & 0xffff) | ABORT);
            }
            aborted
        })
    }

    /// What the shell shows of a function.
    #[must_use]
    pub fn describe(&self, index: usize, holder: &str) -> Option<PciFunction> {
        let entry = self.entries.get(index)?;
        let space = self.spaces.get(entry.space)?;
        let Function {
            address,
            vendor,
            device,
            class,
            ..
        } = entry.function;
        let state = space.read(address, register::COMMAND);
        let vectors = entry.messages.len() as u16;
        let interrupts = match (entry.function.msix, entry.function.msi) {
            (Some(msix), _) => PciInterrupts::Table {
                used: vectors,
                offered: msix.vectors,
            },
            (None, Some(_)) => PciInterrupts::Message { used: vectors > 0 },
            _ if entry.function.pin == 0 => PciInterrupts::None,
            _ => PciInterrupts::Line(entry.function.line),
        };
        let ranges = entry.function.bars.iter().map(|bar| PciRange {
            bar: bar.index,
            ports: bar.kind == tessera_pci::BarKind::Ports,
            address: bar.address,
            length: bar.length,
        });
        Some(PciFunction {
            address: address.to_string(),
            vendor,
            device,
            subsystem: entry.function.subsystem,
            class: (class.base, class.sub, class.interface),
            revision: entry.function.revision,
            present: state != u32::MAX,
            bus_master: state != u32::MAX && state & command::BUS_MASTER != 0,
            ranges: ranges.collect(),
            interrupts,
            holder: holder.to_string(),
        })
    }
}
