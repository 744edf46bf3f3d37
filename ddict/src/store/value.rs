//! The bytes of values: read in place under a pin, or copied when they are few; written into fresh blocks.

#![expect(unsafe_code, reason = "shows bytes of shared memory in place, and fills them")]

use super::entry::{BLOCK, INLINE_MAX, Slot};
use super::layout::Word;
use super::lookup::Seen;
use super::{Store, damaged};
use crate::error::Error;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use tarragon_transport::agent::Agent;
use tarragon_transport::heap::Held;
use tarragon_transport::pin::Pin;
use tarragon_transport::segment::Shared;
use xxhash_rust::xxh3::xxh3_64;

/// Values in blocks up to this many bytes are copied to the stack rather than pinned.
const COPY_MAX: usize = 256;
/// Values up to this many bytes always have a checksum.
pub(crate) const CHECKSUM_BYTES_MAX: u64 = 16 << 10;

/// A value in place: no copy; it stays as it is until this is dropped, whatever happens to the key. Any thread may
/// drop it. Short values, and those of a thread that has too many pins, are copied.
pub(crate) struct Pinned<'s>(Bytes<'s>);

enum Bytes<'s> {
    /// Words, not bytes: a guard is moved about, and words are moved as such.
    Short {
        words: [u64; 2],
        len: u64,
    },
    InPlace {
        bytes: &'s [u8],
        _pin: Pin<'s>,
    },
    Copied {
        words: Box<[Line]>,
        len: usize,
    },
}

/// Bytes aligned as a block's are.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

#[repr(align(64))]
struct Aligned<const N: usize>([u8; N]);

impl Deref for Pinned<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { words, len } => &bytemuck::bytes_of(words)[..*len as usize],
            Bytes::InPlace { bytes, .. } => bytes,
            // SAFETY: lines are arrays of bytes without padding, and `len` is at most their length.
            Bytes::Copied { words, len } => unsafe {
                std::slice::from_raw_parts(words.as_ptr().cast(), *len)
            },
        }
    }
}

/// A value that lies in its entry.
#[inline(always)]
fn pin_short<'s>(seen: &Seen<'s>) -> Option<Pinned<'s>> {
    let (form, slot) = (seen.ctl.form(), seen.slot);
    let is_short = form <= INLINE_MAX as u64;
    is_short.then(|| Pinned(Bytes::Short { words: slot.0.map(u64::to_le), len: form }))
}

impl Pinned<'static> {
    /// Bytes that came from elsewhere, copied.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_MAX {
            let slot = Slot::inline(bytes);
            return Self(Bytes::Short { words: slot.0.map(u64::to_le), len: bytes.len() as u64 });
        }
        Self(Bytes::Copied { words: lines_of(bytes), len: bytes.len() })
    }

    /// Bytes that came from elsewhere.
    pub(crate) fn of(buffer: Buffer) -> Self {
        Self(Bytes::Copied { words: buffer.lines, len: buffer.len })
    }
}

/// Lines with these bytes, and zeros behind them.
fn lines_of(bytes: &[u8]) -> Box<[Line]> {
    let mut lines = vec![Line([0; 64]); bytes.len().div_ceil(64)];
    for (line, chunk) in lines.iter_mut().zip(bytes.chunks(64)) {
        line.0[..chunk.len()].copy_from_slice(chunk);
    }
    lines.into()
}

/// Memory of this process for the bytes of a value, aligned as a block is.
pub(crate) struct Buffer {
    lines: Box<[Line]>,
    len: usize,
}

impl Buffer {
    /// Of `len` zeros.
    pub(crate) fn new(len: usize) -> Self {
        Self { lines: vec![Line([0; 64]); len.div_ceil(64)].into(), len }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: lines are arrays of bytes without padding, and `len` is at most their length.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<'s> Pinned<'s> {
    /// Its first `len` bytes.
    pub(crate) fn shortened(self, len: usize) -> Self {
        let len = len.min((*self).len());
        Self(match self.0 {
            Bytes::Short { words, .. } => Bytes::Short { words, len: len as u64 },
            Bytes::InPlace { bytes, _pin } => Bytes::InPlace { bytes: &bytes[..len], _pin },
            Bytes::Copied { words, .. } => Bytes::Copied { words, len },
        })
    }
}

impl Pinned<'_> {
    /// No bytes.
    pub(super) fn empty() -> Self {
        Self(Bytes::Short { words: [0; 2], len: 0 })
    }
}

/// A value that was written and not yet published. Dropped, it frees its block.
pub(super) struct Fresh<'s> {
    pub(super) slot: Slot,
    pub(super) form: u64,
    held: Option<Held>,
    agent: &'s Agent<'s>,
}

