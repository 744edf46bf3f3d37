//! What a plan has to do with other ranks: its imports and exports, and which run of it is under way.

use super::away::arrive;
use super::clerk::Guest;
use super::elsewhere::Elsewhere;
use super::goods::{self, Given, Goods, given_by};
use super::message::{self, Adopted, Came, Had, Kind, Moved, Notice, RunNumber, Sent};
use super::outside::Outside;
use super::seats::{Holder, Seats};
use super::steal::Price;
use super::told::Told;
use super::{Ranks, Traffic};
use crate::compile::Taken;
use crate::compile::split::{Export, Exports};
use crate::error::{Cause, Failure};
use crate::plan::{Plan, missing};
use crate::resume::Ledger;
use crate::run::{Others, Past, Run, Timed};
use crate::task::record::{Ref, state};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tarragon_transport::Rank;

/// One plan's side; see the page of `ranks`.
pub(crate) struct Side {
    ranks: Arc<Ranks>,
    list: u64,
    /// Per import the record that its value goes to, if it brings one.
    imports: Box<[Option<Ref>]>,
    exports: Exports,
    /// Where exports go.
    pub(super) seats: Seats,
    /// What goes elsewhere stays: it may have to go there once more. At home until the run has ended on all ranks, at
    /// a guest, which does not know when that is, until the next run.
    keeps_exports: bool,
    /// What comes from other lists.
    pub(super) outside: Outside,
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
    Guest(Box<Guest>),
}

impl Side {
    pub(super) fn new(
        ranks: &Arc<Ranks>,
        list: u64,
        imports: Box<[Option<Ref>]>,
        exports: Exports,
        outside: Outside,
        role: Role,
    ) -> Self {
        Self {
            keeps_exports: ranks.survives(),
            ranks: Arc::clone(ranks),
            list,
            imports,
            exports,
            seats: Seats::new(list),
            outside,
            now: Mutex::default(),
            sent: Default::default(),
            price: Mutex::default(),
            role,
        }
    }

    pub(super) fn list(&self) -> u64 {
        self.list
    }

    pub(crate) fn elsewhere(&self) -> Option<&Arc<Elsewhere>> {
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

    /// Whether a journal here is about its tasks: not if it is a part, of which home is told.
    pub(crate) fn keeps_journal(&self) -> bool {
        matches!(self.role, Role::Home(_))
    }

    /// Of a part that was another rank's: what of it has run there.
    pub(crate) fn past(&self) -> Option<Arc<Past>> {
        self.guest().filter(|_| self.keeps_exports)?.past()
    }

    /// If the task at this place of a part has run on a rank that is lost, and was passed over here: that.
    pub(super) fn past_of(&self, place: u32) -> Option<Arc<Past>> {
        self.past().filter(|past| past.has_ended(self.imports() + place))
    }

    /// At a guest, of a batch that keeps a journal: what was decided for the run that begins.
    pub(crate) fn take_ledger(&self) -> Option<Ledger> {
        self.guest()?.records.take()
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

    /// If `source` is an import from outside of the list: which of those it is that `node` waits for.
    pub(crate) fn outside_place(&self, node: u32, source: u32) -> Option<u32> {
        self.outside.place(node, source)
    }

    /// Tasks outside of the list whose results tasks of other ranks take.
    pub(crate) fn producers(&self) -> impl Iterator<Item = Ref> + '_ {
        self.outside.producers()
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
        self.seats.begin();
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
            elsewhere.start(self, run, number);
        }
    }

    /// The run under way, if a notice is of it.
    pub(super) fn run_of(&self, bytes: &[u8]) -> Option<Arc<Run>> {
        let now = self.now.lock();
        (number_of(bytes)? == now.number).then(|| now.run.upgrade()).flatten()
    }

