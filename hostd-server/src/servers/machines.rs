//! Virtual machines: init makes, starts and ends them, each one's VMM looks into it.

use super::{
    Answer, LIST, agent,
    configuration::{config, medium_place, spec},
    failed,
    init::microseconds,
    passthrough, server,
};
use alloc::{format, string::String, vec::Vec};
use tessera_hostd::host::{DiskSpec, Failure, HostError, VmFacts, VmPower, VmRun, VmSpec, VmUsage};
use tessera_proto::{
    CallError, FailureKind, Slots, collect, datastore,
    storage::GuestDiskStatistics,
    supervisor::ServerInfo,
    vm_control::{self, RunState, VmInfo, WATCHDOG_OFF},
    vm_manager::{Client, FilePlace, VmService, VmState, VmSummary},
    vm_media,
    vm_memory::DiskPlace,
};
use tessera_rt::{Connection, Endpoint, slots, sys, time};

/// How long a start may take: a kernel and an initial RAM disk are read from a datastore.
const START_PATIENCE: u64 = 120_000;
/// How long a machine's state may take to be written or read.
const SUSPEND_PATIENCE: u64 = 600_000;
/// How often is looked whether it is.
const LOOK: u64 = 100;
/// How long init may take for anything else.
pub const PATIENCE: u64 = 10_000;
/// How long to wait for a machine that is starting until it can be connected to.
pub const CONNECT_PATIENCE: u64 = 10_000;
/// How long a machine's own server may take to do something; it is not trusted to.
const CONTROL_PATIENCE: u64 = 3000;
/// How long it may take when all machines are asked how they are.
const GLANCE_PATIENCE: u64 = 200;
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

pub fn manager(patience: u64) -> Answer<Client<Connection>> {
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

/// The machines.
pub struct Machines;

impl Machines {
    pub fn list(self) -> Answer<Vec<VmFacts>> {
        let mut manager = manager(PATIENCE)?;
        let all = collect(LIST, |first| manager.list(first)).map_err(|error| failed("The machines cannot be listed", &error))?;
        Ok(all.into_iter().map(facts).collect())
    }

    /// What running machines use. `servers` and `disks` tell of those that they consist of.
    pub fn usage(self, servers: &[ServerInfo], disks: &[GuestDiskStatistics]) -> Answer<Vec<VmUsage>> {
        let mut manager = manager(PATIENCE)?;
        let all = collect(LIST, |first| manager.list(first)).map_err(|error| failed("The machines cannot be listed", &error))?;
        let running = all.into_iter().filter(|vm| vm.state == VmState::Running);
        let usage = |vm: VmSummary| {
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
        Ok(spec(config))
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
            VmPower::Start => {
                passthrough::claim(name)?;
                manager(START_PATIENCE)?
                    .start(name)
                    .map_err(|error| failed(&format!("{name} did not start"), &error))
            }
            VmPower::Stop => self.stop(name),
            // A guest that has an agent does what it is told; another one may look at its power button.
            VmPower::Shutdown => agent::shut_down(name).or_else(|_| control(name, "asked to shut down", |vmm| vmm.power_button())),
            VmPower::Wake => control(name, "woken", |vmm| vmm.power_button()),
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
                    Some(info) if run_of(&info) == VmRun::On && !info.report.is_empty() => {
                        Err(HostError::new(Failure::Busy, format!("{what}: {}", info.report)))
                    }
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

/// A machine, as init and its monitor tell of it.
fn facts(vm: VmSummary) -> VmFacts {
    let info = if vm.state == VmState::Running { inside(&vm.name) } else { None };
    let run = match (&vm.state, &info) {
        (VmState::Stopped, _) => VmRun::Off,
        (VmState::Failed, _) => VmRun::Failed,
        (VmState::Suspended, _) => VmRun::Suspended,
        (VmState::Running, info) => info.as_ref().map_or(VmRun::On, run_of),
    };
    // A monitor ends with the machine that its guest's watchdog switched off.
    let off = vm.state == VmState::Stopped && vm.reason.contains(WATCHDOG_OFF);
    VmFacts {
        asleep: info.as_ref().is_some_and(|info| info.state == RunState::Sleeping),
        start: info.is_some().then_some(vm.started_tsc),
        panics: info.as_ref().map_or(0, |info| info.panics),
        watchdog_timeouts: info.as_ref().map_or(u32::from(off), |info| info.watchdog_timeouts),
        reason: match vm.state {
            VmState::Stopped | VmState::Failed => vm.reason,
            VmState::Running | VmState::Suspended => info.map(|info| info.report).unwrap_or_default(),
        },
        name: vm.name,
        run,
        addresses: Vec::new(),
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
fn inside(name: &str) -> Option<VmInfo> {
    let slot = connect(name, VmService::Control, GLANCE_PATIENCE).ok()?;
    vm_control::Client(slot.connection(GLANCE_PATIENCE)).info().ok()
}

fn run_of(info: &VmInfo) -> VmRun {
    match info.state {
        RunState::Loading | RunState::Running | RunState::Suspending | RunState::Sleeping => VmRun::On,
        RunState::Failed => VmRun::Failed,
        RunState::PoweredOff => VmRun::Off,
    }
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
