//! A value → the type that somebody wants of it.

use super::{Kind, Value, short_name};
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::any::Any;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use tarragon_engine::{Data, Given, Handle};

/// Why a value is not what somebody wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(pub(crate) String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl serde::de::Error for Mismatch {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

impl Mismatch {
    pub(crate) fn wanted<T>(value: &Value) -> Self {
        let wanted = short_name(std::any::type_name::<T>());
        match &value.0 {
            Kind::Shared(shared) => {
                Self(format!("a value of type {} cannot be {wanted}", shared.type_name()))
            }
            Kind::Result(result) => {
                Self(format!("a result of type {} cannot be {wanted}", result.type_name()))
            }
            _ => Self(format!("{} cannot be {wanted}", value.kind())),
        }
    }
}

/// A value as an argument for a parameter of type `T`. Only plain data is copied.
pub(crate) fn given<T: Data>(value: &Value) -> Result<Given<T>, Mismatch> {
    match &value.0 {
        Kind::Shared(shared) => {
            let shared = Arc::clone(&shared.value).downcast::<T>();
            shared.map(Given::Value).map_err(|_| Mismatch::wanted::<T>(value))
        }
        Kind::Result(result) => {
            let handle = result.as_any().downcast_ref::<Handle<T>>();
            handle.map(|handle| Given::ResultOf(handle.clone())).ok_or_else(|| Mismatch::wanted::<T>(value))
        }
        Kind::Output(stream) if is_text::<T>() => Ok(Given::Output(stream.clone())),
        Kind::Dictionary(dictionary) => given(&dictionary.descriptor()),
        _ => Ok(Given::Value(Arc::new(plain(value)?))),
    }
}

fn is_text<T: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<String>()
}

/// A value that is there now: the program's own, or one made from plain data.
#[doc(hidden)]
pub enum Kept<T> {
    /// Made from plain data.
    Own(T),
    /// The program's own.
    Shared(Arc<T>),
}

/// A value as one that is there now.
pub(crate) fn owned<T: Data>(value: &Value) -> Result<Kept<T>, Mismatch> {
    match &value.0 {
        Kind::Result(_) | Kind::Output(_) => {
            Err(Mismatch(format!("{} is not there when the task is made", value.kind())))
        }
        Kind::Shared(shared) => {
            let shared = Arc::clone(&shared.value).downcast::<T>();
            shared.map(Kept::Shared).map_err(|_| Mismatch::wanted::<T>(value))
        }
        Kind::Dictionary(dictionary) => owned(&dictionary.descriptor()),
        _ => plain(value).map(Kept::Own),
    }
}

/// Plain data as a type: the common ones without serde.
fn plain<T: Data>(value: &Value) -> Result<T, Mismatch> {
    macro_rules! quick {
        ($it:expr => $($t:ty)*) => {{
            $(
                let mut slot = None::<T>;
                if let Some(slot) = (&mut slot as &mut dyn Any).downcast_mut::<Option<$t>>() {
                    *slot = <$t>::try_from($it).ok();
                }
                if let Some(it) = slot {
                    return Ok(it);
                }
            )*
        }};
    }
    match value.plain() {
        Kind::Int(it) => quick!(*it => u64 i64 usize u32 i32),
        Kind::Text(it) => quick!(&**it => String PathBuf),
        Kind::Path(it) => quick!(it.as_os_str() => PathBuf),
        _ => {}
    }
    T::deserialize(value).map_err(|error| {
        let wanted = short_name(std::any::type_name::<T>());
        Mismatch(format!("{} cannot be {wanted}: {error}", value.kind()))
    })
}

impl<'de> Deserializer<'de> for &Value {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.plain() {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(it) => visitor.visit_bool(*it),
            Kind::Int(it) => match (i64::try_from(*it), u64::try_from(*it)) {
                (Ok(it), _) => visitor.visit_i64(it),
                (_, Ok(it)) => visitor.visit_u64(it),
                _ => visitor.visit_i128(*it),
            },
            Kind::Float(it) => visitor.visit_f64(*it),
            Kind::Text(it) => visitor.visit_str(it),
            Kind::Path(it) => match it.to_str() {
                Some(text) => visitor.visit_str(text),
                None => visitor.visit_bytes(it.as_os_str().as_bytes()),
            },
            Kind::List(it) => visitor.visit_seq(SeqDeserializer::new(it.iter())),
            Kind::Mapping(it) => visitor.visit_map(MapDeserializer::new(it.iter().map(|(k, v)| (&**k, v)))),
            _ => Err(Mismatch(format!("{} is no plain data", self.kind()))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if matches!(self.0, Kind::Null) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.plain() {
            Kind::Text(it) => visitor.visit_enum((&**it).into_deserializer()),
            Kind::Mapping(it) => {
                let entries = MapDeserializer::new(it.iter().map(|(k, v)| (&**k, v)));
                MapAccessDeserializer::new(entries).deserialize_enum(name, variants, visitor)
            }
            _ => Err(Mismatch(format!("{} is no variant of {name}", self.kind()))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for &Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Reads it as a type, through serde.
impl Value {
    /// The value as plain data of a type.
    ///
    /// # Errors
    /// If it is no plain data, or does not fit.
    pub fn to<T: Data>(&self) -> Result<T, Mismatch> {
        match owned::<T>(self)? {
            Kept::Own(value) => Ok(value),
            Kept::Shared(shared) => {
                tarragon_engine::typed::copied(&*shared).ok_or_else(|| Mismatch::wanted::<T>(self))
            }
        }
    }
}
