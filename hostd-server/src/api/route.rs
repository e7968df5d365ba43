//! Routes, each declared once: from the declaration come dispatch, description and the test that walks every operation for every role.

use super::{Call, error::ApiError, query};
use crate::{
    future::LocalFuture,
    http::{Body, BodySource, Method, Response},
    model,
};
use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use core::{future::Future, marker::PhantomData};
use serde::{Serialize, de::DeserializeOwned};

/// What is needed to be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A session or key.
    LogIn,
    /// A privilege on the object that the path names, or on the host.
    Privilege(&'static str),
}

pub(super) type Handler = Box<dyn Fn(Call, Body) -> LocalFuture<'static, Result<Response, ApiError>>>;

/// An operation.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path below `/api/v1`, with parameters in braces.
    pub path: &'static str,
    /// Name (`operationId`).
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What it needs.
    pub needs: Needs,
    pub(super) handler: Handler,
    #[cfg(feature = "description")]
    pub(super) shape: fn(&mut schemars::SchemaGenerator) -> Shape,
}

/// What goes in and comes out, for the description.
#[cfg(feature = "description")]
pub(super) struct Shape {
    pub(super) query: Option<schemars::Schema>,
    pub(super) body: Option<(&'static str, schemars::Schema)>,
    pub(super) status: u16,
    pub(super) answer: Option<(&'static str, schemars::Schema)>,
}

#[cfg(feature = "description")]
pub(super) trait Described: schemars::JsonSchema {}
#[cfg(feature = "description")]
impl<T: schemars::JsonSchema> Described for T {}
#[cfg(not(feature = "description"))]
pub(super) trait Described {}
#[cfg(not(feature = "description"))]
impl<T> Described for T {}

/// No query.
#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// What a handler takes as body.
pub(super) trait Take: Sized + 'static {
    fn take(call: &Call, body: Body) -> impl Future<Output = Result<Self, ApiError>>;
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)>;
}

/// Most bytes of a JSON body.
const MOST_JSON: usize = 1 << 20;

pub(super) async fn read_all(body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let large = || {
        ApiError::new(
            413,
            "tooLarge",
            format!("The body is larger than the {most} bytes that there may be"),
            "Send less.",
        )
    };
    match body {
        Body::Empty => Ok(Vec::new()),
        Body::Bytes(bytes) if bytes.len() > most => Err(large()),
        Body::Bytes(bytes) => Ok(bytes),
        Body::Static(bytes) => Ok(bytes.to_vec()),
        Body::Stream(mut source) => {
            if source.length().is_some_and(|length| length > most as u64) {
                return Err(large());
            }
            let mut bytes = Vec::new();
            let mut buffer = vec![0; 4096];
            loop {
                let count = read_some(&mut *source, &mut buffer).await?;
                if count == 0 {
                    return Ok(bytes);
                }
                if bytes.len() + count > most {
                    return Err(large());
                }
                bytes.extend_from_slice(&buffer[..count]);
            }
        }
    }
}

pub(super) async fn read_some(source: &mut dyn BodySource, buffer: &mut [u8]) -> Result<usize, ApiError> {
    core::future::poll_fn(|context| source.poll_read(context, buffer))
        .await
        .map_err(|_| {
            ApiError::new(
                400,
                "bodyBroken",
                "The body ended before all of it had come",
                "Send it again; an upload goes on where it broke off.",
            )
        })
}

/// No body; one that comes nevertheless is left unread if it is small.
impl Take for () {
    async fn take(_: &Call, body: Body) -> Result<Self, ApiError> {
        read_all(body, MOST_JSON).await.map(|_| ())
    }
    #[cfg(feature = "description")]
    fn shape(_: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        None
    }
}

/// A body in JSON.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned + Described + 'static> Take for Json<T> {
    async fn take(call: &Call, body: Body) -> Result<Self, ApiError> {
        let kind = call.header("content-type").unwrap_or("").split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::new(
                415,
                "notJson",
                format!("The body is \"{}\", not JSON", kind.escape_default()),
                "Send it with Content-Type: application/json.",
            ));
        }
        let bytes = read_all(body, MOST_JSON).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::invalid(format!("The body does not fit: {error}")))
    }
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        Some(("application/json", generator.subschema_for::<T>()))
    }
}

/// A body of any bytes, which the handler reads.
pub(super) struct Bytes(pub(super) Body);

impl Take for Bytes {
    async fn take(_: &Call, body: Body) -> Result<Self, ApiError> {
        Ok(Self(body))
    }
    #[cfg(feature = "description")]
    fn shape(_: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        Some((
            "application/octet-stream",
            schemars::json_schema!({ "type": "string", "format": "binary" }),
        ))
    }
}

