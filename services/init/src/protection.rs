//! The IOMMU: every device reaches only what was lent to the server that drives it. init drives the units by itself, since configuration space, all memory and the right to access memory are its own already.
//!
//! There is one domain for each server that holds PCI functions, not one for each function: all that a server has borrowed is for any of its devices, and it could have one of them copy for another. What is in it:
//!
//! | memory | mapped | unmapped |
//! |---|---|---|
//! | lent for devices (`init.device_memory`) | when it is lent | when the server ends |
//! | guests' RAM (`vm_memory`) | when it is borrowed | when it is given back, or the server ends |
//! | what the firmware reserves for a function | when the server gets the function | when the server ends |
//!
//! All of it is init's own: a server cannot make kernel objects out of memory that a device may still write. Functions that nobody holds are in no domain and reach nothing.

mod faults;
mod interrupts;

use crate::buddy::Block;
use crate::devices::Tables;
use crate::machine::Machine;
use crate::process::trouble;
use crate::root::Root;
use crate::window::{Registers, Words, boot_info};
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use tessera_abi::PAGE_SIZE;
use tessera_abi::object::ObjectKind;
use tessera_iommu::{Description, Error, Hardware, Iommu, Kind, Reserved, Source, dmar, ivrs};
use tessera_pci::{Address, acpi_table};
use tessera_proto::init::Level;
use tessera_proto::iommu::{self, DomainInfo, FaultInfo, IommuInfo, IommuKind};
use tessera_proto::{Call, Failure, FailureKind, Page};
use tessera_rt::{CNode, Frame, Untyped, slots};

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages of tables are taken so many at once, as a power of two.
const CHUNK_ORDER: u32 = 4;
/// Bytes of a unit's registers that are used (VT-d's fault records may lie further up; they end below this).
const REGISTERS: u64 = 0x4000;
const REGISTERS_VTD: u64 = 0x1000;
/// Milliseconds between two looks at faults. A device that makes them without end costs this much and no more.
const LOOK_MS: u64 = 250;
/// Faults that are remembered.
const REMEMBERED: usize = 64;
/// Milliseconds for which faults of one function are counted, not logged, after a line in the log.
const QUIET_MS: u64 = 5000;

/// Memory of tables.
#[derive(Debug, Default)]
struct Store {
    chunks: Vec<Words>,
    free: Vec<u64>,
    pages: u64,
}

/// What the units need of the machine, borrowed for one step.
struct Access<'a> {
    machine: &'a mut Machine,
    store: &'a mut Store,
    registers: &'a [Registers],
}

impl Access<'_> {
    fn chunk(&mut self, order: u32) -> Option<u64> {
        let block = self.machine.take(order)?;
        let slot = slots::take().ok()?;
        // Never given back: tables are few, and are used again.
        let made = Untyped::new(block.slot).retype(ObjectKind::Frame, block.pages(), CNode::OWN, slot, 1);
        let words = made.and_then(|()| Words::map(Frame::new(slot))).ok()?;
        let base = words.physical();
        self.machine.own_pages += block.pages();
        self.store.pages += block.pages();
        self.store.chunks.push(words);
        Some(base)
    }

    fn words(&self, address: u64) -> Option<&Words> {
        self.store.chunks.iter().find(|words| words.holds(address))
    }
}

impl Hardware for Access<'_> {
    fn take(&mut self, order: u32) -> Option<u64> {
        if order > 0 {
            return self.chunk(order);
        }
        if self.store.free.is_empty() {
            let base = self.chunk(CHUNK_ORDER)?;
            self.store.free.extend((0..1 << CHUNK_ORDER).map(|page| base + page * PAGE));
        }
        self.store.free.pop()
    }

    fn give(&mut self, page: u64) {
        self.store.free.push(page);
    }

    fn load(&self, address: u64) -> u64 {
        self.words(address).map_or(0, |words| words.load(address))
    }

    fn store(&mut self, address: u64, word: u64, flush: bool) {
        if let Some(words) = self.words(address) {
            words.store(address, word, flush);
        }
    }

    fn read(&self, unit: usize, offset: u64) -> u32 {
        self.registers.get(unit).map_or(u32::MAX, |registers| registers.read(offset))
    }

    fn write(&mut self, unit: usize, offset: u64, value: u32) {
        if let Some(registers) = self.registers.get(unit) {
            registers.write(offset, value);
        }
    }
}

