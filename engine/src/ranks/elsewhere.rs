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
use super::away::{Away, arrive, end, fail, keep_output};
use super::loss::Recovery;
use super::message::{self, Came, Cancel, End, Fetch, Give, Kind, Replied, RunNumber, Sent, Start};
use super::reading::Reading;
use super::seats::Holder;
use super::side::{Side, unreadable};
use super::times::{self, Heard};
use crate::cohort::Cohort;
use crate::error::{Cause, Error, Failure};
use crate::run::{Others, Run, Timed};
use crate::shared::Shared;
use crate::task::record::{Kept, Ref, state};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tarragon_transport::{Message, Rank};

/// See the page.
pub(crate) struct Elsewhere {
    pub(super) ranks: Arc<Ranks>,
    pub(super) shared: Weak<Shared>,
    pub(super) list: u64,
    /// Held by who starts a run elsewhere, and by who finds other holders for parts of lost ranks; by no handler.
    pub(super) turn: Mutex<()>,
    pub(super) recoveries: Mutex<Vec<Recovery>>,
    /// For each cohort in the list, by id, what to add to a task's index to have its place in the list.
    bases: Box<[(u32, u32)]>,
    /// By place of the task: one above the place of its part in `away` (0: it runs here), and its place in that.
    places: Box<[(u16, u32)]>,
    pub(super) away: Box<[Away]>,
    pub(super) now: Mutex<Now>,
    /// Output that was asked for, by ticket.
    pub(super) reading: Mutex<HashMap<u64, Reading>>,
    /// When tasks ran, if the batch measures.
    times: Mutex<Heard>,
    /// What guests are to run: until they were told, or as long as others may have to be.
    parts: Mutex<Vec<Vec<u8>>>,
    part_bytes: u64,
    /// Workers of each rank but this.
    workers: Box<[u32]>,
}

#[derive(Default)]
pub(super) struct Now {
    pub(super) number: RunNumber,
    /// By id of each cohort in the list the parity under which the run writes.
    parities: Vec<(u32, u8)>,
    pub(super) run: Weak<Run>,
    /// By part: it has not ended in this run.
    pub(super) open: Vec<bool>,
    /// By part the latest run in which a body was given up that stayed in its task, and the latest after which all were
    /// back.
    pub(super) held: Vec<(RunNumber, RunNumber)>,
    /// Guests were told of the run.
    pub(super) is_known: bool,
    /// Parts of which the values of this run are gone, with the rank that had them.
    pub(super) gone: BTreeSet<usize>,
    /// Tasks that were begun anew on other ranks in this run, since theirs was lost.
    pub(super) rerun: u64,
    /// Values that were asked for, by part and place.
    asked: HashMap<(usize, u32), Kept>,
    /// What guests have sent.
    sent: Sent,
    /// Numbers of what was asked to be read, over all runs.
    pub(super) tickets: u64,
}

impl Elsewhere {
    pub(super) fn new(
        ranks: &Arc<Ranks>,
        shared: &Arc<Shared>,
        list: u64,
        (tasks, bases): (usize, &[(u32, u32)]),
        away: Vec<Away>,
        parts: Vec<Vec<u8>>,
    ) -> Arc<Self> {
        let part_bytes = parts.iter().map(|part| part.len() as u64).sum();
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
            turn: Mutex::default(),
            recoveries: Mutex::default(),
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
        let _turn = self.turn.lock();
        let parts = match self.ranks.survives() {
            true => self.parts.lock().clone(),
            false => std::mem::take(&mut *self.parts.lock()),
        };
        for (away, part) in self.away.iter().zip(parts) {
            // If it is lost by now, others are told when that is settled.
            let Holder { rank, list } = away.holder();
            self.ranks.tell_owned(Rank(rank), Kind::Part, list, part);
        }
        if self.ranks_of().any(|rank| self.ranks.is_lost(rank)) {
            // It was placed there before that was known.
            self.ranks.look_for_holders();
        }
    }

