//! Sleeping on behalf of processes of other nodes: one thread for all keys that they wait for.
//!
//! It sleeps at the cells of these keys (see `store::wait`) and at a bell of its own, which rings when somebody else
//! begins to wait. Of more cells than the kernel lets it sleep at, and where the kernel is too old for several, it
//! looks every millisecond. It ends when nobody waits any more.

use super::serve::{Served, is, refuse, respond};
use crate::store::Watch;
use rustix::io::Errno;
use rustix::thread::futex::{self, WaitFlags, WaitPtr, WaitvFlags};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tarragon_transport::{Fabric, Rank};

/// The longest sleep without looking again.
const NAP: Duration = Duration::from_millis(250);
/// The same where it cannot sleep at all cells.
const SHORT_NAP: Duration = Duration::from_millis(1);
/// Cells that the kernel takes at once, besides the bell.
const CELLS_MAX: usize = 127;

/// Who waits.
#[derive(Default)]
pub(super) struct Waiting {
    list: Mutex<List>,
    bell: AtomicU32,
}

#[derive(Default)]
struct List {
    waits: Vec<Wait>,
    is_running: bool,
}

struct Wait {
    fabric: Arc<Fabric>,
    part: Arc<Served>,
    key: Box<[u8]>,
    seen: Watch,
    deadline: Option<Instant>,
    who: (Rank, u64),
}

impl Wait {
    fn is_over(&self, now: Instant) -> bool {
        let store = &self.part.store;
        // A cell says that somebody sleeps there from `watch` on until it changes.
        let has_changed =
            store.sequence_of(&self.key).is_none_or(|it| it.load(Ordering::SeqCst) != self.seen.0);
        has_changed || !store.is_there() || self.deadline.is_some_and(|at| at <= now)
    }

    /// Tells who waits to look.
    fn end(&self) {
        respond(&self.fabric, self.who.0, self.who.1, Ok(is(true)));
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits.
    pub(super) fn add(
        self: &Arc<Self>,
        fabric: &Arc<Fabric>,
        part: Arc<Served>,
        key: &[u8],
        seen: Watch,
        deadline: Option<Instant>,
        who: (Rank, u64),
    ) {
        part.store.note_wait(key);
        if part.store.watch(key) != seen {
            return respond(fabric, who.0, who.1, Ok(is(true)));
        }
        let wait = Wait { fabric: Arc::clone(fabric), part, key: key.into(), seen, deadline, who };
        let mut list = self.lock();
        if !list.is_running {
            let this = Arc::clone(self);
            let thread = std::thread::Builder::new().name("tarragon-ddict-waits".to_owned());
            if let Err(error) = thread.spawn(move || this.work()) {
                return refuse(fabric, who.0, who.1, format!("it has no thread that waits: {error}"));
            }
            list.is_running = true;
        }
        list.waits.push(wait);
        drop(list);
        self.bell.fetch_add(1, Ordering::SeqCst);
        // Nobody there is fine: it looks before it sleeps.
        let _ = futex::wake(&self.bell, futex::Flags::empty(), 1);
    }

    fn work(&self) {
        loop {
            let bell = self.bell.load(Ordering::SeqCst);
            let now = Instant::now();
            let (over, is_last) = {
                let mut list = self.lock();
                let over: Vec<Wait> = list.waits.extract_if(.., |wait| wait.is_over(now)).collect();
                list.is_running = !list.waits.is_empty();
                (over, !list.is_running)
            };
            over.iter().for_each(Wait::end);
            if is_last {
                return;
            }
            self.sleep(bell, now);
        }
    }

    /// Sleeps until a cell changes, the bell rings, or the first deadline.
    fn sleep(&self, bell: u32, now: Instant) {
        let mut cells = vec![cell(&self.bell, bell)];
        let mut nap = NAP;
        let parts: Vec<Arc<Served>> = {
            let list = self.lock();
            for wait in &list.waits {
                let left = wait.deadline.map_or(NAP, |at| at.saturating_duration_since(now));
                nap = nap.min(left.max(SHORT_NAP));
                if let Some(sequence) = wait.part.store.sequence_of(&wait.key)
                    && cells.len() <= CELLS_MAX
                {
                    cells.push(cell(sequence, wait.seen.0));
                }
            }
            if list.waits.len() >= cells.len() {
                nap = SHORT_NAP;
            }
            // Their memory stays mapped meanwhile.
            list.waits.iter().map(|wait| Arc::clone(&wait.part)).collect()
        };
        let clock = rustix::time::ClockId::Monotonic;
        let start = rustix::time::clock_gettime(clock);
        let until = rustix::fs::Timespec::try_from(nap).map(|nap| start + nap).unwrap_or(start);
        // Woken, changed before, interrupted or late: all mean to look again.
        if futex::waitv(&cells, WaitvFlags::empty(), Some(&until), clock) == Err(Errno::NOSYS) {
            std::thread::sleep(SHORT_NAP);
        }
        drop(parts);
    }
}

/// One place to sleep at, while it has this number.
fn cell(word: &AtomicU32, seen: u32) -> futex::Wait {
    let mut wait = futex::Wait::new();
    wait.val = u64::from(seen);
    wait.uaddr = WaitPtr::new(word.as_ptr().cast());
    wait.flags = WaitFlags::SIZE_U32;
    wait
}
