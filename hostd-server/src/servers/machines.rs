//! Virtual machines: init makes, starts and ends them, each one's VMM looks into it.

use super::{
    Answer, LIST, failed,
    init::{cpu_mhz, microseconds},
    server,
};
use alloc::{format, string::String, vec::Vec};
use tessera_hostd::host::{DiskSpec, Failure, GuestFirmware, HostError, NicSpec, Place, VmFacts, VmPower, VmRun, VmSpec, VmUsage};
use tessera_proto::{
    CallError, FailureKind, Slots, collect, datastore,
    storage::GuestDiskStatistics,
    supervisor::ServerInfo,
    vm_control::{self, RunState},
    vm_manager::{Client, FilePlace, Firmware, VmConfig, VmService, VmState},
    vm_media,
    vm_memory::{DiskConfig, DiskPlace, NicConfig},
};
use tessera_rt::{Connection, Endpoint, slots, sys, time};

/// How long a start may take: a kernel and an initial RAM disk are read from a datastore.
const START_PATIENCE: u64 = 120_000;
/// How long a machine's state may take to be written or read.
const SUSPEND_PATIENCE: u64 = 600_000;
/// How often is looked whether it is.
const LOOK: u64 = 100;
/// How long init may take for anything else.
const PATIENCE: u64 = 10_000;
/// How long to wait for a machine that is starting until it can be connected to.
pub const CONNECT_PATIENCE: u64 = 10_000;
/// How long a machine's own server may take to do something; it is not trusted to.
const CONTROL_PATIENCE: u64 = 3000;
/// How long it may take when all machines are asked how they are.
const GLANCE_PATIENCE: u64 = 200;
/// Period of the vCPUs' budgets in microseconds.
const PERIOD_US: u64 = 10_000;
/// Least time of a vCPU in a period: with less it would hardly do anything between two switches.
const LEAST_US: u64 = 100;
/// Shares of the API for one unit of the kernel's weight: 1000 and 100 are normal.
const SHARES_OF_WEIGHT: u32 = 10;

/// What the API calls the image, where a file can be as it can be in a datastore.
const IMAGE: &str = "image";

/// A slot of the capability table that is given back at the end.
pub struct Slot(u32);

impl Drop for Slot {
    fn drop(&mut self) {
        slots::free(self.0);
    }
}

impl Slot {
    /// A connection to what is in it, good as long as the slot. Calls take at most `patience` milliseconds.
    pub fn connection(&self, patience: u64) -> Connection {
        Connection::with_timeout(Endpoint::new(self.0), time::milliseconds(patience))
    }
}

fn manager(patience: u64) -> Answer<Client<Connection>> {
    Ok(Client(server("vm_manager", patience)?))
}

/// Connects to a service of a running machine; waits at most `patience` milliseconds for one that is starting.
pub fn connect(name: &str, service: VmService, patience: u64) -> Answer<Slot> {
    let slot = slots::take().map_err(|error| failed("hostd has no place for another connection", &CallError::Kernel(error)))?;
    let slot = Slot(slot);
    manager(patience)?
        .connect(name, service, Slots(slot.0))
        .map_err(|error| failed(&format!("{name} cannot be connected to"), &error))?;
    Ok(slot)
}

/// Has a machine's VMM do something.
fn control(name: &str, what: &str, order: impl FnOnce(&mut vm_control::Client<Connection>) -> Result<(), CallError>) -> Answer<()> {
    let slot = connect(name, VmService::Control, CONNECT_PATIENCE)?;
    order(&mut vm_control::Client(slot.connection(CONTROL_PATIENCE))).map_err(|error| failed(&format!("{name} was not {what}"), &error))
}

fn file_place(place: &Place) -> FilePlace {
    match place.clone() {
        Place::Image(name) => FilePlace::Image { name },
        Place::Store(store, path) => FilePlace::Store { store, path },
    }
}

fn disk_config(disk: &DiskSpec, read_only: bool) -> DiskConfig {
    DiskConfig {
        place: DiskPlace::Store {
            store: disk.store.clone(),
            disk: disk.path.clone(),
        },
        read_only: disk.read_only || read_only,
        serial: String::new(),
    }
}

