//! What the inventory has and what the host has of machines: the one is made the other's at the start.

use crate::{
    api::{Api, data::VmRecord},
    host::{DiskController, DiskSpec, GuestFirmware, NicSpec, Place, VmPower, VmRun, VmSpec, Watchdog},
    model::{
        Boot, Firmware, IncidentAction, VmConfig, VmDisk, VmNic,
        text::{BootDevice, Few, Ranged, StoragePath, parse_mac, split_storage_path},
    },
};
use alloc::{
    boxed::Box,
    format,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};

pub(super) fn place(path: &StoragePath) -> Place {
    match split_storage_path(path) {
        Some(("image", name)) => Place::Image(name.into()),
        Some((store, file)) => Place::Store(store.into(), file.into()),
        None => Place::Image(String::new()),
    }
}

/// What the host is to make of a configuration.
pub(super) fn spec(api: &Api, config: &VmConfig) -> VmSpec {
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
                controller: disk.controller,
            })
            .collect(),
        nics: config
            .nics
            .iter()
            .map(|nic| NicSpec {
                network: data.name("network", &nic.network).unwrap_or_default(),
                mac: parse_mac(&nic.mac).unwrap_or_default(),
                connected: nic.connected,
                model: nic.model,
            })
            .collect(),
        passthrough: config.passthrough.clone(),
        cdrom: config.cdrom.as_deref().and_then(split_storage_path).map(|(store, path)| DiskSpec {
            store: store.into(),
            path: path.into(),
            read_only: true,
            controller: DiskController::default(),
        }),
        boot_order: config
            .boot
            .order
            .iter()
            .filter(|_| !direct)
            .flat_map(|order| order.0.iter().map(|device| device.to_string()))
            .collect(),
        boot_menu_ms: config
            .boot
            .menu_seconds
            .filter(|_| !direct)
            .map_or(0, |seconds| u16::try_from(seconds.get() * 1000).unwrap_or(u16::MAX)),
        watchdog: match config.watchdog {
            IncidentAction::None => None,
            IncidentAction::Reset => Some(Watchdog::Reset),
            IncidentAction::PowerOff => Some(Watchdog::PowerOff),
        },
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
                model: nic.model,
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
                controller: disk.controller,
            })
            .collect(),
        nics,
        passthrough: spec.passthrough,
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
            order: Some(Few(spec
                .boot_order
                .iter()
                .filter_map(|device| BootDevice::parse(device).ok())
                .collect())),
            menu_seconds: Some(Ranged::clamped(u64::from(spec.boot_menu_ms / 1000))),
        },
        watchdog: match spec.watchdog {
            None => IncidentAction::None,
            Some(Watchdog::Reset) => IncidentAction::Reset,
            Some(Watchdog::PowerOff) => IncidentAction::PowerOff,
        },
        on_panic: IncidentAction::None,
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
