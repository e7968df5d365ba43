//! The loop of a server: one for messages and for the bound notification.

use crate::{CNode, Endpoint, Reply, message::Message, slots};
use alloc::boxed::Box;
use tessera_abi::Error;
use tessera_abi::syscall::{MAX_CAPS, MAX_MESSAGE, MessageInfo, NOTIFIED};
use tessera_proto::Call;

/// What a server does with what comes in.
pub trait Service {
    /// A request came. Writes the reply and returns its length; usually by an interface's `dispatch`.
    fn message(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize;

    /// The bound notification was signalled with these bits.
    fn notified(&mut self, _bits: u64) {}

    /// When [`Service::timed_out`] wants to be called, as a TSC value; asked before each wait.
    fn deadline(&mut self) -> Option<u64> {
        None
    }

    /// The deadline passed.
    fn timed_out(&mut self) {}

    /// The Reply that takes the next caller, asked before each wait; `first` is the loop's own. A service that puts answers off ([`Call::defer`]) keeps the one
    /// that holds the caller, and gives another.
    fn reply(&mut self, first: Reply) -> Reply {
        first
    }

    /// Called before each wait; ends the loop when it answers true.
    fn finished(&mut self) -> bool {
        false
    }
}

/// Serves until the service is finished. Capabilities that come with a request stand in the slots that [`Call::cap`] names until the request is answered; the service moves those
/// that it wants to keep, the others are deleted. A request that was put off is not answered here.
///
/// # Errors
/// `Deleted`, `NoRight`, `BadSlot`: this thread cannot receive there.
pub fn serve(endpoint: Endpoint, reply: Reply, service: &mut impl Service) -> Result<(), Error> {
    let caps = slots::take_range(MAX_CAPS as u32)?;
    let outcome = serve_with(endpoint, reply, caps, service);
    slots::free_range(caps, MAX_CAPS as u32);
    outcome
}

fn serve_with(endpoint: Endpoint, first: Reply, caps: u32, service: &mut impl Service) -> Result<(), Error> {
    // The request is copied out of the message buffer, since the service may make calls of its own, and a request may be read while the reply is written.
    let mut request = Box::new([0; MAX_MESSAGE]);
    let mut answer = Box::new([0; MAX_MESSAGE]);
    let mut pending: Option<(usize, Call)> = None;
    let mut words = [0; 6];
    loop {
        let finished = service.finished();
        let deadline = service.deadline();
        let reply = service.reply(first);
        let mut message = Message::take();
        message.receive_caps(caps, MAX_CAPS as u32);
        let outcome = match pending.take() {
            Some((length, call)) => {
                message.bytes()[..length].copy_from_slice(&answer[..length]);
                let given = message.send_caps(call.given());
                words = message.load(length);
                let info = MessageInfo::new(length, given);
                if finished {
                    return reply.send(info, &mut words);
                }
                endpoint.reply_recv(reply, info, deadline, &mut words)
            }
            None if finished => return Ok(()),
            None => endpoint.recv(reply, deadline, &mut words),
        };
        message.receive_caps(0, 0);
        match outcome.status {
            0 => {
                message.store(&words);
                let length = outcome.info.bytes().min(MAX_MESSAGE);
                request[..length].copy_from_slice(&message.bytes()[..length]);
                drop(message);
                let received = outcome.info.caps().min(MAX_CAPS);
                let mut call = Call::new(outcome.badge, caps, received);
                let length = service.message(&mut call, &request[..length], &mut answer[..]).min(MAX_MESSAGE);
                for slot in (caps..).take(received) {
                    // BadSlot: the service moved it.
                    let _ = CNode::OWN.delete(slot);
                }
                if !call.is_deferred() {
                    pending = Some((length, call));
                }
            }
            NOTIFIED => {
                drop(message);
                service.notified(outcome.badge);
            }
            status => {
                drop(message);
                match Error::from_status(status) {
                    Some(Error::TimedOut) => service.timed_out(),
                    // The reply's or a request's capabilities were refused: not this server's fault, and the next request may be better.
                    Some(Error::CapTransfer) => {}
                    error => return Err(error.unwrap_or(Error::BadState)),
                }
            }
        }
    }
}
