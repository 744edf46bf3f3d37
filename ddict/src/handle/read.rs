//! Reading values, as copies and in place.

use super::{DDict, decoded};
use crate::encoding::{Key, Value, decode, with_key};
use crate::error::Error;
use crate::handle::wait::Limit;
use crate::store::Pinned;
use crate::view::{Ref, View};
use serde::Serialize;
use std::borrow::Borrow;
use std::time::Duration;

impl<K: Key, V: Value> DDict<K, V> {
    /// The value of a key; `None` if it is not there. If the dictionary waits for keys it sleeps until somebody puts
    /// the key instead, up to the handle's timeout.
    ///
    /// Cost: a search of the index without a lock, and the value's decoding (a copy for plain values).
    ///
    /// # Errors
    /// `Timeout` if it waits; `Gone`, `Retired`, `KeyTooLong`, `Encode` for the key, `Decode` for the value.
    #[inline(always)]
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        match self.get_fast(key) {
            Some(value) => Ok(Some(value)),
            None => self.get_anyhow(key),
        }
    }

    /// The same for every case.
    #[inline(never)]
    fn get_anyhow<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>, Error> {
        with_key(key, |key| match self.store().get(key, self.at(), decode::<V>)? {
            Some(value) => decoded(key, value).map(Some),
            None if !self.inner.wait_for_keys => Ok(None),
            None => self.value_within(key, self.limit()).map(Some),
        })?
    }

    /// The value of a key, or `default` if it is not there. Never waits.
    ///
    /// # Errors
    /// Those of [`DDict::get`] but `Timeout`.
    pub fn get_or<Q>(&self, key: &Q, default: V) -> Result<V, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| self.value_now(key))?.map(|value| value.unwrap_or(default))
    }

    /// The value of a key; waits for it up to `timeout`, whether or not the dictionary waits for keys.
    ///
    /// # Errors
    /// Those of [`DDict::get`].
    pub fn get_timeout<Q>(&self, key: &Q, timeout: Duration) -> Result<V, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let limit = Limit::new(Some(timeout));
        with_key(key, |key| self.value_within(key, limit))?
    }

    /// As [`DDict::get`], and compares the checksum of the value's bytes: a flipped bit is found. Values beyond the
    /// size that always has one have a checksum only if the dictionary was made with `checksums`.
    ///
    /// # Errors
    /// `Checksum`, and those of [`DDict::get`].
    pub fn get_verified<Q>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let look = || self.store().pin_verified(key, self.at());
            let bytes = match look()? {
                None if self.inner.wait_for_keys => Some(self.until(key, self.limit(), look)?),
                found => found,
            };
            bytes.map(|bytes| decoded(key, decode(&bytes))).transpose()
        })?
    }

    /// [`DDict::get`] of a key that [`DDict::bput`] put: this node's own copy is read, in memory that its processes
    /// share, and nobody is asked. Where it has none (never had one, or gave it up to a later write) this is
    /// [`DDict::get`].
    ///
    /// What is read is never older than the last write (of any kind, by anybody) that had returned when this was
    /// called. While a `bput` is under way some nodes read the new value and others the old one.
    ///
    /// A copy needs the node's server: processes that know it to be dead ask the key's home. When the home's server
    /// is dead the copies are still read, and nobody can change the key.
    ///
    /// # Errors
    /// Those of [`DDict::get`].
    pub fn bget<Q>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        if self.store().span().is_none() {
            return self.get(key);
        }
        let copied = |key: &[u8]| {
            let copy = self.store().pin_copy(key, self.at())?;
            copy.map(|copy| decoded(key, decode(&copy))).transpose()
        };
        match with_key(key, copied)?? {
            Some(value) => Ok(Some(value)),
            None => self.get(key),
        }
    }

    /// Takes a key out and returns its last value; `None` if it was not there. Of several that pop one value, one gets
    /// it. Never waits.
    ///
    /// # Errors
    /// `Gone`, `Retired`, `Frozen`, `KeyTooLong`, `Encode`; `Decode`: then the key is out all the same.
    pub fn pop<Q>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let value = self.store().remove(key, self.at(), decode::<V>)?;
            value.map(|value| decoded(key, value)).transpose()
        })?
    }

    /// The value now, if it is there.
    pub(super) fn value_now(&self, key: &[u8]) -> Result<Option<V>, Error> {
        let value = self.store().get(key, self.at(), decode::<V>)?;
        value.map(|value| decoded(key, value)).transpose()
    }

    /// The value as soon as it is there.
    pub(super) fn value_within(&self, key: &[u8], limit: Limit) -> Result<V, Error> {
        self.until(key, limit, || self.value_now(key))
    }
}

impl<K: Key, V: Value + View> DDict<K, V> {
    /// The value of a key in place: a guard that is the text, the bytes or the numbers, 64-byte aligned (if they are
    /// more than 16 bytes), without a copy. They stay as they are until the guard is dropped, whatever happens to the
    /// key. Waits as [`DDict::get`] does.
    ///
    /// A value that is held keeps its memory: drop guards soon. Very many guards of one thread (1024) make further ones
    /// copies.
    ///
    /// ```
    /// # use tarragon_ddict::DDict;
    /// # let dict = DDict::<u64, Vec<f64>>::builder().create()?;
    /// dict.put(&7, vec![1.0, 2.0])?;
    /// let row = dict.get_ref(&7)?.expect("it was put");
    /// assert_eq!(row.iter().sum::<f64>(), 3.0);
    /// # Ok::<(), tarragon_ddict::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`DDict::get`].
    #[inline(always)]
    pub fn get_ref<Q>(&self, key: &Q) -> Result<Option<Ref<'_, V>>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        match self.pin_fast(key) {
            Some(bytes) => Ok(Some(Ref::of_checked(bytes))),
            None => match self.get_ref_anyhow(key) {
                Ok(None) => Ok(None),
                Ok(Some(boxed)) => Ok(Some(*boxed)),
                Err(error) => Err(error),
            },
        }
    }

    /// The same for every case. In a box, so that what `get_ref` returns is not handed on through memory: the common
    /// case would be stored there by words, and loaded at once by two words, which waits for the stores to be done.
    #[inline(never)]
    fn get_ref_anyhow<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<Box<Ref<'_, V>>>, Error> {
        with_key(key, |key| match self.pin_waiting(key)? {
            Some(bytes) => match Ref::new(bytes) {
                Ok(value) => Ok(Some(Box::new(value))),
                Err(reason) => Err(self.undecoded(key, &reason)),
            },
            None => Ok(None),
        })?
    }
}

impl<K, V> DDict<K, V> {
    /// The bytes in place; waits if the dictionary does.
    pub(crate) fn pin_waiting(&self, key: &[u8]) -> Result<Option<Pinned<'_>>, Error> {
        let look = || self.store().pin(key, self.at());
        match look()? {
            None if self.inner.wait_for_keys => self.until(key, self.limit(), look).map(Some),
            found => Ok(found),
        }
    }
}
