//! A dictionary whose reads come after the submitted tasks that write the key.

use super::TiedError;
use crate::Submitted;
use serde::Serialize;
use std::borrow::Borrow;
use std::ops::Deref;
use std::time::Duration;
use tarragon_ddict::{DDict, Key, Ref, Value, View};

/// A [`DDict`] tied to a client of a batch, made by [`Stores::ddict`](crate::Stores::ddict).
///
/// Its reads run what the client has submitted and wait for the task that writes the key last; everything else is the
/// dictionary's. Tasks take part in this by what they declare: `.writes(dict.key(&k)?)`.
pub struct BatchDict<K, V> {
    dict: DDict<K, V>,
    submitted: Submitted,
}

impl<K, V> Clone for BatchDict<K, V> {
    fn clone(&self) -> Self {
        Self { dict: self.dict.clone(), submitted: self.submitted.clone() }
    }
}

impl<K, V> std::fmt::Debug for BatchDict<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BatchDict").field(&self.dict.name()).finish()
    }
}

impl<K, V> Deref for BatchDict<K, V> {
    type Target = DDict<K, V>;

    fn deref(&self) -> &DDict<K, V> {
        &self.dict
    }
}

impl<K, V> BatchDict<K, V> {
    pub(super) fn new(dict: DDict<K, V>, submitted: Submitted) -> Self {
        Self { dict, submitted }
    }
}

impl<K: Key, V: Value> BatchDict<K, V> {
    /// Runs what this client has submitted, and waits for the task that writes the key last.
    ///
    /// # Errors
    /// [`TiedError::Batch`] if that task did not succeed, or what is queued cannot run.
    pub fn written<Q>(&self, key: &Q) -> Result<(), TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        Ok(self.submitted.written(self.dict.key(key)?)?)
    }

    /// [`DDict::get`], once the key is [written](Self::written).
    ///
    /// # Errors
    /// As both.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>, TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.written(key)?;
        Ok(self.dict.get(key)?)
    }

    /// [`DDict::get_or`], once the key is [written](Self::written).
    ///
    /// # Errors
    /// As both.
    pub fn get_or<Q>(&self, key: &Q, default: V) -> Result<V, TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.written(key)?;
        Ok(self.dict.get_or(key, default)?)
    }

    /// [`DDict::get_timeout`], once the key is [written](Self::written); the time counts from then.
    ///
    /// # Errors
    /// As both.
    pub fn get_timeout<Q>(&self, key: &Q, timeout: Duration) -> Result<V, TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.written(key)?;
        Ok(self.dict.get_timeout(key, timeout)?)
    }

    /// [`DDict::get_verified`], once the key is [written](Self::written).
    ///
    /// # Errors
    /// As both.
    pub fn get_verified<Q>(&self, key: &Q) -> Result<Option<V>, TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.written(key)?;
        Ok(self.dict.get_verified(key)?)
    }

    /// [`DDict::pop`], once the key is [written](Self::written).
    ///
    /// # Errors
    /// As both.
    pub fn pop<Q>(&self, key: &Q) -> Result<Option<V>, TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.written(key)?;
        Ok(self.dict.pop(key)?)
    }

    /// [`DDict::contains`], once the key is [written](Self::written).
    ///
    /// # Errors
    /// As both.
    pub fn contains<Q>(&self, key: &Q) -> Result<bool, TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.written(key)?;
        Ok(self.dict.contains(key)?)
    }

    /// [`DDict::multi_get`], once all the keys are [written](Self::written).
    ///
    /// # Errors
    /// As both.
    pub fn multi_get<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Result<Vec<Option<V>>, TiedError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized + 'q,
    {
        let keys: Vec<_> = keys.into_iter().collect();
        keys.iter().try_for_each(|key| self.written(*key))?;
        Ok(self.dict.multi_get(keys)?)
    }

    /// [`DDict::get_ref`], once the key is [written](Self::written).
    ///
    /// # Errors
    /// As both.
    pub fn get_ref<Q>(&self, key: &Q) -> Result<Option<Ref<'_, V>>, TiedError>
    where
        K: Borrow<Q>,
        V: View,
        Q: Serialize + ?Sized,
    {
        self.written(key)?;
        Ok(self.dict.get_ref(key)?)
    }
}
