//! Values to bytes and back: numbers, texts, `Vec`s of numbers and arrays as they lie in memory, others by postcard.
//!
//! The kind is found by comparing the type with each that has a way of its own; the compiler does that, and nothing of
//! it is left in the program.

use super::Value;
use super::plain::for_numbers;
use crate::array;
use crate::error::Error;
use std::any::Any;
use std::cell::Cell;

/// The bytes of a value, in pieces that follow one another.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) tail: &'a [u8],
}

impl<'a> Pieces<'a> {
    pub(crate) fn whole(body: &'a [u8]) -> Self {
        Self { head: &[], body, tail: &[] }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Its only piece, if it is one.
    pub(crate) fn single(&self) -> Option<&'a [u8]> {
        (self.head.is_empty() && self.tail.is_empty()).then_some(self.body)
    }

    /// Copies them to `place`, which has their length.
    pub(crate) fn copy_to(&self, place: &mut [u8]) {
        let (head, rest) = place.split_at_mut(self.head.len());
        let (body, tail) = rest.split_at_mut(self.body.len());
        head.copy_from_slice(self.head);
        body.copy_from_slice(self.body);
        tail.copy_from_slice(self.tail);
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        [self.head, self.body, self.tail].concat()
    }
}

/// Why bytes are no value.
#[derive(Debug)]
pub(crate) enum DecodeError {
    Length,
    Text,
    Header(&'static str),
    Postcard(postcard::Error),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length => f.write_str("the length is another"),
            Self::Text => f.write_str("the text is no UTF-8"),
            Self::Header(what) => f.write_str(what),
            Self::Postcard(error) => error.fmt(f),
        }
    }
}

/// Calls `use_bytes` with the bytes of a value.
#[inline]
pub(crate) fn encode<V: Value, R>(value: &V, use_bytes: impl FnOnce(Pieces<'_>) -> R) -> Result<R, Error> {
    if let Some(bytes) = as_it_lies(value) {
        return Ok(use_bytes(Pieces::whole(bytes)));
    }
    if array::may_be::<V>() {
        match array::encode(value) {
            Some(Ok(npy)) => return Ok(use_bytes(npy.pieces())),
            Some(Err(reason)) => return Err(failed::<V>(reason)),
            None => {}
        }
    }
    with_postcard(value, |bytes| use_bytes(Pieces::whole(bytes)))
}

/// The value that has these bytes.
#[inline]
pub(crate) fn decode<V: Value>(bytes: &[u8]) -> Result<V, DecodeError> {
    let mut slot: Option<V> = None;
    if let Some(read) = read_as_it_lies(&mut slot, bytes) {
        read?;
    } else if array::may_be::<V>()
        && let Some(read) = array::decode(&mut slot, bytes)
    {
        read.map_err(DecodeError::Header)?;
    } else {
        return match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(DecodeError::Length),
            Err(error) => Err(DecodeError::Postcard(error)),
        };
    }
    Ok(slot.expect("what was read is there"))
}

/// The memory of a number, a text, or a `Vec` of numbers.
#[inline(always)]
fn as_it_lies<V: 'static>(value: &V) -> Option<&[u8]> {
    let value: &dyn Any = value;
    macro_rules! numbers {
        ($($number:ty, $npy:expr, $add:expr;)*) => {
            $(
                if let Some(number) = value.downcast_ref::<$number>() {
                    return Some(bytemuck::bytes_of(number));
                }
                if let Some(numbers) = value.downcast_ref::<Vec<$number>>() {
                    return Some(bytemuck::cast_slice(numbers));
                }
            )*
        };
    }
    for_numbers! { numbers }
    value.downcast_ref::<String>().map(String::as_bytes)
}

/// Reads into `slot` what `as_it_lies` gave; `None` if the type is another.
#[inline(always)]
fn read_as_it_lies<V: 'static>(slot: &mut Option<V>, bytes: &[u8]) -> Option<Result<(), DecodeError>> {
    let slot: &mut dyn Any = slot;
    macro_rules! numbers {
        ($($number:ty, $npy:expr, $add:expr;)*) => {
            $(
                if let Some(slot) = slot.downcast_mut::<Option<$number>>() {
                    *slot = bytemuck::try_pod_read_unaligned(bytes).ok();
                    return Some(slot.map_or(Err(DecodeError::Length), |_| Ok(())));
                }
                if let Some(slot) = slot.downcast_mut::<Option<Vec<$number>>>() {
                    *slot = read_numbers(bytes);
                    return Some(if slot.is_some() { Ok(()) } else { Err(DecodeError::Length) });
                }
            )*
        };
    }
    for_numbers! { numbers }
    let slot = slot.downcast_mut::<Option<String>>()?;
    *slot = std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some(if slot.is_some() { Ok(()) } else { Err(DecodeError::Text) })
}

fn read_numbers<N: bytemuck::Pod>(bytes: &[u8]) -> Option<Vec<N>> {
    bytes.len().is_multiple_of(size_of::<N>()).then(|| bytemuck::pod_collect_to_vec(bytes))
}

/// Bytes of a scratch buffer that a thread keeps.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

fn with_postcard<V: Value, R>(value: &V, use_bytes: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // Taken, not borrowed: the type's own `Serialize` may use a dictionary.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let bytes = postcard::to_extend(value, scratch).map_err(|error| failed::<V>(&error.to_string()))?;
    let result = use_bytes(&bytes);
    if bytes.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(bytes);
    }
    Ok(result)
}

#[cold]
fn failed<V>(reason: &str) -> Error {
    Error::Encode {
        what: "value",
        type_name: std::any::type_name::<V>().to_owned(),
        reason: reason.to_owned(),
    }
}
