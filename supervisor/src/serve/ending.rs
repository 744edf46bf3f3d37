//! How trees end: by themselves, or killed.
//!
//! The tree of a process: itself while it was not reaped, the members of its group that descend from the supervisor,
//! the supervisor's adopted children that bear its mark, and all below any of these.
//!
//! | state | what leads out of it |
//! |---|---|
//! | runs | main process reaped, group empty: told as ended. Group not empty, or to be killed: being killed |
//! | being killed | a look finds the main process reaped and no tree, or KILL was sent for 5 s: told as ended |
//!
//! The group of a main process that was not reaped is signalled at once and as one: its number cannot be another's.
//! What else is in the tree is found by a look, one scan for all trees that are being killed: TERM at the first one,
//! nothing until grace is over, then KILL at each. Processes that are born meanwhile are found by the next look; only a
//! look that finds none ends it. Looks follow the ends of children, and else a clock; they take at most a third of the
//! supervisor's time.

use std::collections::HashMap;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::reap::{self, Exit};
use super::start::Predecessor;
use super::tasks::Task;
use super::{NEVER, Server, nanos, now_ns};
use crate::event::{Ended, Event};
use crate::proc::{Process, Scan};
use crate::request::Why;

/// How long leftovers may take between TERM and KILL.
const LEFTOVERS_GRACE_MAX: Duration = Duration::from_secs(1);
/// How long all trees may take when the engine is gone.
const LAST_GRACE_NS: u64 = 200_000_000;
/// How long a process is sent KILL before it counts as unkillable: it sleeps in the system, or is another user's.
const KILLING_NS: u64 = 5_000_000_000;
/// The pause between looks if nothing happens.
const LOOK_PAUSE_NS: u64 = 10_000_000;
/// The same while a tree has its grace.
const GRACE_PAUSE_NS: u64 = 30_000_000;
/// The pause between looks if children end.
const LOOK_PAUSE_MIN_NS: u64 = 1_000_000;

/// How far the killing of a tree is.
pub(super) struct Ending {
    /// When KILL follows TERM.
    kill_ns: u64,
    /// TERM was sent.
    asked: bool,
    /// The processes that were there after the main one was reaped: pid and start.
    leftovers: Vec<(u32, u64)>,
}

/// When to look at the trees that are being killed.
pub(super) struct Clock {
    due_ns: u64,
    /// When the last look was over, and how long it took.
    looked_ns: u64,
    cost_ns: u64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { due_ns: NEVER, looked_ns: 0, cost_ns: 0 }
    }
}

impl Clock {
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Makes the next look come as soon as may be.
    fn hurry(&mut self) {
        let pause = LOOK_PAUSE_MIN_NS.max(2 * self.cost_ns);
        self.due_ns = self.due_ns.min(self.looked_ns + pause);
    }
}

impl Server {
    /// Takes note of all children that have ended, and of what follows.
    pub(super) fn reap(&mut self) {
        // All first: a group may hold others that have ended, and is empty once they are reaped.
        let mut ended = Vec::new();
        while let Some((pid, exit)) = reap::next() {
            ended.extend(self.tasks.main_ended(pid, exit, now_ns()));
        }
        for id in ended {
            self.main_ended(id);
        }
        if self.ending.due_ns != NEVER {
            self.ending.hurry();
        }
    }

    fn main_ended(&mut self, id: u64) {
        let task = self.tasks.get(id).expect("it has just ended");
        if task.ending.is_some() {
            return;
        }
        if test_kill_process_group(pid_of(task.pid)) == Err(Errno::SRCH) {
            self.finish(id);
        } else {
            let grace = task.grace.min(LEFTOVERS_GRACE_MAX);
            self.begin_ending(id, grace, None);
        }
    }

    /// Kills a tree, or drops a process that stands. One that is being killed has at most this grace from now on.
    pub(super) fn kill(&mut self, id: u64, grace: Duration, why: Why) {
        if self.tasks.drop_standing(id) {
            self.events.push(Event::Dropped { id });
        } else if self.tasks.is_running(id) {
            self.begin_ending(id, grace, Some(why));
        }
    }

    fn begin_ending(&mut self, id: u64, grace: Duration, why: Option<Why>) {
        let task = self.tasks.get_mut(id).expect("only what runs is killed");
        let kill_ns = now_ns().saturating_add(nanos(grace));
        match &mut task.ending {
            Some(ending) => ending.kill_ns = ending.kill_ns.min(kill_ns),
            None => {
                task.why = why;
                if task.exit.is_none() {
                    signal_group(task.pid, if grace.is_zero() { Signal::KILL } else { Signal::TERM });
                }
                task.ending = Some(Ending { kill_ns, asked: false, leftovers: Vec::new() });
                self.tasks.note_ending(id);
            }
        }
        self.ending.hurry();
    }

    /// Looks at the trees that are being killed, and signals what is left of them.
    pub(super) fn look_at_ending(&mut self) {
        let began_ns = now_ns();
        let scan = Scan::take();
        let orphans = self.orphans(&scan);
        let mut due_ns = NEVER;
        for id in self.tasks.ending() {
            let tree = self.tree(&scan, &orphans, id);
            let task = self.tasks.get_mut(id).expect("what is being killed was not told as ended");
            let next_ns = attend(task, &tree, began_ns);
            due_ns = due_ns.min(next_ns);
            if next_ns == NEVER {
                self.finish(id);
            }
        }
        self.ending.looked_ns = now_ns();
        self.ending.cost_ns = self.ending.looked_ns - began_ns;
        // A pause that the cost of a look sets, too, whatever is due; with nothing left there is no next look.
        self.ending.due_ns =
            if due_ns == NEVER { NEVER } else { due_ns.max(self.ending.looked_ns + 2 * self.ending.cost_ns) };
    }

