//! Which tasks' bodies this thread is inside of: the one it runs, and those below it on the stack that wait for
//! something while it runs others.
//!
//! A body that waits for one of them, or for the whole list that one of them is part of, would wait for ever; it is
//! told so instead.

use crate::task::record::Ref;
use std::cell::{Cell, RefCell};

thread_local! {
    static NOW: Cell<Option<Ref>> = const { Cell::new(None) };
    static BELOW: RefCell<Vec<Ref>> = const { RefCell::new(Vec::new()) };
}

/// From now on this thread is inside the body of `task`, or in none.
#[inline(always)]
pub(crate) fn now(task: Option<Ref>) {
    NOW.set(task);
}

/// Whether this thread runs a body at this moment.
pub(crate) fn is_running() -> bool {
    NOW.get().is_some()
}

/// Whether this thread is inside any body that `is_it`.
pub(crate) fn any(is_it: impl Fn(Ref) -> bool) -> bool {
    NOW.get().is_some_and(&is_it) || BELOW.with_borrow(|below| below.iter().any(|t| is_it(*t)))
}

/// Whether this thread is inside a body of a task of this cohort.
pub(crate) fn is_of_cohort(id: u32, shared: &std::sync::Arc<crate::shared::Shared>) -> bool {
    any(|task| {
        std::sync::Arc::ptr_eq(task.shared(), shared) && task.cohort().is_some_and(|cohort| cohort.id == id)
    })
}

/// While the body of this thread waits, `meanwhile` may run others on top of it.
pub(crate) fn waits<R>(meanwhile: impl FnOnce() -> R) -> R {
    let task = NOW.replace(None);
    BELOW.with_borrow_mut(|below| below.extend(task));
    let result = meanwhile();
    if task.is_some() {
        BELOW.with_borrow_mut(Vec::pop);
    }
    NOW.set(task);
    result
}
