//! Addresses that were learned behind ports, in a table of fixed size.

use super::Slot;
use alloc::{vec, vec::Vec};

/// Sets of the table, and places in each.
const SETS: usize = 512;
const WAYS: usize = 4;
/// Nanoseconds after which an address that was not seen is forgotten (IEEE 802.1Q, table 8-6).
pub const AGE: u64 = 300_000_000_000;
/// Nanoseconds between two looks for old entries.
const SWEEP: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    port: Slot,
    seen: u64,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    /// On the heap from the beginning: a server's stack has no room for it.
    entries: Vec<[Option<Entry>; WAYS]>,
    /// Entries of each port, old ones too.
    counts: Vec<u32>,
    /// When old entries are looked for next.
    sweep: u64,
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
    pub fn new() -> Self {
        Self {
            entries: vec![[None; WAYS]; SETS],
            counts: Vec::new(),
            sweep: 0,
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
        if self.count(port) >= limit {
            self.sweep(now);
        }
        self.count(port) < limit && self.put(key, port, now)
    }

    fn put(&mut self, key: u64, port: Slot, now: u64) -> bool {
        let place = &mut self.entries[set(key)];
        let same = place.iter().position(|entry| entry.is_some_and(|entry| entry.key == key));
        let free = || place.iter().position(|entry| entry.is_none_or(|entry| !is_fresh(&entry, now)));
        let own = || place.iter().position(|entry| entry.is_some_and(|entry| entry.port == port));
        let Some(way) = same.or_else(free).or_else(own) else { return false };
        let gone = place[way].replace(Entry { key, port, seen: now });
        if let Some(gone) = gone {
            self.counts[usize::from(gone.port)] -= 1;
        }
        let place = usize::from(port);
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
        true
    }

    /// All that is known: address, virtual network, port, and nanoseconds since it was seen.
    pub fn all(&self, now: u64) -> impl Iterator<Item = ([u8; 6], u16, Slot, u64)> {
        let fresh = self.entries.iter().flatten().flatten().filter(move |entry| is_fresh(entry, now));
        fresh.map(move |entry| {
            let [g, h, a, b, c, d, e, f] = entry.key.to_be_bytes();
            let vlan = u16::from_be_bytes([g, h]);
            ([a, b, c, d, e, f], vlan, entry.port, now.saturating_sub(entry.seen))
        })
    }

    /// How many addresses are known behind a port.
    #[must_use]
    pub fn count(&self, port: Slot) -> u32 {
        self.counts.get(usize::from(port)).copied().unwrap_or(0)
    }

    /// Removes old entries, unless that was just done: a flood must not make it the switch's occupation.
    fn sweep(&mut self, now: u64) {
        if now >= self.sweep {
            self.sweep = now.saturating_add(SWEEP);
            self.remove(|entry| !is_fresh(entry, now));
        }
    }

    /// Forgets what is behind a port.
    pub fn forget(&mut self, port: Slot) {
        self.remove(|entry| entry.port == port);
    }

    fn remove(&mut self, which: impl Fn(&Entry) -> bool) {
        for place in self.entries.iter_mut().flatten() {
            if let Some(gone) = place.take_if(|entry| which(entry)) {
                self.counts[usize::from(gone.port)] -= 1;
            }
        }
    }
}
