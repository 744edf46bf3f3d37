//! Who is of the world: which ranks are lost, since when, and how all the others come to say the same of it.
//!
//! # States of a rank, as another one sees it
//! | state | means | ends |
//! |---|---|---|
//! | member | it is there, as far as is known | by leaving, or as below |
//! | suspected | this rank has found its process ended or its connection broken; rank 0 has not decided | lost |
//! | unheard | this rank awaits something of it, has asked, and nothing has come for the limit | by being heard; lost |
//! | lost, in epoch *e* | rank 0 has declared it; nobody sends to it or takes anything of it any more | never |
//! | left | it said goodbye; not a loss | never |
//!
//! A rank sees itself as a member or as *cast out*: rank 0 has declared it lost, or cannot be reached. Nobody comes
//! back.
//!
//! # Who decides
//! Rank 0, which submits: the part of the world that it is in is the world. Who finds a rank gone accuses it at rank 0,
//! which looks itself (`judge`):
//! - It has found the same, or the rank gives no sign of life for the limit: it is lost.
//! - The accused gives signs, and so does the accuser: the two cannot reach one another. One of them must go, or the
//!   world would not be one: whoever stands in more accusations, else the higher rank.
//! - The accused is only unheard (a *doubt*): as above, but only if the doubt was repeated a third of the limit after
//!   the accused had given a sign. Who was slow or stopped answers by then; the doubt is repeated no more, and
//!   forgotten.
//!
//! Each loss makes an *epoch*, numbered from 1. Rank 0 tells every member of it, and each acknowledges; once all have,
//! the epoch is *settled*: from then on no member takes a message of a lost rank, so that what others do in its place
//! cannot be contradicted by it. Members hear of losses in the order of epochs, each once.
//!
//! # Signs of life
//! A process that ends is seen by its lock or its connection, a frozen one keeps both. So with a limit (10 s, unless
//! said otherwise) each rank gives a sign every third of it, from a thread of its own (`world::watch`), and rank 0 one
//! in return: a word in the segment where all share a node, else a note from each to rank 0 and back, which the network
//! takes in whatever handlers run. Ranks other than 0 watch rank 0 alone. Without a limit there are no signs, and only
//! ended processes and broken connections are losses.
//!
//! # Two that hear nothing of one another
//! The network need not say that a connection is broken: the kernel goes on sending what nobody acknowledges for a
//! quarter of an hour, and asks a connection whether it still bears only where nothing is unacknowledged. So with a
//! limit each rank but 0 looks every third of it for those of whom it *awaits* something: to take a message, or to
//! answer a one-sided access, or the rest of a payload. If nothing has come from such a one since the last look it is
//! asked, once, whether it is there, and whichever of its threads takes notes in answers. If nothing at all comes for
//! the limit, and for as long as what is on its way may take (`silence`), it is unheard: rank 0 is told at each look as
//! long as that is so. Its connection stays, so that it is heard again if it can be. Pairs that await nothing of one
//! another ask nothing, and no thread wakes for this that would not for a sign. Rank 0 neither asks nor is asked: it
//! hears signs of all, and all hear it. Within a node there is nothing to ask: who does not answer there is stopped.
//!
//! # What a message bears
//! The epoch that its sender knew. What comes from a rank that was lost in a later one is *stale*: refused and counted
//! (`Faults::stale`). Connections to a lost rank are taken away, so its one-sided accesses end, too.
//!
//! # A stopped world
//! If all are stopped together, as by Ctrl-Z, nobody is silent: rank 0, which finds that it has not looked for long,
//! gives everybody a whole limit anew. So does each other rank with rank 0, where a loss ends the world; where losses
//! are survived the others may have gone on without it, and it may not. Whom it has asked it asks anew, for a whole
//! limit, and rank 0 takes doubts from before for new ones.
//!
//! # Frozen ranks
//! One that wakes up has not heard of rank 0 for longer than the limit, finds its connection gone, or finds its loss
//! written down: it is cast out before its next sign. From then on whatever it sends or waits for is an error. One
//! whose node has other members is killed by these when they hear of its loss: it shares memory with them, and may hold
//! locks there that are only free when its process has ended.
//!
//! # Who may die when
//! | dies | then |
//! |---|---|
//! | a rank that has accused | it is lost itself, and its accusations go with it |
//! | a rank that doubts | the doubt is forgotten after the limit |
//! | a rank that is asked, before it answers | it is lost by its ended process, its connection or its silence |
//! | a rank that has not acknowledged | it is lost in the next epoch, and nobody waits for it |
//! | rank 0 | all others are cast out: at once by a broken connection, else after the limit |
//!
//! # Who writes what
//! `lost`, `epoch`, `settled`: whoever hears of a loss, under the lock of `state`; read without it. Silences of peers:
//! whoever takes something in from there, and the watch, under the lock of the network's engine. Listeners are
//! called by the watch's thread alone, before it acknowledges: what they do is done when the epoch is settled.
//!
//! # Two kinds of worlds
//! Where a loss *ends the world*, as it does unless `Losses::survived` says otherwise, a lost rank is a dead one to all
//! (`PeerDead`), what it sent before its end is still taken, and nobody is killed: all are about to end. Where losses
//! are *survived* all of the above holds. A launcher must be told not to end the others: `srun --no-kill
//! --kill-on-bad-exit=0`; `mpirun --enable-recovery` of Open MPI, for ranks that are killed.

