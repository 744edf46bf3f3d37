//! Goes on where a killed run stopped: says which task of a list is which task of the journal, which of them need not
//! run again (`plan`), puts their results in place, and records what the others do.
//!
//! # Which task is which
//! A task's identity is a hash of its kind, name, code path or program, arguments, environment, directory, accesses,
//! and the identities of the tasks whose results it takes. Of equal tasks the n-th that is started in one run is the
//! n-th of the other. A closure has no arguments that can be seen, so it is never taken for another: it runs again.
//!
//! # What is recorded
//! After a task has succeeded and before anything that depends on it may begin: the state of the files it read and
//! wrote, its result if it has a serde form of at most 64 KiB, and where a process's output is. A task with a longer
//! result runs again. Data that are no files are in memory and die with the program: a task that must run again and
//! reads one has the task run again that wrote it.
//!
//! # On several ranks
//! All is decided at home, which tells a guest before a run what of its part is reused, with what was recorded of it
//! (`ranks::records`). A guest looks at the files of a task on its own node when the task has ended, and sends the
//! record home, which knows the task's identity and appends it: before the part ends, so a run that has ended is
//! recorded. With [`Sync::EachRecord`] the guest waits until home has it on the disk; else what depends on the task may
//! begin meanwhile, also on a third rank, whose records may come first. If home is killed in between, a record may be
//! in the journal without those before it. That costs work, but no task is taken for done that is not: who has no
//! record runs again, and so does, by (1) of `plan`, whatever takes its result or reads what it writes; and where that
//! has overwritten what must be read again, the file is known to be as a recorded task left it, and that is reported.
//! Ranks that have lost home run on for up to a second: what they do is not recorded, as if it had been killed in the
//! middle. They hold the lock that keeps the next run from beginning before they have ended.
//!
//! # Who may write what
//! All is decided when a list is started, before any task of it runs, under one lock; afterwards a run only reads what
//! was decided for it. The journal takes records from any thread.

mod identity;
mod ledger;
mod plan;

pub(crate) use ledger::{Files, Ledger};

use crate::error::Error;
use crate::journal::{Entry, FileState, Identity, Journal, JournalError, Options, Seen, Sync};
use crate::plan::Plan;
use crate::shared::Shared;
use crate::task::record::Ref;
use parking_lot::Mutex;
use plan::{Datum, Dirty, Gone, Node, Past, Tree};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the processes of a killed run may take to end.
const TREES_MAX: Duration = Duration::from_secs(10);

/// The journal of a batch, and what of it was used.
pub(crate) struct Book {
    journal: Journal,
    /// Files are compared by their contents.
    reads_files: bool,
    /// A record is on the disk before anything that depends on its task begins.
    waits: bool,
    /// What the killed runs left, for each file.
    left: HashMap<PathBuf, Vec<FileState>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many tasks of each identity have been started.
    started: HashMap<Identity, u32>,
    dirty: Dirty,
    /// A list was found to have something in common with the journal.
    is_known: bool,
}

/// How it is with a batch's journal.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct JournalStatus {
    /// Where it is.
    pub path: PathBuf,
    /// Tasks that earlier runs recorded.
    pub past: usize,
    /// Bytes at its end that were no whole records when it was opened, and were cut off: what a crash tore.
    pub dropped_bytes: u64,
    /// Records that are not in the file yet.
    pub unwritten: u64,
    /// Why records cannot be written at this moment (a full disk, say); the run goes on.
    pub error: Option<String>,
}

