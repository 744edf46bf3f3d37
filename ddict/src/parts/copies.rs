//! Copies of a key's value on every node, for `bput` and `bget`.
//!
//! # What lies where
//! A copy lies on a node that is not the key's home, in a store of its own beside the part: so it is no key there, and
//! neither counted, walked over nor persisted. Its bytes are the value's, then its [`Mark`]. One key has one copy on a
//! node, that of the last broadcast.
//!
//! # A broadcast
//! The thread of the home's server sets the key's cell (`store::copies`), puts the value, and sends it down a tree of
//! servers whose root it is: each hands it to at most two others before it takes it up, so the value has reached all
//! of n nodes after about log2 n steps. Each tells the root, which waits for all. It does one broadcast after the other
//! and numbers them; who gets an older one after a newer one leaves it.
//!
//! # A later write
//! Whoever writes to the key, in shared memory or by a question, finds the cell set, and asks the home's server to have
//! the copies given up; that goes down the tree as a broadcast does. Only then is the value changed. So copies are
//! never older than the last write that has returned: `bget` sees what `get` would, but for writes that are under way.
//! A broadcast that is under way is seen on some nodes before others.
//!
//! # Checkpoints
//! A copy is what its own checkpoint sees. Later ones see it too (`carried`) if it is kept for them and was the key's
//! newest when it was put; else they ask the home, as earlier ones do. What a key must get anew before its checkpoint
//! retires (`wait_for_keys`) is a write like others, so no copy is left behind.
//!
//! # Deaths
//! Who asked and dies: it is done or not. A server on the tree that dies: the root sends what those below it lack, and
//! does not wait for the dead. Processes of a node without a server use no copies, since nobody could take them away,
//! from when they know of its death (within about half a second) on. When the home's server dies, copies stay and are
//! read; nobody can change the key then. A broadcast that it was at has reached some nodes.

use super::message::{self, COPIED, COPY, Fault, Home};
use super::serve::{Served, Server, lock};
use crate::error::Error;
use crate::store::{Keep, Pinned, When};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tarragon_transport::{Fabric, Message, PeerState};

/// The longest sleep of the root between two looks.
const NAP: Duration = Duration::from_millis(1);
/// How often it asks the system who lives.
const LIVENESS: Duration = Duration::from_millis(100);
/// Bytes of a mark behind a value.
const MARK_BYTES: usize = 5;

/// Whom a copy is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    checkpoint: u32,
    /// Later checkpoints see it too.
    carried: bool,
}

impl Mark {
    fn bytes(self) -> [u8; MARK_BYTES] {
        let [a, b, c, d] = self.checkpoint.to_le_bytes();
        [a, b, c, d, u8::from(self.carried)]
    }

    /// That of a copy, and the length of its value.
    fn of(copy: &[u8]) -> Option<(Self, usize)> {
        let (value, &[a, b, c, d, carried]) = copy.split_last_chunk::<MARK_BYTES>()?;
        let checkpoint = u32::from_le_bytes([a, b, c, d]);
        Some((Self { checkpoint, carried: carried == 1 }, value.len()))
    }

    fn is_seen_from(self, checkpoint: u32) -> bool {
        checkpoint == self.checkpoint || self.carried && checkpoint > self.checkpoint
    }
}

