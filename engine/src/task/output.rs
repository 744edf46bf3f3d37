//! What a task wrote: a function to its context, kept in memory up to a bound, then in an unnamed file; a process to
//! two files of the run directory. Read through a [`Stream`].

use super::record::Ref;
use crate::cohort::Cohort;
use crate::error::TaskError;
use crate::outputs::Outputs;
pub(crate) use crate::outputs::{Portion, Which};
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::SpooledTempFile;

/// Bytes of one stream kept in memory; what comes after makes it a file without a name, which no crash can leave
/// behind.
const IN_MEMORY_BYTES_MAX: usize = 1 << 20;

/// What tasks of this rank take of what others wrote that are of other lists.
#[derive(Default)]
pub(crate) struct Heard {
    /// In order of gates or not, tasks and streams, each once.
    all: Box<[(bool, Ref, Which)]>,
}

impl Heard {
    pub(crate) fn of(mut all: Vec<(bool, Ref, Which)>) -> Self {
        let key = |(is_gate, task, which): &(bool, Ref, Which)| (*is_gate, task.0, *which as u8);
        all.sort_unstable_by_key(key);
        all.dedup();
        Self { all: all.into() }
    }

    /// What there is to be brought before a run begins; waits for the answers.
    pub(crate) fn bring_first(&self) {
        bring(&self.all[..self.all.partition_point(|(is_gate, ..)| !is_gate)]);
    }

    /// Of the task of a gate.
    pub(crate) fn of_gate(&self, task: Ref) -> &[(bool, Ref, Which)] {
        let start = self.all.partition_point(|(is_gate, of, _)| (*is_gate, of.0) < (true, task.0));
        let len = self.all[start..].iter().take_while(|(_, of, _)| *of == task).count();
        &self.all[start..start + len]
    }
}

/// Brings here what of this has been written on other ranks; waits for their answers.
pub(crate) fn bring(heard: &[(bool, Ref, Which)]) {
    let mut of_tasks = HashMap::<Ref, Output>::new();
    for (_, task, which) in heard {
        let elsewhere = task.cohort().and_then(Cohort::elsewhere);
        let read = elsewhere.and_then(|elsewhere| elsewhere.read(*task, Portion::Whole(*which)));
        let Some(read) = read else { continue };
        let output = of_tasks.entry(*task).or_default();
        match (read, which) {
            (Err(error), _) => output.is_unread(error.to_string()),
            (Ok(bytes), Which::Out) => output.add(&bytes, &[]),
            (Ok(bytes), Which::Err) => output.add(&[], &bytes),
        }
    }
    for (task, output) in of_tasks {
        if let Some(cohort) = task.cohort() {
            cohort.keep_output(task.index(), output);
        }
    }
}

/// A task's two streams; `None` when nothing was written.
#[derive(Default)]
pub(crate) struct Output {
    out: Option<SpooledTempFile>,
    err: Option<SpooledTempFile>,
    files: Option<Files>,
    /// Why what it wrote elsewhere is not here.
    unread: Option<String>,
}

/// Where a process's output is.
enum Files {
    /// In the run directory, by number.
    Run(Arc<Outputs>, u64),
    /// Where an earlier run left it.
    Earlier(PathBuf, PathBuf),
}

impl Output {
    /// What a process of an earlier run wrote.
    pub(crate) fn paths((out, err): (PathBuf, PathBuf)) -> Self {
        Self { files: Some(Files::Earlier(out, err)), ..Self::default() }
    }

    /// What a process writes.
    pub(crate) fn files(outputs: &Arc<Outputs>, number: u64) -> Self {
        Self { files: Some(Files::Run(Arc::clone(outputs), number)), ..Self::default() }
    }

    /// What a function wrote on another rank. Bytes beyond what memory holds are lost if the disk is full.
    pub(crate) fn of_text(text: &str) -> Self {
        let mut output = Self::default();
        let _ = output.out().write_all(text.as_bytes());
        output
    }

