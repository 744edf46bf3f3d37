//! Ranks that are lost while the others go on.
//!
//! Only where the world survives losses (`transport::membership`); else the first loss ends it. Rank 0 is home, and
//! cannot be spared: the others stop without it.
//!
//! # What is lost with a rank
//! - Parts that it had, with the values and the output of their tasks. Home kept the bytes of each part, and sends them
//!   to another *holder* (`seats`): the guest that has the fewest parts of the list, home itself if there is no guest,
//!   or if gangs are in it, which need ranks above their leader's. There the part is a part like any other.
//! - Ready tasks of others that it had stolen: their victims put them back, and they run as if they had stayed.
//! - What it asked of others. What it has sent before counts, as far as it has come: membership sees to it that after a
//!   loss is *settled* nobody takes anything more of it.
//!
//! # A run that is under way
//! | step | who | does |
//! |---|---|---|
//! | 1 | home, once the loss is settled | gives the part another holder and sends it there; keeps the run from ending |
//! | 2 | home → all with a part, itself among them | `Moved`: exports to that seat go to the new holder from now on |
//! | 3 | each of them | tells the new holder of all that has ended here, as if for the first time |
//! | 4 | each → home | `Have`: which imports have ended, and what the lost rank may have been told |
//! | 5 | home, when it has all answers | decides what of the part must run again, and starts it |
//!
//! What has ended is known to home from those imports: a task has ended if anything that waits for it heard so, or if a
//! task has ended that waits for it. What has ended runs again only if something needs what it gave and does not have
//! it: a task of the part that has not ended and takes its value, a rank that has not heard of it and takes something
//! of it, or a handle of the user's (but for what writes data: that is what it was for). And so on back to what is
//! there (*lineage*). For that, each rank keeps what it has sent to other ranks: home until the run has ended, others
//! until the next run of the list begins.
//!
//! A task that has ended is not run again if something after it in the list writes data that it has declared to read,
//! or accesses data that it writes: it would not find what it found, or take away what others have. If what it gave is
//! needed, it fails, with the loss as the cause, and so does what depends on it. A task that was running, or of whose
//! end nobody knows, runs again: in a world that loses ranks a body may run more than once. What has to come after it
//! on
//! other ranks has not begun, then; what comes after it on the lost rank may have. If that writes what the task reads,
//! or the task itself does, it would not find what it found, and fails as well, unless something that they wait for has
//! not ended.
//!
//! A notice may come twice; the second one is passed over (`Side::ends`).
//!
//! # Between runs
//! The part gets another holder, and the next run starts there. Values of the last run that were asked for of the lost
//! rank, or are later, are errors that name it.
//!
//! # A second loss
//! The new holder may be lost as well: the same again, from the bytes. Who owes a `Have` and is lost is not waited for:
//! its own part runs again, and needs all that was sent to it. Of tasks that were passed over on a new holder, since
//! the second rank had what they gave, that is gone for good: whoever takes it fails, with the loss as the cause.
//!
//! # Who may write what
//! Holders and recoveries: home's listener, under the list's `turn`, which who starts a run elsewhere holds, too. The
//! handler of a `Have` only notes it. A seat's holder as other parts know it: the clerk, and at home the listener.

use super::away::Away;
use super::clerk::Clerk;
use super::elsewhere::Elsewhere;
use super::message::{self, Adopted, Cancel, Had, Have, Kind, Moved, RunNumber, Start};
use super::part::{self, TaskHead};
use super::seats::Holder;
use super::{Ranks, unpack};
use crate::compile::split::Export;
use crate::compile::{NEEDS, Taken};
use crate::error::Error;
use crate::function::wire::WireError;
use crate::gather::each_input;
use crate::plan::Plan;
use crate::run::Run;
use crate::task::record::{Ref, state};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tarragon_transport::{Change, FabricError, Rank};

