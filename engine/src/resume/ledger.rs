//! What was decided for one run, at home and at guests: which tasks are reused, and who keeps the records of others.

use super::Book;
use crate::data::Space;
use crate::journal::{Entry, FileState, Identity, Seen, Streams};
use crate::ranks::Recorder;
use crate::task::Exit;
use crate::task::output::{Output, Which};
use crate::task::record::Ref;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Which task of the journal a task is and, if it is reused, its record.
type Decided = (Identity, Option<Arc<Entry>>);

/// What was decided for one run.
pub(crate) struct Ledger {
    keeper: Keeper,
    /// For each node of this rank.
    nodes: Box<[Decided]>,
    /// At home for each task of another rank.
    away: HashMap<Ref, Decided>,
}

/// Who keeps the records.
enum Keeper {
    Book(Arc<Book>),
    /// Home; with the files of each node.
    Home(Recorder, Arc<[Files]>),
}

/// The files of a task that are looked at when it has ended.
#[derive(Default, Debug)]
pub(crate) struct Files {
    pub(crate) reads: Vec<PathBuf>,
    pub(crate) writes: Vec<PathBuf>,
}

impl Files {
    pub(crate) fn of(task: Ref, space: &Space) -> Files {
        let accesses = task.accesses();
        let mut writes: Vec<u32> = accesses.iter().filter(|a| a.writes()).map(|a| a.datum()).collect();
        writes.sort_unstable();
        writes.dedup();
        // What it both reads and writes is known by what it left.
        let reads = accesses.iter().filter(|a| !a.writes() && !writes.contains(&a.datum()));
        let reads = reads.filter_map(|a| space.path_of(a.datum())).collect();
        Files { reads, writes: writes.iter().filter_map(|datum| space.path_of(*datum)).collect() }
    }
}

impl Ledger {
    pub(super) fn at_home(book: &Arc<Book>, nodes: Box<[Decided]>, away: HashMap<Ref, Decided>) -> Ledger {
        Ledger { keeper: Keeper::Book(Arc::clone(book)), nodes, away }
    }

    /// At a guest, by node.
    pub(crate) fn at_guest(
        recorder: Recorder,
        files: Arc<[Files]>,
        reused: Vec<Option<Arc<Entry>>>,
    ) -> Ledger {
        let nodes = reused.into_iter().map(|entry| (Identity(0), entry)).collect();
        Ledger { keeper: Keeper::Home(recorder, files), nodes, away: HashMap::new() }
    }

    /// Whether the task of a node need not run.
    pub(crate) fn is_reused(&self, node: u32) -> bool {
        self.nodes[node as usize].1.is_some()
    }

    /// What is reused of a task of another rank.
    pub(crate) fn reused_away(&self, task: Ref) -> Option<&Arc<Entry>> {
        self.away.get(&task)?.1.as_ref()
    }

    /// Whether recording a task reads the files it wrote.
    pub(crate) fn reads_files(&self) -> bool {
        match &self.keeper {
            Keeper::Book(book) => book.reads_files,
            Keeper::Home(recorder, _) => recorder.reads_files,
        }
    }

    /// Whether what depends on a task waits until its record is on the disk.
    pub(crate) fn waits(&self) -> bool {
        matches!(&self.keeper, Keeper::Book(book) if book.waits)
    }

    /// How many tasks need not run.
    pub(crate) fn reused(&self) -> usize {
        self.nodes.iter().chain(self.away.values()).filter(|(_, entry)| entry.is_some()).count()
    }

    /// Puts the recorded result of a reused task in place; false if that cannot be done, so that it must run after all.
    pub(crate) fn put(&self, node: u32, task: Ref) -> bool {
        let Some(entry) = &self.nodes[node as usize].1 else { return false };
        let Some(value) = &entry.value else { return false };
        if let Some(streams) = &entry.streams
            && let Some(cohort) = task.cohort()
        {
            let paths = (streams.stdout.path.clone(), streams.stderr.path.clone());
            cohort.keep_output(task.index(), Output::paths(paths));
        }
        if task.head().code.command.is_some() {
            return postcard::from_bytes::<Exit>(value).map(|exit| task.put_exit(exit)).is_ok();
        }
        task.read_value(value)
    }

    /// Records that the task of a node has succeeded; its value is in place, and nobody reads it yet.
    pub(crate) fn record(&self, node: u32, task: Ref, took_ns: u64) {
        let Some(value) = value_of(task) else { return };
        let own;
        let files = match &self.keeper {
            Keeper::Book(_) => {
                own = Files::of(task, &task.shared().space);
                &own
            }
            Keeper::Home(_, files) => &files[node as usize],
        };
        let reads_files = self.reads_files();
        let seen = |path: &PathBuf| {
            let state = FileState::look(path, reads_files).ok()?;
            Some(Seen { path: path.clone(), state })
        };
        let streams = task.head().code.command.is_some().then(|| streams(task)).flatten();
        let entry = Entry {
            identity: self.nodes[node as usize].0,
            inputs: files.reads.iter().filter_map(seen).collect(),
            outputs: files.writes.iter().filter_map(seen).collect(),
            taken: Vec::new(),
            value: Some(value),
            streams,
            exit: 0,
            took_ns,
        };
        match &self.keeper {
            // What is wrong with the journal is told when it is closed; the run goes on.
            Keeper::Book(book) => drop(book.journal.append(&entry)),
            Keeper::Home(recorder, _) => recorder.record(node, entry),
        }
    }

    /// At home: a task of another rank has succeeded, and its rank has told of it.
    pub(crate) fn record_away(&self, task: Ref, mut entry: Entry) {
        if let (Keeper::Book(book), Some((identity, _))) = (&self.keeper, self.away.get(&task)) {
            entry.identity = *identity;
            let _ = book.journal.append(&entry);
        }
    }
}

fn streams(task: Ref) -> Option<Streams> {
    let path = |which| task.cohort()?.with_output(task.index(), |o| o.path(which)).flatten();
    let seen = |which| {
        let path = path(which)?;
        let state = FileState::look(&path, false).ok()?;
        Some(Seen { path, state })
    };
    Some(Streams { stdout: seen(Which::Out)?, stderr: seen(Which::Err)? })
}

/// The result as bytes; `None` if it has no serde form or is too long.
fn value_of(task: Ref) -> Option<Vec<u8>> {
    let value = match task.head().code.command {
        Some(_) => postcard::to_allocvec(&task.exit_in_place()).ok()?,
        None => task.write_value()?,
    };
    (value.len() <= crate::journal::VALUE_BYTES_MAX).then_some(value)
}
