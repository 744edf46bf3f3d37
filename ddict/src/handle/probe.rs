//! What tests see of a dictionary beyond its figures. Users need nothing of it, and it is no part of the interface.

use super::DDict;
use crate::encoding::{Key, Value, with_key};
use crate::error::Error;
use crate::parts::Parts;
use serde::Serialize;
use std::borrow::Borrow;

impl<K, V> DDict<K, V> {
    /// What a process is doing: the kind of its intent in the low byte, and signs of what it holds above.
    #[doc(hidden)]
    #[must_use]
    pub fn under_way(&self, pid: u32) -> u64 {
        self.near().under_way(pid)
    }

    /// Living members, and agents in use.
    #[doc(hidden)]
    #[must_use]
    pub fn participants(&self) -> (u32, usize) {
        self.near().participants()
    }
}

impl<K: Key, V: Value> DDict<K, V> {
    /// The replica of a node's part that lies on this node, if there is one, to be read alone.
    #[doc(hidden)]
    pub fn replica_of(&self, node: u32) -> Result<Option<Self>, Error> {
        let replica = self.store().replica_of(node)?;
        Ok(replica.map(|store| Self::new(Parts::alone(store), self.at())))
    }
}

impl<K: Key, V> DDict<K, V> {
    /// Of the page that a key belongs to: keys in it, and its depth; and the depth of the directory.
    #[doc(hidden)]
    pub fn page_of<Q>(&self, key: &Q) -> Result<(u64, u32, u32), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| self.near().page_of(key))?
    }
}
