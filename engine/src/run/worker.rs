//! The loop of a worker: run a node, lower the counters of its targets, run the first that became ready, keep the
//! rest; when nothing is left, take roots, steal, raid, and finally leave.
//!
//! # Where ready nodes are
//! 1. *next*: the best target that the node just run made ready. It runs at once, on the same thread.
//! 2. the *hoard* (see `hoard`): further targets, last in first out, and a chunk of roots taken together.
//! 3. the *deque*: up to [`STOCK_MAX`] of the oldest nodes of the hoard, put there whenever it is found empty before
//!    a body, for others to steal without ceremony.
//! 4. the run's *cursor*: roots nobody has taken, handed out in chunks that shrink towards the end.
//!
//! A worker counts the nodes it ends and reports the sum when it leaves the run, so no counter is shared by the
//! whole graph on the common path. Whoever reports the last one ends the run.
#![expect(unsafe_code, reason = "owns a hoard between bodies; finds its own state again when a body waits")]

use super::node::{Ran, Run};
use super::pool::{ALL_TAKEN, Piece, Pool, Seat};
use super::search::{Found, Search};
use super::solo::ALONE;
use crate::error::Failure;
use crate::graph::{Frozen, NEEDS};
use crate::schedule::Arrival;
use crossbeam_deque::Worker as Deque;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Nodes put into the deque at once.
const STOCK_MAX: usize = 32;
/// Roots taken from the cursor at once.
const CHUNK_MAX: u32 = 256;
/// How long a worker that waits inside a body sleeps before it looks for other work again.
const HELP_NAP: Duration = Duration::from_micros(200);
/// Bit of a node that is to be skipped, not run.
pub(super) const POISONED: u32 = 1 << 31;

/// What a worker keeps for itself.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) run: Option<(u32, Arc<Run>)>,
    pub(super) nodes: VecDeque<u32>,
    pub(super) roots: Range<u32>,
    /// The node at hand, while the worker walks alone; see `solo`.
    pub(super) solo: Option<u32>,
}

impl Kept {
    pub(super) fn len(&self) -> u32 {
        self.nodes.len() as u32 + self.roots.end.saturating_sub(self.roots.start)
    }

    /// What a raider gets, and how much is left: the older half of what is kept, or, of a worker that walks alone, the
    /// run opened. `None`: there was nothing.
    pub(super) fn give_half(&mut self) -> (Option<Self>, u32) {
        if let (Some(node), Some((_, run))) = (self.solo.take(), &self.run) {
            let mut theirs = Self { run: self.run.clone(), ..Self::default() };
            run.open(node, true, &mut theirs);
            return (Some(theirs), 0);
        }
        if self.len() == 0 {
            return (None, 0);
        }
        let nodes = self.nodes.drain(..self.nodes.len().div_ceil(2)).collect();
        let len = self.roots.end.saturating_sub(self.roots.start);
        let end = self.roots.end;
        self.roots.end -= len.div_ceil(2);
        let theirs = Self { run: self.run.clone(), nodes, roots: self.roots.end..end, solo: None };
        (Some(theirs), self.len())
    }
}

thread_local! {
    /// The worker that this thread is, while it is one.
    static ME: Cell<*const Worker<'static>> = const { Cell::new(std::ptr::null()) };
}

pub(super) struct Worker<'a> {
    pub(super) pool: &'a Arc<Pool>,
    pub(super) seat: &'a Seat,
    pub(super) place: usize,
    pub(super) deque: &'a Deque<Piece>,
}

/// A job of the rayon pool: one worker from wake-up until it leaves.
///
/// Rayon may start it on a thread that waits inside a body (for the other half of a parallel iterator). There it runs
/// one node and leaves, so that the body is not kept from going on.
pub(super) fn work(pool: &Arc<Pool>) {
    let below = ME.get();
    // What was seen of earlier runs says nothing of those that walk now.
    pool.watched.lock().fill((0, Instant::now()));
    while seated(pool, below) && pool.nap() {}
}

