//! What goes on: logs, tasks, events, counters, inventory, changes.

use super::{ListQuery, NoQuery, page, route};
use crate::{
    api::{
        Api, ApiError, Call, Needs,
        route::{Accepted, Json, Raw, Route},
        stream, work,
    },
    http::{Body, Message, Method, Response, WebSocket},
    model::{
        Change, CounterSeries, Event, InventoryObject, LogLine, Page, Task,
        text::{Id, Ranged},
    },
    time::rfc3339,
};
use alloc::{boxed::Box, format, rc::Rc, string::String, vec, vec::Vec};
use core::task::Poll;

type Result<T> = core::result::Result<T, ApiError>;
const READ: Needs = Needs::Privilege("System.Read");
const DIAGNOSE: Needs = Needs::Privilege("Global.Diagnostics");

#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct CounterQuery {
    /// Object: `host-1`, `vm-12`, `server-storage`.
    entity: Id,
    /// Counters, with commas between them; left out: all.
    counters: Option<String>,
    /// `realtime` (20 seconds), `day`, `week` or `month`.
    period: Option<Period>,
    /// Where to begin.
    cursor: Option<Ranged<0, 1_000_000>>,
    /// Most items.
    limit: Option<Ranged<1, 1000>>,
}

#[derive(serde::Deserialize, Clone, Copy)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
enum Period {
    Realtime,
    Day,
    Week,
    Month,
}

#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// Server; left out or `all`: all of them.
    source: Option<Id>,
    /// Where to begin.
    cursor: Option<Ranged<0, 1_000_000>>,
    /// Most items.
    limit: Option<Ranged<1, 1000>>,
}

#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// The last change that is known already; left out: now.
    after: Option<Ranged<0, 9_007_199_254_740_991>>,
}

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(Method::Get, "/logs", READ, "listLogs", "The newest lines of the log", logs),
        route(
            Method::Post,
            "/support-bundle",
            DIAGNOSE,
            "createSupportBundle",
            "Gather what support needs",
            make_bundle,
        ),
        route(
            Method::Get,
            "/support-bundle",
            DIAGNOSE,
            "getSupportBundle",
            "What support needs, now",
            bundle,
        ),
        route(Method::Get, "/tasks", READ, "listTasks", "Tasks, newest first", list_tasks),
        route(Method::Get, "/tasks/{task}", READ, "getTask", "A task", get_task),
        route(
            Method::Post,
            "/tasks/{task}/cancel",
            Needs::LogIn,
            "cancelTask",
            "Cancel a task: one's own, or any with the privilege",
            cancel,
        ),
        route(Method::Get, "/events", READ, "listEvents", "Events, newest first", list_events),
        route(
            Method::Get,
            "/counters",
            READ,
            "getCounters",
            "Values of performance counters",
            counters,
        ),
        route(
            Method::Get,
            "/inventory",
            READ,
            "getInventory",
            "All objects and where they are",
            inventory,
        ),
        route(
            Method::Get,
            "/changes",
            READ,
            "followChanges",
            "Changes, as they happen by WebSocket, or since the last one that is known",
            changes,
        ),
    ]);
}

async fn log_lines(api: &Api, source: &str) -> Result<Vec<LogLine>> {
    let lines = api.host.log(source, 2000).await?;
    Ok(lines
        .into_iter()
        .map(|line| LogLine {
            time: rfc3339(line.unix_ms),
            source: line.source,
            level: line.level,
            message: line.message,
        })
        .collect())
}

async fn logs(call: Call, query: LogQuery, (): ()) -> Result<Json<Page<LogLine>>> {
    let source = query.source.as_deref().filter(|source| *source != "all").unwrap_or("");
    Ok(page(
        log_lines(&call.api, source).await?,
        &ListQuery {
            cursor: query.cursor,
            limit: query.limit,
        },
    ))
}

