//! `vm create`, `vm show`, `vm remove`.

use crate::{
    commands::{Context, Doing, Failure, datastore::size, shorten},
    format,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_pci::{Class, class_name};
use tessera_proto::vm_manager::{BootDevice, FilePlace, Firmware, MAX_BOOT_ORDER, PassedInfo, VmConfig, WatchdogAction};
use tessera_proto::vm_memory::{DiskConfig, DiskController, DiskPlace, NicConfig, NicModel};
use tessera_vswitch::station_address;

/// What a machine has when nothing is said about it.
const VCPUS: u32 = 1;
const WEIGHT: u32 = 100;
const PERIOD_US: u64 = 10_000;

/// A file of the image (`image:NAME`) or of a datastore (`STORE:PATH`).
pub fn file(word: &str) -> Option<FilePlace> {
    let (store, path) = word.split_once(':').filter(|(store, path)| !store.is_empty() && !path.is_empty())?;
    Some(if store == "image" {
        FilePlace::Image { name: path.into() }
    } else {
        FilePlace::Store {
            store: store.into(),
            path: path.into(),
        }
    })
}

/// A disk of a datastore (`STORE:PATH`), or one of the host or a partition of it (`device:NAME`, `device:NAME/2`).
fn disk(word: &str, controller: DiskController) -> Option<DiskConfig> {
    let (store, path) = word.split_once(':').filter(|(store, path)| !store.is_empty() && !path.is_empty())?;
    let place = if store == "device" {
        let (device, partition) = match path.split_once('/') {
            Some((device, number)) => (device, number.parse().ok().filter(|number| *number > 0)?),
            None => (path, 0),
        };
        DiskPlace::Device {
            device: device.into(),
            partition,
        }
    } else {
        DiskPlace::Store {
            store: store.into(),
            disk: path.into(),
        }
    };
    Some(DiskConfig {
        place,
        read_only: false,
        serial: String::new(),
        controller,
    })
}

/// What the guest reaches a disk by that comes behind a word.
const fn controller(word: &str) -> DiskController {
    match word.as_bytes() {
        b"ahci" => DiskController::Ahci,
        _ => DiskController::Virtio,
    }
}

/// Reads what to boot from, such as `cdrom,disk.1,nic`.
fn order(words: &str) -> Result<Vec<BootDevice>, String> {
    let device = |word: &str| {
        BootDevice::parse(word).ok_or_else(|| {
            format!(
                "`{}` is nothing to boot from: write cdrom, disk, nic, or disk.1 for the second disk, with commas between them",
                shorten(word)
            )
        })
    };
    let order: Vec<_> = words.split(',').map(device).collect::<Result<_, _>>()?;
    if order.len() > MAX_BOOT_ORDER {
        return Err(format!("a boot order has at most {MAX_BOOT_ORDER} entries"));
    }
    Ok(order)
}

/// Reads for how many seconds a menu is offered, in milliseconds.
fn menu(word: &str) -> Result<u16, String> {
    let seconds = word.parse().ok().filter(|seconds| (1..=65).contains(seconds));
    seconds
        .map(|seconds: u16| seconds * 1000)
        .ok_or_else(|| format!("a boot menu is offered for 1 to 65 seconds, not `{}`", shorten(word)))
}

/// Reads what a watchdog does.
fn watchdog(word: &str) -> Result<WatchdogAction, String> {
    match word {
        "reset" => Ok(WatchdogAction::Reset),
        "power-off" => Ok(WatchdogAction::PowerOff),
        _ => Err(format!("a watchdog does reset or power-off, not `{}`", shorten(word))),
    }
}

/// Reads what follows `vm create`.
fn parse(words: &[&str]) -> Result<VmConfig, String> {
    let [name, memory, kernel, rest @ ..] = words else {
        return Err("a machine needs a name, its memory, and a kernel or firmware".into());
    };
    let place = |word: &str| {
        file(word).ok_or_else(|| {
            format!(
                "`{}` is no file: write image:NAME for one in the image, STORE:PATH for one in a datastore",
                shorten(word)
            )
        })
    };
    let mut config = VmConfig {
        name: (*name).into(),
        memory: size::parse(memory).ok_or_else(|| format!("MEMORY must be a number such as 512M or 2G, not `{}`", shorten(memory)))?,
        vcpus: VCPUS,
        weight: WEIGHT,
        budget_us: 0,
        period_us: PERIOD_US,
        firmware: match *kernel {
            "bios" => Some(Firmware::Bios),
            "uefi" => Some(Firmware::Uefi),
            _ => None,
        },
        kernel: match *kernel {
            "bios" | "uefi" => FilePlace::Image { name: (*kernel).into() },
            kernel => place(kernel)?,
        },
        initramfs: None,
        command_line: String::new(),
        display: false,
        cdrom: None,
        variables: None,
        boot_order: Vec::new(),
        boot_menu_ms: 0,
        watchdog: None,
        disks: Vec::new(),
        nics: Vec::new(),
        passthrough: Vec::new(),
    };
    let mut rest = rest.iter().peekable();
    while let Some(word) = rest.next() {
        if *word == "--" {
            config.command_line = rest.copied().collect::<Vec<_>>().join(" ");
            break;
        }
        let value = rest.next().ok_or_else(|| format!("`{}` needs a value behind it", shorten(word)))?;
        match *word {
            "initramfs" => config.initramfs = Some(place(value)?),
            "cdrom" => config.cdrom = Some(place(value)?),
            "variables" => config.variables = Some(place(value)?),
            "boot-order" => config.boot_order = order(value)?,
            "boot-menu" => config.boot_menu_ms = menu(value)?,
            "watchdog" => config.watchdog = Some(watchdog(value)?),
            "vcpus" => config.vcpus = value.parse().map_err(|_| format!("`{}` is no number", shorten(value)))?,
            "display" => {
                config.display = match *value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(format!("`display` is on or off, not `{}`", shorten(value))),
                }
            }
            "disk" | "ahci" => config.disks.push(disk(value, controller(word)).ok_or_else(|| {
                format!(
                    "`{}` is no disk: write STORE:PATH for one in a datastore, device:NAME or device:NAME/PARTITION for one of the host",
                    shorten(value)
                )
            })?),
            "nic" => config.nics.push(NicConfig {
                port_group: (*value).into(),
                mac: station_address(name, config.nics.len()),
                model: match rest.next_if(|word| **word == "e1000e") {
                    Some(_) => NicModel::E1000e,
                    None => NicModel::Virtio,
                },
            }),
            other => {
                return Err(format!(
                    "a machine has no `{}`: initramfs, vcpus, display, cdrom, variables, boot-order, boot-menu, watchdog, disk, ahci and nic can follow, and `--` before the kernel's command line",
                    shorten(other)
                ));
            }
        }
    }
    Ok(config)
}

