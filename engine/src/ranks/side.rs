//! What a plan has to do with other ranks: its imports and exports, and which run of it is under way.

use super::clerk::Guest;
use super::elsewhere::{Elsewhere, arrive};
use super::message::{self, Came, Kind, Notice, RunNumber, Sent};
use super::steal::Price;
use super::told::Told;
use super::{Ranks, Traffic};
use crate::compile::split::{Export, Exports};
use crate::error::{Cause, Failure};
use crate::plan::Plan;
use crate::run::{Others, Run, Timed};
use crate::task::record::Ref;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tarragon_transport::Rank;
use tarragon_transport::message::PAYLOAD_BYTES_MAX;

/// One plan's side; see the page of `ranks`.
pub(crate) struct Side {
    ranks: Arc<Ranks>,
    list: u64,
    /// Per import the record that its value goes to, if it brings one.
    imports: Box<[Option<Ref>]>,
    exports: Exports,
    now: Mutex<Now>,
    /// Notices that this rank has sent in this run, and their bytes; and tasks that others ran.
    sent: (AtomicU64, AtomicU64, AtomicU64),
    price: Mutex<Price>,
    role: Role,
}

/// The run under way.
#[derive(Default)]
struct Now {
    number: RunNumber,
    /// Set when imports can end.
    run: Weak<Run>,
    /// By import: it has ended in this run.
    ended: Vec<bool>,
}

/// What this rank is to the list.
pub(super) enum Role {
    /// It runs the user's program.
    Home(Arc<Elsewhere>),
    /// It runs a part.
    Guest(Guest),
}

impl Side {
    pub(super) fn new(
        ranks: &Arc<Ranks>,
        list: u64,
        imports: Box<[Option<Ref>]>,
        exports: Exports,
        role: Role,
    ) -> Self {
        Self {
            ranks: Arc::clone(ranks),
            list,
            imports,
            exports,
            now: Mutex::default(),
            sent: Default::default(),
            price: Mutex::default(),
            role,
        }
    }

    pub(super) fn list(&self) -> u64 {
        self.list
    }

    pub(super) fn elsewhere(&self) -> Option<&Arc<Elsewhere>> {
        match &self.role {
            Role::Home(elsewhere) => Some(elsewhere),
            Role::Guest(_) => None,
        }
    }

    pub(super) fn guest(&self) -> Option<&Guest> {
        match &self.role {
            Role::Home(_) => None,
            Role::Guest(guest) => Some(guest),
        }
    }

    pub(super) fn ranks(&self) -> &Arc<Ranks> {
        &self.ranks
    }

    /// The plan can be found by messages from now on.
    pub(crate) fn register(&self, plan: &Arc<Plan>) {
        self.ranks.register(plan);
    }

    /// An error if its ranks are not all there, or a body on one of them still runs.
    pub(crate) fn check(&self) -> Result<(), crate::error::Error> {
        self.ranks.check()?;
        self.elsewhere().map_or(Ok(()), |elsewhere| elsewhere.check())
    }

    /// Nodes below this stand for tasks on other ranks.
    #[inline(always)]
    pub(crate) fn imports(&self) -> u32 {
        self.imports.len() as u32
    }

    /// Parts of the list elsewhere, whose ends a run waits for.
    pub(crate) fn parts(&self) -> u32 {
        self.elsewhere().map_or(0, |elsewhere| elsewhere.parts())
    }

