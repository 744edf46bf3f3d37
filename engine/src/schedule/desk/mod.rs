//! Which tasks that need resources may start: never more than there is, and none waits for ever behind smaller ones.
//!
//! Tasks of one *class* (same instance, same need) are interchangeable but for their priority, so each class has one
//! queue. The *head* of an instance is the best task over its classes: the highest priority, then the one that came
//! first.
//!
//! # Order
//! - Instances that share an account of cpus take turns, one start each.
//! - While the head of an instance does not fit, tasks of other classes may pass it, at most [`Desk::passes_max`] of
//!   them; then nothing of that instance (and, if it waits for cpus, nothing of its account) starts until it does. So
//!   every task starts at last, whatever comes after it. A head that waits for GPUs has those kept, too.
//! - *Standing*: a process that would start next anyway is given to the supervisor ahead of time, to take over the
//!   resources of whichever process of its class ends first. At most `standing_max` (in `start`) per class, and only
//!   while the class has the head and no other instance of the account waits; so standing passes over nobody.
//!
//! - A *job* takes cpus of several hosts at once, or of one (see `hosts`). Those of this machine are its account's;
//!   other hosts have cpus for jobs alone, of all instances together.
//! - GPUs are held by number (see `devices`), whichever instances they are for. Who holds some does not stand: which
//!   of them it will have is to be known when it starts.
//!
//! # States of a job
//! `Waiting → Running → gone`, or `Waiting → Standing → Running`; `Standing → Waiting` when the supervisor could not
//! let it stand. Time plays no part here.

mod start;

use crate::schedule::devices::{DeviceId, Devices};
use crate::schedule::hosts::{HERE, HostId, Placed, fit};
use crate::schedule::need::{Need, Stock};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// A task that needs resources, from being ready until it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct JobId(pub(crate) u64);

/// One batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct InstanceId(pub(crate) u32);

/// Cpus that instances share, or that one has for itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AccountId(pub(crate) u32);

/// What the desk decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Start it now: what it needs has been taken.
    Start(JobId),
    /// Let it stand behind the running jobs of its class.
    Stand(JobId),
}

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Waiting,
    Standing,
    Running,
}

/// Seats of an instance's pool: who runs anything there must have taken some.
pub(crate) trait Seats {
    /// How many could be had at once, if nobody who may sit kept them.
    fn most(&self, instance: InstanceId) -> u32;
    /// Takes `cpus` seats at once, or none.
    fn take(&mut self, instance: InstanceId, cpus: u32) -> bool;
    /// The instance's workers have work of their own, for which standing would leave no seat.
    fn are_wanted(&self, instance: InstanceId) -> bool;
}

type Order = (Reverse<i32>, u64);

struct Class {
    instance: InstanceId,
    need: Need,
    waiting: BTreeMap<Order, JobId>,
    running: u32,
    standing: u32,
    /// How long its jobs have taken lately, as far as somebody said.
    took_ns: u64,
}

struct Instance {
    account: AccountId,
    stock: Stock,
    /// Its jobs may use this machine.
    is_here: bool,
    /// Other hosts that they may use.
    hosts: Vec<HostId>,
    /// GPUs of this machine that they may use.
    gpus: Vec<DeviceId>,
    classes: Vec<u32>,
    /// Jobs that started while the head did not fit.
    passed: u32,
    /// What the head needs, while it does not fit.
    blocked: Option<Blocked>,
}

/// What a head that does not fit needs of this machine, at most all of it.
#[derive(Clone, Copy)]
struct Blocked {
    cpus: u32,
    gpus: u64,
    /// So many of them hold as many GPUs each.
    holders: u32,
}

/// What an instance may use beside the cpus of its account.
pub(crate) struct Offer<'a> {
    pub(crate) stock: Stock,
    /// GPUs of this machine, some of which may be another instance's, too.
    pub(crate) gpus: Vec<DeviceId>,
    /// The cpus and GPUs of this machine are for its jobs, too.
    pub(crate) is_here: bool,
    /// Other machines that its jobs may use, and how many cpus of each.
    pub(crate) hosts: &'a [(String, u32)],
    /// How many GPUs each of these has.
    pub(crate) gpus_of_hosts: u32,
}

struct Job {
    class: u32,
    order: Order,
    place: Place,
    can_stand: bool,
    /// Where its ranks are, while it runs.
    placed: Vec<Placed>,
    /// GPUs that it holds; of a job those of its first rank on a host, then those of the next.
    gpus: Vec<(HostId, Vec<DeviceId>)>,
}

