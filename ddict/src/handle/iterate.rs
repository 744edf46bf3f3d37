//! Keys, values and pairs, streamed: a page of keys at a time, each value when it is asked for; of another node's part
//! small values come with their page, and large ones are asked for a few ahead of their turn.
//!
//! Weakly consistent: a key that is there all the time is given exactly once; one that comes or goes meanwhile may be
//! given or not. A value is what it is when its turn, or its page's, comes, or a few turns before. In no order of the
//! keys: see `filter` for one.

use super::{DDict, decoded};
use crate::encoding::{Key, Value, decode, read_key, show, type_name};
use crate::error::Error;
use crate::parts::{Ahead, KeptBytes, Parts};
use crate::store::Keep;
use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::Range;

/// The most values that are asked for ahead of their turn: large ones, which are held until then.
const AHEAD_MAX: usize = 4;

/// A walk over the keys' bytes, a page at a time.
pub(crate) struct Walk<'d> {
    store: &'d Parts,
    checkpoint: u32,
    shards: Range<u32>,
    /// Where the current shard goes on; `None`: the next shard's turn.
    cursor: Option<u64>,
    /// Values will be asked for.
    values: bool,
    page: Page,
    /// Values of the page that were asked for ahead of their turn, by the place of their keys.
    ahead: VecDeque<(usize, Ahead)>,
}

/// Keys one after another, in one piece of memory, each with its value if that came with it.
#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    keys: Vec<Listed>,
    next: usize,
}

/// Where a key lies in a page, and its value.
struct Listed {
    key: Range<usize>,
    value: Option<(Range<usize>, Keep)>,
}

impl Page {
    fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
        self.next = 0;
    }

    fn push(&mut self, key: &[u8], value: Option<KeptBytes<'_>>) {
        let key = self.add(key);
        let value = value.map(|(value, keep)| (self.add(value), keep));
        self.keys.push(Listed { key, value });
    }

    fn add(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}

impl<'d> Walk<'d> {
    pub(crate) fn new(store: &'d Parts, checkpoint: u32, shards: Range<u32>) -> Self {
        Self {
            store,
            checkpoint,
            shards,
            cursor: None,
            values: false,
            page: Page::default(),
            ahead: VecDeque::new(),
        }
    }

    /// Of whose keys the values are asked for, too.
    pub(crate) fn with_values(store: &'d Parts, checkpoint: u32, shards: Range<u32>) -> Self {
        Self { values: true, ..Self::new(store, checkpoint, shards) }
    }

    /// The next key's bytes.
    pub(crate) fn next_key(&mut self) -> Result<Option<&[u8]>, Error> {
        Ok(self.next_listed()?.map(|index| &self.page.bytes[self.page.keys[index].key.clone()]))
    }

    /// The next key's place in the page.
    fn next_listed(&mut self) -> Result<Option<usize>, Error> {
        while self.page.next == self.page.keys.len() {
            if !self.turn()? {
                return Ok(None);
            }
        }
        self.page.next += 1;
        Ok(Some(self.page.next - 1))
    }

