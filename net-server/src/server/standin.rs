//! Carries packets between guests and the first network card: a switch that learns.

use super::{
    card::Card,
    guests::{Guests, Nic},
};
use alloc::{collections::BTreeMap, rc::Rc, vec::Vec};
use tessera_net::{
    guest::{Sent, Token},
    packet::Packet,
};

const BUDGET: u32 = 64;

/// Where an address was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Guest(usize),
    Uplink,
}

/// The switch.
#[derive(Default)]
pub struct Hub {
    table: BTreeMap<[u8; 6], Port>,
    held: Vec<Option<(Rc<Nic>, Token)>>,
    free: Vec<u32>,
}

fn six(bytes: &[u8]) -> [u8; 6] {
    bytes.try_into().unwrap_or_default()
}

impl Hub {
    fn targets(&mut self, from: Port, packet: &dyn Packet, count: usize) -> (Vec<usize>, bool) {
        let mut head = [0; 14];
        packet.copy_out(0, &mut head);
        self.table.insert(six(&head[6..12]), from);
        let all = || (0..count).filter(|number| Port::Guest(*number) != from).collect();
        match self.table.get(&six(&head[..6])) {
            Some(to) if *to == from => (Vec::new(), false),
            Some(Port::Guest(number)) => (alloc::vec![*number], false),
            Some(Port::Uplink) => (Vec::new(), true),
            None => (all(), from != Port::Uplink),
        }
    }

    /// Takes what guests send. True: there is more.
    pub fn turn(&mut self, guests: &Guests, cards: &mut [Card]) -> bool {
        let mut nics = Vec::new();
        guests.each(|nic| nics.push(nic.clone()));
        let mut more = false;
        for (number, nic) in nics.iter().enumerate() {
            more |= nic.device.transmit(BUDGET, &mut |packet, pair, token| {
                let (to, up) = self.targets(Port::Guest(number), packet, nics.len());
                for to in to {
                    let _ = nics[to].device.receive(packet, None);
                }
                let Some(card) = cards.first_mut().filter(|_| up) else {
                    return Sent::Done;
                };
                let tag = self.free.pop().unwrap_or_else(|| {
                    self.held.push(None);
                    self.held.len() as u32 - 1
                });
                if card.transmit(pair.into(), packet, tag) {
                    self.held[tag as usize] = Some((nic.clone(), token));
                    return Sent::Held;
                }
                self.free.push(tag);
                Sent::Done
            });
        }
        more
    }

    /// A card is done with a packet.
    pub fn sent(&mut self, tag: u32) {
        if let Some((nic, token)) = self.held.get_mut(tag as usize).and_then(Option::take) {
            nic.device.complete(token);
            self.free.push(tag);
        }
    }

    /// A packet came from outside.
    pub fn received(&mut self, packet: &dyn Packet, guests: &Guests) {
        let mut nics = Vec::new();
        guests.each(|nic| nics.push(nic.clone()));
        for to in self.targets(Port::Uplink, packet, nics.len()).0 {
            if let Some(nic) = nics.get(to) {
                let _ = nic.device.receive(packet, None);
            }
        }
    }
}
