//! Taking a lost server's part over: the next node that keeps it serves its keys.
//!
//! Only in a world that survives losses (`transport::Losses`), and of a dictionary with replicas.
//!
//! # Who, and when
//! Of the nodes that keep a part (`Placement::all_keepers`) the first whose server is not lost answers for it. All
//! ranks find the same one by what rank 0 has declared. Whoever asks it before it is ready is told so, and asks again.
//! It begins when the losses before it are *settled*: then nobody takes an answer of the lost one any more, so what it
//! does is the only truth. One that was lost and does not know reaches nobody.
//!
//! A replica that has *fallen behind* (`Standby`) does not take over, and says that the keys are gone.
//!
//! On the lost one's node other ranks may live, which read the part in place, by a short way that asks nobody. The
//! flag `ELSEWHERE` of the part's memory ends that, before these ranks acknowledge the loss.
//!
//! # How
//! 1. It tells the others that keep the part its epoch, and hears which writes they have done that may not be settled.
//! 2. What it has done and one of them may not have, it sends them as the version that it was: done once.
//! 3. What one of them has done and it has not, that one puts back to what it has here. Nobody can have seen it: its
//!    home shows a write when all that keep it have it, and answers then.
//! 4. It answers for the part from its replica's memory, as its home did, by the number of the replica's segment.
//!
//! One of the others that dies meanwhile is left out, and one that cannot do it has fallen behind. Who asks once more
//! for a write bears its `WriteId`, and what was answered to those (`past`) comes with the replica.
//!
//! # What it does not
//! It makes no further copies: a part that has lost k of n keepers is on n - k nodes from then on, and lost with the
//! last of them. Keys that are written by `bput` get no copies on other nodes any more, those that are there are not
//! read, and values are not read one-sidedly.

use super::copies::Span;
use super::far::Far;
use super::message::{self, Change, Fault, MEND, Recent, Reply, TAKE_OVER, WriteHead};
use super::placement::Placement;
use super::replicas::Writes;
use super::serve::{Served, Server, is, lock, odd, respond};
use super::slow::{Order, Task};
use super::standby::{Estate, Standby};
use crate::error::Error;
use crate::store::{Exact, Options, Store};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;
use tarragon_transport::{Change as Membership, Fabric, FabricError, HandlerId, Message};

/// Epochs of a home that it may use for itself, one for each replica that it gives up.
const EPOCHS: u32 = 1 << 8;
/// Memory for copies that there are none of.
const NO_COPIES_BYTES: u64 = 1 << 20;

/// Has the server hear of losses, and answer those who take over.
pub(super) fn install(fabric: &Arc<Fabric>) {
    let (server, weak) = (fabric.state::<Server>(), Arc::downgrade(fabric));
    if server.is_listening.swap(true, Ordering::SeqCst) {
        return;
    }
    let hears = Arc::clone(&server);
    fabric.on_change(move |_, change| {
        if let (Some(fabric), Membership::Lost(_) | Membership::Settled(_)) = (weak.upgrade(), change) {
            let source = fabric.rank();
            hears.order(Order { fabric, source, tag: 0, task: Task::Inherit });
        }
    });
    let asked = Arc::clone(&server);
    fabric.on(TAKE_OVER, move |fabric, message| {
        let recent = asked.tell_recent(message).map(|recent| message::bytes(&Ok::<_, Fault>(recent)));
        respond(fabric, message.source, message.tag, recent);
    });
    fabric.on(MEND, move |fabric, message| {
        respond(fabric, message.source, message.tag, server.mend(message));
    });
}

/// The dictionaries that this process has open.
#[derive(Default)]
struct Opened {
    all: Mutex<Vec<Weak<Far>>>,
    is_listening: AtomicBool,
}

/// Has all processes of this node ask who serves its part before they read it here, once its server is lost or this
/// rank cast out: before rank 0 hears that this is known here, and so before anybody takes the part over.
pub(super) fn look_after(far: &Arc<Far>) {
    let opened = far.fabric.state::<Opened>();
    let mut all = lock(&opened.all);
    all.retain(|other| other.strong_count() > 0);
    all.push(Arc::downgrade(far));
    drop(all);
    if !opened.is_listening.swap(true, Ordering::SeqCst) {
        far.fabric
            .on_change(move |_, _| lock(&opened.all).iter().filter_map(Weak::upgrade).for_each(leave_here));
    }
    leave_here(Arc::clone(far));
}

