//! A list that was sent: how its tasks come out, by place, and where what they wrote is.
//!
//! It belongs to the cohorts of the list, so it stays while anybody may ask for output of its tasks or give their
//! results to others; then the primary is told to let them go. Its tasks are touched while its run is under way, which
//! keeps them. News may come before that: the primary is quick, and the run waits for what it takes from outside.

use super::connection::Connection;
use crate::clients::message::{How, Refusal, ToSession};
use crate::error::Error;
use crate::outputs::Portion;
use crate::plan::Plan;
use crate::run::Run;
use crate::task::output::Output;
use crate::task::record::Ref;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// See the page.
pub(crate) struct Sent {
    connection: Arc<Connection>,
    pub(super) number: u64,
    /// For each cohort, by id, what to add to a task's index to have its place.
    bases: Box<[(u32, u32)]>,
    /// Nodes before the first task.
    gates: u32,
    /// By place.
    tasks: Box<[Ref]>,
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    answer: Option<Result<(), Error>>,
    run: Option<Arc<Run>>,
    early: Vec<(u32, How, Vec<u8>)>,
    by_place: Vec<Place>,
    /// Tasks that have ended here.
    ended: usize,
    is_lost: bool,
}

/// What is known of a task.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Pending,
    Ended,
    /// And what it wrote is here.
    Heard,
}

impl Sent {
    pub(super) fn new(
        connection: &Arc<Connection>,
        number: u64,
        plan: &Plan,
        tasks: Box<[Ref]>,
    ) -> Arc<Self> {
        let mut bases: Box<[(u32, u32)]> = plan.bases.as_slice().into();
        bases.sort_unstable();
        let state = State { by_place: vec![Place::Pending; tasks.len()], ..State::default() };
        Arc::new(Self {
            connection: Arc::clone(connection),
            number,
            bases,
            gates: plan.gates.len() as u32,
            tasks,
            state: Mutex::new(state),
            answered: Condvar::new(),
        })
    }

    /// Where a task is in the list.
    pub(super) fn place_of(&self, task: Ref) -> Option<u32> {
        let id = task.head().cohort.load(Ordering::Acquire);
        let base = self.bases.binary_search_by_key(&id, |(cohort, _)| *cohort).ok()?;
        (self.bases[base].1 + task.index()).checked_sub(self.gates)
    }

    /// What the primary has said to the list; waits for it.
    pub(super) fn answer(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            self.answered.wait(&mut state);
        }
    }

    pub(super) fn answered(&self, answer: Result<(), Refusal>) {
        self.say(answer.map_err(|why| self.connection.refusal(why)));
    }

    fn say(&self, answer: Result<(), Error>) {
        self.state.lock().answer.get_or_insert(answer);
        self.answered.notify_all();
    }

    /// The run is under way here: its tasks can end.
    pub(crate) fn begin(&self, run: &Arc<Run>) {
        let (early, is_lost) = {
            let mut state = self.state.lock();
            state.run = Some(Arc::clone(run));
            (std::mem::take(&mut state.early), state.is_lost)
        };
        early.into_iter().for_each(|(place, how, rest)| self.ended(place, how, &rest));
        if is_lost {
            self.lose();
        }
    }

    /// A task has ended at the primary.
    pub(super) fn ended(&self, place: u32, how: How, rest: &[u8]) {
        let Some(task) = self.tasks.get(place as usize).copied() else { return };
        let run = {
            let mut state = self.state.lock();
            let Some(run) = state.run.clone() else {
                state.early.push((place, how, rest.to_vec()));
                return;
            };
            let has_output = matches!(how, How::Well { wrote: Some(_), .. });
            if !state.take(place, if has_output { Place::Heard } else { Place::Ended }) {
                return;
            }
            run
        };
        match how {
            How::Well { has_value, wrote } => {
                let (out, err) = wrote.unwrap_or_default();
                let out = rest.split_at_checked(out as usize);
                let split = out.and_then(|(out, rest)| Some((out, rest.split_at_checked(err as usize)?)));
                let (out, (err, value)) = split.unwrap_or((&[], (&[], &[])));
                keep_output(task, Output::of_bytes(out, err));
                run.ended_there(task, Ok(has_value.then_some(value)));
            }
            How::Badly { is_skipped, mut why, first, wrote } => {
                if !self.connection.shares_code() {
                    why.forget_types();
                }
                keep_output(task, Output::of_text(&wrote));
                let index_of = |there: u32| {
                    let task = self.tasks.get(there.checked_sub(first)? as usize)?;
                    Some(task.index())
                };
                run.ended_there(task, Err((why.failure(&index_of), is_skipped)));
            }
        }
        self.one_ended(run);
    }

    fn one_ended(&self, run: Arc<Run>) {
        let is_last = {
            let mut state = self.state.lock();
            state.ended += 1;
            let is_last = state.ended == self.tasks.len();
            if is_last {
                state.run = None;
            }
            is_last
        };
        if is_last {
            run.finish();
        }
    }

    /// The primary is gone: what has not ended, never will.
    pub(super) fn lose(&self) {
        self.say(Err(self.connection.lost()));
        let (run, left) = {
            let mut state = self.state.lock();
            let Some(run) = state.run.clone() else {
                state.is_lost = true;
                return;
            };
            let all = 0..self.tasks.len() as u32;
            let left: Vec<u32> = all.filter(|place| state.take(*place, Place::Ended)).collect();
            (run, left)
        };
        for place in left {
            let task = self.tasks[place as usize];
            run.ended_there(task, Err((self.connection.failure(task), false)));
            self.one_ended(Arc::clone(&run));
        }
    }

    /// Cancels the list, or one task of it.
    pub(crate) fn cancel(&self, task: Option<Ref>) {
        let place = task.map(|task| self.place_of(task));
        if place != Some(None) {
            // If the primary is gone, so are the tasks.
            let _ = self
                .connection
                .write(&ToSession::Cancel { number: self.number, place: place.flatten() }, &[]);
        }
    }

    /// What a task has written, if that is not here.
    pub(crate) fn read(&self, task: Ref, portion: Portion) -> Option<io::Result<Vec<u8>>> {
        let place = self.place_of(task)?;
        if self.state.lock().by_place.get(place as usize) == Some(&Place::Heard) {
            return None;
        }
        Some(self.connection.read(self.number, place, portion))
    }

    /// In words for people: why a task of it has not ended.
    pub(crate) fn why_waiting(&self) -> String {
        let pid = self.connection.descriptor().pid();
        format!("it waits or runs in the program of the batch, process {pid}")
    }
}

impl State {
    /// A task ends; false if it has.
    fn take(&mut self, place: u32, now: Place) -> bool {
        match self.by_place.get_mut(place as usize) {
            Some(known) if *known == Place::Pending => {
                *known = now;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.connection.forget_list(self.number);
    }
}

fn keep_output(task: Ref, output: Output) {
    if let Some(cohort) = task.cohort() {
        cohort.keep_output(task.index(), output);
    }
}
