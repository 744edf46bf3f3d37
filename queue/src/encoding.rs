//! How items become bytes: bytes, strings and numbers as they are, all else by postcard.

use crate::error::Error;
use serde::{Serialize, de::DeserializeOwned};
use std::any::Any;
use tarragon_transport::ring::cell::INLINE_MAX;

/// What an item looks like as bytes.
pub(crate) enum Encoded<'a> {
    /// It is bytes.
    Borrowed(&'a [u8]),
    /// It fits into a cell.
    Small([u8; INLINE_MAX], usize),
    /// It is so many bytes; [`write_large`] writes them.
    Large(usize),
}

macro_rules! numbers {
    ($($number:ty),*) => {
        /// The item's bytes, if it is a number.
        #[inline(always)]
        fn number_bytes(item: &dyn Any, into: &mut [u8]) -> Option<usize> {
            $(if let Some(number) = item.downcast_ref::<$number>() {
                into[..size_of::<$number>()].copy_from_slice(&number.to_ne_bytes());
                return Some(size_of::<$number>());
            })*
            None
        }

        /// Fills a slot for a number from its bytes. `None`: it is none; false: they are too few or too many.
        #[inline(always)]
        fn fill_number(slot: &mut dyn Any, bytes: &[u8]) -> Option<bool> {
            $(if let Some(slot) = slot.downcast_mut::<Option<$number>>() {
                *slot = bytes.try_into().ok().map(<$number>::from_ne_bytes);
                return Some(slot.is_some());
            })*
            None
        }

        fn is_number<T: 'static>() -> bool {
            let wanted = std::any::TypeId::of::<T>();
            [$(std::any::TypeId::of::<$number>()),*].contains(&wanted)
        }
    };
}

numbers!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, f32, f64);

/// Bytes of the longest number.
pub(crate) const NUMBER_MAX: usize = 16;

/// The bytes of an item that is bytes, or a number, for which there is room in `number`.
#[inline(always)]
pub(crate) fn plain_bytes<'a, T: 'static>(item: &'a T, number: &'a mut [u8; NUMBER_MAX]) -> Option<&'a [u8]> {
    let any: &dyn Any = item;
    if let Some(bytes) = any.downcast_ref::<Vec<u8>>() {
        return Some(bytes);
    }
    if let Some(text) = any.downcast_ref::<String>() {
        return Some(text.as_bytes());
    }
    let len = number_bytes(any, number)?;
    Some(&number[..len])
}

/// The item as bytes, without copying or serialising where it is bytes already.
#[inline(always)]
pub(crate) fn encode<T: Serialize + 'static>(item: &T) -> Result<Encoded<'_>, Error> {
    let any: &dyn Any = item;
    if let Some(bytes) = any.downcast_ref::<Vec<u8>>() {
        return Ok(Encoded::Borrowed(bytes));
    }
    if let Some(text) = any.downcast_ref::<String>() {
        return Ok(Encoded::Borrowed(text.as_bytes()));
    }
    let mut small = [0; INLINE_MAX];
    if let Some(len) = number_bytes(any, &mut small) {
        return Ok(Encoded::Small(small, len));
    }
    match postcard::to_slice(item, &mut small).map(|used| used.len()) {
        Ok(len) => Ok(Encoded::Small(small, len)),
        Err(postcard::Error::SerializeBufferFull) => large_size(item).map(Encoded::Large),
        Err(error) => Err(Error::Encode(error)),
    }
}

fn large_size<T: Serialize>(item: &T) -> Result<usize, Error> {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(item, size).map_err(Error::Encode)
}

/// Writes an item that is [`Encoded::Large`] into as many bytes as that said.
pub(crate) fn write_large<T: Serialize>(item: &T, into: &mut [u8]) -> Result<(), Error> {
    postcard::to_slice(item, into).map(drop).map_err(Error::Encode)
}

/// Appends an item's bytes.
pub(crate) fn append<T: Serialize + 'static>(item: &T, into: &mut Vec<u8>) -> Result<(), Error> {
    match encode(item)? {
        Encoded::Borrowed(bytes) => into.extend_from_slice(bytes),
        Encoded::Small(bytes, len) => into.extend_from_slice(&bytes[..len]),
        Encoded::Large(len) => {
            let start = into.len();
            into.resize(start + len, 0);
            write_large(item, &mut into[start..])?;
        }
    }
    Ok(())
}

/// The item that bytes are.
#[inline(always)]
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, Error> {
    let mut item: Option<T> = None;
    let slot: &mut dyn Any = &mut item;
    if let Some(slot) = slot.downcast_mut::<Option<Vec<u8>>>() {
        *slot = Some(bytes.to_vec());
    } else if let Some(slot) = slot.downcast_mut::<Option<String>>() {
        let text = str::from_utf8(bytes).map_err(|_| Error::Decode(postcard::Error::DeserializeBadUtf8))?;
        *slot = Some(text.to_owned());
    } else if fill_number(slot, bytes).is_none() {
        item = Some(postcard::from_bytes(bytes).map_err(Error::Decode)?);
    }
    // Not `ok_or`: an error that is made before it is needed is dropped by a call.
    match item {
        Some(item) => Ok(item),
        None => Err(Error::Decode(postcard::Error::DeserializeUnexpectedEnd)),
    }
}

/// A hash that is the same for the same type with the same encoding.
pub(crate) fn type_hash<T: 'static>() -> u64 {
    let is = |other: std::any::TypeId| std::any::TypeId::of::<T>() == other;
    let encoding = if is(std::any::TypeId::of::<Vec<u8>>()) || is(std::any::TypeId::of::<String>()) {
        "bytes"
    } else if is_number::<T>() {
        "number"
    } else {
        "postcard"
    };
    xxhash_rust::xxh3::xxh3_64(format!("{encoding} {}", std::any::type_name::<T>()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + 'static>(item: T) {
        let bytes = match encode(&item).expect("it can be encoded") {
            Encoded::Borrowed(bytes) => bytes.to_vec(),
            Encoded::Small(bytes, len) => bytes[..len].to_vec(),
            Encoded::Large(len) => {
                let mut bytes = vec![0; len];
                write_large(&item, &mut bytes).expect("it was measured");
                bytes
            }
        };
        assert_eq!(decode::<T>(&bytes).expect("it can be decoded"), item);
    }

    #[test]
    fn each_kind_comes_back() {
        back(vec![1_u8, 2, 3]);
        back(Vec::<u8>::new());
        back("text".to_owned());
        back(7_u8);
        back(-7_i128);
        back(1.5_f64);
        back((1_u32, "pair".to_owned()));
        back(vec![1_u64; 1000]);
        back(Some(true));
        back(());
    }

    #[test]
    fn bytes_that_are_no_item_are_refused() {
        assert!(matches!(decode::<u64>(&[1, 2]), Err(Error::Decode(_))));
        assert!(matches!(decode::<String>(&[0xff]), Err(Error::Decode(_))));
        assert!(matches!(decode::<(u64, u64)>(&[]), Err(Error::Decode(_))));
    }

    #[test]
    fn types_and_encodings_differ() {
        let all = [type_hash::<u64>(), type_hash::<i64>(), type_hash::<Vec<u8>>(), type_hash::<Vec<u16>>()];
        assert!((0..4).all(|a| (0..a).all(|b| all[a] != all[b])));
    }
}