/// Another machine.
struct Host {
    name: String,
    free: i64,
    all: u32,
    gpus: Vec<DeviceId>,
    devices: Devices,
}

/// For so long the standing jobs of a class last, if they are as short as those before them: several turns of a
/// scheduler that gives our thread a cpu only between processes.
const RUNWAY_NS: u64 = 20_000_000;

/// See the module's page.
#[derive(Default)]
pub(crate) struct Desk {
    /// Free cpus of each account, and how many there are. Bodies that go on after they waited may overdraw it for a
    /// while.
    accounts: HashMap<u32, (i64, u32)>,
    /// GPUs of this machine.
    devices: Devices,
    /// Other hosts, the first of them number 1.
    hosts: Vec<Host>,
    instances: BTreeMap<InstanceId, Instance>,
    classes: Vec<Class>,
    class_of: HashMap<(InstanceId, Need), u32>,
    jobs: HashMap<JobId, Job>,
    /// The instance that started a job last.
    turn: Option<InstanceId>,
    next: u64,
}

/// Cpus of a host for ranks that hold GPUs, too, of which it has room for so many ranks.
fn with_gpus(cpus: u32, room: u32, need: &Need) -> u32 {
    cpus.min(room.saturating_mul(need.cpus.max(1)))
}

impl Desk {
    /// An account has so many cpus, now; it may have had another number before.
    pub(crate) fn account(&mut self, account: AccountId, cpus: u32) {
        let (free, all) = self.accounts.entry(account.0).or_default();
        *free += i64::from(cpus) - i64::from(*all);
        *all = cpus;
    }

    /// A batch comes.
    pub(crate) fn open(&mut self, id: InstanceId, account: AccountId, offer: Offer<'_>) {
        let Offer { stock, gpus, is_here, hosts, gpus_of_hosts } = offer;
        let hosts = hosts.iter().map(|(name, cpus)| self.host(name, *cpus, gpus_of_hosts)).collect();
        self.devices.learn(gpus.iter().copied());
        let (classes, passed, blocked) = (Vec::new(), 0, None);
        let instance = Instance { account, stock, is_here, hosts, gpus, classes, passed, blocked };
        self.instances.insert(id, instance);
    }

    /// A host has so many cpus and GPUs for jobs, now.
    fn host(&mut self, name: &str, cpus: u32, gpus: u32) -> HostId {
        let at = self.hosts.iter().position(|host| host.name == name).unwrap_or_else(|| {
            let (gpus, devices) = (Vec::new(), Devices::default());
            self.hosts.push(Host { name: name.to_string(), free: 0, all: 0, gpus, devices });
            self.hosts.len() - 1
        });
        let host = &mut self.hosts[at];
        host.free += i64::from(cpus) - i64::from(host.all);
        host.all = cpus;
        host.gpus = (0..gpus).map(DeviceId).collect();
        host.devices.learn(host.gpus.iter().copied());
        HostId(at as u32 + 1)
    }

    /// Where the ranks of a job that runs are: hosts by name, this machine without one, and how many there.
    pub(crate) fn placed(&self, id: JobId) -> Vec<(Option<String>, u32)> {
        let placed = self.jobs.get(&id).map_or(&[][..], |job| &job.placed);
        placed.iter().map(|placed| (self.name_of(placed.host), placed.ranks)).collect()
    }

    /// GPUs that a running job holds, by host as in [`placed`](Self::placed).
    pub(crate) fn gpus_of(&self, id: JobId) -> Vec<(Option<String>, Vec<DeviceId>)> {
        let held = self.jobs.get(&id).map_or(&[][..], |job| &job.gpus);
        held.iter().map(|(host, ids)| (self.name_of(*host), ids.clone())).collect()
    }

    fn name_of(&self, host: HostId) -> Option<String> {
        (host != HERE).then(|| self.hosts[host.0 as usize - 1].name.clone())
    }

    /// The instance is gone, and had no job left.
    pub(crate) fn close(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.remove(&id) {
            for class in instance.classes {
                let class = &mut self.classes[class as usize];
                debug_assert!(class.waiting.is_empty() && class.running + class.standing == 0);
                self.class_of.remove(&(id, std::mem::take(&mut class.need)));
            }
        }
    }

