//! What connections and the API exchange: requests, answers, bodies that are streamed, and WebSockets; and HTTP/1.1 (RFC 9112) that carries them.

pub mod chunked;
pub mod frames;
pub mod head;
mod link;
mod respond;
mod server;
mod socket;
mod types;

pub use server::{Service, serve};
pub use types::{Body, BodyError, BodySource, Message, Method, Request, Response, Upgrade, WebSocket};
