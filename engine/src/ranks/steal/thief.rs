//! The thief's side: whom to ask and when; running what comes, and telling what came of it.

use super::{Ask, Back, FIRST, Gift, REST_MAX, REST_MIN, SWEEP_MAX, Wrote};
use crate::cohort::Cohort;
use crate::ranks::clerk::{Order, came_of};
use crate::ranks::message::{self, Kind};
use crate::ranks::unpack::{self, Unpacked};
use crate::ranks::{Ranks, Setup};
use crate::run::{Run, Timed};
use crate::shared::Shared;
use crate::task::output::{Portion, Which};
use crate::task::record::Ref;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tarragon_transport::{Rank, wire::head};

/// Results of several tasks travel together for at most so long, and up to about so many bytes.
const BATCH: Duration = Duration::from_millis(1);
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of output in one message.
const PIECE_BYTES: u64 = 1 << 20;

/// Whom this rank asks for work.
pub(super) struct Thief {
    /// Batches whose workers must have nothing to do.
    pools: Vec<Weak<Shared>>,
    /// Who was asked and has not answered, and when.
    asked: Option<(Rank, Instant)>,
    /// Nobody is asked before.
    due: Instant,
    rest: Duration,
    /// Whoever listens looks again when it is time.
    is_watched: bool,
    /// How many have refused since the last rest.
    refused: u32,
    /// Whom to ask next.
    next: u32,
    latency_ns: u64,
    /// Gifts that this rank runs, by who gave them and their number there.
    gifts: HashMap<(Rank, u64), Weak<Loot>>,
}

impl Thief {
    pub(super) fn new() -> Self {
        Self {
            pools: Vec::new(),
            asked: None,
            due: Instant::now(),
            rest: REST_MIN,
            is_watched: false,
            refused: 0,
            next: 0,
            latency_ns: 0,
            gifts: HashMap::new(),
        }
    }

    /// Workers with nothing to do; 0 if some batch has work for its own.
    fn idle(&mut self) -> u32 {
        let mut least = u32::MAX;
        self.pools.retain(|pool| {
            let Some(shared) = pool.upgrade() else { return false };
            let idle = shared.executor.pool().map_or(0, |pool| if pool.is_work() { 0 } else { pool.idle() });
            least = least.min(idle);
            true
        });
        if least == u32::MAX { 0 } else { least }
    }

    /// The next rank to ask; every so often home, which knows whether a list is under way.
    fn victim(&mut self, me: u32, ranks: u32, is_lost: impl Fn(Rank) -> bool) -> Option<Rank> {
        if me != 0 && self.refused + 1 == sweep(ranks) {
            return Some(Rank(0));
        }
        for _ in 0..ranks {
            self.next = (self.next + 1) % ranks;
            if self.next != me && !is_lost(Rank(self.next)) {
                return Some(Rank(self.next));
            }
        }
        None
    }
}

fn sweep(ranks: u32) -> u32 {
    (ranks - 1).min(SWEEP_MAX)
}

/// A gift that this rank runs.
pub(in crate::ranks) struct Loot {
    ranks: Arc<Ranks>,
    from: Rank,
    number: u64,
    /// Until all of it has ended.
    unpacked: Mutex<Option<Unpacked>>,
    left: AtomicU32,
    tasks: u32,
    /// Workers that can run it.
    width: u32,
    began: Instant,
    results: Mutex<Results>,
}

struct Results {
    bytes: Vec<u8>,
    sent: Instant,
}

impl Ranks {
    /// A run that other ranks take part in begins here.
    pub(in crate::ranks) fn steals_for(&self, run: &Arc<Run>) {
        let shared = &run.plan.shared;
        // What a journal says of a task is where it was placed.
        if shared.setup.keeps_place || run.ledger.is_some() {
            return;
        }
        let now = Instant::now();
        {
            let mut thief = self.stealing.thief.lock();
            if !thief.pools.iter().any(|pool| std::ptr::eq(pool.as_ptr(), Arc::as_ptr(shared))) {
                thief.pools.push(Arc::downgrade(shared));
            }
            if thief.next == 0 {
                // Not all the same rank first.
                thief.next = self.rank();
            }
            (thief.due, thief.rest, thief.refused) = (now + FIRST, REST_MIN, 0);
            // Whoever listens may have gone to sleep for long, since there was nothing to steal.
            thief.is_watched = false;
        }
        self.stealing.victim.lock().begins(run);
        self.stealing.is_quiet.store(false, Ordering::Release);
    }

