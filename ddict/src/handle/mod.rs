//! The handle of a dictionary: what a program holds.
//!
//! In reading order: `read` and `write`, `exchange` for what reads and writes as one step, `wait`, `iterate`, `filter`,
//! `many` for several keys at once, `shards`, `checkpoints`, `mixed` for dictionaries of values of several types.

mod checkpoints;
mod exchange;
mod fast;
mod filter;
mod iterate;
mod many;
mod mixed;
mod probe;
mod read;
mod shards;
mod stats;
mod wait;
mod write;

pub use exchange::Exchange;
pub use filter::Filtered;
pub use iterate::{Items, Keys, Values};
pub(crate) use iterate::{Walk, key_of};
pub use many::BatchPut;
pub use mixed::Any;
pub use shards::ShardHandle;
pub use stats::{ShardStats, Stats};

use crate::builder::Builder;
use crate::descriptor::Descriptor;
use crate::encoding::{DecodeError, Key, show, type_name, with_key};
use crate::error::Error;
use crate::parts::Parts;
use crate::store::Store;
use serde::Serialize;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tarragon_transport::Place;

/// A dictionary from `K` to `V` in shared memory. Any process of the node that has its [`Descriptor`] reads and writes
/// it at memory speed.
///
/// Handles are cheap to clone; any thread may use any of them. A handle has a checkpoint of its own (see
/// [`DDict::checkpoint`]); a clone starts at the same one. When the last handle of the last process is dropped the
/// memory is given back.
///
/// Keys are looked up by borrowed forms, as in a `HashMap`. Values are given as `V` or as `&V`.
///
/// ```
/// use tarragon_ddict::DDict;
///
/// let dict = DDict::<String, f64>::builder().memory(1 << 20).create()?;
/// dict.put("x", 0.5)?;
/// assert_eq!(dict.get("x")?, Some(0.5));
/// assert_eq!(dict.get("y")?, None);
/// # Ok::<(), tarragon_ddict::Error>(())
/// ```
pub struct DDict<K, V> {
    inner: Arc<Inner>,
    checkpoint: AtomicU32,
    timeout: Option<Duration>,
    types: PhantomData<fn(K) -> V>,
}

/// What all handles of a process that come from one another share.
struct Inner {
    parts: Parts,
    /// Copies of what was set when the dictionary was made, to have them at hand.
    wait_for_keys: bool,
    shards: u32,
}

/// The dictionaries this process has open, by uid: a body that attaches to one it shares finds it here.
static OPEN: Mutex<BTreeMap<u128, Weak<Inner>>> = Mutex::new(BTreeMap::new());

fn open() -> MutexGuard<'static, BTreeMap<u128, Weak<Inner>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn new(parts: Parts) -> Arc<Self> {
        let (wait_for_keys, shards) = (parts.options().wait_for_keys, parts.shards());
        let inner = Arc::new(Self { parts, wait_for_keys, shards });
        let mut open = open();
        open.retain(|_, other| other.strong_count() > 0);
        open.insert(inner.parts.uid(), Arc::downgrade(&inner));
        inner
    }
}

impl<K, V> DDict<K, V> {
    pub(crate) fn new(parts: Parts, checkpoint: u32) -> Self {
        Self::of(Inner::new(parts), checkpoint)
    }

    /// A handle to a dictionary that this process has open, if it has, and it was not destroyed.
    pub(crate) fn of_open(uid: u128, checkpoint: u32) -> Option<Self> {
        let inner = open().get(&uid).and_then(Weak::upgrade)?;
        inner.parts.is_there().then(|| Self::of(inner, checkpoint))
    }

    fn of(inner: Arc<Inner>, checkpoint: u32) -> Self {
        let timeout = inner.parts.options().timeout_ms.map(Duration::from_millis);
        Self { inner, checkpoint: AtomicU32::new(checkpoint), timeout, types: PhantomData }
    }

    /// All of its parts.
    #[inline(always)]
    pub(crate) fn store(&self) -> &Parts {
        &self.inner.parts
    }

    /// The part of this node, in which alone the short way looks.
    #[inline(always)]
    pub(crate) fn near(&self) -> &Store {
        self.inner.parts.near()
    }

    /// The handle's checkpoint.
    #[inline(always)]
    pub(crate) fn at(&self) -> u32 {
        // No other memory depends on it: it is the handle's own.
        self.checkpoint.load(Ordering::Relaxed)
    }

