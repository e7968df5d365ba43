//! Queries of requests, read into types.

use super::error::ApiError;
use alloc::{string::String, vec::Vec};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor, value::MapDeserializer};

/// Undoes percent-encoding (RFC 3986, 2.1); `plus` makes `+` a space, as forms do. `None`: broken, or not UTF-8.
#[must_use]
pub fn percent_decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                bytes.push(u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = tail;
            }
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// A value of a query: text until somebody wants a number.
struct Part(String);

impl<'de> IntoDeserializer<'de, serde::de::value::Error> for Part {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Part {
    type Error = serde::de::value::Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_string(self.0)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let number = self.0.parse().ok().filter(|_| self.0.bytes().all(|byte| byte.is_ascii_digit()));
        visitor.visit_u64(number.ok_or_else(|| serde::de::Error::custom(alloc::format!("\"{}\" is not a number", self.0)))?)
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_bool(
            self.0
                .parse()
                .map_err(|_| serde::de::Error::custom("it is neither true nor false"))?,
        )
    }
    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }
    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 u16 u32 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Reads a query into a type.
///
/// # Errors
/// 400 with what is wrong.
pub fn parse<Q: DeserializeOwned>(query: &str) -> Result<Q, ApiError> {
    let mut parts = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let decode = |text| percent_decode(text, true).ok_or_else(|| ApiError::invalid("The query's percent-encoding is broken"));
        parts.push((decode(name)?, Part(decode(value)?)));
    }
    Q::deserialize(MapDeserializer::new(parts.into_iter()))
        .map_err(|error: serde::de::value::Error| ApiError::invalid(alloc::format!("The query does not fit: {error}")))
}