    /// See [`Ranks::steal`].
    #[cold]
    pub(super) fn steal_now(&self, wakes: bool) {
        if self.lost.get().is_some() || self.is_stopped.load(Ordering::Acquire) {
            return;
        }
        if self.is_home() && !self.stealing.victim.lock().is_any_under_way() {
            return self.stealing.is_quiet.store(true, Ordering::Release);
        }
        let (victim, idle, latency_ns, pools) = {
            let Some(mut thief) = self.stealing.thief.try_lock() else { return };
            let now = Instant::now();
            if thief.asked.is_some() {
                return;
            }
            let idle = thief.idle();
            if now < thief.due {
                let wakes = wakes && idle > 0 && !thief.is_watched;
                thief.is_watched |= idle > 0;
                drop(thief);
                if wakes {
                    self.tell(self.world.rank(), Kind::Look, 0, &[]);
                }
                return;
            }
            thief.is_watched = false;
            if idle == 0 {
                return;
            }
            let Some(victim) = thief.victim(self.rank(), self.size(), |rank| self.is_lost(rank)) else {
                return;
            };
            thief.asked = Some((victim, now));
            (victim, idle, thief.latency_ns, thief.pools.clone())
        };
        // The office may have to be driven, which may lead here again.
        let pools = pools.iter().filter_map(Weak::upgrade);
        let gpus = pools.map(|shared| shared.free_gpus()).min().unwrap_or(0);
        let ask = Ask { idle, gpus, latency_ns };
        self.tell(victim, Kind::Steal, 0, &message::bytes(&ask));
        if self.is_lost(victim) {
            // Who was told of that may have looked before it was asked.
            self.thief_forgets(victim);
        }
    }

    /// A rank is lost: it answers no more, and what it gave is for nobody.
    pub(in crate::ranks) fn thief_forgets(&self, lost: Rank) {
        let gifts: Vec<u64> = {
            let mut thief = self.stealing.thief.lock();
            thief.asked.take_if(|(victim, _)| *victim == lost);
            thief.gifts.keys().filter(|(from, _)| *from == lost).map(|(_, number)| *number).collect()
        };
        gifts.into_iter().for_each(|number| self.recalled(lost, number, None));
    }

    /// How long whoever listens may sleep, if it is to look whether to steal.
    pub(in crate::ranks) fn until_due(&self) -> Option<Duration> {
        if self.stealing.is_quiet.load(Ordering::Relaxed) {
            return None;
        }
        let thief = self.stealing.thief.lock();
        thief.is_watched.then(|| thief.due.saturating_duration_since(Instant::now()))
    }

    /// A victim has answered.
    pub(in crate::ranks) fn gift(self: &Arc<Self>, from: Rank, number: u64, bytes: &[u8]) {
        let Some((gift, tasks)) = head::<Gift>(bytes) else { return };
        {
            let mut thief = self.stealing.thief.lock();
            let Some((_, asked)) = thief.asked.take_if(|(victim, _)| *victim == from) else { return };
            match gift {
                Gift::Tasks { .. } => {
                    thief.latency_ns = asked.elapsed().as_nanos() as u64;
                    (thief.refused, thief.rest) = (0, REST_MIN);
                }
                Gift::Nothing { is_over } => {
                    if is_over && from == Rank(0) {
                        self.stealing.is_quiet.store(true, Ordering::Release);
                    }
                    thief.refused += 1;
                    if thief.refused >= sweep(self.size()) {
                        thief.refused = 0;
                        thief.due = Instant::now() + thief.rest;
                        thief.rest = (thief.rest * 2).min(REST_MAX);
                    }
                }
            }
        }
        match gift {
            Gift::Nothing { .. } => self.steal(),
            Gift::Tasks { list } if self.is_home() => {
                // The list is under way, so its batch is there.
                let elsewhere = self.elsewhere(list);
                let shared = elsewhere.and_then(|elsewhere| elsewhere.shared());
                let ran = shared.ok_or_else(|| "its list is gone".to_string());
                let ran = ran
                    .and_then(|shared| self.run_gift(from, number, tasks, &mut |_| Ok(Arc::clone(&shared))));
                if let Err(why) = ran {
                    self.lose(Rank(0), &format!("it cannot run tasks of rank {from}: {why}"));
                }
            }
            Gift::Tasks { .. } => {
                let _ = self.orders.send(Order::Gift { from, number, bytes: tasks.to_vec() });
            }
        }
    }

    /// Runs the tasks of a gift, in a batch that is as they want it.
    pub(in crate::ranks) fn run_gift(
        self: &Arc<Self>,
        from: Rank,
        number: u64,
        bytes: &[u8],
        batch: &mut dyn FnMut(&Setup) -> Result<Arc<Shared>, String>,
    ) -> Result<(), String> {
        let text = |error: crate::function::wire::WireError| error.to_string();
        let (head, tasks) = unpack::open(bytes).map_err(text)?;
        let shared = batch(&head.setup)?;
        let unpacked = unpack::unpack_gift(&shared, &head, tasks).map_err(text)?;
        let now = Instant::now();
        let loot = Arc::new(Loot {
            ranks: Arc::clone(self),
            from,
            number,
            left: AtomicU32::new(head.tasks),
            tasks: head.tasks,
            width: shared.executor.pool().map_or(1, |pool| pool.idle()).clamp(1, head.tasks.max(1)),
            began: now,
            results: Mutex::new(Results { bytes: Vec::new(), sent: now }),
            unpacked: Mutex::default(),
        });
        let owned = unpacked.owned.clone();
        let tasks: Vec<Ref> = unpacked.wanted().collect();
        *loot.unpacked.lock() = Some(unpacked);
        {
            let mut thief = self.stealing.thief.lock();
            thief.gifts.retain(|_, loot| loot.strong_count() > 0);
            thief.gifts.insert((from, number), Arc::downgrade(&loot));
        }
        owned.start(false).map_err(|error| error.to_string())?;
        for (place, task) in (0..).zip(tasks) {
            let loot = Arc::clone(&loot);
            let is_over = move || crate::ranks::clerk::is_over(task);
            shared.awaited.when_ended(task, is_over, Box::new(move || loot.ended(place, task)));
        }
        Ok(())
    }

