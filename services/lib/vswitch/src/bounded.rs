//! Lists out of messages, whose announced length is not believed.

use crate::MAX_UPLINKS;
use alloc::{string::String, vec::Vec};
use core::fmt;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Vec<String>;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "up to {MAX_UPLINKS} names")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = sequence.next_element()? {
            if names.len() == MAX_UPLINKS {
                return Err(A::Error::custom("too many names"));
            }
            names.push(name);
        }
        Ok(names)
    }
}

/// Names of uplinks, no more than a switch has.
pub fn uplinks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(Names)
}