/// Makes a machine.
pub fn create(context: &mut Context<'_>, command: &dyn crate::commands::Command, words: &[&str]) -> Result<(), Failure> {
    // What is behind `--` is the kernel's, quotes and all.
    let own = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let named = crate::commands::unquote(command, &words[..own])?;
    let all: Vec<&str> = named.iter().map(String::as_str).chain(words[own..].iter().copied()).collect();
    let config = parse(&all).map_err(|what| Failure::usage(command, what))?;
    let name = config.name.clone();
    context.host.vm_create(config).doing(&format!("make {name}"))?;
    context.out.line(&format!("Made {name}; `vm start {name}` starts it."));
    Ok(())
}

/// Forgets one.
pub fn remove(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    context.host.vm_remove(name).doing(&format!("remove {name}"))?;
    context.out.line(&format!("Removed {name}. Its disks are still there."));
    Ok(())
}

pub fn file_text(place: &FilePlace) -> String {
    match place {
        FilePlace::Image { name } => format!("image:{name}"),
        FilePlace::Store { store, path } => format!("{store}:{path}"),
    }
}

fn boot_text(device: &BootDevice) -> String {
    match device {
        BootDevice::Cdrom => "cdrom".into(),
        BootDevice::Disk(number) => format!("disk.{number}"),
        BootDevice::Nic(number) => format!("nic.{number}"),
    }
}