/// Memory lent to a server for its devices.
#[derive(Debug)]
struct DeviceMemory {
    server: usize,
    block: Block,
    /// Slot of the frame.
    slot: u32,
}

/// The units at work.
#[derive(Debug)]
struct Units {
    iommu: Iommu,
    registers: Vec<Registers>,
    reserved: Vec<Reserved>,
    aliases: Vec<(Source, Source, Source)>,
    /// As whom I/O APICs raise interrupts.
    controllers: Vec<Source>,
    /// AMD: the functions that the units are themselves.
    functions: Vec<Source>,
}

/// The IOMMU and what it protects.
#[derive(Debug, Default)]
pub struct Protection {
    units: Option<Units>,
    /// Why there is none.
    reason: String,
    store: Store,
    lent: Vec<DeviceMemory>,
    /// When faults are looked for next (TSC).
    due: u64,
    faults: VecDeque<FaultInfo>,
    total: u64,
    /// Until when faults of a function are not logged (TSC), and how many were not.
    quiet: Vec<(String, u64, u64)>,
}

pub(crate) const fn source_of(address: Address) -> Source {
    Source::new(address.segment, address.bus, address.device, address.function)
}

fn kernel(error: Error) -> Failure {
    Failure::new(FailureKind::Exhausted, format_args!("the IOMMU: {error}"))
}

impl Protection {
    /// Finds the machine's units and has them translate: no device reaches anything afterwards.
    pub fn start(machine: &mut Machine) -> Self {
        let mut protection = Self::default();
        if let Err(reason) = protection.try_start(machine) {
            protection.units = None;
            protection.reason = reason;
        }
        protection
    }

    fn try_start(&mut self, machine: &mut Machine) -> Result<(), String> {
        let found = find(machine).ok_or("the firmware names none")?;
        let length = if found.kind == Kind::Vtd { REGISTERS_VTD } else { REGISTERS };
        let mut registers = Vec::new();
        for unit in &found.units {
            let (memory, offset) = machine
                .device(unit.base, length)
                .ok_or_else(|| format!("the registers at {:#x} lie in memory", unit.base))?;
            let mapped = Registers::map(memory, offset, length);
            registers.push(mapped.map_err(|error| format!("the registers at {:#x}: {}", unit.base, error.text()))?);
        }
        let mut access = Access {
            machine,
            store: &mut self.store,
            registers: &registers,
        };
        let iommu = Iommu::start(&mut access, &found).map_err(|error| error.to_string())?;
        self.units = Some(Units {
            iommu,
            registers,
            reserved: found.reserved,
            aliases: found.aliases,
            controllers: found.controllers,
            functions: found.units.iter().filter_map(|unit| unit.function).collect(),
        });
        Ok(())
    }

    /// One line for the log, and how much it matters.
    #[must_use]
    pub fn summary(&self) -> (Level, String) {
        match &self.units {
            None => {
                let line = format!(
                    "IOMMU: none ({}). Devices reach all memory: a faulty one, or a driver that was taken over, can write anywhere",
                    self.reason
                );
                (Level::Warn, line)
            }
            Some(units) => {
                let line = format!(
                    "IOMMU: {}, {} units; devices reach what is lent to their server, and nothing else; {}",
                    kind_name(units.iommu.kind()),
                    units.iommu.units(),
                    if units.iommu.remaps_interrupts() {
                        "they raise their own interrupts, and no others"
                    } else {
                        "they can raise any interrupt"
                    }
                );
                (Level::Info, line)
            }
        }
    }

