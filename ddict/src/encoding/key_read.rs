//! Bytes back to keys: the other side of `key`.

use super::key::{ELEMENT, END, TEXT_END, TEXT_ZERO};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Visitor};
use std::fmt;

/// The key that has these bytes, or what is wrong with them.
pub(crate) fn read_key<K: DeserializeOwned>(bytes: &[u8]) -> Result<K, String> {
    let mut reader = Reader { rest: bytes, whole: true };
    let key = K::deserialize(&mut reader).map_err(|error| error.0)?;
    if reader.rest.is_empty() { Ok(key) } else { Err(format!("{} bytes too many", reader.rest.len())) }
}

/// What is wrong with the bytes.
#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

fn wrong<T>(reason: &str) -> Result<T, Wrong> {
    Err(Wrong(reason.to_owned()))
}

/// What is left of a key; `whole`: nothing was read yet, so a text or sequence reaches to the end.
struct Reader<'de> {
    rest: &'de [u8],
    whole: bool,
}

impl<'de> Reader<'de> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        self.whole = false;
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else { return wrong("it is too short") };
        self.rest = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// Whether this is the start of the key. It is asked once.
    fn is_whole(&mut self) -> bool {
        std::mem::take(&mut self.whole)
    }

    fn text(&mut self) -> Result<Vec<u8>, Wrong> {
        if self.is_whole() {
            return Ok(std::mem::take(&mut self.rest).to_vec());
        }
        let mut text = Vec::new();
        loop {
            let Some(zero) = self.rest.iter().position(|&byte| byte == 0) else {
                return wrong("a text has no end");
            };
            text.extend_from_slice(&self.rest[..zero]);
            self.rest = &self.rest[zero..];
            match self.take::<2>()? {
                TEXT_END => return Ok(text),
                TEXT_ZERO => text.push(0),
                _ => return wrong("a text has a zero in it"),
            }
        }
    }

    fn string(&mut self) -> Result<String, Wrong> {
        String::from_utf8(self.text()?).map_err(|error| Wrong(error.to_string()))
    }

    fn flag(&mut self, what: &str) -> Result<bool, Wrong> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => wrong(what),
        }
    }
}

/// Numbers: how each is read.
macro_rules! numbers {
    ($($method:ident, $visit:ident, |$bytes:ident: $width:literal| $value:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let $bytes = self.take::<$width>()?;
            visitor.$visit($value)
        })*
    };
}

/// The signed number that stands as an unsigned one in the same order.
macro_rules! signed {
    ($bytes:expr, $unsigned:ty, $signed:ty) => {
        (<$unsigned>::from_be_bytes($bytes) ^ (1 << (<$unsigned>::BITS - 1))) as $signed
    };
}

/// The float that stands as a number in the same order.
macro_rules! float {
    ($bytes:expr, $unsigned:ty, $float:ty) => {{
        let bits = <$unsigned>::from_be_bytes($bytes);
        let was_negative = bits >> (<$unsigned>::BITS - 1) == 0;
        <$float>::from_bits(if was_negative { !bits } else { bits ^ (1 << (<$unsigned>::BITS - 1)) })
    }};
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Wrong;

    numbers! {
        deserialize_u8, visit_u8, |bytes: 1| bytes[0];
        deserialize_u16, visit_u16, |bytes: 2| u16::from_be_bytes(bytes);
        deserialize_u32, visit_u32, |bytes: 4| u32::from_be_bytes(bytes);
        deserialize_u64, visit_u64, |bytes: 8| u64::from_be_bytes(bytes);
        deserialize_u128, visit_u128, |bytes: 16| u128::from_be_bytes(bytes);
        deserialize_i8, visit_i8, |bytes: 1| signed!(bytes, u8, i8);
        deserialize_i16, visit_i16, |bytes: 2| signed!(bytes, u16, i16);
        deserialize_i32, visit_i32, |bytes: 4| signed!(bytes, u32, i32);
        deserialize_i64, visit_i64, |bytes: 8| signed!(bytes, u64, i64);
        deserialize_i128, visit_i128, |bytes: 16| signed!(bytes, u128, i128);
        deserialize_f32, visit_f32, |bytes: 4| float!(bytes, u32, f32);
        deserialize_f64, visit_f64, |bytes: 8| float!(bytes, u64, f64);
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_bool(self.flag("a bool is neither 0 nor 1")?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match char::from_u32(u32::from_be_bytes(self.take::<4>()?)) {
            Some(value) => visitor.visit_char(value),
            None => wrong("a number is no char"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_string(self.string()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_string(self.string()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_byte_buf(self.text()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_byte_buf(self.text()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.flag("an option is neither there nor not")? {
            visitor.visit_some(self)
        } else {
            visitor.visit_none()
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let until = if self.is_whole() { Until::Empty } else { Until::Marked };
        visitor.visit_seq(Elements { reader: self, until })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.whole = false;
        visitor.visit_seq(Elements { reader: self, until: Until::Counted(len) })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.whole = false;
        visitor.visit_map(Elements { reader: self, until: Until::Marked })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_u32(u32::from(u16::from_be_bytes(self.take::<2>()?)))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
        wrong("the type wants to know what it is from the bytes alone")
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Where a sequence ends.
enum Until {
    Empty,
    Marked,
    Counted(usize),
}

/// The elements of a sequence, tuple or map.
struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    until: Until,
}

impl Elements<'_, '_> {
    fn has_next(&mut self) -> Result<bool, Wrong> {
        match &mut self.until {
            Until::Empty => Ok(!self.reader.rest.is_empty()),
            Until::Counted(0) => Ok(false),
            Until::Counted(left) => {
                *left -= 1;
                Ok(true)
            }
            Until::Marked => match self.reader.byte()? {
                ELEMENT => Ok(true),
                END => Ok(false),
                _ => wrong("a sequence has no end"),
            },
        }
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let left = self.reader.rest.len();
        if !self.has_next()? {
            return Ok(None);
        }
        let element = seed.deserialize(&mut *self.reader)?;
        if matches!(self.until, Until::Empty) && self.reader.rest.len() == left {
            return wrong("an element has no bytes");
        }
        Ok(Some(element))
    }

    fn size_hint(&self) -> Option<usize> {
        if let Until::Counted(left) = self.until { Some(left) } else { None }
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = Wrong;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        if self.has_next()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> de::EnumAccess<'de> for &mut Reader<'de> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Wrong> {
        let value = seed.deserialize(&mut *self)?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Reader<'de> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Wrong> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Wrong> {
        de::Deserializer::deserialize_tuple(self, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        de::Deserializer::deserialize_tuple(self, fields.len(), visitor)
    }
}
