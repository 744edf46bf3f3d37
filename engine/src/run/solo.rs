//! Alone at first: a run begins on one worker, which walks the nodes in order without counting anything, and opens
//! the run to the others as soon as that pays.
//!
//! Ordering empty bodies across two cores costs more than running them on one: every counter that both lower is a
//! cache line that travels. So the first worker of a run stays alone while a node takes less than [`alone_ns_max`] on
//! average, and one other worker watches it.
//!
//! # How a run is opened
//! Nodes below some `done` have ended, and nothing has been counted. Whoever opens the run lowers the counters of the
//! others for every edge from an ended node, collects those that are ready, and puts the cursor behind the roots that
//! have been run. After that everything is as in a run that never was alone. It is done
//! - by the walker, between two nodes, when the clock says that bodies have become slow;
//! - by the watcher, through a raid (see `hoard`), when the walker has been inside one body for longer than
//!   [`patience`]: a long body never keeps the others from working for more than 5 ms.
//!
//! While alone, the walker keeps its node in the hoard's data (`solo`) and in the hoard's hint, so that a watcher sees
//! from outside how far it is and whether it moves.

use super::node::{Ran, Run};
use super::worker::{Kept, POISONED, Session, Stop};
use crate::error::Failure;
use crate::graph::{NEEDS, Roots};
use crate::schedule::Arrival;
use crate::task::chunk::Compact;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time per node, body included, up to which other workers would only be in the way: the more there are, the sooner
/// they help. Measured with two (empty tasks: 5-25 ns alone, 12-60 ns shared), an estimate for more.
fn alone_ns_max(workers: usize) -> u64 {
    (120 / workers as u64).clamp(10, 60)
}

/// Nodes between two looks at the clock.
const WINDOW: u32 = 64;
/// Slow windows one after the other that are no accident: an interrupt makes one or two.
const SLOW_WINDOWS: u32 = 4;
/// Bit of the hoard's hint that says its worker walks alone; the other bits are the number of its node.
pub(super) const ALONE: u32 = 1 << 31;

/// How long a walker may be inside one body before its watcher opens the run, after `done` nodes: about as long as it
/// walked so far, from 20 µs to 5 ms. A thread that had a run of empty bodies nearly done is rather off its core for a
/// moment than inside a long body, and to open the run would cost more than to wait.
pub(super) fn patience(done: u32) -> Duration {
    Duration::from_nanos(20 * u64::from(done)).clamp(Duration::from_micros(20), Duration::from_millis(5))
}

/// Looks at the clock now and then: the first node, the first eight, then every window.
struct Clock {
    start: Instant,
    since: Instant,
    from: u32,
    next: u32,
    slow: u32,
    alone_ns_max: u64,
}

impl Clock {
    fn new(workers: usize) -> Self {
        let now = Instant::now();
        Self { start: now, since: now, from: 0, next: 1, slow: 0, alone_ns_max: alone_ns_max(workers) }
    }

    /// Whether bodies have become slow; `done` nodes have ended.
    #[inline(always)]
    fn is_slow(&mut self, done: u32) -> bool {
        done >= self.next && self.look(done)
    }

    #[inline(never)]
    fn look(&mut self, done: u32) -> bool {
        let now = Instant::now();
        let took = now.duration_since(self.since).as_nanos() as u64;
        let nodes = u64::from(done - self.from);
        // The first nodes of a run find cold caches, and a window can be interrupted.
        let slow = match done {
            1 => took > 10_000,
            2..=8 => took > 20_000,
            _ => took > nodes * self.alone_ns_max,
        };
        self.slow = if slow { self.slow + 1 } else { 0 };
        self.next = if done == 1 { 8 } else { done + WINDOW };
        (self.since, self.from) = (now, done);
        // Some long bodies among many short ones show in the average, not in windows one after the other.
        let all = now.duration_since(self.start).as_nanos() as u64;
        let slow_so_far = all > 50_000 + 2 * u64::from(done) * self.alone_ns_max;
        slow_so_far || slow && (done <= 8 || self.slow >= SLOW_WINDOWS)
    }
}

