//! The run directory: where the output of a batch's processes goes, two files for each.
//!
//! It is made when the first process starts, holds at most [`PER_FOLDER`] tasks' files in a folder, and goes with the
//! batch, unless the user asked to keep it or a task of the batch failed.

use parking_lot::Mutex;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Tasks whose files share a folder.
const PER_FOLDER: u64 = 500;

/// The output files of one batch.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// Where the user wants it.
    wanted: Option<PathBuf>,
    keep: bool,
    path: Mutex<Option<PathBuf>>,
    next: AtomicU64,
    /// Folders made so far are those below this.
    made: Mutex<u64>,
    failed: AtomicBool,
}

/// Which of a task's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Which {
    Out,
    Err,
}

impl Outputs {
    pub(crate) fn new(wanted: Option<PathBuf>, keep: bool) -> Self {
        Self {
            wanted,
            keep,
            path: Mutex::default(),
            next: AtomicU64::new(0),
            made: Mutex::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// Where the directory is, or is to be.
    pub(crate) fn place(&self) -> PathBuf {
        let made = self.path.lock().clone();
        made.or_else(|| self.wanted.clone()).unwrap_or_else(std::env::temp_dir)
    }

    /// The directory, made when it is not there.
    fn directory(&self) -> io::Result<PathBuf> {
        let mut place = self.path.lock();
        if let Some(path) = &*place {
            return Ok(path.clone());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix("tarragon-").disable_cleanup(true);
        let path = match &self.wanted {
            None => builder.tempdir()?.path().to_path_buf(),
            Some(path) => {
                fs::create_dir_all(path)?;
                builder.prefix("run-").tempdir_in(path.canonicalize()?)?.path().to_path_buf()
            }
        };
        *self.made.lock() = self.next.load(Ordering::Relaxed) / PER_FOLDER;
        Ok(place.insert(path).clone())
    }

    /// The number of a task's files, whose folder is there.
    pub(crate) fn number(&self) -> io::Result<u64> {
        let directory = self.directory()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = number / PER_FOLDER;
        let mut made = self.made.lock();
        while *made <= folder {
            fs::create_dir_all(directory.join(format!("{made:05}")))?;
            *made += 1;
        }
        Ok(number)
    }

    /// One of a task's files.
    pub(crate) fn file(&self, number: u64, which: Which) -> PathBuf {
        self.named(number, if which == Which::Out { "out" } else { "err" })
    }

    /// A file with what a task reads on its standard input.
    pub(crate) fn input(&self, number: u64) -> PathBuf {
        self.named(number, "in")
    }

    fn named(&self, number: u64, end: &str) -> PathBuf {
        let directory = self.path.lock().clone().unwrap_or_default();
        directory.join(format!("{:05}/{number}.{end}", number / PER_FOLDER))
    }

    /// A task of the batch failed: the files stay.
    pub(crate) fn task_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Removes the directory, unless it is to stay. Numbers go on; another process gets a new directory.
    pub(crate) fn remove(&self) {
        if self.keep || self.failed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(path) = self.path.lock().take() {
            // It may be gone already, or in use by somebody who looks at it: then it stays.
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.remove();
    }
}
