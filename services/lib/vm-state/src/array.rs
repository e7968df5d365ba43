//! `#[serde(with = "tessera_vm_state::array")]`: arrays of any length, which serde itself has up to 32.

use core::fmt;
use core::marker::PhantomData;
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Its elements, one after the other.
///
/// # Errors
/// The serializer's.
pub fn serialize<T: Serialize, S: Serializer, const N: usize>(array: &[T; N], serializer: S) -> Result<S::Ok, S::Error> {
    let mut tuple = serializer.serialize_tuple(N)?;
    for item in array {
        tuple.serialize_element(item)?;
    }
    tuple.end()
}

/// As many elements as it has.
///
/// # Errors
/// The deserializer's; there are fewer.
pub fn deserialize<'de, T: Deserialize<'de> + Copy + Default, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[T; N], D::Error> {
    struct Items<T, const N: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de> + Copy + Default, const N: usize> Visitor<'de> for Items<T, N> {
        type Value = [T; N];
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "{N} elements")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<[T; N], A::Error> {
            let mut array = [T::default(); N];
            for (at, place) in array.iter_mut().enumerate() {
                *place = sequence.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self))?;
            }
            Ok(array)
        }
    }
    deserializer.deserialize_tuple(N, Items(PhantomData))
}