fn leave_here(far: Arc<Far>) {
    if !far.is_near(far.here())
        // One that is gone is read by nobody.
        && let Ok(near) = Store::open(&far.span().1[far.here() as usize].segment)
    {
        near.set_elsewhere();
    }
}

/// What is taken over.
struct Heritage<'a> {
    part: u32,
    span: &'a Span,
    placement: Placement,
    standby: &'a Standby,
    epoch: u32,
}

impl Server {
    /// What is told those who ask for a part that this rank will answer for, or cannot.
    pub(super) fn not_yet(&self, uid: u128) -> Option<Fault> {
        if lock(&self.parts).contains_key(&uid) {
            return None;
        }
        let standby = lock(&self.standbys).get(&uid).cloned()?;
        Some(if standby.is_given_up() { Fault::Other(FALLEN_BEHIND.to_owned()) } else { Fault::NotYet })
    }

    fn tell_recent(&self, message: &Message<'_>) -> Result<Vec<(u64, Recent)>, Error> {
        let ((uid, epoch), _) = message::head::<(u128, u32)>(message.payload).ok_or_else(odd)?;
        let standby = lock(&self.standbys).get(&uid).cloned();
        let standby = standby.filter(|it| !it.is_given_up());
        Ok(standby.ok_or_else(|| Error::Gone { name: String::new() })?.tell_recent(epoch))
    }

    fn mend(&self, message: &Message<'_>) -> Result<Vec<u8>, Error> {
        let (head, rest) = message::head::<WriteHead>(message.payload).ok_or_else(odd)?;
        let (key, value) = rest.split_at_checked(head.key as usize).ok_or_else(odd)?;
        let standby = lock(&self.standbys).get(&head.part).cloned();
        standby.ok_or_else(|| Error::Gone { name: String::new() })?.take(&head, key, value)?;
        Ok(is(true))
    }

    /// Takes over what is this node's to take over by now.
    pub(super) fn inherit(&self, fabric: &Arc<Fabric>) {
        if !fabric.survives_losses() {
            return;
        }
        let mains: Vec<Arc<Served>> = lock(&self.parts)
            .values()
            .filter(|it| !it.is_inherited && it.writes.is_some())
            .cloned()
            .collect();
        for main in mains {
            let Some(span) = main.span.get() else { continue };
            let replicas = main.standbys.len() as u32 + 1;
            let placement = Placement::new(span.homes.len() as u32, replicas);
            for part in placement.kept_by(span.here) {
                if let Some(heritage) = heritage(fabric, &main, span, &placement, part)
                    && !lock(&self.parts).contains_key(&heritage.standby.store.name().uid)
                    // An error here is one of memory; who asks is told to ask again, and so does the next loss.
                    && let Ok(served) = heritage.take_over(fabric)
                {
                    let uid = served.store.name().uid;
                    lock(&self.parts).insert(uid, Arc::new(served));
                }
            }
        }
    }
}

const FALLEN_BEHIND: &str =
    "the rank that had these keys is lost, and the replica here had fallen behind before: they are gone";

/// A part that this node is to take over, if it is.
fn heritage<'a>(
    fabric: &Fabric,
    main: &'a Served,
    span: &'a Span,
    placement: &Placement,
    part: u32,
) -> Option<Heritage<'a>> {
    let settled = fabric.settled_epoch();
    let lost_in = |node: u32| fabric.lost_in(span.homes[node as usize].rank);
    let mut before = placement.all_keepers(part).take_while(|node| *node != span.here);
    let is_settled = before.all(|node| lost_in(node).is_none_or(|epoch| epoch <= settled));
    let standby = main.standbys.get(placement.replica_of(part, span.here)?)?;
    let lost = (0..span.homes.len() as u32).filter(|node| lost_in(*node).is_some());
    let placement = lost.fold(placement.clone(), |placement, node| placement.without(node));
    if placement.home_of(part) != span.here || !is_settled || standby.is_given_up() {
        return None;
    }
    Some(Heritage { part, span, placement, standby, epoch: settled * EPOCHS })
}