/// What a handler gives.
pub(super) trait Answer: 'static {
    #[cfg(feature = "description")]
    const STATUS: u16;
    fn response(self) -> Response;
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)>;
}

fn json(status: u16, value: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    Response::new(status)
        .with("cache-control", "no-store")
        .with_body("application/json", Body::Bytes(bytes))
}

impl<T: Serialize + Described + 'static> Answer for Json<T> {
    #[cfg(feature = "description")]
    const STATUS: u16 = 200;
    fn response(self) -> Response {
        json(200, &self.0)
    }
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        Some(("application/json", generator.subschema_for::<T>()))
    }
}

/// Something in JSON with its version, for conditional writes.
pub(super) struct Tagged<T>(pub(super) T, pub(super) u64);

impl<T: Serialize + Described + 'static> Answer for Tagged<T> {
    #[cfg(feature = "description")]
    const STATUS: u16 = 200;
    fn response(self) -> Response {
        json(200, &self.0).with("etag", format!("\"{}\"", self.1))
    }
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        <Json<T> as Answer>::shape(generator)
    }
}

/// Something that was made.
pub(super) struct Created<T>(pub(super) T);

impl<T: Serialize + Described + 'static> Answer for Created<T> {
    #[cfg(feature = "description")]
    const STATUS: u16 = 201;
    fn response(self) -> Response {
        json(201, &self.0)
    }
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        <Json<T> as Answer>::shape(generator)
    }
}

/// Long work that was begun.
pub(super) struct Accepted(pub(super) model::Task);

impl Answer for Accepted {
    #[cfg(feature = "description")]
    const STATUS: u16 = 202;
    fn response(self) -> Response {
        json(202, &self.0)
    }
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        <Json<model::Task> as Answer>::shape(generator)
    }
}

impl Answer for () {
    #[cfg(feature = "description")]
    const STATUS: u16 = 204;
    fn response(self) -> Response {
        Response::new(204).with("cache-control", "no-store")
    }
    #[cfg(feature = "description")]
    fn shape(_: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        None
    }
}

/// An answer that the handler made up itself: 200 and bytes, unless it says so.
pub(super) struct Raw(pub(super) Response);

impl Answer for Raw {
    #[cfg(feature = "description")]
    const STATUS: u16 = 200;
    fn response(self) -> Response {
        self.0
    }
    #[cfg(feature = "description")]
    fn shape(_: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        Some((
            "application/octet-stream",
            schemars::json_schema!({ "type": "string", "format": "binary" }),
        ))
    }
}

pub(super) fn route<Q, B, A, F>(
    method: Method,
    path: &'static str,
    needs: Needs,
    name: &'static str,
    summary: &'static str,
    handler: impl Fn(Call, Q, B) -> F + Copy + 'static,
) -> Route
where
    Q: DeserializeOwned + Described + 'static,
    B: Take,
    A: Answer,
    F: Future<Output = Result<A, ApiError>> + 'static,
{
    let _: PhantomData<(Q, B, A)> = PhantomData;
    Route {
        method,
        path,
        name,
        summary,
        needs,
        handler: Box::new(move |call, body| {
            Box::pin(async move {
                let query = query::parse::<Q>(&call.query)?;
                let body = B::take(&call, body).await?;
                Ok(handler(call, query, body).await?.response())
            })
        }),
        #[cfg(feature = "description")]
        shape: |generator| Shape {
            query: Some(generator.subschema_for::<Q>()),
            body: B::shape(generator),
            status: A::STATUS,
            answer: A::shape(generator),
        },
    }
}

/// Parameters of a path that fits a route, decoded; `None`: it does not fit. The last parameter takes the rest if its name ends in `*`.
pub(super) fn fit(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let mut rest = path.strip_prefix('/')?;
    let mut parts = pattern.strip_prefix('/')?.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        if let Some(name) = name.and_then(|name| name.strip_suffix('*')) {
            parameters.push((name, query::percent_decode(rest, false)?));
            return (!rest.is_empty()).then_some(parameters);
        }
        let (segment, tail) = match rest.split_once('/') {
            Some((segment, tail)) if !last => (segment, tail),
            None if last => (rest, ""),
            _ => return None,
        };
        match name {
            Some(name) => parameters.push((name, query::percent_decode(segment, false).filter(|value| !value.is_empty())?)),
            None if segment == part => {}
            None => return None,
        }
        rest = tail;
    }
    Some(parameters)
}
