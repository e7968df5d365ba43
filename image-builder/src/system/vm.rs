//! `[[vm]]`.

use super::{Disk, Nic, server::narrow};
use crate::{
    reader::{Reader, number, parsed},
    source::{Diagnostics, Located, Span},
    units,
};
use tessera_manifest::Firmware;

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Where its table stands.
    pub span: Span,
    /// `name`.
    pub name: Located<String>,
    /// `memory` in bytes, a multiple of 2 MiB.
    pub memory: Located<u64>,
    /// `vcpus`, 1 to 4. Default 1.
    pub vcpus: u32,
    /// `firmware`: "bios" or "uefi", the files of these names in `[files]`, instead of a kernel.
    pub firmware: Option<Firmware>,
    /// `kernel`: one of `[files]`, a Linux bzImage, a Multiboot kernel or a boot sector; the monitor sees which.
    pub kernel: Located<String>,
    /// `initramfs`: one of `[files]`. A Multiboot kernel gets it as its module.
    pub initramfs: Option<Located<String>>,
    /// `command-line` of the guest's kernel. Default empty.
    pub command_line: Located<String>,
    /// `display`: a screen, a keyboard and a mouse. Default no.
    pub display: bool,
    /// `cdrom`: one of `[files]`, or `STORE:PATH` for a file in a datastore. With firmware only.
    pub cdrom: Option<Located<String>>,
    /// `variables`: `STORE:PATH` of the file in a datastore that keeps the variables of UEFI.
    pub variables: Option<Located<String>>,
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
        let vcpus = reader.get("vcpus").and_then(|node| number(node, "vcpus", 1..=4, diagnostics));
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
            disks,
            nics,
            firmware: firmware.map(|firmware| firmware.value),
            cdrom,
            variables,
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
