//! Threads for function bodies that are attended to: as many as run at a time, kept for a while for the next ones. A
//! body that ignores its timeout keeps its thread; the next one gets another.

use super::job::Body;
use super::office::{Event, Office};
use crate::background::Client;
use crate::body::{Call, Verdict};
use crate::error::{Cause, Failure};
use crate::ranks::{Holding, Role, join_gang};
use crate::run::{Run, retry};
use crate::schedule::JobId;
use crate::task::record::Ref;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long a thread waits for another body before it ends.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// One attempt of a function.
pub(super) struct Attempt {
    pub(super) job: JobId,
    pub(super) run: Arc<Run>,
    pub(super) node: u32,
    pub(super) task: Ref,
    pub(super) number: u32,
    pub(super) cpus: u32,
    /// The names of the GPUs that it holds.
    pub(super) gpus: Vec<String>,
    pub(super) lane: u32,
    pub(super) body: Arc<Body>,
}

/// How an attempt ended.
pub(super) enum Returned {
    Done,
    /// For good.
    Failed(Arc<Failure>),
    /// It failed, and is worth another attempt after this time.
    Again(Duration),
}

/// What these threads do.
enum Work {
    Attempt(Attempt),
    /// Have other ranks hold cpus for a job.
    Muster {
        job: JobId,
        run: Arc<Run>,
        task: Ref,
        dealt: Vec<(u32, u32)>,
        cpus: u32,
    },
    /// Look at the queue of a client, and run it if it has been idle for long enough.
    Look(Arc<Client>),
    /// Record a process that has succeeded.
    Conclude {
        job: JobId,
        run: Arc<Run>,
        node: u32,
        task: Ref,
    },
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    idle: usize,
}

#[derive(Default)]
pub(super) struct Bodies {
    queue: Mutex<Queue>,
    added: Condvar,
}

impl Bodies {
    /// Has a thread call the body.
    pub(super) fn call(self: &Arc<Self>, office: &Weak<Office>, attempt: Attempt) -> io::Result<()> {
        self.add(office, Work::Attempt(attempt))
    }

    /// Has a thread wait until other ranks hold cpus for a job, so many for each of its ranks.
    pub(super) fn muster(
        self: &Arc<Self>,
        office: &Weak<Office>,
        job: JobId,
        run: Arc<Run>,
        task: Ref,
        dealt: Vec<(u32, u32)>,
        cpus: u32,
    ) -> io::Result<()> {
        self.add(office, Work::Muster { job, run, task, dealt, cpus })
    }

    /// Has a thread look at the queue of a client.
    pub(super) fn look(self: &Arc<Self>, office: &Weak<Office>, client: &Arc<Client>) -> io::Result<()> {
        self.add(office, Work::Look(Arc::clone(client)))
    }

    /// Has a thread record a process that has succeeded.
    pub(super) fn conclude(
        self: &Arc<Self>,
        office: &Weak<Office>,
        job: JobId,
        run: &Arc<Run>,
        node: u32,
        task: Ref,
    ) -> io::Result<()> {
        self.add(office, Work::Conclude { job, run: Arc::clone(run), node, task })
    }

    /// An error if the system gives no thread.
    fn add(self: &Arc<Self>, office: &Weak<Office>, work: Work) -> io::Result<()> {
        let mut queue = self.queue.lock();
        if queue.idle <= queue.work.len() {
            let (me, office) = (Arc::clone(self), office.clone());
            let name = "tarragon-body".to_string();
            std::thread::Builder::new().name(name).spawn(move || me.serve(&office))?;
            // It takes the first work it finds.
            queue.idle += 1;
        }
        queue.work.push_back(work);
        self.added.notify_one();
        Ok(())
    }

