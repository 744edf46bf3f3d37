//! Memory that processes of a bench share: words they read and write by atomic operations, and plain bytes beside them.
//! Floors are built on it and on nothing else; what the words mean is left to them.
#![expect(unsafe_code, reason = "maps a file that other processes write to meanwhile")]

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Shared memory without a name: it goes with the last process that maps it, however that ends.
pub(crate) struct Page {
    map: MmapRaw,
    file: File,
}

impl Page {
    /// A new page of so many words, each of which has been touched.
    pub(crate) fn create(words: usize) -> Self {
        let file = File::from(memfd_create("bench", MemfdFlags::CLOEXEC).expect("memory with a file"));
        ftruncate(&file, words as u64 * 8).expect("a length");
        Self::map(file)
    }

    /// The page of another process of this bench.
    pub(crate) fn open(address: &str) -> Self {
        Self::map(OpenOptions::new().read(true).write(true).open(address).expect("its owner lives"))
    }

    fn map(file: File) -> Self {
        let map = MmapOptions::new().populate().map_raw(&file).expect("a mapping");
        Self { map, file }
    }

    /// What `open` takes, for as long as this process has the page.
    pub(crate) fn address(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// The whole page.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let first = self.map.as_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping is page-aligned, as long as said, and lives as long as `self`; any bits are a number, and
        // everybody who reads words that others write does it through this.
        unsafe { std::slice::from_raw_parts(first, self.map.len() / 8) }
    }

    /// A word as a futex takes it; the same word is never used at its full width.
    pub(crate) fn futex(&self, word: usize) -> &AtomicU32 {
        let whole = &self.words()[word];
        // SAFETY: the lower half of a word that lives as long as `self`, aligned by being at its start.
        unsafe { &*std::ptr::from_ref(whole).cast::<AtomicU32>() }
    }

    /// Copies bytes to the place that begins with a word.
    pub(crate) fn copy_in(&self, word: usize, bytes: &[u8]) {
        assert!((self.map.len() - word * 8) >= bytes.len(), "beyond the page");
        // SAFETY: not beyond the mapping.
        let to = unsafe { self.map.as_mut_ptr().add(word * 8) };
        // SAFETY: checked above to be within the mapping; no reference to plain bytes of a page exists, and a reader of
        // its words checks a version or has been told that they are whole.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
}
