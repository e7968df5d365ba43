//! Addresses that were learned behind ports, in a table of fixed size.

use super::Slot;

/// Sets of the table, and places in each.
const SETS: usize = 512;
const WAYS: usize = 4;
/// Nanoseconds after which an address that was not seen is forgotten (IEEE 802.1Q, table 8-6).
pub const AGE: u64 = 300_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    port: Slot,
    seen: u64,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    entries: [[Option<Entry>; WAYS]; SETS],
}

/// An address and a number of a virtual network in one word.
#[must_use]
pub const fn key(mac: [u8; 6], vlan: u16) -> u64 {
    let [a, b, c, d, e, f] = mac;
    let [g, h] = vlan.to_be_bytes();
    u64::from_be_bytes([g, h, a, b, c, d, e, f])
}

const fn set(key: u64) -> usize {
    // Fibonacci hashing: the upper bits depend on all of the key.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize % SETS
}

const fn is_fresh(entry: &Entry, now: u64) -> bool {
    now.saturating_sub(entry.seen) <= AGE
}

impl Table {
    /// Nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: [[None; WAYS]; SETS],
        }
    }

    /// Where an address was last seen.
    #[must_use]
    pub fn find(&self, key: u64, now: u64) -> Option<Slot> {
        let known = self.entries[set(key)].iter().flatten().find(|entry| entry.key == key)?;
        is_fresh(known, now).then_some(known.port)
    }

    /// An address was seen behind a port, which may have up to `limit`. Only old entries and the port's own make room: no port can push out what another one is known by. False: it was not learned.
    pub fn learn(&mut self, key: u64, port: Slot, limit: u32, now: u64) -> bool {
        let mut known = self.entries[set(key)].iter_mut().flatten();
        if let Some(entry) = known.find(|entry| entry.key == key && entry.port == port) {
            entry.seen = now;
            return true;
        }
        // An address that was another port's moves, as a machine does that was moved.
        self.count(port, now) < limit && self.put(key, port, now)
    }

    fn put(&mut self, key: u64, port: Slot, now: u64) -> bool {
        let place = &mut self.entries[set(key)];
        let same = place.iter().position(|entry| entry.is_some_and(|entry| entry.key == key));
        let free = || place.iter().position(|entry| entry.is_none_or(|entry| !is_fresh(&entry, now)));
        let own = || place.iter().position(|entry| entry.is_some_and(|entry| entry.port == port));
        let Some(way) = same.or_else(free).or_else(own) else { return false };
        place[way] = Some(Entry { key, port, seen: now });
        true
    }

    /// How many addresses are known behind a port.
    #[must_use]
    pub fn count(&self, port: Slot, now: u64) -> u32 {
        let own = |entry: &&Entry| entry.port == port && is_fresh(entry, now);
        self.entries.iter().flatten().flatten().filter(own).count() as u32
    }

    /// Forgets what is behind a port.
    pub fn forget(&mut self, port: Slot) {
        for entry in self.entries.iter_mut().flatten() {
            if entry.is_some_and(|known| known.port == port) {
                *entry = None;
            }
        }
    }
}