    /// As [`of_text`](Self::of_text), of both streams.
    pub(crate) fn of_bytes(out: &[u8], err: &[u8]) -> Self {
        let mut output = Self::default();
        output.add(out, err);
        output
    }

    /// What was written elsewhere could not be read there.
    pub(crate) fn is_unread(&mut self, why: String) {
        self.unread = Some(why);
    }

    /// Adds to what a function wrote what it wrote on another rank. Bytes beyond what memory holds are lost if the disk
    /// is full.
    pub(crate) fn add(&mut self, out: &[u8], err: &[u8]) {
        if !out.is_empty() {
            let _ = self.out().write_all(out);
        }
        if !err.is_empty() {
            let _ = self.err().write_all(err);
        }
    }

    pub(crate) fn path(&self, which: Which) -> Option<PathBuf> {
        self.path_of(Portion::Whole(which))
    }

    /// The file of a portion, whether or not it is there.
    pub(crate) fn path_of(&self, portion: Portion) -> Option<PathBuf> {
        let files = self.files.as_ref()?;
        Some(portion.path(|which| match (files, which) {
            (Files::Run(outputs, number), _) => outputs.file(*number, which),
            (Files::Earlier(out, _), Which::Out) => out.clone(),
            (Files::Earlier(_, err), Which::Err) => err.clone(),
        }))
    }

    /// What is there of a portion.
    pub(crate) fn read_portion(&mut self, portion: Portion) -> io::Result<Vec<u8>> {
        match (portion, self.path_of(portion)) {
            (Portion::Whole(which), _) => self.bytes(which),
            (_, Some(path)) => std::fs::read(path),
            (_, None) => Ok(Vec::new()),
        }
    }

    pub(crate) fn out(&mut self) -> &mut dyn Write {
        self.out.get_or_insert_with(|| SpooledTempFile::new(IN_MEMORY_BYTES_MAX))
    }

    pub(crate) fn err(&mut self) -> &mut dyn Write {
        self.err.get_or_insert_with(|| SpooledTempFile::new(IN_MEMORY_BYTES_MAX))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_none() && self.err.is_none() && self.files.is_none() && self.unread.is_none()
    }

    /// What was written to the standard output, if anything and if it is text.
    pub(crate) fn text(&mut self) -> Option<String> {
        self.out.is_some().then(|| self.read(Which::Out).ok()).flatten()
    }

    fn read(&mut self, which: Which) -> io::Result<String> {
        text_of(self.bytes(which)?)
    }

    /// What was written so far, if it is no more than this and can be read.
    pub(crate) fn at_most(&mut self, which: Which, bytes_max: u64) -> Option<Vec<u8>> {
        if let Some(path) = self.path(which)
            && std::fs::metadata(path).is_ok_and(|it| it.len() > bytes_max)
        {
            return None;
        }
        self.bytes(which).ok().filter(|bytes| bytes.len() as u64 <= bytes_max)
    }

    /// What was written so far.
    pub(crate) fn bytes(&mut self, which: Which) -> io::Result<Vec<u8>> {
        if let Some(path) = self.path(which) {
            return std::fs::read(path);
        }
        let file = match which {
            Which::Out => &mut self.out,
            Which::Err => &mut self.err,
        };
        if let Some(why) = &self.unread {
            return Err(io::Error::other(why.clone()));
        }
        let Some(file) = file else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(bytes)
    }
}

/// A portion of what a task has written on another rank, or in another process, if it runs there.
fn read_elsewhere(task: Ref, portion: Portion) -> Option<io::Result<Vec<u8>>> {
    let cohort = task.cohort()?;
    if let Some(sent) = cohort.sent() {
        return sent.read(task, portion);
    }
    cohort.elsewhere()?.read(task, portion)
}

