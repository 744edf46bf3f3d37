//! Some ranks of a world that work together for a while: messages between its members, and what they do together.
//!
//! # Shape
//! A group has a number, which no other group of the world has, and *members*, counted from 0, each on a rank of its
//! own. Each member makes its own `Group` of the same number and ranks. What comes for a group that is not there (not
//! made yet, or dropped) is dropped: whoever makes groups sees to it that all members have made theirs before any of
//! them sends, but to one that is known to have.
//!
//! A message goes straight to the member that it is for and waits in its mail until it is received there. Collective
//! calls are made of such messages, in a number of rounds that grows with the logarithm of the members: a barrier and
//! a gathering double the members heard of in each round, a broadcast and a reduction follow a binomial tree. Calls are
//! numbered by each member for itself, so all must make the same ones in the same order.
//!
//! # Who may write what
//! A mail is written by the handler of messages and by its member's threads, under its lock, which is not held while
//! anything is sent.
//!
//! # Ends
//! - *Closed* by a member: from then on nobody receives anything any more but what has come. All members are told.
//! - *Left* by a member (it says so, or its `Group` is dropped): whoever waits for a message of that member and has
//!   none hears so, since messages of one member come in order.
//! - A member's rank dies: who waits for that member hears so.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fabric::{Fabric, FabricError, LIVENESS_MS, Liveness, PeerState};
use crate::message::{HandlerId, Message, is_handling};
use crate::rank::Rank;
use crate::wire;

const GROUP: HandlerId = HandlerId(HandlerId::RESERVED.0 + 5);

/// Why a member did not get what it waited for.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The group has no such member.
    #[error("there is no member {member}: the group has {size}")]
    NoSuchMember {
        /// The member asked for.
        member: u32,
        /// Members there are.
        size: u32,
    },
    /// A member has closed the group.
    #[error("member {by} has closed the group")]
    Closed {
        /// Who.
        by: u32,
    },
    /// A member has left, and had not sent what this one waits for.
    #[error("member {member} has left the group without sending this: all members must make the same calls")]
    Left {
        /// Who.
        member: u32,
    },
    /// A member makes another collective call.
    #[error(
        "member {member} makes another collective call: all members must make the same, in the same order"
    )]
    Order {
        /// Who.
        member: u32,
    },
    /// Nobody wants to wait any longer.
    #[error("it is not waited for any longer")]
    Over,
    /// The rank of a member, or the way to it.
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

/// A collective call, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Verb {
    Barrier,
    Broadcast,
    Gather,
    Reduce,
}

/// What stands before the payload of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Head {
    Direct(u64),
    Call {
        number: u64,
        round: u32,
        verb: Verb,
    },
    /// By whom first.
    Closed(u32),
    Left,
}

/// Where a message waits, with the member it is from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Slot {
    Direct(u64),
    Call { number: u64, round: u32 },
}

/// The call that a message is of, if of any, and its payload.
type Came = (Option<Verb>, Vec<u8>);

/// What has come for a member.
#[derive(Default)]
struct Mail {
    messages: HashMap<(u32, Slot), VecDeque<Came>>,
    closed_by: Option<u32>,
    left: Vec<u32>,
}

type Shared = Arc<Mutex<Mail>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The groups that this rank is in, by number.
#[derive(Default)]
struct Groups(Mutex<HashMap<u64, Shared>>);

/// Lets this rank be in groups.
pub(super) fn register(fabric: &Fabric) {
    let groups = fabric.state::<Groups>();
    fabric.on(GROUP, move |_, message| {
        let mail = lock(&groups.0).get(&message.tag).cloned();
        if let Some(mail) = mail {
            arrive(&mail, message);
        }
    });
}

fn arrive(mail: &Shared, message: &Message<'_>) {
    let Some(((from, head), payload)) = wire::head::<(u32, Head)>(message.payload) else { return };
    let mut mail = lock(mail);
    let (slot, verb) = match head {
        Head::Direct(tag) => (Slot::Direct(tag), None),
        Head::Call { number, round, verb } => (Slot::Call { number, round }, Some(verb)),
        Head::Closed(by) => {
            mail.closed_by.get_or_insert(by);
            return;
        }
        Head::Left => return mail.left.push(from),
    };
    mail.messages.entry((from, slot)).or_default().push_back((verb, payload.to_vec()));
}

