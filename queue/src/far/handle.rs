//! A far handle: asks the porter, and keeps items that came before they were asked for.

use super::message::{
    ASK, Answer, Ask, Asked, BATCH_MAX, Look, Refusal, TELL, Tell, Told, WaitUs, close, items, open,
};
use super::served;
use crate::builder::{MEMORY_DEFAULT, make};
use crate::descriptor::{Descriptor, Home};
use crate::error::Error;
use crate::layout::{Attached, CLOSED};
use crate::put::Wait;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tarragon_transport::segment::SegmentName;
use tarragon_transport::{Fabric, FabricError, PeerState, Rank, SegmentError};

/// How often somebody who waits looks whether this rank has left its world.
const LOOK: Duration = Duration::from_millis(250);

/// What a handle of another node's queue has instead of memory.
pub(crate) struct Far {
    fabric: Weak<Fabric>,
    home: Home,
    segment: SegmentName,
    kept: Arc<Store>,
    /// The most items to ask for at once.
    ahead: AtomicU32,
    pace: Mutex<Pace>,
}

/// Items that came before they were asked for, by the number of their hand.
#[derive(Default)]
struct Store {
    items: Mutex<VecDeque<(u64, Vec<u8>)>>,
    handles: AtomicU32,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Vec<u8>)>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this rank keeps of each queue, by number of the queue's segment.
#[derive(Default)]
pub(super) struct Kept(Mutex<HashMap<u128, Arc<Store>>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Arc<Store>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back all that is kept of a queue. Called by handlers.
    pub(super) fn give_back(&self, fabric: &Fabric, queue: u128, to: Rank) {
        let Some(store) = self.lock().get(&queue).cloned() else { return };
        let hands: Vec<u64> = store.lock().drain(..).map(|(hand, _)| hand).collect();
        if !hands.is_empty() {
            // A porter that is gone has returned them.
            let _ = tell(fabric, to, queue, Told::Back { hands });
        }
    }
}

/// How fast items are asked for.
#[derive(Clone, Copy)]
struct Pace {
    /// When the last one was given to a caller.
    last: Instant,
    /// How long the last request for one took.
    round_trip: Duration,
    /// Items to ask for.
    most: u32,
}

fn tell(fabric: &Fabric, to: Rank, queue: u128, what: Told) -> Result<(), FabricError> {
    fabric.send(to, TELL, 0, &close(Vec::new(), &Tell { queue, what }))
}

/// A handle on a queue of another node; `gone`: this node's answer.
pub(crate) fn attach(descriptor: &Descriptor, home: &Home, gone: SegmentError) -> Result<Attached, Error> {
    let Some(fabric) = Fabric::of_world(home.world) else {
        let here = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (queue, host) = (descriptor.segment.file.clone(), home.host.clone());
        return Err(if here.trim() == host { gone.into() } else { Error::Elsewhere { queue, host } });
    };
    if fabric.rank().0 == home.rank {
        return Err(gone.into());
    }
    served::install(&fabric);
    let segment = descriptor.segment.clone();
    let kept = Arc::clone(fabric.state::<Kept>().lock().entry(segment.uid).or_default());
    let pace = Pace { last: Instant::now(), round_trip: Duration::ZERO, most: 1 };
    let fabric = Arc::downgrade(&fabric);
    let (ahead, pace) = (AtomicU32::new(1), Mutex::new(pace));
    let far = Far { fabric, home: home.clone(), segment, kept, ahead, pace };
    // From now on it detaches when it is dropped, also if it never was attached.
    far.kept.handles.fetch_add(1, Ordering::SeqCst);
    let what = Asked::Attach { descriptor: descriptor.clone() };
    let Answer::Attached { bound, is_strict } = far.ask(what, Vec::new())?.0 else {
        return Err(far.confused());
    };
    let name = descriptor.name.clone();
    let mut stand_in = make(MEMORY_DEFAULT, bound, is_strict, descriptor.type_hash, name)?;
    stand_in.end(CLOSED);
    // Nobody else is to find it.
    stand_in.segment.unlink();
    (stand_in.home, stand_in.far) = (Some(home.clone()), Some(far));
    Ok(stand_in)
}

