//! The run directory: where the output of a batch's processes goes, two files for each.
//!
//! It is made when the first process starts, holds at most [`PER_FOLDER`] tasks' files in a folder, and goes with the
//! batch, unless the user asked to keep it or a task of the batch failed.

use parking_lot::Mutex;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tarragon_supervisor::job::Table;

/// What the folder of a job's own files ends with, beside its output.
pub(crate) const JOB: &str = "job";
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum Which {
    Out,
    Err,
}

impl Which {
    /// What names of its files end with.
    pub(crate) fn end(self) -> &'static str {
        if self == Which::Out { "out" } else { "err" }
    }
}

/// Something that a task has written, or that is told of it in a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Portion {
    Whole(Which),
    /// Of one rank of a job.
    OfRank(u32, Which),
    /// What became of a job's ranks.
    Table,
}

impl Portion {
    /// Its file, for a process with these.
    pub(crate) fn path(self, whole: impl Fn(Which) -> PathBuf) -> PathBuf {
        let folder = || whole(Which::Out).with_extension(JOB);
        match self {
            Portion::Whole(which) => whole(which),
            Portion::OfRank(rank, which) => folder().join(format!("{rank}.{}", which.end())),
            Portion::Table => Table::path(&folder()),
        }
    }

    /// All that there is of a job in its folder.
    pub(crate) fn of_job(folder: &Path) -> Vec<Portion> {
        let mut pieces = vec![Portion::Table];
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some((rank, end)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let which = [Which::Out, Which::Err].into_iter().find(|which| which.end() == end);
            pieces.extend(rank.parse().ok().zip(which).map(|(rank, which)| Portion::OfRank(rank, which)));
        }
        pieces
    }
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
        self.named(number, which.end())
    }

    /// A file with what a task reads on its standard input.
    pub(crate) fn input(&self, number: u64) -> PathBuf {
        self.named(number, "in")
    }

    /// The folder of a job's own files.
    pub(crate) fn job(&self, number: u64) -> PathBuf {
        self.named(number, JOB)
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
