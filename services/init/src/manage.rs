//! Virtual machines as they are managed: made, changed and removed while the host runs, started, stopped, connected to.
//!
//! init keeps what the manifest has, and what it is told here until the host restarts; whoever tells it keeps it for longer.

use crate::policy;
use crate::process::keep_notification;
use crate::root::{Root, add_servers};
use crate::vm::{Connect, Entry};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_manifest::{Begin, DiskBacking, GuestFile, PassedFunction, PciWhich, Vm, VmDisk, VmNic};
use tessera_proto::init::Level;
use tessera_proto::vm_manager::{self, FilePlace, Firmware, HostFunction, MAX_NAME, PassedInfo, VmConfig, VmService, VmState, VmSummary};
use tessera_proto::vm_memory::{DiskConfig, DiskController, DiskPlace, NicConfig, NicModel};
use tessera_proto::{Call, Failure, FailureKind, Page};
use tessera_rt::{Notification, slots};

/// Most virtual machines.
const MOST: usize = 512;

/// A disk as messages have it.
#[must_use]
pub fn disk_config(disk: &VmDisk) -> DiskConfig {
    DiskConfig {
        place: match disk.backing.clone() {
            DiskBacking::Device { device, partition } => DiskPlace::Device { device, partition },
            DiskBacking::Store { store, disk } => DiskPlace::Store { store, disk },
        },
        read_only: disk.read_only,
        serial: disk.serial.clone(),
        controller: match disk.controller {
            tessera_manifest::DiskController::Virtio => DiskController::Virtio,
            tessera_manifest::DiskController::Ahci => DiskController::Ahci,
        },
    }
}

/// A network card as messages have it.
#[must_use]
pub fn nic_config(nic: &VmNic) -> NicConfig {
    NicConfig {
        port_group: nic.port_group.clone(),
        mac: nic.mac,
        model: match nic.model {
            tessera_manifest::NicModel::Virtio => NicModel::Virtio,
            tessera_manifest::NicModel::E1000e => NicModel::E1000e,
        },
    }
}

fn nic_of(nic: NicConfig) -> VmNic {
    VmNic {
        port_group: nic.port_group,
        mac: nic.mac,
        model: match nic.model {
            NicModel::Virtio => tessera_manifest::NicModel::Virtio,
            NicModel::E1000e => tessera_manifest::NicModel::E1000e,
        },
    }
}

fn disk_of(disk: DiskConfig) -> VmDisk {
    VmDisk {
        backing: match disk.place {
            DiskPlace::Device { device, partition } => DiskBacking::Device { device, partition },
            DiskPlace::Store { store, disk } => DiskBacking::Store { store, disk },
        },
        read_only: disk.read_only,
        serial: disk.serial,
        controller: match disk.controller {
            DiskController::Virtio => tessera_manifest::DiskController::Virtio,
            DiskController::Ahci => tessera_manifest::DiskController::Ahci,
        },
    }
}

/// A file as messages have it.
#[must_use]
pub fn file_place(file: &GuestFile) -> FilePlace {
    match file.clone() {
        GuestFile::Image(name) => FilePlace::Image { name },
        GuestFile::Store { store, path } => FilePlace::Store { store, path },
    }
}

fn file_of(place: FilePlace) -> GuestFile {
    match place {
        FilePlace::Image { name } => GuestFile::Image(name),
        FilePlace::Store { store, path } => GuestFile::Store { store, path },
    }
}

/// A function of the host by its address, which is what messages name it by.
fn passed_of(text: &str) -> Result<PassedFunction, Failure> {
    match text.parse() {
        Ok(which @ PciWhich::Address { .. }) => Ok(PassedFunction { which, index: 0 }),
        _ => Err(Failure::new(
            FailureKind::BadRequest,
            format_args!("`{}` is no address of a PCI function, such as 0000:03:00.0", text.escape_debug()),
        )),
    }
}

/// The functions that a machine is to have, each named once.
fn all_passed(texts: &[String]) -> Result<Vec<PassedFunction>, Failure> {
    let all = texts.iter().map(|text| passed_of(text)).collect::<Result<Vec<_>, _>>()?;
    let twice = all.iter().enumerate().find(|(index, one)| all[..*index].contains(one));
    match twice {
        Some((_, one)) => Err(Failure::new(FailureKind::BadRequest, format_args!("{one} is there twice"))),
        None => Ok(all),
    }
}

