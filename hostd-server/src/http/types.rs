//! Requests and answers, independent of how they came over the wire.

use crate::future::LocalFuture;
use alloc::{borrow::Cow, boxed::Box, string::String, vec::Vec};
use core::task::{Context, Poll};

/// A request's method (RFC 9110, 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
}

impl Method {
    /// From the request line; methods' names are case-sensitive. `None`: one that is not known.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => return None,
        })
    }

    /// Name as in the request line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// Whether it changes nothing (RFC 9110, 9.2.1).
    #[must_use]
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

/// Why a body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The other side went away, or its framing is broken.
    Broken,
    /// It took longer than it may.
    TimedOut,
    /// What it is read from failed.
    Source,
}

/// A body that comes bit by bit.
pub trait BodySource {
    /// Bytes in all, if known.
    fn length(&self) -> Option<u64>;
    /// Reads some bytes; 0: the end.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, BodyError>>;
}

/// A body.
pub enum Body {
    /// None.
    Empty,
    /// Bytes.
    Bytes(Vec<u8>),
    /// Bytes of the program.
    Static(&'static [u8]),
    /// One that comes bit by bit; without a length it is sent in chunks.
    Stream(Box<dyn BodySource>),
}

impl Body {
    /// Bytes in all, if known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Static(bytes) => Some(bytes.len() as u64),
            Self::Stream(source) => source.length(),
        }
    }
}

/// A request, its head read and checked.
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path as it was sent, percent-encoded, without the query.
    pub path: String,
    /// Query without its `?`; empty if there is none.
    pub query: String,
    /// Header fields in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Address of the other side, as text without port.
    pub peer: String,
    /// Whether it came over TLS: decides about `Secure` cookies.
    pub secure: bool,
    /// Body. The connection sends `100 Continue` when it is first read.
    pub body: Body,
}

impl Request {
    /// The first header field of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether the other side asks for a WebSocket (RFC 6455, 4.2.1). The connection checks the key when it carries the upgrade out.
    #[must_use]
    pub fn wants_web_socket(&self) -> bool {
        let has = |name, token: &str| {
            self.header(name)
                .is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
        };
        self.method == Method::Get
            && has("upgrade", "websocket")
            && has("connection", "upgrade")
            && self.header("sec-websocket-key").is_some()
    }
}

/// A message of a WebSocket. Pings, pongs and fragments are the connection's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

/// An open WebSocket.
pub trait WebSocket {
    /// The next message; `None`: the other side closed it, or it broke.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>>;
    /// Ready when a message can be taken for sending; `false`: it is closed.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<bool>;
    /// Takes a message; only after `poll_ready`.
    fn send(&mut self, message: Message);
}

/// What goes on on a connection after it became a WebSocket; the socket is closed when it ends.
pub type Upgrade = Box<dyn FnOnce(Box<dyn WebSocket>) -> LocalFuture<'static, ()>>;

/// An answer. The connection adds `Content-Length` or `Transfer-Encoding`, `Date` and `Connection`, and leaves the body out for HEAD.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// Body.
    pub body: Body,
    /// With status 101: what follows.
    pub upgrade: Option<Upgrade>,
}

impl Response {
    /// One without body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Empty,
            upgrade: None,
        }
    }

    /// With a header field more. The value must hold no control characters.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body of that type.
    #[must_use]
    pub fn with_body(self, kind: &'static str, body: Body) -> Self {
        let mut response = self.with("content-type", kind);
        response.body = body;
        response
    }

    /// The first header field of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_ref())
    }
}
