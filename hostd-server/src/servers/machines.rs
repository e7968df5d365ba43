//! Virtual machines: init, and their monitors.

use super::{LIST, error, mhz_to_budget, unsupported};
use alloc::vec::Vec;
use tessera_hostd::host::{Failure, HostError, NicSpec, Place, VmFacts, VmPower, VmRun, VmSpec};
use tessera_proto::{
    CallError, Slots, collect, vm_control,
    vm_manager::{Client, FilePlace, VmConfig, VmService, VmState, VmSummary},
    vm_memory::{DiskConfig, DiskPlace, NicConfig},
};
use tessera_rt::{Connection, Endpoint, slots, start, time};

/// Milliseconds that a monitor has to answer.
const PATIENCE_MS: u64 = 1000;
/// Period of processor budgets.
const PERIOD_US: u64 = 10_000;

fn client() -> Client<Connection> {
    Client(start::connect("vm_manager"))
}

/// All machines.
pub fn list() -> Result<Vec<VmSummary>, CallError> {
    let mut client = client();
    collect(LIST, |first| client.list(first))
}

/// Connects to a service of a machine. The slot is the caller's.
pub fn connect(name: &str, service: VmService) -> Result<u32, CallError> {
    let slot = slots::take()?;
    match client().connect(name, service, Slots(slot)) {
        Ok(()) => Ok(slot),
        Err(failure) => {
            slots::free(slot);
            Err(failure)
        }
    }
}

/// Asks a machine's monitor something.
fn control<T>(name: &str, ask: impl FnOnce(&mut vm_control::Client<Connection>) -> Result<T, CallError>) -> Result<T, CallError> {
    let slot = connect(name, VmService::Control)?;
    let connection = Connection::with_timeout(Endpoint::new(slot), time::milliseconds(PATIENCE_MS));
    let answer = ask(&mut vm_control::Client(connection));
    slots::free(slot);
    answer
}

/// How often a machine's processors left the guest.
pub fn exits(name: &str, vcpus: u32) -> u64 {
    let count =
        |vcpu| control(name, |monitor| monitor.exits(vcpu)).map_or(0, |exits| exits.exits.iter().map(|exit| exit.count).sum::<u64>());
    (0..vcpus).map(count).sum()
}

/// What the machines are doing.
pub fn facts() -> Result<Vec<VmFacts>, HostError> {
    let machines = list().map_err(|failure| error("the virtual machines", failure))?;
    let fact = |vm: VmSummary| {
        let mut run = match vm.state {
            VmState::Stopped => VmRun::Off,
            VmState::Running => VmRun::On,
            VmState::Failed => VmRun::Failed,
        };
        let mut reason = vm.reason;
        // A monitor outlives its guest's failure, so that it can be looked at.
        if run == VmRun::On
            && let Ok(info) = control(&vm.name, |monitor| monitor.info())
            && info.state == vm_control::RunState::Failed
        {
            run = VmRun::Failed;
            reason = info.report.lines().next().unwrap_or_default().into();
        }
        VmFacts {
            name: vm.name,
            run,
            reason,
            addresses: Vec::new(),
        }
    };
    Ok(machines.into_iter().map(fact).collect())
}

fn place(place: &Place) -> FilePlace {
    match place.clone() {
        Place::Image(name) => FilePlace::Image { name },
        Place::Store(store, path) => FilePlace::Store { store, path },
    }
}

fn config(spec: &VmSpec) -> Result<VmConfig, HostError> {
    let Some(kernel) = &spec.kernel else {
        return Err(unsupported(
            "a virtual machine boots from a kernel here, firmware is not there yet: name a kernel",
        ));
    };
    if spec.cdrom.is_some() {
        return Err(unsupported("virtual machines have no CD-ROM drive yet: give it the file as a disk"));
    }
    let disk = |disk: &tessera_hostd::host::DiskSpec| DiskConfig {
        place: DiskPlace::Store {
            store: disk.store.clone(),
            disk: disk.path.clone(),
        },
        read_only: disk.read_only,
        serial: Default::default(),
    };
    let nic = |nic: &NicSpec| NicConfig {
        port_group: nic.network.clone(),
        mac: nic.mac,
    };
    Ok(VmConfig {
        name: spec.name.clone(),
        memory: spec.memory,
        vcpus: spec.vcpus,
        weight: spec.shares.clamp(1, 10_000),
        budget_us: spec.limit_mhz.map_or(0, |limit| mhz_to_budget(limit, spec.vcpus, PERIOD_US)),
        period_us: PERIOD_US,
        kernel: place(kernel),
        initramfs: spec.initramfs.as_ref().map(place),
        command_line: spec.command_line.clone(),
        disks: spec.disks.iter().map(disk).collect(),
        nics: spec.nics.iter().filter(|nic| nic.connected).map(nic).collect(),
    })
}

/// Makes a machine, or makes one up anew.
pub fn define(old_name: Option<&str>, spec: &VmSpec) -> Result<(), HostError> {
    let config = config(spec)?;
    let done = match old_name {
        Some(old) => client().configure(old, config),
        None => client().create(config),
    };
    done.map_err(|failure| error(&spec.name, failure))
}

/// Forgets one.
pub fn forget(name: &str) -> Result<(), HostError> {
    client().remove(name).map_err(|failure| error(name, failure))
}

/// Does something to one's power.
pub fn power(name: &str, action: VmPower) -> Result<(), HostError> {
    let done = match action {
        VmPower::Start => client().start(name),
        VmPower::Stop => client().stop(name),
        VmPower::Shutdown => control(name, |monitor| monitor.power_button()),
        VmPower::Reset => control(name, |monitor| monitor.reset()),
        VmPower::Suspend | VmPower::Resume => {
            return Err(HostError::new(Failure::Unsupported, "virtual machines cannot be suspended yet"));
        }
    };
    done.map_err(|failure| error(name, failure))
}
