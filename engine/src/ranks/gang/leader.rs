//! The leader's side: musters the members, lets all go on, and gathers what came of it.

use super::member::Member;
use super::{GO, Gang, Led, Muster, RETURNED, Returned, SEATED};
use crate::body::Verdict;
use crate::error::Cause;
use crate::ranks::message::{self, Came, Kind};
use crate::ranks::{Ranks, pack};
use crate::run::{Run, Wanted};
use crate::task::output::Output;
use crate::task::record::Ref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tarragon_transport::{Group, GroupError, Rank, wire::head};

/// What a body is in its gang.
pub(crate) enum Role {
    Leader(Leader),
    Member(Arc<Gang>),
}

/// A gang that has assembled, until its leader's body and all members have come back.
pub(crate) struct Leader {
    ranks: Arc<Ranks>,
    number: u64,
    gang: Arc<Gang>,
    task: Ref,
}

/// What came of an attempt: a verdict, and of a failure the rank that it was on, if that was another.
pub(crate) type Ended = (Verdict, Option<u32>);

/// Before a body that holds what it needs is called: the gang that it runs in, if it does, once all members are there.
/// `over` is set when the time of the attempt is up.
pub(crate) fn join(run: &Arc<Run>, task: Ref, over: &Arc<AtomicBool>) -> Result<Option<Role>, Cause> {
    if let Some(member) = run.plan.member.get().and_then(Weak::<Member>::upgrade) {
        return member.take_seat().map(|gang| Some(Role::Member(gang)));
    }
    match task.gang() {
        1 => Ok(None),
        members => Leader::assemble(run, task, members, over).map(|leader| Some(Role::Leader(leader))),
    }
}

impl Role {
    pub(crate) fn gang(&self) -> &Arc<Gang> {
        match self {
            Role::Leader(leader) => &leader.gang,
            Role::Member(gang) => gang,
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        matches!(self, Role::Leader(_))
    }

    /// The body has come back. A leader waits for the other members, unless it is given up.
    pub(crate) fn finish(self, verdict: Verdict, is_given_up: &dyn Fn() -> bool) -> Ended {
        // Also if it returned because it is not wanted: nobody is to take that for a member that makes other calls.
        if matches!(verdict, Verdict::Failed(_)) || self.gang().is_over() {
            self.gang().close();
        }
        match self {
            Role::Member(_) => (verdict, None),
            Role::Leader(leader) => leader.finish(verdict, is_given_up),
        }
    }
}

impl Leader {
    fn assemble(run: &Arc<Run>, task: Ref, members: u32, over: &Arc<AtomicBool>) -> Result<Leader, Cause> {
        let shared = &run.plan.shared;
        let lone = || Cause::Error("a gang needs the ranks of a world".into());
        let ranks = shared.ranks.as_ref().ok_or_else(lone)?;
        let me = ranks.rank();
        let live = ranks.live().into_iter().map(u32::from).filter(|rank| *rank >= me);
        let all: Vec<Rank> = live.take(members as usize).map(Rank).collect();
        if all.len() < members as usize {
            let (rank, why) = ranks.last_loss(me + all.len() as u32);
            let why = format!("{why}; of {members} ranks from rank {me} on only {} are left", all.len());
            return Err(Cause::RankLost { rank: rank.0, host: ranks.host(rank), why });
        }
        let leader = Leader::new(ranks, run, task, &all, over);
        let call = leader.call(run, task)?;
        leader.muster(&|_| &call)?;
        Ok(leader)
    }

    /// Of the gang that these ranks are to be, this one the first.
    pub(super) fn new(
        ranks: &Arc<Ranks>,
        run: &Arc<Run>,
        task: Ref,
        all: &[Rank],
        over: &Arc<AtomicBool>,
    ) -> Leader {
        let me = ranks.rank();
        // Apart from the numbers of gifts. Only draws a number.
        let next = ranks.gangs.next.fetch_add(1, Ordering::Relaxed);
        let number = 1 << 63 | u64::from(me) << 32 | u64::from(next);
        let group = Group::new(&ranks.world.shared_fabric(), number, all, 0);
        let wanted = Wanted::new(&run.stop, task, Some(over));
        let gang = Arc::new(Gang::of(group, wanted, me));
        let led = Led { run: Arc::clone(run), task, gang: Arc::clone(&gang) };
        ranks.gangs.led.lock().insert(number, led);
        // From here on whoever stops the task closes the gang.
        Leader { ranks: Arc::clone(ranks), number, gang, task }
    }

    /// A call for members, as bytes.
    pub(super) fn call(&self, run: &Run, task: Ref) -> Result<Vec<u8>, Cause> {
        let mut gift = pack::Gifts::new();
        let index = run.plan.position(task).unwrap_or_else(|| task.index());
        // What serde does for the user's types is the user's code.
        let is_written = catch_unwind(AssertUnwindSafe(|| gift.add_member(index, task)));
        if !is_written.unwrap_or(false) {
            return Err(Cause::Error(
                "its arguments cannot be written for the other ranks of its gang".into(),
            ));
        }
        Ok(gift.finish(&run.plan.shared.setup))
    }

