//! Random starts, stands and kills against a model of what must be told: each process exactly once, in an order that
//! can be, and nothing left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use support::{Rig, is_alive};
use tarragon_supervisor::{Event, Request, Spawn, Why};

const SCRIPTS: &[&str] = &[
    "exit 0",
    "exit 3",
    "kill -9 $$",
    "sleep 0.03",
    "sleep 1000",
    "trap '' TERM; while :; do sleep 0.02; done",
    "sleep 1000 & sleep 0.01",
    "setsid sleep 1000 & sleep 1000",
    "(setsid sleep 1000 &); exit 1",
];
const HOLDS: u64 = 4;

/// A generator of numbers that look random: xorshift (Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Sent { stands: bool },
    Running,
    Over,
}

/// What the events may say next.
#[derive(Default)]
struct Model {
    is: HashMap<u64, Is>,
    hold: HashMap<u64, u64>,
    killed: HashSet<u64>,
    pids: HashMap<u64, u32>,
    /// Who was said to take over, and from whom; the start or the failure that must come next for it.
    promised: HashMap<u64, u64>,
}

impl Model {
    fn note(&mut self, event: &Event) {
        let id = event.id();
        let before = self.is[&id];
        let stands = before == Is::Sent { stands: true };
        match event {
            Event::Started { pid, follows, .. } => {
                assert!(matches!(before, Is::Sent { .. }), "{event:?} {before:?}");
                assert_eq!(stands, follows.is_some());
                assert_eq!(self.promised.remove(&id), *follows);
                self.pids.insert(id, *pid);
                self.is.insert(id, Is::Running);
            }
            Event::CouldNotStart { follows, .. } => {
                assert_eq!((id % 17, stands), (5, follows.is_some()));
                self.is.insert(id, Is::Over);
            }
            Event::Ended(ended) => {
                assert_eq!(before, Is::Running);
                assert!(ended.why.is_none() || self.killed.contains(&id));
                if let Some(successor) = ended.taken_over_by {
                    assert_eq!(self.is[&successor], Is::Sent { stands: true });
                    assert_eq!(self.hold[&successor], self.hold[&id]);
                    assert_eq!(self.promised.insert(successor, id), None);
                }
                assert!(!is_alive(self.pids[&id]));
                self.is.insert(id, Is::Over);
            }
            Event::Bounced { .. } => {
                assert!(stands);
                // All that ran with this hold as far as was told: none can be sure to run on.
                self.is.insert(id, Is::Over);
            }
            Event::Dropped { .. } => {
                assert!(stands && self.killed.contains(&id));
                self.is.insert(id, Is::Over);
            }
        }
    }

    fn open(&self) -> Vec<u64> {
        self.is.iter().filter(|(_, is)| **is != Is::Over).map(|(id, _)| *id).collect()
    }
}

fn storm(seed: u64, steps: u64) {
    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut rig = Rig::new();
    let mut model = Model::default();
    let out = rig.path("out");
    let mut next_id = 0;
    for _ in 0..steps {
        let open = model.open();
        let kills = open.len() > 40 || numbers.below(3) == 0;
        if kills && !open.is_empty() {
            let id = open[numbers.below(open.len() as u64) as usize];
            let grace = Duration::from_millis(numbers.below(60));
            model.killed.insert(id);
            rig.supervisor.send(&[Request::Kill { id, grace, why: Why::Cancelled }]).unwrap();
        } else {
            let id = next_id;
            next_id += 1;
            let script = SCRIPTS[numbers.below(SCRIPTS.len() as u64) as usize];
            let args = ["sh", "-c", script].map(OsString::from);
            let hold = numbers.below(HOLDS);
            let program = if id % 17 == 5 { "/nowhere/at/all" } else { "/bin/sh" };
            let spawn = Spawn {
                hold: hold as u32,
                grace: Duration::from_millis(50),
                ..Spawn::new(id, Path::new(program), &args, &out)
            };
            let stands = numbers.below(2) == 0;
            model.hold.insert(id, hold);
            model.is.insert(id, Is::Sent { stands });
            let request = if stands { Request::Stand(spawn) } else { Request::Start(spawn) };
            rig.supervisor.send(&[request]).unwrap();
        }
        // Sometimes events pile up, sometimes each is heard at once.
        if numbers.below(4) == 0 && !model.open().is_empty() {
            rig.kill_oldest(&mut model);
            let event = rig.next();
            model.note(&event);
        }
    }
    // What stands starts when another one is killed, and has to be killed in its turn.
    loop {
        let open = model.open();
        if open.is_empty() {
            break;
        }
        for id in open {
            if model.killed.insert(id) || matches!(model.is[&id], Is::Running) {
                rig.kill(id, Duration::from_millis(20));
            }
        }
        let event = rig.next();
        model.note(&event);
    }
    assert!(model.promised.is_empty());
    let mark = format!("TARRAGON_TASK_MARK={}:", rig.supervisor.pid());
    support::wait_until("daemons to be gone", || !support::anyone_bears(&mark));
}

impl Rig {
    /// Makes sure that an event comes: kills the oldest process of which more is to be told.
    fn kill_oldest(&mut self, model: &mut Model) {
        let id = model.open().into_iter().min().unwrap();
        model.killed.insert(id);
        self.kill(id, Duration::from_millis(20));
    }
}

#[test]
fn whatever_is_asked_for_each_process_is_told_of_once_and_nothing_is_left() {
    let seeds = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 40 } else { 3 };
    (1..=seeds).for_each(|seed| storm(seed, 250));
}
