//! What a serving rank does at one queue for the ranks of other nodes. See the page above; `desk` on who does it.

mod collect;

use super::desk::Plan;
use super::inflow::{Inflows, Word as News};
use super::message::{Answer, Asked, BATCH_MAX, HEARD, Look, RECALL, Recall, Refusal, Told, close};
use super::served::{Letter, Mailbox};
use super::waiting::{Batch, Caller, Get, Guest, Hand, Item, Join, Outgoing, Put};
use crate::error::Error;
use crate::layout::{Attached, CLOSED, DESTROYED, OPEN, Word};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tarragon_transport::{Fabric, PeerState, Rank};

/// The longest sleep: how long a dead rank may go unnoticed once the fabric knows of it.
const NAP: Duration = Duration::from_millis(250);
/// As `NAP`, with items in hand, or while somebody waits for the end of a closed queue.
const NAP_SHORT: Duration = Duration::from_millis(5);
/// How long a rank keeps items that nobody there has asked for while the queue is empty.
const KEEP: Duration = Duration::from_millis(10);
/// How long a rank that leaves waits for word of items that are on their way.
const PARTING: Duration = Duration::from_millis(500);

/// The state of a porter.
pub(super) struct Porter {
    fabric: Weak<Fabric>,
    queue: Arc<Attached>,
    mailbox: Arc<Mailbox>,
    guests: HashMap<Rank, Guest>,
    gets: VecDeque<Get>,
    puts: VecDeque<Put>,
    joins: Vec<Join>,
    inflows: Inflows,
    /// By number, which rises.
    hands: BTreeMap<u64, Hand>,
    next_hand: u64,
    /// Items are taken that have no number yet.
    is_collecting: bool,
    /// To be handed to somebody else.
    returned: VecDeque<Item>,
    /// Letters read and responses sent, so far.
    acts: u64,
    /// As many when the thread slept the last time; those of handlers do not count.
    acts_slept: u64,
    /// A handler is at work.
    is_handling: bool,
    /// What a handler could not send, for the thread.
    unsent: VecDeque<Outgoing>,
    /// What the thread sleeps on.
    planned: Plan,
    /// Until then the thread sleeps for short, since it had to a moment ago.
    short_until: Instant,
    /// The rank leaves, and waits so long.
    parting: Option<Instant>,
}

impl Porter {
    pub(super) fn new(fabric: &Weak<Fabric>, queue: &Arc<Attached>, mailbox: &Arc<Mailbox>) -> Porter {
        let now = Instant::now();
        Porter {
            fabric: fabric.clone(),
            queue: Arc::clone(queue),
            mailbox: Arc::clone(mailbox),
            guests: HashMap::new(),
            gets: VecDeque::new(),
            puts: VecDeque::new(),
            joins: Vec::new(),
            inflows: Inflows::default(),
            hands: BTreeMap::new(),
            next_hand: 1,
            is_collecting: false,
            returned: VecDeque::new(),
            acts: 0,
            acts_slept: 0,
            is_handling: false,
            unsent: VecDeque::new(),
            planned: Plan { for_items: false, for_room: false, for_the_end: false, until: now },
            short_until: now,
            parting: None,
        }
    }

    /// In the thread: does all that is to be done now. What to sleep on, and whether nothing was done; `None` if the
    /// porter has ended.
    pub(super) fn turn(&mut self) -> Option<(Plan, bool)> {
        for outgoing in std::mem::take(&mut self.unsent) {
            self.send(outgoing);
        }
        self.read_all();
        self.look_after();
        self.serve();
        self.expire();
        self.recall();
        self.release();
        if self.is_over() && self.mailbox.close_empty() {
            self.leave();
            return None;
        }
        if let (false, Ok(agent)) = (self.gets.is_empty(), self.queue.segment.agent()) {
            self.queue.view().shrink_idle(&agent);
        }
        if self.holds_any() {
            self.short_until = Instant::now() + NAP;
        }
        self.planned = self.plan();
        let is_idle = self.acts_slept == self.acts;
        self.acts_slept = self.acts;
        Some((self.planned, is_idle))
    }

    /// In a handler: does what can be done without waiting. False if the thread is to look at the rest.
    pub(super) fn attend(&mut self) -> bool {
        let before = self.acts;
        self.is_handling = true;
        self.read_all();
        self.serve();
        self.release();
        self.is_handling = false;
        self.acts_slept += self.acts - before;
        self.unsent.is_empty()
            && !self.is_over()
            && self.parting.is_none()
            && self.planned.covers(&self.plan())
    }