    /// Reads the next page; whether there was one. After an error the walk is over.
    fn turn(&mut self) -> Result<bool, Error> {
        self.page.clear();
        self.ahead.clear();
        let shard = self.shards.start;
        if self.shards.is_empty() {
            return Ok(false);
        }
        let page = &mut self.page;
        let (cursor, push) = (self.cursor.unwrap_or(0), &mut |key: &[u8], value: Option<KeptBytes<'_>>| {
            page.push(key, value);
        });
        let scanned = self.store.scan(shard, self.checkpoint, cursor, self.values, push);
        match scanned {
            Ok(Some(cursor)) => self.cursor = Some(cursor),
            Ok(None) => {
                self.cursor = None;
                self.shards.start += 1;
            }
            Err(error) => {
                self.shards.start = self.shards.end;
                self.page.clear();
                return Err(error);
            }
        }
        Ok(true)
    }

    /// What `read` makes of the next key whose value is still there, and of its value.
    pub(crate) fn next_item<R>(
        &mut self,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<Option<R>, Error>,
    ) -> Result<Option<R>, Error> {
        self.next_kept(|key, value, _| read(key, value))
    }

    /// The same, and `read` is told how the value is kept.
    pub(crate) fn next_kept<R>(
        &mut self,
        mut read: impl FnMut(&[u8], &[u8], Keep) -> Result<Option<R>, Error>,
    ) -> Result<Option<R>, Error> {
        while let Some(index) = self.next_listed()? {
            self.ask_ahead(index)?;
            let asked = self.ahead.pop_front_if(|(at, _)| *at == index).map(|(_, asked)| asked);
            let Listed { key, value } = &self.page.keys[index];
            let key = &self.page.bytes[key.clone()];
            let found = match value {
                Some((value, keep)) => read(key, &self.page.bytes[value.clone()], *keep)?,
                None => {
                    let peeked = match asked {
                        Some(asked) => self.store.finish_peek(&asked, self.checkpoint, key)?,
                        None => self.store.peek(key, self.checkpoint)?,
                    };
                    match peeked {
                        Some((value, keep)) => read(key, &value, keep)?,
                        None => None,
                    }
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl Walk<'_> {
    /// Asks another node for the values of the next keys of the page, from `index` on, that came without them.
    fn ask_ahead(&mut self, index: usize) -> Result<(), Error> {
        if self.page.keys[index].value.is_some() || self.ahead.len() > AHEAD_MAX / 2 {
            return Ok(());
        }
        let from = self.ahead.back().map_or(index, |(at, _)| at + 1);
        for at in from..self.page.keys.len() {
            if self.ahead.len() >= AHEAD_MAX {
                break;
            }
            let Listed { key, value } = &self.page.keys[at];
            if value.is_none() {
                let key = &self.page.bytes[key.clone()];
                let Some(asked) = self.store.begin_peek(key, self.checkpoint)? else { break };
                self.ahead.push_back((at, asked));
            }
        }
        Ok(())
    }
}

/// The key that has these bytes.
pub(crate) fn key_of<K: Key>(bytes: &[u8]) -> Result<K, Error> {
    read_key(bytes).map_err(|reason| Error::Decode {
        what: "key",
        key: show(bytes),
        type_name: type_name::<K>(),
        reason,
    })
}

/// The keys of a dictionary, see [`DDict::keys`].
pub struct Keys<'d, K> {
    walk: Walk<'d>,
    types: PhantomData<fn() -> K>,
}

/// The values of a dictionary, see [`DDict::values`].
pub struct Values<'d, V> {
    walk: Walk<'d>,
    types: PhantomData<fn() -> V>,
}

/// The keys and values of a dictionary, see [`DDict::items`].
pub struct Items<'d, K, V> {
    walk: Walk<'d>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key> Iterator for Keys<'_, K> {
    type Item = Result<K, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next_key().and_then(|key| key.map(key_of).transpose()).transpose()
    }
}

impl<V: Value> Iterator for Values<'_, V> {
    type Item = Result<V, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next_item(|key, value| decoded(key, decode(value)).map(Some)).transpose()
    }
}

impl<K: Key, V: Value> Iterator for Items<'_, K, V> {
    type Item = Result<(K, V), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let pair = |key: &[u8], value: &[u8]| Ok(Some((key_of(key)?, decoded(key, decode(value))?)));
        self.walk.next_item(pair).transpose()
    }
}

impl<K: Key> FusedIterator for Keys<'_, K> {}
impl<V: Value> FusedIterator for Values<'_, V> {}
impl<K: Key, V: Value> FusedIterator for Items<'_, K, V> {}

impl<K: Key, V> DDict<K, V> {
    /// All keys. Weakly consistent, and streamed: a key that is there all the time comes exactly once, one that comes
    /// or goes meanwhile may come or not; a page of keys is held, not all. In no particular order.
    ///
    /// An item is an error if the dictionary is gone, the checkpoint retired, or bytes are no key.
    #[must_use]
    pub fn keys(&self) -> Keys<'_, K> {
        self.keys_in(0..self.inner.shards)
    }

    pub(super) fn keys_in(&self, shards: Range<u32>) -> Keys<'_, K> {
        Keys { walk: Walk::new(self.store(), self.at(), shards), types: PhantomData }
    }
}

impl<K: Key, V: Value> DDict<K, V> {
    /// All values, as [`DDict::keys`] gives the keys: each is read when its turn comes, one at a time.
    #[must_use]
    pub fn values(&self) -> Values<'_, V> {
        let walk = Walk::with_values(self.store(), self.at(), 0..self.inner.shards);
        Values { walk, types: PhantomData }
    }

    /// All keys with their values, as [`DDict::keys`] and [`DDict::values`] give them.
    #[must_use]
    pub fn items(&self) -> Items<'_, K, V> {
        self.items_in(0..self.inner.shards)
    }

    pub(super) fn items_in(&self, shards: Range<u32>) -> Items<'_, K, V> {
        Items { walk: Walk::with_values(self.store(), self.at(), shards), types: PhantomData }
    }
}
