//! The victim's side: what to give to whom, and ending what comes back.

use super::{Ask, Back, GIFT_BYTES, GIFT_MAX, Gift, REST_MIN, Wrote};
use crate::error::{Cause, Failure};
use crate::ranks::Ranks;
use crate::ranks::message::{self, Came, Kind};
use crate::ranks::pack;
use crate::ranks::side::unreadable;
use crate::run::{Pool, Run};
use crate::task::output::{Output, Portion, Which};
use crate::task::record::Ref;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tarragon_transport::{Rank, wire::head};

/// A list that has nothing worth giving rests for at most so long.
const LIST_REST_MAX: Duration = Duration::from_secs(1);
/// A task must take so many times what writing it does.
const WORTH: u64 = 4;
/// A gift is to last so many times as long as it takes to come, and not longer than [`GIFT_NS_MAX`].
const LASTS: u64 = 4;
const GIFT_NS_MIN: u64 = 200_000;
const GIFT_NS_MAX: u64 = 20_000_000;

/// What was given away.
#[derive(Default)]
pub(super) struct Victim {
    /// Runs under way that can be stolen from.
    active: Vec<Weak<Run>>,
    given: HashMap<u64, Given>,
    last: u64,
}

/// One gift.
struct Given {
    run: Arc<Run>,
    to: Rank,
    /// By place: node and task, until it comes back.
    tasks: Vec<Option<(u32, Ref)>>,
    /// Output that could not be written here.
    unwritten: Vec<(u32, io::Error)>,
}

/// A node that ran elsewhere.
struct Ended {
    run: Arc<Run>,
    node: u32,
    task: Ref,
}

impl Victim {
    pub(super) fn begins(&mut self, run: &Arc<Run>) {
        self.active.retain(|run| run.strong_count() > 0);
        self.active.push(Arc::downgrade(run));
    }

    fn under_way(&mut self) -> Vec<Arc<Run>> {
        let mut runs = Vec::new();
        self.active.retain(|run| {
            let run = run.upgrade().filter(|run| !run.is_over());
            runs.extend(run.clone());
            run.is_some()
        });
        runs
    }

    fn task_of(&self, from: Rank, number: u64, place: u32) -> Option<Ref> {
        let given = self.given.get(&number).filter(|given| given.to == from)?;
        given.tasks.get(place as usize)?.map(|(_, task)| task)
    }

    pub(super) fn is_any_under_way(&mut self) -> bool {
        !self.under_way().is_empty()
    }
}

/// What is known of the tasks of a list.
#[derive(Default)]
pub(in crate::ranks) struct Price {
    /// What one takes, and what writing one takes; 0: not known.
    task_ns: u64,
    write_ns: u64,
    /// Nothing is given before.
    due: Option<Instant>,
    rest: Duration,
}

impl Price {
    /// How many tasks to give to a thief, out of so many that wait for `workers`.
    fn tasks_for(&mut self, ask: &Ask, surplus: usize, workers: usize) -> usize {
        let idle = ask.idle.max(1) as usize;
        if surplus == 0 || self.due.is_some_and(|due| Instant::now() < due) {
            return 0;
        }
        let half = surplus.div_ceil(2);
        if self.task_ns == 0 {
            return idle.min(half);
        }
        let wait_ns = (surplus as u64).saturating_mul(self.task_ns) / workers.max(1) as u64;
        if self.task_ns < WORTH * self.write_ns {
            self.is_worthless();
            return 0;
        }
        if wait_ns < ask.latency_ns {
            return 0;
        }
        let lasts = (LASTS * ask.latency_ns).clamp(GIFT_NS_MIN, GIFT_NS_MAX);
        let each = (lasts / self.task_ns.max(1)).max(1) as usize;
        (idle * each).min(half).min(GIFT_MAX)
    }

    /// Nothing is given for a while; afterwards it is tried again.
    fn is_worthless(&mut self) {
        self.rest = (self.rest * 2).clamp(REST_MIN * 50, LIST_REST_MAX);
        self.due = Some(Instant::now() + self.rest);
        (self.task_ns, self.write_ns) = (0, 0);
    }

    fn wrote(&mut self, each: Duration) {
        self.write_ns = mean(self.write_ns, each.as_nanos() as u64);
    }

    fn took(&mut self, ns: u64) {
        self.task_ns = mean(self.task_ns, ns.max(1));
        if self.task_ns >= WORTH * self.write_ns {
            self.rest = Duration::ZERO;
        }
    }
}

/// The old weighs as much as the new.
fn mean(old: u64, new: u64) -> u64 {
    if old == 0 { new } else { old.midpoint(new) }
}