    /// What the holder of a part was sent.
    pub(super) fn bytes_of(&self, part: usize) -> Vec<u8> {
        self.parts.lock().get(part).cloned().unwrap_or_default()
    }

    /// Tells the holder of a part.
    pub(super) fn tell(&self, part: usize, kind: Kind, bytes: &[u8]) {
        let Holder { rank, list } = self.away[part].holder();
        self.ranks.tell(Rank(rank), kind, list, bytes);
    }

    /// A run begins: guests are told what of it was recorded, and start theirs.
    pub(super) fn start(&self, side: &Side, run: &Arc<Run>, number: RunNumber) {
        let _turn = self.turn.lock();
        let recording = run.ledger.as_ref().map(|ledger| self.tell_reused(ledger));
        if run.plan.shared.timing {
            // Before the run: an answer comes before what the guest tells of its times.
            self.ranks_of().for_each(|rank| self.ranks.ask_clock(rank));
        }
        for part in 0..self.away.len() {
            let start = Start { run: number, recording, adopted: self.adopted(part) };
            self.tell(part, Kind::Start, &message::bytes(&start));
        }
        self.is_known();
        if !run.plan.members.is_empty() {
            self.request_awaited();
        }
        side.give_outside(number, None);
    }

    pub(super) fn sent(&self) -> Sent {
        self.now.lock().sent
    }

    /// Tasks that were begun anew on other ranks in the latest run.
    pub(super) fn rerun(&self) -> u64 {
        self.now.lock().rerun
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
        self.away.iter().map(Away::rank)
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

    pub(super) fn place_of(&self, task: Ref) -> Option<(usize, u32)> {
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
        (now.is_known, now.sent, now.rerun) = (false, Sent::default(), 0);
        now.gone.clear();
        now.held.resize(self.away.len(), (0, 0));
        self.times.lock().begin(self.away.len());
    }

    /// Has the values of tasks of this cohort brought here that are not and were not asked for; how they came out is
    /// told as for tasks that end here.
    pub(crate) fn request(&self, tasks: impl Iterator<Item = Ref>) {
        let (mut wanted, mut gone) = (vec![Vec::new(); self.away.len()], Vec::new());
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
                if now.gone.contains(&part) {
                    gone.push((Kept::new(task), parity));
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
        gone.iter().for_each(|(kept, parity)| fail(kept.0, *parity, self.loss_of(kept.0), false));
        self.fetch(run, wanted);
    }

    /// Asks once more for values that the lost holder of a part did not send.
    pub(super) fn ask_again(&self, part: usize) {
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); self.away.len()];
        let run = {
            let now = self.now.lock();
            wanted[part] = now.asked.keys().filter(|(of, _)| *of == part).map(|(_, place)| *place).collect();
            now.number
        };
        self.fetch(run, wanted);
    }

    /// Whoever waits for something of a part whose values are gone is told so; who reads output of it, too.
    pub(super) fn part_is_gone(&self, part: usize) {
        let asked: Vec<(Kept, u8)> = {
            let mut now = self.now.lock();
            now.gone.insert(part);
            let keys: Vec<_> = now.asked.keys().filter(|(of, _)| *of == part).copied().collect();
            let asked = keys.iter().filter_map(|key| now.asked.remove(key)).collect::<Vec<_>>();
            asked.into_iter().map(|kept| (now.parity_of(kept.0), kept)).map(|(p, kept)| (kept, p)).collect()
        };
        asked.iter().for_each(|(kept, parity)| fail(kept.0, *parity, self.loss_of(kept.0), false));
        self.reads_fail(part);
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
        for (part, tasks) in wanted.into_iter().enumerate().filter(|(_, tasks)| !tasks.is_empty()) {
            self.tell(part, Kind::Fetch, &message::bytes(&Fetch { run, tasks }));
        }
        if self.ranks.lost.get().is_some() {
            self.give_up();
        }
    }