    fn read_all(&mut self) {
        self.mailbox.take().into_iter().for_each(|letter| self.read(letter));
    }

    /// What the thread should sleep on.
    fn plan(&self) -> Plan {
        let for_room = !self.puts.is_empty() || !self.returned.is_empty() || self.inflows.are_waiting();
        let now = Instant::now();
        let is_ending = !self.gets.is_empty() && self.queue.view().state() != OPEN;
        let is_short = self.holds_any() || is_ending || self.parting.is_some() || now < self.short_until;
        let callers = self.gets.iter().map(|it| it.caller).chain(self.puts.iter().map(|it| it.caller));
        let callers = callers.chain(self.joins.iter().map(|it| it.caller));
        let nap = now + if is_short { NAP_SHORT } else { NAP };
        let until = callers.filter_map(|it| it.until).fold(nap, Instant::min);
        Plan { for_items: !self.gets.is_empty(), for_room, for_the_end: !self.joins.is_empty(), until }
    }

    fn is_over(&self) -> bool {
        self.guests.values().all(|it| it.handles == 0) || self.is_parting_over()
    }

    fn is_parting_over(&self) -> bool {
        let is_gone = self.fabric.strong_count() == 0;
        is_gone || self.parting.is_some_and(|until| self.hands.is_empty() || until <= Instant::now())
    }

    /// Puts back what is left in hand.
    fn leave(&mut self) {
        let hands: Vec<u64> = self.hands.keys().copied().collect();
        self.take_back(&hands);
        self.put_back();
        // A sealed queue, or a full one, takes nothing back.
        self.abandon(self.returned.len() as u64);
        self.returned.clear();
        self.release();
    }

    fn read(&mut self, letter: Letter) {
        self.acts += 1;
        match letter {
            Letter::Asked(rank, tag, what, item) => self.read_request(rank, tag, what, item),
            Letter::Told(rank, Told::Came { hand }) => {
                if self.hands.get(&hand).is_some_and(|it| it.rank == rank) {
                    self.hands.remove(&hand);
                    self.guest(rank).undone += 1;
                    self.release();
                }
            }
            Letter::Told(rank, Told::Back { hands }) => {
                let is_its = |hand: &u64| self.hands.get(hand).is_some_and(|it| it.rank == rank);
                let hands: Vec<u64> = hands.into_iter().filter(is_its).collect();
                self.take_back(&hands);
            }
            Letter::Told(rank, Told::Detach) => {
                let guest = self.guest(rank);
                guest.handles = guest.handles.saturating_sub(1);
                if guest.handles == 0 {
                    self.part_from(rank);
                }
            }
            Letter::Puts(rank, number, lens, body) => {
                self.inflows.take_in(rank, number, body, &lens);
                if self.parting.is_some() {
                    self.refuse_inflows();
                }
            }
            Letter::Told(rank, Told::Over { number }) => self.inflows.end(rank, number),
            Letter::End => {
                self.parting = Some(Instant::now() + PARTING);
                self.refuse_waiting(|_| true);
                self.refuse_inflows();
            }
        }
    }

    fn read_request(&mut self, rank: Rank, tag: u64, what: Asked, item: Vec<u8>) {
        let now = |wait| Caller::new(rank, tag, wait);
        // Also of one that was found dead before this came: `look_after` is to find it once more, with what it gets.
        self.guest(rank);
        if self.parting.is_some() {
            return self.refuse(&now(None), Refusal::Leaves);
        }
        match what {
            Asked::Attach { .. } => {
                self.guest(rank).handles += 1;
                let answer = Answer::Attached { bound: self.queue.bound, is_strict: self.queue.is_strict };
                self.respond(&now(None), &answer);
            }
            Asked::Put { wait } => self.puts.push_back(Put { caller: now(wait), item, refusal: None }),
            Asked::Get { wait, most } => {
                self.gets.push_back(Get { caller: now(wait), most: most.clamp(1, BATCH_MAX) });
            }
            Asked::Join { wait } => {
                let told = self.queue.view().control.reported.load(Ordering::Acquire);
                self.joins.push(Join { caller: now(wait), told });
            }
            Asked::Done => {
                let done = self.queue.task_done();
                self.guest(rank).undone -= i64::from(done.is_ok());
                self.respond_done(&now(None), done);
            }
            Asked::Look => {
                let look = self.look();
                self.respond(&now(None), &Answer::Looked(look));
            }
            Asked::End { destroys } => {
                self.queue.end(if destroys { DESTROYED } else { CLOSED });
                self.respond(&now(None), &Answer::Done);
            }
        }
    }