impl Wait {
    fn us(self) -> WaitUs {
        match self {
            Wait::Not => Some(0),
            Wait::Until(until) => {
                let left = until.saturating_duration_since(Instant::now());
                Some(u64::try_from(left.as_micros()).unwrap_or(u64::MAX))
            }
            Wait::Ever => None,
        }
    }
}

impl Far {
    /// The queue's segment, at home.
    pub(crate) fn segment(&self) -> &SegmentName {
        &self.segment
    }

    /// Puts an item that `write` appends, and returns when it is in the queue.
    pub(crate) fn put(
        &self,
        wait: Wait,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut item = Vec::new();
        write(&mut item)?;
        self.do_it(Asked::Put { wait: wait.us() }, item)
    }

    /// Takes an item; it is this rank's if `keep` succeeds with it, else it goes back.
    pub(crate) fn get<R>(
        &self,
        wait: Wait,
        keep: impl FnOnce(&[u8]) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let kept = self.kept.lock().pop_front();
        if let Some((hand, item)) = kept {
            return self.keep(hand, &item, keep);
        }
        let begin = Instant::now();
        let most = self.most(begin);
        let (answer, bytes, body) = self.ask(Asked::Get { wait: wait.us(), most }, Vec::new())?;
        let Answer::Items { hand, lens } = answer else { return Err(self.confused()) };
        let came = items(&bytes[..body], &lens).ok_or_else(|| self.confused())?;
        let (first, more) = came.split_first().ok_or_else(|| self.confused())?;
        let more = more.iter().map(|item| item.to_vec());
        self.kept.lock().extend((hand + 1..).zip(more));
        self.pace().round_trip = begin.elapsed();
        self.keep(hand, first, keep)
    }

    fn keep<R>(
        &self,
        hand: u64,
        item: &[u8],
        keep: impl FnOnce(&[u8]) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let kept = keep(item);
        let hands = vec![hand];
        let what = if kept.is_ok() { Told::Came { hand } } else { Told::Back { hands } };
        let told = self.fabric().and_then(|fabric| {
            tell(&fabric, self.rank(), self.segment.uid, what).map_err(|source| self.lost(source))
        });
        self.pace().last = Instant::now();
        match told {
            // A serving rank that is dead gives it to nobody else; one that has left does.
            Err(Error::Lost { source, .. }) if self.is_dead_for_all(&source) => kept,
            told => told.and(kept),
        }
    }

    /// Whether the serving rank is dead: to all, not only to this one, which may be the one that the others go on
    /// without. Where losses are survived that is decided elsewhere, and waited for.
    fn is_dead_for_all(&self, why: &FabricError) -> bool {
        match why {
            FabricError::Lost(_) => true,
            FabricError::PeerDead { .. } => self.fabric().is_ok_and(|fabric| {
                let fate = fabric.fate_of(self.rank());
                matches!(fate, FabricError::Lost(_) | FabricError::PeerDead { .. })
            }),
            _ => false,
        }
    }

