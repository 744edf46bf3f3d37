//! A member's side: a plan of the one call, which takes a seat and then waits for all others.

use super::{GO, Gang, Muster, RETURNED, Returned, SEATED};
use crate::error::Cause;
use crate::function::wire::WireError;
use crate::ranks::clerk::{Order, came_of, is_over};
use crate::ranks::message::{self, Came};
use crate::ranks::unpack::{self, Unpacked};
use crate::ranks::{Ranks, Setup};
use crate::run::Wanted;
use crate::shared::Shared;
use crate::task::output::Which;
use crate::task::record::{Ref, state};
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use tarragon_transport::{Group, Rank, wire::head};

/// A gang that this rank is a member of.
pub(crate) struct Member {
    ranks: Arc<Ranks>,
    number: u64,
    gang: Mutex<Option<Arc<Gang>>>,
    /// Its place in the group, until it runs.
    group: Mutex<Option<Group>>,
    /// Until it has ended.
    unpacked: Mutex<Option<Unpacked>>,
}

impl Ranks {
    /// Another rank wants this one in a gang.
    pub(in crate::ranks) fn muster(
        self: &Arc<Self>,
        number: u64,
        bytes: &[u8],
        batch: &mut dyn FnMut(&Setup) -> Result<Arc<Shared>, String>,
    ) -> Result<(), String> {
        let text = |error: WireError| error.to_string();
        let (Muster { ranks, member }, call) =
            head::<Muster>(bytes).ok_or_else(|| "it is mustered by bytes that are none".to_string())?;
        let (head, tasks) = unpack::open(call).map_err(text)?;
        let shared = batch(&head.setup)?;
        let unpacked = unpack::unpack_gift(&shared, &head, tasks).map_err(text)?;
        let (owned, task) = (unpacked.owned.clone(), unpacked.wanted().next());
        let task = task.ok_or_else(|| "it is mustered for no task".to_string())?;
        let ranks: Vec<Rank> = ranks.into_iter().map(Rank).collect();
        let group = Group::new(&self.world.shared_fabric(), number, &ranks, member);
        let member = Arc::new(Member {
            ranks: Arc::clone(self),
            number,
            gang: Mutex::default(),
            group: Mutex::new(Some(group)),
            unpacked: Mutex::new(Some(unpacked)),
        });
        let _ = owned.plan().member.set(Arc::downgrade(&member));
        self.gangs.joined.lock().insert(number, Arc::downgrade(&member));
        owned.start(false).map_err(|error| error.to_string())?;
        let ended = Box::new(move || member.ended(task));
        shared.awaited.when_ended(task, move || is_over(task), ended);
        Ok(())
    }

    /// A gang that this rank is a member of is not wanted any more; false if it is in none of this number.
    pub(in crate::ranks) fn dismissed(&self, number: u64) -> bool {
        let Some(member) = self.gangs.joined.lock().get(&number).cloned() else { return false };
        let run = member.upgrade().and_then(|member| {
            let unpacked = member.unpacked.lock();
            unpacked.as_ref().and_then(|unpacked| unpacked.owned.plan().cohort.run())
        });
        if let Some(run) = run {
            run.cancel(None);
        }
        true
    }
}

impl Member {
    /// It holds what it needs: says so, and waits for the others.
    pub(super) fn take_seat(&self) -> Result<Arc<Gang>, Cause> {
        let group = self.group.lock().take().ok_or(Cause::Cancelled)?;
        let wanted = {
            let unpacked = self.unpacked.lock();
            let plan = unpacked.as_ref().map(|unpacked| unpacked.owned.plan());
            let task = unpacked.as_ref().and_then(|unpacked| unpacked.wanted().next());
            let run = plan.and_then(|plan| plan.cohort.run());
            run.zip(task).map(|(run, task)| Wanted::new(&run.stop, task, None)).ok_or(Cause::Cancelled)?
        };
        let gang = Arc::new(Gang::of(group, wanted, self.ranks.rank()));
        *self.gang.lock() = Some(Arc::clone(&gang));
        let lost = |why: &dyn std::fmt::Display| Cause::Error(format!("its gang is gone: {why}").into());
        gang.group().post(0, SEATED, &[]).map_err(|error| lost(&error))?;
        match gang.group().receive(0, GO, &|| gang.is_over()) {
            Ok(_) => Ok(gang),
            // The leader says why.
            Err(_) => Err(Cause::Cancelled),
        }
    }

    /// The task has ended; called by whoever ended it, with locks of its batch.
    fn ended(self: Arc<Self>, task: Ref) {
        let Some(cohort) = task.cohort() else { return };
        // The leader's value is the one that counts.
        let is_done = task.head().status.load(Ordering::Acquire) & !state::PARITY == state::DONE;
        let came = if is_done { Came::Well } else { came_of(cohort, task).0 };
        let wrote = [Which::Out, Which::Err].map(|which| {
            let bytes = cohort.with_output(task.index(), |output| output.bytes(which));
            bytes.and_then(Result::ok).unwrap_or_default()
        });
        let returned = Returned { came, lens: wrote.each_ref().map(|wrote| wrote.len() as u64) };
        let bytes = [&message::bytes(&returned), &wrote[0], &wrote[1]].map(Vec::as_slice).concat();
        self.ranks.gangs.joined.lock().remove(&self.number);
        let (gang, group) = (self.gang.lock().take(), self.group.lock().take());
        let group = gang.as_ref().map(|gang| gang.group()).or(group.as_ref());
        // A leader that is gone needs not be told. It may not wait for room in the leader's mail.
        group.into_iter().for_each(|group| drop(group.post(0, RETURNED, &bytes)));
        // What drops with it is the user's.
        let unpacked = self.unpacked.lock().take();
        drop(unpacked);
        // Without a clerk nobody serves any more.
        let _ = self.ranks.orders.send(Order::Dismissed { number: self.number });
    }
}

/// As a plan has it.
pub(crate) type OfPlan = std::sync::OnceLock<Weak<Member>>;
