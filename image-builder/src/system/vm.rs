//! `[[vm]]`.

use super::{Disk, Nic, passthrough, server::narrow};
use crate::{
    reader::{Reader, number, parsed},
    source::{Diagnostics, Located, Span},
    units,
};
use tessera_manifest::{BootDevice, Firmware, MAX_BOOT_ORDER, PassedFunction, WatchdogAction};

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Where its table stands.
    pub span: Span,
    /// `name`.
    pub name: Located<String>,
    /// `memory` in bytes, a multiple of 2 MiB.
    pub memory: Located<u64>,
    /// `vcpus`, 1 to 8. Default 1.
    pub vcpus: u32,
    /// `firmware`: "bios" or "uefi", the files of these names in `[files]`, instead of a kernel.
    pub firmware: Option<Firmware>,
    /// `kernel`: one of `[files]`, a Linux bzImage, a Multiboot kernel or a boot sector; the monitor sees which.
    pub kernel: Located<String>,
    /// `initramfs`: one of `[files]`. A Multiboot kernel gets it as its module.
    pub initramfs: Option<Located<String>>,
    /// `command-line` of the guest's kernel. Default empty.
    pub command_line: Located<String>,
    /// `display`: a screen, a keyboard, a mouse and a USB tablet. Default no.
    pub display: bool,
    /// `cdrom`: one of `[files]`, or `STORE:PATH` for a file in a datastore. With firmware only.
    pub cdrom: Option<Located<String>>,
    /// `variables`: `STORE:PATH` of the file in a datastore that keeps the variables of UEFI.
    pub variables: Option<Located<String>>,
    /// `boot-order`: a list of "cdrom", "disk", "disk.1", "nic" and so on, for firmware. Default: as it likes.
    pub boot_order: Vec<BootDevice>,
    /// `boot-menu`: how long firmware offers a menu of what to boot from. Default: not at all.
    pub boot_menu_ms: u16,
    /// `watchdog`: "reset" or "power-off", what happens to a guest that does not come by at it. Default none.
    pub watchdog: Option<WatchdogAction>,
    /// `autostart` at boot. Default no.
    pub autostart: bool,
    /// `weight` of the vCPUs among their equals, 1 to 10000. Default 100.
    pub weight: u32,
    /// `budget` of each vCPU per period. Default none: unlimited.
    pub budget_us: Located<u64>,
    /// `period`. Default "10 ms".
    pub period_us: u64,
    /// `disks`: a list of tables. Default none.
    pub disks: Vec<Disk>,
    /// `nics`: a list of tables. Default none.
    pub nics: Vec<Nic>,
    /// `passthrough`: a list of tables, PCI functions of the host that it has for itself. Default none.
    pub passthrough: Vec<Located<PassedFunction>>,
}

