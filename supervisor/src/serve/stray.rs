//! Processes that have left both their group and their parents, as daemons do. The supervisor has adopted them; by
//! their mark it knows whose they were, and when that process has ended, they must end, too.
//!
//! A sweep over all processes finds them: at most every 200 ms, and only when a process has ended since the last one or
//! strays are still there, so that a supervisor that waits uses no CPU. On a machine with many processes sweeps are
//! rarer, so that they take at most a twentieth of the time.

use std::collections::HashMap;

use rustix::process::Signal;

use super::ending::signal_process;
use super::{NEVER, Server, now_ns};
use crate::proc::{Process, Scan};

/// The pause between sweeps.
const PAUSE_NS: u64 = 200_000_000;
/// The pause after a sweep, in units of its cost.
const PAUSE_COSTS: u64 = 20;
/// How long a stray may take between TERM and KILL.
const GRACE_NS: u64 = 500_000_000;

/// The strays that are being killed, and when to look for others.
pub(super) struct Strays {
    due_ns: u64,
    /// Before this time there is no sweep.
    rest_until_ns: u64,
    /// When KILL follows TERM, by pid and start.
    asked: HashMap<(u32, u64), u64>,
}

impl Default for Strays {
    fn default() -> Strays {
        Strays { due_ns: NEVER, rest_until_ns: 0, asked: HashMap::new() }
    }
}

impl Strays {
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Notes that a process has ended, so that it may have left strays.
    pub(super) fn wake(&mut self, now: u64) {
        self.due_ns = self.due_ns.min(now.max(self.rest_until_ns));
    }
}

impl Server {
    /// The adopted children that bear our mark, by the id in it.
    pub(super) fn orphans(&self, scan: &Scan) -> HashMap<u64, Vec<u32>> {
        let mut orphans: HashMap<u64, Vec<u32>> = HashMap::new();
        for process in self.adopted(scan) {
            if let Some(id) = process.mark(self.pid) {
                orphans.entry(id).or_default().push(process.pid);
            }
        }
        orphans
    }

    /// The children that live and are no main processes.
    fn adopted<'a>(&'a self, scan: &'a Scan) -> impl Iterator<Item = &'a Process> {
        scan.children(self.pid).filter(|process| process.alive && !self.tasks.is_main(process.pid))
    }

    /// Looks for strays and signals them.
    pub(super) fn sweep(&mut self) {
        let began_ns = now_ns();
        let scan = Scan::take();
        // One without a mark has cleared its environment. It belongs to some process; when none runs, to none.
        let is_stray = |process: &&Process| match process.mark(self.pid) {
            Some(id) => !self.tasks.is_running(id),
            None => self.tasks.none_runs(),
        };
        let strays = scan.closure(self.adopted(&scan).filter(is_stray));
        let asked = std::mem::take(&mut self.strays.asked);
        for stray in &strays {
            let name = (stray.pid, stray.start);
            let kill_ns = asked.get(&name).copied();
            match kill_ns {
                None => signal_process(stray, Signal::TERM),
                Some(kill_ns) if began_ns >= kill_ns => signal_process(stray, Signal::KILL),
                Some(_) => {}
            }
            self.strays.asked.insert(name, kill_ns.unwrap_or(began_ns + GRACE_NS));
        }
        let now = now_ns();
        self.strays.rest_until_ns = now + PAUSE_NS.max(PAUSE_COSTS * (now - began_ns));
        self.strays.due_ns = if strays.is_empty() { NEVER } else { self.strays.rest_until_ns };
    }
}
