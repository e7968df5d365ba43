//! How guessing of passwords is slowed down: by account and address, by account over all addresses, and over all.

use alloc::{collections::BTreeMap, string::String};

#[derive(Clone, Copy, Default)]
struct Guess {
    failures: u32,
    last: u64,
}

/// What a failed log-in led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is counted.
    Noted,
    /// The account is locked for that address.
    Locked,
    /// From addresses that it never logged in from the account is heard only now and then.
    Slowed,
}

/// After so many failures from one address an account is locked for it.
const LOCK_AFTER: u32 = 10;
const LOCK_MS: u64 = 15 * 60 * 1000;
/// After so many failures from all addresses within the time of a lock an account is slowed down.
const SLOW_AFTER: u32 = 30;
const SLOW_MS: u64 = 5000;
/// Failures of all accounts and addresses that are heard in a minute.
const MOST_IN_A_MINUTE: u32 = 60;
const MINUTE_MS: u64 = 60_000;
/// Entries of each kind; the oldest goes first.
const MOST: usize = 1024;

type Pair = (String, String);

/// Failed log-ins. An address that guesses keeps nobody else out: who logged in from an address before is, from there, held up by failures from
/// there alone.
#[derive(Default)]
pub(crate) struct Guesses {
    pairs: BTreeMap<Pair, Guess>,
    accounts: BTreeMap<String, Guess>,
    /// Where accounts logged in from, and when last.
    known: BTreeMap<Pair, u64>,
    /// Failures of the minute that began then.
    minute: (u64, u32),
}

fn note<K: Ord + Clone>(guesses: &mut BTreeMap<K, Guess>, key: K, now: u64) -> u32 {
    guesses.retain(|_, guess| now.saturating_sub(guess.last) < LOCK_MS);
    if guesses.len() >= MOST && !guesses.contains_key(&key) {
        let oldest = guesses.iter().min_by_key(|(_, guess)| guess.last).map(|(key, _)| key.clone());
        oldest.map(|key| guesses.remove(&key));
    }
    let guess = guesses.entry(key).or_default();
    guess.failures = guess.failures.saturating_add(1);
    guess.last = now;
    guess.failures
}

impl Guesses {
    /// Milliseconds until it may be tried again.
    pub(crate) fn wait(&self, user: &str, address: &str, now: u64) -> u64 {
        let pair = (user.into(), address.into());
        let left = |guess: &Guess, pause: u64| (guess.last + pause).saturating_sub(now);
        let own = self.pairs.get(&pair).map_or(0, |guess| {
            let pause = match guess.failures {
                0..3 => 0,
                LOCK_AFTER.. => LOCK_MS,
                failures => 500 << (failures - 3),
            };
            left(guess, pause)
        });
        if self.known.contains_key(&pair) {
            return own;
        }
        let slowed = self
            .accounts
            .get(user)
            .filter(|guess| guess.failures >= SLOW_AFTER && left(guess, LOCK_MS) > 0);
        let (begun, count) = self.minute;
        let all = if count >= MOST_IN_A_MINUTE {
            (begun + MINUTE_MS).saturating_sub(now)
        } else {
            0
        };
        own.max(slowed.map_or(0, |guess| left(guess, SLOW_MS))).max(all)
    }

    /// Notes a failure.
    pub(crate) fn failed(&mut self, user: &str, address: &str, now: u64) -> Outcome {
        if now.saturating_sub(self.minute.0) >= MINUTE_MS {
            self.minute = (now, 0);
        }
        self.minute.1 = self.minute.1.saturating_add(1);
        let of_pair = note(&mut self.pairs, (user.into(), address.into()), now);
        let of_account = note(&mut self.accounts, user.into(), now);
        match (of_pair, of_account) {
            (LOCK_AFTER, _) => Outcome::Locked,
            (_, SLOW_AFTER) => Outcome::Slowed,
            _ => Outcome::Noted,
        }
    }

    /// Notes that somebody logged in.
    pub(crate) fn succeeded(&mut self, user: &str, address: &str, now: u64) {
        let pair = (user.into(), address.into());
        self.pairs.remove(&pair);
        if self.known.len() >= MOST && !self.known.contains_key(&pair) {
            let oldest = self.known.iter().min_by_key(|(_, last)| **last).map(|(pair, _)| pair.clone());
            oldest.map(|pair| self.known.remove(&pair));
        }
        self.known.insert(pair, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// Guesses for as long as `ms`, each time as soon as it is heard, from ever new addresses; gives how many were heard.
    fn guess(guesses: &mut Guesses, user: impl Fn(u32) -> String, from: u64, ms: u64) -> u32 {
        let (mut now, mut heard) = (from, 0);
        while now < from + ms {
            let (user, address) = (user(heard), format!("address {heard}"));
            let wait = guesses.wait(&user, &address, now);
            if wait == 0 {
                guesses.failed(&user, &address, now);
                heard += 1;
            }
            now += wait.max(1);
        }
        heard
    }

    #[test]
    fn one_address_is_delayed_and_then_locked() {
        let (mut guesses, mut now) = (Guesses::default(), 0);
        let mut outcomes = alloc::vec::Vec::new();
        for _ in 0..10 {
            now += guesses.wait("root", "a", now);
            outcomes.push(guesses.failed("root", "a", now));
        }
        assert!(now > 60_000, "{now} ms");
        assert_eq!(outcomes.iter().position(|outcome| *outcome == Outcome::Locked), Some(9));
        assert!(guesses.wait("root", "a", now) > 14 * 60_000);
        assert_eq!(guesses.wait("root", "b", now), 0, "another address is kept out");
    }

    #[test]
    fn an_account_is_slowed_down_over_all_addresses() {
        let mut guesses = Guesses::default();
        let hour = 60 * MINUTE_MS;
        let heard = guess(&mut guesses, |_| "root".into(), 0, hour);
        assert!(
            heard <= SLOW_AFTER + (hour / SLOW_MS) as u32,
            "{heard} guesses were heard in an hour"
        );
        assert_eq!(guesses.wait("other", "new", hour), 0, "another account is slowed down");
    }

    #[test]
    fn all_accounts_and_addresses_together_are_bounded() {
        let mut guesses = Guesses::default();
        let heard = guess(&mut guesses, |n| format!("user {n}"), 0, 60 * MINUTE_MS);
        assert!(heard <= 61 * MOST_IN_A_MINUTE, "{heard} guesses were heard in an hour");
        assert!(guesses.pairs.len() <= MOST && guesses.accounts.len() <= MOST);
    }

    #[test]
    fn who_was_there_before_is_not_held_up() {
        let mut guesses = Guesses::default();
        guesses.succeeded("root", "desk", 0);
        guess(
            &mut guesses,
            |n| if n % 2 == 0 { "root".into() } else { format!("user {n}") },
            1,
            10 * MINUTE_MS,
        );
        assert!(guesses.wait("root", "elsewhere", 10 * MINUTE_MS) > 0);
        assert_eq!(guesses.wait("root", "desk", 10 * MINUTE_MS), 0);
    }

    #[test]
    fn places_that_are_known_are_bounded() {
        let mut guesses = Guesses::default();
        for n in 0..2 * MOST as u64 {
            guesses.succeeded("root", &format!("{n}"), n);
        }
        assert_eq!(guesses.known.len(), MOST);
    }
}
