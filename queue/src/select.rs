//! Waiting for several queues at once.

use crate::error::Error;
use crate::layout::{Attached, OPEN, View};
use crate::queue::Queue;
use std::time::{Duration, Instant};
use tarragon_transport::doorbell::{Doorbell, NAP_MS, Woken, wait_any};

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

fn attached(queue: &dyn AnyQueue) -> &Attached {
    &queue.attached().0
}