    /// Has the rank of a task, which is done there, send its value to ranks where a run of another list takes it: to
    /// imports there, by rank. How many bytes that took; `None` if it runs here.
    pub(super) fn give(
        &self,
        task: Ref,
        (to, to_run): (u64, RunNumber),
        imports: Vec<(u16, u32)>,
    ) -> Option<usize> {
        let (part, place) = self.place_of(task)?;
        let run = self.now.lock().number;
        let bytes = message::bytes(&Give { run, task: place, to, to_run, imports });
        self.tell(part, Kind::Give, &bytes);
        Some(bytes.len())
    }

    /// Why what a task gave is nowhere, if it went with a rank that is lost.
    pub(super) fn gone(&self, task: Ref) -> Option<Arc<Failure>> {
        let (part, _) = self.place_of(task)?;
        let is_gone = self.now.lock().gone.contains(&part);
        is_gone.then(|| self.loss_of(task))
    }

    /// The rank that runs a task.
    pub(crate) fn rank_of(&self, task: Ref) -> u32 {
        self.place_of(task).map_or(0, |(part, _)| self.away[part].rank().0)
    }

    pub(super) fn receive(&self, kind: Kind, message: &Message<'_>) {
        let from = Holder { rank: message.source.0, list: message.tag };
        let part = self.away.iter().position(|away| away.holder() == from);
        match (kind, part) {
            (Kind::End, Some(part)) => self.part_ended(part, message.payload),
            (Kind::Free, Some(part)) => self.part_freed(part, message.payload),
            (Kind::Record, Some(part)) => self.record(part, message.payload),
            (Kind::Times, Some(part)) => self.times_came(part, message.payload),
            (Kind::Reply, Some(part)) => self.reply(part, message.payload),
            (Kind::Written, Some(_)) => self.written(message.payload),
            (Kind::Have, Some(part)) => self.have(part, message.payload),
            // A rank that is lost was heard of late.
            (_, None) if self.ranks.is_lost(message.source) => {}
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
            let Some(clock) = self.ranks.clock_of(away.rank(), started_ns) else { continue };
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

    /// Cancels the run elsewhere, or one task of it.
    pub(super) fn cancel(&self, task: Option<Ref>) {
        let run = self.now.lock().number;
        match task.map(|task| self.place_of(task)) {
            None => {
                let bytes = message::bytes(&Cancel { run, task: None });
                (0..self.away.len()).for_each(|part| self.tell(part, Kind::Cancel, &bytes));
            }
            Some(Some((part, place))) => {
                let bytes = message::bytes(&Cancel { run, task: Some(place) });
                self.tell(part, Kind::Cancel, &bytes);
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

    /// What a task gave went with the rank that ran it.
    fn loss_of(&self, task: Ref) -> Arc<Failure> {
        let rank = self.place_of(task).map_or(0, |(part, _)| u32::from(self.away[part].seat));
        let (rank, why) = self.ranks.last_loss(rank);
        let why = format!("{why}; what the task had given there is gone: run the list again");
        let cause = Cause::RankLost { rank: rank.0, host: self.ranks.host(rank), why };
        Failure::of(task.name(), task.index(), 0, rank.0, cause)
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
        let mut lists = self.ranks.elsewheres.write();
        lists.remove(&self.list);
        self.away.iter().for_each(|away| drop(lists.remove(&away.holder().list)));
        drop(lists);
        (0..self.away.len()).for_each(|part| self.tell(part, Kind::Drop, &[]));
    }
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

impl Cohort {
    /// Has the values of tasks of this cohort brought here, of those that run elsewhere.
    pub(crate) fn request(&self, tasks: impl Iterator<Item = Ref>) {
        if let Some(elsewhere) = self.elsewhere() {
            elsewhere.request(tasks);
        }
    }
}
