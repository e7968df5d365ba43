//! Ports of virtual switches, and recordings of what goes through them.

use super::{ListQuery, NoQuery, network, page, route};
use crate::{
    api::{
        ApiError, Call, Needs,
        route::{Created, Json, Raw, Route},
    },
    host::{CaptureFacts, PortFacts, PortKind},
    http::{Body, Method, Response},
    model::{Capture, CaptureCreate, DroppedFrames, Page, SwitchPort, SwitchPortKind, Traffic, text::Ranged},
};
use alloc::{format, string::ToString, vec::Vec};

type Result<T> = core::result::Result<T, ApiError>;
/// Whoever may change networks could have any port mirrored, so they may record it.
const CONFIG: Needs = Needs::Privilege("Network.Config");
const READ: Needs = Needs::Privilege("System.Read");
/// Bytes of each frame unless something is said: headers, and some of what they carry.
const SNAP: u32 = 256;

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(
            Method::Get,
            "/networks/ports",
            READ,
            "listPorts",
            "Ports of virtual switches",
            list_ports,
        ),
        route(
            Method::Get,
            "/networks/ports/{port}",
            READ,
            "getPort",
            "A port of a virtual switch",
            get_port,
        ),
        route(
            Method::Get,
            "/networks/captures",
            CONFIG,
            "listCaptures",
            "Recordings of ports",
            list_captures,
        ),
        route(
            Method::Post,
            "/networks/captures",
            CONFIG,
            "createCapture",
            "Begin to record a port",
            create_capture,
        ),
        route(
            Method::Get,
            "/networks/captures/{capture}",
            CONFIG,
            "getCapture",
            "A recording",
            get_capture,
        ),
        route(
            Method::Get,
            "/networks/captures/{capture}/file",
            CONFIG,
            "readCapture",
            "What there is of a recording's file (pcapng) from a byte on; what lies before is forgotten",
            read_capture,
        ),
        route(
            Method::Post,
            "/networks/captures/{capture}/stop",
            CONFIG,
            "stopCapture",
            "End a recording; its file can still be fetched",
            stop_capture,
        ),
        route(
            Method::Delete,
            "/networks/captures/{capture}",
            CONFIG,
            "deleteCapture",
            "Forget a recording",
            delete_capture,
        ),
    ]);
}

/// From which byte a file is wanted.
#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct FromQuery {
    /// The first byte; 0 unless something is said.
    from: Option<Ranged<0, 9_007_199_254_740_991>>,
}

fn traffic((frames, bytes): (u64, u64)) -> Traffic {
    Traffic { frames, bytes }
}

/// Ports that the caller may see: of port groups that they may see, and uplinks.
async fn ports(call: &Call) -> Result<Vec<SwitchPort>> {
    let found = call.api.host.ports().await?;
    let switches = network::ids(call, "switch", found.iter().map(|one| one.switch.clone())).await?;
    let name = |one: &PortFacts| one.group.clone();
    let groups = network::ids(call, "network", found.iter().filter_map(name)).await?;
    let mut groups = groups.into_iter();
    let shown = found.into_iter().zip(switches).map(|(one, switch)| SwitchPort {
        port_group: one.group.and_then(|_| groups.next()),
        id: one.name.clone(),
        name: one.name,
        kind: match one.kind {
            PortKind::Machine => SwitchPortKind::Machine,
            PortKind::Host => SwitchPortKind::Host,
            PortKind::Uplink => SwitchPortKind::Uplink,
        },
        switch,
        vlan: one.vlan.into(),
        mac: one.mac,
        link_up: one.link_up,
        blocked: one.blocked,
        uplink: one.uplink,
        received: traffic(one.received),
        sent: traffic(one.sent),
        multicast: one.multicast,
        dropped: one
            .dropped
            .into_iter()
            .map(|(reason, text, frames)| DroppedFrames { reason, text, frames })
            .collect(),
    });
    let shown: Vec<SwitchPort> = shown.collect();
    let may = |port: &SwitchPort| port.port_group.as_ref().is_none_or(|group| call.may("System.Read", group));
    Ok(shown.into_iter().filter(may).collect())
}

async fn list_ports(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<SwitchPort>>> {
    Ok(page(ports(&call).await?, &query))
}

async fn get_port(call: Call, _: NoQuery, (): ()) -> Result<Json<SwitchPort>> {
    let name = call.parameter("port");
    let found = ports(&call).await?.into_iter().find(|one| one.id == name);
    found
        .map(Json)
        .ok_or_else(|| ApiError::not_found(format!("There is no port {}", name.escape_default())))
}

fn shown(one: CaptureFacts) -> Capture {
    Capture {
        id: one.id.to_string(),
        port: one.port,
        snap_length: one.snap,
        waiting: one.waiting,
        frames: one.frames,
        lost: one.lost,
        running: one.running,
    }
}

async fn list_captures(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Capture>>> {
    let all = call.api.host.captures().await?;
    Ok(page(all.into_iter().map(shown).collect(), &query))
}

fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!(
        "There is no recording {}: a restart of the network server ends all",
        id.escape_default()
    ))
}

/// The number of the recording that the path names.
fn number(call: &Call) -> Result<u32> {
    let id = call.parameter("capture");
    id.parse().map_err(|_| missing(id))
}

async fn capture(call: &Call, id: u32) -> Result<Capture> {
    let all = call.api.host.captures().await?;
    let found = all.into_iter().find(|one| one.id == id);
    found.map(shown).ok_or_else(|| missing(&id.to_string()))
}

async fn get_capture(call: Call, _: NoQuery, (): ()) -> Result<Json<Capture>> {
    Ok(Json(capture(&call, number(&call)?).await?))
}

/// Tells of recordings, since they show what others send.
async fn event(call: &Call, what: &str, port: &str) {
    let user = call.user();
    let message = format!("{what} of port {port}");
    call.api
        .event(crate::model::Severity::Info, "network.capture", message, Some(&user), None)
        .await;
}

async fn create_capture(call: Call, _: NoQuery, Json(made): Json<CaptureCreate>) -> Result<Created<Capture>> {
    let snap = made.snap_length.map_or(SNAP, Ranged::get32);
    let id = call.api.host.start_capture(&made.port, snap).await?;
    event(&call, "A recording", &made.port).await;
    call.api.tell("capture", &id.to_string(), "created");
    Ok(Created(capture(&call, id).await?))
}

async fn read_capture(call: Call, query: FromQuery, (): ()) -> Result<Raw> {
    let id = number(&call)?;
    capture(&call, id).await?;
    let bytes = call.api.host.read_capture(id, query.from.map_or(0, Ranged::get)).await?;
    let response = Response::new(200)
        .with("cache-control", "no-store")
        .with("content-disposition", "attachment")
        .with_body("application/octet-stream", Body::Bytes(bytes));
    Ok(Raw(response))
}

async fn stop_capture(call: Call, _: NoQuery, (): ()) -> Result<Json<Capture>> {
    let id = number(&call)?;
    capture(&call, id).await?;
    call.api.host.stop_capture(id).await?;
    call.api.tell("capture", &id.to_string(), "updated");
    Ok(Json(capture(&call, id).await?))
}

async fn delete_capture(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let id = number(&call)?;
    capture(&call, id).await?;
    call.api.host.remove_capture(id).await?;
    call.api.tell("capture", &id.to_string(), "removed");
    Ok(())
}