/// A part that is to run again in the run under way, until all have said what they have of it.
pub(super) struct Recovery {
    part: usize,
    run: RunNumber,
    /// Parts whose holders were asked and have not answered.
    waiting: BTreeSet<usize>,
    /// What they said, by seat.
    have: HashMap<u16, Had>,
    /// Who is lost, and why.
    lost: (u32, String),
}

impl Ranks {
    /// Whether the others go on without a rank that is lost.
    pub(crate) fn survives(&self) -> bool {
        self.world.fabric().survives_losses()
    }

    /// Whether the others go on without this rank.
    pub(super) fn is_lost(&self, rank: Rank) -> bool {
        self.world.fabric().lost_in(rank).is_some()
    }

    /// The ranks that are not lost, in order.
    pub(crate) fn live(&self) -> Vec<u16> {
        let live = self.world.ranks().filter(|rank| !self.survives() || !self.is_lost(*rank));
        live.map(|rank| rank.0 as u16).collect()
    }

    /// Whether as many ranks are left, from this one on, as a gang needs that has lost one.
    pub(crate) fn has_room_for(&self, gang: u32) -> bool {
        let me = self.rank();
        self.survives()
            && self.live().into_iter().filter(|rank| u32::from(*rank) >= me).count() >= gang as usize
    }

    /// Why a rank is lost, if it is and others go on.
    pub(crate) fn loss_of(&self, rank: u32) -> Option<String> {
        (self.survives() && self.is_lost(Rank(rank))).then(|| self.last_loss(rank).1)
    }

    /// Of that rank, or else of the last one that was lost: who it was, and why.
    pub(super) fn last_loss(&self, rank: u32) -> (Rank, String) {
        let losses = self.world.losses();
        let loss = losses.iter().find(|loss| loss.rank.0 == rank).or(losses.last());
        loss.map_or((Rank(rank), String::new()), |loss| (loss.rank, loss.why.to_string()))
    }

    /// A message could not be sent. Where losses are survived, it will be heard of by other means who is lost.
    pub(super) fn was_not_told(&self, to: Rank, error: &FabricError) {
        let is_gone = matches!(
            error,
            FabricError::PeerDead { .. } | FabricError::Lost(_) | FabricError::CastOut { .. }
        );
        if !(is_gone && self.survives()) {
            self.lose(to, &error.to_string());
        }
    }

    /// From now on the listener hears of changes of membership.
    pub(super) fn watch_membership(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        self.world.on_change(move |_, change| {
            if let Some(ranks) = this.upgrade().filter(|ranks| ranks.survives()) {
                ranks.changes.lock().push(change.clone());
                ranks.wake();
            }
        });
    }

    /// The listener looks at all there is to do.
    fn wake(&self) {
        self.has_changes.store(true, Ordering::Release);
        // A rank that cannot tell itself is not waiting.
        let _ = self.send(self.world.rank(), Kind::Look, 0, &[]);
    }

    /// Does what changes of membership ask for. Called by the listener.
    pub(super) fn act_on_changes(self: &Arc<Self>) {
        if !self.has_changes.swap(false, Ordering::AcqRel) {
            return;
        }
        let changes = std::mem::take(&mut *self.changes.lock());
        for change in changes {
            match change {
                Change::Lost(loss) => {
                    tracing::warn!(target: "tarragon", %loss, "a rank is lost; the others go on");
                    self.thief_forgets(loss.rank);
                    self.take_back(loss.rank);
                }
                // Seen to below, where lists that were compiled meanwhile are, too.
                Change::Settled(_) => {}
                Change::CastOut(why) => self.is_cast_out(&why.to_string()),
            }
        }
        if self.is_home() {
            let settled = self.world.fabric().settled_epoch();
            for list in self.all_elsewheres() {
                list.find_holders(settled);
                list.go_on();
            }
        }
    }

    /// At home: a list was placed on a rank that is lost by now.
    pub(super) fn look_for_holders(&self) {
        self.wake();
    }

    fn is_cast_out(&self, why: &str) {
        let _ = self.lost.set((self.world.rank(), why.to_string()));
        self.is_stopped.store(true, Ordering::Release);
    }

