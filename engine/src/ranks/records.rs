//! What a journal says of tasks on other ranks, and what these tell it; see the page of `resume`.
//!
//! At home a run's `Reuse` goes before its `Start`. At a guest the thread that ends a task sends its record, and waits
//! for home's answer if the record has to be on the disk before others go on. Home receives nothing meanwhile, so with
//! such a journal all ranks together are as fast as its disk.

use super::Ranks;
use super::elsewhere::Elsewhere;
use super::message::{self, Kind, Recorded, Recording, Reused, RunNumber};
use crate::journal::Entry;
use crate::plan::Plan;
use crate::resume::{Files, Ledger};
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tarragon_transport::Rank;

/// What was recorded of several tasks travels together up to about so many bytes.
const REUSE_BYTES: usize = 1 << 20;

/// Between two looks at whether the world still stands.
const LOOK: Duration = Duration::from_millis(50);

/// At a guest: records of one part.
pub(super) struct Records {
    /// By node.
    files: Arc<[Files]>,
    /// By place, for the run that starts next.
    reused: Mutex<Reused>,
    /// The run that starts takes it.
    next: Mutex<Option<Ledger>>,
    answers: Arc<Answers>,
}

/// Records that were sent and not answered, by number; and the latest number.
#[derive(Default)]
struct Answers {
    open: Mutex<(HashSet<u64>, u64)>,
    answered: Condvar,
}

impl Records {
    pub(super) fn new(files: Vec<Files>) -> Self {
        Self {
            files: files.into(),
            reused: Mutex::default(),
            next: Mutex::default(),
            answers: Arc::default(),
        }
    }

    pub(super) fn reuse(&self, some: Reused) {
        self.reused.lock().extend(some);
    }

    /// A run of the part is about to start.
    pub(super) fn begin(&self, ranks: &Arc<Ranks>, plan: &Plan, run: RunNumber, recording: Recording) {
        let Some(side) = &plan.side else { return };
        let imports = side.imports();
        let mut nodes: Vec<Option<Arc<Entry>>> = vec![None; plan.graph.len() as usize];
        for (place, entry) in std::mem::take(&mut *self.reused.lock()) {
            if let Some(node) = nodes.get_mut((imports + place) as usize) {
                *node = Some(Arc::new(entry));
            }
        }
        let (ranks, list, answers) = (Arc::clone(ranks), side.list(), Arc::clone(&self.answers));
        let Recording { reads_files, waits } = recording;
        let recorder = Recorder { reads_files, waits, ranks, list, run, imports, answers };
        *self.next.lock() = Some(Ledger::at_guest(recorder, Arc::clone(&self.files), nodes));
    }

    pub(super) fn take(&self) -> Option<Ledger> {
        self.next.lock().take()
    }
}

/// At a guest: tells home what it did in one run of a part.
pub(crate) struct Recorder {
    /// Files are compared by what is in them.
    pub(crate) reads_files: bool,
    waits: bool,
    ranks: Arc<Ranks>,
    list: u64,
    run: RunNumber,
    imports: u32,
    answers: Arc<Answers>,
}

impl Recorder {
    /// Has home record what the task of a node did; returns when home has it on the disk, if that is asked for.
    pub(crate) fn record(&self, node: u32, entry: Entry) {
        let number = {
            let mut open = self.answers.open.lock();
            open.1 += 1;
            let number = open.1;
            if self.waits {
                open.0.insert(number);
            }
            number
        };
        let record: Recorded = (self.run, node - self.imports, number, entry);
        self.ranks.tell(Rank(0), Kind::Record, self.list, &message::bytes(&record));
        let mut open = self.answers.open.lock();
        // Without home nobody is to go on.
        while open.0.contains(&number)
            && !self.ranks.is_stopped.load(Ordering::Acquire)
            && self.ranks.lost.get().is_none()
        {
            self.answers.answered.wait_for(&mut open, LOOK);
        }
    }
}

impl Ranks {
    /// At a guest: home has a record of a part on the disk.
    pub(super) fn recorded(&self, list: u64, bytes: &[u8]) {
        let plan = self.plan_of(list);
        let side = plan.as_ref().and_then(|plan| plan.side.as_ref());
        if let (Some(guest), Some((number, _))) =
            (side.and_then(|side| side.guest()), message::head::<u64>(bytes))
        {
            guest.records.answers.open.lock().0.remove(&number);
            guest.records.answers.answered.notify_all();
        }
    }
}

impl Elsewhere {
    /// At home, before guests start a run: tells them what of it they need not do, and how to record the rest.
    pub(super) fn tell_reused(&self, ledger: &Ledger) -> Recording {
        (0..self.away.len()).for_each(|part| self.tell_reused_of(part, ledger));
        Self::recording(ledger)
    }

    pub(super) fn recording(ledger: &Ledger) -> Recording {
        Recording { reads_files: ledger.reads_files(), waits: ledger.waits() }
    }

    /// As [`tell_reused`](Self::tell_reused), of one part.
    pub(super) fn tell_reused_of(&self, part: usize, ledger: &Ledger) {
        let (mut some, mut bytes) = (Reused::new(), 0);
        for (place, task) in (0..).zip(&self.away[part].tasks) {
            let Some(entry) = ledger.reused_away(*task) else { continue };
            bytes += entry.value.as_ref().map_or(0, Vec::len);
            // Home has looked at the files.
            some.push((place, Entry { inputs: Vec::new(), outputs: Vec::new(), ..Entry::clone(entry) }));
            if bytes > REUSE_BYTES {
                let full = message::bytes(&std::mem::take(&mut some));
                self.tell(part, Kind::Reuse, &full);
                bytes = 0;
            }
        }
        if !some.is_empty() {
            self.tell(part, Kind::Reuse, &message::bytes(&some));
        }
    }

    /// At home: a task of another rank has succeeded.
    pub(super) fn record(&self, part: usize, bytes: &[u8]) {
        let Some(((run, place, number, entry), _)) = message::head::<Recorded>(bytes) else { return };
        let tasks = &self.away[part].tasks;
        let run = self.run_with(run);
        let ledger = run.as_ref().and_then(|run| run.ledger.as_ref());
        if let (Some(ledger), Some(task)) = (ledger, tasks.get(place as usize)) {
            ledger.record_away(*task, entry);
            if !ledger.waits() {
                return;
            }
        }
        self.tell(part, Kind::Recorded, &message::bytes(&number));
    }
}
