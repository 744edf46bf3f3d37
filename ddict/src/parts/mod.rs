//! The parts of a dictionary: one for each node, which the processes of that node share.
//!
//! # Shape
//! A dictionary of one node is its only part, and nothing here costs it more than a look whether there are others. One
//! that spans nodes has a `Store` on each, all with the same settings and the same seed of hashes. A key's *home* is
//! the node that its hash chooses (`placement`); nowhere else does it lie, but for replicas. A process reads and writes
//! the part of its own node in shared memory, and asks the other parts' *servers*: of each node the first rank.
//!
//! What is asked and answered are the messages of `message`; `far` asks, `serve` answers. A server need not know of
//! dictionaries before: whoever makes or attaches to one introduces this crate to it (see `Fabric::introduce`).
//!
//! # Who may do what
//! - Requests for one key are done by the handler that receives them, on whatever thread makes progress: none of them
//!   waits but for a writer of the same key that is at it.
//! - Requests for a whole part, and those that make one, are done one after the other by a thread of the server.
//! - Who waits for a key of another node waits by a request that is answered when the key's cell changes; one thread of
//!   the server sleeps for all of them, in the part's own memory, so it hears of the puts of every process there.
//!
//! # Reading
//! A value that was read before is read one-sidedly where it lay, if the network lets others read a part's memory, and
//! taken if it still is the key's: see `reads`. Else, and for all other questions, the server is asked.
//!
//! # Checkpoints
//! The number of the newest checkpoint is one for all parts: who first writes to a newer one, by what this process
//! knows, has all parts go on to it before the write. With `wait_for_keys` a part that still misses keys says so, and
//! the writer asks again.
//!
//! # Whose it is
//! A server keeps its part as long as some process has the dictionary open: each process says so when it attaches, and
//! again when its last handle goes. A process that dies is seen by its rank's end. Where the server is the last, the
//! part's segment goes with it; else with the last process of the node that has it open.
//!
//! # Replicas
//! With `replicas(n)` n nodes keep each key: the home shows it, the others stand by. All writes are the server's of the
//! home then, which has the others do them first: see `replicas`, and `standby` for the other side. Reads are as
//! without: nothing in this page but writes, and what concerns all keys, goes another way.
//!
//! # Copies
//! `bput` gives a key a copy on every node, and whatever else writes to the key has these taken away first: see
//! `copies`.
//!
//! # Deaths
//! A rank that dies while it asks leaves nothing: what it asked is done or not, as if it had died there. When a server
//! dies, keys of its node can be reached from there alone, and with replicas only read; others get an error that names
//! it, and so do operations on the whole.
//!
//! In a world that survives losses, and with replicas, the keys of a server that is lost are served by the next node
//! that keeps them (`succession`), to all: what was acknowledged is there, what was under way is done once, and who
//! asks waits until then. Without replicas, or when all who kept a part are lost, the error says so.
//!
//! # What it costs
//! Between two machines of namespaces on two cores, UCX 1.13 over tcp (2026-11): a get or put of 8 B takes 17 µs, of
//! 64 KiB 95 and 66 µs, of which the dictionary adds 1 µs to a bare request. A process whose threads all compute is
//! looked after within about a millisecond (see `transport::world`). A get of what was read before takes about as long
//! as a bare `ucp_get` of 8 B, up to 64 KiB; larger ones, which are read by two gets, 1.3 times as long as one of as
//! many bytes. `benches/nodes.rs` compares them.

mod copies;
mod far;
mod make;
mod message;
mod past;
mod placement;
mod reads;
mod replicas;
mod serve;
mod slow;
mod standby;
mod succession;
mod waiting;

pub(crate) use message::{Home, KeptBytes};

use crate::error::Error;
use crate::store::{Change, Keep, Options, Pinned, ShardFigures, Store, Watch, When};
use far::Far;
use message::{Reply, Verb};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tarragon_transport::heap::{Audit, Usage};
use tarragon_transport::{Rank, Request};