    fn guest(&mut self, rank: Rank) -> &mut Guest {
        self.guests.entry(rank).or_default()
    }

    fn look(&self) -> Look {
        let view = self.queue.view();
        let (put, taken) = view.counts();
        let (is_open, has_item) = (view.state() == OPEN, view.has_item());
        let len = put.saturating_sub(taken) + self.returned.len() as u64;
        Look {
            len,
            is_full: self.is_full(),
            is_open,
            is_ready: !is_open || has_item || !self.returned.is_empty(),
        }
    }

    fn is_full(&self) -> bool {
        self.queue.bound != 0 && self.queue.view().tickets().is_full(self.queue.bound)
    }

    /// Does for all who wait what can be done now. True if somebody was told something.
    pub(super) fn serve(&mut self) -> bool {
        let before = self.acts;
        self.serve_gets();
        self.put_back();
        self.serve_puts();
        self.serve_inflows();
        self.serve_joins();
        self.acts != before
    }

    fn serve_gets(&mut self) {
        while let Some(most) = self.gets.front().map(|get| get.most) {
            let collected = self.collect(most);
            if matches!(collected, Ok(None)) {
                return;
            }
            let Some(get) = self.gets.pop_front() else { return };
            match collected {
                Ok(Some(batch)) => self.hand_over(&get.caller, batch),
                Ok(None) => {}
                Err(error) => self.refuse(&get.caller, error.into()),
            }
        }
    }

    /// Whether it must keep the queue from being sealed.
    fn holds_any(&self) -> bool {
        self.is_collecting || !self.hands.is_empty() || !self.returned.is_empty()
    }

    /// Lets the queue be sealed if nothing is in hand.
    fn release(&self) {
        if !self.holds_any()
            && let Ok(agent) = self.queue.segment.agent()
        {
            agent.withdraw(Word::Entered as usize);
        }
    }

    fn hand_over(&mut self, caller: &Caller, batch: Batch) {
        let Batch { body, lens } = batch;
        let first = self.next_hand;
        self.next_hand += lens.len() as u64;
        let response = Arc::new(close(body, &Answer::Items { hand: first, lens: lens.clone() }));
        let (mut start, since, rank) = (0, Instant::now(), caller.rank);
        for (number, len) in (first..).zip(lens) {
            let place = start..start + len as usize;
            start = place.end;
            let item = Item { response: Arc::clone(&response), place };
            self.hands.insert(number, Hand { rank, item, since, is_extra: number != first });
        }
        self.is_collecting = false;
        // If it is gone, that is found with all else that it had.
        self.respond_with(caller, response);
    }

    /// These items are not wanted, or nobody is there who would.
    fn take_back(&mut self, hands: &[u64]) {
        for hand in hands {
            self.returned.extend(self.hands.remove(hand).map(|hand| hand.item));
        }
    }

    /// Puts what was returned at the end of the queue, as far as there is room.
    fn put_back(&mut self) {
        let queue = Arc::clone(&self.queue);
        let (false, Ok(agent)) = (self.returned.is_empty(), queue.segment.agent()) else { return };
        while let Some(item) = self.returned.front() {
            match self.queue.put_kept(&agent, item.bytes(), true) {
                // It was put twice, and will be called done once.
                Ok(()) => drop(self.queue.task_done()),
                Err(Error::Destroyed) => {}
                Err(_) => return,
            }
            self.returned.pop_front();
        }
        self.release();
    }

    fn serve_puts(&mut self) {
        // A closed queue refuses them whether it is full or not.
        let mut is_full = self.is_full() && self.queue.view().state() == OPEN;
        if self.puts.is_empty() || (is_full && self.puts.iter().all(|put| put.refusal.is_some())) {
            return;
        }
        let (bound, mut left) = (self.queue.bound, VecDeque::new());
        for mut put in std::mem::take(&mut self.puts) {
            let done = if is_full { Err(Error::Full { bound }) } else { self.put(&put.item) };
            match done {
                Err(error @ (Error::Full { .. } | Error::Memory { .. })) => {
                    is_full |= matches!(error, Error::Full { .. });
                    put.refusal = Some(error.into());
                    left.push_back(put);
                }
                done => self.respond_done(&put.caller, done),
            }
        }
        self.puts = left;
    }