/// A member's place in a group. To be shared by threads, which take turns at collective calls. When it is dropped the
/// member has left.
pub struct Group {
    fabric: Arc<Fabric>,
    number: u64,
    ranks: Box<[Rank]>,
    me: u32,
    mail: Shared,
    calls: AtomicU64,
    has_left: AtomicBool,
}

impl Group {
    /// The place of member `me` in the group with this number, whose members are on `ranks`; this rank must be
    /// `ranks[me]`. See the module's page on when to make it.
    ///
    /// # Panics
    /// If this rank is not that member's, or is in a group of this number.
    pub fn new(fabric: &Arc<Fabric>, number: u64, ranks: &[Rank], me: u32) -> Group {
        assert_eq!(ranks.get(me as usize), Some(&fabric.rank()), "member {me} is on another rank");
        let mail = Shared::default();
        let before = lock(&fabric.state::<Groups>().0).insert(number, Arc::clone(&mail));
        assert!(before.is_none(), "this rank is in group {number} already");
        let (calls, has_left) = (AtomicU64::new(0), AtomicBool::new(false));
        Group { fabric: Arc::clone(fabric), number, ranks: ranks.into(), me, mail, calls, has_left }
    }

    /// Which member this is.
    pub fn member(&self) -> u32 {
        self.me
    }

    /// How many members there are.
    pub fn size(&self) -> u32 {
        self.ranks.len() as u32
    }

    /// The rank of each member.
    pub fn ranks(&self) -> &[Rank] {
        &self.ranks
    }

    // ── one to one ──────────────────────────────────────────────────────────────────────────────────────────

    /// Sends `bytes` to a member, this one maybe, that receives them by the same tag. Does not wait for that.
    ///
    /// # Errors
    /// `NoSuchMember`; `Fabric` as [`Fabric::send`].
    pub fn send(&self, to: u32, tag: u64, bytes: &[u8]) -> Result<(), GroupError> {
        self.tell(to, Head::Direct(tag), bytes)
    }

    /// Waits for the next bytes that a member has sent with this tag. Handlers run meanwhile. `is_over` is asked now
    /// and then whether to go on waiting.
    ///
    /// # Errors
    /// `NoSuchMember`; `Closed`, `Left`; `Over`; `Fabric` with `PeerDead` or `PeerLeft`.
    ///
    /// # Panics
    /// Inside a handler, where it would wait for itself.
    pub fn receive(&self, from: u32, tag: u64, is_over: &dyn Fn() -> bool) -> Result<Vec<u8>, GroupError> {
        self.wait(from, Slot::Direct(tag), None, false, is_over)
    }

