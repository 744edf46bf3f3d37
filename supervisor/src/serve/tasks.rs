//! The processes that run and those that stand, by id, by pid, by hold and by deadline. Starts and ends none. Pure.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use rustix::thread::CpuSet;

use super::NEVER;
use super::cgroup::Group;
use super::ending::Ending;
use super::reap::Exit;
use crate::request::Why;

/// A process that was started and whose end was not told yet.
pub(super) struct Task {
    pub(super) pid: u32,
    pub(super) hold: u32,
    pub(super) started_ns: u64,
    /// When its time is up; [`NEVER`] without a limit.
    pub(super) deadline_ns: u64,
    pub(super) grace: Duration,
    pub(super) memory_bytes: Option<u64>,
    pub(super) affinity: Option<Box<CpuSet>>,
    pub(super) group: Option<Group>,
    /// How its main process ended, and when that was seen.
    pub(super) exit: Option<(Exit, u64)>,
    /// What made us kill it.
    pub(super) why: Option<Why>,
    /// Its tree is being killed.
    pub(super) ending: Option<Ending>,
}

/// A request that stands.
struct Standing {
    id: u64,
    order: Box<[u8]>,
}

/// The processes of one hold. It is there while any runs, or stands.
#[derive(Default)]
struct Hold {
    running: usize,
    standing: VecDeque<Standing>,
}

#[derive(Default)]
pub(super) struct Tasks {
    running: HashMap<u64, Task>,
    by_pid: HashMap<u32, u64>,
    holds: HashMap<u32, Hold>,
    /// The hold that each standing id waits for.
    standing: HashMap<u64, u32>,
    deadlines: BTreeSet<(u64, u64)>,
    ending: BTreeSet<u64>,
}

impl Tasks {
    /// True when a running or standing process has this id.
    pub(super) fn has(&self, id: u64) -> bool {
        self.running.contains_key(&id) || self.standing.contains_key(&id)
    }

    /// True when a process of this id was started and its end was not told.
    pub(super) fn is_running(&self, id: u64) -> bool {
        self.running.contains_key(&id)
    }

    pub(super) fn none_runs(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Task> {
        self.running.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Task> {
        self.running.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Task)> {
        self.running.iter().map(|(id, task)| (*id, task))
    }

    /// Adds a process that was started.
    pub(super) fn insert(&mut self, id: u64, task: Task) {
        self.by_pid.insert(task.pid, id);
        self.holds.entry(task.hold).or_default().running += 1;
        if task.deadline_ns != NEVER {
            self.deadlines.insert((task.deadline_ns, id));
        }
        self.running.insert(id, task);
    }

    /// Takes out a process whose tree is gone. Its hold is still counted, until [`release`](Tasks::release).
    pub(super) fn remove(&mut self, id: u64) -> Option<Task> {
        let task = self.running.remove(&id)?;
        self.deadlines.remove(&(task.deadline_ns, id));
        self.ending.remove(&id);
        // Its pid may be another's by now.
        if self.by_pid.get(&task.pid) == Some(&id) {
            self.by_pid.remove(&task.pid);
        }
        Some(task)
    }

    /// One process less runs with this hold.
    pub(super) fn release(&mut self, hold: u32) {
        let entry = self.holds.get_mut(&hold).expect("a hold is there while a process has it");
        entry.running -= 1;
        if entry.running == 0 && entry.standing.is_empty() {
            self.holds.remove(&hold);
        }
    }

    /// Notes the end of a main process; the id, if the pid was one.
    pub(super) fn main_ended(&mut self, pid: u32, exit: Exit, now: u64) -> Option<u64> {
        let id = self.by_pid.remove(&pid)?;
        let task = self.running.get_mut(&id).expect("a pid is known while its process runs");
        task.exit = Some((exit, now));
        Some(id)
    }

    /// True when the pid is that of a main process that was not reaped.
    pub(super) fn is_main(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// The main processes that were not reaped.
    pub(super) fn mains(&self) -> impl Iterator<Item = u32> {
        self.by_pid.keys().copied()
    }

    /// Notes that a tree is being killed.
    pub(super) fn note_ending(&mut self, id: u64) {
        self.ending.insert(id);
    }

    /// The ids of the trees that are being killed.
    pub(super) fn ending(&self) -> Vec<u64> {
        self.ending.iter().copied().collect()
    }

    /// Puts a request at the end of its hold's row; false when no process of that hold runs.
    pub(super) fn stand(&mut self, id: u64, hold: u32, order: &[u8]) -> bool {
        let Some(entry) = self.holds.get_mut(&hold).filter(|entry| entry.running > 0) else { return false };
        entry.standing.push_back(Standing { id, order: order.into() });
        self.standing.insert(id, hold);
        true
    }

    /// Takes out the request that has stood longest with this hold.
    pub(super) fn next_standing(&mut self, hold: u32) -> Option<Box<[u8]>> {
        let standing = self.holds.get_mut(&hold)?.standing.pop_front()?;
        self.standing.remove(&standing.id);
        Some(standing.order)
    }

    /// Takes out a request that stands; false when none of that id does.
    pub(super) fn drop_standing(&mut self, id: u64) -> bool {
        let Some(hold) = self.standing.remove(&id) else { return false };
        let entry = self.holds.get_mut(&hold).expect("a hold is there while a request stands with it");
        entry.standing.retain(|standing| standing.id != id);
        true
    }

    /// Takes out a process whose time is up, with its grace.
    pub(super) fn next_timed_out(&mut self, now: u64) -> Option<(u64, Duration)> {
        let (_, id) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)?;
        self.deadlines.pop_first();
        Some((id, self.running[&id].grace))
    }

    /// When the next time is up.
    pub(super) fn due_ns(&self) -> u64 {
        self.deadlines.first().map_or(NEVER, |(deadline, _)| *deadline)
    }
}
