//! Virtual machines and their snapshots.

mod again;
mod autostart;
mod console;
mod edit;
mod incidents;
mod inventory;
mod passthrough;
mod plan;
mod power;
mod seed;
mod snapshots;

pub(in crate::api) use again::again;
pub(super) use console::talk;
pub(in crate::api) use incidents::{Incidents, watch};
pub(in crate::api) use inventory::{find_fixed, take_in};

use super::{ListQuery, NoQuery, page, route};
use crate::{
    api::{
        Api, ApiError, Call, Needs,
        data::VmRecord,
        route::{Json, Route, Tagged},
    },
    host::{Usage, VmFacts, VmPower, VmRun},
    http::Method,
    model::{GuestState, Health, Page, PowerState, Vm, VmUsage},
};
use alloc::{format, vec::Vec};
use autostart::{get_autostart, set_autostart};
use console::console;
use edit::{clone, create, delete, edit, unregister};
use incidents::clear_alarms;
use passthrough::pci_devices;
use power::power;
use seed::seed;
use snapshots::{delete_snapshot, revert, snapshots, take_snapshot};

type Result<T> = core::result::Result<T, ApiError>;
const READ: Needs = Needs::Privilege("System.Read");
const POWER: Needs = Needs::Privilege("VirtualMachine.Power");
const SNAPSHOT: Needs = Needs::Privilege("VirtualMachine.Snapshot");

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(Method::Get, "/vms", READ_ANY, "listVms", "Machines", list),
        route(
            Method::Post,
            "/vms",
            Needs::Privilege("VirtualMachine.Create"),
            "createVm",
            "Make a machine",
            create,
        ),
        route(Method::Get, "/vms/{vm}", READ, "getVm", "A machine", get),
        route(
            Method::Patch,
            "/vms/{vm}",
            Needs::Privilege("VirtualMachine.Config"),
            "editVm",
            "Change a machine that is off; what is in its CD drive, its notes, its autostart and what a panic does at any time",
            edit,
        ),
        route(
            Method::Delete,
            "/vms/{vm}",
            Needs::Privilege("VirtualMachine.Delete"),
            "deleteVm",
            "Remove a machine with its disks",
            delete,
        ),
        route(
            Method::Post,
            "/vms/{vm}/unregister",
            Needs::Privilege("VirtualMachine.Delete"),
            "unregisterVm",
            "Take a machine out of the inventory; its disks stay",
            unregister,
        ),
        route(
            Method::Post,
            "/vms/{vm}/clone",
            Needs::Privilege("VirtualMachine.Create"),
            "cloneVm",
            "Clone a machine",
            clone,
        ),
        route(
            Method::Post,
            "/vms/{vm}/seed",
            Needs::Privilege("VirtualMachine.Config"),
            "seedVm",
            "Put what its guest's cloud-init is to do into the CD drive of a machine that is off",
            seed,
        ),
        route(
            Method::Post,
            "/vms/{vm}/start",
            POWER,
            "startVm",
            "Start",
            |call, _: NoQuery, (): ()| power(call, "vm.start", VmPower::Start),
        ),
        route(
            Method::Post,
            "/vms/{vm}/stop",
            POWER,
            "stopVm",
            "Stop as if its power failed",
            |call, _: NoQuery, (): ()| power(call, "vm.stop", VmPower::Stop),
        ),
        route(
            Method::Post,
            "/vms/{vm}/shutdown",
            POWER,
            "shutdownVm",
            "Ask the guest to shut down",
            |call, _: NoQuery, (): ()| power(call, "vm.shutdown", VmPower::Shutdown),
        ),
        route(
            Method::Post,
            "/vms/{vm}/reset",
            POWER,
            "resetVm",
            "Reset",
            |call, _: NoQuery, (): ()| power(call, "vm.reset", VmPower::Reset),
        ),
        route(
            Method::Post,
            "/vms/{vm}/suspend",
            POWER,
            "suspendVm",
            "Stop and keep the memory",
            |call, _: NoQuery, (): ()| power(call, "vm.suspend", VmPower::Suspend),
        ),
        route(
            Method::Post,
            "/vms/{vm}/resume",
            POWER,
            "resumeVm",
            "Go on",
            |call, _: NoQuery, (): ()| power(call, "vm.resume", VmPower::Resume),
        ),
        route(
            Method::Get,
            "/vms/{vm}/console",
            Needs::Privilege("VirtualMachine.Console"),
            "openConsole",
            "Serial console, a WebSocket of bytes",
            console,
        ),
        route(
            Method::Get,
            "/vms/{vm}/snapshots",
            READ,
            "listSnapshots",
            "Snapshots, as a tree",
            snapshots,
        ),
        route(
            Method::Post,
            "/vms/{vm}/snapshots",
            SNAPSHOT,
            "createSnapshot",
            "Take a snapshot",
            take_snapshot,
        ),
        route(
            Method::Delete,
            "/vms/{vm}/snapshots/{snapshot}",
            SNAPSHOT,
            "deleteSnapshot",
            "Remove a snapshot",
            delete_snapshot,
        ),
        route(
            Method::Post,
            "/vms/{vm}/snapshots/{snapshot}/revert",
            SNAPSHOT,
            "revertToSnapshot",
            "Make the machine what it was",
            revert,
        ),
        route(
            Method::Delete,
            "/vms/{vm}/alarms",
            POWER,
            "clearAlarms",
            "Clear a machine's alarms; what happens anew raises them again",
            clear_alarms,
        ),
        route(
            Method::Get,
            "/host/pci-devices",
            READ,
            "listPciDevices",
            "PCI functions of the host, and whether machines can have them for themselves",
            pci_devices,
        ),
        route(
            Method::Get,
            "/autostart",
            READ,
            "getAutostart",
            "Machines that start with the host",
            get_autostart,
        ),
        route(
            Method::Put,
            "/autostart",
            Needs::Privilege("Host.Config"),
            "setAutostart",
            "Set machines that start with the host",
            set_autostart,
        ),
    ]);
}

