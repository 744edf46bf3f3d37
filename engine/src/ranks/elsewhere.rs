//! At home: the tasks of a list that run elsewhere, and how their values come.
//!
//! A record with a status of an earlier run, or none, stands for a task that waits or runs elsewhere; once the run is
//! over, for one that is done there. It becomes
//! - `DONE` when its value comes, by a notice to a task here that takes it, or by a reply to who asked for it; from
//!   then on it is as if it had run here;
//! - `FAILED` or `SKIPPED` by a reply, or by the `End` of its part.
//!
//! It belongs to the list's cohort, and to those of lists that it holds until they run in another, since results
//! outlive the compiled list; when all have let go, guests drop their parts.
//! Values are asked for once: who asks keeps the record until the reply has come (`asked`).

use super::Ranks;
use super::message::{self, Came, Cancel, End, Fetch, Give, Kind, Read, Replied, RunNumber, Sent};
use super::side::unreadable;
use super::times::{self, Heard};
use crate::cohort::Cohort;
use crate::compile::split::Export;
use crate::error::{Cause, Error, Failure};
use crate::run::{Others, Run, Timed};
use crate::shared::Shared;
use crate::task::output::{Output, Portion};
use crate::task::record::{Kept, Ref, state};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tarragon_transport::{Message, Rank};

/// The part of one guest: its tasks in order.
pub(super) struct Away {
    pub(super) rank: Rank,
    /// Where they are in the list.
    pub(super) places: Box<[u32]>,
    /// Kept by the plan.
    pub(super) tasks: Box<[Ref]>,
}

/// See the page.
pub(crate) struct Elsewhere {
    pub(super) ranks: Arc<Ranks>,
    shared: Weak<Shared>,
    pub(super) list: u64,
    /// For each cohort in the list, by id, what to add to a task's index to have its place in the list.
    bases: Box<[(u32, u32)]>,
    /// By place of the task: one above the place of its part in `away` (0: it runs here), and its place in that.
    places: Box<[(u16, u32)]>,
    pub(super) away: Box<[Away]>,
    now: Mutex<Now>,
    /// Output that was asked for, once it has come.
    reading: Mutex<HashMap<u64, Option<io::Result<Vec<u8>>>>>,
    /// When tasks ran, if the batch measures.
    times: Mutex<Heard>,
    /// What guests are to run, until they were told.
    parts: Mutex<Vec<(Rank, Vec<u8>)>>,
    part_bytes: u64,
    /// Workers of each rank but this.
    workers: Box<[u32]>,
}

#[derive(Default)]
struct Now {
    number: RunNumber,
    /// By id of each cohort in the list the parity under which the run writes.
    parities: Vec<(u32, u8)>,
    run: Weak<Run>,
    /// By part: it has not ended in this run.
    open: Vec<bool>,
    /// By part the latest run in which a body was given up that stayed in its task, and the latest after which all were
    /// back.
    held: Vec<(RunNumber, RunNumber)>,
    /// Guests were told of the run.
    is_known: bool,
    /// Values that were asked for, by part and place.
    asked: HashMap<(usize, u32), Kept>,
    /// What guests have sent.
    sent: Sent,
    /// Numbers of what was asked to be read, over all runs.
    tickets: u64,
}

impl Elsewhere {
    pub(super) fn new(
        ranks: &Arc<Ranks>,
        shared: &Arc<Shared>,
        list: u64,
        (tasks, bases): (usize, &[(u32, u32)]),
        away: Vec<Away>,
        parts: Vec<(Rank, Vec<u8>)>,
    ) -> Arc<Self> {
        let part_bytes = parts.iter().map(|(_, part)| part.len() as u64).sum();
        let mut places = vec![(0u16, 0u32); tasks];
        for (part, away) in away.iter().enumerate() {
            for (place, at) in (0..).zip(&away.places) {
                places[*at as usize] = (part as u16 + 1, place);
            }
        }
        let workers = (1..ranks.size()).map(|rank| ranks.workers_of(rank, &shared.setup)).collect();
        let (ranks, shared) = (Arc::clone(ranks), Arc::downgrade(shared));
        let (places, away) = (places.into(), away.into());
        Arc::new(Self {
            ranks,
            shared,
            list,
            bases: bases.into(),
            places,
            away,
            now: Mutex::default(),
            reading: Mutex::default(),
            times: Mutex::default(),
            parts: Mutex::new(parts),
            part_bytes,
            workers,
        })
    }

