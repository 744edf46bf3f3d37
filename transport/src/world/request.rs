//! A request to another rank, and its response: what a library asks of a handler of its own there.
//!
//! A request is a message whose tag names who waits; its handler responds, at once or later, from any thread. Who waits
//! moves communication on meanwhile. A response that nobody waits for any more is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fabric::{Deadline, Fabric, FabricError, LIVENESS_MS, Liveness, PeerState};
use crate::message::{HandlerId, Message, is_handling};
use crate::rank::Rank;

const RESPONSE: HandlerId = HandlerId(HandlerId::RESERVED.0 + 4);
/// The requests of this rank.
#[derive(Default)]
struct Requests {
    next: AtomicU64,
    /// By tag: the response, once it has come.
    open: Mutex<HashMap<u64, Option<Vec<u8>>>>,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Option<Vec<u8>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was sent, see [`Fabric::request`]. When it is dropped nobody waits for its response any more.
#[must_use = "its response is to be waited for"]
pub struct Request {
    fabric: Arc<Fabric>,
    requests: Arc<Requests>,
    to: Rank,
    tag: u64,
}

/// Lets this rank receive responses.
pub(super) fn register(fabric: &Fabric) {
    let requests = fabric.state::<Requests>();
    fabric.on(RESPONSE, move |_, message| {
        if let Some(place) = requests.lock().get_mut(&message.tag) {
            *place = Some(message.payload.to_vec());
        }
    });
}

impl Fabric {
    /// Sends `payload` to the handler `id` of rank `to`, which is to [`respond`](Fabric::respond).
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn request(
        self: &Arc<Self>,
        to: Rank,
        id: HandlerId,
        payload: &[u8],
    ) -> Result<Request, FabricError> {
        self.request_by(to, |tag| self.send(to, id, tag, payload))
    }

    /// As [`Fabric::request`], of bytes that nobody else needs: large ones that go through a network are not copied.
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn request_owned(
        self: &Arc<Self>,
        to: Rank,
        id: HandlerId,
        payload: Vec<u8>,
    ) -> Result<Request, FabricError> {
        self.request_by(to, |tag| self.send_owned(to, id, tag, payload))
    }

    fn request_by(
        self: &Arc<Self>,
        to: Rank,
        send: impl FnOnce(u64) -> Result<(), FabricError>,
    ) -> Result<Request, FabricError> {
        let requests = self.state::<Requests>();
        // Only draws a number.
        let tag = requests.next.fetch_add(1, Ordering::Relaxed);
        requests.lock().insert(tag, None);
        let request = Request { fabric: Arc::clone(self), requests, to, tag };
        send(tag)?;
        Ok(request)
    }

    /// Responds to the request that came as `message`.
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn respond(&self, message: &Message<'_>, payload: &[u8]) -> Result<(), FabricError> {
        self.respond_to(message.source, message.tag, payload)
    }

    /// As [`Fabric::respond`], to the source and tag of a request that came before.
    ///
    /// # Errors
    /// Those of [`Fabric::send`].
    pub fn respond_to(&self, source: Rank, tag: u64, payload: &[u8]) -> Result<(), FabricError> {
        self.send(source, RESPONSE, tag, payload)
    }
}

impl Request {
    /// The response; `None` if it has not come within `timeout`: then it may be waited for once more.
    ///
    /// # Errors
    /// `PeerDead`, `PeerLeft`.
    ///
    /// # Panics
    /// Inside a handler, where it would wait for itself.
    pub fn wait(&self, timeout: Duration) -> Result<Option<Vec<u8>>, FabricError> {
        assert!(!is_handling(), "a handler that waits for a response would wait for itself");
        let deadline = Deadline::after(timeout);
        let mut liveness = Liveness::new();
        loop {
            let came = self.requests.lock().get_mut(&self.tag).and_then(Option::take);
            if came.is_some() {
                return Ok(came);
            }
            if self.fabric.peer(self.to) != PeerState::Here {
                self.fabric.expect_here(self.to)?;
            }
            let Some(left) = deadline.left() else { return Ok(None) };
            if liveness.is_due() {
                self.fabric.check_peers();
            }
            self.fabric.wait(left.min(Duration::from_millis(LIVENESS_MS)));
        }
    }

    /// Whom it was sent to.
    pub fn to(&self) -> Rank {
        self.to
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.requests.lock().remove(&self.tag);
    }
}
