//! Several keys at once.

use super::DDict;
use crate::encoding::{Key, Value, encode, with_key};
use crate::error::Error;
use crate::store::{Keep, When};
use serde::Serialize;
use std::borrow::Borrow;

impl<K: Key, V: Value> DDict<K, V> {
    /// The values of several keys, in their order; as [`DDict::get`] gives each, with one timeout for all. Not as one
    /// step: others may write in between.
    ///
    /// # Errors
    /// Those of [`DDict::get`], of the first key that fails.
    pub fn multi_get<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Result<Vec<Option<V>>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized + 'q,
    {
        let limit = self.waits_for_keys().then(|| self.limit());
        let value = |key: &'q Q| {
            if let Some(value) = self.get_fast(key) {
                return Ok(Some(value));
            }
            with_key(key, |key| match (self.value_now(key)?, limit) {
                (None, Some(limit)) => self.value_within(key, limit).map(Some),
                (found, _) => Ok(found),
            })?
        };
        keys.into_iter().map(value).collect()
    }

    /// Puts several pairs, in their order; as [`DDict::put`] does each. Not as one step: others see some before the
    /// rest.
    ///
    /// # Errors
    /// `Batch`: how many were put, and why the next one failed.
    pub fn multi_put<Q, W>(&self, pairs: impl IntoIterator<Item = (Q, W)>) -> Result<(), Error>
    where
        Q: Borrow<K>,
        W: Borrow<V>,
    {
        let mut written = 0;
        let mut pairs = pairs.into_iter();
        while let Some((key, value)) = pairs.next() {
            if let Err(source) = self.put(key.borrow(), value.borrow()) {
                let total = written + 1 + pairs.count();
                return Err(Error::Batch { written, total, source: Box::new(source) });
            }
            written += 1;
        }
        Ok(())
    }

    /// Puts all pairs of an iterator, as [`DDict::multi_put`]. With `other.items()` a dictionary takes up another one:
    /// `dict.extend(other.items().collect::<Result<Vec<_>, _>>()?)`.
    ///
    /// # Errors
    /// Those of [`DDict::multi_put`].
    pub fn extend<Q, W>(&self, pairs: impl IntoIterator<Item = (Q, W)>) -> Result<(), Error>
    where
        Q: Borrow<K>,
        W: Borrow<V>,
    {
        self.multi_put(pairs)
    }

    /// Starts a batch of puts, which are written by [`BatchPut::commit`].
    pub fn batch_put(&self) -> BatchPut<'_, K, V> {
        BatchPut { dict: self, bytes: Vec::new(), pairs: Vec::new() }
    }
}

/// Puts that are gathered, encoded, in this process's memory, until [`BatchPut::commit`] writes them.
///
/// What it promises: nobody sees any of them before `commit`, and a batch that is dropped without it wrote nothing.
/// Errors of encoding come before anything is written. At `commit` each put is one step, but not all together: others
/// may see some before the rest, and a process that is killed in between wrote some. Of two puts to one key the later
/// one holds.
///
/// ```
/// # use tarragon_ddict::DDict;
/// # let dict = DDict::<u64, u64>::builder().create()?;
/// let mut batch = dict.batch_put();
/// for i in 0..1000 {
///     batch.put(&i, i * i)?;
/// }
/// batch.commit()?;
/// # Ok::<(), tarragon_ddict::Error>(())
/// ```
#[must_use = "a batch that is not committed writes nothing"]
pub struct BatchPut<'d, K, V> {
    dict: &'d DDict<K, V>,
    /// Keys and values one after another.
    bytes: Vec<u8>,
    pairs: Vec<Pair>,
}

/// Where a pair lies in the bytes of a batch: key, then value.
struct Pair {
    shard: u32,
    start: usize,
    value: usize,
    end: usize,
}

impl<K: Key, V: Value> BatchPut<'_, K, V> {
    /// Adds a put.
    ///
    /// # Errors
    /// `KeyTooLong`, `Encode`: the batch is as before.
    pub fn put<Q>(&mut self, key: &Q, value: impl Borrow<V>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let (bytes, store) = (&mut self.bytes, self.dict.store());
        let start = bytes.len();
        let shard = with_key(key, |key| {
            bytes.extend_from_slice(key);
            store.shard_of(key)
        })?;
        let middle = bytes.len();
        let encoded = encode(value.borrow(), |pieces| {
            bytes.extend_from_slice(pieces.head);
            bytes.extend_from_slice(pieces.body);
            bytes.extend_from_slice(pieces.tail);
        });
        if let Err(error) = encoded {
            self.bytes.truncate(start);
            return Err(error);
        }
        self.pairs.push(Pair { shard, start, value: middle, end: self.bytes.len() });
        Ok(())
    }

    /// How many puts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Writes them, shard by shard, those of one key in their order.
    ///
    /// # Errors
    /// `Batch`: how many were put, and why the next one failed. The rest was not tried.
    pub fn commit(mut self) -> Result<(), Error> {
        self.pairs.sort_by_key(|pair| pair.shard);
        let (store, at) = (self.dict.store(), self.dict.at());
        for (written, pair) in self.pairs.iter().enumerate() {
            let key = &self.bytes[pair.start..pair.value];
            let value = &self.bytes[pair.value..pair.end];
            if let Err(source) = store.put(key, at, value, When::Always, Keep::Default) {
                return Err(Error::Batch { written, total: self.pairs.len(), source: Box::new(source) });
            }
        }
        Ok(())
    }
}
