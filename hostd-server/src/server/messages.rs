//! What hostd does for the host's own servers.

use super::{Machine, random};
use alloc::{format, rc::Rc, string::ToString, vec::Vec};
use core::net::IpAddr;
use tessera_device::later::Later;
use tessera_hostd::{net::Stack, platform::Platform};
use tessera_proto::{
    Call, Failure, FailureKind, answer,
    hostd::{self, Echo, MAX_ECHO, MAX_ECHO_WAIT_MS},
};
use tessera_rt::{Reply, time};

/// Answers messages.
pub struct Messages {
    machine: Rc<Machine>,
    stack: Stack,
    later: Later,
}

impl Messages {
    /// Answers with what `stack` reaches.
    pub fn new(machine: &Rc<Machine>, stack: &Stack) -> Self {
        Self {
            machine: machine.clone(),
            stack: stack.clone(),
            later: Later::new(machine.executor()),
        }
    }

    /// The Reply for the next caller.
    pub fn reply(&self) -> Reply {
        self.later.reply()
    }
}

impl hostd::Server for Messages {
    fn ping(&mut self, call: &mut Call, to: &str, sequence: u16, bytes: u16, wait_ms: u32) -> Result<Echo, Failure> {
        if bytes > MAX_ECHO || wait_ms > MAX_ECHO_WAIT_MS {
            let text = format!("an echo request has at most {MAX_ECHO} bytes and {MAX_ECHO_WAIT_MS} ms");
            return Err(Failure::new(FailureKind::BadRequest, text));
        }
        let (to, machine, stack) = (to.to_string(), self.machine.clone(), self.stack.clone());
        let encode = |result: &Result<Echo, Failure>, call: &mut Call, reply: &mut [u8]| answer(call, 0, result, reply);
        self.later.answer(call, encode, async move {
            let address: IpAddr = match stack.resolve(&to, &[]).await {
                Ok(found) => *found.first().ok_or(Failure::from(FailureKind::NotFound))?,
                Err(error) => return Err(Failure::new(FailureKind::NotFound, format!("{to}: {error}"))),
            };
            let data: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let begun = time::now();
            let limit = machine.sleep(wait_ms.into());
            let answered = stack.ping(address, random::number() as u16, sequence, &data, limit).await;
            let ticks = time::now().saturating_sub(begun);
            match answered {
                Ok(answered) => Ok(Echo {
                    address: address.to_string(),
                    microseconds: answered.then(|| u32::try_from(time::from_ticks(ticks, 1_000_000, time::hz())).unwrap_or(u32::MAX)),
                }),
                Err(error) => Err(Failure::new(FailureKind::BadState, format!("{address}: {error}"))),
            }
        })
    }
}
