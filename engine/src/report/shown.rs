//! A run as its user has it: to print, and to write into files.

use super::record::RunRecord;
use super::{html, table, trace};
use crate::error::Error;
use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Characters of a line when nobody says how wide the terminal is.
const WIDTH: usize = 100;

/// One run to look at: a table, a page and a trace. Made by [`Compiled::report`](crate::Compiled::report); keeps no
/// task alive. Displays as its table, 100 characters wide.
///
/// ```
/// use tarragon_engine::{Batch, tasks};
///
/// let batch = Batch::builder().timing(true).build()?;
/// let task = batch.function(|| 1u8, ()).name("one");
/// let compiled = batch.compile(tasks![task])?;
/// compiled.run()?;
/// let report = compiled.report().expect("the batch measures, and a run has ended");
/// assert!(report.to_string().contains("one"));
/// # let dir = tempfile::tempdir()?;
/// report.write_html(dir.path().join("run.html"))?;
/// report.write_trace(dir.path().join("run.json"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    run: RunRecord,
}

impl Report {
    pub(crate) fn new(run: RunRecord) -> Self {
        Self { run }
    }

    /// The run in lines of at most `width` characters (40 at least): counts, work, critical path, the names that took
    /// the most time, what each rank did, and which tasks failed and why.
    pub fn table(&self, width: usize) -> String {
        table::table(&self.run, width)
    }

    /// Writes the run as one page that needs nothing else, not even a network: timeline, graph, slowest and failed
    /// tasks. The file appears when it is complete, and replaces one that is there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        write(path.as_ref(), |file| html::write(&self.run, file))
    }

    /// Writes the run as a trace for <https://ui.perfetto.dev> and `chrome://tracing`: a process per rank, one lane per
    /// worker and per process slot, a slice per task. The file appears when it is complete, and replaces one that is
    /// there.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_trace(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        write(path.as_ref(), |file| trace::write(&self.run, file))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table(WIDTH).trim_end())
    }
}

/// Writes a file under another name beside it and renames it, so that nobody finds half of it.
fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let error = |source| Error::File { verb: "write", path: path.to_path_buf(), source };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut options = tempfile::Builder::new();
    // A file of the user's own, with the rights that any new one has.
    options.prefix(".tarragon-").permissions(Permissions::from_mode(0o666));
    let mut file = options.tempfile_in(directory).map_err(error)?;
    fill(file.as_file_mut()).map_err(error)?;
    file.persist(path).map_err(|failed| error(failed.error))?;
    Ok(())
}