/// How one is made up.
pub fn show(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let config = context.host.vm_config(name).doing(&format!("read about {name}"))?;
    let mut lines = Vec::from([
        ("memory", format::bytes(config.memory)),
        ("vcpus", config.vcpus.to_string()),
        ("weight", config.weight.to_string()),
    ]);
    if config.budget_us != 0 {
        lines.push(("budget", format!("{} us in {} us", config.budget_us, config.period_us)));
    }
    lines.push(match config.firmware {
        Some(Firmware::Bios) => ("firmware", "BIOS".into()),
        Some(Firmware::Uefi) => ("firmware", "UEFI".into()),
        None => ("kernel", file_text(&config.kernel)),
    });
    lines.extend(config.cdrom.as_ref().map(|place| ("cdrom", file_text(place))));
    lines.extend(config.variables.as_ref().map(|place| ("variables", file_text(place))));
    if !config.boot_order.is_empty() {
        let order: Vec<_> = config.boot_order.iter().map(boot_text).collect();
        lines.push(("boot", order.join(", ")));
    }
    if config.boot_menu_ms > 0 {
        lines.push(("menu", format!("{} ms", config.boot_menu_ms)));
    }
    lines.extend(config.watchdog.map(|action| {
        let text = match action {
            WatchdogAction::Reset => "resets",
            WatchdogAction::PowerOff => "switches off",
        };
        ("watchdog", text.into())
    }));
    lines.extend(config.initramfs.as_ref().map(|place| ("initramfs", file_text(place))));
    if !config.command_line.is_empty() {
        lines.push(("line", config.command_line));
    }
    if config.display {
        lines.push(("display", "screen, keyboard, mouse and tablet".into()));
    }
    for disk in &config.disks {
        let mut text = match &disk.place {
            DiskPlace::Device { device, partition: 0 } => format!("device:{device}"),
            DiskPlace::Device { device, partition } => format!("device:{device}/{partition}"),
            DiskPlace::Store { store, disk } => format!("{store}:{disk}"),
        };
        if disk.read_only {
            text.push_str(", read-only");
        }
        if disk.controller == DiskController::Ahci {
            text.push_str(", on AHCI");
        }
        lines.push(("disk", text));
    }
    for nic in &config.nics {
        let [a, b, c, d, e, f] = nic.mac;
        let mut text = format!("{}, {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}", nic.port_group);
        if nic.model == NicModel::E1000e {
            text.push_str(", an 82574L");
        }
        lines.push(("nic", text));
    }
    let passed = context
        .host
        .vm_passthrough(name)
        .doing(&format!("read about the PCI functions of {name}"))?;
    lines.extend(passed.iter().map(|passed| ("pci", passed_text(passed))));
    for (what, text) in lines {
        context.out.prose(&format!("  {what:<9} {text}"), 12);
    }
    Ok(())
}

