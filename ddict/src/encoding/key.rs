//! Keys to bytes: canonical (equal keys, equal bytes) and ordered (the bytes compare as the keys do, where the parts of
//! a key are compared in turn, as derived `Ord`s do).
//!
//! | part | bytes |
//! |---|---|
//! | unsigned, `char` | big-endian, as wide as it is |
//! | signed; float | the same, with the sign bit turned; a negative float with all bits turned |
//! | `bool` | 0 or 1 |
//! | text, bytes | as they are; inside another part with 0 as (0, 255) and (0, 1) at the end |
//! | sequence | its elements; inside another part a 1 before each and a 0 at the end |
//! | tuple, struct, array | its elements |
//! | option | 0, or 1 and the value |
//! | variant | its number in 2 bytes, then its content |
//! | map | as a sequence of pairs, sorted by the bytes of the keys |
//!
//! A key that is one text, one number or one run of bytes reaches the dictionary without a copy; others are put
//! together in 64 bytes on the stack, or on the heap if they are longer.
//!
//! *Source*: the idea of the tuple layer of FoundationDB, design/tuple.md.

use crate::error::Error;
use crate::store::KEY_BYTES_MAX;
use serde::ser::{self, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// Bytes of a key that need no heap.
const INLINE_BYTES: usize = 64;
/// After a text inside another part.
pub(super) const TEXT_END: [u8; 2] = [0, 1];
/// A zero byte of a text inside another part.
pub(super) const TEXT_ZERO: [u8; 2] = [0, 255];
/// Before each element of a sequence inside another part.
pub(super) const ELEMENT: u8 = 1;
/// After the last of them.
pub(super) const END: u8 = 0;

/// Calls `use_bytes` with the bytes of a key.
///
/// # Errors
/// `KeyTooLong`, and `Encode` for what has no canonical bytes.
#[inline]
pub(crate) fn with_key<Q, R>(key: &Q, use_bytes: impl FnOnce(&[u8]) -> R) -> Result<R, Error>
where
    Q: Serialize + ?Sized,
{
    match key.serialize(Whole { use_bytes, result: PhantomData }) {
        Ok(result) => Ok(result),
        Err(reason) => Err(failed(&reason, std::any::type_name::<Q>())),
    }
}

#[cold]
fn failed(reason: &KeyError, type_name: &str) -> Error {
    match reason {
        KeyError::TooLong(bytes) => Error::KeyTooLong { bytes: *bytes, max: KEY_BYTES_MAX as u64 },
        other => Error::Encode { what: "key", type_name: type_name.to_owned(), reason: other.to_string() },
    }
}

/// A key for people: text as text, else hexadecimal; shortened.
pub(crate) fn show(key: &[u8]) -> String {
    const SHOWN_MAX: usize = 48;
    let head = &key[..key.len().min(SHOWN_MAX)];
    let dots = if key.len() > SHOWN_MAX { "…" } else { "" };
    let valid = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && key.len() > SHOWN_MAX => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match valid.filter(|text| !text.is_empty() && !text.chars().any(char::is_control)) {
        Some(text) => format!("`{text}{dots}`"),
        None => {
            let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("0x{hex}{dots}")
        }
    }
}

/// Why a key has no bytes.
#[derive(Debug)]
pub(super) enum KeyError {
    /// What its `Serialize` says.
    Custom(String),
    TooLong(u64),
    /// Elements without bytes cannot be counted.
    EmptyElement,
    TwiceInMap,
    Variant(u32),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Custom(reason) => f.write_str(reason),
            Self::TooLong(bytes) => write!(f, "{bytes} bytes are too many"),
            Self::EmptyElement => f.write_str("it is a sequence whose elements have no bytes"),
            Self::TwiceInMap => f.write_str("a map in it has one key twice"),
            Self::Variant(index) => write!(f, "variant {index} of an enum: at most 65536 are allowed"),
        }
    }
}

impl std::error::Error for KeyError {}

impl ser::Error for KeyError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::Custom(reason.to_string())
    }
}

/// Bytes that are put together. Counts what is beyond the longest key, but does not keep it.
struct Buffer {
    inline: [u8; INLINE_BYTES],
    heap: Vec<u8>,
    bytes: u64,
}

