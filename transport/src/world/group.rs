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
//! # Credits
//! What waits in a mail has a bound for each sender: [`MAIL_BYTES_MAX`] of messages to one, as much of collective
//! calls, and one message of each beyond. A sender has a *credit* of so many bytes that it has sent and does not know
//! to be received; who receives tells it each time that half of that was. Who has none waits, and hears meanwhile of
//! what ends the wait of a receiver. Less than a half is untold at any time, so who waits always has messages there
//! which, received, are told.
//!
//! Collective calls have a credit of their own, so messages that a member receives after a call hold up no call. No
//! circle of members waits for credit of calls: of these the one at the earliest call and round waits for a member
//! that has not received messages of an earlier one, so is at an earlier one itself. A circle of messages to one is the
//! users': each sends the other more than that before it receives, or receives by another tag first.
//!
//! What a member sends to itself has no credit, since it may be the one who waits: it takes memory of its own. What is
//! *posted* has none either: for a few messages of who must not wait.
//!
//! # Who may write what
//! A mail is written by the handler of messages and by its member's threads, under its lock, which is not held while
//! anything is sent.
//!
//! # Ends
//! - *Closed* by a member: from then on nobody receives anything any more but what has come. All members are told.
//! - *Left* by a member (it says so, or its `Group` is dropped): whoever waits for a message of that member and has
//!   none hears so, since messages of one member come in order. What is sent to it is dropped, but for what is posted,
//!   and nobody waits for credit there.
//! - A member's rank dies: who waits for that member hears so.

mod mail;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fabric::{Fabric, FabricError, LIVENESS_MS, Liveness, PeerState};
use crate::message::{HandlerId, is_handling};
use crate::rank::Rank;
use crate::wire;
use mail::{Head, Mail, Slot};

/// Bytes that one member may have sent to another, directly or in collective calls, and not know to be received; as
/// many of each. Each message counts for 64 bytes more than it has.
pub const MAIL_BYTES_MAX: u64 = 4 << 20;

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
        let came = wire::head::<(u32, Head)>(message.payload);
        if let (Some(mail), Some(((from, head), payload))) = (mail, came) {
            lock(&mail).arrive(from, head, payload);
        }
    });
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
}

impl Group {
    /// The place of member `me` in the group with this number, whose members are on `ranks`; this rank must be
    /// `ranks[me]`. See the module's page on when to make it.
    ///
    /// # Panics
    /// If this rank is not that member's, or is in a group of this number.
    pub fn new(fabric: &Arc<Fabric>, number: u64, ranks: &[Rank], me: u32) -> Group {
        assert_eq!(ranks.get(me as usize), Some(&fabric.rank()), "member {me} is on another rank");
        let mail = Arc::new(Mutex::new(Mail::of(ranks.len())));
        let before = lock(&fabric.state::<Groups>().0).insert(number, Arc::clone(&mail));
        assert!(before.is_none(), "this rank is in group {number} already");
        let calls = AtomicU64::new(0);
        Group { fabric: Arc::clone(fabric), number, ranks: ranks.into(), me, mail, calls }
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

    /// Sends `bytes` to a member, this one maybe, that receives them by the same tag. Does not wait for that; but while
    /// another member has [`MAIL_BYTES_MAX`] bytes or more of this one's to receive; handlers run meanwhile, and
    /// `is_over` is asked now and then whether to go on waiting. Two members that send each other more than that before
    /// they receive wait for each other.
    ///
    /// # Errors
    /// `NoSuchMember`; `Fabric` as [`Fabric::send`]. Of one that waits also `Closed`, `Over`, and `Fabric` with
    /// `PeerDead` or `PeerLeft`.
    ///
    /// # Panics
    /// Inside a handler, if it must wait.
    pub fn send(
        &self,
        to: u32,
        tag: u64,
        bytes: &[u8],
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), GroupError> {
        if to == self.me {
            return self.post(to, tag, bytes);
        }
        self.draw(to, Head::Direct(tag), bytes, is_over)?;
        self.tell(to, Head::Direct(tag), bytes)
    }

    /// As [`Group::send`], but never waits and does not count: for who must not wait and sends little.
    ///
    /// # Errors
    /// `NoSuchMember`; `Fabric` as [`Fabric::send`].
    pub fn post(&self, to: u32, tag: u64, bytes: &[u8]) -> Result<(), GroupError> {
        self.tell(to, Head::Posted(tag), bytes)
    }

    /// Bytes that have come and were not received yet.
    pub fn mail_bytes(&self) -> u64 {
        lock(&self.mail).bytes()
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

    /// Says that this member sends nothing more that another waits for. It receives only what is
    /// [posted](Group::post) from now on: all else that has come, or comes, is dropped, and nobody waits for credit.
    pub fn leave(&self) {
        if lock(&self.mail).leave() {
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

    /// Waits for credit, if there is none.
    fn draw(&self, to: u32, head: Head, bytes: &[u8], is_over: &dyn Fn() -> bool) -> Result<(), GroupError> {
        let Some(kind) = head.kind() else { return Ok(()) };
        self.until(to, is_over, || Ok(lock(&self.mail).draw(to, kind, bytes)?.then_some(())))
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
        let (bytes, told) =
            self.until(from, is_over, || lock(&self.mail).take(from, slot, verb, also_closed))?;
        if let Some(told) = told {
            // Who is gone needs not be told.
            let _ = self.tell(from, told, &[]);
        }
        Ok(bytes)
    }

    /// Waits for something of another member.
    fn until<R>(
        &self,
        other: u32,
        is_over: &dyn Fn() -> bool,
        mut look: impl FnMut() -> Result<Option<R>, GroupError>,
    ) -> Result<R, GroupError> {
        let no_such = || GroupError::NoSuchMember { member: other, size: self.size() };
        let rank = *self.ranks.get(other as usize).ok_or_else(no_such)?;
        let (mut liveness, mut is_gone) = (Liveness::new(), None);
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            // It was gone before this look at the mail, which has all that it had sent.
            if let Some(error) = is_gone {
                return Err(error);
            }
            assert!(!is_handling(), "a handler that waits for credit would wait for itself");
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
        let head = Head::Call { number: self.number, round, verb: self.verb };
        self.group.draw(to, head, bytes, self.is_over)?;
        self.group.tell(to, head, bytes)
    }

    fn hear(&self, from: u32, round: u32) -> Result<Vec<u8>, GroupError> {
        let slot = Slot::Call { number: self.number, round };
        self.group.wait(from, slot, Some(self.verb), false, self.is_over)
    }
}