    /// Tells guests what they are to run.
    pub(super) fn send_parts(&self) {
        let parts = std::mem::take(&mut *self.parts.lock());
        parts.into_iter().for_each(|(rank, part)| self.ranks.tell_owned(rank, Kind::Part, self.list, part));
    }

    pub(super) fn sent(&self) -> Sent {
        self.now.lock().sent
    }

    /// The list's batch, unless it is gone.
    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    pub(super) fn part_bytes(&self) -> u64 {
        self.part_bytes
    }

    pub(super) fn parts(&self) -> u32 {
        self.away.len() as u32
    }

    pub(super) fn ranks_of(&self) -> impl Iterator<Item = Rank> + '_ {
        self.away.iter().map(|away| away.rank)
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = Ref> + '_ {
        self.away.iter().flat_map(|away| away.tasks.iter().copied())
    }

    /// Whether the task at this place of the list runs elsewhere.
    pub(crate) fn is_away(&self, place: u32) -> bool {
        self.places.get(place as usize).is_some_and(|(part, _)| *part != 0)
    }

    /// Whether a task runs elsewhere.
    pub(crate) fn has(&self, task: Ref) -> bool {
        self.place_of(task).is_some()
    }

    fn place_of(&self, task: Ref) -> Option<(usize, u32)> {
        let id = task.head().cohort.load(Ordering::Acquire);
        let base = self.bases.binary_search_by_key(&id, |(cohort, _)| *cohort).ok()?;
        self.part_of(self.bases[base].1 + task.index())
    }

    fn part_of(&self, place: u32) -> Option<(usize, u32)> {
        let (part, place) = *self.places.get(place as usize)?;
        Some((usize::from(part.checked_sub(1)?), place))
    }

    /// The index of a task that runs elsewhere, by its place in the list.
    pub(super) fn index_of(&self, place: u32) -> Option<u32> {
        let (part, place) = self.part_of(place)?;
        self.away[part].tasks.get(place as usize).map(|task| task.index())
    }

    pub(super) fn begin(&self, number: RunNumber, run: &Run) {
        let mut parities: Vec<(u32, u8)> = run.plan.cohorts().iter().map(|c| (c.id, c.parity())).collect();
        parities.sort_unstable();
        let (run, open) = (run.weak(), vec![true; self.away.len()]);
        let mut now = self.now.lock();
        (now.number, now.parities, now.run, now.open) = (number, parities, run, open);
        // Who waits for a value waits for one of this run now.
        (now.is_known, now.sent) = (false, Sent::default());
        now.held.resize(self.away.len(), (0, 0));
        self.times.lock().begin(self.away.len());
    }

    /// Has the values of tasks of this cohort brought here that are not and were not asked for; how they came out is
    /// told as for tasks that end here.
    pub(crate) fn request(&self, tasks: impl Iterator<Item = Ref>) {
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); self.away.len()];
        let run = {
            let mut now = self.now.lock();
            for task in tasks {
                let Some((part, place)) = self.place_of(task) else { continue };
                let parity = now.parity_of(task);
                if task.cohort().is_some_and(|cohort| task.has_ended(cohort.parity()))
                    || now.asked.contains_key(&(part, place))
                {
                    continue;
                }
                now.asked.insert((part, place), Kept::new(task));
                // Of a run that guests do not know of yet it is asked when they do.
                if now.is_known && task.cohort().is_some_and(|cohort| cohort.parity() == parity) {
                    wanted[part].push(place);
                }
            }
            now.number
        };
        self.fetch(run, wanted);
    }

    /// Tasks of lists that this one holds may be waited for by who asked elsewhere, or nobody, for their values.
    pub(super) fn request_awaited(&self) {
        self.request(self.tasks().filter(|task| task.is_watched()));
    }

    /// Guests know of the run: whoever waits for values of it is heard.
    pub(super) fn is_known(&self) {
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); self.away.len()];
        let run = {
            let mut now = self.now.lock();
            now.is_known = true;
            now.asked.keys().for_each(|(part, place)| wanted[*part].push(*place));
            now.number
        };
        self.fetch(run, wanted);
    }

    fn fetch(&self, run: RunNumber, wanted: Vec<Vec<u32>>) {
        for (away, tasks) in self.away.iter().zip(wanted).filter(|(_, tasks)| !tasks.is_empty()) {
            let fetch = message::bytes(&Fetch { run, tasks });
            self.ranks.tell(away.rank, Kind::Fetch, self.list, &fetch);
        }
        if self.ranks.lost.get().is_some() {
            self.give_up();
        }
    }

    /// Has the rank of a task, which is done there, send its value to ranks where a run of another list takes it.
    /// False if it runs here.
    pub(super) fn give(
        &self,
        task: Ref,
        (to, to_run): (u64, RunNumber),
        exports: &[Export],
    ) -> Option<usize> {
        let (part, place) = self.place_of(task)?;
        let run = self.now.lock().number;
        let imports = exports.iter().map(|export| (export.rank, export.import)).collect();
        let bytes = message::bytes(&Give { run, task: place, to, to_run, imports });
        self.ranks.tell(self.away[part].rank, Kind::Give, self.list, &bytes);
        Some(bytes.len())
    }

    /// The rank that runs a task.
    pub(crate) fn rank_of(&self, task: Ref) -> u32 {
        self.place_of(task).map_or(0, |(part, _)| self.away[part].rank.0)
    }

    pub(super) fn receive(&self, kind: Kind, message: &Message<'_>) {
        let part = self.away.iter().position(|away| away.rank == message.source);
        match (kind, part) {
            (Kind::End, Some(part)) => self.part_ended(part, message.payload),
            (Kind::Free, Some(part)) => self.part_freed(part, message.payload),
            (Kind::Record, Some(part)) => self.record(part, message.payload),
            (Kind::Times, Some(part)) => self.times_came(part, message.payload),
            (Kind::Reply, Some(part)) => self.reply(part, message.payload),
            (Kind::Written, Some(_)) => self.written(message.payload),
            _ => {
                tracing::warn!(target: "tarragon", source = message.source.0, ?kind, "a message for another list")
            }
        }
    }

    /// The run under way, if it has this number.
    pub(super) fn run_with(&self, number: RunNumber) -> Option<Arc<Run>> {
        let now = self.now.lock();
        (now.number == number).then(|| now.run.upgrade()).flatten()
    }

    fn part_ended(&self, part: usize, bytes: &[u8]) {
        let Some((End { run: number, failures, told, sent, is_held }, _)) = message::head::<End>(bytes)
        else {
            return;
        };
        let run = {
            let mut now = self.now.lock();
            if number != now.number || !std::mem::take(&mut now.open[part]) {
                return;
            }
            now.sent.notices += sent.notices;
            now.sent.bytes += sent.bytes;
            now.sent.stolen += sent.stolen;
            if is_held {
                now.held[part].0 = number;
            }
            now.run.upgrade()
        };
        let Some(run) = run else { return };
        let told = told.failures(&|place| self.index_of(place));
        for (place, skipped, why, wrote) in failures {
            let task = self.away[part].tasks.get(place as usize);
            if let (Some(task), Some(why)) = (task, told.get(why as usize)) {
                keep_output(*task, &wrote);
                run.failed_elsewhere(*task, Arc::clone(why), skipped);
            }
        }
        run.part_ended();
    }

    /// It may come before the end of the part, which it is told of by another thread.
    fn part_freed(&self, part: usize, bytes: &[u8]) {
        let Some((run, _)) = message::head::<RunNumber>(bytes) else { return };
        if let Some(held) = self.now.lock().held.get_mut(part) {
            held.1 = run.max(held.1);
        }
    }

    /// An error while a body that was given up elsewhere is still inside its task.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_held = self.now.lock().held.iter().any(|(held, freed)| held > freed);
        if is_held { Err(Error::BodyStillRuns) } else { Ok(()) }
    }

    fn times_came(&self, part: usize, bytes: &[u8]) {
        let now = self.now.lock();
        if times::run_of(bytes) == Some(now.number) && now.open.get(part) == Some(&true) {
            self.times.lock().take(part, &self.away[part].places, bytes);
        }
    }

    /// When tasks ran elsewhere in the run that has ended, by place in the list, after `started_ns`.
    pub(super) fn times(&self, started_ns: u64) -> (Vec<(u32, Timed)>, Others) {
        let mut told = self.times.lock();
        // Of the two clocks that are known worst.
        let (mut all, mut within) = (Vec::new(), [0; 2]);
        for (part, away) in self.away.iter().enumerate() {
            // Who has never said what its clock says has told no times.
            let Some(clock) = self.ranks.clock_of(away.rank, started_ns) else { continue };
            within = [within[0].max(clock.within), within[1].max(within[0].min(clock.within))];
            let times = told.of_part(part, clock, started_ns);
            all.extend(away.places.iter().copied().zip(times));
        }
        let others = Others {
            workers: self.workers.clone(),
            usages: told.usages(),
            within: Duration::from_nanos(within[0].saturating_add(within[1])),
        };
        (all, others)
    }

    fn reply(&self, part: usize, bytes: &[u8]) {
        let Some((run, mut bytes)) = message::head::<RunNumber>(bytes) else { return };
        while let Some(((place, came, len), rest)) = message::head::<Replied>(bytes)
            && let Some((value, rest)) = rest.split_at_checked(len as usize)
        {
            bytes = rest;
            let (kept, parity) = {
                let mut now = self.now.lock();
                if run != now.number {
                    return;
                }
                let kept = now.asked.remove(&(part, place));
                let parity = kept.as_ref().map_or(0, |kept| now.parity_of(kept.0));
                if let Some(kept) = &kept
                    && kept.0.cohort().is_some_and(|cohort| cohort.parity() != parity)
                {
                    // Another run has begun, and it is that one's value which is waited for.
                    now.asked.insert((part, place), kept.clone());
                    continue;
                }
                (kept, parity)
            };
            if let Some(kept) = kept {
                self.replied(kept.0, parity, came, value);
            }
        }
    }

    /// What a task elsewhere has written so far; waits for the answer of its rank. `None` if it runs here.
    pub(crate) fn read(&self, task: Ref, portion: Portion) -> Option<io::Result<Vec<u8>>> {
        let (part, place) = self.place_of(task)?;
        let (ticket, read) = {
            let mut now = self.now.lock();
            now.tickets += 1;
            (now.tickets, Read { task: place, portion })
        };
        self.reading.lock().insert(ticket, None);
        let bytes = message::bytes(&(ticket, read));
        self.ranks.tell(self.away[part].rank, Kind::Read, self.list, &bytes);
        let came = || {
            let is_lost = self.ranks.lost.get().is_some();
            is_lost || self.reading.lock().get(&ticket).is_some_and(Option::is_some)
        };
        let shared = task.shared();
        shared.executor.wait(shared, task, None, &came);
        let read = self.reading.lock().remove(&ticket).flatten();
        Some(read.unwrap_or_else(|| Err(io::Error::other("its rank is lost"))))
    }

    fn written(&self, bytes: &[u8]) {
        let Some(((ticket, error), bytes)) = message::head::<(u64, String)>(bytes) else { return };
        if let Some(place) = self.reading.lock().get_mut(&ticket) {
            let read = if error.is_empty() { Ok(bytes.to_vec()) } else { Err(io::Error::other(error)) };
            *place = Some(read);
        }
        // The task may run on, so it is only who waits that is told, not who goes on after it.
        if let Some(shared) = self.shared.upgrade() {
            shared.awaited.look_again();
        }
    }

    /// Cancels the run elsewhere, or one task of it.
    pub(super) fn cancel(&self, task: Option<Ref>) {
        let run = self.now.lock().number;
        match task.map(|task| self.place_of(task)) {
            None => {
                let bytes = message::bytes(&Cancel { run, task: None });
                self.ranks_of().for_each(|rank| self.ranks.tell(rank, Kind::Cancel, self.list, &bytes));
            }
            Some(Some((part, place))) => {
                let bytes = message::bytes(&Cancel { run, task: Some(place) });
                self.ranks.tell(self.away[part].rank, Kind::Cancel, self.list, &bytes);
            }
            Some(None) => {}
        }
    }

    /// A rank is dead: what has not ended, never will.
    pub(super) fn lose(&self) {
        let (run, open) = {
            let mut now = self.now.lock();
            let open: Vec<usize> = (0..now.open.len()).filter(|part| now.open[*part]).collect();
            now.open.fill(false);
            (now.run.upgrade(), open)
        };
        self.give_up();
        let Some(run) = run else { return };
        run.stop.all();
        for part in &open {
            let has_ended = |task: &Ref| task.cohort().is_some_and(|cohort| task.has_ended(cohort.parity()));
            let left = self.away[*part].tasks.iter().filter(|task| !has_ended(task));
            left.for_each(|task| run.failed_elsewhere(*task, self.loss(Some(*task)), false));
        }
        if let Some(side) = &run.plan.side {
            side.lose(&run, |task| self.loss(task));
        }
        open.iter().for_each(|_| run.part_ended());
    }

    /// Whoever waits for a value is told that it will not come.
    fn give_up(&self) {
        let asked: Vec<(Kept, u8)> = {
            let mut now = self.now.lock();
            let asked = std::mem::take(&mut now.asked);
            asked.into_values().map(|kept| (now.parity_of(kept.0), kept)).map(|(p, k)| (k, p)).collect()
        };
        if let Some(shared) = self.shared.upgrade() {
            shared.awaited.look_again();
        }
        asked.iter().for_each(|(kept, parity)| fail(kept.0, *parity, self.loss(Some(kept.0)), false));
    }

    fn loss(&self, task: Option<Ref>) -> Arc<Failure> {
        let (rank, why) = self.ranks.lost.get().cloned().unwrap_or((Rank(0), String::new()));
        let cause = Cause::RankLost { rank: rank.0, host: self.ranks.host(rank), why };
        let (name, index) =
            task.map_or_else(|| (String::new(), u32::MAX), |task| (task.name(), task.index()));
        Failure::of(name, index, 0, rank.0, cause)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.ranks.elsewheres.write().remove(&self.list);
        self.ranks_of().for_each(|rank| self.ranks.tell(rank, Kind::Drop, self.list, &[]));
    }
}

