//! What all ranks do together, made of messages, so it is the same on every fabric.
//!
//! Collective calls are numbered; each rank numbers its own, so all must make the same calls in the same order. A
//! message bears the number of its call, its handler the kind. What comes for a call that this rank has not made yet
//! is kept until it does.
//!
//! Each rank tells every rank directly, itself too. That costs n messages per rank, which is little on one node, and
//! since messages of a pair come in order it makes a barrier say: what you sent me before has been delivered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::WorldError;
use crate::fabric::{Deadline, Fabric, FabricError, LIVENESS_MS, Liveness, PeerState};
use crate::message::{HandlerId, Message, is_handling};
use crate::rank::Rank;

const BARRIER: HandlerId = HandlerId(HandlerId::RESERVED.0);
const BROADCAST: HandlerId = HandlerId(HandlerId::RESERVED.0 + 1);
const GATHER: HandlerId = HandlerId(HandlerId::RESERVED.0 + 2);

/// This rank's collective calls.
#[derive(Default)]
pub(super) struct Collective {
    /// Held during a call: threads of a rank take turns.
    calls: Mutex<Calls>,
    arrived: Mutex<HashMap<u64, Arrivals>>,
}

#[derive(Default)]
struct Calls {
    /// Number of the call that is next, or that timed out.
    number: u64,
    /// That call has told all already.
    told: bool,
}

/// What has come for one call.
type Arrivals = HashMap<Rank, (HandlerId, Vec<u8>)>;

/// One call.
struct Call<'c> {
    kind: HandlerId,
    bytes: &'c [u8],
    /// Whether to tell all, and of whom to hear.
    tell: bool,
    hear: Vec<Rank>,
    timeout: Duration,
}

impl Collective {
    /// The calls of the rank whose fabric this is.
    pub(super) fn register(fabric: &Fabric) -> Arc<Collective> {
        let collective = Arc::new(Collective::default());
        for kind in [BARRIER, BROADCAST, GATHER] {
            let collective = collective.clone();
            fabric.on(kind, move |_, message| collective.arrive(message));
        }
        collective
    }

    fn arrive(&self, message: &Message<'_>) {
        let what = (message.handler, message.payload.to_vec());
        self.lock_arrived().entry(message.tag).or_default().insert(message.source, what);
    }

    pub(super) fn barrier(&self, fabric: &Fabric, timeout: Duration) -> Result<(), WorldError> {
        let hear = all(fabric);
        self.call(fabric, &Call { kind: BARRIER, bytes: &[], tell: true, hear, timeout }).map(|_| ())
    }

    pub(super) fn broadcast(
        &self,
        fabric: &Fabric,
        root: Rank,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, WorldError> {
        let size = fabric.size();
        if root.0 >= size {
            return Err(FabricError::NoSuchRank { rank: root, size }.into());
        }
        let (tell, hear) = (root == fabric.rank(), vec![root]);
        let mut heard = self.call(fabric, &Call { kind: BROADCAST, bytes, tell, hear, timeout })?;
        Ok(heard.remove(&root).expect("the call has heard of the root").1)
    }

    pub(super) fn all_gather(
        &self,
        fabric: &Fabric,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<Vec<Vec<u8>>, WorldError> {
        let hear = all(fabric);
        let mut heard = self.call(fabric, &Call { kind: GATHER, bytes, tell: true, hear, timeout })?;
        let theirs = |rank: Rank| heard.remove(&rank).expect("the call has heard of all").1;
        Ok(all(fabric).into_iter().map(theirs).collect())
    }

    /// Tells, and waits until all have been heard.
    fn call(&self, fabric: &Fabric, call: &Call<'_>) -> Result<Arrivals, WorldError> {
        assert!(!is_handling(), "a collective call inside a handler would wait for itself");
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let number = calls.number;
        if call.tell && !calls.told {
            self.tell(fabric, call, number)?;
            calls.told = true;
        }
        let heard = self.hear(fabric, call, number);
        if matches!(heard, Ok(()) | Err(WorldError::Order { .. })) {
            *calls = Calls { number: number + 1, told: false };
        }
        let mut arrived = self.lock_arrived();
        let arrivals = heard.map(|()| arrived.remove(&number).unwrap_or_default());
        arrived.retain(|&other, _| other >= calls.number);
        arrivals
    }

    /// Tells all, also if one of them is gone, so that only those hear nothing.
    fn tell(&self, fabric: &Fabric, call: &Call<'_>, number: u64) -> Result<(), WorldError> {
        let told = all(fabric).into_iter().map(|to| fabric.send(to, call.kind, number, call.bytes));
        told.fold(Ok(()), Result::and).map_err(WorldError::from)
    }

    fn hear(&self, fabric: &Fabric, call: &Call<'_>, number: u64) -> Result<(), WorldError> {
        let (deadline, mut liveness) = (Deadline::after(call.timeout), Liveness::new());
        loop {
            let Some(missing) = self.missing(call, number)? else { return Ok(()) };
            let Some(left) = deadline.left() else {
                let waited_ms = call.timeout.as_millis() as u64;
                return Err(WorldError::Timeout { rank: missing, waited_ms });
            };
            fabric.wait(left.min(Duration::from_millis(LIVENESS_MS)));
            if !liveness.is_due() && fabric.peer(missing) == PeerState::Here {
                continue;
            }
            let dead = fabric.check_peers();
            // What the missing ones sent before they went may have come by now.
            self.take_all(fabric, call, number)?;
            if self.missing(call, number)?.is_none() {
                return Ok(());
            }
            if let Some(&rank) = dead.first() {
                return Err(FabricError::PeerDead { rank }.into());
            }
            let heard =
                |rank: &Rank| self.lock_arrived().get(&number).is_some_and(|it| it.contains_key(rank));
            let gone = |rank: &&Rank| fabric.peer(**rank) == PeerState::Left && !heard(rank);
            if let Some(&rank) = call.hear.iter().find(gone) {
                return Err(FabricError::PeerLeft { rank }.into());
            }
        }
    }

    /// Delivers what has come by now, a bounded number of rounds of it.
    fn take_all(&self, fabric: &Fabric, call: &Call<'_>, number: u64) -> Result<(), WorldError> {
        const ROUNDS_MAX: usize = 1000;
        for _ in 0..ROUNDS_MAX {
            if fabric.progress() == 0 || self.missing(call, number)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// One of whom nothing has come.
    fn missing(&self, call: &Call<'_>, number: u64) -> Result<Option<Rank>, WorldError> {
        let arrived = self.lock_arrived();
        let Some(arrivals) = arrived.get(&number) else { return Ok(call.hear.first().copied()) };
        if let Some((&rank, _)) = arrivals.iter().find(|(_, (kind, _))| *kind != call.kind) {
            return Err(WorldError::Order { rank });
        }
        Ok(call.hear.iter().copied().find(|rank| !arrivals.contains_key(rank)))
    }

    fn lock_arrived(&self) -> MutexGuard<'_, HashMap<u64, Arrivals>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn all(fabric: &Fabric) -> Vec<Rank> {
    (0..fabric.size()).map(Rank).collect()
}