    /// The class of a job, a name for what it holds.
    pub(crate) fn class(&self, job: JobId) -> Option<u32> {
        self.jobs.get(&job).map(|j| j.class)
    }

    /// The batch of a job.
    pub(crate) fn instance(&self, job: JobId) -> Option<InstanceId> {
        self.jobs.get(&job).map(|j| self.classes[j.class as usize].instance)
    }

    pub(crate) fn place(&self, job: JobId) -> Option<Place> {
        self.jobs.get(&job).map(|j| j.place)
    }

    pub(crate) fn need(&self, job: JobId) -> Option<&Need> {
        self.jobs.get(&job).map(|j| &self.classes[j.class as usize].need)
    }

    /// How many passed the head of an instance while it did not fit, at most.
    fn passes_max(&self, instance: &Instance) -> u32 {
        self.accounts[&instance.account.0].1.max(4)
    }

    // ── events ──────────────────────────────────────────────────────────────────────────────────────────────

    /// A job is ready to start.
    pub(crate) fn ready(
        &mut self,
        id: JobId,
        instance: InstanceId,
        need: &Need,
        priority: i32,
        can_stand: bool,
    ) {
        self.next += 1;
        let order = (Reverse(priority), self.next);
        let class = match self.class_of.get(&(instance, need.clone())) {
            Some(class) => *class,
            None => self.new_class(instance, need),
        };
        self.classes[class as usize].waiting.insert(order, id);
        let can_stand = can_stand && need.gpus == 0;
        let (placed, gpus) = (Vec::new(), Vec::new());
        self.jobs.insert(id, Job { class, order, place: Place::Waiting, can_stand, placed, gpus });
    }

    fn new_class(&mut self, instance: InstanceId, need: &Need) -> u32 {
        let class = self.classes.len() as u32;
        self.classes.push(Class {
            instance,
            need: need.clone(),
            waiting: BTreeMap::new(),
            running: 0,
            standing: 0,
            took_ns: RUNWAY_NS,
        });
        self.class_of.insert((instance, need.clone()), class);
        self.instances.get_mut(&instance).expect("an open instance").classes.push(class);
        class
    }

    /// A running job has ended, and its resources are free again; returns the cpus.
    pub(crate) fn ended(&mut self, id: JobId) -> u32 {
        let Some(job) = self.jobs.remove(&id) else { return 0 };
        debug_assert_eq!(job.place, Place::Running);
        let class = &mut self.classes[job.class as usize];
        class.running -= 1;
        let instance = self.instances.get_mut(&class.instance).expect("an open instance");
        instance.stock.give(&class.need);
        for (host, ids) in &job.gpus {
            match *host {
                HERE => self.devices.give(ids, class.need.gpus),
                HostId(host) => self.hosts[host as usize - 1].devices.give(ids, class.need.gpus),
            }
        }
        let mut here = class.need.cpus;
        if class.need.job.is_some() {
            here = 0;
            for placed in &job.placed {
                let cpus = placed.ranks * class.need.cpus;
                match placed.host {
                    HERE => here = cpus,
                    HostId(host) => self.hosts[host as usize - 1].free += i64::from(cpus),
                }
            }
        }
        let account = self.accounts.get_mut(&instance.account.0).expect("an account");
        account.0 += i64::from(here);
        here
    }

    /// Running jobs that `is_known` does not know any more.
    pub(crate) fn left_behind(&self, is_known: impl Fn(JobId) -> bool) -> Vec<JobId> {
        let running = self.jobs.iter().filter(|(id, job)| job.place == Place::Running && !is_known(**id));
        running.map(|(id, _)| *id).collect()
    }

    /// A running job sleeps, so that its cpus are for others (or it goes on, and takes them back whatever is left);
    /// returns the cpus.
    pub(crate) fn pause(&mut self, id: JobId, sleeps: bool) -> u32 {
        let Some(job) = self.jobs.get(&id) else { return 0 };
        let class = &self.classes[job.class as usize];
        let account = self.instances[&class.instance].account;
        let cpus = i64::from(class.need.cpus);
        self.accounts.get_mut(&account.0).expect("an account").0 += if sleeps { cpus } else { -cpus };
        class.need.cpus
    }

    /// A running job has taken so long.
    pub(crate) fn took(&mut self, id: JobId, ns: u64) {
        if let Some(job) = self.jobs.get(&id) {
            let class = &mut self.classes[job.class as usize];
            class.took_ns = (7 * (class.took_ns / 8)).saturating_add(ns / 8);
        }
    }