mod judge;
mod standing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::fabric::{Fabric, FabricError};
use crate::message::Header;
use crate::rank::Rank;
use judge::{Judge, OwnLooks};
pub(crate) use standing::Beats;

/// How long a rank may give no sign of life, if nothing else is said, in milliseconds.
pub const LOSS_LIMIT_MS: u64 = 10_000;
/// Says another limit, in milliseconds; 0 means none.
const ENV_LIMIT: &str = "TARRAGON_LOSS_LIMIT_MS";
/// 1 says that the others go on without a lost rank.
const ENV_SURVIVE: &str = "TARRAGON_SURVIVE_LOSSES";
/// The least limit: below it a busy machine loses ranks that live.
const LIMIT_MS_MIN: u64 = 100;
/// Signs of life within a limit.
const SIGNS: u32 = 3;

/// What a world does about ranks that are lost. Rank 0's counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Losses {
    limit: Option<Duration>,
    is_survived: bool,
}

impl Losses {
    /// A loss ends the world, unless `TARRAGON_SURVIVE_LOSSES` is 1. A rank is lost that gives no sign of life for ten
    /// seconds, or as many milliseconds as `TARRAGON_LOSS_LIMIT_MS` says; where that is 0, only one whose process has
    /// ended or whose connection is broken.
    pub fn from_environment() -> Losses {
        let said = |name| std::env::var(name).ok().and_then(|it| it.trim().parse::<u64>().ok());
        let limit = Duration::from_millis(said(ENV_LIMIT).unwrap_or(LOSS_LIMIT_MS));
        Losses { limit: None, is_survived: said(ENV_SURVIVE) == Some(1) }.limit(limit)
    }

    /// How long a rank may give no sign of life; zero: for ever. A tenth of a second at least.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Losses {
        let limit = (!limit.is_zero()).then(|| limit.max(Duration::from_millis(LIMIT_MS_MIN)));
        Losses { limit, ..self }
    }

    /// The other ranks go on without a lost one.
    #[must_use]
    pub fn survived(self) -> Losses {
        Losses { is_survived: true, ..self }
    }

    pub(crate) fn encode(self) -> [u8; 9] {
        let limit_ms = self.limit.map_or(0, |limit| limit.as_millis() as u64);
        let mut bytes = [u8::from(self.is_survived); 9];
        bytes[..8].copy_from_slice(&limit_ms.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Losses> {
        let (limit_ms, rest) = bytes.split_first_chunk::<8>()?;
        let limit = Duration::from_millis(u64::from_le_bytes(*limit_ms));
        Some(Losses { limit: (!limit.is_zero()).then_some(limit), is_survived: rest.first()? == &1 })
    }
}

/// Why a rank is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Why {
    /// Its process has ended.
    Ended = 1,
    /// The connection to it is broken: its process, its machine, or the way there.
    Broken = 2,
    /// It has given no sign of life for the limit.
    Silent = 3,
    /// It and another rank, which rank 0 reaches both, cannot reach one another.
    Apart = 4,
}

impl Why {
    pub(crate) fn decode(number: u8) -> Why {
        match number {
            1 => Why::Ended,
            2 => Why::Broken,
            3 => Why::Silent,
            _ => Why::Apart,
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Why::Ended => "its process has ended",
            Why::Broken => "the connection to it is broken",
            Why::Silent => "it has given no sign of life for the limit that is set (TARRAGON_LOSS_LIMIT_MS)",
            Why::Apart => "it and another rank cannot reach one another",
        })
    }
}

/// A rank that the world has lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Who.
    pub rank: Rank,
    /// Where it ran.
    pub host: String,
    /// What rank 0 found.
    pub why: Why,
    /// Its number, from 1: each loss has one of its own.
    pub epoch: u32,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Loss { rank, host, why, epoch } = self;
        write!(out, "rank {rank} on host {host} is lost (epoch {epoch}): {why}")
    }
}

