//! Copies of a key's value on every node, for `bput` and `bget`.
//!
//! # What lies where
//! A copy lies on a node that is not the key's home, in a store of its own beside the part: so it is no key there, and
//! neither counted, walked over nor persisted. Its bytes are the value's, then its [`Mark`]. One key has one copy on a
//! node, that of the last broadcast.
//!
//! # A broadcast
//! The handler of the home's server sets the key's cell (`store::copies`), puts the value, and sends it down a tree of
//! servers whose root it is: each hands it to at most two others before it takes it up, so the value has reached all
//! of n nodes after about log2 n steps. Each tells the root; the handler that hears the last of them answers who asked,
//! so nobody sleeps on the way. The root has one broadcast under way at a time, and numbers them; who gets an older one
//! after a newer one leaves it.
//!
//! # A later write
//! Whoever writes to the key, in shared memory or by a question, finds the cell set, and asks the home's server to have
//! the copies given up; that goes down the tree as a broadcast does. The server's thread waits for it, and a broadcast
//! of such a key that comes meanwhile waits for the thread. Only then is the value changed. So copies are never older
//! than the last write that has returned: `bget` sees what `get` would, but for writes that are under way. A broadcast
//! that is under way is seen on some nodes before others.
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
use super::serve::{Deed, Served, Server, Who, is, lock, refused};
use crate::error::Error;
use crate::store::{Keep, Pinned, When};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};
use tarragon_transport::{Fabric, Message};

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
    /// By cell, the keys that have copies, and as the how-manieth they got them.
    cells: HashMap<u32, HashMap<Box<[u8]>, u64>>,
    /// Copies that were given so far.
    born: u64,
    /// Number of the last broadcast.
    last: u64,
    /// The one that is under way.
    current: Option<Spread>,
    /// Those that come after it.
    waiting: VecDeque<Spread>,
    giving_up: GivingUp,
}

/// Whose copies the thread has taken away.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum GivingUp {
    #[default]
    Nothing,
    Cell(u32),
    All,
}

/// A copy, or that it is to go, on its way to all nodes.
struct Spread {
    number: u64,
    /// Bytes of the key.
    key: usize,
    mark: Option<Mark>,
    /// Key and value.
    rest: Vec<u8>,
    end: End,
    /// What nodes have answered.
    answers: BTreeMap<u32, Option<Fault>>,
    /// Nodes it was sent to directly, since their way here has died.
    sent_again: BTreeSet<u32>,
}

/// Who is told when all have it.
enum End {
    Respond(Who),
    Tell(Sender<Ended>),
}

/// Why it is not everywhere.
type Ended = Option<Error>;

/// Whether a node's server lives.
pub(super) type IsLive<'a> = &'a dyn Fn(u32) -> bool;

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
    let (server, weak) = (fabric.state::<Server>(), Arc::downgrade(fabric));
    fabric.on(COPIED, move |_, message| {
        if let Some((Done { part, node, fault }, _)) = message::head::<Done>(message.payload)
            && let (Ok(part), Some(fabric)) = (server.part(part), weak.upgrade())
        {
            let deeds = part.copied(message.tag, node, fault, &part.is_live(&fabric));
            server.act(&fabric, &part, deeds);
        }
    });
}

fn message(span: &Span, to: u32, head: &Head, rest: &[u8]) -> Vec<u8> {
    let head = Head { part: span.homes[to as usize].segment.uid, ..head.clone() };
    let mut bytes = message::bytes(&head);
    bytes.extend_from_slice(rest);
    bytes
}

impl Served {
    // ── at the root ─────────────────────────────────────────────────────────────────────────────────────────

    /// Whether a key has copies, or another one of its cell.
    pub(super) fn has_copies(&self, key: &[u8]) -> bool {
        self.store.cell_of(key).is_ok_and(|cell| self.store.has_copies(cell))
    }

    /// Whether copies of a key are just being given up: a broadcast is the thread's then.
    pub(super) fn is_giving_up(&self, given: &Given, key: &[u8]) -> bool {
        match given.giving_up {
            GivingUp::Nothing => false,
            GivingUp::Cell(cell) => self.store.cell_of(key).is_ok_and(|it| it == cell),
            GivingUp::All => true,
        }
    }

    /// Puts a value, and begins to give each node a copy; who asked is answered when all have it.
    pub(super) fn broadcast(
        &self,
        how: (u32, Keep),
        key: &[u8],
        value: &[u8],
        who: Who,
        deeds: &mut Vec<Deed>,
    ) -> Result<(), Error> {
        self.broadcast_in(&mut lock(&self.given), how, key, value, who, deeds)
    }

