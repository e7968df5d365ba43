//! The server on the running system: its one loop.

mod answers;
mod captures;
mod card;
mod fabric;
mod guests;
mod host_ports;
mod hub;
mod switches;
mod vswitch;

use alloc::{format, vec::Vec};
use card::Card;
use guests::Guests;
use hub::Hub;
use tessera_device::platform;
use tessera_net::{drivers, nic::WATCH_MS};
use tessera_proto::Call;
use tessera_rt::{
    Endpoint, Reply,
    abi::Error,
    exit, log, require,
    server::{Service, serve},
    start::{self, start_info},
    time,
};

/// Bits of the notification that network cards have; the last of them is shared by all further ones.
const CARD_BITS: usize = 16;

/// The bit that a card's interrupts set.
fn bit(card: usize) -> u64 {
    1 << card.min(CARD_BITS - 1)
}

fn fail(doing: &str, error: Error) -> ! {
    log::error!("{doing}: {}", error.text());
    exit(1, doing)
}

/// Puts a driver on each device that init gave.
fn find_cards() -> Vec<Card> {
    let mut cards = Vec::new();
    for (number, given) in (0..).zip(&start_info().devices) {
        let (device, address) = platform::device(number, given);
        let name = format!("nic{}", cards.len());
        match drivers::start(&device, &name) {
            None => log::info!("{address}: there is no driver for it"),
            Some(Err(reason)) => log::error!("{address}: its driver does not start: {reason}"),
            Some(Ok(nic)) => {
                let lines = platform::bind(given, bit(cards.len()));
                cards.push(Card::new(name, address, nic, lines));
            }
        }
    }
    cards
}

/// The program.
pub fn run() {
    let mut cards = find_cards();
    for card in &cards {
        card.announce();
    }
    let Some(hub) = Hub::new(&mut cards) else {
        exit(
            1,
            "there is no memory for packets: raise `memory` of the network server in the manifest",
        )
    };
    let mut server = Server {
        cards,
        guests: Guests::new(),
        hub,
        watched: platform::now(),
    };
    start::ready();
    if let Err(error) = serve(Endpoint::new(require("net")), Reply::FIRST, &mut server) {
        fail("the network endpoint cannot be served", error);
    }
}

/// Everything that the loop looks after.
struct Server {
    cards: Vec<Card>,
    guests: Guests,
    hub: Hub,
    /// When cards were last watched, in milliseconds.
    watched: u64,
}

impl Server {
    /// Does what is due, and says when something will be (TSC).
    fn go_on(&mut self) -> u64 {
        let now = platform::now();
        let watch = now.saturating_sub(self.watched) >= WATCH_MS;
        if watch {
            self.watched = now;
            // Machines that ended are none of what is told.
            self.hub.changed = true;
        }
        let mut more = self.hub.turn(&mut self.cards);
        let mut polled = false;
        for card in &mut self.cards {
            if watch {
                card.watch(now, &mut self.hub);
            }
            more |= card.turn(now, &mut self.hub);
            polled |= card.wants_polling();
        }
        self.hub.settle();
        let (again, due) = self.guests.settle(self.hub.now(), &mut self.hub.changed);
        if more || again || self.hub.changed {
            return time::now();
        }
        let rest = time::milliseconds(if polled { 1 } else { WATCH_MS });
        let wait = self
            .hub
            .wait()
            .into_iter()
            .chain(due.map(|due| due.saturating_sub(self.hub.now())))
            .min();
        time::after(wait.map_or(rest, |wait| rest.min(time::nanoseconds(wait))))
    }
}

impl Service for Server {
    fn message(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        self.hub.changed = true;
        self.answer(call, request, reply)
    }

    fn notified(&mut self, bits: u64) {
        self.guests.notified(bits);
        for (number, card) in self.cards.iter_mut().enumerate() {
            if bits & bit(number) != 0 {
                card.interrupted();
            }
        }
    }

    fn deadline(&mut self) -> Option<u64> {
        Some(self.go_on())
    }

    fn reply(&mut self, _first: Reply) -> Reply {
        self.guests.later().reply()
    }
}
