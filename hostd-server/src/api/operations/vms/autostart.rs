//! Machines that start with the host.

use super::super::NoQuery;
use super::Result;
use crate::{
    api::{
        ApiError, Call,
        route::{Json, Tagged},
    },
    model::{
        Autostart,
        text::{Few, Id, Ranged},
    },
};
use alloc::{format, string::ToString};

pub(super) async fn get_autostart(call: Call, _: NoQuery, (): ()) -> Result<Tagged<Autostart>> {
    let settings = call.api.data.borrow().settings.clone();
    let order = settings.autostart_order.iter().filter_map(|id| Id::parse(id).ok()).collect();
    Ok(Tagged(
        Autostart {
            enabled: settings.autostart,
            delay_seconds: Ranged::clamped(settings.autostart_delay),
            order: Few(order),
        },
        settings.version,
    ))
}

pub(super) async fn set_autostart(call: Call, _: NoQuery, Json(wanted): Json<Autostart>) -> Result<Json<Autostart>> {
    let changes = {
        let mut data = call.api.data.borrow_mut();
        call.check_version(data.settings.version)?;
        if let Some(id) = wanted.order.0.iter().find(|id| !data.vms.contains_key(&***id)) {
            return Err(ApiError::conflict(format!("There is no machine {}", &**id)));
        }
        data.settings.autostart = wanted.enabled;
        data.settings.autostart_delay = wanted.delay_seconds.get();
        data.settings.autostart_order = wanted.order.0.iter().map(|id| id.to_string()).collect();
        data.keep_settings()
    };
    call.api.commit(changes).await?;
    Ok(Json(wanted))
}