impl<'s> Fresh<'s> {
    /// What lies in the entry alone.
    pub(super) fn without_block(agent: &'s Agent<'s>, slot: Slot, form: u64) -> Self {
        Self { slot, form, held: None, agent }
    }

    /// Offset of its block, 0 without one.
    pub(super) fn block(&self) -> u64 {
        self.held.map_or(0, |held| held.block.offset)
    }

    /// It was published: the block is the dictionary's now.
    #[inline(always)]
    pub(super) fn published(&mut self) {
        if let Some(held) = self.held.take() {
            self.agent.segment.forget(self.agent, held);
        }
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held {
            self.agent.segment.free(self.agent.record, held);
        }
    }
}

impl Store {
    /// A `T` at an offset of the segment, if it lies inside and is aligned.
    #[inline(always)]
    pub(super) fn at<T: Shared>(&self, offset: u64) -> Option<&T> {
        // SAFETY: the store holds the segment, and what is returned borrows the store.
        unsafe { self.mapping.at(offset) }
    }

    /// Writes a value where nobody sees it yet.
    #[inline(always)]
    pub(super) fn fresh<'s>(&'s self, agent: &'s Agent<'s>, value: &[u8]) -> Result<Fresh<'s>, Error> {
        if value.len() <= INLINE_MAX {
            return Ok(Fresh { slot: Slot::inline(value), form: value.len() as u64, held: None, agent });
        }
        let filled = self.fresh_with(agent, value.len() as u64, |bytes| {
            bytes.copy_from_slice(value);
            Ok::<(), std::convert::Infallible>(())
        });
        filled.map(|filled| filled.unwrap_or_else(|never| match never {}))
    }

    /// Writes a value of `len` bytes by `fill`. If that panics, the block is freed.
    pub(super) fn fresh_with<'s, E>(
        &'s self,
        agent: &'s Agent<'s>,
        len: u64,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<Fresh<'s>, E>, Error> {
        if len <= INLINE_MAX as u64 {
            let mut bytes = Aligned([0; INLINE_MAX]);
            let bytes = &mut bytes.0[..len as usize];
            return Ok(fill(bytes).map(|()| Fresh {
                slot: Slot::inline(bytes),
                form: len,
                held: None,
                agent,
            }));
        }
        let summed = len <= CHECKSUM_BYTES_MAX || self.options.checksums;
        let whole = if summed { len.next_multiple_of(8) + 8 } else { len };
        let held = self.segment.alloc(agent, whole)?;
        let offset = held.block.offset;
        let fresh = Fresh { slot: Slot::block(offset, len, summed), form: BLOCK, held: Some(held), agent };
        let start = self.segment.write(offset, whole);
        if start.is_null() {
            return Err(damaged("the place of a block", offset));
        }
        // SAFETY: the block was given to this thread alone, which publishes it after this slice is gone. Its bytes
        // are initialised: shared memory is zeroed before it is given out.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, len as usize) };
        if let Err(error) = fill(bytes) {
            return Ok(Err(error));
        }
        if summed {
            let word = self.segment.at::<Word>(offset + whole - 8);
            word.expect("it was allocated").0.store(xxh3_64(bytes), Ordering::Relaxed);
        }
        Ok(Ok(fresh))
    }

    /// Writes the bytes of a long key where nobody sees it yet.
    pub(super) fn fresh_key<'s>(&'s self, agent: &'s Agent<'s>, key: &[u8]) -> Result<Fresh<'s>, Error> {
        let held = self.segment.alloc(agent, key.len().next_multiple_of(8) as u64)?;
        let fresh = Fresh { slot: Slot::default(), form: BLOCK, held: Some(held), agent };
        let words = self.segment.slice::<Word>(held.block.offset, key.len().div_ceil(8) as u64);
        let words = words.ok_or_else(|| damaged("the place of a block", held.block.offset))?;
        for (word, chunk) in words.iter().zip(key.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.0.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        Ok(fresh)
    }

    /// Bytes of a block, copied. They mean something only if the entry still shows the block afterwards.
    pub(super) fn copied(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let words = self.segment.slice::<Word>(offset, len.div_ceil(8))?;
        let mut bytes: Vec<u8> =
            words.iter().flat_map(|w| w.0.load(Ordering::Relaxed).to_le_bytes()).collect();
        bytes.truncate(len as usize);
        Some(bytes)
    }

    /// Shows the value in a block, if the entry still has it; else gives `read` back.
    pub(crate) fn show<R, F: FnOnce(&[u8]) -> R>(
        &self,
        seen: &Seen<'_>,
        read: F,
    ) -> Result<Result<R, F>, Error> {
        let len = seen.slot.len();
        if len > COPY_MAX as u64 {
            return match self.pin_seen(seen)? {
                Some(pinned) => Ok(Ok(read(&pinned))),
                None => Ok(Err(read)),
            };
        }
        let words = self.segment.slice::<Word>(seen.slot.offset(), len.div_ceil(8));
        let words = words.ok_or_else(|| self.damaged_value(seen))?;
        let mut bytes = Aligned([0; COPY_MAX]);
        for (word, chunk) in words.iter().zip(bytes.0.chunks_exact_mut(8)) {
            chunk.copy_from_slice(&word.0.load(Ordering::Relaxed).to_le_bytes());
        }
        Ok(if seen.entry.is_still(seen.ctl) { Ok(read(&bytes.0[..len as usize])) } else { Err(read) })
    }

    /// The value of an entry in place, if nothing stands in the way; else `pin_seen` says what does.
    #[inline(always)]
    pub(crate) fn pin_fast<'s>(&'s self, seen: &Seen<'s>) -> Option<Pinned<'s>> {
        match pin_short(seen) {
            Some(pinned) => Some(pinned),
            None => self.pin_by(&self.segment.recent_agent()?, seen),
        }
    }

    /// The same, by this thread's agent, if its bytes `are_good`; counts it as a hit of the hash of its key. Otherwise
    /// nothing was done, so that whoever goes another way then counts it there.
    #[inline(always)]
    pub(crate) fn pin_counted<'s>(
        &'s self,
        seen: &Seen<'s>,
        hash: u64,
        are_good: impl FnOnce(&[u8]) -> bool,
    ) -> Option<Pinned<'s>> {
        let agent = self.segment.recent_agent()?;
        let pinned = match pin_short(seen) {
            Some(pinned) => pinned,
            None => self.pin_by(&agent, seen)?,
        };
        if !are_good(&pinned) {
            return None;
        }
        agent.count(self.index_for(hash) as usize);
        Some(pinned)
    }

    #[inline(always)]
    fn pin_by<'s>(&'s self, agent: &Agent<'s>, seen: &Seen<'s>) -> Option<Pinned<'s>> {
        let (form, slot) = (seen.ctl.form(), seen.slot);
        let (offset, len) = (slot.offset(), slot.len());
        let start = self.segment.read(offset, len);
        if form != BLOCK || start.is_null() {
            return None;
        }
        let pin = agent.pin(offset)?;
        if !seen.entry.is_still(seen.ctl) {
            return None;
        }
        // SAFETY: the bytes lie inside of the mapping, which lives as long as the store. A published value is not
        // written to, and the pin, set before the entry was looked at again, keeps its block from being used anew.
        let bytes = unsafe { std::slice::from_raw_parts(start, len as usize) };
        Some(Pinned(Bytes::InPlace { bytes, _pin: pin }))
    }

    /// The value of an entry in place; `None` if the entry has another one meanwhile.
    pub(super) fn pin_seen<'s>(&'s self, seen: &Seen<'s>) -> Result<Option<Pinned<'s>>, Error> {
        if let Some(pinned) = self.pin_fast(seen) {
            return Ok(Some(pinned));
        }
        if !seen.entry.is_still(seen.ctl) {
            return Ok(None);
        }
        if self.segment.read(seen.slot.offset(), seen.slot.len()).is_null() {
            return Err(self.damaged_value(seen));
        }
        if self.segment.recent_agent().is_none() {
            self.segment.agent()?;
            return self.pin_seen(seen);
        }
        self.pin_copied(seen)
    }

    #[inline(never)]
    fn pin_copied<'s>(&'s self, seen: &Seen<'s>) -> Result<Option<Pinned<'s>>, Error> {
        let (offset, len) = (seen.slot.offset(), seen.slot.len());
        let copied = self.copied(offset, len).ok_or_else(|| self.damaged_value(seen))?;
        if !seen.entry.is_still(seen.ctl) {
            return Ok(None);
        }
        Ok(Some(Pinned(Bytes::Copied { words: lines_of(&copied), len: copied.len() })))
    }

    /// The checksum of a value, as it was put: `None` if it has none.
    pub(super) fn checksum_of(&self, seen: &Seen<'_>) -> Option<u64> {
        let slot = seen.slot;
        let is_summed = seen.ctl.form() == BLOCK && slot.is_summed();
        let at = slot.offset().checked_add(slot.len().checked_next_multiple_of(8)?)?;
        is_summed.then(|| self.segment.at::<Word>(at))?.map(|word| word.0.load(Ordering::Relaxed))
    }

    pub(super) fn checksum(bytes: &[u8]) -> u64 {
        xxh3_64(bytes)
    }

    fn damaged_value(&self, seen: &Seen<'_>) -> Error {
        damaged("the place of a value", self.offset_of(seen.entry))
    }
}
