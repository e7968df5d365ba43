//! How interface clients reach their server: `supervisor::Client(Connection::new(endpoint))`.

use crate::{Endpoint, message::Message, sys, time};
use tessera_abi::syscall::MessageInfo;
use tessera_proto::{CallError, Delivery, Transport};

/// A server's endpoint, as interface clients use it.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    endpoint: Endpoint,
    timeout: Option<u64>,
}

impl Connection {
    /// Calls wait for as long as it takes.
    #[must_use]
    pub const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, timeout: None }
    }

    /// Calls fail with `Error::TimedOut` after `ticks` of the TSC. For servers that the caller does not trust to answer.
    #[must_use]
    pub const fn with_timeout(endpoint: Endpoint, ticks: u64) -> Self {
        Self {
            endpoint,
            timeout: Some(ticks),
        }
    }

    /// The endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }
}

impl Transport for Connection {
    fn exchange(
        &mut self,
        send: &[u32],
        receive: u32,
        receive_count: u32,
        encode: &mut dyn FnMut(&mut [u8]) -> Result<usize, CallError>,
        decode: &mut dyn FnMut(&[u8], Delivery),
    ) -> Result<(), CallError> {
        let mut message = Message::take();
        let length = encode(message.bytes())?;
        let caps = message.send_caps(send);
        message.receive_caps(receive, receive_count);
        let mut words = message.load(length);
        let deadline = self.timeout.map(time::after);
        let outcome = sys::call(self.endpoint.slot(), MessageInfo::new(length, caps), deadline, &mut words).check();
        // A server must not be able to leave capabilities in our table unasked.
        message.receive_caps(0, 0);
        let info = outcome?.info;
        message.store(&words);
        let bytes = info.bytes().min(message.bytes().len());
        decode(&message.bytes()[..bytes], Delivery { bytes, caps: info.caps() });
        Ok(())
    }
}