async fn bundle_json(api: &Api) -> Result<Vec<u8>> {
    let (tasks, events, machines) = {
        let data = api.data.borrow();
        (
            data.tasks.values().cloned().collect::<Vec<_>>(),
            data.events.values().cloned().collect::<Vec<_>>(),
            data.vms.values().map(|vm| vm.config.clone()).collect::<Vec<_>>(),
        )
    };
    let servers: Vec<serde_json::Value> = api
        .host
        .servers()
        .await?
        .into_iter()
        .map(|one| {
            serde_json::json!({
                "name": one.name, "state": one.state, "restarts": one.restarts, "memory": one.memory, "lastEnd": one.last_end,
            })
        })
        .collect();
    let facts = api.host.facts().await?;
    let bundle = serde_json::json!({
        "made": rfc3339(api.now()),
        "version": facts.version,
        "hardware": { "vendor": facts.vendor, "model": facts.model, "cpu": facts.cpu_model, "memory": facts.memory },
        "servers": servers,
        "log": log_lines(api, "").await?,
        "tasks": tasks,
        "events": events,
        "machines": machines,
    });
    serde_json::to_vec(&bundle).map_err(|error| ApiError::conflict(format!("The bundle could not be written: {error}")))
}

async fn make_bundle(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
    work::begin(
        &call,
        "supportBundle.create",
        Some(("host-1", "host")),
        false,
        |progress| async move {
            let api = &progress.api;
            let bundle = bundle_json(api).await?;
            let Some(store) = api.host.stores().await?.into_iter().find(|store| store.problem.is_empty()) else {
                return Err(ApiError::conflict(
                    "There is no datastore to put it in; GET /support-bundle gives it directly",
                ));
            };
            let path = format!("support-{}.json", api.now() / 1000);
            let mut sink = api.host.write_file(&store.name, &path, 0).await?;
            super::storage::write_all(&mut *sink, &bundle).await?;
            core::future::poll_fn(|context| sink.poll_sync(context)).await?;
            Ok(Some(format!("[{}] {path}", store.name)))
        },
    )
    .await
}

async fn bundle(call: Call, _: NoQuery, (): ()) -> Result<Raw> {
    let response = Response::new(200)
        .with("cache-control", "no-store")
        .with("content-disposition", "attachment; filename=\"support.json\"");
    Ok(Raw(
        response.with_body("application/octet-stream", Body::Bytes(bundle_json(&call.api).await?))
    ))
}