    fn all_elsewheres(&self) -> Vec<Arc<Elsewhere>> {
        // A list has several numbers if parts of it have moved.
        let lists: HashMap<u64, Arc<Elsewhere>> = {
            let all = self.elsewheres.read();
            all.values().filter_map(std::sync::Weak::upgrade).map(|list| (list.list, list)).collect()
        };
        lists.into_values().collect()
    }

    /// At home: the tasks of a list that run elsewhere, by any of its numbers.
    pub(super) fn elsewhere(&self, list: u64) -> Option<Arc<Elsewhere>> {
        self.elsewheres.read().get(&list).and_then(std::sync::Weak::upgrade)
    }

    /// At home: a thread that keeps parts here, as guests have one.
    fn keep_parts(self: &Arc<Self>) -> Result<(), Error> {
        let Some(desk) = self.desk.lock().take() else { return Ok(()) };
        let clerk = Clerk::new(self);
        let thread = std::thread::Builder::new().name("tarragon-clerk".to_string());
        let spawned = thread.spawn(move || clerk.work(&desk));
        spawned.map(drop).map_err(|e| Error::Threads { threads: 1, source: Box::new(e) })
    }
}

impl Elsewhere {
    /// What the holder of a part that has moved is to know when a run of it starts.
    pub(super) fn adopted(&self, part: usize) -> Option<Adopted> {
        let away = &self.away[part];
        (away.holder().list != self.list).then(|| Adopted {
            list: self.list,
            moved: self.moved(),
            done: Vec::new(),
            spoilt: Vec::new(),
            lost: (u32::from(away.seat), String::new()),
        })
    }

    fn moved(&self) -> Vec<(u16, Holder)> {
        let seats = self.away.iter().map(|away| (away.seat, away.holder()));
        seats.filter(|(_, holder)| holder.list != self.list).collect()
    }

    /// Other holders for parts of ranks that are lost, of which all know.
    fn find_holders(self: &Arc<Self>, settled: u32) {
        let _turn = self.turn.lock();
        let fabric = self.ranks.world.fabric();
        let is_lost = |part: &usize| {
            let epoch = fabric.lost_in(self.away[*part].rank());
            epoch.is_some_and(|epoch| epoch <= settled)
        };
        let lost: Vec<usize> = (0..self.away.len()).filter(is_lost).collect();
        if lost.is_empty() {
            return;
        }
        let (run, number, is_known) = {
            let now = self.now.lock();
            (now.run.upgrade().filter(|run| !run.is_over()), now.number, now.is_known)
        };
        // A run that has begun, of which guests are still to be told, starts at the new holders.
        let is_about_to_start = run.is_some() && !is_known;
        let run = run.filter(|_| is_known);
        {
            let mut recoveries = self.recoveries.lock();
            recoveries.retain(|it| !lost.contains(&it.part));
            recoveries.iter_mut().for_each(|it| it.waiting.retain(|part| !lost.contains(part)));
        }
        let others = || (0..self.away.len()).filter(|part| !lost.contains(part));
        let mut again = Vec::new();
        for part in &lost {
            let was = self.away[*part].rank();
            self.give_to_another(*part);
            self.reads_fail(*part);
            if run.as_ref().is_some_and(|run| self.reopens(run, *part)) {
                let (_, why) = self.ranks.last_loss(was.0);
                let (waiting, have) = (others().collect(), HashMap::new());
                again.push(Recovery { part: *part, run: number, waiting, have, lost: (was.0, why) });
            } else if number > 0 && !is_about_to_start {
                self.part_is_gone(*part);
            }
        }
        let plan = self.ranks.plan_of(self.list);
        let again_of =
            |part: usize, again: &[Recovery]| again.iter().find(|it| it.part == part).map(|it| it.run);
        // Of a run that is over nothing is told once more.
        let runs: Vec<RunNumber> = lost.iter().map(|part| again_of(*part, &again).unwrap_or(0)).collect();
        // Before anybody is asked: the answer may be here before this goes on.
        self.recoveries.lock().extend(again);
        for (part, run) in lost.iter().zip(runs) {
            let away = &self.away[*part];
            let moved = Moved { run, seat: away.seat, holder: away.holder() };
            others().for_each(|other| self.tell(other, Kind::Moved, &message::bytes(&moved)));
            if let Some(plan) = &plan
                && let Some(side) = &plan.side
            {
                let have = side.moved(plan, &moved);
                let mut recoveries = self.recoveries.lock();
                if let Some(recovery) = recoveries.iter_mut().find(|it| it.part == *part) {
                    recovery.have.insert(0, have);
                }
            }
        }
    }

