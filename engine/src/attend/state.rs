//! What the office knows: jobs, who may start, timers, the supervisor's client; and how each event changes it.

use super::bodies::{Attempt, Bodies, GANG_PAUSE, Returned};
use super::job::{Body, Job, Stage};
use super::office::{Event, Office};
use super::process::{Granted, Processes, Started};
use super::timers::{Due, Timers};
use crate::background::Client;
use crate::error::{Cause, Failure, How, ProcessFailure};
use crate::events;
use crate::ranks::Holding;
use crate::resume::Ledger;
use crate::run::{Pool, Run, retry};
use crate::schedule::{AccountId, Action, Desk, InstanceId, JobId, Offer, Seats, UNITS, room_for_gpus};
use crate::shared::{ActiveRuns, Shared};
use crate::task::record::Ref;
use crate::task::{Usage, default_need};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tarragon_supervisor::Event as Told;

/// A node that has ended, and what its dependents are to be blamed for.
pub(super) type Finished = (Arc<Run>, u32, Option<Arc<Failure>>);

/// One batch.
pub(super) struct Instance {
    pub(super) pool: Option<Weak<Pool>>,
    /// Its runs under way.
    pub(super) runs: Weak<ActiveRuns>,
    pub(super) workers: u32,
    /// Most cpus that its jobs and awake workers use together.
    pub(super) cpus: u32,
    /// Cpus that its jobs hold.
    pub(super) held: u32,
}

impl Instance {
    fn pool(&self) -> Option<Arc<Pool>> {
        self.pool.as_ref().and_then(Weak::upgrade)
    }

    /// How many workers may be awake when so many cpus are not theirs.
    fn limit(&self, others: u32) -> u32 {
        self.cpus.max(self.workers).saturating_sub(others)
    }
}

pub(super) struct State {
    pub(super) desk: Desk,
    pub(super) instances: HashMap<InstanceId, Instance>,
    pub(super) jobs: HashMap<JobId, Job>,
    pub(super) timers: Timers,
    /// Clients whose queues are to be looked at, and when.
    pub(super) watched: Vec<(Instant, Weak<Client>)>,
    pub(super) processes: Processes,
    pub(super) bodies: Arc<Bodies>,
    pub(super) finished: Vec<Finished>,
    /// Tasks of gangs that are to stop on all their ranks.
    pub(super) stopped: Vec<(Arc<Run>, Ref)>,
    /// Jobs for which other ranks hold cpus, and which are to be started.
    pub(super) assembled: Vec<JobId>,
    /// Cpus of other ranks that are not needed any more: to be dropped without the lock.
    pub(super) let_go: Vec<Holding>,
    /// Numbers of lanes that no job has.
    pub(super) lanes: BTreeSet<u32>,
    pub(super) lanes_len: u32,
    pub(super) next_job: u64,
    pub(super) next_instance: u32,
    /// SIGTERM came.
    pub(super) terminates: bool,
    pub(super) office: Weak<Office>,
}

/// The pools' seats, as the desk asks for them.
struct PoolSeats<'a>(&'a mut HashMap<InstanceId, Instance>);

impl Seats for PoolSeats<'_> {
    fn most(&self, instance: InstanceId) -> u32 {
        self.0.get(&instance).map_or(0, |it| it.cpus.max(it.workers).saturating_sub(it.held))
    }

    fn take(&mut self, instance: InstanceId, cpus: u32) -> bool {
        let Some(instance) = self.0.get_mut(&instance) else { return false };
        let held = instance.held + cpus;
        if held > instance.cpus.max(instance.workers) {
            return false;
        }
        let limit = instance.limit(held);
        let fits = instance.pool().is_none_or(|pool| pool.try_limit(limit));
        if fits {
            instance.held = held;
        }
        fits
    }

    fn are_wanted(&self, instance: InstanceId) -> bool {
        self.0.get(&instance).and_then(Instance::pool).is_some_and(|pool| pool.has_work())
    }
}

impl State {
    pub(super) fn new(office: &Weak<Office>, bodies: &Arc<Bodies>) -> Self {
        Self {
            desk: Desk::default(),
            instances: HashMap::new(),
            jobs: HashMap::new(),
            timers: Timers::default(),
            watched: Vec::new(),
            processes: Processes::default(),
            bodies: Arc::clone(bodies),
            finished: Vec::new(),
            stopped: Vec::new(),
            assembled: Vec::new(),
            let_go: Vec::new(),
            lanes: BTreeSet::new(),
            lanes_len: 0,
            next_job: 0,
            next_instance: 0,
            terminates: false,
            office: office.clone(),
        }
    }

