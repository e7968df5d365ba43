//! Machines' power.

use super::passthrough::need_no_functions;
use super::{Result, record, state_of};
use crate::{
    api::{ApiError, Call, route::Accepted, work},
    host::{VmPower, VmRun},
};
use alloc::format;

pub(super) async fn power(call: Call, name: &'static str, action: VmPower) -> Result<Accepted> {
    let record = record(&call)?;
    let (run, asleep) = state_of(&call, &record.config.name).await?;
    let action = if asleep && action == VmPower::Start {
        VmPower::Wake
    } else {
        action
    };
    let fits = match action {
        VmPower::Wake => asleep,
        // Its power button would wake it.
        VmPower::Shutdown if asleep => false,
        VmPower::Start => run == VmRun::Off || run == VmRun::Failed,
        VmPower::Stop => run != VmRun::Off,
        VmPower::Shutdown | VmPower::Reset | VmPower::Suspend => run == VmRun::On,
        VmPower::Resume => run == VmRun::Suspended,
    };
    if !fits {
        let state = match run {
            VmRun::Off => "off",
            VmRun::On if asleep => "asleep: start it to wake it",
            VmRun::On => "on",
            VmRun::Suspended => "suspended",
            VmRun::Failed => "off after a failure",
        };
        return Err(ApiError::conflict(format!("{} is {state}", record.config.name)));
    }
    if action == VmPower::Suspend {
        need_no_functions(&record, "It cannot be suspended")?;
    }
    if call.api.data.borrow().settings.maintenance && matches!(action, VmPower::Start | VmPower::Resume) {
        return Err(ApiError::conflict("The host is in maintenance mode"));
    }
    work::begin(
        &call,
        name,
        Some((&record.id.clone(), &record.config.name.clone())),
        false,
        move |progress| async move {
            progress.api.host.vm_power(&record.config.name, action).await?;
            progress.api.tell("vm", &record.id, "updated");
            Ok(None)
        },
    )
    .await
}