impl Ranks {
    /// Another rank has nothing to do.
    pub(in crate::ranks) fn asked_for_work(&self, from: Rank, bytes: &[u8]) {
        let Some((ask, _)) = head::<Ask>(bytes) else { return };
        let runs = self.stealing.victim.lock().under_way();
        for run in &runs {
            if let Some((number, gift)) = self.give(from, &ask, run) {
                self.tell(from, Kind::Gift, number, &gift);
                // Who cancels first says so and then looks what was given away: one of us sees the other.
                self.recall_stopped(run, number);
                // Who is lost does not bring them back, and whoever found that out may not have seen them.
                if self.lost.get().is_some() {
                    self.lose_gifts();
                } else if self.is_lost(from) {
                    self.take_back(from);
                }
                return;
            }
        }
        let nothing = Gift::Nothing { is_over: runs.is_empty() };
        self.tell(from, Kind::Gift, 0, &message::bytes(&nothing));
    }

    fn give(&self, to: Rank, ask: &Ask, run: &Arc<Run>) -> Option<(u64, Vec<u8>)> {
        if self.lost.get().is_some() {
            return None;
        }
        let (tasks, gift) = functions(ask, run).or_else(|| jobs(ask, run))?;
        tasks.iter().for_each(|(_, task)| run.begin(*task));
        let list = run.plan.side.as_ref()?.list();
        let bytes = [message::bytes(&Gift::Tasks { list }), gift.finish(&run.plan.shared.setup)].concat();
        let tasks = tasks.into_iter().map(Some).collect();
        let mut victim = self.stealing.victim.lock();
        victim.last += 1;
        let number = victim.last;
        victim.given.insert(number, Given { run: Arc::clone(run), to, tasks, unwritten: Vec::new() });
        Some((number, bytes))
    }

