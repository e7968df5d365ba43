//! What is said with qemu-guest-agent in a guest (QEMU Guest Agent Protocol Reference): JSON, a line for each request and each answer. The guest is not trusted: what it says is bounded and parsed, and ends up as text or numbers.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::net::IpAddr;
use serde_json::{Value, json};

/// Longest answer in bytes.
const MOST: usize = 64 << 10;
/// Addresses of a guest that are shown.
const MOST_ADDRESSES: usize = 16;
/// Characters of what a guest says went wrong.
const MOST_TEXT: usize = 200;
/// Stands before the answer to a synchronisation, and tells the agent to forget half a request.
const MARK: u8 = 0xff;

/// What an agent cannot be understood by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misunderstood {
    /// It says more than any answer is long.
    TooLong,
    /// It is no JSON, or no answer.
    NoAnswer,
    /// It refuses, for this reason.
    Refused(String),
}

impl Misunderstood {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::TooLong => "its answer is too long".into(),
            Self::NoAnswer => "its answer is none".into(),
            Self::Refused(why) => format!("it says: {why}"),
        }
    }
}

/// A request as it travels.
#[must_use]
pub fn request(command: &str) -> Vec<u8> {
    line(&json!({ "execute": command }))
}

fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// What is sent first: the agent forgets what it had of earlier requests, and answers with the number.
#[must_use]
pub fn synchronise(number: u32) -> Vec<u8> {
    let mut bytes = Vec::from([MARK]);
    bytes.extend(line(&json!({ "execute": "guest-sync-delimited", "arguments": { "id": number } })));
    bytes
}

/// What is sent to have the guest shut down; the agent does not answer when it does.
#[must_use]
pub fn shut_down() -> Vec<u8> {
    line(&json!({ "execute": "guest-shutdown", "arguments": { "mode": "powerdown" } }))
}

/// Answers out of bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Answers {
    bytes: Vec<u8>,
}

impl Answers {
    /// More came.
    ///
    /// # Errors
    /// [`Misunderstood::TooLong`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Misunderstood> {
        if self.bytes.len() + bytes.len() > MOST {
            self.bytes.clear();
            return Err(Misunderstood::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let rest = self.bytes.split_off(end + 1);
        let mut line = core::mem::replace(&mut self.bytes, rest);
        line.truncate(end);
        Some(line)
    }

    /// Whether the answer to this synchronisation came. What came before it is dropped.
    pub fn is_synchronised(&mut self, number: u32) -> bool {
        while let Some(line) = self.take_line() {
            let behind = line.iter().rposition(|byte| *byte == MARK).map(|place| &line[place + 1..]);
            let answer = behind.and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
            if answer.is_some_and(|answer| answer["return"] == number) {
                return true;
            }
        }
        false
    }

    /// The next answer, if all of it came.
    ///
    /// # Errors
    /// It is none, or says that the request failed.
    pub fn take(&mut self) -> Result<Option<Value>, Misunderstood> {
        let Some(line) = self.take_line() else { return Ok(None) };
        let Ok(Value::Object(mut answer)) = serde_json::from_slice(&line) else {
            return Err(Misunderstood::NoAnswer);
        };
        if let Some(value) = answer.remove("return") {
            return Ok(Some(value));
        }
        let why = answer.get("error").and_then(|error| error["desc"].as_str());
        Err(why.map_or(Misunderstood::NoAnswer, |why| {
            let shown = why.chars().take(MOST_TEXT).map(|c| if c.is_control() { ' ' } else { c });
            Misunderstood::Refused(shown.collect())
        }))
    }
}

/// Addresses in the answer to `guest-network-get-interfaces`, but those that nobody outside reaches.
#[must_use]
pub fn addresses(answer: &Value) -> Vec<String> {
    let interfaces = answer.as_array().into_iter().flatten();
    let all = interfaces.flat_map(|interface| interface["ip-addresses"].as_array().into_iter().flatten());
    let parsed = all.filter_map(|address| address["ip-address"].as_str()?.parse::<IpAddr>().ok());
    let mut found: Vec<String> = Vec::new();
    for address in parsed.filter(is_reached) {
        let text = address.to_string();
        if found.len() < MOST_ADDRESSES && !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

fn is_reached(address: &IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_found_behind_older_ones() {
        let mut answers = Answers::default();
        answers.push(b"{\"return\": 5}\nhalf of some").unwrap();
        assert!(!answers.is_synchronised(7));
        answers.push(b"thing\xff{\"return\": 6}\n\xff{\"return\"").unwrap();
        assert!(!answers.is_synchronised(7));
        answers.push(b": 7}\n{\"return\": {\"count\"").unwrap();
        assert!(answers.is_synchronised(7));
        assert_eq!(answers.take(), Ok(None));
        answers
            .push(b": 2}}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u0007 way\"}}\nx\n{}\n")
            .unwrap();
        assert_eq!(answers.take(), Ok(Some(json!({ "count": 2 }))));
        assert_eq!(answers.take(), Err(Misunderstood::Refused("no  way".into())));
        assert_eq!(answers.take(), Err(Misunderstood::NoAnswer));
        assert_eq!(answers.take(), Err(Misunderstood::NoAnswer));
        assert_eq!(answers.take(), Ok(None));
    }

    #[test]
    fn an_answer_without_an_end_is_given_up() {
        let mut answers = Answers::default();
        for _ in 0..16 {
            answers.push(&[b'x'; 4096]).unwrap();
        }
        assert_eq!(answers.push(b"x"), Err(Misunderstood::TooLong));
        answers.push(b"{\"return\": {}}\n").unwrap();
        assert_eq!(answers.take(), Ok(Some(json!({}))));
    }

    #[test]
    fn addresses_are_those_that_others_reach() {
        let of = |list: &[&str]| json!({ "name": "x", "ip-addresses": list.iter().map(|address| json!({ "ip-address": address, "prefix": 8 })).collect::<Vec<_>>() });
        let answer = json!([
            of(&["127.0.0.1", "::1"]), { "name": "down" },
            of(&["10.0.2.15", "fe80::1", "fec0::5054", "10.0.2.15", "<script>", "169.254.1.1"]),
        ]);
        assert_eq!(addresses(&answer), ["10.0.2.15", "fec0::5054"]);
        let many: Vec<String> = (1..100).map(|number| format!("10.0.0.{number}")).collect();
        assert_eq!(
            addresses(&json!([of(&many.iter().map(String::as_str).collect::<Vec<_>>())])).len(),
            MOST_ADDRESSES
        );
        assert_eq!(addresses(&json!({ "ip-addresses": 7 })), Vec::<String>::new());
    }

    #[test]
    fn requests_are_lines() {
        assert_eq!(request("guest-fsfreeze-thaw"), b"{\"execute\":\"guest-fsfreeze-thaw\"}\n");
        assert_eq!(synchronise(9)[0], MARK);
        assert_eq!(synchronise(9).last(), Some(&b'\n'));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..40), number: u32) {
            let mut answers = Answers::default();
            for piece in pieces {
                let _ = answers.push(&piece);
                answers.is_synchronised(number);
                let _ = answers.push(&piece);
                while !matches!(answers.take(), Ok(None)) {}
            }
        }

        #[test]
        fn any_text_is_no_more_than_addresses(text in "[ -~]{0,200}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert!(addresses(&value).len() <= MOST_ADDRESSES);
            }
            let answer = json!([{ "ip-addresses": [{ "ip-address": text }] }]);
            for address in addresses(&answer) {
                prop_assert!(address.parse::<IpAddr>().is_ok());
            }
        }
    }
}
