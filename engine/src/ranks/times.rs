//! When the tasks of a part ran: how a guest tells of it, and how home takes it in. Times are nanoseconds by the clock
//! of the rank that tells them, until home has the run's end and looks how far that clock is ahead (`clock`).

use super::clock::Offset;
use super::message::{self, Kind, RunNumber};
use super::side::Side;
use crate::plan::Plan;
use crate::run::Timed;
use crate::task::Usage;
use crate::task::record::Ref;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tarragon_transport::Rank;

/// Tasks in one message.
const TASKS_MAX: usize = 1 << 16;
/// Lanes that a rank can have; a task on a higher one is shown on the last.
const LANES_MAX: u32 = 1 << 16;

/// A `Times`: of some tasks of a part, one after the other.
#[derive(Debug, Serialize, Deserialize)]
struct Times {
    run: RunNumber,
    /// When the run began at this rank.
    started_ns: u64,
    /// Place of the first.
    first: u32,
    tasks: Vec<Took>,
    /// What processes used that succeeded, by place in the part. Others are told of with their failures.
    usages: Vec<(u32, Usage)>,
}

/// When a task began after the run did, how long it took, on which lane of which rank, and how often it was tried.
type Took = (u64, u64, u32, u32, u32);

/// At a guest: tells home when the tasks of a part ran, which has ended.
pub(super) fn tell(side: &Side, plan: &Plan, run: RunNumber, tasks: &[Ref]) {
    let Some(measured) = plan.measured.lock().clone() else { return };
    let nodes = &measured.nodes[side.imports() as usize..];
    let took = |timed: &Timed| (timed.began, timed.took(), timed.lane, timed.rank, timed.attempts);
    let used = |(place, task): (u32, &Ref)| task.exit().map(|exit| (place, exit.usage));
    for (first, chunk) in (0..).step_by(TASKS_MAX).zip(nodes.chunks(TASKS_MAX)) {
        let some = (first..).zip(tasks.iter().skip(first as usize).take(chunk.len()));
        let (tasks, usages) = (chunk.iter().map(took).collect(), some.filter_map(used).collect());
        let bytes = message::bytes(&Times { run, started_ns: measured.started_ns, first, tasks, usages });
        side.ranks().tell(Rank(0), Kind::Times, side.list(), &bytes);
    }
}

/// At home: what guests have told of the run under way.
#[derive(Default)]
pub(super) struct Heard {
    /// By part and place.
    parts: Vec<Vec<Timed>>,
    usages: HashMap<u32, Usage>,
}

/// The run that some times are of; `None` if the bytes are none.
pub(super) fn run_of(bytes: &[u8]) -> Option<RunNumber> {
    message::head::<RunNumber>(bytes).map(|(run, _)| run)
}

impl Heard {
    /// A run begins.
    pub(super) fn begin(&mut self, parts: usize) {
        self.usages.clear();
        self.parts.clear();
        self.parts.resize(parts, Vec::new());
    }

    /// Takes in what is told of the tasks of a part, which are at these places of the list.
    pub(super) fn take(&mut self, part: usize, tasks: &[u32], bytes: &[u8]) {
        let Some((times, _)) = message::head::<Times>(bytes) else { return };
        let Some(mine) = self.parts.get_mut(part) else { return };
        mine.resize(tasks.len(), Timed::default());
        let places = mine.iter_mut().skip(times.first as usize);
        for (mine, (began, took, lane, ran_at, attempts)) in
            places.zip(times.tasks).filter(|(_, took)| took.4 > 0)
        {
            let began = times.started_ns.saturating_add(began);
            let (ended, lane) = (began.saturating_add(took), lane.min(LANES_MAX - 1));
            *mine = Timed { began, ended, lane, rank: ran_at, attempts };
        }
        let used = |(place, usage): (u32, Usage)| Some((*tasks.get(place as usize)?, usage));
        self.usages.extend(times.usages.into_iter().filter_map(used));
    }

    /// When each task of a part ran after the run began here, which is forgotten; the clock of its rank is ahead.
    pub(super) fn of_part(&mut self, part: usize, clock: Offset, started_ns: u64) -> Vec<Timed> {
        let mut tasks = self.parts.get_mut(part).map(std::mem::take).unwrap_or_default();
        for timed in tasks.iter_mut().filter(|timed| timed.attempts > 0) {
            let began = i128::from(timed.began) - i128::from(clock.ahead) - i128::from(started_ns);
            let (began, took) = (began.clamp(0, i128::from(u64::MAX)) as u64, timed.took());
            (timed.began, timed.ended) = (began, began.saturating_add(took));
        }
        tasks
    }

    pub(super) fn usages(&mut self) -> HashMap<u32, Usage> {
        std::mem::take(&mut self.usages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Home takes in what fits to the part, and shifts it by how far the other clock is ahead.
    #[test]
    fn what_does_not_fit_to_the_part_is_left_out() {
        let tasks = [4, 5, 6];
        let mut told = Heard::default();
        told.begin(1);
        let of = |first, tasks| {
            let usages = vec![(2, Usage::default()), (9, Usage::default())];
            message::bytes(&Times { run: 1, started_ns: 5_000, first, tasks, usages })
        };
        told.take(0, &tasks, &of(1, vec![(100, 20, 1, 7, 1), (0, 0, 0, 7, 0), (1, 1, 1, 7, 1)]));
        told.take(0, &tasks, &of(u32::MAX, vec![(100, 20, 1, 7, 1)]));
        told.take(1, &tasks, &of(0, vec![(100, 20, 1, 7, 1)]));
        told.take(0, &tasks, &[9, 9, 9]);
        told.take(0, &tasks, &of(2, vec![(u64::MAX, u64::MAX, u32::MAX, 7, 1)]));
        assert_eq!(told.usages().len(), 1);
        let all = told.of_part(0, Offset { ahead: 1_000, within: 0 }, 4_050);
        let [none, first, far] = &all[..] else { panic!("three tasks: {all:?}") };
        assert_eq!((none.began, none.ended, none.attempts), (0, 0, 0));
        assert_eq!((first.began, first.ended, first.lane, first.rank), (50, 70, 1, 7));
        assert_eq!(far.lane, LANES_MAX - 1);
        assert!(far.ended >= far.began);
        assert!(told.of_part(0, Offset { ahead: 0, within: 0 }, 0).is_empty(), "it was taken");
    }
}