/// A portion of what a task has written so far, from wherever it runs.
pub(crate) fn read_so_far(task: Ref, portion: Portion) -> io::Result<Vec<u8>> {
    if let Some(read) = read_elsewhere(task, portion) {
        return read;
    }
    let read = |cohort: &Cohort| cohort.with_output(task.index(), |output| output.read_portion(portion));
    // Who has written nothing has no file.
    so_far(task.cohort().and_then(read).unwrap_or(Ok(Vec::new())))
}

/// Of a process that is about to start the files are not there yet.
pub(crate) fn so_far(read: io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// What a task writes: a function to its [`Context`](crate::Context), a process to its standard output or error.
/// Readable when the task has ended (a process's also while it runs), and an argument that other tasks can take as
/// `String` or `&str`.
#[derive(Debug)]
pub struct Stream {
    task: Ref,
    which: Which,
}

impl Stream {
    pub(crate) fn new(task: Ref, which: Which) -> Self {
        task.add_handle();
        Self { task, which }
    }

    pub(crate) fn task(&self) -> Ref {
        self.task
    }

    /// Which of the task's streams it is.
    pub(crate) fn which(&self) -> Which {
        self.which
    }

    pub(crate) fn name(&self) -> String {
        self.task.name()
    }

    /// The text written by the latest run of the task; waits until the task has ended.
    ///
    /// # Errors
    /// The task's own error if it failed or was skipped (what it wrote until then is in
    /// [`TaskError::stdout`]); [`ErrorKind::NotStarted`](crate::ErrorKind) if nobody started it.
    pub fn get(&self) -> Result<String, TaskError> {
        super::handle::wait_for_end(self.task)?;
        self.read().map_err(|e| TaskError::output(self.task, e))
    }

    /// The file that a process's output goes to; `None` for a function, before the process has started, and for one
    /// that runs on another rank. It is
    /// there until the batch goes, and longer if the batch keeps its output or a task failed.
    pub fn path(&self) -> Option<PathBuf> {
        let cohort = self.task.cohort()?;
        cohort.with_output(self.task.index(), |o| o.path(self.which)).flatten()
    }

    /// What is there so far, whether or not the task has ended: of a process what it has written, of a function
    /// nothing before it has returned. Bytes that are no text come as `\u{FFFD}`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn so_far(&self) -> io::Result<String> {
        match self.path() {
            Some(path) => Ok(String::from_utf8_lossy(&so_far(std::fs::read(path))?).into_owned()),
            None => match self.elsewhere() {
                Some(bytes) => Ok(String::from_utf8_lossy(&bytes?).into_owned()),
                None => self.read(),
            },
        }
    }

    /// A reader of what is there so far, from the beginning, for output too large for memory.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        match self.path() {
            Some(path) => Ok(Box::new(std::fs::File::open(path)?)),
            None => match self.elsewhere() {
                Some(bytes) => Ok(Box::new(io::Cursor::new(bytes?))),
                None => Ok(Box::new(io::Cursor::new(self.read()?))),
            },
        }
    }

    /// What it has written elsewhere, if it runs there.
    fn elsewhere(&self) -> Option<io::Result<Vec<u8>>> {
        read_elsewhere(self.task, Portion::Whole(self.which))
    }

    /// The text that is there, whether or not the task has ended.
    pub(crate) fn read(&self) -> io::Result<String> {
        match self.elsewhere() {
            Some(bytes) => text_of(bytes?),
            None => self.read_here(),
        }
    }

    /// The text that is on this rank.
    pub(crate) fn read_here(&self) -> io::Result<String> {
        match self.task.cohort() {
            Some(cohort) => {
                cohort.with_output(self.task.index(), |o| o.read(self.which)).unwrap_or(Ok(String::new()))
            }
            None => Ok(String::new()),
        }
    }
}

impl Clone for Stream {
    fn clone(&self) -> Self {
        Self::new(self.task, self.which)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.drop_handle();
    }
}
