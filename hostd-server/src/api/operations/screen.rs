//! Screens of machines: who may look gets a ticket, and the ticket opens a WebSocket that speaks RFB.

use super::{NoQuery, route, vms};
use crate::{
    api::{
        ApiError, Call, Needs, check_origin,
        route::{Json, Raw, Route},
    },
    auth::digest,
    host::{Console, ScreenView},
    http::{Body, BodyError, BodySource, Method, Response},
    model::{ScreenTicket, Typing},
    time::rfc3339,
};
use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::task::{Context, Poll};

type Result<T> = core::result::Result<T, ApiError>;
const CONSOLE: Needs = Needs::Privilege("VirtualMachine.Console");
/// How long a ticket lets somebody in, in milliseconds.
const VALID_MS: u64 = 30_000;
/// Tickets that are kept at once.
const MOST_TICKETS: usize = 64;
/// Words for keys, and their make codes (scan code set 1, a prefix E0 as upper byte).
const KEYS: &[(&str, u16)] = &[
    ("ctrl", 0x1d),
    ("alt", 0x38),
    ("shift", 0x2a),
    ("altgr", 0xe038),
    ("super", 0xe05b),
    ("menu", 0xe05d),
    ("delete", 0xe053),
    ("insert", 0xe052),
    ("escape", 0x01),
    ("enter", 0x1c),
    ("tab", 0x0f),
    ("backspace", 0x0e),
    ("space", 0x39),
    ("up", 0xe048),
    ("down", 0xe050),
    ("left", 0xe04b),
    ("right", 0xe04d),
    ("home", 0xe047),
    ("end", 0xe04f),
    ("pageup", 0xe049),
    ("pagedown", 0xe051),
    ("print", 0xe037),
    ("sysrq", 0x54),
    ("f1", 0x3b),
    ("f2", 0x3c),
    ("f3", 0x3d),
    ("f4", 0x3e),
    ("f5", 0x3f),
    ("f6", 0x40),
    ("f7", 0x41),
    ("f8", 0x42),
    ("f9", 0x43),
    ("f10", 0x44),
    ("f11", 0x57),
    ("f12", 0x58),
];

/// A ticket that was not used yet.
pub(crate) struct Ticket {
    /// Of its text.
    digest: String,
    /// Machine.
    vm: String,
    /// Who got it.
    user: String,
    /// On the monotonic clock.
    expires: u64,
}

/// What joins a screen.
#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct JoinQuery {
    /// Of `POST /vms/{vm}/screen`.
    ticket: String,
}

/// How large a picture is to be.
#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct PictureQuery {
    /// By how much it is made smaller. Default 1.
    divisor: Option<crate::model::text::Ranged<1, 8>>,
}

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(
            Method::Post,
            "/vms/{vm}/screen",
            CONSOLE,
            "openScreen",
            "A ticket to a running machine's screen, good once",
            open,
        ),
        route(
            Method::Get,
            "/ws/screen",
            Needs::Nothing,
            "joinScreen",
            "The screen, a WebSocket of RFB 3.8, for who has a ticket",
            join,
        ),
        route(
            Method::Get,
            "/vms/{vm}/screenshot",
            CONSOLE,
            "getScreenshot",
            "What is on the screen, in PNG",
            screenshot,
        ),
        route(
            Method::Post,
            "/vms/{vm}/type",
            CONSOLE,
            "typeAtScreen",
            "Type keys and text at the machine's keyboard",
            typing,
        ),
    ]);
}

async fn open(call: Call, _: NoQuery, (): ()) -> Result<Json<ScreenTicket>> {
    let record = vms::record(&call)?;
    // A machine without a screen says so now, not to the WebSocket.
    drop(call.api.host.vm_screen(&record.config.name, ScreenView::Rfb).await?);
    let ticket = call.api.random_text(24);
    let now = call.api.platform.monotonic_ms();
    let mut tickets = call.api.tickets.borrow_mut();
    tickets.retain(|ticket| ticket.expires > now);
    if tickets.len() >= MOST_TICKETS {
        tickets.remove(0);
    }
    tickets.push(Ticket {
        digest: digest(&ticket),
        vm: record.id,
        user: call.user(),
        expires: now + VALID_MS,
    });
    Ok(Json(ScreenTicket {
        ticket,
        expires: rfc3339(call.api.now() + VALID_MS),
    }))
}

async fn join(call: Call, query: JoinQuery, (): ()) -> Result<Raw> {
    check_origin(&call)?;
    if !call.upgrade {
        return Err(ApiError::new(
            426,
            "upgradeRequired",
            "The screen is a WebSocket",
            "Connect with a viewer that speaks RFB over WebSockets, such as noVNC.",
        ));
    }
    let refused = || {
        ApiError::new(
            403,
            "noTicket",
            "The ticket is none, was used, or is too old",
            "Get another with POST /api/v1/vms/{vm}/screen.",
        )
    };
    let (wanted, now) = (digest(&query.ticket), call.api.platform.monotonic_ms());
    let ticket = {
        let mut tickets = call.api.tickets.borrow_mut();
        let place = tickets.iter().position(|ticket| ticket.digest == wanted).ok_or_else(refused)?;
        tickets.swap_remove(place)
    };
    let name = {
        let data = call.api.data.borrow();
        let may = data.may(&ticket.user, "VirtualMachine.Console", &ticket.vm);
        let vm = data.vms.get(&ticket.vm).filter(|_| may && ticket.expires > now);
        vm.map(|vm| vm.config.name.clone()).ok_or_else(refused)?
    };
    let screen = call.api.host.vm_screen(&name, ScreenView::Rfb).await?;
    let mut response = Response::new(101);
    response.upgrade = Some(Box::new(move |socket| Box::pin(vms::talk(socket, screen))));
    Ok(Raw(response))
}

/// A picture that comes bit by bit.
struct Picture(Box<dyn Console>);

impl BodySource for Picture {
    fn length(&self) -> Option<u64> {
        None
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<core::result::Result<usize, BodyError>> {
        self.0.poll_read(context, buffer).map(Ok)
    }
}

async fn screenshot(call: Call, query: PictureQuery, (): ()) -> Result<Raw> {
    let record = vms::record(&call)?;
    let divisor = query.divisor.map_or(1, |divisor| divisor.get() as u8);
    let view = ScreenView::Picture { divisor };
    let picture = call.api.host.vm_screen(&record.config.name, view).await?;
    let response = Response::new(200)
        .with("cache-control", "no-store")
        .with_body("image/png", Body::Stream(Box::new(Picture(picture))));
    Ok(Raw(response))
}

async fn typing(call: Call, _: NoQuery, Json(typing): Json<Typing>) -> Result<()> {
    let record = vms::record(&call)?;
    let mut codes = Vec::new();
    for key in typing.keys.iter().flat_map(|keys| &keys.0) {
        let known = KEYS.iter().find(|(name, _)| *name == &**key);
        let (_, code) = known.ok_or_else(|| {
            let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
            ApiError::invalid(format!("There is no key {}; there are {}", key.escape_default(), names.join(", ")))
        })?;
        codes.push(*code);
    }
    let text = typing.text.as_deref().unwrap_or("");
    call.api.host.vm_type(&record.config.name, &codes, text).await?;
    Ok(())
}
