//! Memory of this rank that peers reach through the network: whole pages, mapped for the life of the fabric.
//!
//! A region that is dropped gives its pages back to the system, but its addresses stay mapped, since a put of a peer
//! may be on its way: it then writes to fresh pages that nobody reads. What a dropped region costs is address space and
//! its first page, whose first word says that it is gone.
//!
//! A segment that is shown is mapped once more for the network, without such a page. When it is shown no more, zeroed
//! pages that take no memory come in the place of its own, so the addresses stay and the segment's memory can go.
#![expect(unsafe_code, reason = "bytes that peers write are reached by pointers")]

use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes before those of a region: a page, of which the first word says whose the rest is.
pub(super) const HEAD_BYTES: u64 = 4096;

/// The pages of a region.
pub(crate) struct Pages {
    map: MmapRaw,
    /// Where they lie.
    base: *mut u8,
    bytes: u64,
    /// Bytes before those of the region: [`HEAD_BYTES`], or none of a segment.
    head: u64,
}

// SAFETY: the pointer is that of the mapping, which goes with it; what lies there is reached by atomics and by copies
// of bytes for which any value is valid.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Zeroed pages for `bytes` bytes; the word says `number`.
    pub(super) fn new(bytes: u64, number: u64) -> std::io::Result<Pages> {
        let whole = HEAD_BYTES.saturating_add(bytes).checked_next_multiple_of(4096);
        let whole = whole.and_then(|whole| usize::try_from(whole).ok()).unwrap_or(usize::MAX);
        let map = MmapRaw::from(MmapMut::map_anon(whole)?);
        let base = map.as_mut_ptr();
        let pages = Pages { map, base, bytes, head: HEAD_BYTES };
        pages.word().store(number, Ordering::Release);
        Ok(pages)
    }

    /// Those of a segment's file, all of it.
    pub(super) fn of_file(file: &std::fs::File) -> std::io::Result<Pages> {
        let map = MmapOptions::new().map_raw(file)?;
        let (base, bytes) = (map.as_mut_ptr(), map.len() as u64);
        Ok(Pages { map, base, bytes, head: 0 })
    }

    /// Where they begin, and how many bytes of memory they are.
    pub(super) fn place(&self) -> (*mut u8, usize) {
        (self.base, self.map.len())
    }

    /// Copies from byte `offset` of the region; the caller has checked that it is inside.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        let from = self.at(offset, bytes.len());
        // SAFETY: `at` has found it inside the mapping. A peer that writes meanwhile makes bytes of either time.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Copies to byte `offset` of the region; the caller has checked that it is inside.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `at` has found it inside the mapping, to which no reference leads.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Says that the region is gone, and gives its pages back.
    pub(crate) fn retire(&self) {
        if self.head == 0 {
            return self.replace();
        }
        self.word().store(0, Ordering::Release);
        let bytes = self.map.len() - HEAD_BYTES as usize;
        // SAFETY: pages of this mapping, which nobody looks at any more; the mapping stays.
        let pages = unsafe { self.base.add(HEAD_BYTES as usize) };
        // SAFETY: as above. Refused only for pages that are locked, which then stay.
        let _ = unsafe { rustix::mm::madvise(pages.cast(), bytes, rustix::mm::Advice::LinuxDontNeed) };
    }

    /// Puts pages of zeros in the place of a segment's.
    fn replace(&self) {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: the whole of this mapping, to which no reference leads: the network alone reads it, by its address,
        // which stays mapped. Refused only for want of memory for the kernel's tables: then the old pages stay.
        let _ = unsafe {
            rustix::mm::mmap_anonymous(self.base.cast(), self.map.len(), protection, flags | MapFlags::FIXED)
        };
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the first word of a page, aligned and inside; reached by atomics and by the network only.
        unsafe { AtomicU64::from_ptr(self.base.cast()) }
    }

    fn at(&self, offset: u64, count: usize) -> *mut u8 {
        let inside = offset.checked_add(count as u64).is_some_and(|end| end <= self.bytes);
        assert!(inside, "bounds are checked by the caller");
        // SAFETY: inside the mapping, which is longer than the region by its head.
        unsafe { self.base.add((self.head + offset) as usize) }
    }
}
