//! Jobs that leave again before they start, because another rank has nothing to do (see `ranks::steal`).

use super::job::Stage;
use super::office::{Event, Office};
use super::state::State;
use crate::run::Run;
use crate::task::record::Ref;
use std::sync::Arc;

impl Office {
    /// Takes away ready tasks of a run that wait for what others hold, of those that can go: at most half, the first
    /// ones, which together need no more than so many cpus, and so many GPUs in `UNITS`. Whoever has them ends them
    /// (see [`Run::end_outside`]), or hands them over again. None if somebody is deciding at this moment, maybe this
    /// thread.
    pub(crate) fn give(
        &self,
        run: &Arc<Run>,
        cpus: u32,
        gpus: u64,
        can_go: &dyn Fn(u32) -> bool,
    ) -> Vec<(u32, Ref)> {
        let given = self.try_with_state(|state| state.give(run, cpus, gpus, can_go)).unwrap_or_default();
        if !given.is_empty() {
            // What waited behind them may start.
            self.push(Event::Seats);
        }
        given
    }
}

impl State {
    fn give(
        &mut self,
        run: &Arc<Run>,
        cpus: u32,
        gpus: u64,
        can_go: &dyn Fn(u32) -> bool,
    ) -> Vec<(u32, Ref)> {
        let waiting = self.desk.waiting(run.plan.shared.instance());
        let most = waiting.len().div_ceil(2);
        let (mut given, mut left, mut gpus_left) = (Vec::new(), cpus, gpus);
        for id in waiting {
            let Some(job) = self.jobs.get(&id) else { continue };
            let Some(need) = self.desk.need(id) else { continue };
            let cpus = if need.named.is_empty() { need.all_cpus().max(1) } else { u32::MAX };
            let gpus = need.job.map_or(1, |job| u64::from(job.ranks)).saturating_mul(need.gpus);
            let is_new =
                job.stage == Stage::Waiting && job.attempt == 1 && job.refused == 0 && !job.cancelled;
            // What is dealt out over ranks is not for one of them.
            let is_new = is_new && job.dealt.is_empty();
            if given.len() == most || left == 0 {
                break;
            }
            if cpus <= left && gpus <= gpus_left && is_new && Arc::ptr_eq(&job.run, run) && can_go(job.node) {
                left -= cpus;
                gpus_left -= gpus;
                given.push((job.node, job.task));
                self.desk.withdraw(id);
                self.jobs.remove(&id);
            }
        }
        given
    }
}