    /// A batch comes.
    pub(super) fn open(&mut self, shared: &Shared) -> InstanceId {
        self.next_instance += 1;
        let id = InstanceId(self.next_instance);
        let (account, cpus) = shared.share.account();
        self.desk.account(AccountId(account), cpus);
        let totals = &shared.totals;
        let stock = crate::schedule::Stock { memory: totals.memory, named: totals.named.clone() };
        let hosts = &shared.launching.hosts;
        let offer = Offer {
            stock,
            gpus: shared.gpus.ids(),
            is_here: hosts.is_here,
            hosts: &hosts.others,
            gpus_of_hosts: hosts.gpus_of_others,
        };
        self.desk.open(id, AccountId(account), offer);
        let workers = shared.executor.pool().map_or(1, |pool| pool.threads() as u32);
        let pool = shared.executor.pool().map(Arc::downgrade);
        let runs = Arc::downgrade(&shared.active);
        self.instances.insert(id, Instance { pool, runs, workers, cpus: totals.cpus, held: 0 });
        self.processes.open(id, shared);
        id
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let watched = self.watched.iter().map(|(at, _)| *at).min();
        [self.timers.next(), watched].into_iter().flatten().min()
    }

    /// Clients whose queues are to be looked at now.
    pub(super) fn due_clients(&mut self, now: Instant) -> Vec<Arc<Client>> {
        let due = self.watched.extract_if(.., |(at, _)| *at <= now);
        due.filter_map(|(_, client)| client.upgrade()).collect()
    }