    /// The handle with another limit for its waits (`None`: no limit), instead of the dictionary's `timeout`.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Name of its segment of shared memory.
    #[must_use]
    pub fn name(&self) -> &str {
        self.store().name()
    }

    /// The number that no other dictionary has.
    #[must_use]
    pub fn uid(&self) -> u128 {
        self.store().uid()
    }

    /// Whether a read of a key that is not there waits until somebody puts it.
    #[must_use]
    pub fn waits_for_keys(&self) -> bool {
        self.inner.wait_for_keys
    }

    /// How many keys there are. Others may put and remove meanwhile. Cost: a scan of the index where checkpoints were
    /// used, else of its heads.
    ///
    /// # Errors
    /// `Gone`, `Retired`.
    pub fn len(&self) -> Result<u64, Error> {
        self.store().len(self.at())
    }

    /// Whether there are no keys.
    ///
    /// # Errors
    /// Those of [`DDict::len`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.len().map(|keys| keys == 0)
    }

    /// Takes all keys out that this checkpoint sees.
    ///
    /// # Errors
    /// `Gone`, `Retired`, `Frozen`.
    pub fn clear(&self) -> Result<(), Error> {
        self.store().clear(self.at())
    }

    /// Lets nobody write until [`DDict::unfreeze`]: writes are errors (`Frozen`) in every process.
    ///
    /// # Errors
    /// `Gone`.
    pub fn freeze(&self) -> Result<(), Error> {
        self.store().freeze(true)
    }

    /// Lets all write again.
    ///
    /// # Errors
    /// `Gone`.
    pub fn unfreeze(&self) -> Result<(), Error> {
        self.store().freeze(false)
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.store().is_frozen()
    }

    /// Ends the dictionary for everybody: who waits is woken, all later use is an error (`Gone`). What is read in place
    /// stays until it is let go. Idempotent.
    pub fn destroy(&self) {
        self.store().destroy();
    }

    /// Finishes or undoes what processes left that were killed; returns how many threads of theirs. Nobody needs to
    /// call it: who is held up by something of the dead does the same.
    pub fn recover(&self) -> usize {
        self.store().recover()
    }
}

impl<K: 'static, V: 'static> DDict<K, V> {
    /// Starts to make a dictionary.
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }

    /// What another process needs to attach; it starts at this handle's checkpoint.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new::<K, V>(self.store(), self.at())
    }

    /// The error that the bytes of a value are none.
    #[cold]
    pub(crate) fn undecoded(&self, key: &[u8], reason: &dyn fmt::Display) -> Error {
        undecoded::<V>(key, reason)
    }
}

#[cold]
pub(crate) fn undecoded<V: 'static>(key: &[u8], reason: &dyn fmt::Display) -> Error {
    Error::Decode { what: "value", key: show(key), type_name: type_name::<V>(), reason: reason.to_string() }
}

/// The value, or the error that its bytes are none.
#[inline]
pub(crate) fn decoded<V: 'static>(key: &[u8], value: Result<V, DecodeError>) -> Result<V, Error> {
    value.map_err(|reason| undecoded::<V>(key, &reason))
}

impl<K: Key, V> DDict<K, V> {
    /// The name of a key's value, whether or not it is there: what a task says it reads or writes, and what it is to
    /// run near to. Equal keys have equal names, in every process.
    ///
    /// # Errors
    /// `KeyTooLong`, `Encode`.
    pub fn key<Q>(&self, key: &Q) -> Result<Place, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let home = self.store().home_rank(key);
            Place { uid: self.uid(), bytes: key.to_vec(), home }
        })
    }

    /// Whether a key is there. Never waits.
    ///
    /// # Errors
    /// `Gone`, `Retired`, `KeyTooLong`, `Encode`.
    pub fn contains<Q>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| self.store().contains(key, self.at()))?
    }

    /// Takes a key out; whether it was there. Never waits.
    ///
    /// # Errors
    /// `Gone`, `Retired`, `Frozen`, `KeyTooLong`, `Encode`.
    pub fn remove<Q>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| self.store().remove(key, self.at(), |_| ()).map(|gone| gone.is_some()))?
    }
}

impl<K, V> Clone for DDict<K, V> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            checkpoint: AtomicU32::new(self.at()),
            timeout: self.timeout,
            types: PhantomData,
        }
    }
}

impl<K, V> fmt::Debug for DDict<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DDict").field("name", &self.name()).field("checkpoint", &self.at()).finish()
    }
}