    /// Has all members take their seats, one after the other, and lets them go on. If that fails, none of them does.
    pub(super) fn muster<'c>(&self, call: &dyn Fn(u32) -> &'c [u8]) -> Result<(), Cause> {
        self.try_to_muster(call).inspect_err(|_| {
            self.gang.close();
            self.ranks.dismiss(self.number, &self.gang);
        })
    }

    fn try_to_muster<'c>(&self, call: &dyn Fn(u32) -> &'c [u8]) -> Result<(), Cause> {
        let (gang, group) = (&self.gang, self.gang.group());
        let ranks = gang.ranks();
        for (member, rank) in (0..).zip(&ranks).skip(1) {
            let head = Muster { ranks: ranks.clone(), member };
            let bytes = [&message::bytes(&head), call(member)].concat();
            self.ranks.tell(Rank(*rank), Kind::Muster, self.number, &bytes);
            group.receive(member, SEATED, &|| gang.is_over()).map_err(|error| self.cause(member, error))?;
        }
        for member in 1..group.size() {
            group.post(member, GO, &[]).map_err(|error| self.cause(member, error))?;
        }
        Ok(())
    }

    /// What a member says by a tag.
    pub(super) fn hear(&self, member: u32, tag: u64) -> Result<Vec<u8>, Cause> {
        let heard = self.gang.group().receive(member, tag, &|| self.gang.is_over());
        heard.map_err(|error| self.cause(member, error))
    }

    /// Members that wait for it hear that it is gone.
    pub(super) fn leave(&self) {
        self.gang.group().leave();
    }

    fn cause(&self, member: u32, error: GroupError) -> Cause {
        match error {
            // One that leaves before it has said anything was told to stop where it is.
            GroupError::Closed { .. } | GroupError::Over | GroupError::Left { .. } => Cause::Cancelled,
            error => {
                let rank = self.gang.ranks().get(member as usize).copied().unwrap_or_default();
                let host = self.ranks.host(Rank(rank));
                Cause::RankLost { rank, host, why: error.to_string() }
            }
        }
    }

    fn finish(self, verdict: Verdict, is_given_up: &dyn Fn() -> bool) -> Ended {
        let group = self.gang.group();
        // Members that still wait for its body hear so.
        group.leave();
        let (mut failed, mut wrote) = (Vec::new(), [Vec::new(), Vec::new()]);
        for member in 1..group.size() {
            match group.receive_closed(member, RETURNED, is_given_up) {
                Ok(bytes) => failed.extend(self.returned(member, &bytes, &mut wrote)),
                Err(GroupError::Over) => {
                    // Whoever has given it up may not have found it any more.
                    self.gang.close();
                    self.ranks.dismiss(self.number, &self.gang);
                    return (verdict, None);
                }
                Err(error) => failed.push((member, self.cause(member, error), None)),
            }
        }
        self.append(&wrote);
        let closer = group.closed_by().filter(|closer| *closer != 0);
        let is_own = matches!(verdict, Verdict::Failed(_)) && closer.is_none();
        if is_own || failed.is_empty() {
            return (verdict, None);
        }
        // Of several the one that the others stopped for, else one that is no consequence of another.
        let first = failed.iter().position(|(member, ..)| Some(*member) == closer);
        let root = || failed.iter().position(|(_, cause, _)| !matches!(cause, Cause::Cancelled));
        let (_, cause, rank) = failed.swap_remove(first.or_else(root).unwrap_or(0));
        if matches!(verdict, Verdict::Done) {
            self.task.drop_late_value();
        }
        (Verdict::Failed(Box::new(cause)), rank)
    }

    /// Why a member failed, and on which rank, if it did.
    fn returned(
        &self,
        member: u32,
        bytes: &[u8],
        wrote: &mut [Vec<u8>; 2],
    ) -> Option<(u32, Cause, Option<u32>)> {
        let unreadable = || Some((member, Cause::Error("a member's end cannot be read".into()), None));
        let Some((Returned { came, lens }, mut rest)) = head::<Returned>(bytes) else { return unreadable() };
        for (wrote, len) in wrote.iter_mut().zip(lens) {
            let Some((some, after)) = rest.split_at_checked(len as usize) else { return unreadable() };
            wrote.extend_from_slice(some);
            rest = after;
        }
        let Came::Badly { why, .. } = came else { return None };
        let failure = why.failure(&|_| Some(self.task.index()));
        let Some(mut failure) = Arc::into_inner(failure) else { return unreadable() };
        let cause = std::mem::replace(&mut failure.cause, Cause::Cancelled);
        Some((member, cause, Some(failure.rank)))
    }

    /// What the members wrote follows what the leader has.
    fn append(&self, wrote: &[Vec<u8>; 2]) {
        let ([out, err], index) = (wrote, self.task.index());
        let Some(cohort) = self.task.cohort() else { return };
        if cohort.with_output(index, |output| output.add(out, err)).is_none() {
            cohort.keep_output(index, Output::of_bytes(out, err));
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.ranks.gangs.led.lock().remove(&self.number);
    }
}