    /// Sends a part to another rank.
    fn give_to_another(self: &Arc<Self>, part: usize) {
        let away = &self.away[part];
        let parts_of = |rank: u16| self.away.iter().filter(|it| it.rank().0 == u32::from(rank)).count();
        let guests = self.ranks.live().into_iter().filter(|rank| *rank != 0);
        let needs_room = away.tasks.iter().any(|task| task.gang() > 1 || task.is_mpi());
        let has_gpus =
            |rank: &u16| away.tasks.iter().all(|task| self.ranks.has_gpus_for(u32::from(*rank), *task));
        let guests = guests.filter(|rank| !needs_room && has_gpus(rank));
        let rank = guests.min_by_key(|rank| (parts_of(*rank), *rank)).unwrap_or(0);
        if rank == 0
            && let Err(error) = self.ranks.keep_parts()
        {
            self.ranks.lose(Rank(0), &format!("it cannot run what was a lost rank's: {error}"));
        }
        let holder = Holder { rank: u32::from(rank), list: self.ranks.next_list() };
        self.ranks.elsewheres.write().insert(holder.list, Arc::downgrade(self));
        let before = away.holder();
        away.goes_to(holder);
        if before.list != self.list {
            self.ranks.elsewheres.write().remove(&before.list);
        }
        if let Some(held) = self.now.lock().held.get_mut(part) {
            // Bodies that stayed in their tasks went with their process.
            *held = (0, 0);
        }
        self.ranks.tell_owned(Rank(holder.rank), Kind::Part, holder.list, self.bytes_of(part));
    }

    /// Keeps the run from ending before a part that is lost has; false if it is over.
    fn reopens(&self, run: &Arc<Run>, part: usize) -> bool {
        let mut now = self.now.lock();
        let Some(open) = now.open.get_mut(part) else { return false };
        if !*open {
            *open = run.part_reopens();
        }
        *open
    }

    /// The holder of a part says what it has of one that has moved.
    pub(super) fn have(&self, from: usize, bytes: &[u8]) {
        let Some((Have { run, seat, have }, _)) = message::head::<Have>(bytes) else { return };
        let mut recoveries = self.recoveries.lock();
        let of = |it: &&mut Recovery| self.away[it.part].seat == seat && it.run == run;
        let Some(recovery) = recoveries.iter_mut().find(of) else { return };
        recovery.waiting.remove(&from);
        recovery.have.insert(self.away[from].seat, have);
        let is_ready = recovery.waiting.is_empty();
        drop(recoveries);
        if is_ready {
            self.ranks.wake();
        }
    }

    /// Starts parts of which all have said what they have.
    fn go_on(&self) {
        let _turn = self.turn.lock();
        let ready: Vec<Recovery> =
            self.recoveries.lock().extract_if(.., |it| it.waiting.is_empty()).collect();
        ready.into_iter().for_each(|recovery| self.start_again(recovery));
    }