/// From taking a place until leaving it; true if there is a worker to watch, without a seat meanwhile.
fn seated(pool: &Arc<Pool>, below: *const Worker<'static>) -> bool {
    let nested = !below.is_null();
    let place = pool.sit();
    let seat: &Seat = &pool.places[place];
    let deque = seat.deque.lock();
    let me = Worker { pool, seat, place, deque: &deque };
    ME.set((&raw const me).cast());
    let stop: Stop<'_> = if nested { Some(&|| true) } else { None };
    let watch = loop {
        let found = match me.search() {
            Search::Found(found) => found,
            Search::Left => break false,
            Search::Watch => break !nested,
        };
        me.session(found, stop);
        if pool.seats.give_way() {
            // Others wait for the cpu; what this worker had is in its deque.
            pool.seats_changed();
            break false;
        }
        pool.seats.search();
        if nested {
            if !pool.seats.leave(|| pool.is_work()) {
                // The seat goes to a worker of its own; it searches as we would have.
                pool.wake();
            }
            break false;
        }
    };
    ME.set(below);
    drop(deque);
    pool.stand(place);
    if pool.seats.are_limited() {
        pool.seats_changed();
    }
    watch
}

/// The lane of this thread in a run's record: its place among the workers, if it is one.
pub(super) fn lane() -> u32 {
    let me = ME.get();
    if me.is_null() {
        return 0;
    }
    // SAFETY: as in `me`: the worker is in a frame below us, and only borrowed shared.
    unsafe { &*me }.place as u32
}

/// Asked after each node: whether to hand everything over and go.
pub(super) type Stop<'a> = Option<&'a dyn Fn() -> bool>;

impl Worker<'_> {
    pub(super) fn workers(&self) -> usize {
        self.pool.places.len()
    }

    pub(super) fn wake_another(&self) {
        if self.pool.seats.claim() {
            self.pool.wake();
        }
    }

    /// Wakes as many as can be awake: a run has just been opened.
    pub(super) fn wake_others(&self) {
        let wake = self.pool.seats.claim_many(self.pool.places.len() as u32);
        (0..wake).for_each(|_| self.pool.wake());
    }

    #[inline(always)]
    pub(super) fn own<R>(&self, f: impl FnOnce(&mut Kept) -> R) -> R {
        // SAFETY: this worker owns the hoard of its place, and calls this only outside of bodies; calls do not nest.
        unsafe { self.seat.hoard.own(f) }
    }

    /// Runs what was found, and everything that follows from it in the same run, until nothing of that run is left
    /// here or `stop` says so.
    fn session(&self, found: Found, stop: Stop<'_>) {
        let (slot, run, first) = match found {
            Found::Piece(piece) => (piece.run, self.pool.run_of(piece.run), Some(piece.node)),
            Found::Roots(slot, run) => (slot, run, None),
            Found::Hoarded => {
                let Some((slot, run)) = self.own(|kept| kept.run.clone()) else { return };
                (slot, run, None)
            }
        };
        let alone = first.is_none() && run.plan.starts_alone() && self.take_all(&run);
        self.own(|kept| kept.run = Some((slot, Arc::clone(&run))));
        let session = Session { me: self, slot, run: &run, ended: Cell::new(0) };
        let first = match (alone, self.workers()) {
            (false, _) => first,
            (true, 1) => session.walk_alone::<true>(stop),
            (true, _) => session.walk_alone::<false>(stop),
        };
        let ended = match session.ended.get() {
            all if all == run.len() => all,
            _ => session.run_all(first, stop),
        };
        self.own(|kept| kept.run = None);
        self.seat.hoard.say(0);
        if ended > 0 && run.ended.fetch_add(ended, Ordering::AcqRel) + ended == run.total() {
            self.pool.retire(slot);
            run.finish();
        }
    }

    /// True if nobody has begun the run, so that this worker may walk it alone.
    fn take_all(&self, run: &Run) -> bool {
        self.seat.hoard.say(ALONE);
        let taken = run.cursor.compare_exchange(0, ALL_TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !taken {
            self.seat.hoard.say(0);
        }
        taken
    }
}

/// A worker at work on one run.
pub(super) struct Session<'a> {
    pub(super) me: &'a Worker<'a>,
    slot: u32,
    pub(super) run: &'a Run,
    pub(super) ended: Cell<u32>,
}

