//! Whether a machine can be made up as it is wanted, and what is to be made for it.

use super::Result;
use crate::{
    api::{ApiError, Call, work},
    model::{
        Boot, DiskInput, Firmware, NicInput, VmDisk, VmNic,
        text::{Few, Ranged, split_storage_path},
    },
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

pub(super) fn check_boot(boot: &Boot) -> Result<()> {
    if boot.firmware == Firmware::Direct && boot.kernel.is_none() {
        return Err(ApiError::invalid("A machine that starts directly needs a kernel"));
    }
    Ok(())
}

/// Files that are named must be there.
pub(super) async fn check_files<'a>(call: &Call, paths: impl Iterator<Item = Option<&'a str>>) -> Result<()> {
    for path in paths.flatten() {
        let Some((store, file)) = split_storage_path(path) else { continue };
        if store != "image" && call.api.host.stat(store, file).await.is_err() {
            return Err(ApiError::conflict(format!("There is no file {path}")));
        }
    }
    Ok(())
}

/// The disks a machine is to have, and which of them are to be made or grown: store, path, size, thick, new.
pub(super) async fn plan_disks(
    call: &Call,
    name: &str,
    wanted: Few<DiskInput, 8>,
    old: &[VmDisk],
) -> Result<(Vec<VmDisk>, Vec<(String, String, u64, bool, bool)>)> {
    let (mut disks, mut work): (Vec<VmDisk>, Vec<_>) = (Vec::new(), Vec::new());
    for input in wanted.0 {
        let store = crate::api::operations::storage::store(call, &input.datastore).await?;
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
            controller: input.controller.or(earlier.map(|disk| disk.controller)).unwrap_or_default(),
        });
    }
    Ok((disks, work))
}

pub(super) async fn plan_nics(call: &Call, wanted: Few<NicInput, 8>, old: &[VmNic]) -> Result<Vec<VmNic>> {
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
            model: input.model.or(earlier.map(|nic| nic.model)).unwrap_or_default(),
        });
    }
    Ok(nics)
}

pub(super) fn round(memory: u64) -> u64 {
    memory.next_multiple_of(2 << 20)
}

pub(super) fn check_name(call: &Call, name: &str, own: Option<&str>) -> Result<()> {
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

pub(super) async fn make_disks(progress: &work::Progress, folder: &str, work: Vec<(String, String, u64, bool, bool)>) -> Result<()> {
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
