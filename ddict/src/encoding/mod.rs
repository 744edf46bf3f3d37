//! How keys and values become bytes.
//!
//! | | encoding |
//! |---|---|
//! | keys | canonical and ordered, see `key`: equal keys have equal bytes, in every process and version |
//! | numbers as values | little-endian, as wide as they are |
//! | `String`, `Vec<u8>`, `Vec` of numbers | their bytes, nothing else |
//! | `ndarray` arrays (feature `ndarray`) | a `.npy` file: header of a multiple of 64 bytes, then the numbers |
//! | any other value | postcard |
//!
//! Which one a value takes is decided by its type when the program is compiled.

mod key;
mod key_read;
mod plain;
mod types;
mod value;

pub(crate) use key::{show, with_key};
pub(crate) use key_read::read_key;
pub use plain::{Number, Plain};
pub(crate) use plain::{add, fill_numbers};
pub(crate) use types::{pair_name, type_name, types_hash};
pub(crate) use value::{DecodeError, Pieces, decode, encode};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can be a key: any serde type that is no map and no set in random order (a `HashMap` inside a key is sorted, a
/// `HashSet` is not: use a `BTreeSet`).
///
/// Lookups take a borrowed form as `HashMap`'s do (`K: Borrow<Q>`); the form must serialise as the key does, as `str`
/// and `String`, `[T]` and `Vec<T>`, `Path` and `PathBuf` do.
pub trait Key: Serialize + DeserializeOwned + 'static {}

impl<T: Serialize + DeserializeOwned + 'static> Key for T {}

/// What can be a value: any serde type that does not need to know names of fields to be read (no `flatten`, no
/// `untagged`).
pub trait Value: Serialize + DeserializeOwned + 'static {}

impl<T: Serialize + DeserializeOwned + 'static> Value for T {}
