//! The threads of a batch, and the work they share.
//!
//! The threads are those of a rayon pool, and workers are jobs of it which leave when they run dry. So a body that
//! uses rayon's parallel iterators shares these same threads: there are never more runnable threads than the batch
//! has, whoever has work. A worker runs only at the bottom of a thread: one that rayon starts on a thread that is
//! waiting inside a body gives its seat back at once.

use super::hoard::Hoard;
use super::node::Run;
use super::seats::Seats;
use super::worker::{self, Kept};
use crate::attend::Office;
use crate::error::Error;
use crate::ranks::Ranks;
use crossbeam_deque::{Injector, Stealer, Worker as Deque};
use crossbeam_utils::CachePadded;
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// How long a watcher sleeps between two looks at a worker that walks alone.
const NAP: Duration = Duration::from_micros(500);

/// In a run's cursor: one worker has taken everything. Nobody needs the number of roots to see that.
pub(super) const ALL_TAKEN: u32 = u32::MAX;

/// One piece of shared work: a node of a run.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) run: u32,
    pub(super) node: u32,
}

/// What belongs to one seat: a deque others steal from, and a hoard they may raid.
pub(super) struct Seat {
    pub(super) deque: Mutex<Deque<Piece>>,
    pub(super) stealer: Stealer<Piece>,
    pub(super) hoard: Hoard<Kept>,
}

/// The workers of one batch.
pub(crate) struct Pool {
    rayon: rayon_core::ThreadPool,
    pub(super) seats: Seats,
    pub(super) places: Box<[CachePadded<Seat>]>,
    /// Places without a worker.
    vacant: Mutex<Vec<usize>>,
    /// Runs with nodes that have not ended, oldest first; the index in `slots` names a run in a [`Piece`].
    pub(super) active: RwLock<Active>,
    /// Nodes that became ready elsewhere than on a worker.
    pub(super) outside: Injector<Piece>,
    /// The ranks that this one is one of, if there are several.
    ranks: OnceLock<Arc<Ranks>>,
    /// Runs under way that other ranks take part in.
    shared_runs: AtomicU32,
    /// Who attends to tasks of this pool's batch, once there is one.
    pub(super) office: OnceLock<Weak<Office>>,
    naps: Mutex<Naps>,
    nap_over: Condvar,
    /// For each place the hint of a worker that walks alone, and since when it is the same as far as others looked.
    pub(super) watched: Mutex<Box<[(u32, Instant)]>>,
}

/// Workers that sleep for a short while to look at a walker again.
#[derive(Default)]
struct Naps {
    napping: u32,
    /// Seats taken for them.
    granted: u32,
}

/// Runs that are under way.
#[derive(Default)]
pub(super) struct Active {
    slots: Vec<Option<Arc<Run>>>,
    pub(super) order: Vec<(u32, Arc<Run>)>,
}

impl Active {
    /// Whether a run has this slot.
    pub(super) fn has(&self, slot: u32, run: &Arc<Run>) -> bool {
        self.slots.get(slot as usize).and_then(Option::as_ref).is_some_and(|it| Arc::ptr_eq(it, run))
    }
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Result<Arc<Self>, Error> {
        crate::sync::prepare();
        let rayon = rayon_core::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tarragon-{i}"))
            .build()
            .map_err(|e| Error::Threads { threads, source: Box::new(e) })?;
        let places = (0..threads)
            .map(|_| {
                let deque = Deque::new_lifo();
                let stealer = deque.stealer();
                CachePadded::new(Seat { deque: Mutex::new(deque), stealer, hoard: Hoard::default() })
            })
            .collect();
        Ok(Arc::new(Self {
            rayon,
            seats: Seats::new(threads as u32),
            places,
            vacant: Mutex::new((0..threads).rev().collect()),
            active: RwLock::default(),
            outside: Injector::new(),
            ranks: OnceLock::new(),
            shared_runs: AtomicU32::new(0),
            office: OnceLock::new(),
            naps: Mutex::default(),
            watched: Mutex::new(vec![(0, Instant::now()); threads].into()),
            nap_over: Condvar::new(),
        }))
    }

    pub(crate) fn threads(&self) -> usize {
        self.places.len()
    }

    /// Workers that find nothing to do look whether other ranks have sent something, too.
    pub(crate) fn is_of_ranks(&self, ranks: &Arc<Ranks>) {
        self.ranks.get_or_init(|| Arc::clone(ranks));
    }

    /// Who receives from other ranks, while they take part in a run.
    pub(super) fn ranks_at_work(&self) -> Option<&Ranks> {
        if self.shared_runs.load(Ordering::Relaxed) == 0 {
            None
        } else {
            self.ranks.get().map(|ranks| &**ranks)
        }
    }

