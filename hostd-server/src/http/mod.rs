//! What connections and the API exchange: requests, answers, bodies that are streamed, and WebSockets.

mod types;

pub use types::{Body, BodyError, BodySource, Message, Method, Request, Response, Upgrade, WebSocket};
