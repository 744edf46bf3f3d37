//! Shards: parts of a dictionary that have an index of their own. A key's shard follows from its bytes alone.

use super::{DDict, Items, Keys};
use crate::encoding::{Key, Value, show, with_key};
use crate::error::Error;
use serde::Serialize;
use std::borrow::Borrow;

impl<K, V> DDict<K, V> {
    /// How many shards there are, numbered from 0.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.inner.shards
    }
}

impl<K: Key, V> DDict<K, V> {
    /// The shard a key belongs to, whether or not it is there.
    ///
    /// # Errors
    /// `KeyTooLong`, `Encode`.
    pub fn shard_of<Q>(&self, key: &Q) -> Result<u32, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| self.store().shard_of(key))
    }

    /// The keys that lie on this node: on one node, all of them. As [`DDict::keys`].
    #[must_use]
    pub fn local_keys(&self) -> Keys<'_, K> {
        self.keys_in(self.store().near_shards())
    }

    /// How many keys lie on this node: on one node, all of them. As [`DDict::len`].
    ///
    /// # Errors
    /// Those of [`DDict::len`].
    pub fn local_len(&self) -> Result<u64, Error> {
        self.store().near_len(self.at())
    }

    /// A handle that is pinned to one shard: its keys alone are counted and walked, and reading or writing a key of
    /// another shard through it is an error. So workers can share a dictionary out among themselves.
    ///
    /// # Errors
    /// `NoShard`.
    pub fn pinned(&self, shard: u32) -> Result<ShardHandle<K, V>, Error> {
        let shards = self.shards();
        if shard >= shards {
            return Err(Error::NoShard { shard, shards });
        }
        Ok(ShardHandle { dict: self.clone(), shard })
    }
}

/// One shard of a dictionary, see [`DDict::pinned`].
#[derive(Clone, Debug)]
pub struct ShardHandle<K, V> {
    dict: DDict<K, V>,
    shard: u32,
}

impl<K: Key, V> ShardHandle<K, V> {
    /// Its number.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The whole dictionary, at this handle's checkpoint.
    #[must_use]
    pub fn dict(&self) -> &DDict<K, V> {
        &self.dict
    }

    /// How many keys it has.
    ///
    /// # Errors
    /// `Gone`, `Retired`.
    pub fn len(&self) -> Result<u64, Error> {
        self.dict.store().figures(self.shard, self.dict.at()).map(|figures| figures.keys)
    }

    /// Whether it has none.
    ///
    /// # Errors
    /// Those of [`ShardHandle::len`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.len().map(|keys| keys == 0)
    }

    /// Its keys, as [`DDict::keys`].
    #[must_use]
    pub fn keys(&self) -> Keys<'_, K> {
        self.dict.keys_in(self.shard..self.shard + 1)
    }

    fn check<Q>(&self, key: &Q) -> Result<(), Error>
    where
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| match self.dict.store().shard_of(key) {
            home if home == self.shard => Ok(()),
            home => Err(Error::OtherShard { key: show(key), home, shard: self.shard }),
        })?
    }
}

impl<K: Key, V: Value> ShardHandle<K, V> {
    /// Its keys and values, as [`DDict::items`].
    #[must_use]
    pub fn items(&self) -> Items<'_, K, V> {
        self.dict.items_in(self.shard..self.shard + 1)
    }

    /// As [`DDict::get`], of a key of this shard.
    ///
    /// # Errors
    /// `OtherShard`, and those of [`DDict::get`].
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.check(key)?;
        self.dict.get(key)
    }

    /// As [`DDict::put`], of a key of this shard.
    ///
    /// # Errors
    /// `OtherShard`, and those of [`DDict::put`].
    pub fn put<Q>(&self, key: &Q, value: impl Borrow<V>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.check(key)?;
        self.dict.put(key, value)
    }

    /// As [`DDict::remove`], of a key of this shard.
    ///
    /// # Errors
    /// `OtherShard`, and those of [`DDict::remove`].
    pub fn remove<Q>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.check(key)?;
        self.dict.remove(key)
    }
}
