//! Reading and writing a key as one step: nobody writes it in between.

use super::{DDict, decoded};
use crate::encoding::{Key, Number, Value, add, decode, encode, with_key};
use crate::error::Error;
use crate::store::Change;
use serde::Serialize;
use std::borrow::Borrow;

/// What [`DDict::compare_exchange`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange<V> {
    /// The key had the expected value and has the new one now.
    Done,
    /// The key has another value (`None`: it is not there). Nothing was written.
    Other(Option<V>),
}

impl<V> Exchange<V> {
    /// Whether the new value was written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

impl<K: Key, V: Value> DDict<K, V> {
    /// Puts `new` if the key has the value `current`; as one step. `None` stands for a key that is not there: so
    /// `(None, Some(v))` puts only what is absent, and `(Some(v), None)` removes only what is known. Values are compared
    /// by their bytes (a float that is not a number equals itself). Never waits for a key.
    ///
    /// ```no_run
    /// # use tarragon_ddict::{DDict, Exchange};
    /// # let dict = DDict::<String, u64>::builder().create()?;
    /// assert_eq!(dict.compare_exchange("owner", None, Some(&7))?, Exchange::Done);
    /// assert_eq!(dict.compare_exchange("owner", None, Some(&8))?, Exchange::Other(Some(7)));
    /// # Ok::<(), tarragon_ddict::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`DDict::put`], and `Decode`.
    pub fn compare_exchange<Q>(
        &self,
        key: &Q,
        current: Option<&V>,
        new: Option<&V>,
    ) -> Result<Exchange<V>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let bytes_of = |value: Option<&V>| value.map(|value| encode(value, |it| it.to_vec())).transpose();
        let (current, new) = (bytes_of(current)?, bytes_of(new)?);
        let mut other = None;
        let mut change = |found: Option<&[u8]>| {
            if found != current.as_deref() {
                other = Some(found.map(decode::<V>));
                return Change::Leave;
            }
            other = None;
            match (&new, found) {
                (Some(new), _) => Change::Write(new.clone()),
                (None, Some(_)) => Change::Remove,
                (None, None) => Change::Leave,
            }
        };
        with_key(key, |key| self.store().update(key, self.at(), &mut change))??;
        let Some(found) = other else { return Ok(Exchange::Done) };
        let found = found.map(|it| with_key(key, |key| decoded(key, it))?);
        found.transpose().map(Exchange::Other)
    }

    /// Gives the value (`None` if the key is not there) to `change` and puts what it returns, or removes the key if it
    /// returns `None`; as one step. `change` may be called again if somebody else wrote meanwhile, and must not use the
    /// dictionary. Never waits for a key.
    ///
    /// ```no_run
    /// # use tarragon_ddict::DDict;
    /// # let dict = DDict::<String, Vec<u32>>::builder().create()?;
    /// dict.update("squares", |squares| {
    ///     let mut squares = squares.unwrap_or_default();
    ///     squares.push(4);
    ///     Some(squares)
    /// })?;
    /// # Ok::<(), tarragon_ddict::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`DDict::put`], and `Decode`: then nothing was changed.
    pub fn update<Q>(&self, key: &Q, mut change: impl FnMut(Option<V>) -> Option<V>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let mut outcome = Ok(());
            self.store().update(key, self.at(), &mut |found| {
                outcome = Ok(());
                let step = found.map(|bytes| decoded(key, decode(bytes))).transpose().and_then(|value| {
                    let was_there = value.is_some();
                    match change(value) {
                        Some(value) => encode(&value, |pieces| Change::Write(pieces.to_vec())),
                        None if was_there => Ok(Change::Remove),
                        None => Ok(Change::Leave),
                    }
                });
                step.unwrap_or_else(|error| {
                    outcome = Err(error);
                    Change::Leave
                })
            })?;
            outcome
        })?
    }
}

impl<K: Key, N: Number + Value> DDict<K, N> {
    /// Adds to a number and returns what it was before; as one step. A key that is not there counts as 0. Integers wrap
    /// around. Never waits for a key.
    ///
    /// # Errors
    /// Those of [`DDict::put`], and `Decode`.
    pub fn fetch_add<Q>(&self, key: &Q, by: N) -> Result<N, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let mut before = Ok(N::zeroed());
            self.store().update(key, self.at(), &mut |found| match add(found, by) {
                Ok((was, sum)) => {
                    before = Ok(was);
                    Change::Short(sum, size_of::<N>() as u8)
                }
                Err(reason) => {
                    before = Err(reason);
                    Change::Leave
                }
            })?;
            before.map_err(|reason| self.undecoded(key, &reason))
        })?
    }
}
