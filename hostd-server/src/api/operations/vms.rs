//! Virtual machines and their snapshots.

use super::{ListQuery, NoQuery, page, route};
use crate::{
    api::{
        Api, ApiError, Call, Needs,
        data::{SnapshotRecord, VmRecord},
        route::{Accepted, Json, Raw, Route, Tagged},
        work,
    },
    host::{Console, DiskSpec, Failure, GuestFirmware, NicSpec, Place, Usage, VmFacts, VmPower, VmRun, VmSpec},
    http::{Message, Method, Response, WebSocket},
    model::{
        Autostart, Boot, CloneRequest, DiskInput, Firmware, Health, NicInput, Page, PowerState, Snapshot, SnapshotCreate, Vm, VmConfig,
        VmCreate, VmDisk, VmNic, VmPatch, VmUsage,
        text::{Few, Id, Ranged, StoragePath, parse_mac, split_storage_path},
    },
    state::Change,
    time::rfc3339,
};
use alloc::{
    boxed::Box,
    format,
    rc::Rc,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::task::Poll;

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
            "Change a machine that is off; what is in its CD drive, its notes and its autostart at any time",
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
    Vm {
        id: record.id.clone(),
        power_state: match run {
            VmRun::On => PowerState::PoweredOn,
            VmRun::Suspended => PowerState::Suspended,
            VmRun::Off | VmRun::Failed => PowerState::PoweredOff,
        },
        health: if run == VmRun::Failed { Health::Red } else { Health::Green },
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

fn place(path: &StoragePath) -> Place {
    match split_storage_path(path) {
        Some(("image", name)) => Place::Image(name.into()),
        Some((store, file)) => Place::Store(store.into(), file.into()),
        None => Place::Image(String::new()),
    }
}

/// What the host is to make of a configuration.
fn spec(api: &Api, config: &VmConfig) -> VmSpec {
    let data = api.data.borrow();
    let direct = config.boot.firmware == Firmware::Direct;
    VmSpec {
        name: config.name.clone(),
        memory: config.memory,
        vcpus: config.vcpus,
        shares: config.cpu_shares,
        reservation_mhz: config.cpu_reservation_mhz,
        limit_mhz: config.cpu_limit_mhz,
        firmware: match config.boot.firmware {
            Firmware::Direct => None,
            Firmware::Bios => Some(GuestFirmware::Bios),
            Firmware::Uefi => Some(GuestFirmware::Uefi),
        },
        kernel: config.boot.kernel.as_ref().filter(|_| direct).map(place),
        initramfs: config.boot.initramfs.as_ref().filter(|_| direct).map(place),
        command_line: config.boot.command_line.as_ref().map_or_else(String::new, |line| line.to_string()),
        disks: config
            .disks
            .iter()
            .map(|disk| DiskSpec {
                store: data.name("datastore", &disk.datastore).unwrap_or_default(),
                path: disk.path.clone(),
                read_only: disk.read_only,
            })
            .collect(),
        nics: config
            .nics
            .iter()
            .map(|nic| NicSpec {
                network: data.name("network", &nic.network).unwrap_or_default(),
                mac: parse_mac(&nic.mac).unwrap_or_default(),
                connected: nic.connected,
            })
            .collect(),
        cdrom: config.cdrom.as_deref().and_then(split_storage_path).map(|(store, path)| DiskSpec {
            store: store.into(),
            path: path.into(),
            read_only: true,
        }),
    }
}

/// Takes machines into the inventory that the host has of itself, such as those of the image's description, and leaves out those that it has no more.
pub(in crate::api) async fn find_fixed(api: &Rc<Api>) {
    let Ok(known) = api.host.vms().await else { return };
    let named = |name: &str| api.data.borrow().vms.values().any(|vm| vm.config.name == name);
    for fact in known.iter().filter(|fact| !named(&fact.name)) {
        let Ok(spec) = api.host.vm_spec(&fact.name).await else { continue };
        let mut changes = Vec::new();
        let id = {
            let mut data = api.data.borrow_mut();
            let id = data.id("vm", &spec.name, &mut changes);
            let nics = spec.nics.iter().zip(1..).map(|(nic, number)| VmNic {
                id: format!("nic-{number}"),
                network: data.id("network", &nic.network, &mut changes),
                mac: crate::model::text::show_mac(nic.mac),
                connected: nic.connected,
            });
            let nics = nics.collect();
            let record = VmRecord {
                id: id.clone(),
                version: 1,
                config: fixed_config(spec, nics),
                snapshots: Vec::new(),
                current: None,
                fixed: true,
            };
            data.vms.insert(id.clone(), record);
            id
        };
        // An identifier that cannot be kept is another one after a restart.
        let _ = api.commit(changes).await;
        api.tell("vm", &id, "created");
    }
    let gone: Vec<String> = {
        let data = api.data.borrow();
        let gone = data
            .vms
            .values()
            .filter(|vm| vm.fixed && !known.iter().any(|fact| fact.name == vm.config.name));
        gone.map(|vm| vm.id.clone()).collect()
    };
    for id in gone {
        api.data.borrow_mut().vms.remove(&id);
        api.tell("vm", &id, "removed");
    }
}

fn fixed_config(spec: VmSpec, nics: Vec<VmNic>) -> VmConfig {
    let file = |place: Place| {
        let text = match place {
            Place::Image(name) => format!("[image] {name}"),
            Place::Store(store, path) => format!("[{store}] {path}"),
        };
        StoragePath::parse(&text).ok()
    };
    VmConfig {
        name: spec.name,
        guest_os: "other".into(),
        vcpus: spec.vcpus,
        memory: spec.memory,
        cpu_shares: spec.shares,
        cpu_reservation_mhz: spec.reservation_mhz,
        cpu_limit_mhz: spec.limit_mhz,
        disks: spec
            .disks
            .into_iter()
            .zip(1..)
            .map(|(disk, number)| VmDisk {
                id: format!("disk-{number}"),
                datastore: disk.store,
                path: disk.path,
                size: 0,
                read_only: disk.read_only,
            })
            .collect(),
        nics,
        cdrom: spec.cdrom.map(|disk| format!("[{}] {}", disk.store, disk.path)),
        boot: Boot {
            firmware: match spec.firmware {
                None => Firmware::Direct,
                Some(GuestFirmware::Bios) => Firmware::Bios,
                Some(GuestFirmware::Uefi) => Firmware::Uefi,
            },
            kernel: spec.kernel.and_then(file),
            initramfs: spec.initramfs.and_then(file),
            command_line: crate::model::text::CommandLine::parse(&spec.command_line).ok(),
        },
        autostart: false,
        notes: "Comes with the image and cannot be changed here.".into(),
    }
}

/// At the start: makes the host's machines what the inventory says, and starts what is to start if it is not known to the host, which then was started itself.
pub(in crate::api) async fn take_in(api: &Rc<Api>) {
    let Ok(known) = api.host.vms().await else { return };
    let own = |vm: &&VmRecord| !vm.fixed;
    let configs: Vec<(String, VmConfig)> = api
        .data
        .borrow()
        .vms
        .values()
        .filter(own)
        .map(|vm| (vm.id.clone(), vm.config.clone()))
        .collect();
    let mut fresh = Vec::new();
    for (id, config) in configs {
        let fact = known.iter().find(|vm| vm.name == config.name);
        let old = fact.map(|fact| fact.name.as_str());
        if fact.is_some_and(|fact| !matches!(fact.run, VmRun::Off | VmRun::Failed)) {
            continue;
        }
        match api.host.define_vm(old, &spec(api, &config)).await {
            Ok(()) if old.is_none() && config.autostart => fresh.push((id, config.name)),
            Ok(()) => {}
            Err(error) => {
                let message = format!("{} cannot be made as the inventory has it: {}", config.name, error.message);
                api.event(crate::model::Severity::Error, "vm.invalid", message, None, Some(&id))
                    .await;
            }
        }
    }
    find_fixed(api).await;
    let settings = api.data.borrow().settings.clone();
    if !settings.autostart || settings.maintenance {
        return;
    }
    let rank = |id: &String| settings.autostart_order.iter().position(|other| other == id).unwrap_or(usize::MAX);
    fresh.sort_by_key(|(id, _)| rank(id));
    let (weak, platform) = (Rc::downgrade(api), api.platform.clone());
    api.platform.spawn(Box::pin(async move {
        for (_, name) in fresh {
            let Some(api) = weak.upgrade() else { return };
            if let Err(error) = api.host.vm_power(&name, VmPower::Start).await {
                api.event(
                    crate::model::Severity::Error,
                    "vm.autostart",
                    format!("{name} did not start: {}", error.message),
                    None,
                    None,
                )
                .await;
            }
            drop(api);
            platform.sleep(settings.autostart_delay * 1000).await;
        }
    }));
}

fn check_boot(boot: &Boot) -> Result<()> {
    if boot.firmware == Firmware::Direct && boot.kernel.is_none() {
        return Err(ApiError::invalid("A machine that starts directly needs a kernel"));
    }
    Ok(())
}

/// Files that are named must be there.
async fn check_files<'a>(call: &Call, paths: impl Iterator<Item = Option<&'a str>>) -> Result<()> {
    for path in paths.flatten() {
        let Some((store, file)) = split_storage_path(path) else { continue };
        if store != "image" && call.api.host.stat(store, file).await.is_err() {
            return Err(ApiError::conflict(format!("There is no file {path}")));
        }
    }
    Ok(())
}

/// The disks a machine is to have, and which of them are to be made or grown: store, path, size, thick, new.
async fn plan_disks(
    call: &Call,
    name: &str,
    wanted: Few<DiskInput, 8>,
    old: &[VmDisk],
) -> Result<(Vec<VmDisk>, Vec<(String, String, u64, bool, bool)>)> {
    let (mut disks, mut work): (Vec<VmDisk>, Vec<_>) = (Vec::new(), Vec::new());
    for input in wanted.0 {
        let store = super::storage::store(call, &input.datastore).await?;
        let earlier = old.iter().find(|disk| {
            input.id.as_ref().is_some_and(|id| **id == disk.id)
                || (input.path.as_ref().is_some_and(|path| **path == disk.path) && disk.datastore == store.id)
        });
        let mut number = 1;
        while disks.iter().any(|disk| disk.id == format!("disk-{number}"))
            || (earlier.is_none() && old.iter().any(|disk| disk.id == format!("disk-{number}")))
        {
            number += 1;
        }
        let size = input.size.map(Ranged::get);
        let (id, path, old_size) = match (earlier, &input.path) {
            (Some(disk), _) => (disk.id.clone(), disk.path.clone(), Some(disk.size)),
            (None, Some(path)) => (
                format!("disk-{number}"),
                path.to_string(),
                Some(call.api.host.stat(&store.name, path).await?.size),
            ),
            (None, None) => (format!("disk-{number}"), format!("{name}/disk-{number}.vdisk"), None),
        };
        if disks.iter().any(|disk| disk.datastore == store.id && disk.path == path) {
            return Err(ApiError::invalid(format!("The disk {path} is there twice")));
        }
        if let Some(other) = call
            .api
            .data
            .borrow()
            .vms
            .values()
            .find(|vm| vm.config.name != name && vm.config.disks.iter().any(|disk| disk.datastore == store.id && disk.path == path))
        {
            return Err(ApiError::conflict(format!("{path} is a disk of {}", other.config.name)));
        }
        let size = match (old_size, size) {
            (Some(old), Some(new)) if new < old => {
                return Err(ApiError::conflict(format!(
                    "The disk {path} has {old} bytes and cannot become smaller"
                )));
            }
            (Some(old), Some(new)) if new > old => {
                work.push((store.name.clone(), path.clone(), new, false, false));
                new
            }
            (Some(old), _) => old,
            (None, Some(new)) => {
                work.push((store.name.clone(), path.clone(), new, input.thick.unwrap_or(false), true));
                new
            }
            (None, None) => return Err(ApiError::invalid("A new disk needs a size, an existing one its path")),
        };
        disks.push(VmDisk {
            id,
            datastore: store.id,
            path,
            size,
            read_only: input.read_only.unwrap_or(earlier.is_some_and(|disk| disk.read_only)),
        });
    }
    Ok((disks, work))
}

async fn plan_nics(call: &Call, wanted: Few<NicInput, 8>, old: &[VmNic]) -> Result<Vec<VmNic>> {
    let mut nics: Vec<VmNic> = Vec::new();
    // Names are known once somebody has listed them; a client that has an identifier did.
    for input in wanted.0 {
        if call.api.data.borrow().name("network", &input.network).is_none() {
            return Err(ApiError::conflict(format!("There is no port group {}", &*input.network)));
        }
        let earlier = old.iter().find(|nic| input.id.as_ref().is_some_and(|id| **id == nic.id));
        let mut number = 1;
        while nics.iter().chain(old).any(|nic| nic.id == format!("nic-{number}")) {
            number += 1;
        }
        let mac = input
            .mac
            .map(|mac| mac.into_string())
            .or_else(|| earlier.map(|nic| nic.mac.clone()))
            .unwrap_or_else(|| {
                let mut random = [0; 5];
                call.api.platform.random(&mut random);
                random.iter().fold(String::from("02"), |mac, byte| format!("{mac}:{byte:02x}"))
            });
        nics.push(VmNic {
            id: earlier.map_or_else(|| format!("nic-{number}"), |nic| nic.id.clone()),
            network: input.network.into_string(),
            mac,
            connected: input.connected.unwrap_or(true),
        });
    }
    Ok(nics)
}

fn round(memory: u64) -> u64 {
    memory.next_multiple_of(2 << 20)
}

fn check_name(call: &Call, name: &str, own: Option<&str>) -> Result<()> {
    match call
        .api
        .data
        .borrow()
        .vms
        .values()
        .find(|vm| vm.config.name == name && own != Some(&vm.id))
    {
        Some(_) => Err(ApiError::conflict(format!("There is a machine {name} already"))),
        None => Ok(()),
    }
}

async fn make_disks(progress: &work::Progress, folder: &str, work: Vec<(String, String, u64, bool, bool)>) -> Result<()> {
    let host = &progress.api.host;
    for (store, path, size, thick, new) in work {
        if new {
            if host.stat(&store, folder).await.is_err() {
                host.create_folder(&store, folder).await?;
            }
            host.create_disk(&store, &path, size, thick).await?;
        } else {
            host.grow_disk(&store, &path, size).await?;
        }
    }
    Ok(())
}

/// Keeps a machine and makes the host know it. In that order: what is kept is made known after a restart, what is not would be nobody's.
async fn add(progress: &work::Progress, id: String, config: VmConfig) -> Result<Option<String>> {
    let api = &progress.api;
    let spec = spec(api, &config);
    let change = api.data.borrow_mut().keep_vm(VmRecord {
        id: id.clone(),
        version: 0,
        config,
        snapshots: Vec::new(),
        current: None,
        fixed: false,
    });
    api.commit(vec![change]).await?;
    if let Err(error) = api.host.define_vm(None, &spec).await {
        api.data.borrow_mut().vms.remove(&id);
        api.commit(vec![Change::Remove(format!("vm/{id}"))]).await?;
        return Err(error.into());
    }
    api.tell("vm", &id, "created");
    Ok(Some(id))
}

async fn create(call: Call, _: NoQuery, Json(made): Json<VmCreate>) -> Result<Accepted> {
    check_boot(&made.boot)?;
    check_name(&call, &made.name, None)?;
    check_files(
        &call,
        [made.boot.kernel.as_deref(), made.boot.initramfs.as_deref(), made.cdrom.as_deref()].into_iter(),
    )
    .await?;
    let (disks, work) = plan_disks(&call, &made.name, made.disks, &[]).await?;
    let config = VmConfig {
        nics: plan_nics(&call, made.nics, &[]).await?,
        disks,
        guest_os: made.guest_os.map_or_else(|| "other".into(), |os| os.into_string()),
        vcpus: made.vcpus.get32(),
        memory: round(made.memory.get()),
        cpu_shares: made.cpu_shares.map_or(1000, |shares| shares.get32()),
        cpu_reservation_mhz: made.cpu_reservation_mhz.map_or(0, |mhz| mhz.get32()),
        cpu_limit_mhz: made.cpu_limit_mhz.map(|mhz| mhz.get32()),
        cdrom: made.cdrom.map(|path| path.into_string()),
        boot: made.boot,
        autostart: made.autostart.unwrap_or(false),
        notes: made.notes.map_or_else(String::new, |notes| notes.into_string()),
        name: made.name.into_string(),
    };
    let id = format!("vm-{}", call.api.data.borrow_mut().number());
    let kept = serde_json::json!({ "id": id, "config": config, "disks": work });
    work::begin_kept(
        &call,
        "vm.create",
        Some((&id.clone(), &config.name.clone())),
        false,
        Some(kept),
        move |progress| async move {
            make_disks(&progress, &config.name, work).await?;
            add(&progress, id, config).await
        },
    )
    .await
}

async fn run_of(call: &Call, name: &str) -> Result<VmRun> {
    Ok(call
        .api
        .host
        .vms()
        .await?
        .iter()
        .find(|vm| vm.name == name)
        .map_or(VmRun::Off, |vm| vm.run))
}

async fn need_off(call: &Call, record: &VmRecord) -> Result<()> {
    match run_of(call, &record.config.name).await? {
        VmRun::On | VmRun::Suspended => Err(ApiError::conflict(format!("{} is not off", record.config.name))),
        VmRun::Off | VmRun::Failed => Ok(()),
    }
}

/// The change leaves everything as it is.
fn changes_nothing(change: &VmPatch) -> bool {
    serde_json::from_str::<VmPatch>("{}").is_ok_and(|nothing| *change == nothing)
}

async fn edit(call: Call, _: NoQuery, Json(change): Json<VmPatch>) -> Result<Accepted> {
    let old = own_record(&call)?;
    call.check_version(old.version)?;
    // Notes and autostart are hostd's alone and can be changed at any time.
    let rest = VmPatch {
        notes: None,
        autostart: None,
        ..change.clone()
    };
    let own_only = changes_nothing(&rest);
    // A medium is changed while the machine runs, if it has a drive.
    let media_only = rest.cdrom.is_some()
        && old.config.boot.firmware != Firmware::Direct
        && changes_nothing(&VmPatch {
            cdrom: None,
            ..rest.clone()
        });
    if !own_only && !media_only {
        need_off(&call, &old).await?;
    }
    let mut config = old.config.clone();
    if let Some(name) = change.name {
        check_name(&call, &name, Some(&old.id))?;
        config.name = name.into_string();
    }
    if let Some(os) = change.guest_os {
        config.guest_os = os.into_string();
    }
    config.vcpus = change.vcpus.map_or(config.vcpus, |count| count.get32());
    config.memory = change.memory.map_or(config.memory, |memory| round(memory.get()));
    config.cpu_shares = change.cpu_shares.map_or(config.cpu_shares, |shares| shares.get32());
    config.cpu_reservation_mhz = change.cpu_reservation_mhz.map_or(config.cpu_reservation_mhz, |mhz| mhz.get32());
    config.cpu_limit_mhz = change
        .cpu_limit_mhz
        .map_or(config.cpu_limit_mhz, |limit| limit.map(|mhz| mhz.get32()));
    if let Some(boot) = change.boot {
        check_boot(&boot)?;
        check_files(&call, [boot.kernel.as_deref(), boot.initramfs.as_deref()].into_iter()).await?;
        config.boot = boot;
    }
    if let Some(cdrom) = change.cdrom {
        check_files(&call, core::iter::once(cdrom.as_deref())).await?;
        config.cdrom = cdrom.map(|path| path.into_string());
    }
    let mut work = Vec::new();
    if let Some(disks) = change.disks {
        if !old.snapshots.is_empty() {
            return Err(ApiError::conflict("The disks of a machine with snapshots stay as they are"));
        }
        (config.disks, work) = plan_disks(&call, &old.config.name, disks, &old.config.disks).await?;
    }
    if let Some(nics) = change.nics {
        config.nics = plan_nics(&call, nics, &old.config.nics).await?;
    }
    config.autostart = change.autostart.unwrap_or(config.autostart);
    if let Some(notes) = change.notes {
        config.notes = notes.into_string();
    }
    work::begin(
        &call,
        "vm.edit",
        Some((&old.id.clone(), &old.config.name.clone())),
        false,
        move |progress| async move {
            let api = &progress.api;
            make_disks(&progress, &old.config.name, work).await?;
            let (id, spec) = (old.id.clone(), spec(api, &config));
            let change = api.data.borrow_mut().keep_vm(VmRecord { config, ..old.clone() });
            api.commit(vec![change]).await?;
            if !own_only {
                let made = if media_only {
                    api.host.change_medium(&old.config.name, spec.cdrom).await
                } else {
                    api.host.define_vm(Some(&old.config.name), &spec).await
                };
                if let Err(error) = made {
                    let change = api.data.borrow_mut().keep_vm(old);
                    api.commit(vec![change]).await?;
                    return Err(error.into());
                }
            }
            api.tell("vm", &id, "updated");
            Ok(Some(id))
        },
    )
    .await
}

async fn leave(progress: &work::Progress, record: &VmRecord) -> Result<()> {
    let api = &progress.api;
    match api.host.forget_vm(&record.config.name).await {
        Err(error) if error.failure != Failure::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut changes = vec![Change::Remove(format!("vm/{}", record.id))];
    {
        let mut data = api.data.borrow_mut();
        data.vms.remove(&record.id);
        changes.extend(
            data.permissions
                .values()
                .filter(|one| one.entity == record.id)
                .map(|one| Change::Remove(format!("permission/{}", one.id))),
        );
        data.permissions.retain(|_, one| one.entity != record.id);
    }
    api.commit(changes).await?;
    api.tell("vm", &record.id, "removed");
    Ok(())
}

async fn delete(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
    let record = own_record(&call)?;
    call.check_version(record.version)?;
    need_off(&call, &record).await?;
    let kept = serde_json::to_value(&record).ok();
    let (id, name) = (record.id.clone(), record.config.name.clone());
    work::begin_kept(&call, "vm.delete", Some((&id, &name)), false, kept, move |progress| {
        remove(progress, record, false)
    })
    .await
}

/// Removes a machine with its disks; `again`: some of it may have been done already.
async fn remove(progress: work::Progress, record: VmRecord, again: bool) -> Result<Option<String>> {
    // Out of the inventory first: what a power cut leaves is a file too many, never a machine without its disk.
    leave(&progress, &record).await?;
    let own = format!("{}/", record.config.name);
    let spec = spec(&progress.api, &record.config);
    for disk in spec.disks.iter().filter(|disk| disk.path.starts_with(&own)) {
        match progress.api.host.remove(&disk.store, &disk.path).await {
            Err(error) if again && error.failure == Failure::NotFound => {}
            removed => removed?,
        }
    }
    if let Some(disk) = spec.disks.first() {
        // Something else may be in the folder.
        let _ = progress.api.host.remove(&disk.store, &record.config.name).await;
    }
    Ok(None)
}

type Work = crate::future::LocalFuture<'static, Result<Option<String>>>;

/// What a machine that is to be made needs besides its configuration.
#[derive(serde::Deserialize)]
struct KeptCreation {
    id: String,
    config: VmConfig,
    disks: Vec<(String, String, u64, bool, bool)>,
}

/// Goes on with a task that was interrupted by a restart. `None`: it cannot be told how much of it was done, or it cannot be done twice.
pub(in crate::api) fn again(progress: work::Progress, task: &crate::model::Task, kept: Option<serde_json::Value>) -> Option<Work> {
    let target = task.target.clone()?;
    match (task.name.as_str(), kept) {
        // The host was started again since.
        ("host.reboot" | "host.shutdown", _) => Some(Box::pin(async { Ok(None) })),
        ("vm.start", _) => Some(Box::pin(power_again(progress, target, VmPower::Start))),
        ("vm.stop", _) => Some(Box::pin(power_again(progress, target, VmPower::Stop))),
        ("vm.unregister", _) => {
            let record = progress.api.data.borrow().vms.get(&target).cloned();
            Some(Box::pin(async move {
                if let Some(record) = record.filter(|record| !record.fixed) {
                    leave(&progress, &record).await?;
                }
                Ok(None)
            }))
        }
        ("vm.delete", Some(kept)) => {
            let record = serde_json::from_value(kept).ok()?;
            Some(Box::pin(remove(progress, record, true)))
        }
        ("vm.create", Some(kept)) => {
            let kept: KeptCreation = serde_json::from_value(kept).ok()?;
            Some(Box::pin(create_again(progress, kept)))
        }
        _ => None,
    }
}

async fn power_again(progress: work::Progress, id: String, action: VmPower) -> Result<Option<String>> {
    let api = &progress.api;
    let record = api.data.borrow().vms.get(&id).cloned();
    let record = record.ok_or_else(|| ApiError::not_found("The machine is not there any more"))?;
    let name = &record.config.name;
    let off = api
        .host
        .vms()
        .await?
        .iter()
        .find(|vm| vm.name == *name)
        .is_none_or(|vm| matches!(vm.run, VmRun::Off | VmRun::Failed));
    if off == (action == VmPower::Start) {
        api.host.vm_power(name, action).await?;
    }
    api.tell("vm", &id, "updated");
    Ok(None)
}

async fn create_again(progress: work::Progress, kept: KeptCreation) -> Result<Option<String>> {
    let api = &progress.api;
    if api.data.borrow().vms.contains_key(&kept.id) {
        // It was kept, and made known to the host with all others.
        return Ok(Some(kept.id));
    }
    let mut left = Vec::new();
    for disk in kept.disks {
        if !disk.4 || api.host.stat(&disk.0, &disk.1).await.is_err() {
            left.push(disk);
        }
    }
    make_disks(&progress, &kept.config.name, left).await?;
    add(&progress, kept.id, kept.config).await
}

async fn unregister(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
    let record = own_record(&call)?;
    need_off(&call, &record).await?;
    work::begin(
        &call,
        "vm.unregister",
        Some((&record.id.clone(), &record.config.name.clone())),
        false,
        move |progress| async move {
            leave(&progress, &record).await?;
            Ok(None)
        },
    )
    .await
}

async fn clone(call: Call, _: NoQuery, Json(request): Json<CloneRequest>) -> Result<Accepted> {
    let record = own_record(&call)?;
    call.need("VirtualMachine.Create", "host-1")?;
    check_name(&call, &request.name, None)?;
    let id = format!("vm-{}", call.api.data.borrow_mut().number());
    work::begin(
        &call,
        "vm.clone",
        Some((&record.id.clone(), &record.config.name.clone())),
        true,
        move |progress| async move {
            let api = progress.api.clone();
            let name = request.name.into_string();
            let mut config = VmConfig {
                name: name.clone(),
                autostart: false,
                ..record.config.clone()
            };
            let old = spec(&api, &record.config);
            let label = format!("clone-{id}");
            for (index, (disk, shown)) in old.disks.iter().zip(&mut config.disks).enumerate() {
                progress.check()?;
                if disk.read_only {
                    continue;
                }
                if api.host.stat(&disk.store, &name).await.is_err() {
                    api.host.create_folder(&disk.store, &name).await?;
                }
                shown.path = format!("{name}/{}.vdisk", shown.id);
                api.host.snapshot_disk(&disk.store, &disk.path, &label).await?;
                api.host.clone_disk(&disk.store, &disk.path, &label, &shown.path).await?;
                api.host.remove_snapshot(&disk.store, &disk.path, &label).await?;
                progress.set((index as u64 + 1) * 90 / old.disks.len() as u64);
            }
            for nic in &mut config.nics {
                let mut random = [0; 5];
                api.platform.random(&mut random);
                nic.mac = random.iter().fold(String::from("02"), |mac, byte| format!("{mac}:{byte:02x}"));
            }
            add(&progress, id, config).await
        },
    )
    .await
}

async fn power(call: Call, name: &'static str, action: VmPower) -> Result<Accepted> {
    let record = record(&call)?;
    let run = run_of(&call, &record.config.name).await?;
    let fits = match action {
        VmPower::Start => run == VmRun::Off || run == VmRun::Failed,
        VmPower::Stop => run != VmRun::Off,
        VmPower::Shutdown | VmPower::Reset | VmPower::Suspend => run == VmRun::On,
        VmPower::Resume => run == VmRun::Suspended,
    };
    if !fits {
        let state = match run {
            VmRun::Off => "off",
            VmRun::On => "on",
            VmRun::Suspended => "suspended",
            VmRun::Failed => "off after a failure",
        };
        return Err(ApiError::conflict(format!("{} is {state}", record.config.name)));
    }
    if call.api.data.borrow().settings.maintenance && matches!(action, VmPower::Start | VmPower::Resume) {
        return Err(ApiError::conflict("The host is in maintenance mode"));
    }
    work::begin(
        &call,
        name,
        Some((&record.id.clone(), &record.config.name.clone())),
        false,
        move |progress| async move {
            progress.api.host.vm_power(&record.config.name, action).await?;
            progress.api.tell("vm", &record.id, "updated");
            Ok(None)
        },
    )
    .await
}

async fn console(call: Call, _: NoQuery, (): ()) -> Result<Raw> {
    let record = record(&call)?;
    if !call.upgrade {
        return Err(ApiError::new(
            426,
            "upgradeRequired",
            "The console is a WebSocket",
            "Connect with a WebSocket client, or tessera vm console.",
        ));
    }
    let console = call.api.host.vm_console(&record.config.name).await?;
    let mut response = Response::new(101);
    response.upgrade = Some(Box::new(move |socket| Box::pin(talk(socket, console))));
    Ok(Raw(response))
}

/// Carries bytes both ways until one side ends.
pub(super) async fn talk(mut socket: Box<dyn WebSocket>, mut console: Box<dyn Console>) {
    let mut typed: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 4096];
    core::future::poll_fn(|context| {
        loop {
            let mut moved = false;
            if typed.is_empty() {
                match socket.poll_receive(context) {
                    Poll::Ready(Some(Message::Binary(bytes))) => (typed, moved) = (bytes, true),
                    Poll::Ready(Some(Message::Text(text))) => (typed, moved) = (text.into_bytes(), true),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if !typed.is_empty() {
                if let Poll::Ready(count) = console.poll_write(context, &typed) {
                    if count == 0 {
                        return Poll::Ready(());
                    }
                    typed.drain(..count.min(typed.len()));
                    moved = true;
                }
            }
            match socket.poll_ready(context) {
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Ready(true) => {
                    if let Poll::Ready(count) = console.poll_read(context, &mut buffer) {
                        if count == 0 {
                            return Poll::Ready(());
                        }
                        socket.send(Message::Binary(buffer[..count].to_vec()));
                        moved = true;
                    }
                }
                Poll::Pending => {}
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
}

fn tree(record: &VmRecord, parent: Option<&str>, depth: usize) -> Vec<Snapshot> {
    if depth > 32 {
        return Vec::new();
    }
    record
        .snapshots
        .iter()
        .filter(|one| one.parent.as_deref() == parent)
        .map(|one| Snapshot {
            id: one.id.clone(),
            name: one.name.clone(),
            description: one.description.clone(),
            created: rfc3339(one.created_ms),
            size: 0,
            with_memory: one.memory,
            current: record.current.as_deref() == Some(&one.id),
            children: tree(record, Some(&one.id), depth + 1),
        })
        .collect()
}

async fn snapshots(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Snapshot>>> {
    Ok(page(tree(&record(&call)?, None, 0), &query))
}

async fn take_snapshot(call: Call, _: NoQuery, Json(made): Json<SnapshotCreate>) -> Result<Accepted> {
    let record = own_record(&call)?;
    if record.snapshots.len() >= 32 {
        return Err(ApiError::conflict(format!("{} has 32 snapshots already", record.config.name)));
    }
    let running = run_of(&call, &record.config.name).await?;
    let memory = made.with_memory.unwrap_or(false);
    if memory && !matches!(running, VmRun::On | VmRun::Suspended) {
        return Err(ApiError::conflict(format!(
            "{} does not run: it has no memory to keep",
            record.config.name
        )));
    }
    let id = format!("snapshot-{}", call.api.data.borrow_mut().number());
    work::begin(
        &call,
        "vm.snapshot",
        Some((&record.id.clone(), &record.config.name.clone())),
        false,
        move |progress| async move {
            let api = &progress.api;
            let spec = spec(api, &record.config);
            if memory {
                let disk = spec
                    .disks
                    .first()
                    .ok_or_else(|| ApiError::conflict("The memory goes to the first disk's datastore, and there is no disk"))?;
                api.host
                    .save_vm(&spec.name, &disk.store, &format!("{}/{id}.memory", spec.name))
                    .await?;
            }
            // Memory and disks are of the same moment: the machine stands still until all of them are there.
            let mut taken = Ok(());
            for disk in spec.disks.iter().filter(|disk| !disk.read_only) {
                if taken.is_ok() {
                    taken = api.host.snapshot_disk(&disk.store, &disk.path, &id).await;
                }
            }
            if let Some(disk) = spec.disks.first().filter(|_| memory && running == VmRun::On) {
                let now = api.host.vms().await?;
                if now.iter().any(|vm| vm.name == spec.name && vm.run == VmRun::Suspended) {
                    let file = format!("{}/{id}.memory", spec.name);
                    api.host.restore_vm(&spec.name, &disk.store, &file).await?;
                }
            }
            taken?;
            let mut now = api
                .data
                .borrow()
                .vms
                .get(&record.id)
                .cloned()
                .ok_or_else(|| ApiError::not_found("The machine was removed meanwhile"))?;
            now.snapshots.push(SnapshotRecord {
                id: id.clone(),
                name: made.name.into_string(),
                description: made.description.map_or_else(String::new, |text| text.into_string()),
                created_ms: api.now(),
                parent: now.current.clone(),
                memory,
                config: record.config,
            });
            now.current = Some(id.clone());
            let change = api.data.borrow_mut().keep_vm(now);
            api.commit(vec![change]).await?;
            api.tell("snapshot", &id, "created");
            Ok(Some(id))
        },
    )
    .await
}

fn snapshot(call: &Call, record: &VmRecord) -> Result<SnapshotRecord> {
    record
        .snapshots
        .iter()
        .find(|one| one.id == call.parameter("snapshot"))
        .cloned()
        .ok_or_else(|| ApiError::not_found("There is no such snapshot"))
}

async fn delete_snapshot(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
    let record = own_record(&call)?;
    let one = snapshot(&call, &record)?;
    work::begin(
        &call,
        "vm.removeSnapshot",
        Some((&record.id.clone(), &record.config.name.clone())),
        false,
        move |progress| async move {
            let api = &progress.api;
            let spec = spec(api, &one.config);
            let mut now = api
                .data
                .borrow()
                .vms
                .get(&record.id)
                .cloned()
                .ok_or_else(|| ApiError::not_found("The machine was removed meanwhile"))?;
            now.snapshots.retain(|other| other.id != one.id);
            for other in now.snapshots.iter_mut().filter(|other| other.parent.as_ref() == Some(&one.id)) {
                other.parent.clone_from(&one.parent);
            }
            if now.current.as_ref() == Some(&one.id) {
                now.current.clone_from(&one.parent);
            }
            let change = api.data.borrow_mut().keep_vm(now);
            api.commit(vec![change]).await?;
            for disk in spec.disks.iter().filter(|disk| !disk.read_only) {
                api.host.remove_snapshot(&disk.store, &disk.path, &one.id).await?;
            }
            if let Some(disk) = spec.disks.first().filter(|_| one.memory) {
                api.host.remove(&disk.store, &format!("{}/{}.memory", spec.name, one.id)).await?;
            }
            api.tell("snapshot", &one.id, "removed");
            Ok(None)
        },
    )
    .await
}

async fn revert(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
    let record = own_record(&call)?;
    let one = snapshot(&call, &record)?;
    let running = run_of(&call, &record.config.name).await?;
    work::begin(
        &call,
        "vm.revert",
        Some((&record.id.clone(), &record.config.name.clone())),
        false,
        move |progress| async move {
            let api = &progress.api;
            if running != VmRun::Off && running != VmRun::Failed {
                api.host.vm_power(&record.config.name, VmPower::Stop).await?;
            }
            let config = VmConfig {
                name: record.config.name.clone(),
                ..one.config.clone()
            };
            let spec = spec(api, &config);
            for disk in spec.disks.iter().filter(|disk| !disk.read_only) {
                api.host.revert_disk(&disk.store, &disk.path, &one.id).await?;
            }
            api.host.define_vm(Some(&record.config.name), &spec).await?;
            let id = record.id.clone();
            let change = api.data.borrow_mut().keep_vm(VmRecord {
                config,
                current: Some(one.id.clone()),
                ..record
            });
            api.commit(vec![change]).await?;
            if let Some(disk) = spec.disks.first().filter(|_| one.memory) {
                api.host
                    .restore_vm(&spec.name, &disk.store, &format!("{}/{}.memory", spec.name, one.id))
                    .await?;
            }
            api.tell("vm", &id, "updated");
            Ok(None)
        },
    )
    .await
}

async fn get_autostart(call: Call, _: NoQuery, (): ()) -> Result<Tagged<Autostart>> {
    let settings = call.api.data.borrow().settings.clone();
    let order = settings.autostart_order.iter().filter_map(|id| Id::parse(id).ok()).collect();
    Ok(Tagged(
        Autostart {
            enabled: settings.autostart,
            delay_seconds: Ranged::clamped(settings.autostart_delay),
            order: Few(order),
        },
        settings.version,
    ))
}

async fn set_autostart(call: Call, _: NoQuery, Json(wanted): Json<Autostart>) -> Result<Json<Autostart>> {
    let changes = {
        let mut data = call.api.data.borrow_mut();
        call.check_version(data.settings.version)?;
        if let Some(id) = wanted.order.0.iter().find(|id| !data.vms.contains_key(&***id)) {
            return Err(ApiError::conflict(format!("There is no machine {}", &**id)));
        }
        data.settings.autostart = wanted.enabled;
        data.settings.autostart_delay = wanted.delay_seconds.get();
        data.settings.autostart_order = wanted.order.0.iter().map(|id| id.to_string()).collect();
        data.keep_settings()
    };
    call.api.commit(changes).await?;
    Ok(Json(wanted))
}