    pub(super) fn finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    // ── what happens ────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn take_in(&mut self, event: Event) {
        match event {
            Event::Ready(run, nodes) => {
                for (node, task) in nodes {
                    self.add(Arc::clone(&run), node, task, 1);
                }
            }
            Event::Again(run, node, task, delay) => {
                let id = self.add(run, node, task, 1);
                self.desk.withdraw(id);
                if self.jobs.contains_key(&id) {
                    self.rest(id, delay);
                }
            }
            Event::Returned(id, returned) => self.returned(id, returned),
            Event::Concluded(id) => self.finish(id, None),
            Event::Assembled(id, attempt) => self.set_timeout(id, attempt),
            Event::Mustered(id, holding) => self.mustered(id, holding),
            Event::Supervisor(told) => told.into_iter().for_each(|t| self.told(t)),
            Event::SupervisorGone => self.supervisor_gone(),
            Event::Cancel(run, task) => self.cancel(&run, task),
            Event::Seats => {}
            Event::Waits(id, waits) => self.waits(id, waits),
            Event::Signal(signal) => self.signal(signal),
            Event::Watch(client, at) => self.watched.push((at, client)),
            Event::Closed(id) => {
                self.desk.close(id);
                self.instances.remove(&id);
                self.processes.close(id);
            }
        }
    }

    fn add(&mut self, run: Arc<Run>, node: u32, task: Ref, attempt: u32) -> JobId {
        self.next_job += 1;
        let id = JobId(self.next_job);
        let instance = run.plan.shared.instance();
        let job = Job {
            run,
            node,
            task,
            instance,
            attempt,
            stage: Stage::Waiting,
            cancelled: false,
            body: None,
            output: None,
            refused: 0,
            lane: None,
            began: 0,
            dealt: Vec::new(),
            holding: None,
        };
        self.jobs.insert(id, job);
        self.wait(id);
        id
    }

    /// The job waits for what it needs.
    pub(super) fn wait(&mut self, id: JobId) {
        let job = self.jobs.get_mut(&id).expect("a job that is known");
        job.stage = Stage::Waiting;
        let extra = job.task.extra();
        let need = extra.and_then(|e| e.need.clone()).unwrap_or_else(default_need);
        let priority = extra.map_or(0, |e| e.priority);
        let need = match job.is_mpi() {
            false => need,
            true => match job.deal(need) {
                Ok(need) => need,
                Err(cause) => return self.fail(id, cause),
            },
        };
        // A part of a list that a lost rank had may have come to one that has no GPUs.
        let gpus = job.run.plan.shared.gpus.count();
        if need.job.is_none() && room_for_gpus(gpus, need.gpus) == 0 {
            let (asked, rank) = (need.gpus as f64 / UNITS, job.run.plan.shared.rank());
            let why = format!("it asks for {asked} gpus, and rank {rank}, where it came to be, has {gpus}");
            return self.fail(id, Cause::Error(why.into()));
        }
        // Where a job's ranks will be is not known before there is room.
        let can_stand = job.task.head().code.command.is_some() && !job.is_mpi();
        self.desk.ready(id, job.instance, &need, priority, can_stand);
    }

    /// Another attempt follows after `delay`, as another job: the desk may still know this one.
    pub(super) fn rest(&mut self, id: JobId, delay: Duration) {
        if let Some(job) = self.jobs.get_mut(&id) {
            events::retried(job.task, job.attempt, delay);
            job.attempt += 1;
        }
        self.pause(id, delay);
    }

    /// The job is started anew after `delay`.
    fn pause(&mut self, id: JobId, delay: Duration) {
        let mut job = self.jobs.remove(&id).expect("a job that is known");
        job.stage = Stage::Resting;
        (job.body, job.lane) = (None, None);
        self.next_job += 1;
        let id = JobId(self.next_job);
        self.jobs.insert(id, job);
        self.timers.add(Instant::now(), delay, Due::Rested(id));
    }

    fn returned(&mut self, id: JobId, returned: Returned) {
        self.release(id);
        match returned {
            Returned::Done => self.finish(id, None),
            Returned::Failed(failure) => self.finish(id, Some(failure)),
            Returned::Again(delay) => self.rest(id, delay),
        }
    }

    /// The job's cpus and other resources are free again.
    pub(super) fn release(&mut self, id: JobId) {
        let cpus = self.desk.ended(id);
        self.leave_lane(id);
        self.processes.unbind(id, None);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.let_go.extend(job.holding.take());
        let instance = job.instance;
        self.give_cpus(instance, cpus);
    }

    /// Cpus come back. Workers that have waited for them while nobody of them was awake go first, so that processes
    /// never keep functions from running for good.
    pub(super) fn give_cpus(&mut self, instance: InstanceId, cpus: u32) {
        let Some(instance) = self.instances.get_mut(&instance) else { return };
        instance.held -= cpus;
        if let Some(pool) = instance.pool().filter(|pool| pool.is_starved()) {
            pool.set_limit(instance.limit(instance.held));
        }
    }

    fn leave_lane(&mut self, id: JobId) {
        if let Some(lane) = self.jobs.get_mut(&id).and_then(|job| job.lane.take()) {
            self.lanes.insert(lane);
        }
    }

    fn enter_lane(&mut self, id: JobId) -> u32 {
        let lane = self.lanes.pop_first().unwrap_or_else(|| {
            self.lanes_len += 1;
            self.lanes_len - 1
        });
        if let Some(job) = self.jobs.get_mut(&id) {
            job.lane = Some(lane);
            return job.run.plan.shared.executor.workers() as u32 + lane;
        }
        0
    }

    pub(super) fn finish(&mut self, id: JobId, failure: Option<Arc<Failure>>) {
        if let Some(job) = self.jobs.remove(&id) {
            self.finished.push((job.run, job.node, failure));
        }
    }

    // ── processes ───────────────────────────────────────────────────────────────────────────────────────────

    fn told(&mut self, told: Told) {
        let id = JobId(told.id());
        match told {
            Told::Started { pid: _, at_ns, follows, .. } => {
                if let Some(from) = follows {
                    self.takes_over(id, JobId(from));
                }
                self.started(id, at_ns);
            }
            Told::CouldNotStart { step, errno, follows, .. } => {
                if follows.is_some() {
                    self.desk.withdraw(id);
                } else {
                    self.release(id);
                }
                let how = self.processes.could_not_start(self.jobs.get(&id), step, errno);
                events::could_not_start(&how);
                if let Some(delay) = self.jobs.get_mut(&id).and_then(|job| job.starts_again(errno)) {
                    return self.pause(id, delay);
                }
                self.process_failed(id, how, Usage::default());
            }
            Told::Ended(ended) => {
                self.desk.took(id, ended.ended_ns.saturating_sub(ended.started_ns));
                // Who takes over says so when it starts; until then the job keeps what it holds.
                if ended.taken_over_by.is_none() {
                    self.release(id);
                }
                self.leave_lane(id);
                self.ended(id, &ended);
            }
            Told::Bounced { .. } => {
                self.desk.bounced(id);
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.stage = Stage::Waiting;
                }
            }
            Told::Dropped { .. } => {
                self.desk.withdraw(id);
                self.stop(id);
            }
        }
    }

    fn takes_over(&mut self, id: JobId, from: JobId) {
        self.desk.took_over(id, from);
        self.processes.unbind(from, Some(id));
    }

    fn started(&mut self, id: JobId, at_ns: u64) {
        let lane = self.enter_lane(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.stage == Stage::Standing {
            job.run.begin(job.task);
        }
        job.stage = Stage::Running;
        self.processes.began(id, at_ns, lane);
    }

    fn ended(&mut self, id: JobId, ended: &tarragon_supervisor::Ended) {
        let Some(job) = self.jobs.get(&id) else { return };
        match self.processes.outcome(id, job, ended) {
            Ok(exit) => {
                job.task.put_exit(exit);
                let (run, node, task) = (Arc::clone(&job.run), job.node, job.task);
                // To read all that a process wrote may take long, so that is not done here.
                let reads_files = run.ledger.as_ref().is_some_and(Ledger::reads_files);
                if reads_files && self.bodies.conclude(&self.office, id, &run, node, task).is_ok() {
                    return;
                }
                run.done(node, task);
                self.finish(id, None);
            }
            Err(failure) => self.process_failed(id, failure.how, failure.usage),
        }
    }

    fn process_failed(&mut self, id: JobId, how: How, usage: Usage) {
        let Some(job) = self.jobs.get(&id) else { return };
        let tail = self.processes.last_words(job);
        let cause = Cause::Process(Box::new(ProcessFailure { how, tail, usage }));
        if job.has_lost_a_rank() && !job.cancelled {
            return self.rest(id, GANG_PAUSE);
        }
        let failure = Failure::new(job.task, cause, job.attempt);
        match retry::delay(job.task, job.attempt, &failure) {
            Some(delay) if !job.cancelled => self.rest(id, delay),
            _ => {
                let failure = job.run.fail(job.task, failure);
                self.finish(id, Some(failure));
            }
        }
    }

    fn supervisor_gone(&mut self) {
        events::supervisor_lost();
        self.processes.lost();
        let all: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in all {
            let job = &self.jobs[&id];
            let is_process = job.task.head().code.command.is_some();
            match job.stage {
                Stage::Running if is_process && !job.is_mustering() => {
                    if let Some(began) = self.processes.began.remove(&id) {
                        job.run.note_lost(job.node, began.at_ns, began.lane);
                    }
                    self.release(id);
                    self.process_failed(id, How::Lost, Usage::default());
                }
                Stage::Standing => {
                    self.desk.bounced(id);
                    self.jobs.get_mut(&id).expect("a job that is known").stage = Stage::Waiting;
                }
                _ => {}
            }
        }
        // Jobs that have ended, and whose heir the supervisor could not name any more.
        for id in self.desk.left_behind(|id| self.jobs.contains_key(&id)) {
            let instance = self.desk.instance(id);
            let cpus = self.desk.ended(id);
            self.processes.unbind(id, None);
            instance.into_iter().for_each(|instance| self.give_cpus(instance, cpus));
        }
    }

    // ── decisions ───────────────────────────────────────────────────────────────────────────────────────────

    /// Starts what fits.
    pub(super) fn decide(&mut self, office: &Office) {
        for id in std::mem::take(&mut self.assembled) {
            if self.jobs.get(&id).is_some_and(|job| job.cancelled) {
                self.release(id);
                self.stop(id);
            } else {
                self.start_process(id, false, office);
            }
        }
        loop {
            let mut actions = Vec::new();
            self.desk.fill(&mut PoolSeats(&mut self.instances), &mut actions);
            for action in actions {
                match action {
                    Action::Start(id) => self.start(id, false, office),
                    Action::Stand(id) => self.start(id, true, office),
                }
            }
            self.processes.send(office);
            if !self.set_limits() {
                return;
            }
        }
    }

    /// Tells workers how many of them may be awake: of a batch whose jobs wait for cpus as few as the first of them
    /// needs, but one, if that leaves room. True if cpus that a job waits for have become free meanwhile.
    fn set_limits(&mut self) -> bool {
        let mut are_free = false;
        for (id, instance) in &self.instances {
            let Some(pool) = instance.pool() else { continue };
            let mut wanted = self.desk.wanted(*id);
            let all = instance.cpus.max(instance.workers);
            if wanted > 0 && wanted < all && pool.has_work() {
                wanted = wanted.min(all.saturating_sub(instance.held + 1));
            }
            are_free |= pool.set_limit(instance.limit(instance.held + wanted)) && wanted > 0;
        }
        are_free
    }

    fn start(&mut self, id: JobId, stands: bool, office: &Office) {
        let job = self.jobs.get_mut(&id).expect("a job that is known");
        if job.task.head().code.command.is_none() {
            return self.start_function(id, office);
        }
        job.stage = if stands { Stage::Standing } else { Stage::Running };
        if !stands {
            job.run.begin(job.task);
        }
        if !job.dealt.is_empty() {
            return self.muster(id);
        }
        self.start_process(id, stands, office);
    }

    fn start_process(&mut self, id: JobId, stands: bool, office: &Office) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let hold = self.desk.class(id).expect("a job at the desk");
        let need = self.desk.need(id).cloned().unwrap_or_default();
        let placed = if need.job.is_some() { self.desk.placed(id) } else { Vec::new() };
        let far = job.holding.as_ref().map_or_else(Vec::new, |holding| holding.far.clone());
        let gpus = if need.gpus > 0 { self.desk.gpus_of(id) } else { Vec::new() };
        let granted = Granted { hold, need: &need, placed: &placed, far: &far, gpus: &gpus, stands };
        match self.processes.start(id, job, &granted, office) {
            Started::Sent => {}
            Started::Failed(cause) => {
                if stands {
                    self.desk.withdraw(id);
                } else {
                    self.release(id);
                }
                self.could_not_prepare(id, cause);
            }
        }
    }

    pub(super) fn could_not_prepare(&mut self, id: JobId, cause: Cause) {
        let Some(job) = self.jobs.get(&id) else { return };
        // What the system refuses now it may grant later; an argument that is missing does not come back.
        let is_worth = matches!(cause, Cause::Process(_)) && !job.cancelled;
        let failure = Failure::new(job.task, cause, job.attempt);
        match retry::delay(job.task, job.attempt, &failure) {
            Some(delay) if is_worth => self.rest(id, delay),
            _ => {
                let failure = job.run.fail(job.task, failure);
                self.finish(id, Some(failure));
            }
        }
    }

    /// The job cannot ever run.
    fn fail(&mut self, id: JobId, cause: Cause) {
        let Some(job) = self.jobs.get(&id) else { return };
        let failure = job.run.fail(job.task, Failure::new(job.task, cause, job.attempt));
        self.finish(id, Some(failure));
    }

    /// The time of an attempt of a function begins.
    fn set_timeout(&mut self, id: JobId, attempt: u32) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.attempt == attempt) else { return };
        if let Some(timeout) = job.task.extra().and_then(|extra| extra.limits.timeout) {
            self.timers.add(Instant::now(), timeout, Due::Timeout(id, attempt));
        }
    }

    fn start_function(&mut self, id: JobId, office: &Office) {
        let lane = self.enter_lane(id);
        let job = self.jobs.get_mut(&id).expect("a job that is known");
        job.stage = Stage::Running;
        job.run.begin(job.task);
        job.began = job.run.clock();
        let body = Arc::new(Body::default());
        job.body = Some(Arc::clone(&body));
        let is_gang = job.is_of_gang();
        let gpus = &job.run.plan.shared.gpus;
        let held = self.desk.gpus_of(id);
        let gpus = held.iter().flat_map(|(_, ids)| gpus.of(ids)).map(|gpu| gpu.name.clone()).collect();
        let attempt = Attempt {
            job: id,
            run: Arc::clone(&job.run),
            node: job.node,
            task: job.task,
            number: job.attempt,
            cpus: self.desk.need(id).map_or(0, |need| need.cpus),
            gpus,
            lane,
            body,
        };
        let number = attempt.number;
        if !is_gang {
            self.set_timeout(id, number);
        }
        if let Err(error) = self.bodies.call(&self.office, attempt) {
            self.release(id);
            self.could_not_prepare(id, Cause::Error(Box::new(error)));
        }
        let _ = office;
    }
}
