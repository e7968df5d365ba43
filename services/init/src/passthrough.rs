//! PCI functions that a virtual machine has for itself.
//!
//! The monitor of such a machine holds the function as a server does: its registers but for the table of messages, and its interrupts. It never reaches configuration space; what the guest sees of that the monitor makes
//! up. What differs: the function's domain holds the machine's RAM and nothing else, at the addresses by which the guest knows it; and it is reset before and after, for no driver of the host's does that.
//!
//! ```text
//! start --> checks --> reset begins -----------> reset is over --> domain, registers, interrupts --> monitor starts
//!                      RAM is made meanwhile                                                          |  bus_master, reset_device
//! next start may begin <-- reset is over <-- reset begins <-- no access to memory, out of the domain <-- ends
//! ```

use crate::devices::Entry;
use crate::process::{Granted, Source};
use crate::protection::source_of;
use crate::root::Root;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use tessera_abi::PAGE_SIZE;
use tessera_abi::object::Rights;
use tessera_manifest::{PassedFunction, PciWhich, StartDevice, StartInterrupt, StartRange};
use tessera_pci::{Address, BarKind, Header};
use tessera_proto::init::Level;
use tessera_proto::vm_manager::{HostFunction, PassedInfo};
use tessera_proto::{Failure, FailureKind};
use tessera_rt::time;

const PAGE: u64 = PAGE_SIZE as u64;
/// Base class of bridges: the chipset's own, whose registers have side effects.
const BRIDGE: u8 = 6;
/// Milliseconds after which an unfinished reset is looked at again.
const LOOK_MS: u64 = 10;

/// Bytes of its own memory that a monitor needs for each function: tables that map its ranges, wherever the guest puts them.
pub const MONITOR_MEMORY: u64 = 128 << 10;

fn is_meant(entry: &Entry, which: PciWhich) -> bool {
    let function = &entry.function;
    match which {
        PciWhich::Address {
            segment,
            bus,
            device,
            function: number,
        } => {
            function.address
                == Address {
                    segment,
                    bus,
                    device,
                    function: number,
                }
        }
        PciWhich::Kind { vendor, device } => (function.vendor, function.device) == (vendor, device),
        PciWhich::Class(class) => function.class.base == class.base() && function.header == Header::Device,
    }
}

fn is_bridge(entry: &Entry) -> bool {
    entry.function.header != Header::Device || entry.function.class.base == BRIDGE
}

fn unfit(address: Address, why: impl core::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Unsupported,
        format_args!("PCI function {address} cannot be a virtual machine's: {why}"),
    )
}

fn no_iommu(passed: &PassedFunction, reason: &str) -> Failure {
    Failure::new(
        FailureKind::Unsupported,
        format_args!("it is to have {passed} of the host, which would reach all memory: there is no IOMMU ({reason})"),
    )
}