    fn start_again(&self, recovery: Recovery) {
        let Recovery { part, run: number, have, lost, .. } = recovery;
        let Some(run) = self.run_with(number) else { return self.part_is_gone(part) };
        let away = &self.away[part];
        let (done, spoilt) = match Lost::read(&self.bytes_of(part)) {
            Ok(lost) => lost.decide(&away.tasks, &have, &may_run_again(&run.plan, away)),
            // It could be read when it was written; what cannot be decided runs again.
            Err(_) => (Vec::new(), Vec::new()),
        };
        let again = away.tasks.len() - done.len() - spoilt.len();
        self.now.lock().rerun += again as u64;
        tracing::warn!(
            target: "tarragon", lost = lost.0, seat = away.seat, rank = away.rank().0, tasks = again,
            "tasks of a lost rank run on another one"
        );
        let recording = run.ledger.as_ref().map(|ledger| {
            self.tell_reused_of(part, ledger);
            Self::recording(ledger)
        });
        let adopted = Adopted { list: self.list, moved: self.moved(), done, spoilt, lost };
        let start = Start { run: number, recording, adopted: Some(adopted) };
        self.tell(part, Kind::Start, &message::bytes(&start));
        if let Some(side) = &run.plan.side {
            side.give_outside(number, Some(away.seat));
        }
        self.ask_again(part);
        if run.stop.is_all() {
            self.tell(part, Kind::Cancel, &message::bytes(&Cancel { run: number, task: None }));
            return;
        }
        for (place, _) in (0..).zip(&away.tasks).filter(|(_, task)| run.stop.is_told(**task)) {
            self.tell(part, Kind::Cancel, &message::bytes(&Cancel { run: number, task: Some(place) }));
        }
    }
}

/// By place of a part: whether a task could run again when it has ended, and would do the same.
fn may_run_again(plan: &Plan, away: &Away) -> Vec<bool> {
    if away.tasks.iter().all(|task| task.accesses().is_empty()) {
        return vec![true; away.tasks.len()];
    }
    // By datum the last task of the list that reads it, and the last one that writes it.
    let mut last: HashMap<u32, (Option<u32>, Option<u32>)> = HashMap::new();
    for (index, task) in plan.indexed() {
        for access in task.accesses() {
            let (read, written) = last.entry(access.datum()).or_default();
            *read = (*read).max(access.reads().then_some(index));
            *written = (*written).max(access.writes().then_some(index));
        }
    }
    let may = |(index, task): (&u32, &Ref)| {
        task.accesses().iter().all(|access| {
            let (read, written) = last.get(&access.datum()).copied().unwrap_or_default();
            let is_later = |other: Option<u32>| other.is_some_and(|other| other > *index);
            let is_same = access.reads() && written == Some(*index);
            !(is_later(written) || is_same || access.writes() && is_later(read))
        })
    };
    away.places.iter().zip(&away.tasks).map(may).collect()
}

/// The graph of a part that was a lost rank's, by place.
#[derive(Default)]
struct Lost {
    imports: u32,
    /// Imports from here on come from outside of the list, before it runs.
    outside: u32,
    is_wanted: Vec<bool>,
    /// For each task the end of its sources.
    ends: Vec<usize>,
    /// What one waits for: imports, and behind them tasks of the part.
    sources: Vec<u32>,
    exports: Vec<Vec<Export>>,
}

impl Lost {
    fn read(bytes: &[u8]) -> Result<Lost, WireError> {
        let (head, mut from) = unpack::open(bytes)?;
        let imports = head.imports.len() as u32;
        let mut lost = Lost { imports, outside: imports.saturating_sub(head.outside), ..Lost::default() };
        for place in 0..head.tasks {
            lost.is_wanted.push(TaskHead::read(&mut from)?.is_wanted);
            from.bytes_of()?;
            lost.exports.push(part::read_edges(&mut from, imports + place, &mut lost.sources)?);
            lost.ends.push(lost.sources.len());
        }
        Ok(lost)
    }

