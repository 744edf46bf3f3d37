//! Shared memory under a name: one sparse file in `/dev/shm`, mapped whole, filled in steps.
//!
//! # Layout of the file
//! | part | size | what |
//! |---|---|---|
//! | header | 4 KiB | magic, layout version, kind, word and byte order, uid, size, owner's pid and start time, state |
//! | members | 4096 x 64 B | a line per process, see `member` |
//! | agents | 8192 x 36 KiB | a record per thread, see `agent`; committed one by one |
//! | control | given at creation | the user's own: roots, tables |
//! | tables | 8 KiB per 8 MiB of heap | the heap's, see `heap`; committed as the heap grows |
//! | heap | the rest, up to `heap_bytes` | see `heap` |
//!
//! The file has its full length from the start and is empty at first: a part becomes memory when it is *committed*
//! (`fallocate`), so a full `/dev/shm` is an error there and never a signal later. The folder is `/dev/shm`, or what
//! `TARRAGON_SHM` names.
//!
//! # Life
//! Made without a name (`O_TMPFILE`), locked, then linked: nobody can see it unlocked. (Where the file system cannot
//! do that it is made under its name; a sweeper that was faster is noticed, and the next name tried.) Whoever maps it
//! holds the kernel's lock on its member's byte; the kernel drops it at death. The byte `GATE` is held for the moments
//! of attaching, detaching, and sweeping. The last one to leave unlinks, at the latest when the process exits or is
//! ended by SIGHUP, SIGINT or SIGTERM ([`signals`](crate::signals), which says whose handlers are left alone); after a
//! crash the next start of any program of the user sweeps: a file on which nobody holds a lock is unlinked.
//!
//! # Forks
//! The locks belong to the open file, which a forked child shares: a child that does not `exec` must not use segments
//! of its parent, and keeps the parent's membership alive as long as it lives.

#![expect(unsafe_code, reason = "declares what may lie in shared memory, and maps it")]

pub(crate) mod file;
mod leave;
mod life;
pub(crate) mod plan;
pub(crate) mod system;

use crate::agent::{AgentId, Locals};
use crate::error::SegmentError;
use crate::heap::ahead::Ahead;
use crate::sync::{AtomicU32, AtomicU64};
use memmap2::MmapRaw;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

#[cfg(not(loom))]
pub(crate) use life::random;

/// Types that may lie in shared memory: only atomics of fixed width (or arrays and `repr(C)` structs of them), valid
/// when zeroed, no pointers.
///
/// # Safety
/// All of the above.
pub unsafe trait Shared: Sync {}

// SAFETY: an atomic of fixed width.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an atomic of fixed width.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an array has its elements' layout and validity.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// What a segment is to be.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What it is for, in its name: "ddict", "queue", "world". At most 16 bytes, no `/`.
    pub kind: &'static str,
    /// Version of the layout of its control part and of what its users put in the heap.
    pub layout: u32,
    /// Bytes of the control part; committed at creation, zeroed.
    pub control_bytes: u64,
    /// The most bytes its heap may grow to.
    pub heap_bytes: u64,
}

/// A mapped segment, and this process's membership in it. One per process and file: opening it again gives the same.
pub struct Segment {
    map: MmapRaw,
    view: MmapRaw,
    bytes: u64,
    pub(crate) plan: plan::Plan,
    pub(crate) file: Arc<File>,
    pub(crate) folder: PathBuf,
    name: SegmentName,
    /// Number of this mapping in the process; never used again.
    pub(crate) serial: u64,
    /// This process's line.
    pub(crate) member: u32,
    /// Whether who pins passes no fence of its own, see `fence`.
    pub(crate) is_light: bool,
    pub(crate) this: Weak<Segment>,
    pub(crate) locals: Mutex<Locals>,
    /// Dead agents this process is settling right now.
    pub(crate) recovering: Mutex<Vec<AgentId>>,
    pub(crate) recovery: Recovery,
    /// A bit per 64 KiB of the heap whose pages this process has mapped.
    pub(crate) populated: Box<[std::sync::atomic::AtomicU64]>,
    pub(crate) ahead: Ahead,
    /// What the end of the process leaves; none for one that never became a member.
    listed: Option<leave::Listed>,
}

/// Where a segment is mapped in this process.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    start: *mut u8,
    bytes: u64,
}

// SAFETY: it is an address and a length; what is done with them is `at`'s matter.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// What [`Segment::at`] gives, without the way through the segment.
    ///
    /// # Safety
    /// The segment lives at least as long as what is returned.
    #[inline(always)]
    pub unsafe fn at<'s, T: Shared>(self, offset: u64) -> Option<&'s T> {
        const { assert!(size_of::<T>() <= TYPE_BYTES_MAX, "a type that may be larger than the segment") };
        let is_aligned = offset.is_multiple_of(align_of::<T>() as u64);
        // No segment is smaller than the largest type, so this does not wrap.
        if !is_aligned || offset > self.bytes - size_of::<T>() as u64 {
            return None;
        }
        // SAFETY: the offset lies in the mapping.
        let place = unsafe { self.start.add(offset as usize) };
        // SAFETY: the `T` lies inside of the mapping, which is there as long as the segment, and is aligned, since
        // the mapping is to a page; any bytes are a valid `T`, which has atomics only.
        Some(unsafe { &*place.cast() })
    }
}