    /// The ranks that this one is one of, if there are several.
    pub(super) fn ranks(&self) -> Option<&Arc<Ranks>> {
        self.ranks.get()
    }

    /// Hands a run to the workers and returns.
    pub(crate) fn execute(self: &Arc<Self>, run: &Arc<Run>) {
        if run.total() == 0 {
            return run.finish();
        }
        let alone = run.plan.starts_alone();
        if !alone {
            run.poison_blamed(0);
        }
        {
            let mut active = self.active.write();
            let slot = active.slots.iter().position(Option::is_none).unwrap_or(active.slots.len());
            if slot == active.slots.len() {
                active.slots.push(None);
            }
            active.slots[slot] = Some(Arc::clone(run));
            active.order.push((slot as u32, Arc::clone(run)));
            run.slot.store(slot as u32, Ordering::Release);
            if run.plan.side.is_some() {
                self.shared_runs.fetch_add(1, Ordering::Relaxed);
            }
            if run.plan.attended {
                run.cursor.store(ALL_TAKEN, Ordering::Release);
            }
        }
        if run.plan.attended {
            let others = run.attend_roots(self);
            run.watch_gates();
            return (0..self.seats.claim_many(others)).for_each(|_| self.wake());
        }
        // One to walk alone and one to watch; or as many as there are roots.
        let wanted = if alone { 2 } else { run.roots() };
        (0..self.seats.claim_many(wanted.min(run.len()))).for_each(|_| self.wake());
    }

    /// Wakes a worker for whom a seat has been taken; one that naps before any other.
    pub(super) fn wake(self: &Arc<Self>) {
        {
            let mut naps = self.naps.lock();
            if naps.napping > 0 {
                naps.napping -= 1;
                naps.granted += 1;
                self.nap_over.notify_one();
                return;
            }
        }
        let pool = Arc::clone(self);
        self.rayon.spawn(move || worker::work(&pool));
    }

    /// A worker without a seat sleeps for a short while; true if it has a seat again, and searches.
    pub(super) fn nap(&self) -> bool {
        let mut naps = self.naps.lock();
        naps.napping += 1;
        let until = Instant::now() + NAP;
        while naps.granted == 0 {
            if self.nap_over.wait_until(&mut naps, until).timed_out() && naps.granted == 0 {
                naps.napping -= 1;
                drop(naps);
                // Whoever searches already, or sits on the last seat, can watch instead.
                return self.seats.claim();
            }
        }
        naps.granted -= 1;
        true
    }

    /// A place for a worker that has a seat. Who gave the seat up may not have stood up yet: that takes a microsecond.
    pub(super) fn sit(&self) -> usize {
        loop {
            let place = self.vacant.lock().pop();
            match place {
                Some(place) => return place,
                None => std::thread::yield_now(),
            }
        }
    }

    pub(super) fn stand(&self, place: usize) {
        self.vacant.lock().push(place);
    }

    /// The run that a piece names.
    pub(super) fn run_of(&self, slot: u32) -> Arc<Run> {
        let active = self.active.read();
        Arc::clone(active.slots[slot as usize].as_ref().expect("a run stays while it has pieces"))
    }

    /// All nodes of the run have ended.
    pub(super) fn retire(&self, slot: u32) {
        let mut active = self.active.write();
        let retired = active.slots[slot as usize].take();
        if retired.is_some_and(|run| run.plan.side.is_some()) {
            self.shared_runs.fetch_sub(1, Ordering::Relaxed);
        }
        active.order.retain(|(s, _)| *s != slot);
    }

    /// A run with roots that nobody has taken; the oldest first.
    pub(super) fn run_with_roots(&self) -> Option<(u32, Arc<Run>)> {
        let active = self.active.read();
        active.order.iter().find(|(_, run)| run.has_roots()).cloned()
    }

    /// As [`run_with_roots`](Self::run_with_roots); the newest first.
    pub(super) fn newest_run_with_roots(&self) -> Option<(u32, Arc<Run>)> {
        let active = self.active.read();
        active.order.iter().rev().find(|(_, run)| run.has_roots()).cloned()
    }

    /// Whether there is work that any worker could take.
    pub(crate) fn is_work(&self) -> bool {
        !self.outside.is_empty()
            || self.places.iter().any(|p| !p.stealer.is_empty())
            || self.active.read().order.iter().any(|(_, r)| r.has_roots())
    }
}

impl Run {
    /// Whether roots are left that no worker has taken.
    pub(super) fn has_roots(&self) -> bool {
        let cursor = self.cursor.load(Ordering::Acquire);
        cursor == 0 || cursor != ALL_TAKEN && cursor < self.roots()
    }

    /// Number of roots.
    pub(super) fn roots(&self) -> u32 {
        self.plan.graph.frozen().csr.roots().len()
    }
}