/// Puts a value that came from elsewhere in place; false if the bytes are none. Nothing if the task has ended.
pub(super) fn arrive(task: Ref, parity: u8, value: &[u8]) -> bool {
    if task.has_ended(parity) {
        return true;
    }
    task.drop_value_if_done();
    // What serde does for the user's type is the user's code.
    if !catch_unwind(AssertUnwindSafe(|| task.unpack_value(value))).unwrap_or(false) {
        return false;
    }
    let head = task.head();
    head.status.store(state::DONE | parity, Ordering::Release);
    if head.code.value_needs_drop && task.handles() == 0 && head.uses.load(Ordering::Acquire) == 0 {
        task.drop_value_if_done();
    }
    task.shared().awaited.ended(task);
    true
}

impl Elsewhere {
    /// What a reply says of a task.
    fn replied(&self, task: Ref, parity: u8, came: Came, value: &[u8]) {
        let failure = match came {
            Came::WithValue => (!arrive(task, parity, value)).then(|| (unreadable(task), false)),
            Came::Well => {
                // Nobody wanted its value when it ended.
                end(task, parity, state::EMPTY);
                None
            }
            Came::Badly { skipped, why, wrote } => {
                keep_output(task, &wrote);
                Some((why.failure(&|place| self.index_of(place)), skipped))
            }
        };
        if let Some((failure, skipped)) = failure {
            fail(task, parity, failure, skipped);
        }
    }
}