    /// How many items to ask for: more and more, while each is asked for sooner than it could come.
    fn most(&self, now: Instant) -> u32 {
        let mut pace = self.pace();
        let is_quick = now.saturating_duration_since(pace.last) < pace.round_trip;
        let ahead = self.ahead.load(Ordering::Relaxed);
        pace.most = if is_quick { (2 * pace.most).min(ahead) } else { 1 };
        pace.most
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it ask for so many items at once.
    pub(crate) fn fetch_ahead(&self, items: u32) {
        self.ahead.store(items.clamp(1, BATCH_MAX), Ordering::Relaxed);
    }

    pub(crate) fn look(&self) -> Result<Look, Error> {
        let kept = self.kept.lock().len() as u64;
        match self.ask(Asked::Look, Vec::new())?.0 {
            Answer::Looked(look) => {
                Ok(Look { len: look.len + kept, is_ready: look.is_ready || kept > 0, ..look })
            }
            _ => Err(self.confused()),
        }
    }

    pub(crate) fn task_done(&self) -> Result<(), Error> {
        self.do_it(Asked::Done, Vec::new())
    }

    pub(crate) fn join(&self, until: Option<Instant>) -> Result<(), Error> {
        let wait = until.map_or(Wait::Ever, Wait::Until);
        self.do_it(Asked::Join { wait: wait.us() }, Vec::new())
    }

    /// Closes or destroys it.
    pub(crate) fn end(&self, destroys: bool) -> Result<(), Error> {
        self.do_it(Asked::End { destroys }, Vec::new())
    }

    fn do_it(&self, what: Asked, item: Vec<u8>) -> Result<(), Error> {
        match self.ask(what, item)?.0 {
            Answer::Done => Ok(()),
            _ => Err(self.confused()),
        }
    }

    /// The porter's answer, and the bytes that it came in with the length of their body.
    fn ask(&self, what: Asked, item: Vec<u8>) -> Result<(Answer, Vec<u8>, usize), Error> {
        let fabric = self.fabric()?;
        let request = close(item, &Ask { queue: self.segment.uid, what });
        let lost = |source| match source {
            // Once it is decided who is lost, it is said why.
            FabricError::PeerDead { .. } => self.lost(fabric.fate_of(self.rank())),
            source => self.lost(source),
        };
        let request = fabric.request(self.rank(), ASK, &request).map_err(lost)?;
        let bytes = loop {
            if let Some(bytes) = request.wait(LOOK).map_err(lost)? {
                break bytes;
            }
            self.fabric()?;
        };
        match open(&bytes) {
            Some((Answer::Refused(refusal), _)) => Err(self.refused(refusal)),
            Some((answer, body)) => Ok((answer, bytes, body)),
            None => Err(self.confused()),
        }
    }

    pub(super) fn rank(&self) -> Rank {
        Rank(self.home.rank)
    }

    /// The fabric, while this rank is in its world.
    pub(super) fn fabric(&self) -> Result<Arc<Fabric>, Error> {
        let fabric = self.fabric.upgrade().filter(|it| it.peer(it.rank()) == PeerState::Here);
        fabric.ok_or_else(|| Error::Departed { host: self.home.host.clone() })
    }

    pub(super) fn lost(&self, source: FabricError) -> Error {
        match source {
            FabricError::TooLarge { bytes, max } => Error::TooLarge { needed: bytes, capacity: max },
            source => {
                let (rank, host) = (self.home.rank, self.home.host.clone());
                Error::Lost { rank, host, source: Box::new(source) }
            }
        }
    }

    pub(super) fn at_home(&self, why: String) -> Error {
        Error::AtHome { rank: self.home.rank, host: self.home.host.clone(), why }
    }

    fn confused(&self) -> Error {
        self.at_home("a response that cannot be read".to_owned())
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Full { bound } => Error::Full { bound },
            Refusal::Memory { needed, capacity } => Error::Memory { needed, capacity },
            Refusal::TooLarge { needed, capacity } => Error::TooLarge { needed, capacity },
            Refusal::Empty => Error::Empty,
            Refusal::Closed => Error::Closed,
            Refusal::Destroyed => Error::Destroyed,
            Refusal::NotTaken { put } => Error::NotTaken { put },
            Refusal::Unfinished { left } => Error::Unfinished { left },
            Refusal::Abandoned { items } => Error::Abandoned { items },
            Refusal::Damaged => Error::Damaged,
            Refusal::Gone => Error::Segment(SegmentError::Gone { name: self.segment.file.clone() }),
            Refusal::Leaves => self.lost(FabricError::PeerLeft { rank: self.rank() }),
            Refusal::AtHome { why } => self.at_home(why),
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let is_last = self.kept.handles.fetch_sub(1, Ordering::SeqCst) == 1;
        let Ok(fabric) = self.fabric() else { return };
        if is_last {
            fabric.state::<Kept>().give_back(&fabric, self.segment.uid, self.rank());
        }
        // Who cannot be told is gone.
        let _ = tell(&fabric, self.rank(), self.segment.uid, Told::Detach);
    }
}
