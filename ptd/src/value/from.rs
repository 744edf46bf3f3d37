//! What can be a value, by `Into`.

use super::produced::Produced;
use super::{Kind, Selector, TaskFunction, Value};
use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tarragon_engine::{Data, Handle, Stream, Task};

macro_rules! integers {
    ($($t:ty)*) => {
        $(impl From<$t> for Value {
            fn from(value: $t) -> Self {
                Self(Kind::Int(value as i128))
            }
        })*
    };
}
integers!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize i128);

macro_rules! values {
    ($($t:ty: |$it:ident| $kind:expr;)*) => {
        $(impl From<$t> for Value {
            fn from($it: $t) -> Self {
                Self($kind)
            }
        })*
    };
}
values! {
    f32: |it| Kind::Float(f64::from(it));
    f64: |it| Kind::Float(it);
    bool: |it| Kind::Bool(it);
    (): |_it| Kind::Null;
    &str: |it| Kind::Text(it.into());
    String: |it| Kind::Text(it.into());
    &String: |it| Kind::Text(it.as_str().into());
    &Path: |it| Kind::Path(it.into());
    PathBuf: |it| Kind::Path(it.into());
    &PathBuf: |it| Kind::Path(it.as_path().into());
    Stream: |it| Kind::Output(it);
    &Stream: |it| Kind::Output(it.clone());
    TaskFunction: |it| Kind::Function(Arc::new(it));
    Selector: |it| Kind::Selector(Arc::new(it));
    Arc<TaskFunction>: |it| Kind::Function(it);
    Arc<Selector>: |it| Kind::Selector(it);
    Arc<Path>: |it| Kind::Path(it);
    Arc<str>: |it| Kind::Text(it);
    Vec<Value>: |it| Kind::List(it.into());
}

impl From<&Value> for Value {
    fn from(value: &Value) -> Self {
        value.clone()
    }
}

impl<T: Data> From<Arc<T>> for Value {
    fn from(value: Arc<T>) -> Self {
        Self::of_arc(value)
    }
}

impl<T: Data> From<&Arc<T>> for Value {
    fn from(value: &Arc<T>) -> Self {
        Self::of_arc(Arc::clone(value))
    }
}

/// A list of text and paths stays plain data; any other vector is shared as it is.
impl<T: Data> From<Vec<T>> for Value {
    fn from(mut value: Vec<T>) -> Self {
        let any: &mut dyn Any = &mut value;
        if let Some(texts) = any.downcast_mut::<Vec<String>>() {
            return Self::list(std::mem::take(texts).into_iter().map(Value::from).collect());
        }
        if let Some(paths) = any.downcast_mut::<Vec<PathBuf>>() {
            return Self::list(std::mem::take(paths).into_iter().map(Value::from).collect());
        }
        Self::shared(value)
    }
}

impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::NULL, Into::into)
    }
}

/// A mapping, of an environment say.
impl<K: Into<String>, V: Into<Value>> From<BTreeMap<K, V>> for Value {
    fn from(entries: BTreeMap<K, V>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (Arc::from(key.into()), value.into()));
        Self(Kind::Mapping(entries.collect()))
    }
}

/// A mapping, of an environment say, in this order.
impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Value {
    fn from(entries: [(K, V); N]) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (Arc::from(key.into()), value.into()));
        Self(Kind::Mapping(entries.collect()))
    }
}

impl<T: Data> From<Handle<T>> for Value {
    fn from(handle: Handle<T>) -> Self {
        let handle: Arc<dyn Produced> = Arc::new(handle);
        Self(Kind::Result(handle))
    }
}

impl<T: Data> From<&Handle<T>> for Value {
    fn from(handle: &Handle<T>) -> Self {
        handle.clone().into()
    }
}

impl<T: Data> From<&Task<T>> for Value {
    fn from(task: &Task<T>) -> Self {
        task.result().into()
    }
}