/// What is shown each key, and its value if that came with it.
pub(crate) type EachKey<'e> = &'e mut dyn FnMut(&[u8], Option<KeptBytes<'_>>);

/// A value that was asked for and has not come.
pub(crate) struct Ahead {
    node: u32,
    request: Request,
}

/// How long who waits in this node's memory sleeps without a look, where another node may take the part over.
const NAP: Duration = Duration::from_millis(250);

/// All parts, as one process has them.
pub(crate) struct Parts {
    /// That of this node.
    near: Store,
    /// The others, if there are any.
    far: Option<Arc<Far>>,
    /// Copies of other nodes' keys, if there are others.
    copies: Option<Store>,
}

impl Parts {
    /// Of one node.
    pub(crate) fn alone(near: Store) -> Self {
        Self { near, far: None, copies: None }
    }

    /// The part of this node.
    #[inline(always)]
    pub(crate) fn near(&self) -> &Store {
        &self.near
    }

    /// What it was made with; each part has so many shards.
    pub(crate) fn options(&self) -> &Options {
        self.near.options()
    }

    /// Shards of all parts.
    pub(crate) fn shards(&self) -> u32 {
        self.per_part() * self.far.as_ref().map_or(1, |far| far.nodes())
    }

    /// The shards of this node.
    pub(crate) fn near_shards(&self) -> std::ops::Range<u32> {
        let first = self.far.as_ref().map_or(0, |far| far.here()) * self.per_part();
        first..first + self.per_part()
    }

    fn per_part(&self) -> u32 {
        self.options().shards.max(1)
    }

    /// The number that no other dictionary has, the same for all parts.
    pub(crate) fn uid(&self) -> u128 {
        self.far.as_ref().map_or(self.near.name().uid, |far| far.uid())
    }

    /// Name of the segment of its first part.
    pub(crate) fn name(&self) -> &str {
        self.far.as_ref().map_or(&self.near.name().file, |far| far.name())
    }

    /// Its world's number and the homes of its parts, if there are several.
    pub(crate) fn span(&self) -> Option<(u128, &[Home])> {
        self.far.as_ref().map(|far| far.span())
    }

    pub(crate) fn is_there(&self) -> bool {
        self.near.is_there()
    }

    /// The rank that answers for a key, if the dictionary spans nodes.
    pub(crate) fn home_rank(&self, key: &[u8]) -> Option<Rank> {
        let far = self.far.as_deref()?;
        let (_, homes) = far.span();
        let part = far.part_of(self.near.hash_of_key(key));
        Some(far.place_of(part).map_or(homes[part as usize].rank, |place| place.rank))
    }

    /// Who has a key, if it is not this node.
    #[inline(always)]
    fn home(&self, key: &[u8]) -> Option<(&Far, u32)> {
        let far = self.far.as_deref()?;
        let part = far.part_of(self.near.hash_of_key(key));
        (!far.is_near(part)).then_some((far, part))
    }

    /// Whose server does a write, if not this process: all parts are at the checkpoint then.
    #[inline(always)]
    fn home_to_write(&self, key: &[u8], checkpoint: u32) -> Result<Option<(&Far, u32)>, Error> {
        let Some(far) = self.far.as_deref() else { return Ok(None) };
        self.go_on(far, checkpoint)?;
        let part = far.part_of(self.near.hash_of_key(key));
        Ok((far.is_replicated() || !far.is_near(part)).then_some((far, part)))
    }

    // ── a key ───────────────────────────────────────────────────────────────────────────────────────────────

    /// See `Store::get`.
    pub(crate) fn get<R>(
        &self,
        key: &[u8],
        checkpoint: u32,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        match self.home(key) {
            None => self.near.get(key, checkpoint, read),
            Some(_) => Ok(self.pin(key, checkpoint)?.map(|value| read(&value))),
        }
    }

    /// See `Store::pin`; a value of another node is a copy.
    pub(crate) fn pin(&self, key: &[u8], checkpoint: u32) -> Result<Option<Pinned<'_>>, Error> {
        match self.home(key) {
            None => self.near.pin(key, checkpoint),
            Some((far, node)) => {
                // What this node was told of concerns all, and a one-sided read would not hear of it.
                self.near.check_read(checkpoint)?;
                let found = far.get(node, checkpoint, self.near.hash_of_key(key), key)?;
                Ok(found.map(|(value, is_unknown)| {
                    if is_unknown {
                        self.count_elsewhere(key);
                    }
                    value
                }))
            }
        }
    }

    /// See `Store::peek`.
    pub(crate) fn peek(&self, key: &[u8], checkpoint: u32) -> Result<Option<(Pinned<'_>, Keep)>, Error> {
        match self.home(key) {
            None => self.near.peek(key, checkpoint),
            Some((far, node)) => far.kept_value(node, Verb::Peek { checkpoint }, key),
        }
    }

    /// Asks for what `peek` gives, if it lies on another node.
    pub(crate) fn begin_peek(&self, key: &[u8], checkpoint: u32) -> Result<Option<Ahead>, Error> {
        let Some((far, node)) = self.home(key) else { return Ok(None) };
        let request = far.begin(node, Verb::Peek { checkpoint }, key, &[])?;
        Ok(Some(Ahead { node, request }))
    }

    /// Waits for it.
    pub(crate) fn finish_peek(
        &self,
        asked: &Ahead,
        checkpoint: u32,
        key: &[u8],
    ) -> Result<Option<(Pinned<'_>, Keep)>, Error> {
        let Some(far) = &self.far else { return Ok(None) };
        match far.hear(asked.node, &asked.request, key)? {
            Some(answer) => far.kept_value_of(asked.node, answer),
            None => far.kept_value(asked.node, Verb::Peek { checkpoint }, key),
        }
    }

    /// See `Store::pin_verified`.
    pub(crate) fn pin_verified(&self, key: &[u8], checkpoint: u32) -> Result<Option<Pinned<'_>>, Error> {
        match self.home(key) {
            None => self.near.pin_verified(key, checkpoint),
            Some((far, node)) => far.value(node, Verb::Get { checkpoint, verified: true }, key),
        }
    }

    /// See `Store::put`; when it returns each node has the value, where [`Parts::pin_copy`] finds it.
    pub(crate) fn broadcast(&self, key: &[u8], checkpoint: u32, value: &[u8]) -> Result<(), Error> {
        let keep = Keep::Default;
        let Some(far) = &self.far else {
            return self.near.put(key, checkpoint, value, When::Always, keep).map(drop);
        };
        self.go_on(far, checkpoint)?;
        let node = far.part_of(self.near.hash_of_key(key));
        far.is_so(node, Verb::Broadcast { checkpoint, keep }, key, value).map(drop)
    }

    /// The value of a key of another node as it lies here, if it has a copy that is the one to see.
    pub(crate) fn pin_copy(&self, key: &[u8], checkpoint: u32) -> Result<Option<Pinned<'_>>, Error> {
        let (Some((far, part)), Some(copies)) = (self.home(key), &self.copies) else { return Ok(None) };
        self.near.check_read(checkpoint)?;
        // Who takes a part over knows of no copies of its keys.
        if !far.is_told() || far.is_moved(part) {
            return Ok(None);
        }
        let found = copies.peek(key, 0)?;
        let seen = found.and_then(|(copy, _)| copies::seen_from(copy, checkpoint));
        if seen.is_some() {
            self.count_elsewhere(key);
        }
        Ok(seen)
    }

    /// Counts a read of another node's key of which that node does not know.
    fn count_elsewhere(&self, key: &[u8]) {
        if let Some(copies) = &self.copies {
            copies.count_elsewhere(self.shard_of(key));
        }
    }

    /// Reads of that kind on all nodes, by shard.
    pub(crate) fn hits_elsewhere(&self) -> Result<Vec<u64>, Error> {
        let Some(copies) = &self.copies else { return Ok(Vec::new()) };
        let shards = self.shards();
        let all = self.of_all(Verb::Hits { shards }, Reply::hits, |_| Ok(copies.hits_elsewhere(shards)))?;
        let mut sums = vec![0; shards as usize];
        for hits in all {
            sums.iter_mut().zip(hits).for_each(|(sum, hits)| *sum += hits);
        }
        Ok(sums)
    }

    /// See `Store::contains`.
    pub(crate) fn contains(&self, key: &[u8], checkpoint: u32) -> Result<bool, Error> {
        match self.home(key) {
            None => self.near.contains(key, checkpoint),
            Some((far, node)) => far.is_so(node, Verb::Contains { checkpoint }, key, &[]),
        }
    }

    /// See `Store::put`.
    pub(crate) fn put(
        &self,
        key: &[u8],
        checkpoint: u32,
        value: &[u8],
        when: When,
        keep: Keep,
    ) -> Result<bool, Error> {
        match self.home_to_write(key, checkpoint)? {
            None => self.near.put(key, checkpoint, value, when, keep),
            Some((far, node)) => far.is_so(node, Verb::Put { checkpoint, when, keep }, key, value),
        }
    }

    /// See `Store::put_with`; what goes to another node is made here first.
    pub(crate) fn put_with<E>(
        &self,
        key: &[u8],
        checkpoint: u32,
        len: u64,
        keep: Keep,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let Some((far, node)) = self.home_to_write(key, checkpoint)? else {
            return self.near.put_with(key, checkpoint, len, keep, fill);
        };
        let mut value = far.buffer(len)?;
        if let Err(error) = fill(value.bytes_mut()) {
            return Ok(Err(error));
        }
        let put = Verb::Put { checkpoint, when: When::Always, keep };
        far.is_so(node, put, key, &value).map(|_| Ok(()))
    }

    /// See `Store::update`. What is changed on another node goes there with what it was before, so it is one step also
    /// there; somebody else's write in between means to ask `change` again.
    pub(crate) fn update(
        &self,
        key: &[u8],
        checkpoint: u32,
        change: &mut dyn FnMut(Option<&[u8]>) -> Change,
    ) -> Result<(), Error> {
        let Some((far, node)) = self.home_to_write(key, checkpoint)? else {
            return self.near.update(key, checkpoint, change);
        };
        let mut found = self.peek(key, checkpoint)?.map(|(value, _)| value);
        loop {
            let new = match change(found.as_deref()) {
                Change::Leave => return Ok(()),
                Change::Remove => None,
                Change::Write(bytes) => Some(bytes),
                Change::Short(bytes, len) => Some(bytes[..usize::from(len)].to_vec()),
            };
            match far.exchange(node, checkpoint, key, found.as_deref(), new.as_deref())? {
                None => return Ok(()),
                Some(other) => found = other,
            }
        }
    }

    /// See `Store::remove`.
    pub(crate) fn remove<R>(
        &self,
        key: &[u8],
        checkpoint: u32,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Error> {
        match self.home_to_write(key, checkpoint)? {
            None => self.near.remove(key, checkpoint, read),
            Some((far, node)) => {
                Ok(far.value(node, Verb::Remove { checkpoint }, key)?.map(|value| read(&value)))
            }
        }
    }

    /// See `Store::watch`.
    pub(crate) fn watch(&self, key: &[u8]) -> Result<Watch, Error> {
        match self.home(key) {
            None => Ok(self.near.watch(key)),
            Some((far, part)) => far.watch(part, key),
        }
    }

    /// See `Store::wait`.
    pub(crate) fn wait(&self, key: &[u8], seen: Watch, deadline: Option<Instant>) -> Result<(), Error> {
        match self.home(key) {
            None => {
                // Where another node may take the part over, nobody here would be woken by its puts.
                let is_movable = self.far.as_ref().is_some_and(|far| far.is_movable());
                let nap = is_movable.then(|| Instant::now() + NAP);
                self.near.wait(key, seen, deadline.into_iter().chain(nap).min())
            }
            Some((far, node)) => far.wait(node, key, seen, deadline),
        }
    }

    /// Which of all shards a key belongs to.
    pub(crate) fn shard_of(&self, key: &[u8]) -> u32 {
        let within = self.near.shard_of(key);
        match &self.far {
            None => within,
            Some(far) => far.part_of(self.near.hash_of_key(key)) * self.per_part() + within,
        }
    }

    // ── a shard ─────────────────────────────────────────────────────────────────────────────────────────────

    /// The part that has a shard, if it is another node's, and the shard's number there.
    fn part_of(&self, shard: u32) -> (Option<(&Far, u32)>, u32) {
        let (node, within) = (shard / self.per_part(), shard % self.per_part());
        (self.far.as_deref().filter(|far| !far.is_near(node)).map(|far| (far, node)), within)
    }

    /// Shows the keys of one page of a shard, from `cursor` on, and returns the next cursor, as `Store::scan` does. Of
    /// another node's shard the values come with them if that is asked for, but large ones and those behind many.
    pub(crate) fn scan(
        &self,
        shard: u32,
        checkpoint: u32,
        cursor: u64,
        values: bool,
        each: EachKey<'_>,
    ) -> Result<Option<u64>, Error> {
        match self.part_of(shard) {
            (None, shard) => self.near.scan(shard, checkpoint, cursor, false, &mut |key, _| {
                each(key, None);
                ControlFlow::Continue(())
            }),
            (Some((far, node)), shard) => {
                far.scan(node, Verb::Scan { shard, checkpoint, cursor, values }, each)
            }
        }
    }

    /// See `Store::figures`.
    pub(crate) fn figures(&self, shard: u32, checkpoint: u32) -> Result<ShardFigures, Error> {
        match self.part_of(shard) {
            (None, shard) => self.near.figures(shard, checkpoint),
            (Some((far, node)), shard) => {
                match far.ask(node, Verb::Figures { shard, checkpoint }, &[], &[])? {
                    (Reply::Figures(figures), _) => Ok(figures),
                    _ => Err(far.odd(node)),
                }
            }
        }
    }

    // ── all of it ───────────────────────────────────────────────────────────────────────────────────────────

    /// What all parts say, this one's last.
    fn of_all<R>(
        &self,
        verb: Verb,
        read: impl Fn(Reply) -> Option<R>,
        near: impl FnOnce(&Store) -> Result<R, Error>,
    ) -> Result<Vec<R>, Error> {
        let mut all = match &self.far {
            None => Vec::new(),
            Some(far) => far.ask_all(verb, read)?,
        };
        // Otherwise another rank has said it.
        if self.far.as_ref().is_none_or(|far| far.is_near(far.here())) {
            all.push(near(&self.near)?);
        }
        Ok(all)
    }

    /// Has all parts do something.
    fn tell_all(&self, verb: Verb, near: impl FnOnce(&Store) -> Result<(), Error>) -> Result<(), Error> {
        let done = |reply| matches!(reply, Reply::Is(_)).then_some(());
        if let Some(far) = self.far.as_deref().filter(|far| far.is_replicated()) {
            return far.ask_those(|_| true, verb, done).map(drop);
        }
        self.of_all(verb, done, near).map(|_| ())
    }

    /// See `Store::len`.
    pub(crate) fn len(&self, checkpoint: u32) -> Result<u64, Error> {
        let counts = self.of_all(Verb::Len { checkpoint }, Reply::count, |near| near.len(checkpoint))?;
        Ok(counts.into_iter().sum())
    }

    /// How many keys lie on this node.
    pub(crate) fn near_len(&self, checkpoint: u32) -> Result<u64, Error> {
        self.near.len(checkpoint)
    }

    /// Memory of all parts, and bytes allocated for replicas.
    pub(crate) fn usage(&self) -> Result<(Usage, u64), Error> {
        let near = |near: &Store| match self.far.as_deref().filter(|far| far.is_replicated()) {
            None => {
                let usage = near.usage();
                Ok([usage.capacity, usage.committed, usage.allocated, 0])
            }
            // Only the server knows what its replicas have.
            Some(far) => {
                let (reply, _) = far.ask(far.here(), Verb::Usage, &[], &[])?;
                reply.usage().ok_or_else(|| far.odd(far.here()))
            }
        };
        let all = self.of_all(Verb::Usage, Reply::usage, near)?;
        let sum = |i: usize| all.iter().map(|usage| usage[i]).sum();
        Ok((Usage { capacity: sum(0), committed: sum(1), allocated: sum(2) }, sum(3)))
    }

    /// See `Store::checkpoints`.
    pub(crate) fn checkpoints(&self) -> Result<(u32, u32), Error> {
        let all = self.of_all(Verb::Checkpoints, Reply::checkpoints, |near| Ok(near.checkpoints()))?;
        Ok(all.into_iter().fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1))))
    }

    /// See `Store::clear`.
    pub(crate) fn clear(&self, checkpoint: u32) -> Result<(), Error> {
        if let Some(far) = &self.far {
            self.go_on(far, checkpoint)?;
        }
        self.tell_all(Verb::Clear { checkpoint }, |near| near.clear(checkpoint))
    }

    /// See `Store::freeze`.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        self.tell_all(Verb::Freeze(frozen), |near| near.freeze(frozen))
    }

    /// See `Store::is_frozen`.
    pub(crate) fn is_frozen(&self) -> bool {
        self.near.is_frozen()
    }

    /// See `Store::destroy`. A part whose server is gone has gone before.
    pub(crate) fn destroy(&self) {
        let _ = self.tell_all(Verb::Destroy, |_| Ok(()));
        self.near.destroy();
    }

    /// See `Store::recover`.
    pub(crate) fn recover(&self) -> usize {
        let found = self.of_all(Verb::Recover, Reply::count, |near| Ok(near.recover() as u64));
        found.map_or(0, |all| all.into_iter().sum::<u64>() as usize)
    }

    /// See `Store::audit`, of this node's part.
    pub(crate) fn audit(&self) -> Result<Audit, Error> {
        self.near.audit()
    }

    /// The replica of a node's part that lies on this node.
    pub(crate) fn replica_of(&self, node: u32) -> Result<Option<Store>, Error> {
        let Some(far) = &self.far else { return Ok(None) };
        let replicas = &far.homes[far.here() as usize].replicas;
        let name = far.placement.replica_of(node, far.here()).and_then(|index| replicas.get(index));
        name.map(Store::open).transpose()
    }

    /// All parts go on to a checkpoint that somebody is about to write to.
    fn go_on(&self, far: &Far, checkpoint: u32) -> Result<(), Error> {
        if checkpoint <= far.newest() {
            return Ok(());
        }
        far.go_on(&self.near, checkpoint)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(far) = &self.far {
            far.leave();
        }
    }
}