/// What listeners are told, see [`Fabric::on_change`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A rank is lost.
    Lost(Loss),
    /// All members know of all losses up to this epoch, and take nothing from those ranks any more.
    Settled(u32),
    /// This rank is of the world no longer.
    CastOut(CastOut),
}

/// Why this rank is of the world no longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CastOut {
    /// Rank 0 has declared it lost.
    Declared = 1,
    /// Nothing has come from rank 0 for the limit.
    Silence = 2,
    /// The connection to rank 0 is broken, or its process has ended.
    Broken = 3,
}

impl std::fmt::Display for CastOut {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            CastOut::Declared => "rank 0 has declared it lost, and the others go on without it",
            CastOut::Silence => {
                "nothing has come from rank 0 for the limit that is set (TARRAGON_LOSS_LIMIT_MS)"
            }
            CastOut::Broken => "the connection to rank 0 is broken, or its process has ended",
        })
    }
}

type Listener = Arc<dyn Fn(&Fabric, &Change) + Send + Sync>;

/// What a rank knows of the others' membership.
pub(crate) struct Members {
    own: Rank,
    /// Somebody is lost, or this rank cast out: looked at before all else.
    is_marked: AtomicBool,
    /// Why this rank is cast out, or 0.
    out: AtomicU32,
    /// Losses up to here are known.
    epoch: AtomicU32,
    settled: AtomicU32,
    /// By rank 0, or its epoch and, above, why.
    lost: Box<[AtomicU64]>,
    losses: OnceLock<Losses>,
    hosts: OnceLock<Box<[String]>>,
    /// Messages refused.
    stale: AtomicU64,
    state: Mutex<State>,
    called: Condvar,
}

struct State {
    /// The watch is to look.
    is_called: bool,
    /// Losses in the order of epochs.
    log: Vec<Loss>,
    /// Those that were heard of before one that came earlier.
    ahead: BTreeMap<u32, (Rank, Why)>,
    /// By listener what it was told: losses, the settled epoch, that this rank is cast out.
    listeners: Vec<(Listener, usize, u32, bool)>,
    /// Whom this rank has found gone, and of how many of them rank 0 was told.
    found: Vec<Rank>,
    reported: usize,
    /// When something last came from rank 0.
    heard: Instant,
    own: OwnLooks,
    /// At rank 0.
    judge: Judge,
}

impl Members {
    pub(crate) fn new(own: Rank, size: u32) -> Members {
        let now = Instant::now();
        Members {
            own,
            is_marked: AtomicBool::new(false),
            out: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            settled: AtomicU32::new(0),
            lost: (0..size).map(|_| AtomicU64::new(0)).collect(),
            losses: OnceLock::new(),
            hosts: OnceLock::new(),
            stale: AtomicU64::new(0),
            state: Mutex::new(State {
                is_called: false,
                log: Vec::new(),
                ahead: BTreeMap::new(),
                listeners: Vec::new(),
                found: Vec::new(),
                reported: 0,
                heard: now,
                own: OwnLooks::new(now),
                judge: Judge::new(size, now),
            }),
            called: Condvar::new(),
        }
    }

