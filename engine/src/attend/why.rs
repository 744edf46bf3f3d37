//! Why a job waits, in words.

use super::job::{Job, Stage};
use super::state::State;
use crate::run::Run;
use crate::schedule::{AccountId, JobId, Place, UNITS};
use std::sync::Arc;

impl State {
    /// Why the job of a node waits; `Some(None)` if it runs, `None` if it is not here.
    pub(super) fn why_waiting(&self, run: &Arc<Run>, node: u32) -> Option<Option<String>> {
        let (id, job) = self.jobs.iter().find(|(_, j)| Arc::ptr_eq(&j.run, run) && j.node == node)?;
        Some(match (job.stage, self.desk.place(*id)) {
            (Stage::Resting, _) => Some(resting(job)),
            (_, Some(Place::Running)) if job.is_mustering() => {
                let others: Vec<String> =
                    job.dealt.iter().skip(1).map(|(rank, _)| rank.to_string()).collect();
                Some(format!("it has cpus of its rank, and waits for those of ranks {}", others.join(", ")))
            }
            (_, Some(Place::Running)) => None,
            (_, Some(Place::Standing)) => Some(
                "it is ready, and next when a process of its kind ends: it takes over what that one holds"
                    .into(),
            ),
            _ => Some(self.lacking(*id, job)),
        })
    }

    /// What a job that is ready needs, what is there of it, and who comes before.
    fn lacking(&self, id: JobId, job: &Job) -> String {
        let need = self.desk.need(id).cloned().unwrap_or_default();
        let (account, _) = job.run.plan.shared.share.account();
        let mut lacks = Vec::new();
        if need.cpus > 0 {
            let (free, plural) = (self.desk.free(AccountId(account)), if need.cpus == 1 { "" } else { "s" });
            lacks.push(format!("{} cpu{plural} ({free} free)", need.cpus));
        }
        let stock = self.desk.stock(job.instance).cloned().unwrap_or_default();
        if need.memory > 0 {
            lacks.push(format!("{} bytes of memory ({} free)", need.memory, stock.memory));
        }
        if need.gpus > 0 {
            let (asked, free) = (need.gpus as f64 / UNITS, self.desk.free_gpus(job.instance) as f64 / UNITS);
            lacks.push(format!("{asked} gpu{} ({free} free)", if asked > 1.0 { "s" } else { "" }));
        }
        let names = &job.run.plan.shared.resources.0;
        for (index, amount) in &need.named {
            let free = stock.named.get(*index as usize).copied().unwrap_or_default();
            let name = names.get(*index as usize).map_or("?", String::as_str);
            lacks.push(format!("{} of {name} ({} free)", *amount as f64 / UNITS, free as f64 / UNITS));
        }
        let before = match self.desk.ahead_of(id) {
            0 => "it is the next".to_string(),
            1 => "1 task is before it".to_string(),
            n => format!("{n} tasks are before it"),
        };
        if lacks.is_empty() {
            format!("it is ready; {before}")
        } else {
            format!("it is ready and waits for {}; {before}", lacks.join(", "))
        }
    }
}

fn resting(job: &Job) -> String {
    match job.attempt {
        0..=2 => "it failed, and rests until its second attempt".to_string(),
        n => format!("it failed {} times, and rests until attempt {n}", n - 1),
    }
}
