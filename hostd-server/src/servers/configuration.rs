//! How machines are made up: what hostd calls for, and what init takes.

use super::{Answer, init::cpu_mhz};
use alloc::{format, string::String};
use tessera_hostd::host::{self, DiskSpec, Failure, GuestFirmware, HostError, NicSpec, Place, VmSpec, Watchdog};
use tessera_proto::{
    vm_manager::{BootDevice, FilePlace, Firmware, VmConfig, WatchdogAction},
    vm_memory::{DiskConfig, DiskController, DiskPlace, NicConfig, NicModel},
};

/// Period of the vCPUs' budgets in microseconds.
const PERIOD_US: u64 = 10_000;
/// Least time of a vCPU in a period: with less it would hardly do anything between two switches.
const LEAST_US: u64 = 100;
/// Shares of the API for one unit of the kernel's weight: 1000 and 100 are normal.
const SHARES_OF_WEIGHT: u32 = 10;
/// What the API calls the image, where a file can be as it can be in a datastore.
const IMAGE: &str = "image";

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
        controller: match disk.controller {
            host::DiskController::Virtio => DiskController::Virtio,
            host::DiskController::Ahci => DiskController::Ahci,
        },
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
pub fn medium_place(disk: &DiskSpec) -> FilePlace {
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

/// The configuration that init takes.
///
/// # Errors
/// This host cannot have such a machine.
pub fn config(spec: &VmSpec) -> Answer<VmConfig> {
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
        boot_order: spec.boot_order.iter().filter_map(|word| BootDevice::parse(word)).collect(),
        boot_menu_ms: spec.boot_menu_ms,
        watchdog: spec.watchdog.map(|watchdog| match watchdog {
            Watchdog::Reset => WatchdogAction::Reset,
            Watchdog::PowerOff => WatchdogAction::PowerOff,
        }),
        disks: disks.chain(as_disk).collect(),
        // A card has its link up as long as it is there.
        nics: spec
            .nics
            .iter()
            .filter(|nic| nic.connected)
            .map(|nic| NicConfig {
                port_group: nic.network.clone(),
                mac: nic.mac,
                model: match nic.model {
                    host::NicModel::Virtio => NicModel::Virtio,
                    host::NicModel::E1000e => NicModel::E1000e,
                },
            })
            .collect(),
        passthrough: spec.passthrough.clone(),
    })
}

/// The word of a device in a boot order.
fn boot_word(device: &BootDevice) -> String {
    match device {
        BootDevice::Cdrom => "cdrom".into(),
        BootDevice::Disk(number) => format!("disk.{number}"),
        BootDevice::Nic(number) => format!("nic.{number}"),
    }
}

/// What init has, in hostd's terms.
pub fn spec(config: VmConfig) -> VmSpec {
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
            controller: match disk.controller {
                DiskController::Virtio => host::DiskController::Virtio,
                DiskController::Ahci => host::DiskController::Ahci,
            },
        }
    };
    let nic = |nic: NicConfig| NicSpec {
        network: nic.port_group,
        mac: nic.mac,
        connected: true,
        model: match nic.model {
            NicModel::Virtio => host::NicModel::Virtio,
            NicModel::E1000e => host::NicModel::E1000e,
        },
    };
    let all = u64::from(cpu_mhz()) * u64::from(config.vcpus);
    let limit = |budget: u64| u32::try_from(all * budget / config.period_us.max(1)).unwrap_or(u32::MAX);
    VmSpec {
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
                controller: host::DiskController::default(),
            }
        }),
        boot_order: config.boot_order.iter().map(boot_word).collect(),
        boot_menu_ms: config.boot_menu_ms,
        watchdog: config.watchdog.map(|action| match action {
            WatchdogAction::Reset => Watchdog::Reset,
            WatchdogAction::PowerOff => Watchdog::PowerOff,
        }),
        passthrough: config.passthrough,
    }
}
