//! The dictionary of bytes: keys and values as they lie in shared memory. Encodings and types are the handle's matter.

use crate::error::Error;
use std::ops::{ControlFlow, Deref};
use std::time::Instant;
use tarragon_transport::segment::SegmentName;

/// The longest key, in encoded bytes.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 16;

/// What a dictionary is made with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The most bytes its heap may grow to (index and values).
    pub(crate) memory_bytes: u64,
    /// Parts that have their own index.
    pub(crate) shards: u32,
    /// Whether a key that is not there is waited for, and must be written anew in each checkpoint.
    pub(crate) wait_for_keys: bool,
    /// Checkpoints that are kept, at least 1.
    pub(crate) working_set: u32,
    /// How long a wait may last if the caller does not say.
    pub(crate) timeout_ms: Option<u64>,
    /// Whether values beyond `CHECKSUM_BYTES_MAX` have checksums too.
    pub(crate) checksums: bool,
    /// Hash of the names and encodings of the types of keys and values.
    pub(crate) types: u64,
}

/// When a put writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// Whatever is there.
    Always,
    /// Only if the key is not there.
    Absent,
}

/// How a value is kept over checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// As the dictionary's `wait_for_keys` says: with it in this checkpoint only, else carried forward.
    Default,
    /// Carried forward to later checkpoints (`pput`).
    Persistent,
}

/// What `Store::update` does with what it was shown.
pub(crate) enum Change {
    /// Nothing.
    Leave,
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Takes the key out.
    Remove,
}

/// How full it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ShardFigures {
    pub(crate) keys: u64,
    pub(crate) value_bytes: u64,
    pub(crate) pages: u64,
}

/// A dictionary of bytes, mapped. `Send + Sync`; one per process and dictionary (clones of an `Arc`).
pub(crate) struct Store {
    _todo: (),
}

/// A value in place: no copy; it stays as it is until this is dropped, whatever happens to the key. Any thread may
/// drop it. If the thread has too many pins, a copy.
pub(crate) struct Pinned<'s> {
    _store: &'s Store,
}

impl Deref for Pinned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        todo!()
    }
}

impl Store {
    pub(crate) fn create(options: &Options) -> Result<Self, Error> {
        let _ = options;
        todo!()
    }

    /// Attaches; the options come from the segment. `types`: refused if another one was made with.
    pub(crate) fn open(name: &SegmentName) -> Result<Self, Error> {
        let _ = name;
        todo!()
    }

    pub(crate) fn name(&self) -> &SegmentName {
        todo!()
    }

    /// What it was made with.
    pub(crate) fn options(&self) -> &Options {
        todo!()
    }

    /// Shows the value of a key to `read`, if it is there. The bytes are 64-byte aligned if longer than 16. `read` is
    /// called once.
    #[inline]
    pub(crate) fn get<R>(
        &self,
        key: &[u8],
        checkpoint: u32,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        let _ = (key, checkpoint, read);
        todo!()
    }

    /// The value in place.
    pub(crate) fn pin(&self, key: &[u8], checkpoint: u32) -> Result<Option<Pinned<'_>>, Error> {
        let _ = (key, checkpoint);
        todo!()
    }

    /// As `pin`, and compares the checksum.
    pub(crate) fn pin_verified(&self, key: &[u8], checkpoint: u32) -> Result<Option<Pinned<'_>>, Error> {
        let _ = (key, checkpoint);
        todo!()
    }

    /// Whether the key is there.
    pub(crate) fn contains(&self, key: &[u8], checkpoint: u32) -> Result<bool, Error> {
        let _ = (key, checkpoint);
        todo!()
    }

    /// Writes; whether it did (`When`).
    pub(crate) fn put(
        &self,
        key: &[u8],
        checkpoint: u32,
        value: &[u8],
        when: When,
        keep: Keep,
    ) -> Result<bool, Error> {
        let _ = (key, checkpoint, value, when, keep);
        todo!()
    }

    /// Writes a value of `len` bytes that `fill` makes in place. If `fill` panics or fails nothing is written.
    pub(crate) fn put_with<E>(
        &self,
        key: &[u8],
        checkpoint: u32,
        len: u64,
        keep: Keep,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let _ = (key, checkpoint, len, keep, fill);
        todo!()
    }

    /// Shows the value to `change` and does what it says, as one step: nobody writes the key in between. `change` must
    /// not use the dictionary, may be called again if the key changed meanwhile, and sees the newest value.
    pub(crate) fn update(
        &self,
        key: &[u8],
        checkpoint: u32,
        change: &mut dyn FnMut(Option<&[u8]>) -> Change,
    ) -> Result<(), Error> {
        let _ = (key, checkpoint, change);
        todo!()
    }

    /// Takes the key out and shows its last value to `read`.
    pub(crate) fn remove<R>(
        &self,
        key: &[u8],
        checkpoint: u32,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        let _ = (key, checkpoint, read);
        todo!()
    }

    /// Takes all keys of this checkpoint out.
    pub(crate) fn clear(&self, checkpoint: u32) -> Result<(), Error> {
        let _ = checkpoint;
        todo!()
    }

    /// Keys that the checkpoint sees. A scan of the index's page heads where checkpoints were never used, else of it all.
    pub(crate) fn len(&self, checkpoint: u32) -> Result<u64, Error> {
        let _ = checkpoint;
        todo!()
    }

    /// Shows every key that the checkpoint sees in shard `shard`, page by page from `cursor` (0 at first); returns the
    /// next cursor, `None` at the end. Weakly consistent: keys that are there all the time are shown exactly once. The value is
    /// pinned only if asked for.
    pub(crate) fn scan(
        &self,
        shard: u32,
        checkpoint: u32,
        cursor: u64,
        values: bool,
        each: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<Option<u64>, Error> {
        let _ = (shard, checkpoint, cursor, values, each);
        todo!()
    }

    /// Sleeps until the key may have changed, or the deadline: look again afterwards. `seen`: from `watch`, taken
    /// before the last look.
    pub(crate) fn wait(&self, key: &[u8], seen: Watch, deadline: Option<Instant>) -> Result<(), Error> {
        let _ = (key, seen, deadline);
        todo!()
    }

    /// What `wait` needs to miss nothing.
    pub(crate) fn watch(&self, key: &[u8]) -> Watch {
        let _ = key;
        todo!()
    }

    /// Which shard a key belongs to.
    pub(crate) fn shard_of(&self, key: &[u8]) -> u32 {
        let _ = key;
        todo!()
    }

    /// The newest checkpoint anybody wrote to, and the oldest that is kept.
    pub(crate) fn checkpoints(&self) -> (u32, u32) {
        todo!()
    }

    /// Stops, or allows, writes.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let _ = frozen;
        todo!()
    }

    pub(crate) fn is_frozen(&self) -> bool {
        todo!()
    }

    /// Ends it for everybody: all waiting and all later operations fail with `Gone`.
    pub(crate) fn destroy(&self) {
        todo!()
    }

    pub(crate) fn figures(&self, shard: u32, checkpoint: u32) -> Result<ShardFigures, Error> {
        let _ = (shard, checkpoint);
        todo!()
    }

    pub(crate) fn usage(&self) -> tarragon_transport::heap::Usage {
        todo!()
    }

    /// Leaked and dangling blocks, while nobody writes.
    pub(crate) fn audit(&self) -> Result<tarragon_transport::heap::Audit, Error> {
        todo!()
    }

    /// Finishes or undoes what dead processes left; how many threads of theirs.
    pub(crate) fn recover(&self) -> usize {
        todo!()
    }
}

/// State of a key's waiters, see `Store::watch`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch(pub(crate) u32);
