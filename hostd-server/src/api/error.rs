//! Why the API refuses something.

use crate::{
    auth::NoMemory,
    host::{Failure, HostError},
    http::{Body, Response},
    model::Problem,
    state::StateError,
};
use alloc::string::String;

/// An error with its status.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// Status code.
    pub status: u16,
    /// Kind, for programs.
    pub code: &'static str,
    /// What happened to what.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint,
        }
    }
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalidRequest", message, "Compare the request with /api/openapi.json.")
    }
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "notFound", message, "List what there is; it may have been removed.")
    }
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, "conflict", message, "Change what stands in the way and try again.")
    }
    /// The answer that tells it.
    #[must_use]
    pub fn response(self) -> Response {
        let problem = Problem {
            code: self.code.into(),
            message: self.message,
            hint: self.hint.into(),
        };
        let response = Response::new(self.status)
            .with("cache-control", "no-store")
            .with_body("application/json", Body::Bytes(serde_json::to_vec(&problem).unwrap_or_default()));
        match self.status {
            401 => response.with("www-authenticate", "Bearer"),
            429 => response.with("retry-after", "10"),
            503 => response.with("retry-after", "2"),
            _ => response,
        }
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let (status, code, hint) = match error.failure {
            Failure::NotFound => (404, "notFound", "List what there is; it may have been removed."),
            Failure::Exists => (409, "exists", "Choose another name."),
            Failure::Busy => (409, "busy", "Wait until it is free, or stop what uses it."),
            Failure::NoSpace => (409, "noSpace", "Make room: remove files, snapshots, or stop machines."),
            Failure::Invalid => (400, "invalidRequest", "Change the request."),
            Failure::Unsupported => (409, "unsupported", "This host cannot do that."),
            Failure::Unavailable => (503, "unavailable", "Try again in a moment."),
            Failure::Failed => (409, "failed", "The log says more."),
        };
        Self::new(status, code, error.message, hint)
    }
}

impl From<NoMemory> for ApiError {
    fn from(NoMemory: NoMemory) -> Self {
        Self::new(
            503,
            "busy",
            "The host has no memory to look at a password now",
            "Try again in a moment.",
        )
    }
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        let message = match error {
            StateError::Device => "The change could not be written to disk",
            StateError::Full => "There is no room to keep the change",
        };
        Self::new(503, "notKept", message, "Look at the datastore that holds the host's state.")
    }
}
