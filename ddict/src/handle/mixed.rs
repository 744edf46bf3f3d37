//! Dictionaries of values of several types: each value bears the name of its type, and reading it as another is an
//! error that names both.
//!
//! A value's bytes are those it has in a dictionary of its type alone, so that it can be read in place; after them
//! stand the name, its length in two bytes, and a mark.

use super::DDict;
use crate::encoding::{Key, Pieces, Value, decode, encode, show, type_name, with_key};
use crate::error::Error;
use crate::handle::wait::Limit;
use crate::handle::{decoded, undecoded};
use crate::store::{Keep, Pinned, When};
use crate::view::{Ref, View};
use serde::Serialize;
use std::borrow::Borrow;
use std::time::Duration;

/// Stands for values of any type: `DDict<K, Any>`.
///
/// ```no_run
/// use tarragon_ddict::{Any, DDict};
///
/// let dict = DDict::<String, Any>::builder().create()?;
/// dict.put("steps", &1000_u64)?;
/// dict.put("title", &"a run".to_owned())?;
/// assert_eq!(dict.get::<u64, _>("steps")?, Some(1000));
/// assert!(dict.get::<f64, _>("steps").is_err());
/// # Ok::<(), tarragon_ddict::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Any {}

/// The last byte of each value.
const MARK: u8 = 0xA7;
/// Bytes after the name: its length, and the mark.
const TAIL_BYTES: usize = 3;

/// What stands after the bytes of a value of type `T`.
fn tag<T: 'static>() -> Vec<u8> {
    let mut name = type_name::<T>();
    let mut end = name.len().min(usize::from(u16::MAX));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    let length = u16::try_from(name.len()).expect("it was cut to that");
    let mut tag = name.into_bytes();
    tag.extend_from_slice(&length.to_le_bytes());
    tag.push(MARK);
    tag
}

/// The bytes of a value and the name of its type.
fn split(bytes: &[u8]) -> Option<(&[u8], &str)> {
    let (rest, &[low, high, MARK]) = bytes.split_last_chunk::<TAIL_BYTES>()? else { return None };
    let name = usize::from(u16::from_le_bytes([low, high]));
    let (value, name) = rest.split_at_checked(rest.len().checked_sub(name)?)?;
    Some((value, std::str::from_utf8(name).ok()?))
}

/// The bytes of a value of type `T`, or the error that it is another one.
fn of_type<'b, T: 'static>(key: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], Error> {
    match split(bytes) {
        Some((value, name)) if name == type_name::<T>() => Ok(value),
        Some((_, name)) => {
            Err(Error::ValueType { key: show(key), holds: name.to_owned(), asked: type_name::<T>() })
        }
        None => Err(undecoded::<T>(key, &"it bears no name of a type")),
    }
}

impl<K: Key> DDict<K, Any> {
    /// Puts a value of any type, as [`DDict::put`] of one type does.
    ///
    /// # Errors
    /// Those of [`DDict::put`].
    pub fn put<T, Q>(&self, key: &Q, value: &T) -> Result<(), Error>
    where
        T: Value,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.put_tagged(key, value, When::Always, Keep::Default).map(|_| ())
    }

    /// Puts a persistent value, see `pput` of dictionaries of one type.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn pput<T, Q>(&self, key: &Q, value: &T) -> Result<(), Error>
    where
        T: Value,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.put_tagged(key, value, When::Always, Keep::Persistent).map(|_| ())
    }

    /// Puts a value if the key is not there; whether it did.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn put_if_absent<T, Q>(&self, key: &Q, value: &T) -> Result<bool, Error>
    where
        T: Value,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.put_tagged(key, value, When::Absent, Keep::Default)
    }

    fn put_tagged<T, Q>(&self, key: &Q, value: &T, when: When, keep: Keep) -> Result<bool, Error>
    where
        T: Value,
        Q: Serialize + ?Sized,
    {
        let tag = tag::<T>();
        with_key(key, |key| {
            encode(value, |it| {
                let pieces = Pieces { tail: &tag, ..it };
                self.put_pieces(key, pieces, when, keep)
            })
        })??
    }

    /// The value of a key, which must be a `T`; `None` if it is not there. Waits as in dictionaries of one type.
    ///
    /// # Errors
    /// `ValueType` if the value is of another type, and those of [`DDict::get`].
    pub fn get<T, Q>(&self, key: &Q) -> Result<Option<T>, Error>
    where
        T: Value,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let bytes = self.pin_waiting(key)?;
            bytes.map(|bytes| decoded(key, decode(of_type::<T>(key, &bytes)?))).transpose()
        })?
    }

    /// The value of a key, which must be a `T`, or `default` if it is not there. Never waits.
    ///
    /// # Errors
    /// Those of `get` but `Timeout`.
    pub fn get_or<T, Q>(&self, key: &Q, default: T) -> Result<T, Error>
    where
        T: Value,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| match self.store().pin(key, self.at())? {
            Some(bytes) => decoded(key, decode(of_type::<T>(key, &bytes)?)),
            None => Ok(default),
        })?
    }

    /// The value of a key, which must be a `T`; waits for it up to `timeout`.
    ///
    /// # Errors
    /// Those of `get`.
    pub fn get_timeout<T, Q>(&self, key: &Q, timeout: Duration) -> Result<T, Error>
    where
        T: Value,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let look = || self.store().pin(key, self.at());
            let bytes: Pinned<'_> = self.until(key, Limit::new(Some(timeout)), look)?;
            decoded(key, decode(of_type::<T>(key, &bytes)?))
        })?
    }

    /// The value of a key in place, which must be a `T`; see [`DDict::get_ref`].
    ///
    /// # Errors
    /// Those of `get`.
    pub fn get_ref<T, Q>(&self, key: &Q) -> Result<Option<Ref<'_, T>>, Error>
    where
        T: Value + View,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let Some(bytes) = self.pin_waiting(key)? else { return Ok(None) };
            let length = of_type::<T>(key, &bytes)?.len();
            Ref::of_head(bytes, length).map(Some).map_err(|reason| undecoded::<T>(key, &reason))
        })?
    }

    /// Takes a key out and returns its value, which must be a `T`; `None` if it was not there. Never waits.
    ///
    /// # Errors
    /// `ValueType`: then the key is left where it is; and those of `put`.
    pub fn pop<T, Q>(&self, key: &Q) -> Result<Option<T>, Error>
    where
        T: Value,
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let mut popped = Ok(None);
            self.store().update(key, self.at(), &mut |found| {
                popped = found.map(|bytes| decoded(key, decode(of_type::<T>(key, bytes)?))).transpose();
                match popped {
                    Ok(Some(_)) => crate::store::Change::Remove,
                    _ => crate::store::Change::Leave,
                }
            })?;
            popped
        })?
    }

    /// The name of the type of a key's value; `None` if it is not there. Never waits.
    ///
    /// # Errors
    /// `Gone`, `Retired`, `KeyTooLong`, `Encode`, `Decode`.
    pub fn type_of<Q>(&self, key: &Q) -> Result<Option<String>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let name =
                self.store().get(key, self.at(), |bytes| split(bytes).map(|(_, name)| name.to_owned()))?;
            match name {
                Some(None) => Err(undecoded::<Any>(key, &"it bears no name of a type")),
                found => Ok(found.flatten()),
            }
        })?
    }
}