    /// An import has ended elsewhere.
    pub(super) fn notice(&self, run: &Arc<Run>, bytes: &[u8]) {
        let Some((Notice { import, came, wrote, .. }, rest)) = message::head::<Notice>(bytes) else { return };
        let Some((wrote, value)) = goods::split(wrote, rest) else { return };
        let Some(record) = self.imports.get(import as usize).copied() else { return };
        if !self.ends(import) {
            return;
        }
        if let (Some(record), false) = (record, wrote.is_empty()) {
            goods::keep(record, &wrote);
        }
        let failure = match came {
            Came::Well => None,
            Came::WithValue => {
                let parity_of = |record: Ref| record.cohort().unwrap_or(&run.plan.cohort).parity();
                record.filter(|record| !arrive(*record, parity_of(*record), value)).map(unreadable)
            }
            Came::Badly { why, .. } => {
                if let (Some(record), Role::Guest(_)) = (record, &self.role) {
                    fail_import(record, run.plan.cohort.parity());
                }
                let elsewhere = self.elsewhere();
                Some(why.failure(&|place| elsewhere.and_then(|elsewhere| elsewhere.index_of(place))))
            }
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
            self.export_all(exports, node, plan, failure);
        }
    }

    #[inline(never)]
    fn export_all(&self, exports: &[Export], node: u32, plan: &Plan, failure: Option<&Arc<Failure>>) {
        let taken = exports.iter().fold(Taken::NOTHING, |all, export| all.and(export.taken));
        let record = plan.record(node);
        if record.is_none() && self.keeps_exports {
            self.seats.tells(node, failure);
        }
        let given = match self.past().filter(|past| past.has_ended(node)) {
            // Whoever takes what it gave has it.
            Some(_) => Ok(Goods::default()),
            None => given_by_node(node, plan, taken, failure),
        };
        // Not locked while it is told: the part may be of a seat that is here.
        let number = self.now.lock().number;
        self.tell_all(exports, number, &given);
        if let Some(task) = record.filter(|_| taken.has(Taken::VALUE) && !self.keeps_exports) {
            task.used();
        }
    }

    /// Tells ranks how something has come out that they wait for, with its value if they take it.
    pub(super) fn tell_all(&self, exports: &[Export], run: RunNumber, given: &Given) {
        for export in exports {
            let (came, wrote, bodies) = match given {
                Err(why) => (Came::badly(why.clone()), Vec::new(), [[].as_slice(); 3]),
                Ok(goods) => goods.of_taken(export.taken),
            };
            let mut bytes = message::bytes(&Notice { run, import: export.import, came, wrote });
            bodies.iter().for_each(|body| bytes.extend_from_slice(body));
            self.count_sent(1, bytes.len());
            let Holder { rank, list } = match self.keeps_exports {
                true => self.seats.holder(export.rank),
                // Nothing moves.
                false => Holder { rank: u32::from(export.rank), list: self.list },
            };
            if rank == self.ranks.rank() {
                self.ranks.notice(list, &bytes);
            } else {
                self.ranks.tell_owned(Rank(rank), Kind::Notice, list, bytes);
            }
        }
    }

    /// The part of a seat has another holder: tells it of all that has ended here in this run.
    pub(super) fn moved(&self, plan: &Plan, moved: &Moved) -> Had {
        // From here on what ends is told there; whatever ended before is found below.
        self.seats.set(moved.seat, moved.holder);
        let ended: Vec<u8> = {
            let now = self.now.lock();
            if now.number != moved.run {
                return Had::default();
            }
            let bits = |some: &[bool]| some.iter().rev().fold(0, |bits, ended| bits << 1 | u8::from(*ended));
            now.ended.chunks(8).map(bits).collect()
        };
        let mut told = Vec::new();
        for own in 0..self.exports.len() {
            let node = self.imports() + own as u32;
            let here = || self.exports.of(own).iter().copied().filter(|export| export.rank == moved.seat);
            if here().next().is_none() {
                continue;
            }
            let exports: Vec<Export> = here().collect();
            if let Some(failure) = self.how_ended(node, plan) {
                let taken = exports.iter().fold(Taken::NOTHING, |all, export| all.and(export.taken));
                let past = self.past().filter(|past| past.has_ended(node));
                let given = match past.zip(plan.record(node)) {
                    // It has run on a rank that is lost, and who had what it gave is lost, too.
                    Some((past, task)) if taken != Taken::NOTHING => Err(Told::of(&past.failure(task))),
                    Some(_) => Ok(Goods::default()),
                    None => given_by_node(node, plan, taken, failure.as_ref()),
                };
                self.tell_all(&exports, moved.run, &given);
                told.extend(exports.iter().map(|export| export.import));
            }
        }
        Had { ended, told }
    }

