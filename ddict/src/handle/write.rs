//! Writing values.

use super::DDict;
use crate::encoding::{Key, Pieces, Plain, Value, encode, fill_numbers, with_key};
use crate::error::Error;
use crate::store::{Keep, When};
use serde::Serialize;
use std::borrow::Borrow;
use std::convert::Infallible;

impl<K: Key, V: Value> DDict<K, V> {
    /// Puts a value; what was there before is replaced at once for all readers. Who was killed in the middle has put
    /// nothing.
    ///
    /// Cost: one copy of the value's bytes, into memory of its own. Never waits.
    ///
    /// # Errors
    /// `Memory` if it is full: nothing was written; `Gone`, `Retired`, `Frozen`, `KeyTooLong`, `Encode`.
    #[inline]
    pub fn put<Q>(&self, key: &Q, value: impl Borrow<V>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        if self.put_fast(key, value.borrow()) {
            return Ok(());
        }
        self.put_when(key, value.borrow(), When::Always, Keep::Default).map(|_| ())
    }

    /// Puts a persistent value: later checkpoints see it until they put their own, also where the dictionary waits for
    /// keys. Elsewhere every value is persistent.
    ///
    /// # Errors
    /// Those of [`DDict::put`].
    pub fn pput<Q>(&self, key: &Q, value: impl Borrow<V>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.put_when(key, value.borrow(), When::Always, Keep::Persistent).map(|_| ())
    }

    /// Puts a value that all nodes will read, by [`DDict::bget`]: [`DDict::put`], and when it returns every node has a
    /// copy. The value goes from server to server along a tree, so it reaches n nodes in about log2 n steps. On one
    /// node it is a put.
    ///
    /// A copy is no further key: `len`, walks, `stats` and `persist` count the key once, where it lies. Copies have
    /// memory of their own on each node, as much as the dictionary has there. Whatever else writes to the key (a put,
    /// an update, `remove`, `clear`) has all copies taken away first, which takes a way down that tree; then `bget`
    /// reads as `get` does, until the next `bput`. So it is for what is written once, or rarely, and read often.
    ///
    /// # Errors
    /// Those of [`DDict::put`]: then nothing was put, unless the error is another node's: `Memory` of one that has no
    /// room for a copy. That one has none, and reads as `get` does.
    pub fn bput<Q>(&self, key: &Q, value: impl Borrow<V>) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        if self.store().span().is_none() {
            return self.put(key, value);
        }
        let put = |key: &[u8], pieces: Pieces<'_>| self.store().broadcast(key, self.at(), &pieces.to_vec());
        with_key(key, |key| encode(value.borrow(), |pieces| put(key, pieces)))??
    }

    /// Puts a value if the key is not there; whether it did. Of several that do so at once, one does.
    ///
    /// # Errors
    /// Those of [`DDict::put`].
    pub fn put_if_absent<Q>(&self, key: &Q, value: impl Borrow<V>) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.put_when(key, value.borrow(), When::Absent, Keep::Default)
    }

    #[inline]
    fn put_when<Q>(&self, key: &Q, value: &V, when: When, keep: Keep) -> Result<bool, Error>
    where
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| encode(value, |pieces| self.put_pieces(key, pieces, when, keep)))??
    }
}

impl<K: Key, T: Plain> DDict<K, Vec<T>> {
    /// Puts numbers from a slice.
    ///
    /// # Errors
    /// Those of [`DDict::put`].
    pub fn put_slice<Q>(&self, key: &Q, value: &[T]) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let pieces = Pieces::whole(bytemuck::cast_slice(value));
        with_key(key, |key| self.put_pieces(key, pieces, When::Always, Keep::Default))?.map(|_| ())
    }

    /// Puts `len` numbers (items, not bytes) that `fill` writes in place, so that no copy is made. They are whatever
    /// was in that memory before until `fill` writes them. If `fill` panics nothing is put.
    ///
    /// ```
    /// # use tarragon_ddict::DDict;
    /// # let dict = DDict::<String, Vec<f32>>::builder().create()?;
    /// dict.put_with("ones", 1000, |ones| ones.fill(1.0))?;
    /// # Ok::<(), tarragon_ddict::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`DDict::put`].
    pub fn put_with<Q>(&self, key: &Q, len: usize, fill: impl FnOnce(&mut [T])) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        // A `Vec` of so many could not be: the heap refuses the length with its error.
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        with_key(key, |key| self.fill_value(key, bytes, |place| fill_numbers(place, fill)))?
    }
}

impl<K: Key> DDict<K, String> {
    /// Puts a text from a `&str`.
    ///
    /// # Errors
    /// Those of [`DDict::put`].
    pub fn put_str<Q>(&self, key: &Q, value: &str) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let pieces = Pieces::whole(value.as_bytes());
        with_key(key, |key| self.put_pieces(key, pieces, When::Always, Keep::Default))?.map(|_| ())
    }
}

impl<K, V> DDict<K, V> {
    /// Writes a value's bytes; whether it did.
    #[inline]
    pub(crate) fn put_pieces(
        &self,
        key: &[u8],
        pieces: Pieces<'_>,
        when: When,
        keep: Keep,
    ) -> Result<bool, Error> {
        let at = self.at();
        match (pieces.single(), when) {
            (Some(bytes), _) => self.store().put(key, at, bytes, when, keep),
            (None, When::Absent | When::Copied) => self.store().put(key, at, &pieces.to_vec(), when, keep),
            (None, When::Always) => {
                let fill = |place: &mut [u8]| {
                    pieces.copy_to(place);
                    Ok::<(), Infallible>(())
                };
                self.store()
                    .put_with(key, at, pieces.bytes() as u64, keep, fill)?
                    .unwrap_or_else(|no| match no {});
                Ok(true)
            }
        }
    }

    /// Writes a value of `bytes` that `fill` makes in place.
    pub(crate) fn fill_value(
        &self,
        key: &[u8],
        bytes: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Error> {
        let fill = |place: &mut [u8]| {
            fill(place);
            Ok::<(), Infallible>(())
        };
        let filled = self.store().put_with(key, self.at(), bytes, Keep::Default, fill)?;
        filled.unwrap_or_else(|no| match no {});
        Ok(())
    }
}