    /// Some of what a process has written that was given away.
    pub(in crate::ranks) fn wrote_elsewhere(&self, from: Rank, number: u64, bytes: &[u8]) {
        let Some((wrote, bytes)) = head::<Wrote>(bytes) else { return };
        let task = self.stealing.victim.lock().task_of(from, number, wrote.place);
        let portion = wrote.portion;
        let file =
            task.and_then(|task| task.cohort()?.with_output(task.index(), |output| output.path_of(portion)));
        let Some(path) = file.flatten() else { return };
        let is_whole = matches!(portion, Portion::Whole(_));
        if let Some(folder) = path.parent().filter(|_| !is_whole) {
            // If it cannot be made, the file cannot either.
            let _ = std::fs::create_dir_all(folder);
        }
        let file = std::fs::OpenOptions::new().append(true).create(!is_whole).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(bytes))
            && let Some(given) = self.stealing.victim.lock().given.get_mut(&number)
        {
            given.unwritten.push((wrote.place, error));
        }
    }

    /// Tasks that were given away have ended.
    pub(in crate::ranks) fn returned(&self, from: Rank, number: u64, bytes: &[u8]) {
        let Some((task_ns, mut bytes)) = head::<u64>(bytes) else { return };
        while let Some((back, rest)) = head::<Back>(bytes) {
            let mut rest = rest;
            let mut next = |len: u64| {
                let (some, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                rest = after;
                Some(some)
            };
            let [value, out, err] = back.lens.map(&mut next);
            let (Some(value), Some(out), Some(err)) = (value, out, err) else { return };
            bytes = rest;
            let Some((ended, unwritten)) = self.came_back(from, number, back.place) else { continue };
            let Ended { run, node, task } = ended;
            if let Some(side) = run.plan.side.as_ref() {
                side.was_stolen();
                if task_ns > 0 && !task.is_attended() {
                    side.price().lock().took(task_ns);
                }
            }
            if let Some(cohort) = task.cohort().filter(|_| task.head().code.command.is_none()) {
                cohort.keep_output(task.index(), Output::of_bytes(out, err));
            }
            run.note_stolen(node, back.took_ns, back.lane, from.0);
            let failure = match (back.came, unwritten) {
                (Came::WithValue, Some(error)) => {
                    Some((Failure::new(task, Cause::Output(task.name(), error), 1), false))
                }
                (Came::WithValue, None) if run.done_elsewhere(node, task, value).is_ok() => None,
                (Came::WithValue | Came::Well, _) => Some((unreadable(task), false)),
                (Came::Badly { skipped, why, .. }, _) => {
                    Some((why.failure(&|_| Some(task.index())), skipped))
                }
            };
            let failure = failure.map(|(failure, skipped)| {
                run.failed_elsewhere(task, Arc::clone(&failure), skipped);
                task.pass();
                failure
            });
            run.end_outside(node, failure);
        }
    }

    /// A task of a gift that has ended, and why its output could not be written here.
    fn came_back(&self, from: Rank, number: u64, place: u32) -> Option<(Ended, Option<io::Error>)> {
        let mut victim = self.stealing.victim.lock();
        let given = victim.given.get_mut(&number).filter(|given| given.to == from)?;
        let (node, task) = given.tasks.get_mut(place as usize)?.take()?;
        let run = Arc::clone(&given.run);
        let at = given.unwritten.iter().position(|(of, _)| *of == place);
        let unwritten = at.map(|at| given.unwritten.swap_remove(at).1);
        if given.tasks.iter().all(Option::is_none) {
            victim.given.remove(&number);
        }
        Some((Ended { run, node, task }, unwritten))
    }

    /// Recalls what was cancelled while it was given away.
    fn recall_stopped(&self, run: &Arc<Run>, number: u64) {
        let (to, stopped) = {
            let victim = self.stealing.victim.lock();
            let Some(given) = victim.given.get(&number) else { return };
            let tasks = (0..).zip(&given.tasks).filter_map(|(place, task)| Some((place, task.as_ref()?.1)));
            let stopped = tasks.filter(|(_, task)| run.stop.is_told(*task)).map(|(place, _)| place);
            (given.to, stopped.collect::<Vec<u32>>())
        };
        for place in stopped {
            self.tell(to, Kind::Recall, number, &message::bytes(&Some(place)));
        }
    }

    /// A run is cancelled, or one task of it.
    pub(in crate::ranks) fn recall(&self, run: &Arc<Run>, task: Option<Ref>) {
        let mut recalled: Vec<(Rank, u64, Option<u32>)> = Vec::new();
        for (number, given) in &self.stealing.victim.lock().given {
            if !Arc::ptr_eq(&given.run, run) {
                continue;
            }
            let place = task.map(|task| given.tasks.iter().position(|it| it.is_some_and(|(_, t)| t == task)));
            match place {
                None => recalled.push((given.to, *number, None)),
                Some(Some(place)) => recalled.push((given.to, *number, Some(place as u32))),
                Some(None) => {}
            }
        }
        for (to, number, place) in recalled {
            self.tell(to, Kind::Recall, number, &message::bytes(&place));
        }
    }

    /// A rank is lost, and others go on: what was given to it runs here, or wherever it is given next.
    pub(in crate::ranks) fn take_back(&self, lost: Rank) {
        let given: Vec<Given> = {
            let mut victim = self.stealing.victim.lock();
            victim.given.extract_if(|_, given| given.to == lost).map(|(_, given)| given).collect()
        };
        for Given { run, tasks, .. } in given {
            let tasks = tasks.into_iter().flatten();
            let (attended, others): (Vec<_>, Vec<_>) = tasks.partition(|(_, task)| task.is_attended());
            if let Some(pool) = run.plan.shared.executor.pool() {
                pool.put_back(&run, others.into_iter().map(|(node, _)| node));
            }
            if !attended.is_empty() {
                run.plan.shared.office().ready_all(&run, attended);
            }
        }
    }

    /// A rank is lost: nothing that was given away comes back.
    pub(in crate::ranks) fn lose_gifts(&self) {
        let given = std::mem::take(&mut self.stealing.victim.lock().given);
        let (lost, why) = self.lost.get().cloned().unwrap_or((Rank(0), String::new()));
        for Given { run, tasks, .. } in given.into_values() {
            for (node, task) in tasks.into_iter().flatten() {
                let cause = Cause::RankLost { rank: lost.0, host: self.host(lost), why: why.clone() };
                let failure = Failure::of(task.name(), task.index(), 1, lost.0, cause);
                run.failed_elsewhere(task, Arc::clone(&failure), false);
                task.pass();
                run.end_outside(node, Some(failure));
            }
        }
    }
}

/// Ready tasks, by their nodes, and what is written of them.
type Chosen = (Vec<(u32, Ref)>, pack::Gifts);

/// Functions that workers would run.
fn functions(ask: &Ask, run: &Arc<Run>) -> Option<Chosen> {
    let (plan, side) = (&run.plan, run.plan.side.as_ref()?);
    let pool: &Arc<Pool> = plan.shared.executor.pool()?;
    let price: &Mutex<Price> = side.price();
    let wanted = price.lock().tasks_for(ask, pool.surplus(run), pool.threads());
    if wanted == 0 {
        return None;
    }
    let began = Instant::now();
    let nodes = pool.give(run, wanted, &|node| run.may_leave(node, false));
    let (chosen, left) = written(run, nodes.into_iter().filter_map(|node| Some((node, plan.record(node)?))));
    if !left.is_empty() {
        pool.put_back(run, left.into_iter().map(|(node, _)| node));
    }
    if chosen.0.is_empty() {
        price.lock().is_worthless();
        return None;
    }
    price.lock().wrote(began.elapsed() / chosen.0.len() as u32);
    Some(chosen)
}