/// A machine as messages have it; `passthrough`: where on the bus its functions are.
fn config_of(vm: &Vm, passthrough: Vec<String>) -> VmConfig {
    VmConfig {
        name: vm.name.clone(),
        memory: vm.memory,
        vcpus: vm.vcpus,
        weight: vm.weight,
        budget_us: vm.budget_us,
        period_us: vm.period_us,
        firmware: vm.firmware.map(|firmware| match firmware {
            tessera_manifest::Firmware::Bios => Firmware::Bios,
            tessera_manifest::Firmware::Uefi => Firmware::Uefi,
        }),
        kernel: file_place(&vm.kernel),
        initramfs: vm.initramfs.as_ref().map(file_place),
        command_line: vm.command_line.clone(),
        display: vm.display,
        cdrom: vm.cdrom.as_ref().map(file_place),
        variables: vm.variables.as_ref().map(file_place),
        boot_order: vm.boot_order.clone(),
        boot_menu_ms: vm.boot_menu_ms,
        watchdog: vm.watchdog,
        disks: vm.disks.iter().map(disk_config).collect(),
        nics: vm.nics.iter().map(nic_config).collect(),
        passthrough,
    }
}

fn vm_of(config: VmConfig, autostart: bool, passthrough: Vec<PassedFunction>) -> Vm {
    let firmware = config.firmware.map(|firmware| match firmware {
        Firmware::Bios => tessera_manifest::Firmware::Bios,
        Firmware::Uefi => tessera_manifest::Firmware::Uefi,
    });
    Vm {
        name: config.name,
        memory: config.memory,
        vcpus: config.vcpus,
        firmware,
        kernel: firmware.map_or_else(|| file_of(config.kernel), |firmware| GuestFile::Image(firmware.file().into())),
        initramfs: config.initramfs.map(file_of),
        command_line: config.command_line,
        display: config.display,
        cdrom: config.cdrom.map(file_of),
        variables: config.variables.map(file_of),
        boot_order: config.boot_order,
        boot_menu_ms: config.boot_menu_ms,
        watchdog: config.watchdog,
        autostart,
        weight: config.weight,
        budget_us: config.budget_us,
        period_us: config.period_us,
        disks: config.disks.into_iter().map(disk_of).collect(),
        nics: config.nics.into_iter().map(nic_of).collect(),
        passthrough,
    }
}

/// Whether something can be a machine's name: it is part of its servers' names, and people type it.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(good) && name.as_bytes()[0].is_ascii_alphanumeric()
}

impl Root {
    /// Checks what a machine is to be; `own` is the one that it is already.
    fn check_machine(&self, vm: &Vm, own: Option<usize>) -> Result<(), Failure> {
        if !is_name(&vm.name) {
            return Err(Failure::new(
                FailureKind::BadRequest,
                format_args!(
                    "a name has letters, digits, `-`, `_` and `.`, begins with a letter or a digit, and is at most {MAX_NAME} long"
                ),
            ));
        }
        if self.machine_named(&vm.name).is_ok_and(|known| Some(known) != own) {
            let text = format_args!("there is a virtual machine `{}` already", vm.name);
            return Err(Failure::new(FailureKind::BadState, text));
        }
        policy::check_vm(vm, &self.manifest).map_err(|what| Failure::new(FailureKind::BadRequest, what))
    }

    /// A datastore has a machine's state. What runs, or gave that up, is left alone: its monitor looks at its start.
    pub fn machine_is_suspended(&mut self, name: &str, place: FilePlace) {
        let file = file_of(place);
        let Ok(vm) = self.machine_named(name) else {
            self.machines.found.retain(|(known, _)| known != name);
            if self.machines.found.len() < MOST && is_name(name) {
                self.machines.found.push((name.into(), file));
            }
            return;
        };
        let entry = &mut self.machines.entries[vm];
        entry.found = Some(file.clone());
        if entry.running.is_none() && !entry.given_up && entry.state != VmState::Suspended {
            entry.state = VmState::Suspended;
            entry.state_file = Some(file);
            self.machine_changed();
        }
    }

    /// Whether the file with a machine's state is the one that it is suspended into: others, as those of snapshots, stay.
    fn has_own_state(&self, vm: usize) -> bool {
        let name = &self.manifest.vms[vm].name;
        match &self.machines.entries[vm].state_file {
            Some(GuestFile::Store { path, .. }) => path.trim_matches('/').strip_suffix(".vmss") == Some(name),
            _ => true,
        }
    }