async fn list_tasks(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Task>>> {
    let data = call.api.data.borrow();
    Ok(page(data.tasks.values().rev().cloned().collect(), &query))
}

fn task(call: &Call) -> Result<(u64, Task)> {
    let number = call.parameter("task").strip_prefix("task-").and_then(|number| number.parse().ok());
    let found = number.and_then(|number| Some((number, call.api.data.borrow().tasks.get(&number).cloned()?)));
    found.ok_or_else(|| ApiError::not_found("There is no such task"))
}

async fn get_task(call: Call, _: NoQuery, (): ()) -> Result<Json<Task>> {
    Ok(Json(task(&call)?.1))
}

async fn cancel(call: Call, _: NoQuery, (): ()) -> Result<Json<Task>> {
    if !call.may("System.Read", "host-1") {
        call.need("Global.CancelTask", "host-1")?;
    }
    let (number, one) = task(&call)?;
    if one.user != call.user() {
        call.need("Global.CancelTask", "host-1")?;
    }
    if !one.cancelable || one.completed.is_some() {
        return Err(ApiError::conflict(format!("{} cannot be cancelled now", one.name)));
    }
    call.api.cancelled.borrow_mut().push(number);
    Ok(Json(one))
}

async fn list_events(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Event>>> {
    let data = call.api.data.borrow();
    Ok(page(data.events.values().rev().cloned().collect(), &query))
}

async fn counters(call: Call, query: CounterQuery, (): ()) -> Result<Json<Page<CounterSeries>>> {
    let wanted: Vec<&str> = query
        .counters
        .as_deref()
        .unwrap_or("")
        .split(',')
        .filter(|name| !name.is_empty())
        .collect();
    let period = match query.period.unwrap_or(Period::Realtime) {
        Period::Realtime => "realtime",
        Period::Day => "day",
        Period::Week => "week",
        Period::Month => "month",
    };
    let all = call.api.counters.borrow().read(&query.entity, &wanted, period);
    Ok(page(
        all,
        &ListQuery {
            cursor: query.cursor,
            limit: query.limit,
        },
    ))
}

async fn inventory(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<InventoryObject>>> {
    let object = |id: &str, kind: &str, name: &str, parent: Option<&str>| InventoryObject {
        id: id.into(),
        kind: kind.into(),
        name: name.into(),
        parent: parent.map(Into::into),
    };
    let stores = super::storage::stores(&call).await?;
    let data = call.api.data.borrow();
    let mut all = vec![
        object("group-d1", "folder", "Datacenters", None),
        object("datacenter-1", "datacenter", "datacenter", Some("group-d1")),
        object("group-v1", "folder", "vm", Some("datacenter-1")),
        object("group-h1", "folder", "host", Some("datacenter-1")),
        object("group-s1", "folder", "datastore", Some("datacenter-1")),
        object("group-n1", "folder", "network", Some("datacenter-1")),
        object("domain-s1", "computeResource", &data.settings.host_name, Some("group-h1")),
        object("resgroup-1", "resourcePool", "Resources", Some("domain-s1")),
        object("host-1", "host", &data.settings.host_name, Some("domain-s1")),
    ];
    all.extend(stores.iter().map(|one| object(&one.id, "datastore", &one.name, Some("group-s1"))));
    all.extend(
        data.ids
            .iter()
            .filter_map(|(key, id)| Some(object(id, "network", key.strip_prefix("network/")?, Some("group-n1")))),
    );
    all.extend(
        data.vms
            .values()
            .map(|vm| object(&vm.id, "virtualMachine", &vm.config.name, Some("group-v1"))),
    );
    all.retain(|one| !["virtualMachine", "datastore", "network"].contains(&&*one.kind) || call.may("System.Read", &one.id));
    Ok(page(all, &query))
}

async fn changes(call: Call, query: ChangesQuery, (): ()) -> Result<Changes> {
    let from = query.after.map(Ranged::get);
    if !call.upgrade {
        let changes = call.api.changes.borrow();
        return Ok(Changes::Page(changes.after(from.unwrap_or_else(|| changes.last()), 1000)));
    }
    let (weak, last) = (Rc::downgrade(&call.api), from.unwrap_or_else(|| call.api.changes.borrow().last()));
    let session = call.who.as_ref().and_then(|who| who.session.clone());
    let mut response = Response::new(101);
    response.upgrade = Some(Box::new(move |mut socket: Box<dyn WebSocket>| {
        let mut last = last;
        Box::pin(core::future::poll_fn(move |context| {
            // What a follower says is of no interest, but that it left is.
            loop {
                match socket.poll_receive(context) {
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Ready(Some(_)) => {}
                    Poll::Pending => break,
                }
            }
            let Some(api) = weak.upgrade() else { return Poll::Ready(()) };
            if session.as_ref().is_some_and(|id| !api.sessions.borrow().contains_key(id)) {
                return Poll::Ready(());
            }
            loop {
                let Some(change) = api.changes.borrow().after(last, 1).pop() else {
                    break;
                };
                match socket.poll_ready(context) {
                    Poll::Ready(true) => {
                        last = change.sequence;
                        socket.send(Message::Text(stream::line(&change)));
                    }
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            // A socket sends while it is asked.
            let _ = socket.poll_ready(context);
            api.changes.borrow_mut().wait(context.waker());
            Poll::Pending
        }))
    }));
    Ok(Changes::Stream(response))
}

/// Changes at once, or as they happen.
enum Changes {
    Page(Vec<Change>),
    Stream(Response),
}

impl crate::api::route::Answer for Changes {
    #[cfg(feature = "description")]
    const STATUS: u16 = 200;
    fn response(self) -> Response {
        match self {
            Self::Page(items) => crate::api::route::Answer::response(Json(Page { items, next: None })),
            Self::Stream(response) => response,
        }
    }
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        Some(("application/json", generator.subschema_for::<Page<Change>>()))
    }
}