    fn serve(&self, office: &Weak<Office>) {
        while let Some(work) = self.next() {
            match work {
                Work::Attempt(attempt) => {
                    let job = attempt.job;
                    if let Some(returned) = attempt.call(office)
                        && let Some(office) = office.upgrade()
                    {
                        office.push(Event::Returned(job, returned));
                    }
                }
                Work::Muster { job, run, task, dealt, cpus } => {
                    let holding = Holding::assemble(&run, task, &dealt, cpus);
                    drop(run);
                    if let Some(office) = office.upgrade() {
                        office.push(Event::Mustered(job, holding));
                    }
                }
                Work::Conclude { job, run, node, task } => {
                    run.done(node, task);
                    drop(run);
                    if let Some(office) = office.upgrade() {
                        office.push(Event::Concluded(job));
                    }
                }
                Work::Look(client) => {
                    if let (Some(at), Some(office)) = (client.look(), office.upgrade()) {
                        office.watch(&client, at);
                    }
                }
            }
            self.queue.lock().idle += 1;
        }
    }

    fn next(&self) -> Option<Work> {
        let mut queue = self.queue.lock();
        while queue.work.is_empty() {
            if self.added.wait_for(&mut queue, IDLE_MAX).timed_out() && queue.work.is_empty() {
                queue.idle -= 1;
                return None;
            }
        }
        queue.idle -= 1;
        queue.work.pop_front()
    }
}

/// Between an attempt of a gang that has lost a member and the next one: by then it may be known who is lost.
pub(super) const GANG_PAUSE: Duration = Duration::from_millis(20);

impl Attempt {
    /// Whether it failed because a member of its gang was lost, and others can take its place.
    fn may_lose_a_member(&self, failure: &Failure) -> bool {
        let ranks = self.run.plan.shared.ranks.as_ref();
        let gang = self.task.gang();
        let has_room = || ranks.is_some_and(|ranks| ranks.has_room_for(gang));
        gang > 1 && matches!(failure.cause, Cause::RankLost { .. }) && has_room()
    }

    /// How the body came out, and of a failure the rank that it was on, if that was another.
    fn call_in_gang(&self, office: &Weak<Office>) -> (Verdict, Option<u32>) {
        let over = &self.body.over;
        let role = match join_gang(&self.run, self.task, over) {
            Ok(role) => role,
            Err(cause) => return (Verdict::Failed(Box::new(cause)), None),
        };
        if let (true, Some(office)) = (role.as_ref().is_some_and(Role::is_leader), office.upgrade()) {
            office.push(Event::Assembled(self.job, self.number));
        }
        let gang = role.as_ref().map(Role::gang);
        let verdict =
            self.task.call(&Call { gang, gpus: &self.gpus, ..self.run.call(self.task, Some(over)) });
        match role {
            None => (verdict, None),
            Some(role) => role.finish(verdict, &|| self.body.is_given_up()),
        }
    }

    /// Calls the body; `None` if it was given up meanwhile.
    fn call(self, office: &Weak<Office>) -> Option<Returned> {
        let Self { run, task, node, .. } = &self;
        let began = run.clock();
        let (verdict, rank) = {
            let _held = super::office::Held::new(office, self.job, self.cpus);
            self.call_in_gang(office)
        };
        if !self.body.conclude() {
            if matches!(verdict, Verdict::Done) {
                task.drop_late_value();
            }
            if task.keeps_arguments() {
                task.pass();
            }
            run.came_back();
            return None;
        }
        run.note_time(*node, began, || self.lane);
        match verdict {
            Verdict::Done => {
                run.done(*node, *task);
                Some(Returned::Done)
            }
            Verdict::Failed(cause) => {
                let over = self.body.over.load(std::sync::atomic::Ordering::Acquire);
                let timeout = task.extra().and_then(|e| e.limits.timeout);
                let cause = match timeout {
                    Some(timeout) if over => Cause::TimedOut(timeout),
                    _ => *cause,
                };
                let rank = rank.unwrap_or_else(|| task.shared().rank());
                let failure = Failure::of(task.name(), task.index(), self.number, rank, cause);
                let again = match self.may_lose_a_member(&failure) {
                    true => Some(GANG_PAUSE),
                    false => retry::delay(*task, self.number, &failure),
                };
                match again {
                    Some(delay) if !run.stop.is_told(*task) => Some(Returned::Again(delay)),
                    _ => Some(Returned::Failed(run.fail(*task, failure))),
                }
            }
        }
    }
}