/// Time of each vCPU in a period, in microseconds, so that all together use at most `limit` MHz; 0: as much as there is, which no limit and one of 0 mean.
fn budget(limit: Option<u32>, vcpus: u32, mhz: u32) -> u64 {
    let Some(limit) = limit.filter(|limit| *limit > 0) else { return 0 };
    let all = u64::from(mhz.max(1)) * u64::from(vcpus.max(1));
    let budget = (PERIOD_US * u64::from(limit) / all).max(LEAST_US);
    if budget >= PERIOD_US { 0 } else { budget }
}

/// Where what is in a drive is.
fn medium_place(disk: &DiskSpec) -> FilePlace {
    match disk.store.as_str() {
        IMAGE => FilePlace::Image { name: disk.path.clone() },
        store => FilePlace::Store {
            store: store.into(),
            path: disk.path.clone(),
        },
    }
}

/// Where a machine's UEFI keeps its variables: beside its first disk, whatever the machine is called.
fn variables_of(disk: &DiskSpec) -> Option<FilePlace> {
    let stem = disk.path.strip_suffix(".vdisk").unwrap_or(&disk.path);
    (!disk.store.is_empty() && !disk.read_only).then(|| FilePlace::Store {
        store: disk.store.clone(),
        path: format!("{stem}.variables"),
    })
}

fn config(spec: &VmSpec) -> Answer<VmConfig> {
    let unsupported = |text: String| Err(HostError::new(Failure::Unsupported, text));
    let firmware = spec.firmware.map(|firmware| match firmware {
        GuestFirmware::Bios => Firmware::Bios,
        GuestFirmware::Uefi => Firmware::Uefi,
    });
    let kernel = match (&spec.kernel, firmware) {
        // init puts the firmware's own file there.
        (_, Some(_)) => FilePlace::Image { name: String::new() },
        (Some(kernel), None) => file_place(kernel),
        (None, None) => return unsupported(format!("{} has neither a kernel nor firmware: name one of them", spec.name)),
    };
    if spec.reservation_mhz > 0 {
        let text = format!(
            "{} asks for a reservation of processor time, which this host does not have: set it to 0",
            spec.name
        );
        return unsupported(text);
    }
    let disks = spec.disks.iter().map(|disk| disk_config(disk, false));
    // Without firmware there is no drive: the guest sees a CD as one more disk.
    let as_disk = spec.cdrom.iter().filter(|_| firmware.is_none()).map(|disk| disk_config(disk, true));
    let in_drive = spec.cdrom.as_ref().filter(|_| firmware.is_some()).map(medium_place);
    Ok(VmConfig {
        name: spec.name.clone(),
        memory: spec.memory,
        vcpus: spec.vcpus,
        weight: (spec.shares / SHARES_OF_WEIGHT).clamp(1, 10_000),
        budget_us: budget(spec.limit_mhz, spec.vcpus, cpu_mhz()),
        period_us: PERIOD_US,
        firmware,
        kernel,
        initramfs: spec.initramfs.as_ref().map(file_place),
        command_line: spec.command_line.clone(),
        display: true,
        cdrom: in_drive,
        variables: spec
            .disks
            .first()
            .filter(|_| firmware == Some(Firmware::Uefi))
            .and_then(variables_of),
        boot_order: Vec::new(),
        boot_menu_ms: 0,
        watchdog: None,
        disks: disks.chain(as_disk).collect(),
        // A card has its link up as long as it is there.
        nics: spec
            .nics
            .iter()
            .filter(|nic| nic.connected)
            .map(|nic| NicConfig {
                port_group: nic.network.clone(),
                mac: nic.mac,
            })
            .collect(),
    })
}

/// The machines.
pub struct Machines;