impl Vm {
    pub(super) fn from_reader(mut reader: Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let span = reader.span();
        let name = reader.require_text("name", "\"debian\"", diagnostics);
        if let Some(name) = &name {
            reader.rename(format!("virtual machine `{}`", name.value));
        }
        let memory = reader
            .require("memory", "\"256 MiB\"", diagnostics)
            .and_then(|node| parsed(node, "memory", units::size, "256 MiB", diagnostics));
        let firmware = reader.get("firmware").and_then(|node| {
            let known = |text: &str| match text {
                "bios" => Ok(Firmware::Bios),
                "uefi" => Ok(Firmware::Uefi),
                _ => Err("no such firmware".into()),
            };
            parsed(node, "firmware", known, "bios", diagnostics)
        });
        let kernel = match &firmware {
            Some(firmware) => Some(Located::new(firmware.value.file().to_string(), firmware.span)),
            None => reader.require_text("kernel", "\"NAME of [files]\"", diagnostics),
        };
        let cdrom = reader.text("cdrom", diagnostics);
        if let (None, Some(cdrom)) = (&firmware, &cdrom) {
            let help = "add firmware = \"bios\" or \"uefi\": what boots a kernel directly has no drive";
            diagnostics.error(cdrom.span, "a CD-ROM needs firmware".to_string(), "without firmware", help);
        }
        let variables = reader.text("variables", diagnostics);
        if let Some(variables) = variables.as_ref().filter(|place| firmware.is_none() || !place.value.contains(':')) {
            let message = "variables are kept by firmware, in a datastore".to_string();
            diagnostics.error(
                variables.span,
                message,
                "",
                "write `variables = \"STORE:PATH\"` beside `firmware = \"uefi\"`",
            );
        }
        let mut boot_order = Vec::new();
        for word in reader.texts("boot-order", diagnostics) {
            let help = "write a list of \"cdrom\", \"disk\", \"disk.1\", \"nic\", \"nic.1\" and so on";
            match BootDevice::parse(&word.value).filter(|_| boot_order.len() < MAX_BOOT_ORDER) {
                Some(device) if firmware.is_some() => boot_order.push(device),
                Some(_) => diagnostics.error(word.span, "a boot order is for firmware".to_string(), "without firmware", help),
                None => diagnostics.error(word.span, format!("`{}` is nothing to boot from", word.value), "", help),
            }
        }
        let menu = reader.get("boot-menu").and_then(|node| {
            let milliseconds = |text: &str| {
                let menu = units::microseconds(text)? / 1000;
                u16::try_from(menu)
                    .ok()
                    .filter(|menu| *menu > 0)
                    .ok_or_else(|| "it is offered for 1 ms to 65 s".into())
            };
            parsed(node, "boot-menu", milliseconds, "3 s", diagnostics)
        });
        let watchdog = reader.get("watchdog").and_then(|node| {
            let known = |text: &str| match text {
                "reset" => Ok(WatchdogAction::Reset),
                "power-off" => Ok(WatchdogAction::PowerOff),
                _ => Err("a watchdog does \"reset\" or \"power-off\"".into()),
            };
            parsed(node, "watchdog", known, "reset", diagnostics)
        });
        let vcpus = reader.get("vcpus").and_then(|node| number(node, "vcpus", 1..=8, diagnostics));
        let mut disks = Vec::new();
        for (place, mut disk) in reader.tables("disks", diagnostics).into_iter().enumerate() {
            let owner = name.as_ref().map_or("", |name| name.value.as_str());
            disk.rename(format!("disk {place} of virtual machine `{owner}`"));
            disks.extend(Disk::from_reader(disk, diagnostics));
        }
        let mut nics = Vec::new();
        for (place, mut nic) in reader.tables("nics", diagnostics).into_iter().enumerate() {
            let owner = name.as_ref().map_or("", |name| name.value.as_str());
            nic.rename(format!("network card {place} of virtual machine `{owner}`"));
            nics.extend(Nic::from_reader(nic, owner, place, diagnostics));
        }
        let vm = Self {
            span,
            passthrough: passthrough::from_reader(&mut reader, name.as_ref().map_or("", |name| name.value.as_str()), diagnostics),
            disks,
            nics,
            firmware: firmware.map(|firmware| firmware.value),
            cdrom,
            variables,
            boot_order,
            boot_menu_ms: menu.map_or(0, |menu| menu.value),
            watchdog: watchdog.map(|watchdog| watchdog.value),
            vcpus: vcpus.map_or(1, |vcpus| narrow(vcpus.value)),
            initramfs: reader.text("initramfs", diagnostics),
            command_line: reader.text("command-line", diagnostics).unwrap_or_default(),
            display: reader.boolean("display", diagnostics).unwrap_or(false),
            autostart: reader.boolean("autostart", diagnostics).unwrap_or(false),
            weight: narrow(reader.number("weight", 1..=10_000, diagnostics).map_or(100, |weight| weight.value)),
            budget_us: reader
                .parsed("budget", units::microseconds, "2 ms", diagnostics)
                .unwrap_or(Located::new(0, span)),
            period_us: reader
                .parsed("period", units::microseconds, "10 ms", diagnostics)
                .map_or(10_000, |period| period.value),
            memory: memory.unwrap_or(Located::new(2 << 20, span)),
            kernel: kernel.clone().unwrap_or_default(),
            name: name.clone().unwrap_or_default(),
        };
        reader.finish(diagnostics);
        name.and(kernel).map(|_| vm)
    }
}
