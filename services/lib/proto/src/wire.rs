//! Encoding and decoding. Decoding never trusts a length: it allocates no more than the bytes that are there can fill, and refuses bytes that are left over.

use alloc::vec::Vec;
use core::{fmt, marker::PhantomData};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

/// Encodes into `buffer`; `None` if it does not fit.
pub fn encode<T: Serialize + ?Sized>(value: &T, buffer: &mut [u8]) -> Option<usize> {
    postcard::to_slice(value, buffer).ok().map(|used| used.len())
}

/// Decodes all of `bytes`; `None` if they are not exactly one value.
#[must_use]
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// Decodes all of `bytes` into a value that borrows nothing.
#[must_use]
pub fn decode_owned<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    decode(bytes)
}

/// Bytes that `value` takes.
#[must_use]
pub fn size<T: Serialize + ?Sized>(value: &T) -> usize {
    postcard::experimental::serialized_size(value).unwrap_or(usize::MAX)
}

/// `#[serde(with = "wire::list")]`: a vector whose announced length is not believed.
pub mod list {
    use super::*;

    /// As serde would.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<T: Serialize, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        items.serialize(serializer)
    }

    /// As serde would, but memory grows only with the items that are really there.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Vec<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Visitor(PhantomData))
    }
}

/// `#[serde(with = "wire::bytes")]`: a byte vector, copied in one piece.
pub mod bytes {
    use super::*;

    /// Length and bytes.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Length and bytes.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Vec::from)
    }
}
