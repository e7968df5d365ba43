//! Work on machines that a restart interrupted.

use super::Result;
use super::edit::{add, leave, remove};
use super::plan::make_disks;
use crate::{
    api::{ApiError, work},
    host::{VmPower, VmRun},
    model::VmConfig,
};
use alloc::{boxed::Box, string::String, vec::Vec};

type Work = crate::future::LocalFuture<'static, Result<Option<String>>>;

/// What a machine that is to be made needs besides its configuration.
#[derive(serde::Deserialize)]
struct KeptCreation {
    id: String,
    config: VmConfig,
    disks: Vec<(String, String, u64, bool, bool)>,
}

/// Goes on with a task that was interrupted by a restart. `None`: it cannot be told how much of it was done, or it cannot be done twice.
pub(in crate::api) fn again(progress: work::Progress, task: &crate::model::Task, kept: Option<serde_json::Value>) -> Option<Work> {
    let target = task.target.clone()?;
    match (task.name.as_str(), kept) {
        // The host was started again since.
        ("host.reboot" | "host.shutdown", _) => Some(Box::pin(async { Ok(None) })),
        ("vm.start", _) => Some(Box::pin(power_again(progress, target, VmPower::Start))),
        ("vm.stop", _) => Some(Box::pin(power_again(progress, target, VmPower::Stop))),
        ("vm.unregister", _) => {
            let record = progress.api.data.borrow().vms.get(&target).cloned();
            Some(Box::pin(async move {
                if let Some(record) = record.filter(|record| !record.fixed) {
                    leave(&progress, &record).await?;
                }
                Ok(None)
            }))
        }
        ("vm.delete", Some(kept)) => {
            let record = serde_json::from_value(kept).ok()?;
            Some(Box::pin(remove(progress, record, true)))
        }
        ("vm.create", Some(kept)) => {
            let kept: KeptCreation = serde_json::from_value(kept).ok()?;
            Some(Box::pin(create_again(progress, kept)))
        }
        _ => None,
    }
}

async fn power_again(progress: work::Progress, id: String, action: VmPower) -> Result<Option<String>> {
    let api = &progress.api;
    let record = api.data.borrow().vms.get(&id).cloned();
    let record = record.ok_or_else(|| ApiError::not_found("The machine is not there any more"))?;
    let name = &record.config.name;
    let off = api
        .host
        .vms()
        .await?
        .iter()
        .find(|vm| vm.name == *name)
        .is_none_or(|vm| matches!(vm.run, VmRun::Off | VmRun::Failed));
    if off == (action == VmPower::Start) {
        api.host.vm_power(name, action).await?;
    }
    api.tell("vm", &id, "updated");
    Ok(None)
}

async fn create_again(progress: work::Progress, kept: KeptCreation) -> Result<Option<String>> {
    let api = &progress.api;
    if api.data.borrow().vms.contains_key(&kept.id) {
        // It was kept, and made known to the host with all others.
        return Ok(Some(kept.id));
    }
    let mut left = Vec::new();
    for disk in kept.disks {
        if !disk.4 || api.host.stat(&disk.0, &disk.1).await.is_err() {
            left.push(disk);
        }
    }
    make_disks(&progress, &kept.config.name, left).await?;
    add(&progress, kept.id, kept.config).await
}