    /// The same for who has the lock.
    pub(super) fn broadcast_in(
        &self,
        given: &mut Given,
        (checkpoint, keep): (u32, Keep),
        key: &[u8],
        value: &[u8],
        who: Who,
        deeds: &mut Vec<Deed>,
    ) -> Result<(), Error> {
        let store = &self.store;
        let cell = store.cell_of(key)?;
        let is_kept = keep == Keep::Persistent || !store.options().wait_for_keys;
        // First the cell, then the value: see `store::copies`.
        store.set_copied(cell, true);
        if let Err(error) = store.put(key, checkpoint, value, When::Copied, keep) {
            store.set_copied(cell, given.cells.contains_key(&cell));
            return Err(error);
        }
        let carried = is_kept && store.is_newest(key, checkpoint).unwrap_or(false);
        let mark = Mark { checkpoint, carried };
        given.born += 1;
        let born = given.born;
        given.cells.entry(cell).or_default().insert(key.into(), born);
        let rest = [key, value].concat();
        self.spread(given, Spread::new(key.len(), Some(mark), rest, End::Respond(who)), deeds);
        Ok(())
    }

    /// Begins to take the copies of a cell's keys away everywhere; who waits hears of each that is gone.
    fn begin_to_give_up(&self, given: &mut Given, cell: u32, deeds: &mut Vec<Deed>) -> Receiver<Ended> {
        let (sender, receiver) = channel();
        let keys = given.cells.get(&cell).map_or_else(Vec::new, |keys| keys.keys().cloned().collect());
        for key in keys {
            let spread = Spread::new(key.len(), None, key.into(), End::Tell(sender.clone()));
            self.spread(given, spread, deeds);
        }
        receiver
    }

    /// A copy, or that it is to go, for all other nodes.
    fn spread(&self, given: &mut Given, spread: Spread, deeds: &mut Vec<Deed>) {
        given.waiting.push_back(spread);
        self.spread_next(given, deeds);
    }

    fn spread_next(&self, given: &mut Given, deeds: &mut Vec<Deed>) {
        let Some(span) = self.span.get() else {
            return given.waiting.drain(..).for_each(|spread| spread.end(self, Vec::new(), deeds));
        };
        if given.current.is_some() {
            return;
        }
        let Some(mut spread) = given.waiting.pop_front() else { return };
        given.last += 1;
        spread.number = given.last;
        let nodes = span.homes.len() as u32;
        below(span.here, span.here, nodes).for_each(|node| spread.send(span, node, false, deeds));
        given.current = Some(spread);
    }

    /// A node has done it, or could not.
    pub(super) fn copied(
        &self,
        number: u64,
        node: u32,
        fault: Option<Fault>,
        is_live: IsLive<'_>,
    ) -> Vec<Deed> {
        let (mut deeds, mut given) = (Vec::new(), lock(&self.given));
        let Some(current) = given.current.as_mut().filter(|it| it.number == number) else { return deeds };
        current.answers.insert(node, fault);
        self.end_if_all_have(&mut given, is_live, &mut deeds);
        deeds
    }

    /// Goes on without nodes that have died, and sends to those whose way from here has.
    pub(super) fn look_after_copies(&self, is_live: IsLive<'_>) -> Vec<Deed> {
        let (mut deeds, mut given) = (Vec::new(), lock(&self.given));
        self.end_if_all_have(&mut given, is_live, &mut deeds);
        if let (Some(current), Some(span)) = (&mut given.current, self.span.get()) {
            let (here, nodes) = (span.here, span.homes.len() as u32);
            for node in current.missing(span, is_live) {
                let mut way = std::iter::successors(Some(node), |node| Some(above(*node, here, nodes)));
                let is_cut = way.find(|node| *node == here || !is_live(*node)) != Some(here);
                if is_cut && current.sent_again.insert(node) {
                    current.send(span, node, true, &mut deeds);
                }
            }
        }
        deeds
    }

    fn end_if_all_have(&self, given: &mut Given, is_live: IsLive<'_>, deeds: &mut Vec<Deed>) {
        let Some(span) = self.span.get() else { return };
        while let Some(current) = given.current.take_if(|it| it.missing(span, is_live).is_empty()) {
            let faults = current.answers.iter().filter_map(|(node, fault)| Some((*node, fault.clone()?)));
            let faults = faults.collect();
            current.end(self, faults, deeds);
            self.spread_next(given, deeds);
        }
    }

    /// Whether a broadcast is under way.
    pub(super) fn is_spreading(&self) -> bool {
        lock(&self.given).current.is_some()
    }
}

