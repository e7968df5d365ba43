//! `disks` of a `[[vm]]`: a list of tables, in the order in which the guest sees the disks.

use super::server::narrow;
use crate::{
    reader::Reader,
    source::{Diagnostics, Located, Span},
};
use tessera_manifest::DiskController;

/// A disk of a virtual machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Where its table stands.
    pub span: Span,
    /// Where its bytes are.
    pub backing: Backing,
    /// `read-only`. Default no.
    pub read_only: bool,
    /// `controller`: "virtio" or "ahci", what the guest reaches it by. Default "virtio".
    pub controller: DiskController,
    /// `serial`: up to 20 characters of ASCII that the guest sees. Default none.
    pub serial: Located<String>,
}

/// Where a disk's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// `device = "nvme0"`, with `partition = 1` for a part of it.
    Device(String, u32),
    /// `store = "main", disk = "debian.tvd"`.
    Store(String, String),
}

impl Disk {
    pub(super) fn from_reader(mut reader: Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        const HOW: &str =
            "write { device = \"nvme0\" }, { device = \"nvme0\", partition = 1 } or { store = \"main\", disk = \"debian.tvd\" }";
        let span = reader.span();
        let device = reader.text("device", diagnostics);
        let partition = reader.number("partition", 1..=128, diagnostics);
        let store = reader.text("store", diagnostics);
        let disk = reader.text("disk", diagnostics);
        let read_only = reader.boolean("read-only", diagnostics).unwrap_or(false);
        let serial = reader.text("serial", diagnostics).unwrap_or(Located::new(String::new(), span));
        let known = |word: &str| match word {
            "virtio" => Ok(DiskController::Virtio),
            "ahci" => Ok(DiskController::Ahci),
            _ => Err("a disk's controller is \"virtio\" or \"ahci\"".into()),
        };
        let controller = reader.parsed("controller", known, "ahci", diagnostics);
        let what = reader.what().to_string();
        reader.finish(diagnostics);
        let backing = match (device, store, disk) {
            (Some(device), None, None) => Backing::Device(device.value, partition.map_or(0, |number| narrow(number.value))),
            (None, Some(store), Some(disk)) => {
                if let Some(partition) = partition {
                    diagnostics.error(partition.span, "a disk of a datastore has no `partition`", "", HOW);
                    return None;
                }
                Backing::Store(store.value, disk.value)
            }
            (None, None, None) => {
                diagnostics.error(span, format!("{what} is nowhere"), "neither a device nor a datastore's disk", HOW);
                return None;
            }
            (None, Some(_), None) | (None, None, Some(_)) => {
                diagnostics.error(span, format!("{what} needs both `store` and `disk`"), "one is missing", HOW);
                return None;
            }
            (Some(_), ..) => {
                diagnostics.error(
                    span,
                    format!("{what} is a device and a datastore's disk at once"),
                    "two places",
                    HOW,
                );
                return None;
            }
        };
        Some(Self {
            span,
            backing,
            read_only,
            controller: controller.map_or_else(DiskController::default, |controller| controller.value),
            serial,
        })
    }
}
