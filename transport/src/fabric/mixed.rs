//! Ranks of several nodes: each reaches those of its own node through shared memory (itself too), and all others
//! through a network. Regions are reached through the network by all.
//!
//! # Who looks where
//! A look (`progress`) looks at both ways, and one thread of a rank at a time delivers. A thread that waits sleeps at
//! the rank's bell in shared memory; nobody can sleep there and on a descriptor at once, so there are *attendants*
//! (`world::attendants`), one for each way: each sleeps on its own, looks when something comes, and a look that has
//! delivered rings the bell. An attendant keeps out of the way as long as other threads look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::{Fabric, FabricError, PeerState, Shm, Ucx};
use crate::doorbell::spin;
use crate::message::{HandlerId, Sent, is_handling};
use crate::rank::Rank;

/// One of the two ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Through shared memory.
    Node,
    /// Through the network.
    Network,
}

/// The fabric of one rank among those of several nodes.
pub(crate) struct Mixed {
    node: Shm,
    network: Ucx,
    /// Held while handlers run.
    delivering: Mutex<()>,
    /// Counts the looks at what has come.
    looks: AtomicU64,
    /// Attendants that keep out of the way.
    napping: AtomicU64,
    /// How often they were called.
    calls: AtomicU64,
    nap: Mutex<()>,
    called: Condvar,
}

impl Mixed {
    pub(crate) fn new(node: Shm, network: Ucx) -> Mixed {
        Mixed {
            node,
            network,
            delivering: Mutex::new(()),
            looks: AtomicU64::new(0),
            napping: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            nap: Mutex::new(()),
            called: Condvar::new(),
        }
    }

    pub(super) fn network(&self) -> &Ucx {
        &self.network
    }

    pub(super) fn rank(&self) -> Rank {
        self.network.rank()
    }

    pub(super) fn size(&self) -> u32 {
        self.network.size()
    }

    pub(super) fn send(
        &self,
        fabric: &Fabric,
        to: Rank,
        id: HandlerId,
        tag: u64,
        payload: Sent<'_>,
    ) -> Result<(), FabricError> {
        if self.node.has(to) {
            self.node.send(fabric, to, id, tag, payload.bytes())
        } else {
            self.network.send(fabric, to, id, tag, payload)
        }
    }

    pub(super) fn progress(&self, fabric: &Fabric) -> usize {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.look(fabric)
    }

    /// As `progress`, of an attendant: the other one takes it for no sign that it is not needed.
    pub(crate) fn look(&self, fabric: &Fabric) -> usize {
        if is_handling() {
            return 0;
        }
        let delivering = match self.delivering.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // The handler that runs may be a long one: what comes is taken in meanwhile.
                self.network.pump();
                return 0;
            }
        };
        let near = self.node.progress(fabric);
        let far = self.network.progress(fabric);
        drop(delivering);
        if far > 0 {
            self.node.delivered();
        }
        near + far
    }

    /// How often handlers have run.
    pub(super) fn deliveries(&self) -> u64 {
        self.node.deliveries()
    }

    /// Waits at the bell of shared memory; the attendants look after both ways meanwhile.
    pub(super) fn sleep(&self, timeout: Duration, seen: u64) {
        if self.node.spins() {
            let until = Instant::now().checked_add(timeout);
            let is_new = || self.deliveries() != seen;
            if spin(until, &mut || is_new() || self.node.has_work() || self.network.has_work()) {
                return;
            }
        }
        self.call();
        self.node.sleep(timeout, seen, false);
    }

    pub(super) fn flush(&self, fabric: &Fabric) -> Result<(), FabricError> {
        let near = self.node.flush(fabric);
        self.network.flush(fabric).and(near)
    }

    pub(super) fn peer(&self, rank: Rank) -> PeerState {
        if self.node.has(rank) { self.node.peer(rank) } else { self.network.peer(rank) }
    }

    pub(super) fn check_peers(&self) -> Vec<Rank> {
        let mut dead = self.node.check_peers();
        dead.extend(self.network.check_peers().into_iter().filter(|&rank| !self.node.has(rank)));
        dead.sort_unstable();
        dead
    }

    /// See [`Shm::end`].
    pub(super) fn end(&self, rank: Rank) {
        self.node.end(rank);
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.node.payload_bytes() + self.network.payload_bytes()
    }

    pub(super) fn leave(&self) {
        self.network.leave();
        self.node.leave();
    }

    /// Keeps an attendant out of the way for `pause`. True if it is needed then, or earlier: it was called, or no
    /// thread has looked meanwhile. `heard` is how many calls it knows of.
    pub(crate) fn nap(&self, pause: Duration, heard: &mut u64) -> bool {
        let looks = self.looks.load(Ordering::Relaxed);
        let nap = self.nap.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the look at the calls, as who calls counts before it looks who naps: one sees the other.
        self.napping.fetch_add(1, Ordering::SeqCst);
        let is_quiet = |(): &mut ()| self.calls.load(Ordering::SeqCst) == *heard;
        drop(self.called.wait_timeout_while(nap, pause, is_quiet));
        self.napping.fetch_sub(1, Ordering::SeqCst);
        let calls = self.calls.load(Ordering::SeqCst);
        let is_called = std::mem::replace(heard, calls) != calls;
        is_called || self.looks.load(Ordering::Relaxed) == looks
    }

    /// Takes in what comes on a side where something can come that is not delivered: peers read and write this rank's
    /// regions through the network. Whether something did.
    pub(crate) fn pump(&self, side: Side) -> bool {
        side == Side::Network && self.network.pump()
    }

    /// Sleeps until something comes on one side, or for no reason. True if no thread has looked meanwhile.
    pub(crate) fn attend(&self, side: Side, timeout: Duration) -> bool {
        let looks = self.looks.load(Ordering::Relaxed);
        match side {
            Side::Node => self.node.sleep(timeout, self.deliveries(), false),
            Side::Network => self.network.sleep_unless(timeout, || false),
        }
        self.looks.load(Ordering::Relaxed) == looks
    }

    /// Wakes the attendants, wherever they are.
    pub(crate) fn rouse(&self) {
        self.call();
        self.node.rouse();
        self.network.rouse();
    }

    /// Calls the attendants: this thread is about to sleep. One that does not nap now hears it before it does.
    fn call(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.napping.load(Ordering::SeqCst) > 0 {
            // Who has found no call sleeps before this goes on.
            drop(self.nap.lock().unwrap_or_else(PoisonError::into_inner));
            self.called.notify_all();
        }
    }
}