    /// As [`Group::receive`], also when the group is closed.
    ///
    /// # Errors
    /// Those of [`Group::receive`] but `Closed`.
    pub fn receive_closed(
        &self,
        from: u32,
        tag: u64,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, GroupError> {
        self.wait(from, Slot::Direct(tag), None, true, is_over)
    }

    // ── all together ────────────────────────────────────────────────────────────────────────────────────────

    /// Returns when all members have called it.
    ///
    /// # Errors
    /// Those of [`Group::receive`]; `Order`.
    pub fn barrier(&self, is_over: &dyn Fn() -> bool) -> Result<(), GroupError> {
        let call = self.call(Verb::Barrier, is_over);
        let (mut round, mut reach, n) = (0, 1, self.size());
        while reach < n {
            call.tell((self.me + reach) % n, round, &[])?;
            call.hear((self.me + n - reach) % n, round)?;
            (round, reach) = (round + 1, reach * 2);
        }
        Ok(())
    }

    /// Returns the bytes of member `root` at every member; those of others are not looked at.
    ///
    /// # Errors
    /// Those of [`Group::receive`]; `Order`.
    pub fn broadcast(
        &self,
        root: u32,
        bytes: &[u8],
        is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, GroupError> {
        let n = self.size();
        if root >= n {
            return Err(GroupError::NoSuchMember { member: root, size: n });
        }
        self.spread(&self.call(Verb::Broadcast, is_over), root, 0, bytes.to_vec())
    }

    /// Returns the bytes of every member, in order, at every member.
    ///
    /// # Errors
    /// Those of [`Group::receive`]; `Order`.
    pub fn all_gather(&self, bytes: &[u8], is_over: &dyn Fn() -> bool) -> Result<Vec<Vec<u8>>, GroupError> {
        let call = self.call(Verb::Gather, is_over);
        let n = self.size();
        // Those of this member and of the next ones, as many as known.
        let mut known: Vec<Vec<u8>> = vec![bytes.to_vec()];
        let (mut round, mut reach) = (0, 1);
        while reach < n {
            let more = (n - reach).min(reach) as usize;
            call.tell((self.me + n - reach) % n, round, &together(&known[..more]))?;
            let from = (self.me + reach) % n;
            let theirs = apart(&call.hear(from, round)?).filter(|theirs| theirs.len() == more);
            known.extend(theirs.ok_or(GroupError::Order { member: from })?);
            (round, reach) = (round + 1, reach * 2);
        }
        known.rotate_right(self.me as usize);
        Ok(known)
    }

    /// Combines the bytes of all members in their order, two neighbours at a time, and returns what comes of it at
    /// every member: the same everywhere, and in every call with the same bytes.
    ///
    /// # Errors
    /// Those of [`Group::receive`]; `Order`.
    pub fn all_reduce(
        &self,
        bytes: Vec<u8>,
        combine: &mut dyn FnMut(Vec<u8>, Vec<u8>) -> Vec<u8>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, GroupError> {
        let call = self.call(Verb::Reduce, is_over);
        let (mut round, mut reach, n) = (0, 1, self.size());
        let mut known = bytes;
        while reach < n && self.me & reach == 0 {
            if self.me + reach < n {
                known = combine(known, call.hear(self.me + reach, round)?);
            }
            (round, reach) = (round + 1, reach * 2);
        }
        if self.me != 0 {
            call.tell(self.me - reach, round, &known)?;
        }
        // Rounds of the way back are told apart from those of the way there.
        self.spread(&call, 0, u32::BITS, known)
    }

    /// From `root` along a binomial tree.
    fn spread(&self, call: &Call<'_>, root: u32, round: u32, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        let n = self.size();
        let (place, member) = ((self.me + n - root) % n, |place: u32| (place + root) % n);
        let mut reach = 1;
        let mut known = bytes;
        while reach < n && place & reach == 0 {
            reach *= 2;
        }
        if place != 0 {
            known = call.hear(member(place - reach), round)?;
        }
        while reach > 1 {
            reach /= 2;
            if place + reach < n {
                call.tell(member(place + reach), round, &known)?;
            }
        }
        Ok(known)
    }

    fn call<'c>(&'c self, verb: Verb, is_over: &'c dyn Fn() -> bool) -> Call<'c> {
        // Only draws a number.
        Call { group: self, number: self.calls.fetch_add(1, Ordering::Relaxed), verb, is_over }
    }

    // ── its end ─────────────────────────────────────────────────────────────────────────────────────────────

    /// Closes the group: nobody waits for a message any more. Who has closed it is the first of whom this member knows.
    pub fn close(&self) {
        let by = *lock(&self.mail).closed_by.get_or_insert(self.me);
        // Who is gone needs not be told; this rank is, for who sleeps there.
        (0..self.size()).for_each(|member| drop(self.tell(member, Head::Closed(by), &[])));
    }

    /// Says that this member sends nothing more that another waits for; it may go on receiving.
    pub fn leave(&self) {
        if !self.has_left.swap(true, Ordering::Relaxed) {
            let others = (0..self.size()).filter(|member| *member != self.me);
            // Who is gone needs not be told.
            others.for_each(|member| drop(self.tell(member, Head::Left, &[])));
        }
    }

    /// Who has closed it.
    pub fn closed_by(&self) -> Option<u32> {
        lock(&self.mail).closed_by
    }

    // ── messages ────────────────────────────────────────────────────────────────────────────────────────────

    fn tell(&self, to: u32, head: Head, payload: &[u8]) -> Result<(), GroupError> {
        let no_such = || GroupError::NoSuchMember { member: to, size: self.size() };
        let rank = *self.ranks.get(to as usize).ok_or_else(no_such)?;
        let mut bytes = wire::encode(&(self.me, head)).expect("a head can be written");
        bytes.extend_from_slice(payload);
        Ok(self.fabric.send(rank, GROUP, self.number, &bytes)?)
    }

    fn wait(
        &self,
        from: u32,
        slot: Slot,
        verb: Option<Verb>,
        also_closed: bool,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, GroupError> {
        assert!(!is_handling(), "a handler that waits for a message would wait for itself");
        let no_such = || GroupError::NoSuchMember { member: from, size: self.size() };
        let rank = *self.ranks.get(from as usize).ok_or_else(no_such)?;
        let (mut liveness, mut is_gone) = (Liveness::new(), None);
        loop {
            if let Some(bytes) = self.take(from, slot, verb, also_closed)? {
                return Ok(bytes);
            }
            // It was gone before this look at the mail, which has all that it had sent.
            if let Some(error) = is_gone {
                return Err(error);
            }
            if is_over() {
                return Err(GroupError::Over);
            }
            if liveness.is_due() {
                self.fabric.check_peers();
            }
            if self.fabric.peer(rank) != PeerState::Here {
                self.fabric.progress();
                is_gone = self.fabric.expect_here(rank).err().map(GroupError::from);
                continue;
            }
            self.fabric.wait(Duration::from_millis(LIVENESS_MS));
        }
    }

    /// What has come from a member, if anything has.
    fn take(
        &self,
        from: u32,
        slot: Slot,
        verb: Option<Verb>,
        also_closed: bool,
    ) -> Result<Option<Vec<u8>>, GroupError> {
        let mut mail = lock(&self.mail);
        if let Some(queue) = mail.messages.get_mut(&(from, slot)) {
            let first = queue.pop_front();
            if queue.is_empty() {
                mail.messages.remove(&(from, slot));
            }
            if let Some((theirs, bytes)) = first {
                return if theirs == verb {
                    Ok(Some(bytes))
                } else {
                    Err(GroupError::Order { member: from })
                };
            }
        }
        if let Slot::Call { number: mine, .. } = slot {
            let other = |(from, slot): &(u32, Slot), theirs: &VecDeque<Came>| {
                let is_this = matches!(slot, Slot::Call { number, .. } if *number == mine);
                (is_this && theirs.iter().any(|(theirs, _)| *theirs != verb)).then_some(*from)
            };
            if let Some(member) = mail.messages.iter().find_map(|(key, theirs)| other(key, theirs)) {
                return Err(GroupError::Order { member });
            }
        }
        match mail.closed_by {
            Some(by) if !also_closed => Err(GroupError::Closed { by }),
            _ if mail.left.contains(&from) => Err(GroupError::Left { member: from }),
            _ => Ok(None),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        lock(&self.fabric.state::<Groups>().0).remove(&self.number);
        self.leave();
    }
}

/// Several payloads as one: their lengths, and all after each other.
fn together(all: &[Vec<u8>]) -> Vec<u8> {
    let lens: Vec<u64> = all.iter().map(|one| one.len() as u64).collect();
    [wire::encode(&lens).expect("numbers can be written"), all.concat()].concat()
}

/// The payloads again; `None` if that is none.
fn apart(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (lens, mut rest) = wire::head::<Vec<u64>>(bytes)?;
    let mut next = |len: u64| {
        let (one, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        rest = after;
        Some(one.to_vec())
    };
    lens.into_iter().map(&mut next).collect()
}

/// One collective call.
struct Call<'g> {
    group: &'g Group,
    number: u64,
    verb: Verb,
    is_over: &'g dyn Fn() -> bool,
}

impl Call<'_> {
    fn tell(&self, to: u32, round: u32, bytes: &[u8]) -> Result<(), GroupError> {
        self.group.tell(to, Head::Call { number: self.number, round, verb: self.verb }, bytes)
    }

    fn hear(&self, from: u32, round: u32) -> Result<Vec<u8>, GroupError> {
        let slot = Slot::Call { number: self.number, round };
        self.group.wait(from, slot, Some(self.verb), false, self.is_over)
    }
}