    fn sources_of(&self, place: usize) -> impl Iterator<Item = u32> + '_ {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        self.sources[start..self.ends[place]].iter().map(|source| source & !NEEDS)
    }

    /// Places of tasks of the part that one waits for.
    fn own_sources_of(&self, place: usize) -> impl Iterator<Item = usize> + '_ {
        self.sources_of(place)
            .filter_map(|source| source.checked_sub(self.imports))
            .map(|place| place as usize)
    }

    /// By place: whether a task of which nobody knows that it has ended would not do the same when it runs again, since
    /// it may have begun, or one after it may have, and what it reads may be written over.
    fn is_blurred(&self, tasks: &[Ref], have: &HashMap<u16, Had>) -> Vec<bool> {
        if tasks.iter().all(|task| task.accesses().is_empty()) {
            return vec![false; tasks.len()];
        }
        let told: HashSet<u32> = have.values().flat_map(|have| have.told.iter().copied()).collect();
        let mut may_have_begun: Vec<bool> = Vec::with_capacity(tasks.len());
        // By datum the last task that may have begun to write it.
        let mut written: HashMap<u32, usize> = HashMap::new();
        for (place, task) in tasks.iter().enumerate() {
            let mut sources = self.sources_of(place);
            let may = sources.all(|source| match source.checked_sub(self.imports) {
                Some(own) => may_have_begun[own as usize],
                None => source >= self.outside || told.contains(&source),
            });
            may_have_begun.push(may);
            let writes = task.accesses().iter().filter(|access| access.writes());
            written.extend(writes.filter(|_| may).map(|access| (access.datum(), place)));
        }
        let reads = |task: &Ref| task.accesses().iter().filter(|access| access.reads());
        let is_late = |place: usize| move |by: &usize| *by >= place;
        let blurred = |(place, task): (usize, &Ref)| {
            reads(task).any(|access| written.get(&access.datum()).is_some_and(is_late(place)))
        };
        tasks.iter().enumerate().map(blurred).collect()
    }

    /// By place: tasks that have ended and need not run, and tasks that are needed and must not run again.
    fn decide(&self, tasks: &[Ref], have: &HashMap<u16, Had>, may: &[bool]) -> (Vec<u32>, Vec<u32>) {
        debug_assert_eq!(self.ends.len(), tasks.len(), "after {} imports", self.imports);
        let heard = |export: &Export| {
            let ended = have.get(&export.rank).and_then(|have| have.ended.get(export.import as usize / 8));
            ended.is_some_and(|bits| bits >> (export.import % 8) & 1 == 1)
        };
        let is_blurred = self.is_blurred(tasks, have);
        let is_here = |task: Ref| {
            let parity = task.cohort().map_or(0, |cohort| cohort.parity());
            task.head().status.load(Ordering::Acquire) == state::DONE | parity
        };
        let mut ended: Vec<bool> =
            (0..tasks.len()).map(|it| is_here(tasks[it]) || self.exports[it].iter().any(heard)).collect();
        for place in (0..tasks.len()).rev() {
            if ended[place] {
                self.own_sources_of(place).for_each(|source| ended[source] = true);
            }
        }
        let places: HashMap<Ref, usize> = tasks.iter().copied().zip(0..).collect();
        let mut is_needed: Vec<bool> = (0..tasks.len())
            .map(|it| {
                let takes = |export: &Export| export.taken != Taken::NOTHING && !heard(export);
                let writes = || tasks[it].accesses().iter().any(|access| access.writes());
                let is_asked = || self.is_wanted[it] && may[it] && !writes() && !is_here(tasks[it]);
                !ended[it] || self.exports[it].iter().any(takes) || is_asked()
            })
            .collect();
        let (mut done, mut spoilt) = (Vec::new(), Vec::new());
        for place in (0..tasks.len()).rev() {
            match (is_needed[place], ended[place]) {
                (false, _) => done.push(place as u32),
                (true, true) if !may[place] => spoilt.push(place as u32),
                (true, false) if is_blurred[place] => spoilt.push(place as u32),
                (true, _) => each_input(tasks[place], &mut |input| {
                    if let Some(producer) = places.get(&input.task) {
                        is_needed[*producer] = true;
                    }
                }),
            }
        }
        (done, spoilt)
    }
}