    /// A standing job has taken over what a running one held, which has ended.
    pub(crate) fn took_over(&mut self, id: JobId, from: JobId) {
        let left = self.jobs.remove(&from);
        debug_assert!(left.is_some_and(|j| j.place == Place::Running));
        if let Some(job) = self.jobs.get_mut(&id) {
            debug_assert_eq!(job.place, Place::Standing);
            job.place = Place::Running;
            self.classes[job.class as usize].standing -= 1;
        }
    }

    /// A standing job must wait again, where it was.
    pub(crate) fn bounced(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        debug_assert_eq!(job.place, Place::Standing);
        job.place = Place::Waiting;
        let class = &mut self.classes[job.class as usize];
        class.standing -= 1;
        class.waiting.insert(job.order, id);
    }

    /// A waiting or standing job will not start at all.
    pub(crate) fn withdraw(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        let class = &mut self.classes[job.class as usize];
        match job.place {
            Place::Waiting => {
                class.waiting.remove(&job.order);
                // It may have been the head that did not fit; the next `fill` looks anew.
                self.instances.get_mut(&class.instance).expect("an open instance").blocked = None;
            }
            Place::Standing => class.standing -= 1,
            Place::Running => unreachable!("a running job ends"),
        }
    }

    // ── what is to be seen ──────────────────────────────────────────────────────────────────────────────────────

    /// Jobs of an instance that wait, the head first.
    pub(crate) fn waiting(&self, id: InstanceId) -> Vec<JobId> {
        let Some(instance) = self.instances.get(&id) else { return Vec::new() };
        let classes = instance.classes.iter().map(|class| &self.classes[*class as usize]);
        let mut all: Vec<(Order, JobId)> =
            classes.flat_map(|class| class.waiting.iter().map(|(order, job)| (*order, *job))).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, job)| job).collect()
    }

    /// What the head of an instance's jobs needs of this machine: how many of its pool's seats to keep free for it.
    pub(crate) fn wanted(&self, id: InstanceId) -> u32 {
        let Some(instance) = self.instances.get(&id) else { return 0 };
        let heads = instance.classes.iter().map(|c| &self.classes[*c as usize]);
        let heads = heads.filter_map(|c| Some((*c.waiting.first_key_value()?.0, &c.need)));
        let Some((_, need)) = heads.min_by_key(|(order, _)| *order) else { return 0 };
        let Some(job) = need.job.filter(|_| !instance.hosts.is_empty() || !instance.is_here) else {
            return need.all_cpus().max(1);
        };
        // Other hosts will have room at last; what they can never have must be here.
        let gpus = |count: usize| crate::schedule::devices::room(count as u32, need.gpus);
        let others = instance.hosts.iter().map(|host| {
            let Host { all, gpus: devices, .. } = &self.hosts[host.0 as usize - 1];
            (*host, with_gpus(*all, gpus(devices.len()), need))
        });
        if fit(job, need.cpus, others.clone()).is_some() {
            return 0;
        }
        let all = self.accounts[&instance.account.0].1;
        let here = (HERE, with_gpus(all, gpus(instance.gpus.len()), need));
        let placed = fit(job, need.cpus, [here].into_iter().chain(others)).unwrap_or_default();
        let here = placed.iter().filter(|placed| placed.host == HERE).map(|placed| placed.ranks);
        here.sum::<u32>() * need.cpus
    }

    /// Cpus free in an account.
    pub(crate) fn free(&self, account: AccountId) -> u32 {
        self.accounts.get(&account.0).map_or(0, |a| a.0.max(0) as u32)
    }

    /// What is left of an instance's memory and named resources.
    pub(crate) fn stock(&self, id: InstanceId) -> Option<&Stock> {
        self.instances.get(&id).map(|instance| &instance.stock)
    }

    /// What is left of an instance's GPUs, in `UNITS`.
    pub(crate) fn free_gpus(&self, id: InstanceId) -> u64 {
        self.instances.get(&id).map_or(0, |instance| self.devices.free(&instance.gpus))
    }

    /// Jobs that wait before this one.
    pub(crate) fn ahead_of(&self, id: JobId) -> usize {
        let Some(job) = self.jobs.get(&id) else { return 0 };
        let instance = self.classes[job.class as usize].instance;
        let classes = self.instances[&instance].classes.iter();
        classes.map(|c| self.classes[*c as usize].waiting.range(..job.order).count()).sum()
    }
}