impl Run {
    /// Opens a run of which all nodes below `done` have ended; `busy` says that node `done` is being run. Nodes that
    /// are ready go to `kept`. Unless one node of many was stuck, the next runs will start open.
    pub(super) fn open(&self, done: u32, busy: bool, kept: &mut Kept) {
        let plan = &*self.plan;
        let graph = plan.graph.frozen();
        let first = done + u32::from(busy);
        self.poison_blamed(first);
        for node in 0..done {
            for target in graph.csr.targets(node) {
                let to = target & !NEEDS;
                if to < first {
                    continue;
                }
                match graph.ready.arrive(to, || graph.csr.in_degree(to)) {
                    Arrival::Early => {}
                    Arrival::Ready => kept.nodes.push_front(to),
                    Arrival::Poisoned => kept.nodes.push_front(to | POISONED),
                }
            }
        }
        match graph.csr.roots() {
            Roots::Below(end) => self.cursor.store(first.min(*end), Ordering::Release),
            Roots::List(list) => {
                let left = list.iter().filter(|root| **root >= first);
                left.for_each(|root| kept.nodes.push_front(self.root(*root)));
            }
        }
        if done < WINDOW || !busy {
            plan.was_opened();
        }
    }

    /// Nodes that must be skipped and wait for others learn it from their counters.
    pub(super) fn poison_blamed(&self, first: u32) {
        for node in self.blamed_nodes() {
            let graph = self.plan.graph.frozen();
            if node >= first && graph.csr.in_degree(node) > 0 {
                graph.ready.poison(node);
            }
        }
    }
}

impl Session<'_> {
    /// Walks the nodes in order. Returns when all have ended, or with the next node once the run is open to others. A
    /// `SINGLE` worker has nobody to raid it; its own body may open the run, by waiting for a later node.
    pub(super) fn walk_alone<const SINGLE: bool>(&self, stop: Stop<'_>) -> Option<u32> {
        let (run, hoard) = (self.run, &self.me.seat.hoard);
        let plan = &*run.plan;
        let mut clock = Clock::new(self.me.workers());
        for (node, place) in plan.records.iter().enumerate() {
            let node = node as u32;
            self.me.own(|kept| kept.solo = Some(node));
            if !SINGLE {
                hoard.enter(if node + 1 == run.len() { 0 } else { ALONE | node });
            }
            let ran = match run.blame_of(node) {
                None if *place == Compact::NONE => Ran::Done,
                None => run.execute_task(node, plan.chunks.resolve(*place)),
                Some(why) => Ran::Failed(run.skip(node, why)),
            };
            let failure = match ran {
                Ran::Done => None,
                Ran::Failed(failure) => Some(failure),
                Ran::Away => unreachable!("a run with a task that is attended to starts open"),
            };
            if !SINGLE {
                hoard.leave();
            }
            self.ended.set(node + 1);
            if self.me.own(|kept| kept.solo.is_none()) {
                // A watcher opened the run while this node was running; it ends as any node of an open run.
                return self.me.own(|kept| self.arrive(node, failure.as_ref(), kept));
            }
            if let Some(failure) = failure {
                self.blame_targets(node, &failure);
            }
            let gives_way = node.is_multiple_of(WINDOW) && self.me.pool.seats.is_over();
            if gives_way || !SINGLE && clock.is_slow(node + 1) || stop.is_some_and(|stop| stop()) {
                self.me.own(|kept| {
                    kept.solo = None;
                    run.open(node + 1, false, kept);
                });
                self.me.wake_others();
                return None;
            }
        }
        self.me.own(|kept| kept.solo = None);
        plan.was_alone();
        None
    }

    #[cold]
    fn blame_targets(&self, node: u32, failure: &Arc<Failure>) {
        let needing = self.run.plan.graph.frozen().csr.targets(node).iter().filter(|t| *t & NEEDS != 0);
        needing.for_each(|t| self.run.blame(t & !NEEDS, Some(node), Arc::clone(failure)));
    }
}