    /// The processes of a tree that have not ended.
    pub(super) fn tree(&self, scan: &Scan, orphans: &HashMap<u64, Vec<u32>>, id: u64) -> Vec<Process> {
        let Some(task) = self.tasks.get(id) else { return Vec::new() };
        let main = scan.get(task.pid).filter(|_| task.exit.is_none());
        let group = scan.group(task.pid).filter(|process| scan.descends(process, self.pid));
        let adopted = orphans.get(&id).into_iter().flatten().filter_map(|pid| scan.get(*pid));
        scan.closure(main.into_iter().chain(group).chain(adopted))
    }

    /// Tells that a process has ended, after another one has taken over.
    pub(super) fn finish(&mut self, id: u64) {
        let task = self.tasks.remove(id).expect("a process ends once");
        let now = now_ns();
        let over_memory = task.group.as_ref().is_some_and(|group| group.was_over());
        let (exit, ended_ns) = task.exit.unwrap_or_else(|| (Exit::unkillable(), now));
        let place = self.events.len();
        self.events.push(Event::Ended(Ended {
            id,
            status: exit.status,
            why: task.why.or_else(|| over_memory.then_some(Why::OverMemory)),
            max_rss_bytes: exit.max_rss_bytes,
            user: exit.user,
            system: exit.system,
            started_ns: task.started_ns,
            ended_ns,
            leftovers: task.ending.map_or(0, |ending| ending.leftovers.len() as u32),
            taken_over_by: None,
        }));
        let successor = self.hand_over(task.hold, &Predecessor { id, affinity: task.affinity });
        self.tasks.release(task.hold);
        if let Event::Ended(ended) = &mut self.events[place] {
            ended.taken_over_by = successor;
        }
        self.strays.wake(now);
    }

    /// Ends all that descends from here: the engine is gone, and nobody listens.
    pub(super) fn end_all(&mut self) {
        let kill_ns = now_ns() + LAST_GRACE_NS;
        let mut asked = false;
        loop {
            while let Some((pid, exit)) = reap::next() {
                self.tasks.main_ended(pid, exit, now_ns());
            }
            let now = now_ns();
            let scan = Scan::take();
            let left = scan.closure(scan.children(self.pid));
            let nobody = left.is_empty() && self.tasks.mains().next().is_none();
            if nobody || now >= kill_ns + KILLING_NS {
                return;
            }
            if now >= kill_ns || !asked {
                let signal = if now >= kill_ns { Signal::KILL } else { Signal::TERM };
                self.tasks.mains().for_each(|pid| signal_group(pid, signal));
                left.iter().for_each(|process| signal_process(process, signal));
                asked = true;
            }
            let _ = super::setup::drain(&self.children);
            let pause = Timespec::try_from(Duration::from_nanos(LOOK_PAUSE_NS)).expect("it is short");
            // Woken by a child that ends or by the time: either way the next round looks.
            let _ = poll(&mut [PollFd::new(&self.children, PollFlags::IN)], Some(&pause));
        }
    }
}

/// Signals what is left of a tree if a signal is due. Returns when to look again; [`NEVER`] when nothing is left, or
/// nothing can be done.
fn attend(task: &mut Task, tree: &[Process], now: u64) -> u64 {
    let ending = task.ending.as_mut().expect("it is being killed");
    if task.exit.is_some() {
        for process in tree {
            let name = (process.pid, process.start);
            if !ending.leftovers.contains(&name) {
                ending.leftovers.push(name);
            }
        }
        if tree.is_empty() {
            return NEVER;
        }
    }
    if now >= ending.kill_ns.saturating_add(KILLING_NS) {
        return NEVER;
    }
    let kills = now >= ending.kill_ns;
    if kills || !ending.asked {
        let signal = if kills { Signal::KILL } else { Signal::TERM };
        // The whole group hears at once while its number is surely ours. It has heard TERM when this began.
        let whole_group = task.exit.is_none();
        if whole_group && kills {
            signal_group(task.pid, signal);
        }
        let others = tree.iter().filter(|process| !whole_group || process.group != task.pid);
        others.for_each(|process| signal_process(process, signal));
        ending.asked = true;
    }
    if kills { now + LOOK_PAUSE_NS } else { ending.kill_ns.min(now + GRACE_PAUSE_NS) }
}

/// Signals the group of a main process that was not reaped, so that its number is not another's.
fn signal_group(pid: u32, signal: Signal) {
    // An error means that none is left who could be signalled; the next look will tell.
    let _ = kill_process_group(pid_of(pid), signal);
    if signal == Signal::TERM {
        let _ = kill_process_group(pid_of(pid), Signal::CONT);
    }
}

/// Signals a process. One that was stopped goes on, to hear that it is to end.
pub(super) fn signal_process(process: &Process, signal: Signal) {
    if process.signal(signal) && signal == Signal::TERM {
        process.signal(Signal::CONT);
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("a child has a pid")
}