    /// Does something with the units, if there are any.
    fn with<T>(
        &mut self,
        machine: &mut Machine,
        act: impl FnOnce(&mut Iommu, &mut Access<'_>) -> Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let units = self.units.as_mut()?;
        let mut access = Access {
            machine,
            store: &mut self.store,
            registers: &units.registers,
        };
        Some(act(&mut units.iommu, &mut access))
    }

    fn has_functions(&self, server: usize) -> bool {
        let domain = self.units.as_ref().and_then(|units| units.iommu.domain(server));
        domain.is_some_and(|domain| !domain.sources.is_empty())
    }

    /// Has a server's functions reach a range.
    ///
    /// # Errors
    /// No memory for tables; the unit is silent; the range is past what it translates. Nothing was mapped.
    pub fn map(&mut self, machine: &mut Machine, server: usize, address: u64, length: u64) -> Result<(), Failure> {
        if !self.has_functions(server) {
            return Ok(());
        }
        let mapped = self.with(machine, |iommu, access| iommu.map(access, server, address, length));
        mapped.unwrap_or(Ok(())).map_err(kernel)
    }

    /// As [`Self::map`], by other addresses: those from `address` on lead to `physical`.
    ///
    /// # Errors
    /// As there.
    pub fn map_at(&mut self, machine: &mut Machine, server: usize, address: u64, physical: u64, length: u64) -> Result<(), Failure> {
        let mapped = self.with(machine, |iommu, access| iommu.map_at(access, server, address, physical, length));
        mapped.unwrap_or(Ok(())).map_err(kernel)
    }

    /// Puts a function into a server's domain, and nothing with it.
    ///
    /// # Errors
    /// It is in another one; the unit is silent, or there is no memory for tables.
    pub fn attach(&mut self, machine: &mut Machine, server: usize, source: Source) -> Result<(), Failure> {
        let attached = self.with(machine, |iommu, access| iommu.attach(access, server, source));
        attached.unwrap_or(Ok(())).map_err(kernel)
    }

    /// Why there is no IOMMU, if there is none.
    #[must_use]
    pub fn missing(&self) -> Option<&str> {
        self.units.is_none().then_some(self.reason.as_str())
    }

    /// Why a function's requests may be taken for others', by what the firmware says.
    #[must_use]
    pub fn is_beside_others(&self, address: Address) -> Option<&'static str> {
        let source = source_of(address);
        let aliases = self.units.as_ref().map_or(&[][..], |units| &units.aliases);
        let other = |(from, to, alias): &(Source, Source, Source)| (*from..=*to).contains(&source) && *alias != source;
        aliases
            .iter()
            .any(other)
            .then_some("its requests look like those of another function")
    }

    /// Has them not reach it any more. Answers whether that is so.
    pub fn unmap(&mut self, machine: &mut Machine, server: usize, address: u64, length: u64) -> bool {
        let unmapped = self.with(machine, |iommu, access| iommu.unmap(access, server, address, length));
        !matches!(unmapped, Some(Err(Error::Silent(_))))
    }

    /// Bytes that are lent to a server for its devices.
    fn lent_to(&self, server: usize) -> u64 {
        let lent = self.lent.iter().filter(|lent| lent.server == server);
        lent.map(|lent| lent.block.pages() * PAGE).sum()
    }

    /// Pages that are lent for devices.
    #[must_use]
    pub fn lent_pages(&self) -> u64 {
        self.lent.iter().map(|lent| lent.block.pages()).sum()
    }

    /// When [`Root::look_at_faults`] is due next (TSC).
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.units.is_some().then_some(self.due)
    }
}

/// What the firmware says of units.
fn find(machine: &Machine) -> Option<Description> {
    let (tables, rsdp) = (Tables(machine), boot_info().rsdp);
    if rsdp == 0 {
        return None;
    }
    let intel = acpi_table(&tables, rsdp, *b"DMAR").and_then(|table| dmar(&table));
    intel.or_else(|| acpi_table(&tables, rsdp, *b"IVRS").and_then(|table| ivrs(&table)))
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Vtd => "Intel VT-d",
        Kind::Amd => "AMD-Vi",
    }
}

impl Root {
    /// Whom a function's requests may look like: others by the firmware's table, a bridge above it, and itself.
    fn requesters(&self, address: Address) -> Vec<Source> {
        let source = source_of(address);
        let all = self.protection.units.as_ref().map_or(&[][..], |units| &units.aliases);
        let aliases = all.iter().filter(|(from, to, _)| (*from..=*to).contains(&source));
        let mut sources: Vec<_> = aliases.map(|(.., alias)| *alias).collect();
        sources.extend(self.devices.alias(address).map(source_of));
        sources.push(source);
        sources
    }

