//! MPI jobs that need cpus of several ranks of this program: dealt out when they are ready, and started once the other
//! ranks hold their share (see `ranks::gang::hold`). Between the two a job is *mustering*: it runs for the desk, whose
//! cpus of this rank it has, and a thread waits for the others.

use super::bodies::GANG_PAUSE;
use super::job::{Job, Stage};
use super::state::State;
use crate::check;
use crate::error::Cause;
use crate::ranks::Holding;
use crate::schedule::{JobId, JobNeed, Need};
use std::sync::Arc;

impl Job {
    /// It has cpus of this rank, and waits for those of others.
    pub(super) fn is_mustering(&self) -> bool {
        self.stage == Stage::Running && !self.dealt.is_empty() && self.holding.is_none()
    }

    /// Decides which ranks the cpus of a job come from; what it needs of this one. `whole` is what it needs in all.
    pub(super) fn deal(&mut self, whole: Need) -> Result<Need, Cause> {
        self.dealt.clear();
        let shared = &self.run.plan.shared;
        let Some(ranks) = shared.ranks.as_ref().filter(|ranks| ranks.size() > 1) else { return Ok(whole) };
        if whole.job.is_none_or(|job| check::has_room(shared, job, whole.cpus, whole.gpus)) {
            return Ok(whole);
        }
        match ranks.deal(shared, ranks.rank(), &whole) {
            Some(dealt) => {
                self.dealt = dealt;
                let here = JobNeed { ranks: self.dealt[0].1, per_host: 0 };
                Ok(Need { job: Some(here), ..whole })
            }
            None => Err(ranks.no_room(&whole)),
        }
    }

    /// A rank that it had cpus of is lost, and others go on.
    pub(super) fn has_lost_a_rank(&self) -> bool {
        let ranks = self.run.plan.shared.ranks.as_ref();
        ranks.is_some_and(|ranks| self.dealt.iter().any(|(rank, _)| ranks.loss_of(*rank).is_some()))
    }
}

impl State {
    /// Has other ranks hold cpus for a job that has those of this one.
    pub(super) fn muster(&mut self, id: JobId) {
        let cpus = self.desk.need(id).map_or(1, |need| need.cpus);
        let job = &self.jobs[&id];
        let (run, dealt) = (Arc::clone(&job.run), job.dealt.clone());
        let call = self.bodies.muster(&self.office, id, run, job.task, dealt, cpus);
        if let Err(error) = call {
            self.release(id);
            self.could_not_prepare(id, Cause::Error(Box::new(error)));
        }
    }

    /// They do, or it cannot be.
    pub(super) fn mustered(&mut self, id: JobId, holding: Result<Holding, Cause>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            self.let_go.extend(holding.ok());
            return;
        };
        let (is_cancelled, is_lost) = (job.cancelled, matches!(holding, Err(Cause::RankLost { .. })));
        let survives = job.run.plan.shared.ranks.as_ref().is_some_and(|ranks| ranks.survives());
        match holding {
            // Whether it was cancelled meanwhile is looked at when it is started.
            Ok(holding) => {
                job.holding = Some(holding);
                self.assembled.push(id);
            }
            Err(_) if is_cancelled => {
                self.release(id);
                self.stop(id);
            }
            Err(_) if is_lost && survives => {
                self.release(id);
                self.rest(id, GANG_PAUSE);
            }
            Err(cause) => {
                self.release(id);
                self.could_not_prepare(id, cause);
            }
        }
    }

    /// Cpus for what the body of a job has others run.
    pub(super) fn bind_body(&mut self, id: JobId, cpus: u32) -> Vec<u32> {
        let Some(job) = self.jobs.get(&id) else { return Vec::new() };
        self.processes.bind_body(id, job.instance, cpus)
    }
}