impl Session<'_> {
    /// Runs nodes until none is left here; returns how many ended.
    fn run_all(&self, first: Option<u32>, stop: Stop<'_>) -> u32 {
        let mut next = first;
        while let Some(node) = next.or_else(|| self.next()) {
            next = self.step(node);
            if self.me.pool.seats.is_over() || stop.is_some_and(|stop| stop()) {
                self.share_all(next);
                break;
            }
        }
        self.ended.get()
    }

    /// The arrays of the graph; there, once a run is open.
    #[inline(always)]
    fn graph(&self) -> &Frozen {
        self.run.plan.graph.frozen()
    }

    /// The next node from the hoard, the deque, or the roots of this run.
    #[inline]
    fn next(&self) -> Option<u32> {
        let kept = self.me.own(|kept| match kept.nodes.pop_back() {
            Some(node) => Some(node),
            None => {
                let root = kept.roots.next()?;
                Some(self.run.root(self.graph().csr.roots().get(root)))
            }
        });
        kept.or_else(|| self.next_shared())
    }

    fn next_shared(&self) -> Option<u32> {
        if let Some(piece) = self.me.deque.pop() {
            if piece.run == self.slot {
                return Some(piece.node);
            }
            // It belongs to another run: leave it for the search that follows this session.
            self.me.deque.push(piece);
        }
        let roots = self.graph().csr.roots().len();
        if self.run.cursor.load(Ordering::Relaxed) >= roots {
            return None;
        }
        let workers = self.me.pool.places.len() as u32;
        let chunk = (roots / workers).clamp(1, CHUNK_MAX);
        let start = self.run.cursor.fetch_add(chunk, Ordering::AcqRel);
        if start >= roots {
            return None;
        }
        let end = roots.min(start + chunk);
        self.me.own(|kept| kept.roots = start + 1..end);
        if end < roots {
            self.me.wake_another();
        }
        Some(self.run.root(self.graph().csr.roots().get(start)))
    }

    /// Runs a node; returns the best of those it made ready.
    #[inline(always)]
    fn step(&self, node: u32) -> Option<u32> {
        let hidden = self.stock();
        let hoard = &self.me.seat.hoard;
        hoard.enter(hidden);
        let ran = self.node(node);
        hoard.leave();
        let failure = match ran {
            Ran::Done => None,
            Ran::Failed(failure) => Some(failure),
            Ran::Away => return None,
        };
        self.ended.set(self.ended.get() + 1);
        self.run.export(node & !POISONED, failure.as_ref());
        let next = self.me.own(|kept| self.arrive(node & !POISONED, failure.as_ref(), kept));
        if self.run.plan.attended {
            return self.hand_over(next);
        }
        next
    }

    /// Nodes that are attended to go to those who do that at once, so that they need not wait for the next bodies.
    #[cold]
    fn hand_over(&self, next: Option<u32>) -> Option<u32> {
        let is_attended = |node: &u32| self.run.attended(*node).is_some();
        let mut nodes: Vec<u32> = self.me.own(|kept| {
            let (theirs, ours): (VecDeque<u32>, _) = kept.nodes.drain(..).partition(|n| is_attended(n));
            kept.nodes = ours;
            theirs.into()
        });
        // Those kept are in the order of a stack.
        nodes.reverse();
        let ours = match next.filter(|n| is_attended(n)) {
            Some(node) => {
                nodes.insert(0, node);
                None
            }
            None => next,
        };
        let nodes: Vec<_> = nodes.into_iter().filter_map(|n| Some((n, self.run.attended(n)?))).collect();
        if let (Some(run), false) = (self.run.this(), nodes.is_empty()) {
            self.run.plan.shared.office().ready_all(&run, nodes);
        }
        ours
    }

    #[inline(always)]
    fn node(&self, node: u32) -> Ran {
        if node & POISONED == 0 {
            return self.run.execute(node);
        }
        let node = node & !POISONED;
        let why = self.run.blame_of(node).expect("a poisoned node has somebody to blame");
        Ran::Failed(self.run.skip(node, why))
    }

    /// Lowers the counters of a node's targets; returns the best that became ready and keeps the others.
    #[inline(always)]
    pub(super) fn arrive(&self, node: u32, failure: Option<&Arc<Failure>>, kept: &mut Kept) -> Option<u32> {
        let graph = self.graph();
        let mut next = None;
        let before = kept.nodes.len();
        for target in graph.csr.targets(node) {
            let to = target & !NEEDS;
            if let Some(failure) = failure
                && target & NEEDS != 0
            {
                self.run.blame(to, Some(node), Arc::clone(failure));
                graph.ready.poison(to);
            }
            let ready = match graph.ready.arrive(to, || graph.csr.in_degree(to)) {
                Arrival::Early => continue,
                Arrival::Ready => to,
                Arrival::Poisoned => to | POISONED,
            };
            match next {
                None => next = Some(ready),
                Some(_) => kept.nodes.push_back(ready),
            }
        }
        let after = kept.nodes.len();
        if after > before + 1 {
            // Best first, but the last one in is the first one out.
            let (mut i, mut j) = (before, after - 1);
            while i < j {
                kept.nodes.swap(i, j);
                (i, j) = (i + 1, j - 1);
            }
        }
        next
    }

    /// Before a body: if others would find the deque empty, give them the oldest of what we keep. Returns how much
    /// stays hidden.
    #[inline(always)]
    fn stock(&self) -> u32 {
        self.me.own(|kept| {
            if !kept.nodes.is_empty() && self.me.deque.is_empty() {
                self.fill(kept);
            }
            kept.len()
        })
    }

    #[inline(never)]
    fn fill(&self, kept: &mut Kept) {
        let share = kept.nodes.len().div_ceil(2).min(STOCK_MAX);
        for node in kept.nodes.drain(..share) {
            self.me.deque.push(Piece { run: self.slot, node });
        }
        self.me.wake_another();
    }

    /// Hands everything kept to whoever comes: this worker goes back to a body that waited.
    fn share_all(&self, next: Option<u32>) {
        self.me.own(|kept| {
            kept.nodes.extend(next);
            for root in std::mem::take(&mut kept.roots) {
                kept.nodes.push_back(self.run.root(self.graph().csr.roots().get(root)));
            }
            for node in kept.nodes.drain(..) {
                self.me.deque.push(Piece { run: self.slot, node });
            }
        });
        self.me.wake_another();
    }
}