    /// The world has joined: its rule counts from now on.
    pub(crate) fn begin(&self, losses: Losses, hosts: Box<[String]>) {
        self.losses.get_or_init(|| losses);
        self.hosts.get_or_init(|| hosts);
        let mut state = self.lock();
        state.heard = Instant::now();
        state.own = OwnLooks::new(state.heard);
        state.judge.begin(losses.limit, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self) -> Option<Duration> {
        self.losses.get().and_then(|losses| losses.limit)
    }

    /// Whether the others go on without a lost rank.
    pub(crate) fn is_survived(&self) -> bool {
        self.losses.get().is_some_and(|losses| losses.is_survived)
    }

    /// The epoch of the last loss that is known; 0: none.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether anybody is lost, or this rank cast out.
    pub(crate) fn is_marked(&self) -> bool {
        self.is_marked.load(Ordering::Acquire)
    }

    /// Losses up to here are known to all members.
    pub(crate) fn settled(&self) -> u32 {
        self.settled.load(Ordering::Acquire)
    }

    /// Whether a rank is lost; a load as long as nobody is.
    #[inline]
    pub(crate) fn is_gone(&self, rank: Rank) -> bool {
        self.is_marked.load(Ordering::Acquire)
            && (self.lost_word(rank) != 0 || (rank != self.own && self.cast_out().is_some()))
    }

    fn lost_word(&self, rank: Rank) -> u64 {
        self.lost.get(rank.index()).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Why this rank is of the world no longer, if so.
    pub(crate) fn cast_out(&self) -> Option<CastOut> {
        match self.out.load(Ordering::Acquire) {
            0 => None,
            1 => Some(CastOut::Declared),
            2 => Some(CastOut::Silence),
            _ => Some(CastOut::Broken),
        }
    }

    /// Whether what has come is refused, and counts it then.
    #[inline]
    pub(crate) fn refuses(&self, header: &Header) -> bool {
        if !self.is_marked.load(Ordering::Acquire) || !self.is_survived() {
            return false;
        }
        let lost = self.lost_word(header.source) as u32;
        let is_stale = lost > header.epoch || (header.source != self.own && self.cast_out().is_some());
        if is_stale {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
        is_stale
    }

    pub(crate) fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    fn loss_of(&self, epoch: u32, rank: Rank, why: Why) -> Loss {
        let host = self.hosts.get().and_then(|hosts| hosts.get(rank.index())).cloned().unwrap_or_default();
        Loss { rank, host, why, epoch }
    }

    /// The error of using a rank that is gone.
    pub(crate) fn error_of(&self, rank: Rank) -> FabricError {
        if !self.is_survived() {
            return FabricError::PeerDead { rank };
        }
        if let Some(why) = self.cast_out() {
            return FabricError::CastOut { rank: self.own, why };
        }
        match self.lost_word(rank) {
            0 => FabricError::PeerDead { rank },
            word => {
                let why = Why::decode((word >> 32) as u8);
                FabricError::Lost(Box::new(self.loss_of(word as u32, rank, why)))
            }
        }
    }

    // ── what is heard and found ─────────────────────────────────────────────────────────────────────────────

    /// Has the watch look soon.
    fn call(&self, state: &mut State) {
        state.is_called = true;
        self.called.notify_all();
    }

    /// A rank is lost, as rank 0 says.
    pub(crate) fn lose(&self, epoch: u32, rank: Rank, why: Why) {
        let mut state = self.lock();
        if epoch <= state.log.len() as u32 || rank.index() >= self.lost.len() {
            return;
        }
        if rank == self.own {
            drop(state);
            self.leave_the_world(CastOut::Declared);
            return;
        }
        state.ahead.insert(epoch, (rank, why));
        // Whoever reads the word finds its message refused, whatever epoch is known.
        self.lost[rank.index()].store(u64::from(epoch) | (why as u64) << 32, Ordering::Release);
        self.is_marked.store(true, Ordering::Release);
        let mut next = state.log.len() as u32 + 1;
        while let Some((rank, why)) = state.ahead.remove(&next) {
            let loss = self.loss_of(next, rank, why);
            state.log.push(loss);
            state.judge.lose(rank);
            next += 1;
        }
        self.epoch.store(next - 1, Ordering::Release);
        self.call(&mut state);
    }

    fn leave_the_world(&self, why: CastOut) -> bool {
        let mut state = self.lock();
        let first = self.out.compare_exchange(0, why as u32, Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.is_marked.store(true, Ordering::Release);
        if first {
            self.call(&mut state);
        }
        first
    }

    /// This rank has found that a process has ended or a connection is broken. Whether that is new.
    pub(crate) fn found(&self, rank: Rank, why: Why) -> bool {
        if self.lost_word(rank) != 0 {
            return false;
        }
        if rank == Rank(0) {
            return self.leave_the_world(CastOut::Broken);
        }
        let mut state = self.lock();
        if state.found.contains(&rank) {
            return false;
        }
        state.found.push(rank);
        if self.own == Rank(0) {
            state.judge.find(rank, why);
        }
        self.call(&mut state);
        true
    }

    /// At rank 0: `by` cannot reach `of`.
    pub(crate) fn accuse(&self, by: Rank, of: Rank) {
        let mut state = self.lock();
        if of.index() < self.lost.len() && of != Rank(0) {
            state.judge.accuse(by, of, Instant::now());
            self.call(&mut state);
        }
    }

    /// At rank 0: `by` awaits something of `of` and hears nothing, though it has asked.
    pub(crate) fn doubt(&self, by: Rank, of: Rank) {
        let mut state = self.lock();
        if of.index() < self.lost.len() && of != Rank(0) {
            state.judge.doubt(by, of, Instant::now());
            self.call(&mut state);
        }
    }

    /// At rank 0: a rank lived at a time, and knew of losses up to this epoch.
    pub(crate) fn sign(&self, rank: Rank, epoch: u32, at: Instant) {
        let mut state = self.lock();
        if state.judge.sign(rank, epoch, at) {
            self.call(&mut state);
        }
    }

    /// Elsewhere: rank 0 lived at a time, and said that this epoch is settled.
    pub(crate) fn hear(&self, settled: u32, at: Instant) {
        let mut state = self.lock();
        state.heard = at;
        if self.settled.fetch_max(settled, Ordering::AcqRel) < settled {
            self.call(&mut state);
        }
    }
}

#[cfg(test)]
mod tests;