impl Book {
    /// Opens the journal. Waits until no process of a killed run is left that could still write.
    ///
    /// # Errors
    /// [`Error::Journal`] with what is wrong, and what to do.
    pub(crate) fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let failed = |error: JournalError| Error::Journal(error.to_string());
        let journal = Journal::open(path, options).map_err(failed)?;
        let lock = Self::lock_of(journal.path());
        if !is_let_go(&lock, Instant::now() + TREES_MAX) {
            return Err(Error::Journal(format!(
                "processes of the run that wrote the journal {} still run after {TREES_MAX:?}: end them, or wait",
                journal.path().display()
            )));
        }
        let mut left: HashMap<PathBuf, Vec<FileState>> = HashMap::new();
        for entry in journal.all_past() {
            for seen in &entry.outputs {
                left.entry(seen.path.clone()).or_default().push(seen.state);
            }
        }
        let (reads_files, waits) = (options.content_hash, options.sync == Sync::EachRecord);
        Ok(Self { journal, reads_files, waits, left, state: Mutex::default() })
    }

    /// The file that is locked while processes of the batch may write.
    pub(crate) fn lock(&self) -> PathBuf {
        Self::lock_of(self.journal.path())
    }

    fn lock_of(path: &Path) -> PathBuf {
        Self::outputs(path).join("lock")
    }

    /// Where the output of processes stays.
    pub(crate) fn outputs(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".out");
        name.into()
    }

    /// How it is with the journal.
    pub(crate) fn status(&self) -> JournalStatus {
        let journal = &self.journal;
        JournalStatus {
            path: journal.path().to_path_buf(),
            past: journal.past_len(),
            dropped_bytes: journal.dropped_bytes(),
            unwritten: journal.waiting(),
            error: journal.error().map(|error| error.to_string()),
        }
    }

    /// Returns when all that was recorded is in the file, and on the disk unless it was asked not to.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.journal.flush().map_err(|error| Error::Journal(error.to_string()))
    }

    /// Writes what is left.
    pub(crate) fn close(&self) -> Result<(), JournalError> {
        self.journal.close()
    }

    /// Decides which tasks of a list run.
    ///
    /// # Errors
    /// [`Error::OtherJournal`] if the first list has nothing in common with the journal, [`Error::CannotResume`] if a
    /// task must read again what is gone.
    pub(crate) fn begin(self: &Arc<Self>, plan: &Plan) -> Result<Ledger, Error> {
        let mut state = self.state.lock();
        let list = plan.list();
        let names = identity::all(plan, &list, &mut state.started);
        plan.cohort.set_identities(plan.gates.len(), &names);
        let has_past = self.journal.past_len() > 0;
        if !has_past {
            return Ok(self.ledger(plan, &names, |_| None));
        }
        let entries: Vec<Option<Arc<Entry>>> = names.iter().map(|name| self.journal.past(name.0)).collect();
        if !state.is_known && !list.is_empty() {
            if entries.iter().all(Option::is_none) {
                let (path, tasks) = (self.journal.path().to_path_buf(), self.journal.past_len());
                return Err(Error::OtherJournal { path, tasks });
            }
            state.is_known = true;
        }
        let nodes: Vec<Node> =
            list.iter().enumerate().map(|(i, task)| node(plan, *task, names[i].1)).collect();
        let parents = plan.shared.space.parents().unwrap_or_default();
        let mut looked =
            Looked { book: self, shared: &plan.shared, list: &list, entries: &entries, now: HashMap::new() };
        let again = plan::again(&nodes, &Tree(&parents), &mut looked, &mut state.dirty);
        let again = again.map_err(|gone| cannot(&plan.shared, &list, &gone))?;
        let invalid = (0..list.len()).filter(|i| again[*i] && entries[*i].is_some()).map(|i| names[i].0);
        self.journal.begun_all(invalid).map_err(|error| Error::Journal(error.to_string()))?;
        Ok(self.ledger(plan, &names, |i| if again[i] { None } else { entries[i].clone() }))
    }

    fn ledger(
        self: &Arc<Self>,
        plan: &Plan,
        names: &[(Identity, bool)],
        reused: impl Fn(usize) -> Option<Arc<Entry>>,
    ) -> Ledger {
        let gates = plan.gates.len() as u32;
        let node = |node: u32| match plan.record(node) {
            Some(_) if !plan.is_import(node) => {
                let at = (plan.graph.task(node) - gates) as usize;
                (names[at].0, reused(at))
            }
            _ => (Identity(0), None),
        };
        let nodes = (0..plan.graph.len()).map(node).collect();
        let place = |task: Ref| Some((plan.position(task)?, task));
        let away = plan.away().filter_map(place).map(|(index, task)| {
            let at = (index - gates) as usize;
            (task, (names[at].0, reused(at)))
        });
        Ledger::at_home(self, nodes, away.collect())
    }
}