    fn serve_inflows(&mut self) {
        if !self.inflows.are_waiting() || (self.is_full() && self.queue.view().state() == OPEN) {
            return;
        }
        let mut inflows = std::mem::take(&mut self.inflows);
        let news = inflows.serve(|item| self.put(item));
        self.inflows = inflows;
        self.tell(news);
    }

    fn refuse_inflows(&mut self) {
        let news = self.inflows.refuse();
        self.tell(news);
    }

    fn tell(&mut self, news: Vec<News>) {
        for News { rank, number, heard } in news {
            self.send(Outgoing {
                rank,
                tag: number,
                news: Some(HEARD),
                bytes: close(Vec::new(), &heard).into(),
            });
        }
    }

    fn put(&self, item: &[u8]) -> Result<(), Error> {
        let agent = self.queue.segment.agent()?;
        let put = self.queue.put_kept(&agent, item, false);
        self.release();
        put
    }

    fn serve_joins(&mut self) {
        let queue = Arc::clone(&self.queue);
        let view = queue.view();
        if self.joins.is_empty() || (view.left() != 0 && view.state() != DESTROYED) {
            return;
        }
        let is_left = view.left() != 0 || (queue.segment.recover(&view) != 0 && view.left() != 0);
        if is_left && view.state() != DESTROYED {
            return;
        }
        for join in std::mem::take(&mut self.joins) {
            let done = if is_left { Err(Error::Destroyed) } else { view.tell_lost(join.told) };
            self.respond_done(&join.caller, done);
        }
    }

    /// Refuses those whose time is over.
    fn expire(&mut self) {
        let now = Instant::now();
        let left = if self.joins.is_empty() { 0 } else { self.queue.view().left() };
        let mut over = Vec::new();
        self.gets.retain(|get| keep(&mut over, &get.caller, now, || Refusal::Empty));
        let bound = self.queue.bound;
        self.puts.retain_mut(|put| {
            let refusal = put.refusal.take();
            let is_kept = !put.caller.is_over(now);
            if is_kept {
                put.refusal = refusal;
            } else {
                over.push((put.caller, refusal.unwrap_or(Refusal::Full { bound })));
            }
            is_kept
        });
        self.joins.retain(|join| keep(&mut over, &join.caller, now, || Refusal::Unfinished { left }));
        for (caller, refusal) in over {
            self.refuse(&caller, refusal);
        }
    }

    /// Finds ranks that are gone.
    fn look_after(&mut self) {
        let Some(fabric) = self.fabric.upgrade() else { return };
        let gone = self.guests.keys().map(|&rank| (rank, fabric.peer(rank)));
        // Where losses are survived, a rank that only this one cannot reach may be the one that stays.
        let is_gone = |(rank, state): &(Rank, PeerState)| match state {
            PeerState::Here => false,
            PeerState::Left => true,
            PeerState::Dead => !fabric.survives_losses() || fabric.lost_in(*rank).is_some(),
        };
        let gone: Vec<_> = gone.filter(is_gone).collect();
        drop(fabric);
        if !gone.is_empty() {
            // What it told before it went counts.
            self.read_all();
        }
        for (rank, state) in gone {
            let undone = self.part_from(rank);
            if state == PeerState::Dead {
                self.abandon(undone.max(0).cast_unsigned());
            }
        }
    }

    /// Forgets a rank, but not what was in hand for it. Items it took and has not called done.
    fn part_from(&mut self, rank: Rank) -> i64 {
        self.refuse_waiting(|caller| caller.rank == rank);
        self.inflows.part_from(rank);
        let its = self.hands.iter().filter(|(_, hand)| hand.rank == rank);
        let its: Vec<u64> = its.map(|(&number, _)| number).collect();
        self.take_back(&its);
        self.guests.remove(&rank).map_or(0, |guest| guest.undone)
    }