    /// A machine that does not run, and that is not suspended: what it is made of would not fit its state any more.
    fn stopped_machine(&self, name: &str) -> Result<usize, Failure> {
        let vm = self.machine_named(name)?;
        if self.machines.is_running(vm) {
            let text = format_args!("virtual machine {name} runs: stop it first");
            return Err(Failure::new(FailureKind::BadState, text));
        }
        if self.machines.entries[vm].state == VmState::Suspended {
            let text = format_args!("virtual machine {name} is suspended: have it go on, or stop it, which gives up its state");
            return Err(Failure::new(FailureKind::BadState, text));
        }
        Ok(vm)
    }

    fn name_servers(&mut self, vm: usize) {
        let name = &self.manifest.vms[vm].name;
        for record in self.servers.iter_mut().filter(|record| record.vm == Some(vm)) {
            record.name = format!("{}.{name}", self.manifest.servers[record.server].name);
        }
    }

    /// Starts a machine and answers when it runs.
    fn start_and_answer(&mut self, call: &mut Call, vm: usize, begin: Begin) -> Result<(), Failure> {
        // There is one for each machine, and no machine starts twice at once.
        let spare = self.replies.pop().ok_or(Failure::from(FailureKind::Exhausted))?;
        if let Err(failure) = self.start_vm(vm, begin) {
            self.replies.push(spare);
            return Err(failure);
        }
        // The present reply keeps the caller until the machine runs; the spare one takes its place.
        if let Some(starting) = self.starting.back_mut() {
            starting.reply = Some(core::mem::replace(&mut self.reply, spare));
        }
        call.defer();
        Ok(())
    }

    /// Something about a machine changed: tells those who follow.
    pub fn machine_changed(&mut self) {
        for record in &mut self.servers {
            if let Some(slot) = record.machine_follower
                && Notification::new(slot).signal().is_err()
            {
                // The follower's notification is gone.
                slots::free(slot);
                record.machine_follower = None;
            }
        }
    }
}

impl vm_manager::Server for Root {
    fn list(&mut self, _call: &mut Call, first: u32) -> Result<Page<VmSummary>, Failure> {
        let summary = |index: usize| {
            let (config, entry) = (&self.manifest.vms[index], &self.machines.entries[index]);
            let processes = self.servers.iter().filter(|record| record.vm == Some(index));
            let pages: u64 = processes
                .filter_map(|record| record.process.as_ref())
                .map(|process| process.pages)
                .sum();
            VmSummary {
                name: config.name.clone(),
                state: entry.state,
                memory: config.memory,
                vcpus: config.vcpus,
                overhead_pages: entry.running.as_ref().map_or(0, |running| pages + running.shared_pages()),
                starts: entry.starts,
                started_tsc: entry.started,
                reason: entry.reason.clone(),
            }
        };
        Ok(Page::fill(
            (first as usize..self.manifest.vms.len())
                .filter(|index| !self.machines.entries[*index].removed)
                .map(|index| (index as u32, summary(index))),
        ))
    }

    fn start(&mut self, call: &mut Call, name: &str) -> Result<(), Failure> {
        let vm = self.machine_named(name)?;
        let keep = !self.has_own_state(vm);
        let entry = &mut self.machines.entries[vm];
        if entry.state == VmState::Suspended {
            return self.start_and_answer(call, vm, Begin::State { keep });
        }
        let begin = if entry.given_up { Begin::Anew } else { Begin::AsFound };
        if entry.running.is_none() {
            // That of another start: what is found counts.
            entry.state_file = None;
        }
        self.start_and_answer(call, vm, begin)
    }

    fn resume(&mut self, call: &mut Call, name: &str, keep: bool) -> Result<(), Failure> {
        let vm = self.machine_named(name)?;
        let entry = &self.machines.entries[vm];
        if entry.state != VmState::Suspended && !(keep && entry.state_file.is_some()) {
            let text = format_args!("virtual machine {name} is not suspended");
            return Err(Failure::new(FailureKind::BadState, text));
        }
        let keep = keep || !self.has_own_state(vm);
        self.start_and_answer(call, vm, Begin::State { keep })
    }

    fn state_file(&mut self, _call: &mut Call, name: &str) -> Result<Option<FilePlace>, Failure> {
        let vm = self.machine_named(name)?;
        let entry = &self.machines.entries[vm];
        let own = entry.state == VmState::Suspended && self.has_own_state(vm);
        Ok(entry.state_file.as_ref().filter(|_| own).map(file_place))
    }

