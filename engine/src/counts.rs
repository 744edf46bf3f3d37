//! How far a list is, by counting.

use crate::cohort::Cohort;
use crate::plan::Owned;
use crate::task::record::state;
use std::sync::atomic::Ordering;

/// How many tasks of a list have come how far. The numbers add up to `total`, but each task is looked at at its own
/// moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Tasks in the list.
    pub total: usize,
    /// Not begun; all of them before the first run.
    pub waiting: usize,
    /// Begun and not ended; tasks that rest before another attempt among them.
    pub running: usize,
    /// Succeeded.
    pub done: usize,
    /// Failed, or cancelled after they began.
    pub failed: usize,
    /// Passed over: because of a failed task, or cancelled before they began.
    pub skipped: usize,
}

impl Counts {
    /// Tasks that have ended, well or not.
    pub fn ended(&self) -> usize {
        self.done + self.failed + self.skipped
    }

    /// Whether all have ended.
    pub fn is_over(&self) -> bool {
        self.ended() == self.total
    }
}

/// Looks at a compiled batch from elsewhere, a thread that draws, say. Keeps its tasks while it lives; meanwhile
/// [`Compiled::run_once`](crate::Compiled::run_once) gives [`Error::Shared`](crate::Error::Shared).
pub struct Watch {
    owned: Owned,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(owned: &Owned) -> Self {
        Self { owned: owned.clone() }
    }

    /// As [`Compiled::progress`](crate::Compiled::progress).
    pub fn progress(&self) -> Counts {
        count(&self.owned)
    }
}

/// A look at the status of each task, which nobody who runs them waits for.
pub(crate) fn count(owned: &Owned) -> Counts {
    let plan = owned.plan();
    let cohorts: Vec<(u32, Option<u8>)> = plan.cohorts().iter().map(|c| (c.id, parity(c))).collect();
    let mut counts = Counts::default();
    // Tasks of one cohort stand beside each other.
    let mut current = (0, None);
    // What has run on other ranks and was not brought here has succeeded, once the run is over.
    let are_over = plan.side.is_some() && plan.cohort.has_run() && !plan.cohort.is_running();
    for task in plan.tasks() {
        let head = task.head();
        let id = head.cohort.load(Ordering::Relaxed);
        if id != current.0 {
            current = cohorts.iter().copied().find(|(cohort, _)| *cohort == id).unwrap_or((id, None));
        }
        let status = head.status.load(Ordering::Relaxed);
        let is_of_run = current.1 == Some(status & state::PARITY);
        counts.total += 1;
        match status & !state::PARITY {
            state::RUNNING if is_of_run => counts.running += 1,
            state::DONE | state::EMPTY | state::TAKEN if is_of_run => counts.done += 1,
            state::FAILED if is_of_run => counts.failed += 1,
            state::SKIPPED if is_of_run => counts.skipped += 1,
            _ if are_over => counts.done += 1,
            _ => counts.waiting += 1,
        }
    }
    counts
}

/// The parity that statuses of the latest run have.
fn parity(cohort: &Cohort) -> Option<u8> {
    cohort.has_run().then(|| cohort.parity())
}
