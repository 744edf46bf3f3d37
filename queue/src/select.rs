//! Waiting for several queues at once.

use crate::error::Error;
use crate::layout::{Attached, OPEN, View};
use crate::queue::Queue;
use std::time::{Duration, Instant};
use tarragon_transport::doorbell::{Doorbell, NAP_MS, Woken, wait_any};

/// How long after it has asked other nodes somebody who selects asks again, at first and in the end.
const ASK_FIRST: Duration = Duration::from_micros(100);
const ASK_LAST: Duration = Duration::from_millis(20);

/// A queue of any type of items, for [`select`].
pub trait AnyQueue: sealed::Sealed {}

pub(crate) mod sealed {
    use crate::layout::Attached;

    /// Who is a queue.
    pub trait Sealed {
        /// What the handle holds.
        #[doc(hidden)]
        fn attached(&self) -> &AttachedRef;
    }

    /// Hides the type of what a handle holds.
    #[doc(hidden)]
    pub struct AttachedRef(pub(crate) Attached);
}

impl<T> AnyQueue for Queue<T> {}

/// The index of a queue that has an item, or was closed or destroyed: one whose `try_get` has something to say, if
/// nobody else is faster. The first such queue after the one before; waits up to `timeout` (`None`: for ever).
///
/// Sleeps on the first 128 queues; further ones are looked at every 250 ms.
///
/// # Errors
/// `Empty` if the time is over.
pub fn select(queues: &[&dyn AnyQueue], timeout: Option<Duration>) -> Result<usize, Error> {
    if queues.iter().any(|queue| attached(*queue).far.is_some()) {
        return select_far(queues, timeout);
    }
    let views: Vec<View<'_>> = queues.iter().map(|queue| attached(*queue).view()).collect();
    let bells: Vec<&Doorbell> = views.iter().map(|view| &view.control.items).collect();
    let until = timeout.map(|timeout| Instant::now() + timeout);
    let mut found = None;
    loop {
        let nap = Instant::now() + Duration::from_millis(NAP_MS);
        let end = until.map_or(nap, |until| until.min(nap));
        let woken = wait_any(&bells, Some(end), || {
            found = views.iter().position(|view| view.has_item() || view.state() != OPEN);
            found.is_some()
        });
        if let Some(found) = found {
            if woken == Woken::Rung {
                // The caller may not take it; others who wait may.
                bells[found].ring();
            }
            return Ok(found);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Error::Empty);
        }
        views.iter().for_each(View::recover_heads);
    }
}

/// The same, if some queues are on other nodes: asks for them again and again, and sleeps in between on those here.
fn select_far(queues: &[&dyn AnyQueue], timeout: Option<Duration>) -> Result<usize, Error> {
    let near = queues.iter().map(|queue| attached(*queue)).filter(|queue| queue.far.is_none());
    let views: Vec<View<'_>> = near.map(Attached::view).collect();
    let bells: Vec<&Doorbell> = views.iter().map(|view| &view.control.items).collect();
    let own = Doorbell::default();
    let until = timeout.map(|timeout| Instant::now() + timeout);
    let mut nap = ASK_FIRST;
    loop {
        let is_ready = |queue: &&dyn AnyQueue| {
            let queue = attached(*queue);
            // One that cannot be reached has an error to say.
            queue.far.as_ref().map_or_else(
                || queue.view().has_item() || queue.view().state() != OPEN,
                |far| far.look().map_or(true, |look| look.is_ready),
            )
        };
        if let Some(found) = queues.iter().position(is_ready) {
            if let Some(view) = views.iter().find(|view| std::ptr::eq(view.queue, attached(queues[found]))) {
                view.control.items.ring();
            }
            return Ok(found);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Error::Empty);
        }
        let end = until.map_or(Instant::now() + nap, |until| until.min(Instant::now() + nap));
        let bells = if bells.is_empty() { &[&own][..] } else { &bells[..] };
        wait_any(bells, Some(end), || views.iter().any(|view| view.has_item() || view.state() != OPEN));
        views.iter().for_each(View::recover_heads);
        nap = (2 * nap).min(ASK_LAST);
    }
}

fn attached(queue: &dyn AnyQueue) -> &Attached {
    &queue.attached().0
}