impl Machines {
    pub fn list(self) -> Answer<Vec<VmFacts>> {
        let mut manager = manager(PATIENCE)?;
        let all = collect(LIST, |first| manager.list(first)).map_err(|error| failed("The machines cannot be listed", &error))?;
        let facts = |vm: tessera_proto::vm_manager::VmSummary| {
            let (run, reason) = match vm.state {
                VmState::Stopped => (VmRun::Off, vm.reason),
                VmState::Failed => (VmRun::Failed, vm.reason),
                VmState::Suspended => (VmRun::Suspended, String::new()),
                VmState::Running => inside(&vm.name).unwrap_or((VmRun::On, String::new())),
            };
            VmFacts {
                name: vm.name,
                run,
                reason,
                addresses: Vec::new(),
            }
        };
        Ok(all.into_iter().map(facts).collect())
    }

    /// What running machines use. `servers` and `disks` tell of those that they consist of.
    pub fn usage(self, servers: &[ServerInfo], disks: &[GuestDiskStatistics]) -> Answer<Vec<VmUsage>> {
        let mut manager = manager(PATIENCE)?;
        let all = collect(LIST, |first| manager.list(first)).map_err(|error| failed("The machines cannot be listed", &error))?;
        let running = all.into_iter().filter(|vm| vm.state == VmState::Running);
        let usage = |vm: tessera_proto::vm_manager::VmSummary| {
            let own = servers.iter().filter(|server| server.vm.as_deref() == Some(vm.name.as_str()));
            let cpu_ticks = own.map(|server| server.cpu_ticks).fold(0, u64::saturating_add);
            let own = disks.iter().filter(|disk| disk.vm == vm.name);
            let disk = own.fold((0u64, 0u64), |(read, written), disk| {
                (read.saturating_add(disk.reads.1), written.saturating_add(disk.writes.1))
            });
            VmUsage {
                cpu_us: microseconds(cpu_ticks),
                // All of its RAM is the guest's from the start.
                memory: vm.memory,
                disk,
                exits: exits(&vm.name, vm.vcpus).unwrap_or(0),
                uptime_ms: time::from_ticks(time::now().saturating_sub(vm.started_tsc), 1000, time::hz()),
                // The network server does not tell of guests' cards.
                network: (0, 0),
                name: vm.name,
            }
        };
        Ok(running.map(usage).collect())
    }

    /// How a machine is made up.
    pub fn spec(self, name: &str) -> Answer<VmSpec> {
        let config = manager(PATIENCE)?
            .config(name)
            .map_err(|error| failed(&format!("{name} cannot be looked at"), &error))?;
        let place = |file: FilePlace| match file {
            FilePlace::Image { name } => Place::Image(name),
            FilePlace::Store { store, path } => Place::Store(store, path),
        };
        let disk = |disk: DiskConfig| {
            let (store, path) = match disk.place {
                DiskPlace::Device { device, partition: 0 } => (String::new(), device),
                DiskPlace::Device { device, partition } => (String::new(), format!("{device}:{partition}")),
                DiskPlace::Store { store, disk } => (store, disk),
            };
            DiskSpec {
                store,
                path,
                read_only: disk.read_only,
            }
        };
        let nic = |nic: NicConfig| NicSpec {
            network: nic.port_group,
            mac: nic.mac,
            connected: true,
        };
        let all = u64::from(cpu_mhz()) * u64::from(config.vcpus);
        let limit = |budget: u64| u32::try_from(all * budget / config.period_us.max(1)).unwrap_or(u32::MAX);
        Ok(VmSpec {
            name: config.name,
            memory: config.memory,
            vcpus: config.vcpus,
            shares: config.weight.saturating_mul(SHARES_OF_WEIGHT),
            reservation_mhz: 0,
            limit_mhz: Some(config.budget_us).filter(|budget| *budget > 0).map(limit),
            firmware: config.firmware.map(|firmware| match firmware {
                Firmware::Bios => GuestFirmware::Bios,
                Firmware::Uefi => GuestFirmware::Uefi,
            }),
            kernel: config.firmware.is_none().then(|| place(config.kernel)),
            initramfs: config.initramfs.map(place),
            command_line: config.command_line,
            disks: config.disks.into_iter().map(disk).collect(),
            nics: config.nics.into_iter().map(nic).collect(),
            cdrom: config.cdrom.map(|file| {
                let (store, path) = match file {
                    FilePlace::Image { name } => (IMAGE.into(), name),
                    FilePlace::Store { store, path } => (store, path),
                };
                DiskSpec {
                    store,
                    path,
                    read_only: true,
                }
            }),
        })
    }

