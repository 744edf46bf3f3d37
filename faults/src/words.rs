//! A page of words that processes of one test share: what a child did is known after it was killed.
//!
//! Anonymous memory of the process that made it, so nothing stays behind; others open it by its path while that
//! process lives.

#![expect(unsafe_code, reason = "hands out references into a mapping that others write")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, memfd_create};

/// How many words a page has.
pub const WORDS: usize = 512;

const BYTES: usize = WORDS * size_of::<u64>();

/// 512 words of 64 bits, zero at first, that live as long as a process has them mapped.
///
/// ```
/// use std::sync::atomic::Ordering::SeqCst;
/// use tarragon_faults::Words;
///
/// let ours = Words::create()?;
/// let theirs = Words::open(&ours.path())?; // in another process, which was told the path
/// theirs.word(3).store(7, SeqCst);
/// assert_eq!(ours.word(3).load(SeqCst), 7);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Words {
    file: File,
    map: MmapRaw,
}

impl Words {
    /// A new page of zeros.
    ///
    /// # Errors
    ///
    /// What the system says: no memory, too many files.
    pub fn create() -> io::Result<Self> {
        let file = File::from(memfd_create("faults", MemfdFlags::CLOEXEC)?);
        file.set_len(BYTES as u64)?;
        Self::map(file)
    }

    /// The page at `path`, as [`Words::path`] told it in the process that made it.
    ///
    /// # Errors
    ///
    /// `NotFound` if that process has ended or closed it; what the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::map(OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn map(file: File) -> io::Result<Self> {
        let map = MmapOptions::new().len(BYTES).map_raw(&file)?;
        Ok(Self { file, map })
    }

    /// Where other processes of the same user open this page, while this process has it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// The word at `index`.
    ///
    /// # Panics
    ///
    /// If `index` is not below 512.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS, "a page has {WORDS} words");
        // SAFETY: the mapping is aligned to a page, at least `BYTES` long, and lives as long as `self`; `index` was
        // checked above. All processes reach it by atomics only.
        unsafe { &*self.map.as_ptr().cast::<AtomicU64>().add(index) }
    }

    /// The lower half of the word at `index`, to sleep on. A word is used whole or by half, never both ways.
    pub(crate) fn half(&self, index: usize) -> &AtomicU32 {
        assert!(index < WORDS, "a page has {WORDS} words");
        // SAFETY: as in `word`; half a word is aligned for 32 bits.
        unsafe { &*self.map.as_ptr().cast::<AtomicU64>().add(index).cast::<AtomicU32>() }
    }
}
