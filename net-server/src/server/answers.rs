//! What the server answers.

use super::Server;
use tessera_proto::{
    Call, Failure, FailureKind, Page, capture, guest_net, host_port, interface_of,
    network::{self, Exercise, NicInfo},
    switch,
};
use tessera_rt::start::start_info;

/// The word in the manifest that allows [`network::Server::exercise`].
const EXERCISE: &str = "exercise";

impl Server {
    /// Answers a request.
    pub(super) fn answer(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        match interface_of(request) {
            Some(number) if number == guest_net::INTERFACE.number => guest_net::dispatch(self, call, request, reply),
            Some(number) if number == host_port::INTERFACE.number => host_port::dispatch(self, call, request, reply),
            Some(number) if number == switch::INTERFACE.number => switch::dispatch(self, call, request, reply),
            Some(number) if number == capture::INTERFACE.number => capture::dispatch(self, call, request, reply),
            _ => network::dispatch(self, call, request, reply),
        }
    }
}

impl network::Server for Server {
    fn nics(&mut self, _call: &mut Call, first: u32) -> Result<Page<NicInfo>, Failure> {
        let all = (0..).zip(&self.cards).skip(first as usize);
        Ok(Page::fill(all.map(|(number, card)| (number, card.info()))))
    }

    fn exercise(&mut self, _call: &mut Call, nic: &str, rounds: u32) -> Result<Exercise, Failure> {
        if !start_info().arguments.iter().any(|word| word == EXERCISE) {
            let text = "the server speaks for others only: only a test's manifest allows that (arguments = [\"exercise\"])";
            return Err(Failure::new(FailureKind::NotAllowed, text));
        }
        let card = self.cards.iter_mut().find(|card| card.name() == nic).ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format_args!("there is no network card `{nic}`: `nic list` shows all"),
            )
        })?;
        card.exercise(rounds).ok_or(Failure::new(
            FailureKind::Exhausted,
            "there is no memory for a request: raise `memory` of the network server in the manifest",
        ))
    }
}
