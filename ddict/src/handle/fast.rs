//! The short way of the common case: a short key in the first checkpoint, that is there. Each function answers or does
//! nothing, and then the way for every case is taken, which also says what is wrong.
//!
//! Everything here is inlined into the caller, so that a number as a key never becomes bytes in memory and no result is
//! handed on through it.

use super::DDict;
use crate::encoding::{Key, Number, Value, add, as_short, decode, short_key};
use crate::store::{Keep, Pinned};
use crate::view::View;
use serde::Serialize;

impl<K: Key, V: Value> DDict<K, V> {
    #[inline(always)]
    pub(super) fn get_fast<Q: Serialize + ?Sized>(&self, key: &Q) -> Option<V> {
        let (store, key) = (self.near(), short_key(key)?);
        let hash = store.hash(key);
        let seen = store.hit(key, hash, self.at())?;
        let value = match seen.short() {
            Some((bytes, len)) => decode(&bytes[..len]).ok(),
            None => self.get_block(&seen),
        }?;
        store.count_hit(hash);
        Some(value)
    }

    #[inline(never)]
    fn get_block(&self, seen: &crate::store::Seen<'_>) -> Option<V> {
        if !seen.is_block() {
            return None;
        }
        self.near().show(seen, |bytes| decode(bytes)).ok()?.ok()?.ok()
    }

    /// Whether it did.
    #[inline(always)]
    pub(super) fn put_fast<Q: Serialize + ?Sized>(&self, key: &Q, value: &V) -> bool {
        match (as_short(value), short_key(key)) {
            (Some(value), Some(key)) => self.near().put_short(key, self.at(), value, Keep::Default),
            _ => false,
        }
    }
}

impl<K: Key, V: Value + View> DDict<K, V> {
    /// The value in place, if it is one and lies as it must.
    #[inline(always)]
    pub(super) fn pin_fast<Q: Serialize + ?Sized>(&self, key: &Q) -> Option<Pinned<'_>> {
        let (store, key) = (self.near(), short_key(key)?);
        let hash = store.hash(key);
        let are_good = |bytes: &[u8]| V::check(bytes) == Ok(true);
        store.pin_counted(&store.hit(key, hash, self.at())?, hash, are_good)
    }
}

impl<K: Key, N: Number + Value> DDict<K, N> {
    #[inline(always)]
    pub(super) fn add_fast<Q: Serialize + ?Sized>(&self, key: &Q, by: N) -> Option<N> {
        let (store, key) = (self.near(), short_key(key)?);
        let hash = store.hash(key);
        let seen = store.hit(key, hash, self.at())?;
        let (bytes, len) = seen.short()?;
        let (before, sum) = add(Some(&bytes[..len]), by).ok()?;
        store.put_seen(&seen, hash, &sum[..size_of::<N>()], Keep::Default).then_some(before)
    }
}