    pub fn define(self, old_name: Option<&str>, spec: &VmSpec) -> Answer<()> {
        let config = config(spec)?;
        let mut manager = manager(PATIENCE)?;
        if old_name != Some(spec.name.as_str()) && manager.config(&spec.name).is_ok() {
            return Err(HostError::new(Failure::Exists, format!("There is a machine {} already", spec.name)));
        }
        match old_name {
            Some(old) => manager.configure(old, config),
            None => manager.create(config),
        }
        .map_err(|error| failed(&format!("{} cannot be made as it is wanted", spec.name), &error))
    }

    /// Says what is in a machine's drive. If its guest cannot be told, everything is as before.
    pub fn change_medium(self, name: &str, medium: Option<&DiskSpec>) -> Answer<()> {
        let mut manager = manager(PATIENCE)?;
        let what = format!("The medium of {name} was not changed");
        let before = manager.config(name).map_err(|error| failed(&what, &error))?.cdrom;
        let place = medium.map(medium_place);
        manager.set_medium(name, place.clone()).map_err(|error| failed(&what, &error))?;
        let all = collect(LIST, |first| manager.list(first)).map_err(|error| failed(&what, &error))?;
        if !all.iter().any(|vm| vm.name == name && vm.state == VmState::Running) {
            return Ok(());
        }
        let told = connect(name, VmService::Control, CONNECT_PATIENCE).and_then(|slot| {
            let mut drive = vm_media::Client(slot.connection(CONTROL_PATIENCE));
            drive.change(place).map_err(|error| failed(&what, &error))
        });
        if told.is_err() {
            // What went wrong first is what counts.
            let _ = manager.set_medium(name, before);
        }
        told
    }

    pub fn forget(self, name: &str) -> Answer<()> {
        manager(PATIENCE)?
            .remove(name)
            .map_err(|error| failed(&format!("{name} was not removed"), &error))
    }

    pub fn power(self, name: &str, action: VmPower) -> Answer<()> {
        match action {
            VmPower::Start => manager(START_PATIENCE)?
                .start(name)
                .map_err(|error| failed(&format!("{name} did not start"), &error)),
            VmPower::Stop => self.stop(name),
            VmPower::Shutdown => control(name, "asked to shut down", |vmm| vmm.power_button()),
            VmPower::Reset => control(name, "reset", |vmm| vmm.reset()),
            VmPower::Suspend => self.suspend(name, None),
            VmPower::Resume => self.resume(name, None),
        }
    }

    /// Ends a machine at once. One that is suspended gives its state up.
    fn stop(self, name: &str) -> Answer<()> {
        let what = format!("{name} was not stopped");
        let mut manager = manager(PATIENCE)?;
        let state = manager.state_file(name).map_err(|error| failed(&what, &error))?;
        manager.stop(name).map_err(|error| failed(&what, &error))?;
        let Some(FilePlace::Store { store, path }) = state else {
            return Ok(());
        };
        let mut stores = datastore::Client(server("storage", PATIENCE)?);
        match stores.remove(&store, &path) {
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound => Ok(()),
            removed => removed.map_err(|error| failed(&format!("The state of {name} was not removed"), &error)),
        }
    }