    /// Memory that the firmware reserves for a function: addresses and bytes.
    fn reserved_memory(&self, address: Address) -> Vec<(u64, u64)> {
        let secondary = |bus, device, function| self.devices.secondary_bus(address.segment, bus, device, function);
        let all = self.protection.units.as_ref().map_or(&[][..], |units| &units.reserved);
        let reserved = all.iter().filter(|reserved| {
            let mut scopes = reserved.scopes.iter();
            scopes.any(|scope| scope.holds(source_of(address), secondary))
        });
        reserved.map(|reserved| (reserved.base, reserved.length)).collect()
    }

    /// Whether there is such memory.
    pub(crate) fn is_reserved_memory_for(&self, address: Address) -> bool {
        !self.reserved_memory(address).is_empty()
    }

    /// A server gets a function: puts it into the server's domain, with the memory that the firmware reserves for it. The log says what does not work; the function reaches nothing then.
    pub fn confine(&mut self, server: usize, address: Address) {
        if self.protection.units.is_none() {
            return;
        }
        let sources = self.requesters(address);
        let reserved = self.reserved_memory(address);
        for source in sources {
            let attached = self
                .protection
                .with(&mut self.machine, |iommu, access| iommu.attach(access, server, source));
            if let Some(Err(error)) = attached {
                let line = format!("PCI function {address} reaches no memory: {error}");
                self.say(Level::Error, &line);
                return;
            }
        }
        for (base, length) in reserved {
            let known = self.protection.units.as_ref().and_then(|units| units.iommu.domain(server));
            if known.is_some_and(|domain| domain.ranges.contains(&(base, length))) {
                continue;
            }
            // What is said to be the firmware's and is not would open our own memory.
            let outcome = match self.machine.device(base, length) {
                None => Err("the firmware's table names memory that is not reserved".to_string()),
                Some(_) => self
                    .protection
                    .map(&mut self.machine, server, base, length)
                    .map_err(|failure| failure.to_string()),
            };
            if let Err(reason) = outcome {
                let line = format!(
                    "PCI function {address}: {length:#x} bytes at {base:#x} are reserved for it, and stay out of its reach: {reason}"
                );
                self.say(Level::Warn, &line);
            }
        }
    }

    /// A server's functions reach nothing any more, and what was lent for them is taken back. They may access no memory by themselves (`Devices::release`), so that this holds even if a unit is silent.
    pub fn unconfine(&mut self, server: usize) {
        let ended = self
            .protection
            .with(&mut self.machine, |iommu, access| iommu.detach(access, server));
        if let Some(Err(error)) = ended {
            self.say(Level::Error, &format!("taking devices from a domain: {error}"));
        }
        let (mut blocks, mut place) = (Vec::new(), 0);
        while place < self.protection.lent.len() {
            if self.protection.lent[place].server == server {
                let lent = self.protection.lent.swap_remove(place);
                slots::free(lent.slot);
                blocks.push(lent.block);
            } else {
                place += 1;
            }
        }
        self.machine.reclaim(blocks);
    }