impl Spread {
    fn new(key: usize, mark: Option<Mark>, rest: Vec<u8>, end: End) -> Self {
        let (answers, sent_again) = (BTreeMap::new(), BTreeSet::new());
        Self { number: 0, key, mark, rest, end, answers, sent_again }
    }

    fn missing(&self, span: &Span, is_live: IsLive<'_>) -> Vec<u32> {
        let is_missing =
            |node: &u32| *node != span.here && !self.answers.contains_key(node) && is_live(*node);
        (0..span.homes.len() as u32).filter(is_missing).collect()
    }

    fn send(&self, span: &Span, node: u32, is_last: bool, deeds: &mut Vec<Deed>) {
        let head = Head { part: 0, root: span.here, is_last, key: self.key as u32, mark: self.mark };
        deeds.push(Deed::Copy(node, self.number, message(span, node, &head, &self.rest)));
    }

    /// Tells who waits.
    fn end(&self, part: &Served, faults: Vec<(u32, Fault)>, deeds: &mut Vec<Deed>) {
        let fault = faults.into_iter().next();
        match &self.end {
            // Who waits no more needs not know.
            End::Tell(sender) => {
                drop(sender.send(fault.map(|(node, fault)| part.fault_of(node, fault, &[]))))
            }
            End::Respond(who) => deeds.push(match fault {
                None => Deed::Respond(*who, is(true)),
                Some((node, fault)) => refused(*who, &part.fault_of(node, fault, &self.rest[..self.key])),
            }),
        }
    }
}

impl Server {
    // ── on the thread for what takes long ───────────────────────────────────────────────────────────────────

    /// Has the copies of a cell's keys taken away everywhere, then does something before any of them gets one again.
    pub(super) fn give_up<R>(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: &Arc<Served>,
        cell: u32,
        then: impl FnOnce() -> R,
    ) -> Result<R, Error> {
        let (receiver, keys, deeds) = {
            let (mut given, mut deeds) = (lock(&part.given), Vec::new());
            if given.giving_up == GivingUp::Nothing {
                given.giving_up = GivingUp::Cell(cell);
            }
            let receiver = part.begin_to_give_up(&mut given, cell, &mut deeds);
            (receiver, given.cells.get(&cell).cloned().unwrap_or_default(), deeds)
        };
        self.act(fabric, part, deeds);
        let ended = self.wait_for_copies(fabric, part, &receiver);
        let mut given = lock(&part.given);
        if ended.is_ok() {
            if let Some(left) = given.cells.get_mut(&cell) {
                // One that has got copies anew meanwhile keeps them.
                left.retain(|key, born| keys.get(key).is_none_or(|before| before != born));
            }
            given.cells.retain(|it, keys| *it != cell || !keys.is_empty());
            part.store.set_copied(cell, given.cells.contains_key(&cell));
        }
        let done = ended.map(|()| then());
        if given.giving_up == GivingUp::Cell(cell) {
            given.giving_up = GivingUp::Nothing;
        }
        done
    }

    /// The same for all keys of a part.
    pub(super) fn give_all_up<R>(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: &Arc<Served>,
        then: impl FnOnce() -> Result<R, Error>,
    ) -> Result<R, Error> {
        let cells: Vec<u32> = {
            let mut given = lock(&part.given);
            given.giving_up = GivingUp::All;
            given.cells.keys().copied().collect()
        };
        let gone = cells.into_iter().try_for_each(|cell| self.give_up(fabric, part, cell, || ()));
        let done = gone.and_then(|()| then());
        lock(&part.given).giving_up = GivingUp::Nothing;
        done
    }

    /// Waits until all that were to hear have been told.
    fn wait_for_copies(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: &Arc<Served>,
        ended: &Receiver<Ended>,
    ) -> Result<(), Error> {
        let mut looked = Instant::now();
        let mut all = Ok(());
        loop {
            let heard = match ended.try_recv() {
                Err(TryRecvError::Empty) if fabric.progress() == 0 => ended.recv_timeout(NAP),
                Err(TryRecvError::Empty) => Err(RecvTimeoutError::Timeout),
                Err(TryRecvError::Disconnected) => return all,
                Ok(heard) => Ok(heard),
            };
            match heard {
                Ok(heard) => all = all.and(heard.map_or(Ok(()), Err)),
                Err(RecvTimeoutError::Disconnected) => return all,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if looked.elapsed() >= LIVENESS {
                fabric.check_peers();
                self.look(fabric, part);
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
                let _ = fabric.send_owned(span.homes[node as usize].rank, COPY, message.tag, bytes);
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