/// The name of a segment: a file name without folder, and the random number that no other segment has.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct SegmentName {
    /// File name, as `tarragon-ddict-1000-4711-89123-0`: kind, user, pid of the maker, its start time, a count.
    pub file: String,
    /// Unique.
    pub uid: u128,
}

/// Which thread of this process recovers; threads of one process share the kernel's lock.
#[derive(Default)]
pub(crate) struct Recovery {
    pub(crate) turn: Mutex<()>,
    /// Number of the thread that has the turn; 0: none.
    pub(crate) thread: std::sync::atomic::AtomicU64,
}

/// The largest type that may lie at an offset: below the size of the smallest file.
const TYPE_BYTES_MAX: usize = 64 << 10;

impl Segment {
    /// Makes one. Sweeps leftovers of dead programs first, once per process.
    ///
    /// # Errors
    /// `Full` if header and control part do not fit, `System` if the folder cannot be written.
    pub fn create(spec: &Spec) -> Result<Arc<Self>, SegmentError> {
        life::create(spec)
    }

    /// Maps one that another process made; checks everything in its header. Recovers nobody: users do so who can
    /// settle.
    ///
    /// # Errors
    /// `Gone`, `Foreign`, `Layout`, `Owner`; `Members` if too many processes use it; `System`.
    pub fn open(name: &SegmentName, spec_kind: &'static str, layout: u32) -> Result<Arc<Self>, SegmentError> {
        life::open(name, spec_kind, layout)
    }

    /// Its name.
    pub fn name(&self) -> &SegmentName {
        &self.name
    }

    /// The file, where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name.file)
    }

    /// Takes the name away: nobody can attach any more. Who has it mapped keeps it. Idempotent.
    pub fn unlink(&self) {
        // Without the gate an attacher may come in just before; it keeps what it has mapped, as others do.
        let _gate = file::gate(&self.file);
        file::remove_name(&self.file, &self.path());
    }

    /// Offset of the control part.
    pub fn control(&self) -> u64 {
        plan::CONTROL
    }

    /// Length of the whole, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether users of the segment run the rare side of their fences on all cores ([`fence_all`](Self::fence_all)), so
    /// that the frequent side needs only to keep the compiler from turning its store and its load around.
    #[inline(always)]
    pub fn is_light(&self) -> bool {
        self.is_light
    }

    /// The rare side of a fence between all users of the segment: what any of them stored before is visible
    /// afterwards, and what any of them loads afterwards is not older. 0.4-15 µs.
    pub fn fence_all(&self) {
        crate::pin::heavy(self.is_light);
    }

    /// Where it is mapped, for who looks into it all the time: see [`Mapping::at`].
    pub fn mapping(&self) -> Mapping {
        Mapping { start: self.map.as_mut_ptr(), bytes: self.bytes }
    }

    /// A `T` at an offset, if it lies inside and is aligned.
    #[inline(always)]
    pub fn at<T: Shared>(&self, offset: u64) -> Option<&T> {
        const { assert!(size_of::<T>() <= TYPE_BYTES_MAX, "no file is sure to be that long") };
        if offset > self.bytes - size_of::<T>() as u64 || offset & (align_of::<T>() as u64 - 1) != 0 {
            return None;
        }
        // SAFETY: inside the mapping, by the compare above.
        let place = unsafe { self.map.as_mut_ptr().add(offset as usize) };
        // SAFETY: `T` is atomics only, valid with any bits, aligned since mappings are aligned to pages; the mapping
        // lives as long as `self`.
        Some(unsafe { &*place.cast::<T>() })
    }

    /// `count` of them.
    #[inline(always)]
    pub fn slice<T: Shared>(&self, offset: u64, count: u64) -> Option<&[T]> {
        let bytes = count.checked_mul(size_of::<T>() as u64)?;
        if offset & (align_of::<T>() as u64 - 1) != 0 {
            return None;
        }
        let place = self.write(offset, bytes);
        if place.is_null() {
            return None;
        }
        // SAFETY: `write` says that all of it lies inside the mapping; otherwise as in `at`.
        Some(unsafe { std::slice::from_raw_parts(place.cast::<T>(), count as usize) })
    }

    /// Bytes to be read, in the read-only mapping; null if they do not lie inside.
    #[inline(always)]
    pub fn read(&self, offset: u64, bytes: u64) -> *const u8 {
        if !self.is_inside(offset, bytes) {
            return std::ptr::null();
        }
        // SAFETY: inside the mapping.
        unsafe { self.view.as_ptr().add(offset as usize) }
    }

    /// Bytes to be written; null if they do not lie inside.
    #[inline(always)]
    pub fn write(&self, offset: u64, bytes: u64) -> *mut u8 {
        if !self.is_inside(offset, bytes) {
            return std::ptr::null_mut();
        }
        // SAFETY: inside the mapping.
        unsafe { self.map.as_mut_ptr().add(offset as usize) }
    }

    #[inline(always)]
    fn is_inside(&self, offset: u64, bytes: u64) -> bool {
        bytes <= self.bytes && offset <= self.bytes - bytes
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.name)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}