/// The list shows whoever is logged in the machines that they may see.
const READ_ANY: Needs = Needs::LogIn;

pub(super) fn record(call: &Call) -> Result<VmRecord> {
    let id = call.parameter("vm");
    call.api
        .data
        .borrow()
        .vms
        .get(id)
        .cloned()
        .ok_or_else(|| ApiError::not_found(format!("There is no machine {}", id.escape_default())))
}

/// One that is hostd's to change.
fn own_record(call: &Call) -> Result<VmRecord> {
    let record = record(call)?;
    if record.fixed {
        let name = &record.config.name;
        return Err(ApiError::conflict(format!(
            "{name} comes with the image: it can be started and stopped, not changed"
        )));
    }
    Ok(record)
}

fn shown(api: &Api, record: &VmRecord, facts: &[VmFacts], usage: &Usage, mhz: f64) -> Vm {
    let fact = facts.iter().find(|fact| fact.name == record.config.name);
    let run = fact.map_or(VmRun::Off, |fact| fact.run);
    let used = usage.vms.iter().find(|used| used.name == record.config.name);
    let on = run == VmRun::On;
    let alarms = api.incidents.borrow().alarms(&record.id);
    Vm {
        id: record.id.clone(),
        power_state: match run {
            VmRun::On => PowerState::PoweredOn,
            VmRun::Suspended => PowerState::Suspended,
            VmRun::Off | VmRun::Failed => PowerState::PoweredOff,
        },
        guest_state: match fact {
            Some(fact) if fact.asleep => GuestState::Standby,
            _ if on => GuestState::Running,
            _ => GuestState::NotRunning,
        },
        health: match run {
            VmRun::Failed => Health::Red,
            _ if !alarms.is_empty() => Health::Yellow,
            _ => Health::Green,
        },
        alarms,
        config: record.config.clone(),
        usage: VmUsage {
            cpu_mhz: if on {
                api.counters.borrow().now(&record.id, "cpu.usage") * mhz / 100.0
            } else {
                0.0
            },
            memory: used.map_or(0, |used| used.memory),
            disk_bytes: record.config.disks.iter().map(|disk| disk.size).sum(),
            uptime_seconds: used.map_or(0, |used| used.uptime_ms / 1000),
        },
        addresses: fact.map_or_else(Vec::new, |fact| fact.addresses.clone()),
        snapshot_count: u32::try_from(record.snapshots.len()).unwrap_or(u32::MAX),
    }
}

async fn list(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Vm>>> {
    let (facts, usage) = (call.api.host.vms().await?, call.api.host.usage().await?);
    let mhz = f64::from(call.api.host.facts().await?.cpu_mhz);
    let mut records: Vec<VmRecord> = call
        .api
        .data
        .borrow()
        .vms
        .values()
        .filter(|vm| call.may("System.Read", &vm.id))
        .cloned()
        .collect();
    records.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    Ok(page(
        records.iter().map(|record| shown(&call.api, record, &facts, &usage, mhz)).collect(),
        &query,
    ))
}

async fn get(call: Call, _: NoQuery, (): ()) -> Result<Tagged<Vm>> {
    let record = record(&call)?;
    let (facts, usage) = (call.api.host.vms().await?, call.api.host.usage().await?);
    let mhz = f64::from(call.api.host.facts().await?.cpu_mhz);
    Ok(Tagged(shown(&call.api, &record, &facts, &usage, mhz), record.version))
}

/// What a machine does, and whether its guest sleeps.
async fn state_of(call: &Call, name: &str) -> Result<(VmRun, bool)> {
    let all = call.api.host.vms().await?;
    let found = all.iter().find(|vm| vm.name == name);
    Ok(found.map_or((VmRun::Off, false), |vm| (vm.run, vm.asleep)))
}

async fn run_of(call: &Call, name: &str) -> Result<VmRun> {
    Ok(state_of(call, name).await?.0)
}

async fn need_off(call: &Call, record: &VmRecord) -> Result<()> {
    match run_of(call, &record.config.name).await? {
        VmRun::On | VmRun::Suspended => Err(ApiError::conflict(format!("{} is not off", record.config.name))),
        VmRun::Off | VmRun::Failed => Ok(()),
    }
}
