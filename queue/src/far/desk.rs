//! Where a porter sits: who does its work, and when.
//!
//! A porter is no thread but a state with a seat in the queue's memory (`transport::agent::Seat`), and whoever has the
//! lock of its *desk* works as it. Two do so:
//! - The *handler* of a message, which puts the letter into the mailbox and, if nobody is at the desk, does at once all
//!   that can be done without waiting. Most requests need nothing else, so that an operation from afar costs a round
//!   trip and what it costs at home, and wakes nobody.
//! - The porter's *thread*, which sleeps for those who must wait: for items, for room, for the end. A handler that
//!   leaves somebody waiting whom the thread does not know of wakes it.
//!
//! A handler never waits for the desk: if the thread sits there, the letter stays and the bell is rung, and the thread
//! reads it before it sleeps. So the thread may send, which runs handlers, while it is at the desk. Nothing else has
//! the lock of the desk, and who has it takes no lock but the mailbox's and those of the queue's memory.
//!
//! All letters are read in the order in which they came, by whoever reads them.

use super::message::{Answer, Refusal, close};
use super::porter::Porter;
use super::served::{Letter, Mailbox, Served};
use crate::descriptor::Descriptor;
use crate::layout::Attached;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tarragon_transport::Fabric;
use tarragon_transport::agent::Seat;
use tarragon_transport::doorbell::{Doorbell, Woken, spin, wait_any};

/// A porter and its seat.
pub(super) struct Desk {
    seat: Seat,
    porter: Porter,
}

/// What the thread sleeps on, and how long at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) for_items: bool,
    pub(super) for_room: bool,
    pub(super) for_the_end: bool,
    pub(super) until: Instant,
}

impl Plan {
    /// Whether who sleeps so will wake when somebody with the other plan should.
    pub(super) fn covers(&self, other: &Plan) -> bool {
        let bells = (self.for_items >= other.for_items) & (self.for_room >= other.for_room);
        bells & (self.for_the_end >= other.for_the_end) & (self.until <= other.until)
    }
}

/// Lets a handler do what can be done about what is in the mailbox.
pub(super) fn attend(mailbox: &Mailbox) {
    let is_done = mailbox.try_desk().is_some_and(|mut desk| {
        desk.as_mut().is_some_and(|Desk { seat, porter }| seat.within(|| porter.attend()).unwrap_or(false))
    });
    if !is_done {
        mailbox.bell.ring();
    }
}

/// The porter's thread: runs until no far handle is left.
pub(super) fn run(fabric: &Weak<Fabric>, descriptor: &Descriptor, mailbox: &Arc<Mailbox>) {
    let uid = descriptor.segment.uid;
    let opened = descriptor.open("a far handle").and_then(|queue| Ok((queue.segment.seat()?, queue)));
    match opened {
        Ok((seat, queue)) => {
            let queue = Arc::new(queue);
            let porter = Porter::new(fabric, &queue, mailbox);
            *mailbox.desk() = Some(Desk { seat, porter });
            work(fabric, &queue, mailbox);
            *mailbox.desk() = None;
        }
        Err(error) => refuse(fabric, mailbox, error.into()),
    }
    if let Some(fabric) = fabric.upgrade() {
        fabric.state::<Served>().remove(uid, mailbox);
    }
}

/// There is no queue: says so to all who ask.
fn refuse(fabric: &Weak<Fabric>, mailbox: &Mailbox, first: Refusal) {
    let mut refusal = first;
    while !mailbox.close_empty() {
        for letter in mailbox.take() {
            if let (Letter::Asked(rank, tag, ..), Some(fabric)) = (letter, fabric.upgrade()) {
                let refused = std::mem::replace(&mut refusal, Refusal::Gone);
                // Who asked is gone if it cannot be told.
                let _ = fabric.respond_to(rank, tag, &close(Vec::new(), &Answer::Refused(refused)));
            }
        }
    }
}

/// At the desk, in the thread. A thread that runs this does not end, so the seat never refuses.
fn sit<R: Send>(mailbox: &Mailbox, act: impl FnOnce(&mut Porter) -> R + Send) -> Option<R> {
    let mut desk = mailbox.desk();
    let Desk { seat, porter } = desk.as_mut()?;
    seat.within(|| act(porter)).ok()
}

fn work(fabric: &Weak<Fabric>, queue: &Attached, mailbox: &Mailbox) {
    while let Some(Some((plan, is_idle))) = sit(mailbox, Porter::turn) {
        sleep(fabric, queue, mailbox, plan, is_idle);
    }
}

/// Until there is something to do.
fn sleep(fabric: &Weak<Fabric>, queue: &Attached, mailbox: &Mailbox, plan: Plan, is_idle: bool) {
    let view = queue.view();
    let waits = [
        (true, &mailbox.bell),
        (plan.for_items, &view.control.items),
        (plan.for_room, &view.control.space),
        (plan.for_the_end, &view.control.finished),
    ];
    let waits_long = plan.for_items | plan.for_room | plan.for_the_end;
    let bells: Vec<&Doorbell> = waits.iter().filter(|it| it.0).map(|it| it.1).collect();
    let serve = || {
        // Handlers that find nobody there do all that need not be waited for.
        mailbox.has_letters() || (waits_long && sit(mailbox, Porter::serve).unwrap_or(true))
    };
    if let Some(fabric) = fabric.upgrade() {
        // More may come soon of those who were just served; if not, others are to look from now on.
        let mut has_more = || fabric.progress() > 0 || serve();
        if is_idle || !spin(Some(plan.until), &mut has_more) {
            fabric.wait(Duration::ZERO);
        }
    }
    match wait_any(&bells, Some(plan.until), serve) {
        Woken::Spun => {}
        // Others may wait for what is left.
        Woken::Rung => {
            if view.has_item() {
                view.control.items.ring();
            }
            if plan.for_room {
                view.control.space.ring();
            }
        }
        Woken::Timeout if bells.len() > 1 => {
            queue.segment.recover(&view);
        }
        Woken::Timeout => {}
    }
}