    /// Whether a node has ended in this run, and why it failed if it did.
    fn how_ended(&self, node: u32, plan: &Plan) -> Option<Option<Arc<Failure>>> {
        let Some(task) = plan.record(node) else { return self.seats.has_told(node) };
        let cohort = task.cohort()?;
        let status = task.head().status.load(Ordering::Acquire);
        match status & !state::PARITY {
            _ if !task.has_ended(cohort.parity()) => None,
            state::FAILED | state::SKIPPED => Some(cohort.failure_of(task.index())),
            _ => Some(None),
        }
    }

    /// The part was another rank's.
    pub(super) fn adopt(&self, adopted: &Adopted) {
        self.seats.are_of(adopted.list, &adopted.moved);
        if let Role::Guest(guest) = &self.role {
            guest.adopt(self, adopted);
        }
    }

    pub(super) fn count_sent(&self, notices: usize, bytes: usize) {
        self.sent.0.fetch_add(notices as u64, Ordering::Relaxed);
        self.sent.1.fetch_add(bytes as u64, Ordering::Relaxed);
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
            tasks_rerun: elsewhere.rerun(),
        })
    }

    /// At home, of a run that has ended: when tasks elsewhere ran after `started_ns`, by index.
    pub(crate) fn times(&self, started_ns: u64) -> Option<(Vec<(u32, Timed)>, Others)> {
        Some(self.elsewhere()?.times(started_ns))
    }

    /// All nodes and parts have ended: what was kept at home to be sent once more is not any longer.
    pub(crate) fn lets_go(&self, plan: &Plan) {
        if !self.keeps_exports || self.elsewhere().is_none() {
            return;
        }
        for own in (0..self.exports.len()).filter(|own| self.exports.have_value(*own)) {
            if let Some(task) = plan.record(self.imports() + own as u32) {
                task.used();
            }
        }
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

/// What a node gave that has ended.
fn given_by_node(node: u32, plan: &Plan, taken: Taken, failure: Option<&Arc<Failure>>) -> Given {
    match (failure, plan.record(node)) {
        (Some(failure), _) if plan.gate(node).is_some() => Err(Told::of_outside(failure)),
        (Some(failure), _) => Err(Told::of(failure)),
        (None, Some(task)) => Goods::of(task, taken).map_err(|failure| Told::of(&failure)),
        (None, None) => {
            let gate = plan.gate(node).filter(|_| taken.has(Taken::VALUE));
            let given = gate.map(given_by_gate).transpose();
            given.map(Goods::of_value).map_err(|failure| Told::of_outside(&failure))
        }
    }
}

fn number_of(bytes: &[u8]) -> Option<RunNumber> {
    message::head::<RunNumber>(bytes).map(|(number, _)| number)
}

/// An import at a guest has no value in this run; what an earlier run left must not be taken for one of the next.
fn fail_import(record: Ref, parity: u8) {
    record.drop_value_if_done();
    record.head().status.store(state::FAILED | parity, Ordering::Release);
}

/// A value came that is none.
pub(super) fn unreadable(task: Ref) -> Arc<Failure> {
    let what = "its result came as bytes that serde, which wrote them, cannot read";
    Failure::new(task, Cause::Error(what.into()), 1)
}

/// The value of a task of an earlier submission.
fn given_by_gate(task: Ref) -> Result<Vec<u8>, Arc<Failure>> {
    match task.cohort().and_then(|cohort| cohort.keeping(|| is_there(task).then(|| given_by(task)))) {
        Some(given) => given,
        None => Err(missing(task)),
    }
}

/// Whether the value of a task is here.
pub(super) fn is_there(task: Ref) -> bool {
    task.head().status.load(Ordering::Acquire) & !state::PARITY == state::DONE
}