    fn refuse_waiting(&mut self, is_one: impl Fn(&Caller) -> bool) {
        let mut refused = Vec::new();
        let mut stays = |caller: &Caller| {
            let is_one = is_one(caller);
            refused.extend(is_one.then_some(*caller));
            !is_one
        };
        self.gets.retain(|it| stays(&it.caller));
        self.puts.retain(|it| stays(&it.caller));
        self.joins.retain(|it| stays(&it.caller));
        for caller in refused {
            self.refuse(&caller, Refusal::Leaves);
        }
    }

    /// Items that nobody will call done.
    fn abandon(&self, items: u64) {
        self.queue.view().control.abandoned.fetch_add(items, Ordering::AcqRel);
        for _ in 0..items {
            // Another process may have said it of one of these.
            let _ = self.queue.task_done();
        }
    }

    /// Wants items back that ranks keep while nobody else has any.
    fn recall(&mut self) {
        let view = self.queue.view();
        if self.hands.is_empty() || (view.state() == OPEN && view.has_item()) {
            return;
        }
        let now = Instant::now();
        let is_old = |since: Instant| now.saturating_duration_since(since) >= KEEP;
        let Some(fabric) = self.fabric.upgrade() else { return };
        for hand in self.hands.values().filter(|hand| hand.is_extra && is_old(hand.since)) {
            let guest = self.guests.entry(hand.rank).or_default();
            if guest.recalled.is_none_or(is_old) {
                guest.recalled = Some(now);
                let recall = close(Vec::new(), &Recall { queue: self.queue.segment.name().uid });
                // One that is gone is found so.
                let _ = fabric.send(hand.rank, RECALL, 0, &recall);
            }
        }
    }

    fn refuse(&mut self, caller: &Caller, refusal: Refusal) {
        self.respond(caller, &Answer::Refused(refusal));
    }

    fn respond_done(&mut self, caller: &Caller, done: Result<(), Error>) {
        let answer = done.map_or_else(|error| Answer::Refused(error.into()), |()| Answer::Done);
        self.respond(caller, &answer);
    }

    fn respond(&mut self, caller: &Caller, answer: &Answer) {
        self.respond_with(caller, Arc::new(close(Vec::new(), answer)));
    }

    fn respond_with(&mut self, caller: &Caller, bytes: Arc<Vec<u8>>) {
        self.send(Outgoing { rank: caller.rank, tag: caller.tag, news: None, bytes });
    }

    /// Sends what a rank that lives gets in the end.
    fn send(&mut self, outgoing: Outgoing) {
        self.acts += 1;
        while let Some(fabric) = self.fabric.upgrade() {
            let Outgoing { rank, tag, news, bytes } = &outgoing;
            // After what could not be sent.
            let is_sent = self.unsent.is_empty()
                && match news {
                    Some(handler) => fabric.send(*rank, *handler, *tag, bytes),
                    None => fabric.respond_to(*rank, *tag, bytes),
                }
                .is_ok();
            if is_sent || fabric.peer(*rank) != PeerState::Here || self.parting.is_some() {
                return;
            }
            if self.is_handling {
                return self.unsent.push_back(outgoing);
            }
        }
    }
}

fn keep(
    over: &mut Vec<(Caller, Refusal)>,
    caller: &Caller,
    now: Instant,
    refusal: impl Fn() -> Refusal,
) -> bool {
    let is_kept = !caller.is_over(now);
    if !is_kept {
        over.push((*caller, refusal()));
    }
    is_kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{MEMORY_DEFAULT, make};
    use tarragon_transport::{Bootstrap, World};

    /// Else what a dead rank's last request is given, that came after it was found dead, would be lost.
    #[test]
    fn whoever_asks_is_looked_after() {
        let world = World::join(&Bootstrap::Solo { through_bytes: false }).unwrap();
        let fabric = Arc::downgrade(&world.shared_fabric());
        let queue = Arc::new(make(MEMORY_DEFAULT, 0, false, 0, String::new()).unwrap());
        let mailbox = Arc::new(Mailbox::default());
        let mut porter = Porter::new(&fabric, &queue, &mailbox);
        let letter = Letter::Asked(Rank(7), 1, Asked::Get { wait: None, most: 1 }, Vec::new());
        assert!(mailbox.post(Box::new(letter)).is_ok());
        porter.read_all();
        assert_eq!(porter.guests.keys().collect::<Vec<_>>(), [&Rank(7)]);
        assert_eq!(porter.gets.len(), 1);
    }
}
