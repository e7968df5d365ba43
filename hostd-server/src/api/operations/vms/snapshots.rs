//! Snapshots of machines.

use super::super::{ListQuery, NoQuery, page};
use super::inventory::spec;
use super::passthrough::need_no_functions;
use super::{Result, own_record, record, run_of};
use crate::{
    api::{
        ApiError, Call,
        data::{SnapshotRecord, VmRecord},
        route::{Accepted, Json},
        work,
    },
    host::{VmPower, VmRun},
    model::{Page, Snapshot, SnapshotCreate, VmConfig},
    time::rfc3339,
};
use alloc::{format, string::String, vec, vec::Vec};

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

pub(super) async fn snapshots(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Snapshot>>> {
    Ok(page(tree(&record(&call)?, None, 0), &query))
}

/// How often a guest is asked to let its file systems go on.
const THAWS: u32 = 3;

pub(super) async fn take_snapshot(call: Call, _: NoQuery, Json(made): Json<SnapshotCreate>) -> Result<Accepted> {
    let record = own_record(&call)?;
    if record.snapshots.len() >= 32 {
        return Err(ApiError::conflict(format!("{} has 32 snapshots already", record.config.name)));
    }
    let running = run_of(&call, &record.config.name).await?;
    let memory = made.with_memory.unwrap_or(false);
    let quiesce = made.quiesce.unwrap_or(false);
    if quiesce && memory {
        return Err(ApiError::invalid(
            "A guest whose memory is kept goes on where it was: its file systems need no rest",
        ));
    }
    if quiesce && running != VmRun::On {
        return Err(ApiError::conflict(format!(
            "{} does not run: its file systems cannot be brought to rest, and nothing writes to them",
            record.config.name
        )));
    }
    if memory && running == VmRun::Suspended {
        return Err(ApiError::conflict(format!(
            "{} is suspended: have it go on first, or keep its disks alone",
            record.config.name
        )));
    }
    if memory && running != VmRun::On {
        return Err(ApiError::conflict(format!(
            "{} does not run: it has no memory to keep",
            record.config.name
        )));
    }
    if memory {
        need_no_functions(&record, "Its memory cannot be kept")?;
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
            if quiesce && let Err(error) = api.host.vm_freeze(&spec.name, true).await {
                // Some may rest already.
                let _ = api.host.vm_freeze(&spec.name, false).await;
                return Err(error.into());
            }
            // Memory and disks are of the same moment: the machine stands still until all of them are there.
            let mut taken = Ok(());
            for disk in spec.disks.iter().filter(|disk| !disk.read_only) {
                if taken.is_ok() {
                    taken = api.host.snapshot_disk(&disk.store, &disk.path, &id).await;
                }
            }
            if let Some(disk) = spec.disks.first().filter(|_| memory) {
                let now = api.host.vms().await?;
                if now.iter().any(|vm| vm.name == spec.name && vm.run == VmRun::Suspended) {
                    let file = format!("{}/{id}.memory", spec.name);
                    api.host.restore_vm(&spec.name, &disk.store, &file).await?;
                }
            }
            let mut thawed = Ok(());
            for _ in 0..THAWS {
                thawed = if quiesce {
                    api.host.vm_freeze(&spec.name, false).await
                } else {
                    Ok(())
                };
                if thawed.is_ok() {
                    break;
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
            // The snapshot is good, but the guest is not.
            thawed?;
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

pub(super) async fn delete_snapshot(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
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

pub(super) async fn revert(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
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