    /// Tasks of a gift are not wanted any more: one by its place, or all.
    pub(in crate::ranks) fn recalled(&self, from: Rank, number: u64, place: Option<u32>) {
        let loot = self.stealing.thief.lock().gifts.get(&(from, number)).and_then(Weak::upgrade);
        let Some(loot) = loot else { return };
        let (run, task) = {
            let unpacked = loot.unpacked.lock();
            let Some(unpacked) = &*unpacked else { return };
            let task = place.map(|place| unpacked.wanted().nth(place as usize));
            (unpacked.owned.plan().cohort.run(), task)
        };
        match (run, task) {
            (Some(run), None) => run.cancel(None),
            (Some(run), Some(Some(task))) => run.cancel(Some(task)),
            _ => {}
        }
    }
}

impl Loot {
    /// A task of it has ended; called by whoever ended it, with locks of its batch.
    fn ended(self: Arc<Self>, place: u32, task: Ref) {
        let timed = task.cohort().and_then(Cohort::run).and_then(|run| run.timed(place)).unwrap_or_default();
        if task.head().code.command.is_none() {
            return self.bring(place, task, timed);
        }
        // What a process has written may be long.
        let this = Arc::clone(&self);
        let bring = move || this.bring(place, task, timed);
        let thread = std::thread::Builder::new().name("tarragon-return".to_string());
        if thread.spawn(bring).is_err() {
            self.bring(place, task, timed);
        }
    }

    /// Tells the victim how a task came out.
    fn bring(&self, place: u32, task: Ref, timed: Timed) {
        let Some(cohort) = task.cohort() else { return };
        let (came, value) = came_of(cohort, task);
        let [out, err] = [Which::Out, Which::Err].map(|which| self.wrote(cohort, place, task, which));
        let lens = [value.len() as u64, out.len() as u64, err.len() as u64];
        let back = Back { place, came, took_ns: timed.took(), lane: timed.lane, lens };
        let is_last = self.left.fetch_sub(1, Ordering::AcqRel) == 1;
        let bytes = {
            let mut results = self.results.lock();
            results.bytes.extend_from_slice(&message::bytes(&back));
            [&value, &out, &err].into_iter().for_each(|some| results.bytes.extend_from_slice(some));
            let is_due = is_last || results.sent.elapsed() > BATCH || results.bytes.len() > BATCH_BYTES;
            results.sent = if is_due { Instant::now() } else { results.sent };
            is_due.then(|| std::mem::take(&mut results.bytes))
        };
        if let Some(bytes) = bytes {
            let mean = self.began.elapsed() * self.width / self.tasks.max(1);
            let mean_ns = if is_last { mean.as_nanos() as u64 } else { 0 };
            let bytes = [message::bytes(&mean_ns), bytes].concat();
            self.ranks.tell(self.from, Kind::Returned, self.number, &bytes);
        }
        if is_last {
            self.ranks.stealing.thief.lock().gifts.remove(&(self.from, self.number));
            // What drops with it is the user's.
            let unpacked = self.unpacked.lock().take();
            drop(unpacked);
            self.ranks.steal();
        }
    }

    /// What a function has written; what a process has is sent at once, and is not kept here.
    fn wrote(&self, cohort: &Cohort, place: u32, task: Ref, which: Which) -> Vec<u8> {
        let Some(path) = cohort.with_output(task.index(), |output| output.path(which)).flatten() else {
            let bytes = cohort.with_output(task.index(), |output| output.bytes(which).unwrap_or_default());
            return bytes.unwrap_or_default();
        };
        if let Some(folder) = task.job_folder().filter(|_| which == Which::Out) {
            for portion in Portion::of_job(&folder) {
                self.send_portion(place, portion, &portion.path(|_| path.clone()));
            }
            let _ = std::fs::remove_dir_all(folder);
        }
        self.send_portion(place, Portion::Whole(which), &path);
        let _ = std::fs::remove_file(path);
        Vec::new()
    }

    fn send_portion(&self, place: u32, portion: Portion, path: &Path) {
        let head = message::bytes(&Wrote { place, portion });
        let mut bytes = Vec::new();
        let Ok(mut file) = std::fs::File::open(path) else { return };
        loop {
            bytes.clear();
            bytes.extend_from_slice(&head);
            let read = (&mut file).take(PIECE_BYTES).read_to_end(&mut bytes);
            if bytes.len() > head.len() {
                self.ranks.tell(self.from, Kind::Wrote, self.number, &bytes);
            }
            if !matches!(read, Ok(1..)) {
                break;
            }
        }
    }
}