impl Heritage<'_> {
    /// The part, as it is served from now on.
    fn take_over(mut self, fabric: &Arc<Fabric>) -> Result<Served, Error> {
        let mut estate = self.standby.take_over(self.epoch);
        let others: Vec<u32> = self.placement.standbys(self.part).collect();
        let mut theirs = BTreeMap::new();
        for node in others {
            let asked = message::bytes(&(self.replica_on(node), self.epoch));
            match ask::<Vec<(u64, Recent)>>(fabric, self.rank_of(node), TAKE_OVER, &asked) {
                Some(recent) => drop(theirs.insert(node, recent)),
                None => self.placement = self.placement.without(node),
            }
        }
        let last = theirs.values().flatten().map(|(version, _)| version + 1).max();
        estate.next = estate.next.max(last.unwrap_or(0));
        for (node, recent) in theirs {
            if self.bring_up_to_date(fabric, node, &mut estate, recent).is_none() {
                self.placement = self.placement.without(node);
            }
        }
        let Estate { next, past, .. } = estate;
        let epoch = self.epoch;
        let writes = Writes::inherited(self.placement.clone(), epoch, next, past);
        let store = Store::open(self.standby.store.name())?;
        let none = Options {
            shards: 1,
            wait_for_keys: false,
            working_set: 1,
            replicas: 1,
            memory_bytes: NO_COPIES_BYTES,
            ..store.options().clone()
        };
        let span = Span { homes: self.span.homes.clone(), here: self.part };
        Ok(Served {
            store,
            users: Mutex::new(HashMap::new()),
            copies: Store::create(&none)?,
            span: OnceLock::from(span),
            shown: OnceLock::new(),
            given: Mutex::default(),
            told: Mutex::default(),
            writes: Some(writes),
            standbys: Vec::new(),
            is_inherited: true,
        })
    }

    /// Has another replica have what this one has; `None` if it cannot, or is gone.
    fn bring_up_to_date(
        &self,
        fabric: &Arc<Fabric>,
        node: u32,
        estate: &mut Estate,
        recent: Vec<(u64, Recent)>,
    ) -> Option<()> {
        for (&version, own) in &estate.recent {
            self.mend(fabric, node, version, own, own.takes_back)?;
        }
        for (version, other) in recent {
            if version >= estate.settled && !estate.recent.contains_key(&version) {
                let version = estate.next;
                estate.next += 1;
                // A removal that is answered by the value would be none here.
                self.mend(fabric, node, version, &Recent { change: Change::Remove, ..other }, true)?;
            }
        }
        Some(())
    }

    /// Has a replica put a key to what it is here.
    fn mend(
        &self,
        fabric: &Arc<Fabric>,
        node: u32,
        version: u64,
        of: &Recent,
        takes_back: bool,
    ) -> Option<()> {
        let (change, value) = match self.standby.store.exact(&of.key, of.checkpoint) {
            Ok(Exact::Value(value, keep)) => (Change::Put(keep), value),
            Ok(Exact::Removed) if of.change == Change::Pop => (Change::Pop, Vec::new()),
            Ok(Exact::Removed) => (Change::Remove, Vec::new()),
            Ok(Exact::Nothing) | Err(_) => (Change::Withdraw, Vec::new()),
        };
        let head = WriteHead {
            part: self.replica_on(node),
            home: self.standby.store.name().uid,
            node,
            epoch: self.epoch,
            version,
            settled: 0,
            checkpoint: of.checkpoint,
            change,
            takes_back,
            mends: true,
            key: of.key.len() as u32,
            write: of.write,
        };
        let bytes = [message::bytes(&head), of.key.clone(), value].concat();
        ask::<Reply>(fabric, self.rank_of(node), MEND, &bytes).map(drop)
    }

    fn rank_of(&self, node: u32) -> tarragon_transport::Rank {
        self.span.homes[node as usize].rank
    }

    fn replica_on(&self, node: u32) -> u128 {
        let replica = self.placement.replica_of(self.part, node);
        let replicas = &self.span.homes[node as usize].replicas;
        replica.and_then(|index| replicas.get(index)).map_or(0, |name| name.uid)
    }
}

/// What a server answers; `None` if it cannot, or is gone.
fn ask<T: serde::de::DeserializeOwned>(
    fabric: &Arc<Fabric>,
    rank: tarragon_transport::Rank,
    id: HandlerId,
    bytes: &[u8],
) -> Option<T> {
    let asked: Result<_, FabricError> = fabric.request(rank, id, bytes);
    let bytes = asked.and_then(|request| request.wait(Duration::MAX)).ok()??;
    message::head::<Result<T, Fault>>(&bytes)?.0.ok()
}