/// Whether this thread is a worker of `pool`.
pub(super) fn is_me(pool: &Arc<Pool>) -> bool {
    me(pool).is_some()
}

fn me<'a>(pool: &Arc<Pool>) -> Option<&'a Worker<'a>> {
    let me = ME.get();
    if me.is_null() {
        return None;
    }
    // SAFETY: `work` set it to a worker in its own frame on this thread, which is below us, and unsets it before that
    // frame ends. The worker is only borrowed shared, here and there.
    let me: &Worker<'_> = unsafe { &*me.cast() };
    Arc::ptr_eq(me.pool, pool).then_some(me)
}

/// Called by a thread that must wait for something: if it is a worker of `pool` inside a body, runs other tasks until
/// `is_over` or the deadline, and says which; `None` on any other thread.
pub(super) fn help(pool: &Arc<Pool>, deadline: Option<Instant>, is_over: &dyn Fn() -> bool) -> Option<bool> {
    let me = me(pool)?;
    me.seat.hoard.leave();
    let mut outer = me.own(std::mem::take);
    let run = outer.run.clone();
    if let (Some(node), Some((_, run))) = (outer.solo.take(), &run) {
        run.open(node, true, &mut outer);
    }
    me.give_away(outer);
    let over = loop {
        if is_over() {
            break true;
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            break false;
        }
        // What bodies wait for was submitted after what they are part of. Taking more of that first would put body
        // upon body on this stack, all of them waiting.
        let newest = me.pool.newest_run_with_roots().map(|(slot, run)| Found::Roots(slot, run));
        match newest.or_else(|| me.find()).or_else(|| me.raid(me.watch())) {
            Some(found) => me.session(found, Some(is_over)),
            None => me.nap(),
        }
    };
    me.own(|kept| kept.run = run);
    me.seat.hoard.enter(0);
    Some(over)
}

impl Worker<'_> {
    /// Sleeps for a moment inside a body that waits; its cpu is for others meanwhile.
    fn nap(&self) {
        let seats = &self.pool.seats;
        let lends = seats.are_limited();
        if lends {
            seats.lend();
            self.pool.seats_changed();
        }
        std::thread::sleep(HELP_NAP);
        if lends {
            seats.take_back();
        }
    }

    /// Puts what the outer session kept where everybody finds it; the outer session goes on without.
    fn give_away(&self, kept: Kept) {
        let Some((slot, run)) = &kept.run else { return };
        let roots = kept.roots.map(|r| run.root(run.plan.graph.frozen().csr.roots().get(r)));
        for node in kept.nodes.into_iter().chain(roots) {
            self.deque.push(Piece { run: *slot, node });
        }
        self.wake_another();
    }
}