/// A PCI function of the host that a machine has.
fn passed_text(passed: &PassedInfo) -> String {
    if passed.address.is_empty() {
        return format!("{}, which this host does not have", passed.wanted);
    }
    let ((vendor, device), (base, sub, interface)) = (passed.identity, passed.class);
    let what = class_name(Class { base, sub, interface });
    format!("{} of the host, {what} {vendor:04x}:{device:04x}", passed.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_machine_is_read_from_words() {
        let config = parse(&[
            "web",
            "512M",
            "main:boot/vmlinuz",
            "initramfs",
            "image:rd",
            "vcpus",
            "2",
            "disk",
            "main:web.tvd",
            "ahci",
            "device:nvme0/2",
            "nic",
            "VM Network",
            "nic",
            "DMZ",
            "e1000e",
            "--",
            "root=/dev/vda",
            "quiet",
        ]);
        let config = config.unwrap();
        assert_eq!((config.name.as_str(), config.memory, config.vcpus), ("web", 512 << 20, 2));
        assert_eq!(file_text(&config.kernel), "main:boot/vmlinuz");
        assert_eq!(config.initramfs, Some(FilePlace::Image { name: "rd".into() }));
        assert_eq!(config.command_line, "root=/dev/vda quiet");
        let controllers: Vec<_> = config.disks.iter().map(|disk| disk.controller).collect();
        assert_eq!(controllers, [DiskController::Virtio, DiskController::Ahci]);
        let cards: Vec<_> = config.nics.iter().map(|nic| (nic.port_group.as_str(), nic.model)).collect();
        assert_eq!(cards, [("VM Network", NicModel::Virtio), ("DMZ", NicModel::E1000e)]);
        assert_ne!(config.nics[0].mac, config.nics[1].mac);
        let places: Vec<_> = config.disks.into_iter().map(|disk| disk.place).collect();
        let device = DiskPlace::Device {
            device: "nvme0".into(),
            partition: 2,
        };
        assert_eq!((places.len(), &places[1]), (2, &device));
        for wrong in [
            &["web"][..],
            &["web", "much", "image:k"],
            &["web", "1G", "kernel"],
            &["web", "1G", ":k"],
            &["web", "1G", "image:k", "disk"],
            &["web", "1G", "image:k", "disk", "nvme0"],
            &["web", "1G", "image:k", "ahci", "nvme0"],
            &["web", "1G", "image:k", "disk", "device:nvme0/0"],
            &["web", "1G", "image:k", "disk", "device:nvme0/x"],
            &["web", "1G", "image:k", "floppy", "a:b"],
            &["web", "1G", "image:k", "nic"],
            &["web", "1G", "image:k", "nic", "DMZ", "ne2000"],
            &["web", "1G", "firmware"],
            &["web", "1G", "image:k", "vcpus", "x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_machine_with_firmware() {
        let words = [
            "web",
            "512M",
            "bios",
            "boot-order",
            "cdrom,disk.1,nic",
            "boot-menu",
            "3",
            "watchdog",
            "reset",
        ];
        let config = parse(&words).unwrap();
        assert_eq!(config.boot_order, [BootDevice::Cdrom, BootDevice::Disk(1), BootDevice::Nic(0)]);
        assert_eq!((config.boot_menu_ms, config.watchdog), (3000, Some(WatchdogAction::Reset)));
        for wrong in [
            ["boot-order", "cdrom.1"],
            ["boot-order", ""],
            ["boot-menu", "0"],
            ["boot-menu", "66"],
            ["watchdog", "bite"],
        ] {
            assert!(parse(&[&["web", "512M", "bios"][..], &wrong].concat()).is_err(), "{wrong:?}");
        }
        let config = parse(&["web", "512M", "uefi", "cdrom", "main:iso/netinst.iso"]).unwrap();
        assert_eq!(config.firmware, Some(Firmware::Uefi));
        assert_eq!(config.cdrom.as_ref().map(file_text).as_deref(), Some("main:iso/netinst.iso"));
        assert_eq!(parse(&["web", "512M", "bios"]).unwrap().firmware, Some(Firmware::Bios));
    }

    proptest! {
        #[test]
        fn anything_typed_is_answered(words in prop::collection::vec("[ -~]{0,12}", 0..8)) {
            let words: std::vec::Vec<&str> = words.iter().map(|word| word.as_str()).collect();
            let _ = parse(&words);
        }
    }
}