impl Buffer {
    fn new() -> Self {
        Self { inline: [0; INLINE_BYTES], heap: Vec::new(), bytes: 0 }
    }

    #[inline]
    fn push(&mut self, more: &[u8]) {
        let start = self.bytes;
        self.bytes += more.len() as u64;
        if self.bytes <= INLINE_BYTES as u64 {
            self.inline[start as usize..self.bytes as usize].copy_from_slice(more);
        } else if self.bytes <= KEY_BYTES_MAX as u64 {
            if self.heap.is_empty() {
                self.heap.extend_from_slice(&self.inline[..start as usize]);
            }
            self.heap.extend_from_slice(more);
        }
    }

    /// Text or bytes inside another part.
    fn push_text(&mut self, text: &[u8]) {
        for (index, piece) in text.split(|&byte| byte == 0).enumerate() {
            if index > 0 {
                self.push(&TEXT_ZERO);
            }
            self.push(piece);
        }
        self.push(&TEXT_END);
    }

    fn push_variant(&mut self, index: u32) -> Result<(), KeyError> {
        let index = u16::try_from(index).map_err(|_| KeyError::Variant(index))?;
        self.push(&index.to_be_bytes());
        Ok(())
    }

    fn bytes(&self) -> Result<&[u8], KeyError> {
        if self.bytes <= INLINE_BYTES as u64 {
            Ok(&self.inline[..self.bytes as usize])
        } else if self.bytes <= KEY_BYTES_MAX as u64 {
            Ok(&self.heap)
        } else {
            Err(KeyError::TooLong(self.bytes))
        }
    }
}

/// The whole key: its bytes go to a function.
struct Whole<F, R> {
    use_bytes: F,
    result: PhantomData<R>,
}

impl<R, F: FnOnce(&[u8]) -> R> Whole<F, R> {
    #[inline]
    fn is(self, bytes: &[u8]) -> Result<R, KeyError> {
        Ok((self.use_bytes)(bytes))
    }

    fn parts(self, map: bool, may_be_empty: bool) -> Parts<F, R> {
        Parts { whole: self, buffer: Buffer::new(), entries: map.then(Entries::default), may_be_empty }
    }
}

/// A whole key that has parts.
struct Parts<F, R> {
    whole: Whole<F, R>,
    buffer: Buffer,
    entries: Option<Entries>,
    may_be_empty: bool,
}

impl<R, F: FnOnce(&[u8]) -> R> Parts<F, R> {
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        let before = self.buffer.bytes;
        value.serialize(Part { buffer: &mut self.buffer })?;
        let is_empty = self.buffer.bytes == before && !self.may_be_empty;
        if is_empty { Err(KeyError::EmptyElement) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<R, KeyError> {
        if let Some(entries) = self.entries {
            entries.write(&mut self.buffer)?;
        }
        self.whole.is(self.buffer.bytes()?)
    }
}

/// Entries of a map, to be sorted.
#[derive(Default)]
struct Entries {
    key: Option<Vec<u8>>,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entries {
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), KeyError> {
        self.key = Some(apart(key)?);
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        let key = self.key.take().expect("serde gives a key before each value");
        self.pairs.push((key, apart(value)?));
        Ok(())
    }

    fn write(mut self, buffer: &mut Buffer) -> Result<(), KeyError> {
        self.pairs.sort_unstable();
        if self.pairs.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err(KeyError::TwiceInMap);
        }
        for (key, value) in &self.pairs {
            buffer.push(&[ELEMENT]);
            buffer.push(key);
            buffer.push(value);
        }
        buffer.push(&[END]);
        Ok(())
    }
}

fn apart<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, KeyError> {
    let mut buffer = Buffer::new();
    value.serialize(Part { buffer: &mut buffer })?;
    Ok(buffer.bytes()?.to_vec())
}

/// A part of a key.
struct Part<'b> {
    buffer: &'b mut Buffer,
}

impl<'b> Part<'b> {
    #[inline]
    fn is(self, bytes: &[u8]) -> Result<(), KeyError> {
        self.buffer.push(bytes);
        Ok(())
    }

    fn parts(self, marks: bool, map: bool) -> PartParts<'b> {
        PartParts { buffer: self.buffer, marks, entries: map.then(Entries::default) }
    }
}