impl Now {
    /// Under which the run writes the status of a task.
    fn parity_of(&self, task: Ref) -> u8 {
        let id = task.head().cohort.load(Ordering::Acquire);
        let at = self.parities.binary_search_by_key(&id, |(cohort, _)| *cohort);
        at.map_or(0, |at| self.parities[at].1)
    }
}

/// What a task wrote that did not succeed is told with its error.
fn keep_output(task: Ref, wrote: &str) {
    if let Some(cohort) = task.cohort().filter(|_| !wrote.is_empty()) {
        cohort.keep_output(task.index(), Output::of_text(wrote));
    }
}

/// A task elsewhere did not succeed, which is found out when its run may be over.
fn fail(task: Ref, parity: u8, failure: Arc<Failure>, skipped: bool) {
    if task.has_ended(parity) {
        return;
    }
    if let Some(cohort) = task.cohort() {
        cohort.note_failure(task.index(), failure);
    }
    end(task, parity, if skipped { state::SKIPPED } else { state::FAILED });
}

fn end(task: Ref, parity: u8, kind: u8) {
    if !task.has_ended(parity) {
        task.head().status.store(kind | parity, Ordering::Release);
        task.shared().awaited.ended(task);
    }
}

impl Cohort {
    /// Has the values of tasks of this cohort brought here, of those that run elsewhere.
    pub(crate) fn request(&self, tasks: impl Iterator<Item = Ref>) {
        if let Some(elsewhere) = self.elsewhere() {
            elsewhere.request(tasks);
        }
    }
}
