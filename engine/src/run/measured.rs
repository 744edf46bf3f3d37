//! When each node of a run ran: as it is noted while the run is under way, and as it is kept afterwards.

use super::node::Run;
use crate::task::Usage;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// When one node ran last, in nanoseconds since its run began, on which lane of which rank, and how often it was tried;
/// zeros if it never ran.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Timed {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// Among those of its rank.
    pub(crate) lane: u32,
    pub(crate) rank: u32,
    pub(crate) attempts: u32,
}

impl Timed {
    /// How long, in nanoseconds.
    pub(crate) fn took(&self) -> u64 {
        self.ended - self.began
    }
}

/// When each node of a run ran, and how long the run took as a whole.
#[derive(Clone)]
pub(crate) struct Measured {
    /// By node of the plan's whole graph.
    pub(crate) nodes: Box<[Timed]>,
    pub(crate) wall: Duration,
    /// When it began, in milliseconds since 1970, UTC.
    pub(crate) started_unix_ms: u64,
    /// When it began, by this rank's monotonic clock.
    pub(crate) started_ns: u64,
    /// What is known of other ranks, if they took part.
    pub(crate) others: Option<Others>,
}

/// What a run says of other ranks.
#[derive(Clone)]
pub(crate) struct Others {
    /// Workers of each rank but this, in order.
    pub(crate) workers: Box<[u32]>,
    /// By place in the list what processes there used that succeeded.
    pub(crate) usages: HashMap<u32, Usage>,
    /// How far times of two ranks may be wrong against each other.
    pub(crate) within: Duration,
}

impl Run {
    /// Notes when a process ran, by the monotonic clock.
    pub(crate) fn note_process(&self, node: u32, began_ns: u64, ended_ns: u64, lane: u32) {
        if let Some(spans) = &self.spans {
            let since = |at: u64| at.saturating_sub(self.started_ns);
            spans[node as usize].note(since(began_ns), since(ended_ns), lane);
        }
    }

    /// Notes a process whose end nobody saw, as if it were now.
    pub(crate) fn note_lost(&self, node: u32, began_ns: u64, lane: u32) {
        self.note_process(node, began_ns, monotonic_ns(), lane);
    }

    /// Notes that a node ran on a lane of another rank, and has come back just now.
    pub(crate) fn note_stolen(&self, node: u32, took_ns: u64, lane: u32, rank: u32) {
        if let Some(spans) = &self.spans {
            let (now, span) = (self.clock(), &spans[node as usize]);
            span.note(now.saturating_sub(took_ns), now, lane);
            span.elsewhere.store(rank + 1, Ordering::Relaxed);
        }
    }

    /// When a node ran that has ended; `None` unless the batch measures.
    pub(crate) fn timed(&self, node: u32) -> Option<Timed> {
        let span = self.spans.as_ref()?.get(node as usize)?;
        Some(span.read(self.plan.shared.rank()))
    }

    /// Now, in nanoseconds since the run began; 0 unless the batch measures.
    #[inline(always)]
    pub(crate) fn clock(&self) -> u64 {
        if self.spans.is_some() { monotonic_ns().saturating_sub(self.started_ns) } else { 0 }
    }

    /// Notes from when to now a node ran, and where.
    #[inline(always)]
    pub(crate) fn note_time(&self, node: u32, began: u64, lane: impl FnOnce() -> u32) {
        if let Some(spans) = &self.spans {
            spans[node as usize].note(began, self.clock(), lane());
        }
    }

    /// All nodes have ended: what was noted of them is for whoever asks.
    pub(super) fn keep_times(&self) {
        let Some(spans) = &self.spans else { return };
        let rank = self.plan.shared.rank();
        let own: Box<[Timed]> = spans.iter().map(|span| span.read(rank)).collect();
        let wall = Duration::from_nanos(self.clock());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started_unix_ms = now.saturating_sub(wall).as_millis() as u64;
        let started_ns = self.started_ns;
        let side = self.plan.side.as_ref();
        let (nodes, others) = match side.and_then(|side| side.times(started_ns)) {
            None => (own, None),
            Some((times, others)) => (self.plan.over_all_ranks(&own, &times), Some(others)),
        };
        *self.plan.measured.lock() = Some(Measured { nodes, wall, started_unix_ms, started_ns, others });
    }
}

/// Now, by the clock by which the supervisor tells times.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// As [`Timed`], while it runs. One attempt of a node follows the other, so nobody writes at the same time.
#[derive(Default)]
pub(super) struct Span {
    began: AtomicU64,
    ended: AtomicU64,
    lane: AtomicU32,
    attempts: AtomicU32,
    /// One above the rank that ran it, if that is another.
    elsewhere: AtomicU32,
}

impl Span {
    #[inline(always)]
    fn note(&self, began: u64, ended: u64, lane: u32) {
        self.began.store(began, Ordering::Relaxed);
        self.ended.store(ended, Ordering::Relaxed);
        self.lane.store(lane, Ordering::Relaxed);
        self.attempts.store(self.attempts.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn read(&self, rank: u32) -> Timed {
        Timed {
            began: self.began.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            lane: self.lane.load(Ordering::Relaxed),
            rank: self.elsewhere.load(Ordering::Relaxed).checked_sub(1).unwrap_or(rank),
            attempts: self.attempts.load(Ordering::Relaxed),
        }
    }
}