impl Root {
    /// The function that is meant.
    fn passed(&self, passed: &PassedFunction) -> Result<usize, Failure> {
        let entries = self.devices.entries.iter().enumerate();
        let mut meant = entries.filter(|(_, entry)| is_meant(entry, passed.which));
        let found = meant.nth(passed.index as usize).map(|(index, _)| index);
        found.ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format_args!("this host has no {passed}: the shell's `pci` shows which there are"),
            )
        })
    }

    /// Those of a machine.
    fn passed_to(&self, vm: usize) -> Result<Vec<usize>, Failure> {
        self.manifest.vms[vm].passthrough.iter().map(|passed| self.passed(passed)).collect()
    }

    /// Keeps what the manifest gives to machines from servers, whether the machines run or not.
    pub fn reserve_functions(&mut self) {
        for vm in 0..self.manifest.vms.len() {
            for passed in self.manifest.vms[vm].passthrough.clone() {
                if let Ok(index) = self.passed(&passed) {
                    self.devices.entries[index].reserved = true;
                }
            }
        }
    }

    /// Keeps a function for the machines that are to have it; a server that drives it is started again without it.
    ///
    /// # Errors
    /// No machine can have it, or none is to.
    pub fn keep(&mut self, passed: PassedFunction) -> Result<(), Failure> {
        let index = self.passed(&passed)?;
        if let Some(reason) = self.protection.missing() {
            return Err(no_iommu(&passed, reason));
        }
        self.check_fitness(index)?;
        if self.kept_for(index).is_none() {
            let text = format_args!("no virtual machine is to have {passed}: nothing was changed");
            return Err(Failure::new(FailureKind::BadState, text));
        }
        let entry = &mut self.devices.entries[index];
        entry.reserved = true;
        let driver = entry.holder.filter(|holder| self.servers[*holder].vm.is_none());
        if let Some(server) = driver {
            let line = format!("{passed} is taken from {} for virtual machines", self.servers[server].name);
            self.say(Level::Info, &line);
            self.restart(server)?;
        }
        Ok(())
    }

    /// Servers may have functions again that no machine is made up with any more: they get them when they start next.
    pub fn free_functions(&mut self) {
        for index in 0..self.devices.entries.len() {
            if self.devices.entries[index].reserved && self.kept_for(index).is_none() {
                self.devices.entries[index].reserved = false;
            }
        }
    }

    /// A function as whoever makes machines up sees it; bridges are left out.
    #[must_use]
    pub fn host_function(&self, index: usize) -> Option<HostFunction> {
        let entry = self.devices.entries.get(index).filter(|entry| !is_bridge(entry))?;
        let holder = entry.holder.and_then(|holder| self.servers.get(holder));
        let machine = holder.and_then(|holder| self.manifest.vms.get(holder.vm?));
        let driver = holder.filter(|holder| holder.vm.is_none());
        let function = &entry.function;
        let problem = match self.protection.missing() {
            Some(reason) => Some(format!("it would reach all memory: there is no IOMMU ({reason})")),
            None => self.misfit(index),
        };
        Some(HostFunction {
            address: function.address.to_string(),
            identity: (function.vendor, function.device),
            class: (function.class.base, function.class.sub, function.class.interface),
            confined: self.protection.missing().is_none(),
            remapped: self.protection.remaps_interrupts(),
            server: driver.map(|driver| driver.name.clone()).unwrap_or_default(),
            machine: machine.map(|vm| vm.name.clone()).unwrap_or_default(),
            kept: entry.reserved,
            together: self
                .beside(index)
                .map(|other| self.devices.entries[other].function.address.to_string())
                .collect(),
            problem: problem.unwrap_or_default(),
        })
    }

    /// The first machine that is to have a function.
    #[must_use]
    pub fn kept_for(&self, index: usize) -> Option<&str> {
        let meant = |passed: &PassedFunction| self.passed(passed).is_ok_and(|found| found == index);
        let mut vms = self.manifest.vms.iter().zip(&self.machines.entries);
        let found = vms.find(|(vm, entry)| !entry.removed && vm.passthrough.iter().any(meant));
        found.map(|(vm, _)| vm.name.as_str())
    }

    /// A machine is to start: checks that it can have its functions, and begins to reset them.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn prepare_functions(&mut self, vm: usize) -> Result<(), Failure> {
        let wanted = &self.manifest.vms[vm].passthrough;
        let Some(first) = wanted.first() else { return Ok(()) };
        if let Some(reason) = self.protection.missing() {
            return Err(no_iommu(first, reason));
        }
        let all = self.passed_to(vm)?;
        for index in &all {
            self.check_passed(*index, &all)?;
        }
        for index in all {
            self.devices.begin_reset(index);
            let line = format!(
                "virtual machine {} gets PCI function {}",
                self.manifest.vms[vm].name, self.devices.entries[index].function.address
            );
            if self.protection.remaps_interrupts() {
                self.say(Level::Info, &line);
            } else {
                let danger = "interrupts are not remapped: its guest can have the function raise any interrupt of this host";
                self.say(Level::Warn, &format!("{line}; {danger}"));
            }
        }
        Ok(())
    }

    /// Whether a function can be a machine's that has all of these.
    fn check_passed(&self, index: usize, all: &[usize]) -> Result<(), Failure> {
        let at = self.devices.entries[index].function.address;
        if let Some(holder) = self.devices.entries[index].holder.and_then(|holder| self.servers.get(holder)) {
            let what = match holder.vm.and_then(|vm| self.manifest.vms.get(vm)) {
                Some(vm) => format!("virtual machine {} has it, and runs", vm.name),
                None => format!("{} drives it", holder.name),
            };
            return Err(Failure::new(
                FailureKind::BadState,
                format_args!("PCI function {at} is not free: {what}"),
            ));
        }
        self.check_fitness(index)?;
        if all.iter().filter(|other| **other == index).count() > 1 {
            return Err(unfit(at, "it is meant twice"));
        }
        if let Some(other) = self.beside(index).find(|other| !all.contains(other)) {
            let other = self.devices.entries[other].function.address;
            return Err(unfit(at, format_args!("the machine has to have {other} of the same device too")));
        }
        Ok(())
    }

    /// The other functions of its device, which may reach each other without the IOMMU.
    fn beside(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let place = |address: Address| (address.segment, address.bus, address.device);
        let own = place(self.devices.entries[index].function.address);
        let others = self.devices.entries.iter().enumerate();
        others
            .filter(move |(other, entry)| *other != index && place(entry.function.address) == own)
            .map(|(other, _)| other)
    }

    /// Why no machine can have a function, whoever has it now.
    fn misfit(&self, index: usize) -> Option<String> {
        let function = &self.devices.entries[index].function;
        let at = function.address;
        if is_bridge(&self.devices.entries[index]) {
            return Some("it is a bridge".into());
        }
        if let Some(why) = self.devices.is_beside_others(at).or_else(|| self.protection.is_beside_others(at)) {
            return Some(why.into());
        }
        if self.is_reserved_memory_for(at) {
            return Some("the firmware reserves memory for it".into());
        }
        if function.msix.is_none() {
            return Some("it has no table of messages (MSI-X) to interrupt by".into());
        }
        if !self.devices.can_reset(index) {
            return Some("it cannot be reset by itself".into());
        }
        function.bars.iter().filter(|bar| bar.kind != BarKind::Ports).find_map(|bar| {
            let number = bar.index;
            if bar.address == 0 || !bar.address.is_multiple_of(PAGE) {
                return Some(format!("the firmware gave its range {number} no page of its own"));
            }
            let end = bar.address + bar.length.next_multiple_of(PAGE);
            let shared = self.devices.touched_by_others(index, bar.address, end);
            shared.then(|| format!("its range {number} shares a page with another function"))
        })
    }

    fn check_fitness(&self, index: usize) -> Result<(), Failure> {
        match self.misfit(index) {
            Some(why) => Err(unfit(self.devices.entries[index].function.address, why)),
            None => Ok(()),
        }
    }

    /// Whether all functions of a machine are reset; else when to look again (TSC).
    ///
    /// # Errors
    /// One did not come back.
    pub fn functions_ready(&self, vm: usize) -> Result<Option<u64>, Failure> {
        let mut next = None;
        for index in self.passed_to(vm)? {
            let entry = &self.devices.entries[index];
            if entry.gone {
                return Err(Failure::new(
                    FailureKind::Internal,
                    format_args!("PCI function {} did not come back from its reset", entry.function.address),
                ));
            }
            if entry.is_resetting() {
                next = Some(time::after(time::milliseconds(LOOK_MS)));
            }
        }
        Ok(next)
    }

    /// Gives a machine's functions to its monitor. If it fails, what was done is undone when the monitor's functions are released.
    ///
    /// # Errors
    /// The unit is silent, or there is no memory for its tables; a function lacks what it has to have.
    pub fn resolve_passthrough(
        &mut self,
        vm: usize,
        server: usize,
        granted: &mut Vec<Granted>,
        devices: &mut Vec<StartDevice>,
    ) -> Result<(), Failure> {
        let all = self.passed_to(vm)?;
        if all.is_empty() {
            return Ok(());
        }
        for index in &all {
            // The checks were made when the start began; others may have come first since.
            self.check_passed(*index, &all)?;
        }
        for index in &all {
            self.devices.entries[*index].holder = Some(server);
            self.devices.entries[*index].passed = true;
            let address = self.devices.entries[*index].function.address;
            self.protection.attach(&mut self.machine, server, source_of(address))?;
        }
        let running = self.machines.entries[vm].running.as_ref();
        let memory = running.map(|running| running.lent.guest_memory()).unwrap_or_default();
        let cpu = running.and_then(|running| running.first_cpu()).unwrap_or(0);
        for (guest, physical, length) in memory {
            self.protection.map_at(&mut self.machine, server, guest, physical, length)?;
        }
        for index in all {
            let device = self.pass(index, cpu, granted)?;
            devices.push(device);
        }
        Ok(())
    }

    fn pass(&mut self, index: usize, cpu: u32, granted: &mut Vec<Granted>) -> Result<StartDevice, Failure> {
        let function = self.devices.entries[index].function.clone();
        let at = function.address;
        let mut device = StartDevice {
            grant: "passthrough".into(),
            address: at.to_string(),
            ..StartDevice::default()
        };
        self.route_messages(index, cpu);
        let messages = self.devices.wake(index, &self.machine);
        if messages.is_empty() {
            return Err(unfit(at, "no interrupt is left for it"));
        }
        for bar in function.bars.iter().filter(|bar| bar.kind != BarKind::Ports) {
            device.ranges.push(StartRange {
                bar: bar.index,
                slot: 0,
                ports: false,
                start: 0,
                length: bar.length,
                offset: 0,
            });
            if let Some(trouble) = self.give_memory(index, bar.index, bar.address, bar.length, &mut device, granted) {
                return Err(unfit(at, format_args!("its range {} {trouble}", bar.index)));
            }
        }
        for slot in messages {
            device.interrupts.push(StartInterrupt {
                slot: crate::devices::next_slot(granted),
                message: true,
            });
            granted.push(Granted {
                name: format!("{at} irq"),
                source: Source::Copy {
                    slot,
                    rights: Rights::READ | Rights::WRITE,
                    badge: 0,
                },
                length: 0,
                large: false,
            });
        }
        device.configuration = self.devices.snapshot(index);
        Ok(device)
    }

    /// Where the functions of a machine are; of one that is not there, where it would be, if that is what names it.
    #[must_use]
    pub fn passed_addresses(&self, vm: usize) -> Vec<String> {
        let address = |passed: &PassedFunction| match (self.passed(passed), passed.which) {
            (Ok(index), _) => Some(self.devices.entries[index].function.address.to_string()),
            (Err(_), which @ PciWhich::Address { .. }) => Some(which.to_string()),
            (Err(_), _) => None,
        };
        self.manifest.vms[vm].passthrough.iter().filter_map(address).collect()
    }

    /// The functions that a machine has for itself, or is to have, as people see them.
    #[must_use]
    pub fn passed_info(&self, vm: usize) -> Vec<PassedInfo> {
        let info = |passed: &PassedFunction| {
            let found = self.passed(passed).ok().map(|index| &self.devices.entries[index].function);
            PassedInfo {
                wanted: passed.to_string(),
                address: found.map_or_else(String::new, |function| function.address.to_string()),
                identity: found.map_or((0, 0), |function| (function.vendor, function.device)),
                class: found.map_or((0, 0, 0), |function| {
                    (function.class.base, function.class.sub, function.class.interface)
                }),
            }
        };
        self.manifest.vms[vm].passthrough.iter().map(info).collect()
    }
}