    /// Lends a server memory for its devices: has the reply take along the frame.
    ///
    /// # Errors
    /// The manifest's bound is reached, or memory is used up.
    pub fn lend_device_memory(&mut self, call: &mut Call, pages: u32) -> Result<(), Failure> {
        let caller = self.index_of(call.badge).ok_or(Failure::from(FailureKind::NotAllowed))?;
        let most = self.manifest.servers[self.servers[caller].server].device_memory;
        let pages = u64::from(pages).max(1);
        let bytes = pages.next_power_of_two() * PAGE;
        if self.protection.lent_to(caller).saturating_add(bytes) > most {
            let text = format_args!("{} KiB are all that `device-memory` in the manifest allows", most / 1024);
            return Err(Failure::new(FailureKind::Exhausted, text));
        }
        let block = self
            .machine
            .take(pages.next_power_of_two().ilog2())
            .ok_or(Failure::from(FailureKind::Exhausted))?;
        let slot = match slots::take() {
            Ok(slot) => slot,
            Err(error) => {
                self.machine.reclaim(vec![block]);
                return Err(trouble("init has no slot left")(error));
            }
        };
        let memory = Untyped::new(block.slot);
        self.protection.lent.push(DeviceMemory {
            server: caller,
            block,
            slot,
        });
        let outcome = memory
            .retype(ObjectKind::Frame, pages, CNode::OWN, slot, 1)
            .and_then(|()| Frame::new(slot).info())
            .map_err(trouble("making memory for a device"))
            .and_then(|status| self.protection.map(&mut self.machine, caller, status.physical, pages * PAGE))
            .and_then(|()| self.give_frame(call, slot, crate::loan::READ_WRITE));
        if outcome.is_err()
            && let Some(lent) = self.protection.lent.pop()
        {
            slots::free(lent.slot);
            self.machine.reclaim(vec![lent.block]);
        }
        outcome
    }
}

impl iommu::Server for Root {
    fn info(&mut self, _call: &mut Call) -> Result<IommuInfo, Failure> {
        let iommu = self.protection.units.as_ref().map(|units| &units.iommu);
        Ok(IommuInfo {
            kind: iommu.map_or(IommuKind::None, |iommu| match iommu.kind() {
                Kind::Vtd => IommuKind::Vtd,
                Kind::Amd => IommuKind::Amd,
            }),
            reason: self.protection.reason.clone(),
            units: iommu.map_or(0, |iommu| iommu.units() as u32),
            address_bits: iommu.map_or(0, Iommu::address_bits),
            interrupts_remapped: self.protection.remaps_interrupts(),
            table_pages: self.protection.store.pages,
            faults: self.protection.total,
        })
    }

    fn domains(&mut self, _call: &mut Call, first: u32) -> Result<Page<DomainInfo>, Failure> {
        let all = (first as usize..self.servers.len()).filter_map(|server| Some((server as u32, self.domain_info(server)?)));
        Ok(Page::fill(all))
    }

    fn faults(&mut self, _call: &mut Call, first: u32) -> Result<Page<FaultInfo>, Failure> {
        let all = (0..).zip(&self.protection.faults).skip(first as usize);
        Ok(Page::fill(all.map(|(place, fault)| (place, fault.clone()))))
    }
}

impl Root {
    /// Bytes of RAM of the machine whose monitor a server is.
    fn own_ram(&self, server: usize) -> u64 {
        let record = &self.servers[server];
        let vm = record.vm.filter(|_| self.machines.is_vmm(&self.manifest, record.server));
        let running = vm.and_then(|vm| self.machines.entries[vm].running.as_ref());
        running.map_or(0, |running| running.lent.guest_memory().iter().map(|(.., length)| length).sum())
    }

    /// What a server's functions reach; `None`: it has none. Without an IOMMU, what they should reach.
    fn domain_info(&self, server: usize) -> Option<DomainInfo> {
        let held = self.devices.entries.iter().filter(|entry| entry.holder == Some(server));
        let functions: Vec<_> = held.map(|entry| entry.function.address.to_string()).collect();
        if functions.is_empty() {
            return None;
        }
        let domain = self.protection.units.as_ref().and_then(|units| units.iommu.domain(server));
        let device_memory = self.protection.lent_to(server);
        // What a monitor's functions reach is its guest's RAM.
        let guest_memory = self.borrowed_by(server) + self.own_ram(server);
        let mapped = domain.map_or(0, tessera_iommu::Domain::mapped);
        let reserved = domain.map_or(0, |domain| {
            let firmware = |range: &&(u64, u64)| self.machine.device(range.0, range.1).is_some();
            domain.ranges.iter().filter(firmware).map(|(_, length)| length).sum()
        });
        Some(DomainInfo {
            server: self.servers[server].name.clone(),
            // What is mapped counts, not what should be.
            device_memory: if domain.is_some() {
                mapped.saturating_sub(guest_memory + reserved)
            } else {
                device_memory
            },
            guest_memory,
            reserved,
            table_pages: domain.map_or(0, |domain| domain.table_pages() as u64),
            functions,
        })
    }
}
