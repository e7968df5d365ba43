//! Making, changing, cloning and removing machines.

use super::super::NoQuery;
use super::inventory::spec;
use super::passthrough::check_functions;
use super::plan::{check_boot, check_files, check_name, make_disks, plan_disks, plan_nics, round};
use super::{Result, need_off, own_record};
use crate::{
    api::{
        ApiError, Call,
        data::VmRecord,
        route::{Accepted, Json},
        work,
    },
    host::Failure,
    model::{CloneRequest, Firmware, VmConfig, VmCreate, VmPatch},
    state::Change,
};
use alloc::{format, string::String, vec, vec::Vec};

/// Keeps a machine and makes the host know it. In that order: what is kept is made known after a restart, what is not would be nobody's.
pub(super) async fn add(progress: &work::Progress, id: String, config: VmConfig) -> Result<Option<String>> {
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

pub(super) async fn create(call: Call, _: NoQuery, Json(made): Json<VmCreate>) -> Result<Accepted> {
    check_boot(&made.boot)?;
    check_name(&call, &made.name, None)?;
    check_files(
        &call,
        [made.boot.kernel.as_deref(), made.boot.initramfs.as_deref(), made.cdrom.as_deref()].into_iter(),
    )
    .await?;
    let passthrough = check_functions(&call, &made.name, made.passthrough, &[]).await?;
    let (disks, work) = plan_disks(&call, &made.name, made.disks, &[]).await?;
    let config = VmConfig {
        nics: plan_nics(&call, made.nics, &[]).await?,
        disks,
        passthrough,
        guest_os: made.guest_os.map_or_else(|| "other".into(), |os| os.into_string()),
        vcpus: made.vcpus.get32(),
        memory: round(made.memory.get()),
        cpu_shares: made.cpu_shares.map_or(1000, |shares| shares.get32()),
        cpu_reservation_mhz: made.cpu_reservation_mhz.map_or(0, |mhz| mhz.get32()),
        cpu_limit_mhz: made.cpu_limit_mhz.map(|mhz| mhz.get32()),
        cdrom: made.cdrom.map(|path| path.into_string()),
        boot: made.boot,
        watchdog: made.watchdog.unwrap_or_default(),
        on_panic: made.on_panic.unwrap_or_default(),
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

/// The change leaves everything as it is.
fn changes_nothing(change: &VmPatch) -> bool {
    serde_json::from_str::<VmPatch>("{}").is_ok_and(|nothing| *change == nothing)
}

pub(super) async fn edit(call: Call, _: NoQuery, Json(change): Json<VmPatch>) -> Result<Accepted> {
    let old = own_record(&call)?;
    call.check_version(old.version)?;
    // These are hostd's alone and can be changed at any time.
    let rest = VmPatch {
        notes: None,
        autostart: None,
        on_panic: None,
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
    if let Some(passed) = change.passthrough {
        config.passthrough = check_functions(&call, &old.config.name, passed, &old.config.passthrough).await?;
    }
    config.watchdog = change.watchdog.unwrap_or(config.watchdog);
    config.on_panic = change.on_panic.unwrap_or(config.on_panic);
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

pub(super) async fn leave(progress: &work::Progress, record: &VmRecord) -> Result<()> {
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

pub(super) async fn delete(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
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
pub(super) async fn remove(progress: work::Progress, record: VmRecord, again: bool) -> Result<Option<String>> {
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

pub(super) async fn unregister(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
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

pub(super) async fn clone(call: Call, _: NoQuery, Json(request): Json<CloneRequest>) -> Result<Accepted> {
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
                // A function is one machine's, and so stays with the first.
                passthrough: Vec::new(),
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
