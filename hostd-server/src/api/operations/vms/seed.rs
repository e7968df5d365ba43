//! What a machine's guest finds at its first start.

use super::super::NoQuery;
use super::inventory::spec;
use super::{Result, need_off, own_record};
use crate::{
    api::{
        ApiError, Call,
        data::VmRecord,
        route::{Accepted, Json},
        work,
    },
    model::{Firmware, Seed, VmConfig},
};
use alloc::{format, vec};

/// Whether somebody can log in afterwards, and everything in the form is meant.
fn check(form: &Seed) -> Result<()> {
    let account = form.user.is_some() || form.password.is_some() || !form.ssh_keys.0.is_empty();
    match (&form.user_data, &form.user) {
        (Some(_), _) if account => Err(ApiError::invalid(
            "Own user-data takes the place of user, sshKeys and password: give one or the other",
        )),
        (None, None) => Err(ApiError::invalid("Give a user, or user-data of your own")),
        (None, Some(user)) if form.password.is_none() && form.ssh_keys.0.is_empty() => Err(ApiError::invalid(format!(
            "Nobody could log in as {}: give a key or a password",
            &**user
        ))),
        _ => Ok(()),
    }
}

/// Makes an image for cloud-init and puts it into the drive.
pub(super) async fn seed(call: Call, _: NoQuery, Json(form): Json<Seed>) -> Result<Accepted> {
    check(&form)?;
    let old = own_record(&call)?;
    if old.config.boot.firmware == Firmware::Direct {
        return Err(ApiError::conflict(format!(
            "{} starts directly: only a machine with firmware has a CD drive",
            old.config.name
        )));
    }
    need_off(&call, &old).await?;
    work::begin(
        &call,
        "vm.seed",
        Some((&old.id.clone(), &old.config.name.clone())),
        false,
        move |progress| async move {
            let api = &progress.api;
            let name = old.config.name.clone();
            let disks = spec(api, &old.config).disks;
            let disk = disks
                .first()
                .ok_or_else(|| ApiError::conflict("The image goes to the first disk's datastore, and there is no disk"))?;
            let password = match &form.password {
                Some(password) => {
                    let password = password.clone().into_string();
                    let mut salt = [0; 12];
                    api.platform.random(&mut salt);
                    api.offload(move || crate::seed::hash(&password, salt)).await?
                }
                None => None,
            };
            if form.password.is_some() && password.is_none() {
                return Err(ApiError::conflict("The password could not be hashed"));
            }
            // Another instance each time, so that cloud-init does what it says.
            let image = crate::seed::image(&form, &format!("{}-{}", old.id, api.now()), password.as_deref())
                .ok_or_else(|| ApiError::conflict("That is more than an image can hold"))?;
            if api.host.stat(&disk.store, &name).await.is_err() {
                api.host.create_folder(&disk.store, &name).await?;
            }
            let path = format!("{name}/seed.iso");
            let mut sink = api.host.write_file(&disk.store, &path, 0).await?;
            super::super::storage::write_all(&mut *sink, &image).await?;
            core::future::poll_fn(|context| sink.poll_sync(context)).await?;
            let config = VmConfig {
                cdrom: Some(format!("[{}] {path}", disk.store)),
                ..old.config.clone()
            };
            api.host.define_vm(Some(&name), &spec(api, &config)).await?;
            let id = old.id.clone();
            let change = api.data.borrow_mut().keep_vm(VmRecord { config, ..old });
            api.commit(vec![change]).await?;
            api.tell("vm", &id, "updated");
            Ok(Some(id))
        },
    )
    .await
}
