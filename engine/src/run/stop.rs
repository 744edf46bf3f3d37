//! What a run was told to stop: single tasks, or all that is left of it.

use crate::task::record::Ref;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which tasks of a run are cancelled.
#[derive(Default)]
pub(crate) struct Stop {
    /// Something is; the only thing a worker looks at while nothing is.
    any: AtomicBool,
    all: AtomicBool,
    tasks: Mutex<HashSet<Ref>>,
}

impl Stop {
    pub(crate) fn all(&self) {
        self.all.store(true, Ordering::Release);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn task(&self, task: Ref) {
        self.tasks.lock().insert(task);
        self.any.store(true, Ordering::Release);
    }

    /// Whether all is cancelled.
    pub(crate) fn is_all(&self) -> bool {
        self.all.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn is_told(&self, task: Ref) -> bool {
        self.any.load(Ordering::Relaxed) && self.looks_up(task)
    }

    #[cold]
    fn looks_up(&self, task: Ref) -> bool {
        self.all.load(Ordering::Acquire) || self.tasks.lock().contains(&task)
    }
}

/// What a body may ask: whether its result is still wanted.
#[derive(Clone)]
pub(crate) struct Wanted {
    run: Arc<Stop>,
    task: Ref,
    /// Set when this attempt's time is up.
    attempt: Option<Arc<AtomicBool>>,
}

impl Wanted {
    pub(crate) fn new(run: &Arc<Stop>, task: Ref, attempt: Option<&Arc<AtomicBool>>) -> Self {
        Self { run: Arc::clone(run), task, attempt: attempt.cloned() }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.run.is_told(self.task) || self.attempt.as_ref().is_some_and(|a| a.load(Ordering::Acquire))
    }
}
