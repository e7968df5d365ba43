//! Endpoints and replies. Whole messages go through [`crate::Connection`] and [`crate::server`]; here are the bare calls.

use super::ask;
use crate::sys::{self, Outcome, Words};
use tessera_abi::Error;
use tessera_abi::object::endpoint;
use tessera_abi::syscall::MessageInfo;
use tessera_manifest::slots;

capability! {
    /// A rendezvous for calls.
    Endpoint
}

capability! {
    /// The right to answer one call at a time.
    Reply
}

/// Counters of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Calls delivered.
    pub calls: u64,
    /// Callers that wait.
    pub callers_waiting: u64,
    /// Receivers that wait.
    pub receivers_waiting: u64,
    /// Sum of measured call-to-reply times in TSC ticks.
    pub latency_ticks: u64,
    /// Number of measured calls.
    pub latency_count: u64,
}

impl Endpoint {
    /// Sends words and waits for the reply, which replaces them.
    ///
    /// # Errors
    /// `ServerDied`, `TimedOut`, `NoRight`, `Deleted`.
    #[inline(always)]
    pub fn call(self, info: MessageInfo, deadline: Option<u64>, words: &mut Words) -> Result<MessageInfo, Error> {
        sys::call(self.slot(), info, deadline, words).check().map(|outcome| outcome.info)
    }

    /// Receives; `reply` will hold the caller. A status of [`tessera_abi::syscall::NOTIFIED`] means that the bound notification's bits stand in `badge`.
    #[inline(always)]
    pub fn recv(self, reply: Reply, deadline: Option<u64>, words: &mut Words) -> Outcome {
        sys::recv(self.slot(), reply.slot(), deadline, words)
    }

    /// Replies, then receives.
    #[inline(always)]
    pub fn reply_recv(self, reply: Reply, info: MessageInfo, deadline: Option<u64>, words: &mut Words) -> Outcome {
        sys::reply_recv(self.slot(), reply.slot(), info, deadline, words)
    }

    /// Counters.
    ///
    /// # Errors
    /// `NoRight` without the read right.
    pub fn info(self) -> Result<EndpointStatus, Error> {
        let [calls, callers_waiting, receivers_waiting, latency_ticks, latency_count, _] = ask(self.slot(), endpoint::INFO, &[])?;
        Ok(EndpointStatus {
            calls,
            callers_waiting,
            receivers_waiting,
            latency_ticks,
            latency_count,
        })
    }
}

impl Reply {
    /// The first thread's.
    pub const FIRST: Self = Self::new(slots::REPLY);

    /// Answers without waiting for the next call.
    ///
    /// # Errors
    /// `BadState` if there is no caller.
    #[inline(always)]
    pub fn send(self, info: MessageInfo, words: &mut Words) -> Result<(), Error> {
        sys::reply(self.slot(), info, words).check().map(|_| ())
    }
}