/// A part that has parts.
struct PartParts<'b> {
    buffer: &'b mut Buffer,
    marks: bool,
    entries: Option<Entries>,
}

impl PartParts<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        if self.marks {
            self.buffer.push(&[ELEMENT]);
        }
        value.serialize(Part { buffer: self.buffer })
    }

    fn finish(self) -> Result<(), KeyError> {
        if self.marks {
            self.buffer.push(&[END]);
        }
        self.entries.map_or(Ok(()), |entries| entries.write(self.buffer))
    }
}

/// A signed number as the unsigned one in the same order.
macro_rules! signed {
    ($value:expr, $unsigned:ty) => {
        (($value as $unsigned) ^ (1 << (<$unsigned>::BITS - 1))).to_be_bytes()
    };
}

/// A float's bits as a number in the same order (-0 before 0, NaNs at the ends).
macro_rules! float {
    ($value:expr, $bits:ty) => {{
        let bits = $value.to_bits();
        let is_negative = bits >> (<$bits>::BITS - 1) == 1;
        (if is_negative { !bits } else { bits ^ (1 << (<$bits>::BITS - 1)) }).to_be_bytes()
    }};
}

/// The methods of `Serializer` that are alike for a whole key and for a part of one.
macro_rules! plain_parts {
    () => {
        plain_parts! { numbers
            serialize_bool(bool) |v| [u8::from(v)];
            serialize_u8(u8) |v| [v];
            serialize_u16(u16) |v| v.to_be_bytes();
            serialize_u32(u32) |v| v.to_be_bytes();
            serialize_u64(u64) |v| v.to_be_bytes();
            serialize_u128(u128) |v| v.to_be_bytes();
            serialize_char(char) |v| u32::from(v).to_be_bytes();
            serialize_i8(i8) |v| signed!(v, u8);
            serialize_i16(i16) |v| signed!(v, u16);
            serialize_i32(i32) |v| signed!(v, u32);
            serialize_i64(i64) |v| signed!(v, u64);
            serialize_i128(i128) |v| signed!(v, u128);
            serialize_f32(f32) |v| float!(v, u32);
            serialize_f64(f64) |v| float!(v, u64);
        }

        fn serialize_none(self) -> Result<Self::Ok, KeyError> {
            self.is(&[0])
        }

        fn serialize_unit(self) -> Result<Self::Ok, KeyError> {
            self.is(&[])
        }

        fn serialize_unit_struct(self, _: &'static str) -> Result<Self::Ok, KeyError> {
            self.is(&[])
        }

        fn serialize_unit_variant(
            self,
            _: &'static str,
            index: u32,
            _: &'static str,
        ) -> Result<Self::Ok, KeyError> {
            let index = u16::try_from(index).map_err(|_| KeyError::Variant(index))?;
            self.is(&index.to_be_bytes())
        }

        #[inline]
        fn serialize_newtype_struct<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            value: &T,
        ) -> Result<Self::Ok, KeyError> {
            value.serialize(self)
        }

        fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Self::SerializeTuple, KeyError> {
            self.serialize_tuple(len)
        }

        fn serialize_struct(self, _: &'static str, len: usize) -> Result<Self::SerializeTuple, KeyError> {
            self.serialize_tuple(len)
        }

        fn serialize_struct_variant(
            self,
            name: &'static str,
            index: u32,
            variant: &'static str,
            len: usize,
        ) -> Result<Self::SerializeTuple, KeyError> {
            self.serialize_tuple_variant(name, index, variant, len)
        }

        fn is_human_readable(&self) -> bool {
            false
        }
    };
    (numbers $($name:ident($kind:ty) |$v:ident| $bytes:expr;)*) => {
        $(#[inline]
        fn $name(self, $v: $kind) -> Result<Self::Ok, KeyError> {
            self.is(&$bytes)
        })*
    };
}