/// Processes, and functions that hold something while they run.
fn jobs(ask: &Ask, run: &Arc<Run>) -> Option<Chosen> {
    if !run.plan.attended {
        return None;
    }
    let office = run.plan.shared.office();
    let jobs = office.give(run, ask.idle, ask.gpus, &|node| run.may_leave(node, true));
    let (chosen, mut left) = written(run, jobs.into_iter());
    let (tasks, unready): (Vec<_>, Vec<_>) = chosen.0.into_iter().partition(|(_, task)| has_files(*task));
    // Without files of their own none of what is written would do.
    let is_none = !unready.is_empty();
    left.extend(unready);
    let tasks = if is_none {
        left.extend(tasks);
        Vec::new()
    } else {
        tasks
    };
    office.ready_all(run, left);
    (!tasks.is_empty()).then_some((tasks, chosen.1))
}

/// Writes tasks, as many as fit; those that cannot go come back.
fn written(run: &Run, tasks: impl Iterator<Item = (u32, Ref)>) -> (Chosen, Vec<(u32, Ref)>) {
    let (mut gift, mut chosen, mut left) = (pack::Gifts::new(), Vec::new(), Vec::new());
    for (node, task) in tasks {
        let has_room = gift.len() < GIFT_BYTES || chosen.is_empty();
        let index = run.plan.position(task).unwrap_or_else(|| task.index());
        // What serde does for the user's types is the user's code.
        if has_room && catch_unwind(AssertUnwindSafe(|| gift.add(index, task))).unwrap_or(false) {
            chosen.push((node, task));
        } else {
            left.push((node, task));
        }
    }
    ((chosen, gift), left)
}

/// Makes the files that the output of a process goes to; nothing for functions. False if they cannot be had.
fn has_files(task: Ref) -> bool {
    if task.head().code.command.is_none() {
        return true;
    }
    let (outputs, cohort) = (&task.shared().outputs, task.cohort());
    let made = outputs.number().and_then(|number| {
        std::fs::File::create(outputs.file(number, Which::Out))?;
        std::fs::File::create(outputs.file(number, Which::Err))?;
        Ok(Output::files(outputs, number))
    });
    match (made, cohort) {
        (Ok(files), Some(cohort)) => {
            cohort.keep_output(task.index(), files);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(idle: u32, latency_ns: u64) -> Ask {
        Ask { idle, gpus: 0, latency_ns }
    }

    #[test]
    fn of_an_unknown_list_each_idle_worker_gets_one_and_never_more_than_half() {
        let mut price = Price::default();
        assert_eq!(price.tasks_for(&ask(2, 0), 100, 1), 2);
        assert_eq!(price.tasks_for(&ask(8, 0), 5, 1), 3);
        assert_eq!(price.tasks_for(&ask(8, 0), 0, 1), 0);
    }

    #[test]
    fn short_tasks_go_together_and_long_ones_alone() {
        let mut price = Price::default();
        price.wrote(Duration::from_nanos(500));
        price.took(10_000);
        assert_eq!(price.tasks_for(&ask(1, 50_000), 1000, 1), 20);
        price.took(1_000_000_000);
        assert_eq!(price.tasks_for(&ask(2, 50_000), 1000, 1), 2);
    }

    #[test]
    fn tasks_that_are_shorter_than_their_bytes_stay_and_are_tried_again_later() {
        let mut price = Price::default();
        price.wrote(Duration::from_nanos(500));
        price.took(100);
        assert_eq!(price.tasks_for(&ask(1, 50_000), 1_000_000, 1), 0);
        assert!(price.due.is_some_and(|due| due > Instant::now()));
        assert_eq!(price.tasks_for(&ask(1, 50_000), 1_000_000, 1), 0, "it rests");
        price.due = None;
        assert_eq!(price.tasks_for(&ask(1, 50_000), 1_000_000, 1), 1, "what it takes is found out again");
    }

    #[test]
    fn what_its_own_workers_have_done_before_a_gift_arrives_stays() {
        let mut price = Price::default();
        price.wrote(Duration::from_nanos(100));
        price.took(1_000);
        assert_eq!(price.tasks_for(&ask(1, 50_000), 40, 1), 0);
        assert!(price.tasks_for(&ask(1, 50_000), 400, 1) > 0);
    }
}
