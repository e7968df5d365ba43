//! The operations, by what they are about.

pub(super) mod monitor;
pub(super) mod network;
mod ports;
pub(super) mod screen;
mod security;
mod storage;
pub(super) mod system;
pub(super) mod vms;

use super::route::{NoQuery, Route, route};
use crate::model::{Page, text};
use alloc::{string::ToString, vec::Vec};

/// Which part of a list.
#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Where to begin: `next` of the page before.
    cursor: Option<text::Ranged<0, 1_000_000>>,
    /// Most items of the page.
    limit: Option<text::Ranged<1, 1000>>,
}

fn page<T>(items: Vec<T>, query: &ListQuery) -> super::route::Json<Page<T>> {
    let from = query.cursor.map_or(0, |cursor| usize::try_from(cursor.get()).unwrap_or(0));
    let most = query.limit.map_or(100, |limit| usize::try_from(limit.get()).unwrap_or(100));
    let next = (items.len() > from.saturating_add(most)).then(|| (from + most).to_string());
    super::route::Json(Page {
        items: items.into_iter().skip(from).take(most).collect(),
        next,
    })
}

/// Every operation.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    security::routes(&mut routes);
    system::routes(&mut routes);
    monitor::routes(&mut routes);
    vms::routes(&mut routes);
    screen::routes(&mut routes);
    storage::routes(&mut routes);
    network::routes(&mut routes);
    ports::routes(&mut routes);
    routes
}