    fn set_state_file(&mut self, _call: &mut Call, name: &str, file: Option<FilePlace>) -> Result<(), Failure> {
        let vm = self.machine_named(name)?;
        if matches!(file, Some(FilePlace::Image { .. })) {
            return Err(Failure::new(
                FailureKind::BadRequest,
                "a machine's state is in a datastore: nothing can be written into the image",
            ));
        }
        self.machines.entries[vm].state_file = file.map(file_of);
        Ok(())
    }

    fn passthrough(&mut self, _call: &mut Call, name: &str) -> Result<Vec<PassedInfo>, Failure> {
        Ok(self.passed_info(self.machine_named(name)?))
    }

    fn functions(&mut self, _call: &mut Call, first: u32) -> Result<Page<HostFunction>, Failure> {
        let all = first as usize..self.devices.entries.len();
        Ok(Page::fill(all.filter_map(|index| Some((index as u32, self.host_function(index)?)))))
    }

    fn keep_function(&mut self, _call: &mut Call, address: &str) -> Result<(), Failure> {
        self.keep(passed_of(address)?)
    }

    fn stop(&mut self, _call: &mut Call, name: &str) -> Result<(), Failure> {
        let vm = self.machine_named(name)?;
        if self.machines.entries[vm].state == VmState::Suspended {
            let entry = &mut self.machines.entries[vm];
            (entry.given_up, entry.state_file, entry.found) = (true, None, None);
            self.end_vm(vm, VmState::Stopped, "stopped while it was suspended");
            return Ok(());
        }
        if !self.machines.is_running(vm) {
            return Err(Failure::new(
                FailureKind::BadState,
                format_args!("virtual machine {name} does not run"),
            ));
        }
        self.end_vm(vm, VmState::Stopped, "stopped");
        Ok(())
    }

    fn connect(&mut self, call: &mut Call, name: &str, service: VmService) -> Result<(), Failure> {
        let vm = self.machine_named(name)?;
        if let Some(starting) = self.starting.iter_mut().find(|starting| starting.vm == vm) {
            let busy = || {
                Failure::new(
                    FailureKind::Exhausted,
                    format_args!("virtual machine {name} is starting: try again"),
                )
            };
            let spare = self.replies.pop().ok_or_else(busy)?;
            let reply = core::mem::replace(&mut self.reply, spare);
            starting.connects.push(Connect {
                reply,
                badge: call.badge,
                service,
            });
            call.defer();
            return Ok(());
        }
        self.connect_to(call, vm, service)?;
        // The reply takes a copy; this one goes when it is sent.
        self.sent.extend_from_slice(call.given());
        Ok(())
    }

    fn config(&mut self, _call: &mut Call, name: &str) -> Result<VmConfig, Failure> {
        let vm = self.machine_named(name)?;
        Ok(config_of(&self.manifest.vms[vm], self.passed_addresses(vm)))
    }

    fn create(&mut self, _call: &mut Call, config: VmConfig) -> Result<(), Failure> {
        let passed = all_passed(&config.passthrough)?;
        let config = vm_of(config, false, passed);
        self.check_machine(&config, None)?;
        let line = format!("virtual machine {} was made", config.name);
        let mut entry = Entry::new();
        if let Some(known) = self.machines.found.iter().position(|(name, _)| *name == config.name) {
            let (_, file) = self.machines.found.swap_remove(known);
            (entry.found, entry.state_file, entry.state) = (Some(file.clone()), Some(file), VmState::Suspended);
        }
        let places = &self.machines.entries;
        match places.iter().position(|entry| entry.removed) {
            Some(vm) => {
                self.manifest.vms[vm] = config;
                // The count of starts goes on: it makes each start another machine.
                self.machines.entries[vm] = Entry {
                    earlier: self.machines.entries[vm].earlier.saturating_add(self.machines.entries[vm].starts),
                    ..entry
                };
                self.name_servers(vm);
            }
            None if places.len() >= MOST => {
                let text = format_args!("there are {MOST} virtual machines: remove one first");
                return Err(Failure::new(FailureKind::Exhausted, text));
            }
            None => {
                let vm = places.len();
                add_servers(&mut self.servers, &self.manifest, &self.machine, vm, &config.name);
                self.manifest.vms.push(config);
                self.machines.entries.push(entry);
            }
        }
        self.say(Level::Info, &line);
        self.machine_changed();
        Ok(())
    }

