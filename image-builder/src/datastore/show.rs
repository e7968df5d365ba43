//! Showing what a datastore holds, to people and to programs.

use super::target::Target;
use crate::units::show_size;
use serde_json::{Value, json};
use tessera_datastore::{Info, Kind, Store};

/// What something is, in a word.
pub const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Folder => "folder",
        Kind::File => "file",
        Kind::Disk => "disk",
        Kind::Snapshot => "snapshot",
    }
}

/// A UUID as text.
pub fn uuid(bytes: [u8; 16]) -> String {
    uuid::Uuid::from_bytes(bytes).to_string()
}

/// An object as JSON.
pub fn info_json(info: &Info) -> Value {
    let mut value = json!({
        "id": info.id, "kind": kind(info.kind), "name": info.name, "size": info.size, "used": info.used, "shared": info.shared,
        "created": info.created, "modified": info.modified,
    });
    if matches!(info.kind, Kind::Disk) {
        value["thick"] = info.thick.into();
        value["checksums"] = info.checksums.into();
        value["reserved"] = info.reserved.into();
        value["uuid"] = uuid(info.uuid).into();
    }
    if let Some(origin) = info.origin {
        value["origin"] = origin.into();
    }
    value
}

/// A folder's content as lines.
pub fn list(entries: &[Info]) -> String {
    let mut text = String::new();
    for info in entries {
        let (size, used) = match info.kind {
            Kind::Folder => (String::new(), String::new()),
            _ => (show_size(info.size), show_size(info.used)),
        };
        let mark = if info.kind == Kind::Folder { "/" } else { "" };
        text += &format!("{:8} {size:>12} {used:>12} used  {}{mark}\n", kind(info.kind), info.name);
    }
    text
}

/// A datastore as JSON.
pub fn store_json(store: &Store<Target>) -> Value {
    let (label, id) = store.identity();
    let usage = store.usage();
    json!({
        "label": label, "uuid": uuid(id), "size": usage.size, "used": usage.used, "free": usage.free, "available": usage.available,
        "reserved": usage.reserved, "provisioned": usage.provisioned, "near_full": usage.near_full,
    })
}

/// A datastore as lines.
pub fn store(store: &Store<Target>) -> String {
    let (label, id) = store.identity();
    let usage = store.usage();
    let warning = if usage.near_full { " (nearly full)" } else { "" };
    format!(
        "label        {label}\nuuid         {}\nsize         {}\nused         {}\navailable    {}{warning}\nreserved     {}\nprovisioned  {}\n",
        uuid(id),
        show_size(usage.size),
        show_size(usage.used),
        show_size(usage.available),
        show_size(usage.reserved),
        show_size(usage.provisioned)
    )
}

/// An object as lines.
pub fn info(info: &Info) -> String {
    let mut text = format!(
        "id           {}\nkind         {}\nname         {}\nsize         {} ({} bytes)\nused         {}\nshared       {}\n",
        info.id,
        kind(info.kind),
        info.name,
        show_size(info.size),
        info.size,
        show_size(info.used),
        show_size(info.shared)
    );
    if info.kind == Kind::Disk {
        text += &format!(
            "provisioning {}\nchecksums    {}\nuuid         {}\n",
            if info.thick { "thick" } else { "thin" },
            if info.checksums { "yes" } else { "no" },
            uuid(info.uuid)
        );
    }
    text
}
