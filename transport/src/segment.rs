//! Shared memory under a name: one sparse file in `/dev/shm`, mapped whole, filled in steps.
//!
//! # Layout of the file
//! | part | size | what |
//! |---|---|---|
//! | header | 4 KiB | magic, layout version, kind, word and byte order, uid, size, owner's pid and start time, state |
//! | members | 4096 x 64 B | a line per process, see `member` |
//! | agents | 8192 x 16 KiB | a record per thread, see `agent`; committed one by one |
//! | control | given at creation | the user's own: roots, tables |
//! | heap | the rest, up to `bytes_max` | see `heap` |
//!
//! The file has its full length from the start and is empty at first: a part becomes memory when it is *committed*
//! (`fallocate`), so a full `/dev/shm` is an error there and never a signal later.
//!
//! # Life
//! Made without a name (`O_TMPFILE`), locked, then linked: nobody can see it unlocked. Whoever maps it holds the
//! kernel's lock on its member's byte; the kernel drops it at death. The byte `GATE` is held for the moments of
//! attaching, detaching, and sweeping. The last one to leave unlinks; after a crash the next start of any program of
//! the user sweeps: a file on which nobody holds a lock is unlinked.

#![expect(unsafe_code, reason = "declares what may lie in shared memory, and maps it")]

use crate::error::SegmentError;
use std::path::PathBuf;
use std::sync::Arc;

/// Types that may lie in shared memory: only atomics of fixed width (or arrays and `repr(C)` structs of them), valid
/// when zeroed, no pointers.
///
/// # Safety
/// All of the above.
pub unsafe trait Shared: Sync {}

/// What a segment is to be.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What it is for, in its name: "ddict", "queue", "world".
    pub kind: &'static str,
    /// Version of the layout of its control part and of what its users put in the heap.
    pub layout: u32,
    /// Bytes of the control part; committed at creation.
    pub control_bytes: u64,
    /// The most bytes its heap may grow to.
    pub heap_bytes: u64,
}

/// A mapped segment, and this process's membership in it. One per process and file: opening it again gives the same.
pub struct Segment {
    _todo: (),
}

/// The name of a segment: a file name without folder, and the random number that no other segment has.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct SegmentName {
    /// File name, as `tarragon-ddict-1000-4711-89123-0`: kind, user, pid of the maker, its start time, a count.
    pub file: String,
    /// Unique.
    pub uid: u128,
}

impl Segment {
    /// Makes one. Sweeps leftovers of dead programs first, once per process.
    pub fn create(spec: &Spec) -> Result<Arc<Self>, SegmentError> {
        let _ = spec;
        todo!()
    }

    /// Maps one that another process made; checks everything in its header.
    pub fn open(name: &SegmentName, spec_kind: &'static str, layout: u32) -> Result<Arc<Self>, SegmentError> {
        let _ = (name, spec_kind, layout);
        todo!()
    }

    /// Its name.
    pub fn name(&self) -> &SegmentName {
        todo!()
    }

    /// The file, where it is.
    pub fn path(&self) -> PathBuf {
        todo!()
    }

    /// Takes the name away: nobody can attach any more. Who has it mapped keeps it. Idempotent.
    pub fn unlink(&self) {
        todo!()
    }

    /// Offset of the control part.
    pub fn control(&self) -> u64 {
        todo!()
    }

    /// A `T` at an offset, if it lies inside and is aligned.
    #[inline(always)]
    pub fn at<T: Shared>(&self, offset: u64) -> Option<&T> {
        let _ = offset;
        todo!()
    }

    /// `count` of them.
    #[inline(always)]
    pub fn slice<T: Shared>(&self, offset: u64, count: u64) -> Option<&[T]> {
        let _ = (offset, count);
        todo!()
    }

    /// Bytes to be read, in the read-only mapping; null if they do not lie inside.
    #[inline(always)]
    pub fn read(&self, offset: u64, bytes: u64) -> *const u8 {
        let _ = (offset, bytes);
        todo!()
    }

    /// Bytes to be written; null if they do not lie inside.
    #[inline(always)]
    pub fn write(&self, offset: u64, bytes: u64) -> *mut u8 {
        let _ = (offset, bytes);
        todo!()
    }
}