    /// Has a running machine's state written, to this file in a datastore or to its own, and waits until it has ended.
    pub fn suspend(self, name: &str, file: Option<(String, String)>) -> Answer<()> {
        let what = format!("{name} was not suspended");
        let mut manager = manager(PATIENCE)?;
        let config = manager.config(name).map_err(|error| failed(&what, &error))?;
        let store = config.disks.into_iter().find_map(|disk| match disk.place {
            DiskPlace::Store { store, .. } => Some(store),
            DiskPlace::Device { .. } => None,
        });
        let own = store.map(|store| (store, format!("{name}.vmss")));
        let (store, path) = file.or(own).ok_or_else(|| {
            let text = format!("{what}: it has no disk in a datastore, where its state could be");
            HostError::new(Failure::Unsupported, text)
        })?;
        manager
            .set_state_file(name, Some(FilePlace::Store { store, path }))
            .map_err(|error| failed(&what, &error))?;
        control(name, "suspended", |vmm| vmm.suspend())?;
        wait_until(&what, || {
            let (state, reason) = state_of(name)?;
            match state {
                VmState::Suspended => Ok(true),
                VmState::Running => match inside(name) {
                    // Why it was not is what its monitor has to report while it runs.
                    Some((VmRun::On, report)) if !report.is_empty() => Err(HostError::new(Failure::Busy, format!("{what}: {report}"))),
                    _ => Ok(false),
                },
                _ => Err(HostError::new(Failure::Busy, format!("{what}: it ended meanwhile: {reason}"))),
            }
        })
    }

    /// Has a machine that does not run go on with its state: that of this file, which stays, or its own, which is removed.
    pub fn resume(self, name: &str, file: Option<(String, String)>) -> Answer<()> {
        let what = format!("{name} does not go on");
        let keep = file.is_some();
        let mut manager = manager(START_PATIENCE)?;
        if let Some((store, path)) = file {
            manager
                .set_state_file(name, Some(FilePlace::Store { store, path }))
                .map_err(|error| failed(&what, &error))?;
        }
        manager.resume(name, keep).map_err(|error| failed(&what, &error))?;
        wait_until(&what, || {
            let (state, reason) = state_of(name)?;
            match state {
                VmState::Running => Ok(inside(name).is_some()),
                _ => Err(HostError::new(Failure::Busy, format!("{what}: {reason}"))),
            }
        })
    }
}

/// What init says of a machine, and why it last ended.
fn state_of(name: &str) -> Answer<(VmState, String)> {
    let mut manager = manager(PATIENCE)?;
    let all = collect(LIST, |first| manager.list(first)).map_err(|error| failed("The machines cannot be listed", &error))?;
    let found = all.into_iter().find(|vm| vm.name == name).map(|vm| (vm.state, vm.reason));
    found.ok_or_else(|| HostError::new(Failure::NotFound, format!("There is no machine {name}")))
}

/// Asks again and again, with pauses, until something is done.
fn wait_until(what: &str, mut done: impl FnMut() -> Answer<bool>) -> Answer<()> {
    let end = time::after(time::milliseconds(SUSPEND_PATIENCE));
    while !done()? {
        if time::now() > end {
            return Err(HostError::new(Failure::Busy, format!("{what} in time")));
        }
        let _ = sys::wait(0, Some(time::after(time::milliseconds(LOOK))));
    }
    Ok(())
}

/// How a running machine is from the inside; `None`: its VMM does not tell now.
fn inside(name: &str) -> Option<(VmRun, String)> {
    let slot = connect(name, VmService::Control, GLANCE_PATIENCE).ok()?;
    let info = vm_control::Client(slot.connection(GLANCE_PATIENCE)).info().ok()?;
    let run = match info.state {
        RunState::Loading | RunState::Running | RunState::Suspending => VmRun::On,
        RunState::Failed => VmRun::Failed,
        RunState::PoweredOff => VmRun::Off,
    };
    Some((run, info.report))
}

/// Exits of a machine's processors.
fn exits(name: &str, vcpus: u32) -> Option<u64> {
    let slot = connect(name, VmService::Control, GLANCE_PATIENCE).ok()?;
    let mut vmm = vm_control::Client(slot.connection(GLANCE_PATIENCE));
    let mut all = 0u64;
    for vcpu in 0..vcpus {
        let counted = vmm.exits(vcpu).ok()?;
        all = counted
            .exits
            .iter()
            .map(|one| one.count)
            .fold(all.saturating_add(counted.in_kernel), u64::saturating_add);
    }
    Some(all)
}