    /// Tasks of the list that run elsewhere.
    pub(crate) fn away(&self) -> impl Iterator<Item = Ref> + '_ {
        self.elsewhere().into_iter().flat_map(|elsewhere| elsewhere.tasks())
    }

    // ── a run ───────────────────────────────────────────────────────────────────────────────────────────────

    /// A run begins; before any worker knows of it.
    pub(crate) fn begin(&self, run: &Run) {
        let mut now = self.now.lock();
        self.sent.0.store(0, Ordering::Relaxed);
        self.sent.1.store(0, Ordering::Relaxed);
        self.sent.2.store(0, Ordering::Relaxed);
        match &self.role {
            Role::Home(elsewhere) => {
                now.number += 1;
                elsewhere.begin(now.number, run);
            }
            Role::Guest(guest) => now.number = guest.number(),
        }
        now.run = Weak::new();
        now.ended.clear();
        now.ended.resize(self.imports.len(), false);
    }

    /// The run is under way here: imports can end, and guests may begin.
    pub(crate) fn go_on(&self, run: &Arc<Run>) {
        let (number, early) = {
            let mut early = self.ranks.early.lock();
            let mut now = self.now.lock();
            now.run = Arc::downgrade(run);
            (now.number, early.remove(&self.list).unwrap_or_default())
        };
        let (ours, later): (Vec<_>, Vec<_>) = early.into_iter().partition(|it| number_of(it) == Some(number));
        if !later.is_empty() {
            self.ranks.early.lock().entry(self.list).or_default().extend(later);
        }
        ours.iter().for_each(|bytes| self.notice(run, bytes));
        // Before guests know of it: whoever asks for work must not hear that there is none.
        self.ranks.steals_for(run);
        if let Role::Home(elsewhere) = &self.role {
            let bytes = message::bytes(&number);
            if run.plan.shared.timing {
                // Before the run: an answer comes before what the guest tells of its times.
                elsewhere.ranks_of().for_each(|rank| self.ranks.ask_clock(rank));
            }
            elsewhere.ranks_of().for_each(|rank| self.ranks.tell(rank, Kind::Start, self.list, &bytes));
            elsewhere.is_known();
        }
    }

    /// The run under way, if a notice is of it.
    pub(super) fn run_of(&self, bytes: &[u8]) -> Option<Arc<Run>> {
        let now = self.now.lock();
        (number_of(bytes)? == now.number).then(|| now.run.upgrade()).flatten()
    }

    /// An import has ended elsewhere.
    pub(super) fn notice(&self, run: &Arc<Run>, bytes: &[u8]) {
        let Some((Notice { import, came, .. }, value)) = message::head::<Notice>(bytes) else { return };
        let Some(record) = self.imports.get(import as usize).copied() else { return };
        if !self.ends(import) {
            return;
        }
        let failure = match came {
            Came::Well => None,
            Came::WithValue => {
                let parity = run.plan.cohort.parity();
                record.filter(|record| !arrive(*record, parity, value)).map(unreadable)
            }
            Came::Badly { why, .. } => Some(why.failure()),
        };
        run.end_outside(import, failure);
    }

    /// Whether an import ends now, and has not before.
    fn ends(&self, import: u32) -> bool {
        self.now.lock().ended.get_mut(import as usize).is_some_and(|ended| !std::mem::replace(ended, true))
    }

    /// A rank is lost: no import ends any more by itself.
    pub(super) fn lose(&self, run: &Arc<Run>, loss: impl Fn(Option<Ref>) -> Arc<Failure>) {
        for import in 0..self.imports() {
            if self.ends(import) {
                run.end_outside(import, Some(loss(self.imports[import as usize])));
            }
        }
    }

    /// Tells whoever waits for a node elsewhere that it has ended.
    #[inline]
    pub(crate) fn export(&self, node: u32, plan: &Plan, failure: Option<&Arc<Failure>>) {
        let Some(own) = node.checked_sub(self.imports()) else { return };
        let exports = self.exports.of(own as usize);
        if !exports.is_empty() {
            self.export_all(exports, plan.record(node), failure);
        }
    }

    #[inline(never)]
    fn export_all(&self, exports: &[Export], task: Option<Ref>, failure: Option<&Arc<Failure>>) {
        let run = self.now.lock().number;
        let has_value = failure.is_none() && exports.iter().any(|export| export.valued);
        let value = if has_value { task.and_then(value_of) } else { None };
        for export in exports {
            let badly =
                |why| (Came::Badly { skipped: false, why: Box::new(why), wrote: String::new() }, None);
            let (came, value) = match (failure, &value) {
                (Some(failure), _) => badly(Told::of(failure)),
                (None, Some(value)) if export.valued => (Came::WithValue, Some(value)),
                (None, _) => match task.filter(|_| export.valued) {
                    Some(task) => badly(Told::of(&unwritable(task))),
                    None => (Came::Well, None),
                },
            };
            let mut bytes = message::bytes(&Notice { run, import: export.import, came });
            bytes.extend_from_slice(value.map_or(&[], Vec::as_slice));
            self.sent.0.fetch_add(1, Ordering::Relaxed);
            self.sent.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.ranks.tell(Rank(u32::from(export.rank)), Kind::Notice, self.list, &bytes);
        }
        if let Some(task) = task.filter(|_| exports.iter().any(|export| export.valued)) {
            task.used();
        }
    }

    /// What this rank has sent in the latest run.
    pub(super) fn sent(&self) -> Sent {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sent { notices: load(&self.sent.0), bytes: load(&self.sent.1), stolen: load(&self.sent.2) }
    }

    /// What is known of the cost of its tasks.
    pub(super) fn price(&self) -> &Mutex<Price> {
        &self.price
    }

    /// A task of this rank has run on another.
    pub(super) fn was_stolen(&self) {
        self.sent.2.fetch_add(1, Ordering::Relaxed);
    }

    /// At home: what all ranks have sent one another in the latest run, and what the parts of guests took.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        let elsewhere = self.elsewhere()?;
        let (theirs, mine) = (elsewhere.sent(), self.sent());
        Some(Traffic {
            notices: theirs.notices + mine.notices,
            notice_bytes: theirs.bytes + mine.bytes,
            part_bytes: elsewhere.part_bytes(),
            tasks_elsewhere: self.away().count() as u64,
            tasks_stolen: theirs.stolen + mine.stolen,
        })
    }

    /// At home, of a run that has ended: when tasks elsewhere ran after `started_ns`, by index.
    pub(crate) fn times(&self, started_ns: u64) -> Option<(Vec<(u32, Timed)>, Others)> {
        Some(self.elsewhere()?.times(started_ns))
    }

    /// All nodes of this rank have ended, and the plan may run again unless a body holds it.
    pub(crate) fn ended(&self, plan: &Plan, is_held: bool) {
        if let Role::Guest(guest) = &self.role {
            guest.ended(self, plan, is_held);
        }
    }

    /// The last body that held the plan has returned.
    pub(crate) fn freed(&self) {
        if let Role::Guest(guest) = &self.role {
            guest.freed(self);
        }
    }

    /// Cancels a run elsewhere, or one task of it.
    pub(crate) fn cancel(&self, run: &Arc<Run>, task: Option<Ref>) {
        self.ranks.recall(run, task);
        if let Role::Home(elsewhere) = &self.role {
            elsewhere.cancel(task);
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.ranks.forget(self.list);
    }
}

fn number_of(bytes: &[u8]) -> Option<RunNumber> {
    message::head::<RunNumber>(bytes).map(|(number, _)| number)
}

/// A value came that is none.
pub(super) fn unreadable(task: Ref) -> Arc<Failure> {
    let what = "its result came as bytes that serde, which wrote them, cannot read";
    Failure::new(task, Cause::Error(what.into()), 1)
}

/// The value of a task as bytes, if serde can write it and a message has room for it and what stands before it.
pub(super) fn value_of(task: Ref) -> Option<Vec<u8>> {
    const HEADS_MAX: u64 = 1 << 21;
    task.pack_value().filter(|value| value.len() as u64 <= PAYLOAD_BYTES_MAX - HEADS_MAX)
}

/// A value cannot go.
pub(super) fn unwritable(task: Ref) -> Arc<Failure> {
    let what =
        "its result cannot go to another rank: serde cannot write it, or it has more bytes than a message";
    Failure::new(task, Cause::Error(what.into()), 1)
}