/// The value of a copy, if a checkpoint sees it.
pub(super) fn seen_from(copy: Pinned<'_>, checkpoint: u32) -> Option<Pinned<'_>> {
    let (mark, len) = Mark::of(&copy)?;
    mark.is_seen_from(checkpoint).then(|| copy.shortened(len))
}

/// What a server knows of copies of its part's keys.
#[derive(Default)]
pub(super) struct Given {
    /// By cell, the keys that have copies.
    cells: HashMap<u32, HashMap<Box<[u8]>, Mark>>,
    /// Number of the last broadcast.
    last: u64,
}

/// What nodes have answered to a broadcast.
type ByNode = HashMap<u32, Option<Fault>>;

/// Answers to the broadcasts of this rank's parts, by part and number.
#[derive(Default)]
pub(super) struct Answers(Mutex<HashMap<(u128, u64), ByNode>>);

/// All parts, and which of them is meant.
pub(super) struct Span {
    pub(super) homes: Vec<Home>,
    pub(super) here: u32,
}

/// What stands before the key and the value; the message's tag is the broadcast's number.
#[derive(Clone, Serialize, Deserialize)]
struct Head {
    /// The receiver's.
    part: u128,
    /// The node that began it.
    root: u32,
    /// It is not handed on.
    is_last: bool,
    /// Bytes of the key.
    key: u32,
    /// The copy's; `None`: it is to go.
    mark: Option<Mark>,
}

/// That a node has done it.
#[derive(Serialize, Deserialize)]
struct Done {
    /// The root's.
    part: u128,
    node: u32,
    fault: Option<Fault>,
}

/// The nodes below a node in the tree of a root.
fn below(node: u32, root: u32, nodes: u32) -> impl Iterator<Item = u32> {
    let place = (node + nodes - root) % nodes;
    (2 * place + 1..=2 * place + 2)
        .filter(move |place| *place < nodes)
        .map(move |place| (root + place) % nodes)
}

/// The node above a node that is not the root.
fn above(node: u32, root: u32, nodes: u32) -> u32 {
    let place = (node + nodes - root) % nodes;
    (root + (place.max(1) - 1) / 2) % nodes
}

/// Lets this rank take copies up, and hear that others have.
pub(super) fn install(fabric: &Arc<Fabric>) {
    let (server, weak) = (fabric.state::<Server>(), Arc::downgrade(fabric));
    fabric.on(COPY, move |_, message| {
        if let Some(fabric) = weak.upgrade() {
            server.copy(&fabric, message);
        }
    });
    let server = fabric.state::<Server>();
    fabric.on(COPIED, move |_, message| {
        if let Some((Done { part, node, fault }, _)) = message::head::<Done>(message.payload)
            && let Some(answers) = lock(&server.answers.0).get_mut(&(part, message.tag))
        {
            answers.insert(node, fault);
        }
    });
}

fn message(span: &Span, to: u32, head: &Head, rest: &[u8]) -> Vec<u8> {
    let head = Head { part: span.homes[to as usize].segment.uid, ..head.clone() };
    let mut bytes = message::bytes(&head);
    bytes.extend_from_slice(rest);
    bytes
}

impl Server {
    // ── at the root: on the thread for what takes long ──────────────────────────────────────────────────────

    /// Puts a value, and a copy on each node.
    pub(super) fn broadcast(
        &self,
        fabric: &Fabric,
        part: &Served,
        (checkpoint, keep): (u32, Keep),
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Error> {
        let store = &part.store;
        let cell = store.cell_of(key)?;
        let is_kept = keep == Keep::Persistent || !store.options().wait_for_keys;
        let mark = {
            let mut given = lock(&part.given);
            // First the cell, then the value: see `store::copies`.
            store.set_copied(cell, true);
            if let Err(error) = store.put(key, checkpoint, value, When::Copied, keep) {
                store.set_copied(cell, given.cells.contains_key(&cell));
                return Err(error);
            }
            let carried = is_kept && store.is_newest(key, checkpoint).unwrap_or(false);
            let mark = Mark { checkpoint, carried };
            given.cells.entry(cell).or_default().insert(key.into(), mark);
            mark
        };
        self.spread(fabric, part, key, Some(mark), value)
    }

    /// Has the copies of a cell's keys taken away everywhere.
    pub(super) fn give_up(&self, fabric: &Fabric, part: &Served, cell: u32) -> Result<(), Error> {
        let keys = |given: &Given| {
            given.cells.get(&cell).map_or_else(Vec::new, |keys| keys.keys().cloned().collect())
        };
        let keys: Vec<Box<[u8]>> = keys(&lock(&part.given));
        for key in keys {
            self.spread(fabric, part, &key, None, &[])?;
        }
        let mut given = lock(&part.given);
        given.cells.remove(&cell);
        part.store.set_copied(cell, false);
        Ok(())
    }

    /// The same for all keys of a part.
    pub(super) fn give_all_up(&self, fabric: &Fabric, part: &Served) -> Result<(), Error> {
        let cells: Vec<u32> = lock(&part.given).cells.keys().copied().collect();
        cells.into_iter().try_for_each(|cell| self.give_up(fabric, part, cell))
    }

    /// Sends a copy, or that it is to go, to all other nodes; returns when all that live have done it.
    fn spread(
        &self,
        fabric: &Fabric,
        part: &Served,
        key: &[u8],
        mark: Option<Mark>,
        value: &[u8],
    ) -> Result<(), Error> {
        let Some(span) = part.span.get() else { return Ok(()) };
        let (here, nodes) = (span.here, span.homes.len() as u32);
        let number = {
            let mut given = lock(&part.given);
            given.last += 1;
            given.last
        };
        let name = (part.store.name().uid, number);
        lock(&self.answers.0).insert(name, HashMap::new());
        let rest = [key, value].concat();
        let send = |node: u32, is_last| {
            let head = Head { part: 0, root: here, is_last, key: key.len() as u32, mark };
            // Who cannot be told is dead, or has left.
            let _ =
                fabric.send(span.homes[node as usize].rank, COPY, number, &message(span, node, &head, &rest));
        };
        below(here, here, nodes).for_each(|node| send(node, false));
        let answers = self.wait_for_all(fabric, span, name, send);
        let mut faults = answers.into_iter().filter_map(|(node, fault)| Some((node, fault?)));
        match faults.next() {
            None => Ok(()),
            Some((node, fault)) => {
                let Home { rank, host, .. } = &span.homes[node as usize];
                Err(fault.error(&part.store.name().file, (*rank, host), key))
            }
        }
    }

    /// Waits until all that live have answered; sends to those whose way here has died.
    fn wait_for_all(
        &self,
        fabric: &Fabric,
        span: &Span,
        name: (u128, u64),
        send: impl Fn(u32, bool),
    ) -> ByNode {
        let (here, nodes) = (span.here, span.homes.len() as u32);
        let is_gone = |node: u32| fabric.peer(span.homes[node as usize].rank) != PeerState::Here;
        let mut is_sent = vec![false; nodes as usize];
        let mut looked = Instant::now();
        loop {
            let missing: Vec<u32> = {
                let all = lock(&self.answers.0);
                let has_answered = |node: &u32| all.get(&name).is_some_and(|it| it.contains_key(node));
                (0..nodes).filter(|node| *node != here && !has_answered(node) && !is_gone(*node)).collect()
            };
            if missing.is_empty() {
                return lock(&self.answers.0).remove(&name).unwrap_or_default();
            }
            for node in missing {
                let mut way = std::iter::successors(Some(node), |node| Some(above(*node, here, nodes)));
                let is_cut = way.find(|node| *node == here || is_gone(*node)) != Some(here);
                if is_cut && !std::mem::replace(&mut is_sent[node as usize], true) {
                    send(node, true);
                }
            }
            fabric.wait(NAP);
            if looked.elapsed() >= LIVENESS {
                fabric.check_peers();
                looked = Instant::now();
            }
        }
    }

    // ── elsewhere: in a handler ─────────────────────────────────────────────────────────────────────────────

    /// Hands a copy on, takes it up, and tells the root.
    fn copy(self: &Arc<Self>, fabric: &Arc<Fabric>, message: &Message<'_>) {
        let Some((head, rest)) = message::head::<Head>(message.payload) else { return };
        // Who has no part any more has no readers either, and its root neither.
        let Ok(part) = self.part(head.part) else { return };
        let Some(span) = part.span.get().filter(|span| head.root < span.homes.len() as u32) else { return };
        if !head.is_last {
            for node in below(span.here, head.root, span.homes.len() as u32) {
                // The root sees that it is dead, and sends to those below it.
                let bytes = self::message(span, node, &head, rest);
                let _ = fabric.send(span.homes[node as usize].rank, COPY, message.tag, &bytes);
            }
        }
        let fault = part.take_up(&head, message.tag, rest).err().map(|error| Fault::of(&error));
        let root = &span.homes[head.root as usize];
        let done = Done { part: root.segment.uid, node: span.here, fault };
        let _ = fabric.send(root.rank, COPIED, message.tag, &message::bytes(&done));
    }
}

impl Served {
    fn take_up(&self, head: &Head, number: u64, rest: &[u8]) -> Result<(), Error> {
        let mut told = lock(&self.told);
        let last = told.entry(head.root).or_default();
        if number <= *last {
            return Ok(());
        }
        let odd = Error::Damaged { what: "a copy from another rank", offset: 0 };
        let (key, value) = rest.split_at_checked(head.key as usize).ok_or(odd)?;
        let taken = match head.mark {
            None => self.copies.remove(key, 0, |_| ()).map(drop),
            Some(mark) => {
                let put =
                    self.copies.put_with(key, 0, (value.len() + MARK_BYTES) as u64, Keep::Default, |place| {
                        let (bytes, tail) = place.split_at_mut(value.len());
                        bytes.copy_from_slice(value);
                        tail.copy_from_slice(&mark.bytes());
                        Ok::<(), std::convert::Infallible>(())
                    });
                match put {
                    Ok(_) => Ok(()),
                    // Rather none than an older one.
                    Err(error) => self.copies.remove(key, 0, |_| ()).and(Err(error)),
                }
            }
        };
        if taken.is_ok() || head.mark.is_some() {
            *last = number;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_reaches_every_node_once_in_few_steps() {
        for nodes in 1..70 {
            for root in [0, nodes / 2, nodes - 1] {
                let mut steps = vec![None; nodes as usize];
                steps[root as usize] = Some(0);
                let mut next = vec![root];
                while let Some(node) = next.pop() {
                    for child in below(node, root, nodes) {
                        assert_eq!(above(child, root, nodes), node);
                        let step = steps[node as usize].map(|step: u32| step + 1);
                        assert_eq!(std::mem::replace(&mut steps[child as usize], step), None);
                        next.push(child);
                    }
                }
                let deepest = steps.into_iter().map(|step| step.expect("it is reached")).max();
                assert!(deepest <= Some(nodes.ilog2()), "{nodes} {root} {deepest:?}");
            }
        }
    }

    #[test]
    fn copies_show_to_whom_they_are_for() {
        let mark = Mark { checkpoint: 3, carried: true };
        let copy = [&b"value"[..], &mark.bytes()].concat();
        assert_eq!(Mark::of(&copy), Some((mark, 5)));
        assert_eq!(Mark::of(b"abcd"), None);
        assert_eq!([2, 3, 4].map(|at| mark.is_seen_from(at)), [false, true, true]);
        let once = Mark { carried: false, ..mark };
        assert_eq!([2, 3, 4].map(|at| once.is_seen_from(at)), [false, true, false]);
    }
}