    fn configure(&mut self, _call: &mut Call, name: &str, config: VmConfig) -> Result<(), Failure> {
        let vm = self.stopped_machine(name)?;
        // Those that stay are what the manifest calls them, if it does.
        let passed = if config.passthrough == self.passed_addresses(vm) {
            self.manifest.vms[vm].passthrough.clone()
        } else {
            all_passed(&config.passthrough)?
        };
        let config = vm_of(config, self.manifest.vms[vm].autostart, passed);
        self.check_machine(&config, Some(vm))?;
        self.manifest.vms[vm] = config;
        self.free_functions();
        self.name_servers(vm);
        self.machine_changed();
        Ok(())
    }

    fn set_medium(&mut self, _call: &mut Call, name: &str, medium: Option<FilePlace>) -> Result<(), Failure> {
        let vm = self.machine_named(name)?;
        let config = Vm {
            cdrom: medium.map(file_of),
            ..self.manifest.vms[vm].clone()
        };
        if config.firmware.is_none() {
            let text = format_args!("virtual machine {name} has no CD-ROM drive: only one that begins with firmware has");
            return Err(Failure::new(FailureKind::BadState, text));
        }
        self.check_machine(&config, Some(vm))?;
        self.manifest.vms[vm] = config;
        self.machine_changed();
        Ok(())
    }

    fn remove(&mut self, _call: &mut Call, name: &str) -> Result<(), Failure> {
        let vm = self.stopped_machine(name)?;
        let entry = &mut self.machines.entries[vm];
        entry.removed = true;
        entry.reason = String::new();
        self.free_functions();
        self.say(Level::Info, &format!("virtual machine {name} was removed"));
        self.machine_changed();
        Ok(())
    }

    fn follow(&mut self, call: &mut Call) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        let slot = keep_notification(call)?;
        if let Some(old) = self.servers[caller].machine_follower.replace(slot) {
            slots::free(old);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_proto::vm_manager::{BootDevice, WatchdogAction};

    #[test]
    fn names_are_checked() {
        for good in ["debian", "a", "web-1", "3.old_one"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-x", ".", "a b", "ä", "a/b", &"x".repeat(MAX_NAME + 1)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_configuration_comes_back_as_it_was() {
        let config = VmConfig {
            name: "web".into(),
            memory: 64 << 20,
            vcpus: 2,
            weight: 200,
            budget_us: 5,
            period_us: 1000,
            firmware: None,
            kernel: FilePlace::Store {
                store: "main".into(),
                path: "boot/vmlinuz".into(),
            },
            initramfs: Some(FilePlace::Image { name: "disk".into() }),
            command_line: "quiet".into(),
            display: true,
            cdrom: None,
            variables: None,
            boot_order: vec![BootDevice::Nic(0), BootDevice::Disk(1), BootDevice::Cdrom],
            boot_menu_ms: 3000,
            watchdog: Some(WatchdogAction::PowerOff),
            disks: vec![DiskConfig {
                place: DiskPlace::Store {
                    store: "main".into(),
                    disk: "web.tvd".into(),
                },
                read_only: true,
                serial: "1".into(),
                controller: DiskController::Ahci,
            }],
            nics: vec![NicConfig {
                port_group: "VM Network".into(),
                mac: [2, 0, 0, 0, 0, 1],
                model: NicModel::E1000e,
            }],
            passthrough: vec!["0000:03:00.0".into()],
        };
        let passed = all_passed(&config.passthrough).unwrap();
        assert_eq!(passed[0].to_string(), "PCI function 0000:03:00.0");
        assert_eq!(config_of(&vm_of(config.clone(), true, passed), config.passthrough.clone()), config);
    }

    #[test]
    fn functions_are_named_by_address_and_once() {
        for wrong in ["", "8086:10d3", "storage", "0000:03:00.8", "0000:03:20.0", "x\ny"] {
            assert_eq!(passed_of(wrong).unwrap_err().kind, FailureKind::BadRequest, "{wrong}");
        }
        let all = |texts: &[&str]| all_passed(&texts.iter().map(|text| (*text).into()).collect::<Vec<String>>());
        assert_eq!(all(&["0000:03:00.0", "0000:03:00.1"]).unwrap().len(), 2);
        // The same one, otherwise written.
        let failure = all(&["0000:03:00.0", "3:0.0"]).unwrap_err();
        assert!(
            failure.to_string().contains("PCI function 0000:03:00.0 is there twice"),
            "{failure}"
        );
    }
}
