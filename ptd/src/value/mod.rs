//! What a name of a template can stand for: plain data, values of a program's own types, results of other tasks,
//! functions, selectors and dictionaries.
//!
//! A [`Value`] is cheap to clone: what is large lies behind an `Arc`. It gets the type that a function's parameter has
//! at the edge, when a task is made: plain data through serde, a value of the program's own type only as that type.

mod builtin;
mod convert;
mod dictionary;
mod format;
mod from;
mod function;
mod produced;
mod selector;
mod signature;
mod word;

pub(crate) use builtin::{BUILTINS, Builtin};
pub use convert::{Kept, Mismatch};
pub use dictionary::Dictionary;
pub(crate) use format::Format;
pub use function::{TaskFunction, function, try_function};
pub(crate) use produced::Produced;
pub(crate) use selector::Refused;
pub use selector::{Callee, Select, Selected, Selector, selector};
pub use signature::{Borrowed, Fits, Parameter, Parameters, Signature, Types};
pub(crate) use word::Word;

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use tarragon_engine::{Data, Stream};

/// What a name stands for, or an argument is.
#[derive(Clone)]
pub struct Value(pub(crate) Kind);

/// The kinds of value.
#[derive(Clone)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// A number whose text is not the one that it would be shown as.
    Written(Arc<(Kind, Box<str>)>),
    Text(Arc<str>),
    Path(Arc<Path>),
    List(Arc<[Value]>),
    /// In the order in which it was given.
    Mapping(Arc<[(Arc<str>, Value)]>),
    /// A value of the program's own type.
    Shared(Shared),
    /// Another task's result.
    Result(Arc<dyn Produced>),
    /// What another task writes.
    Output(Stream),
    Function(Arc<TaskFunction>),
    Selector(Arc<Selector>),
    Dictionary(Arc<dyn Dictionary>),
}

/// A value of any type, and what the type is called.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) value: Arc<dyn Any + Send + Sync>,
    /// As the compiler calls it; made shorter where it is shown, which is rare.
    type_name: &'static str,
}

impl Shared {
    /// What the type is called.
    pub(crate) fn type_name(&self) -> &'static str {
        short_name(self.type_name)
    }
}

impl Value {
    /// Nothing.
    pub const NULL: Self = Self(Kind::Null);

    /// A value of a program's own type, for a parameter of that type, or one that borrows it. Nothing is copied: all
    /// tasks that get it share it. An `Arc` of it is a value by itself.
    pub fn shared<T: Data>(value: T) -> Self {
        Self::of_arc(Arc::new(value))
    }

