//! What stops a job, or lets it pause: cancelling, signals, timeouts, bodies that wait; and what is due at a moment.

use super::job::{Job, Stage};
use super::signals;
use super::state::State;
use super::timers::Due;
use crate::error::{Cause, Failure};
use crate::events;
use crate::run::{Ran, Run};
use crate::schedule::JobId;
use crate::task::record::Ref;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tarragon_transport::signals::Ending;

/// How long a function that was asked to return may take before another attempt is given up, if it does not say.
const GRACE: Duration = Duration::from_secs(2);

impl State {
    pub(super) fn cancel(&mut self, run: &Arc<Run>, task: Option<Ref>) {
        let of_run = |job: &Job| Arc::ptr_eq(&job.run, run) && task.is_none_or(|task| task == job.task);
        let jobs: Vec<JobId> = self.jobs.iter().filter(|(_, j)| of_run(j)).map(|(id, _)| *id).collect();
        for id in jobs {
            let job = self.jobs.get_mut(&id).expect("a job that is known");
            job.cancelled = true;
            let is_process = job.task.head().code.command.is_some();
            match job.stage {
                Stage::Waiting => {
                    self.desk.withdraw(id);
                    self.stop(id);
                }
                Stage::Resting => self.stop(id),
                Stage::Running | Stage::Standing if is_process && !job.is_mustering() => {
                    self.processes.kill(id, job);
                }
                Stage::Running | Stage::Standing => {
                    if job.is_of_gang() || job.is_mustering() {
                        self.stopped.push((Arc::clone(run), job.task));
                    }
                }
            }
        }
    }

    /// SIGINT or SIGTERM came: all that runs is cancelled, or the program ends.
    pub(super) fn signal(&mut self, signal: Ending) {
        let runs: Vec<Arc<Run>> =
            self.instances.values().filter_map(|i| i.runs.upgrade()).flat_map(|runs| runs.now()).collect();
        self.terminates |= signal == Ending::Terminate;
        signals::came(signal, !runs.is_empty());
        for run in runs {
            run.stop.all();
            self.cancel(&run, None);
        }
    }

    /// After SIGTERM the program ends when nothing runs any more.
    pub(super) fn look_at_the_end(&mut self) {
        let runs =
            || self.instances.values().filter_map(|i| i.runs.upgrade()).any(|runs| !runs.now().is_empty());
        if self.terminates && !runs() {
            self.terminates = false;
            signals::terminate_soon();
        }
    }

    /// A job that is not under way ends as cancelled.
    pub(super) fn stop(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if let Ran::Failed(failure) = job.run.stopped(job.task) {
            self.finish(id, Some(failure));
        }
    }

    /// A body sleeps or goes on; what it holds beside cpus stays its own.
    pub(super) fn waits(&mut self, id: JobId, waits: bool) {
        let Some(job) = self.jobs.get(&id) else { return };
        let cpus = self.desk.pause(id, waits);
        if waits {
            self.give_cpus(job.instance, cpus);
        } else if let Some(instance) = self.instances.get_mut(&job.instance) {
            instance.held += cpus;
        }
    }

    /// What is due at `now`.
    pub(super) fn look_at_the_clock(&mut self, now: Instant) {
        while let Some(due) = self.timers.take(now) {
            match due {
                Due::Rested(id) => {
                    if self.jobs.get(&id).is_some_and(|job| job.stage == Stage::Resting) {
                        self.wait(id);
                    }
                }
                Due::Timeout(id, attempt) => self.time_is_up(id, attempt, now),
                Due::Grace(id, attempt) => {
                    if self.jobs.get(&id).is_some_and(|job| job.attempt == attempt) {
                        self.give_up(id);
                    }
                }
            }
        }
    }

    /// A function is asked to return. It counts as failed at once, unless another attempt is to follow: that needs its
    /// arguments, so it gets a grace.
    fn time_is_up(&mut self, id: JobId, attempt: u32, now: Instant) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.attempt == attempt) else { return };
        let Some(body) = &job.body else { return };
        events::over_time(job.task, attempt);
        body.over.store(true, std::sync::atomic::Ordering::Release);
        if job.is_of_gang() {
            self.stopped.push((Arc::clone(&job.run), job.task));
        }
        let limits = job.task.extra().map(|e| &e.limits);
        match limits {
            Some(limits) if attempt <= limits.retries => {
                self.timers.add(now, limits.grace.unwrap_or(GRACE), Due::Grace(id, attempt));
            }
            _ => self.give_up(id),
        }
    }

    /// The body is left to itself; the task has failed.
    fn give_up(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if !job.body.as_ref().is_some_and(|body| body.give_up()) {
            return;
        }
        events::given_up(job.task);
        job.run.give_up();
        let timeout = job.task.extra().and_then(|e| e.limits.timeout).unwrap_or_default();
        let failure = Failure::new(job.task, Cause::TimedOut(timeout), job.attempt);
        let lane = job.run.plan.shared.executor.workers() as u32 + job.lane.unwrap_or_default();
        job.run.note_time(job.node, job.began, || lane);
        let failure = job.run.fail_inside(job.task, failure);
        self.release(id);
        self.finish(id, Some(failure));
    }
}
