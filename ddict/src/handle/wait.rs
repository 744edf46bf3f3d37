//! Waiting for keys: look, and if it is not there sleep until somebody writes the key, then look again.
//!
//! The state of a key's waiters is taken *before* the look. Who writes the key after it changes that state, and the
//! sleep ends at once; so no write is missed.

use super::DDict;
use crate::encoding::{Key, Value, encode, show, with_key};
use crate::error::Error;
use serde::Serialize;
use std::borrow::Borrow;
use std::time::{Duration, Instant};

/// How long a wait may last.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    start: Instant,
    deadline: Option<Instant>,
}

impl Limit {
    /// From now on.
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        let start = Instant::now();
        // A time that cannot be counted is no limit.
        Self { start, deadline: timeout.and_then(|timeout| start.checked_add(timeout)) }
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl<K, V> DDict<K, V> {
    /// What the handle's waits may last.
    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.timeout)
    }

    /// Sleeps until `look` finds something.
    #[cold]
    pub(super) fn until<R>(
        &self,
        key: &[u8],
        limit: Limit,
        mut look: impl FnMut() -> Result<Option<R>, Error>,
    ) -> Result<R, Error> {
        loop {
            let seen = self.store().watch(key)?;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if limit.is_over() {
                let waited_ms = u64::try_from(limit.start.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Err(Error::Timeout { key: show(key), waited_ms });
            }
            self.store().wait(key, seen, limit.deadline)?;
        }
    }
}

impl<K: Key, V> DDict<K, V> {
    /// Waits until a key is there, up to the handle's timeout, whether or not the dictionary waits for keys.
    ///
    /// # Errors
    /// `Timeout`; `Gone` when it is destroyed meanwhile; `Retired`, `KeyTooLong`, `Encode`.
    pub fn wait_for_key<Q>(&self, key: &Q) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let limit = self.limit();
        with_key(key, |key| self.wait_for_bytes(key, limit))?
    }

    /// Waits until all of several keys were there, up to the handle's timeout for all together.
    ///
    /// # Errors
    /// Those of [`DDict::wait_for_key`].
    pub fn wait_for_keys<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized + 'q,
    {
        let limit = self.limit();
        keys.into_iter().try_for_each(|key| with_key(key, |key| self.wait_for_bytes(key, limit))?)
    }

    fn wait_for_bytes(&self, key: &[u8], limit: Limit) -> Result<(), Error> {
        let at = self.at();
        self.until(key, limit, || self.store().contains(key, at).map(|is_there| is_there.then_some(())))
    }
}

impl<K: Key, V: Value> DDict<K, V> {
    /// Waits until a key has this very value, up to the handle's timeout. Values are compared by their bytes. A value
    /// that was there only for a moment may be missed.
    ///
    /// # Errors
    /// Those of [`DDict::wait_for_key`].
    pub fn wait_for<Q>(&self, key: &Q, value: impl Borrow<V>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let limit = self.limit();
        let wanted = encode(value.borrow(), |pieces| pieces.to_vec())?;
        let at = self.at();
        with_key(key, |key| {
            self.until(key, limit, || {
                let is_it = self.store().get(key, at, |bytes| bytes == wanted)?;
                Ok(is_it.unwrap_or(false).then_some(()))
            })
        })?
    }
}