/// All of serde's compounds, which are alike but for the names of their methods.
macro_rules! compounds {
    ([$($generics:tt)*] $name:ty, $ok:ty) => {
        compounds! { one [$($generics)*] $name, $ok, SerializeSeq, serialize_element }
        compounds! { one [$($generics)*] $name, $ok, SerializeTuple, serialize_element }
        compounds! { one [$($generics)*] $name, $ok, SerializeTupleStruct, serialize_field }
        compounds! { one [$($generics)*] $name, $ok, SerializeTupleVariant, serialize_field }
        compounds! { named [$($generics)*] $name, $ok, SerializeStruct }
        compounds! { named [$($generics)*] $name, $ok, SerializeStructVariant }

        impl<$($generics)*> ser::SerializeMap for $name {
            type Ok = $ok;
            type Error = KeyError;

            fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), KeyError> {
                self.entries.as_mut().expect("it was begun as a map").key(key)
            }

            fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
                self.entries.as_mut().expect("it was begun as a map").value(value)
            }

            fn end(self) -> Result<$ok, KeyError> {
                self.finish()
            }
        }
    };
    (one [$($generics:tt)*] $name:ty, $ok:ty, $kind:ident, $method:ident) => {
        impl<$($generics)*> ser::$kind for $name {
            type Ok = $ok;
            type Error = KeyError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
                self.part(value)
            }

            fn end(self) -> Result<$ok, KeyError> {
                self.finish()
            }
        }
    };
    (named [$($generics:tt)*] $name:ty, $ok:ty, $kind:ident) => {
        impl<$($generics)*> ser::$kind for $name {
            type Ok = $ok;
            type Error = KeyError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), KeyError> {
                self.part(value)
            }

            fn end(self) -> Result<$ok, KeyError> {
                self.finish()
            }
        }
    };
}

compounds! { [R, F: FnOnce(&[u8]) -> R] Parts<F, R>, R }
compounds! { ['b] PartParts<'b>, () }

impl<R, F: FnOnce(&[u8]) -> R> ser::Serializer for Whole<F, R> {
    type Ok = R;
    type Error = KeyError;
    type SerializeSeq = Parts<F, R>;
    type SerializeTuple = Parts<F, R>;
    type SerializeTupleStruct = Parts<F, R>;
    type SerializeTupleVariant = Parts<F, R>;
    type SerializeMap = Parts<F, R>;
    type SerializeStruct = Parts<F, R>;
    type SerializeStructVariant = Parts<F, R>;

    plain_parts! {}

    #[inline]
    fn serialize_str(self, text: &str) -> Result<R, KeyError> {
        self.is(text.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> Result<R, KeyError> {
        self.is(bytes)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<R, KeyError> {
        let mut parts = self.parts(false, true);
        parts.buffer.push(&[1]);
        parts.part(value)?;
        parts.finish()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<R, KeyError> {
        let mut parts = self.parts(false, true);
        parts.buffer.push_variant(index)?;
        parts.part(value)?;
        parts.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<F, R>, KeyError> {
        Ok(self.parts(false, false))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<F, R>, KeyError> {
        Ok(self.parts(false, true))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<F, R>, KeyError> {
        let mut parts = self.parts(false, true);
        parts.buffer.push_variant(index)?;
        Ok(parts)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<F, R>, KeyError> {
        Ok(self.parts(true, true))
    }
}

impl<'b> ser::Serializer for Part<'b> {
    type Ok = ();
    type Error = KeyError;
    type SerializeSeq = PartParts<'b>;
    type SerializeTuple = PartParts<'b>;
    type SerializeTupleStruct = PartParts<'b>;
    type SerializeTupleVariant = PartParts<'b>;
    type SerializeMap = PartParts<'b>;
    type SerializeStruct = PartParts<'b>;
    type SerializeStructVariant = PartParts<'b>;

    plain_parts! {}

    fn serialize_str(self, text: &str) -> Result<(), KeyError> {
        self.buffer.push_text(text.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), KeyError> {
        self.buffer.push_text(bytes);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), KeyError> {
        self.buffer.push(&[1]);
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.buffer.push_variant(index)?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<PartParts<'b>, KeyError> {
        Ok(self.parts(true, false))
    }

    fn serialize_tuple(self, _: usize) -> Result<PartParts<'b>, KeyError> {
        Ok(self.parts(false, false))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<PartParts<'b>, KeyError> {
        self.buffer.push_variant(index)?;
        Ok(self.parts(false, false))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<PartParts<'b>, KeyError> {
        Ok(self.parts(false, true))
    }
}