    pub(crate) fn of_arc<T: Send + Sync + 'static>(value: Arc<T>) -> Self {
        Self(Kind::Shared(Shared { value, type_name: std::any::type_name::<T>() }))
    }

    /// A dictionary, whose keys tasks read and write.
    pub fn dictionary(dictionary: Arc<dyn Dictionary>) -> Self {
        Self(Kind::Dictionary(dictionary))
    }

    /// Text, read as YAML reads a plain word: `3` is a number, `true` a bool, all else text. For command lines.
    pub fn of_word(text: &str) -> Self {
        Self::of_scalar(text, true)
    }

    pub(crate) fn of_scalar(text: &str, is_plain: bool) -> Self {
        use crate::parse::{Scalar, resolve};
        let kind = match resolve(text, is_plain) {
            Scalar::Null => Kind::Null,
            Scalar::Bool(it) => Kind::Bool(it),
            Scalar::Int(it) => Kind::Int(it),
            Scalar::Float(it) => Kind::Float(it),
            Scalar::Text => Kind::Text(text.into()),
        };
        match &kind {
            Kind::Int(it) if it.to_string() != text => Self(Kind::Written(Arc::new((kind, text.into())))),
            Kind::Float(it) if it.to_string() != text => Self(Kind::Written(Arc::new((kind, text.into())))),
            _ => Self(kind),
        }
    }

    pub(crate) fn mapping(entries: Vec<(Arc<str>, Value)>) -> Self {
        Self(Kind::Mapping(entries.into()))
    }

    pub(crate) fn list(values: Vec<Value>) -> Self {
        Self(Kind::List(values.into()))
    }

    /// The number behind one that was written in another way.
    pub(crate) fn plain(&self) -> &Kind {
        match &self.0 {
            Kind::Written(written) => &written.0,
            kind => kind,
        }
    }

    /// What it is, in a word for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self.plain() {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a bool",
            Kind::Int(_) | Kind::Written(_) => "an integer",
            Kind::Float(_) => "a number",
            Kind::Text(_) => "text",
            Kind::Path(_) => "a path",
            Kind::List(_) => "a list",
            Kind::Mapping(_) => "a mapping",
            Kind::Shared(_) => "a value of the program's own type",
            Kind::Result(_) => "a task's result",
            Kind::Output(_) => "a task's output",
            Kind::Function(_) => "a function",
            Kind::Selector(_) => "a selector",
            Kind::Dictionary(_) => "a dictionary",
        }
    }

    /// It as a number, if it is one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self.plain() {
            Kind::Int(it) => Some(*it as f64),
            Kind::Float(it) => Some(*it),
            _ => None,
        }
    }

    /// It as a whole number, if it is one.
    pub(crate) fn integer(&self) -> Option<i128> {
        match self.plain() {
            Kind::Int(it) => Some(*it),
            Kind::Float(it) if it.fract() == 0.0 && it.abs() < 1e15 => Some(*it as i128),
            _ => None,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Null => f.write_str("null"),
            Kind::Bool(it) => write!(f, "{it}"),
            Kind::Int(it) => write!(f, "{it}"),
            Kind::Float(it) => write!(f, "{it}"),
            Kind::Written(written) => f.write_str(&written.1),
            Kind::Text(it) => write!(f, "{it:?}"),
            Kind::Path(it) => write!(f, "{it:?}"),
            Kind::List(it) => f.debug_list().entries(it.iter()).finish(),
            Kind::Mapping(it) => f.debug_map().entries(it.iter().map(|(k, v)| (k, v))).finish(),
            Kind::Shared(it) => f.write_str(it.type_name()),
            Kind::Result(it) => write!(f, "result of type {}", it.type_name()),
            Kind::Output(_) => f.write_str("output"),
            Kind::Function(it) => write!(f, "{it:?}"),
            Kind::Selector(it) => write!(f, "{it:?}"),
            Kind::Dictionary(it) => f.write_str(&it.name()),
        }
    }
}

impl PartialEq for Value {
    /// Plain data by what it says, everything else by identity.
    fn eq(&self, other: &Self) -> bool {
        match (self.plain(), other.plain()) {
            (Kind::Null, Kind::Null) => true,
            (Kind::Bool(a), Kind::Bool(b)) => a == b,
            (Kind::Int(a), Kind::Int(b)) => a == b,
            (Kind::Float(a), Kind::Float(b)) => a.to_bits() == b.to_bits(),
            (Kind::Text(a), Kind::Text(b)) => a == b,
            (Kind::Path(a), Kind::Path(b)) => a.as_os_str() == b.as_os_str(),
            (Kind::List(a), Kind::List(b)) => a == b,
            (Kind::Mapping(a), Kind::Mapping(b)) => a == b,
            (Kind::Shared(a), Kind::Shared(b)) => Arc::ptr_eq(&a.value, &b.value),
            (Kind::Result(a), Kind::Result(b)) => Arc::ptr_eq(a, b),
            (Kind::Function(a), Kind::Function(b)) => Arc::ptr_eq(a, b),
            (Kind::Selector(a), Kind::Selector(b)) => Arc::ptr_eq(a, b),
            (Kind::Dictionary(a), Kind::Dictionary(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The names of all builtin functions.
pub(crate) fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|(name, ..)| *name)
}

/// A type's name without the paths in it.
pub(crate) fn short_name(name: &'static str) -> &'static str {
    let head = name.find(['<', '(', '[', '&']).unwrap_or(name.len());
    name[..head].rfind("::").map_or(name, |at| &name[at + 2..])
}
