//! What a task needs while it runs: cpus, memory, GPUs, and resources that the user names.

use super::hosts::JobNeed;

/// Parts of a named resource, or of a GPU, that are told apart: a tenth of a thousandth.
pub(crate) const UNITS: f64 = 10_000.0;

/// What a task holds from its start to its end.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Need {
    /// Of a job for each of its ranks.
    pub(crate) cpus: u32,
    /// Bytes; 0 when it does not say.
    pub(crate) memory: u64,
    /// GPUs, of a job for each of its ranks, in [`UNITS`]: whole ones, or a part of one.
    pub(crate) gpus: u64,
    /// Index among the batch's named resources, and how much in [`UNITS`]; by rising index.
    pub(crate) named: Vec<(u32, u64)>,
    /// How many ranks, if it is a job.
    pub(crate) job: Option<JobNeed>,
}

impl Need {
    /// Cpus for all ranks of a job.
    pub(crate) fn all_cpus(&self) -> u32 {
        self.job.map_or(self.cpus, |job| job.ranks.saturating_mul(self.cpus))
    }
}

impl Default for Need {
    fn default() -> Self {
        Self { cpus: 1, memory: 0, gpus: 0, named: Vec::new(), job: None }
    }
}

/// What is left of memory and named resources; cpus are the seats of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stock {
    pub(crate) memory: u64,
    pub(crate) named: Vec<u64>,
}

impl Stock {
    /// Whether `need` could be taken.
    pub(crate) fn has(&self, need: &Need) -> bool {
        need.memory <= self.memory && need.named.iter().all(|(i, n)| self.named.get(*i as usize) >= Some(n))
    }

    /// Takes what [`has`](Self::has) said is there.
    pub(crate) fn take(&mut self, need: &Need) {
        self.memory -= need.memory;
        need.named.iter().for_each(|(i, n)| self.named[*i as usize] -= n);
    }

    pub(crate) fn give(&mut self, need: &Need) {
        self.memory += need.memory;
        need.named.iter().for_each(|(i, n)| self.named[*i as usize] += n);
    }
}