/// Waits until nobody has the lock, at most until `deadline`.
fn is_let_go(lock: &Path, deadline: Instant) -> bool {
    if let Some(folder) = lock.parent() {
        // If it cannot be made, no process will write there either, and its own error says why.
        let _ = std::fs::create_dir_all(folder);
    }
    let Ok(file) = std::fs::File::create(lock) else { return true };
    loop {
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(std::fs::TryLockError::WouldBlock) => return false,
            // A file system without locks has nobody who holds one.
            Ok(()) | Err(_) => return true,
        }
    }
}

fn node(plan: &Plan, task: Ref, is_unknown: bool) -> Node {
    let mut node = Node { is_unknown, ..Node::default() };
    for access in task.accesses() {
        let data = if access.writes() { &mut node.writes } else { &mut node.reads };
        data.push(access.datum());
    }
    crate::gather::each_input(task, &mut |input| {
        if let Some(at) = plan.position(input.task) {
            node.takes.push(at - plan.gates.len() as u32);
        }
    });
    node
}

fn cannot(shared: &Shared, list: &[Ref], gone: &[Gone]) -> Error {
    let all = gone.iter().map(|g| (list[g.task].name(), shared.space.name_of(g.datum)));
    Error::CannotResume { tasks: all.collect() }
}

/// The files as they are, looked at once.
struct Looked<'a> {
    book: &'a Book,
    shared: &'a Shared,
    list: &'a [Ref],
    entries: &'a [Option<Arc<Entry>>],
    now: HashMap<PathBuf, Option<FileState>>,
}

impl Looked<'_> {
    fn now(&mut self, path: &Path) -> Option<&FileState> {
        if !self.now.contains_key(path) {
            self.now.insert(path.to_path_buf(), self.book.journal.look(path).ok());
        }
        self.now[path].as_ref()
    }

    /// Whether a file is as some recorded task left it.
    fn was_left(&mut self, path: &Path) -> bool {
        let book = self.book;
        let Some(now) = self.now(path) else { return false };
        book.left.get(path).is_some_and(|states| states.iter().any(|state| state.is_same(now)))
    }

    fn is_as(&mut self, seen: &Seen) -> bool {
        self.now(&seen.path).is_some_and(|now| seen.state.is_same(now))
    }
}

impl Past for Looked<'_> {
    fn is_sound(&mut self, task: usize) -> bool {
        let Some(entry) = self.entries[task].clone() else { return false };
        if entry.value.is_none() || entry.outputs.len() < files_written(self.shared, self.list[task]) {
            return false;
        }
        let streams = entry.streams.iter().flat_map(|s| [&s.stdout, &s.stderr]);
        let mut files = entry.inputs.iter().chain(&entry.outputs);
        streams.cloned().collect::<Vec<_>>().iter().all(|seen| self.is_as(seen))
            && files.all(|seen| self.is_as(seen) || self.was_left(&seen.path))
    }

    fn is_as_left(&mut self, task: usize, datum: Datum) -> bool {
        let Some(path) = self.shared.space.path_of(datum) else { return false };
        let Some(entry) = self.entries[task].clone() else { return false };
        entry.outputs.iter().find(|seen| seen.path == path).is_some_and(|seen| self.is_as(seen))
    }

    fn was_written(&mut self, datum: Datum) -> bool {
        self.shared.space.path_of(datum).is_some_and(|path| self.was_left(&path))
    }
}

fn files_written(shared: &Shared, task: Ref) -> usize {
    let writes = task.accesses().iter().filter(|a| a.writes());
    let data: HashSet<u32> = writes.map(|a| a.datum()).collect();
    data.into_iter().filter(|d| shared.space.path_of(*d).is_some()).count()
}
