//! The desk's decisions: what starts now, and what stands. See the page of [`Desk`]'s module.

use super::{
    AccountId, Action, Blocked, Desk, Host, Instance, InstanceId, JobId, Order, Place, RUNWAY_NS, Seats,
    with_gpus,
};
use crate::schedule::devices::{DeviceId, room};
use crate::schedule::hosts::{HERE, HostId, Placed, fit};
use crate::schedule::need::Need;

/// However short they are, no more than these stand.
const STANDING_MOST: u64 = 256;

/// How many jobs of a class may stand: enough that the supervisor never waits for us, few when each of them takes long,
/// since what comes later with a higher priority does not pass them.
fn standing_max(running: u32, took_ns: u64) -> u32 {
    let runway = u64::from(running) * (RUNWAY_NS / took_ns.max(1)).min(STANDING_MOST);
    (runway.min(STANDING_MOST) as u32).max(2 * running + 2)
}

impl Desk {
    /// Starts what fits.
    pub(crate) fn fill(&mut self, seats: &mut dyn Seats, actions: &mut Vec<Action>) {
        loop {
            let turn = self.turn;
            let after = self.instances.keys().copied().filter(|i| Some(*i) > turn);
            let before = self.instances.keys().copied().filter(|i| Some(*i) <= turn);
            let order: Vec<InstanceId> = after.chain(before).collect();
            let started = order.into_iter().find_map(|i| self.start_one(i, seats).map(|job| (i, job)));
            let Some((instance, job)) = started else { break };
            self.turn = Some(instance);
            actions.push(Action::Start(job));
        }
        self.stand(seats, actions);
    }

    /// Whether the head of an instance, which does not fit, waits for cpus of its account, and for GPUs.
    fn waits_for(&self, instance: &Instance) -> (bool, bool) {
        let Some(Blocked { cpus, gpus, holders }) = instance.blocked else { return (false, false) };
        let lacks_cpus = i64::from(cpus) > self.accounts[&instance.account.0].0;
        (lacks_cpus, gpus > 0 && self.devices.room(&instance.gpus, gpus) < holders)
    }

    /// Whether cpus of an account, and GPUs among these, are kept for heads of other instances that have been passed
    /// often enough.
    fn are_kept(&self, account: AccountId, gpus: &[DeviceId], from: InstanceId) -> (bool, bool) {
        let others = self.instances.iter().filter(|(id, i)| **id != from && i.passed >= self.passes_max(i));
        others.fold((false, false), |(cpus_are, gpus_are), (_, i)| {
            let (cpus, devices) = self.waits_for(i);
            let shares = || i.gpus.iter().any(|id| gpus.contains(id));
            (cpus_are || cpus && i.account == account, gpus_are || devices && shares())
        })
    }

    fn start_one(&mut self, id: InstanceId, seats: &mut dyn Seats) -> Option<JobId> {
        let instance = &self.instances[&id];
        let mut heads: Vec<(Order, u32)> = instance
            .classes
            .iter()
            .filter_map(|c| Some((*self.classes[*c as usize].waiting.first_key_value()?.0, *c)))
            .collect();
        if heads.is_empty() {
            return None;
        }
        let (cpus_are_kept, gpus_are_kept) = self.are_kept(instance.account, &instance.gpus, id);
        if cpus_are_kept {
            return None;
        }
        heads.sort_unstable();
        let passes_max = self.passes_max(instance);
        for (i, (order, class)) in heads.iter().enumerate() {
            let class = *class as usize;
            let need = &self.classes[class].need;
            let may_start = need.gpus == 0 || !gpus_are_kept;
            let Some((here, placed)) = may_start.then(|| self.claim(id, need, seats)).flatten() else {
                if i == 0 {
                    let blocked = self.blocked(id, need);
                    let instance = self.instances.get_mut(&id).expect("an open instance");
                    instance.blocked = Some(blocked);
                    if instance.passed >= passes_max {
                        return None;
                    }
                }
                continue;
            };
            let gpus = self.take(id, class, here, &placed);
            let instance = self.instances.get_mut(&id).expect("an open instance");
            if i == 0 {
                (instance.passed, instance.blocked) = (0, None);
            } else {
                instance.passed += 1;
            }
            let class = &mut self.classes[class];
            class.running += 1;
            let job = class.waiting.remove(order).expect("the head of the class");
            let entry = self.jobs.get_mut(&job).expect("a job that waits");
            (entry.place, entry.placed) = (Place::Running, placed);
            entry.gpus = gpus;
            self.passed_by(id, job);
            return Some(job);
        }
        None
    }

    /// What a head of an instance that does not fit needs of this machine.
    fn blocked(&self, id: InstanceId, need: &Need) -> Blocked {
        let instance = &self.instances[&id];
        let all = self.accounts[&instance.account.0].1;
        let holders = need.job.map_or(1, |job| job.ranks);
        let most = room(instance.gpus.len() as u32, need.gpus);
        Blocked { cpus: need.all_cpus().min(all), gpus: need.gpus, holders: holders.min(most) }
    }

    /// Takes what [`claim`](Self::claim) has found; the GPUs.
    fn take(
        &mut self,
        id: InstanceId,
        class: usize,
        here: u32,
        placed: &[Placed],
    ) -> Vec<(HostId, Vec<DeviceId>)> {
        let (instance, need) =
            (self.instances.get_mut(&id).expect("an open instance"), &self.classes[class].need);
        self.accounts.get_mut(&instance.account.0).expect("an account").0 -= i64::from(here);
        for placed in placed.iter().filter(|placed| placed.host != HERE) {
            self.hosts[placed.host.0 as usize - 1].free -= i64::from(placed.ranks * need.cpus);
        }
        instance.stock.take(need);
        if need.gpus == 0 {
            return Vec::new();
        }
        if need.job.is_none() {
            return vec![(HERE, self.devices.take(&instance.gpus, need.gpus, 1))];
        }
        let mut taken = Vec::with_capacity(placed.len());
        for Placed { host, ranks } in placed {
            let ids = match *host {
                HERE => self.devices.take(&instance.gpus, need.gpus, *ranks),
                HostId(host) => {
                    let host = &mut self.hosts[host as usize - 1];
                    host.devices.take(&host.gpus, need.gpus, *ranks)
                }
            };
            taken.push((*host, ids));
        }
        taken
    }

    /// The cpus of this machine that a task of an instance can have now, whose seats are taken, and where the ranks of
    /// a job are to be.
    fn claim(&self, id: InstanceId, need: &Need, seats: &mut dyn Seats) -> Option<(u32, Vec<Placed>)> {
        let instance = &self.instances[&id];
        if !instance.stock.has(need) {
            return None;
        }
        let free = u32::try_from(self.accounts[&instance.account.0].0.max(0)).unwrap_or(u32::MAX);
        let free = free.min(seats.most(id));
        let room = self.devices.room(&instance.gpus, need.gpus);
        let Some(job) = need.job else {
            return (room > 0 && need.cpus <= free && seats.take(id, need.cpus))
                .then(|| (need.cpus, Vec::new()));
        };
        let others = instance.hosts.iter().map(|host| {
            let Host { free, gpus, devices, .. } = &self.hosts[host.0 as usize - 1];
            let free = u32::try_from((*free).max(0)).unwrap_or(u32::MAX);
            (*host, with_gpus(free, devices.room(gpus, need.gpus), need))
        });
        let free = with_gpus(free, room, need);
        // Functions may keep the seats of what is free here; then others may do.
        for free in [if instance.is_here { free } else { 0 }, 0] {
            let placed = fit(job, need.cpus, [(HERE, free)].into_iter().chain(others.clone()))?;
            let here = placed.iter().filter(|placed| placed.host == HERE).map(|placed| placed.ranks);
            let here = here.sum::<u32>() * need.cpus;
            if here == 0 || seats.take(id, here) {
                return Some((here, placed));
            }
        }
        None
    }

    /// A job of `id` took cpus, or GPUs, that heads of other instances wait for.
    fn passed_by(&mut self, id: InstanceId, job: JobId) {
        let (account, took_gpus) = (self.instances[&id].account, !self.jobs[&job].gpus.is_empty());
        let is_passed = |(other, i): (&InstanceId, &Instance)| {
            let (cpus, gpus) = self.waits_for(i);
            (*other != id && (cpus && i.account == account || gpus && took_gpus)).then_some(*other)
        };
        let passed: Vec<InstanceId> = self.instances.iter().filter_map(is_passed).collect();
        for other in passed {
            self.instances.get_mut(&other).expect("an open instance").passed += 1;
        }
    }

    /// Lets processes stand where that passes over nobody.
    fn stand(&mut self, seats: &mut dyn Seats, actions: &mut Vec<Action>) {
        let waits = |i: &Instance| i.classes.iter().any(|c| !self.classes[*c as usize].waiting.is_empty());
        let waiting: Vec<(InstanceId, AccountId)> =
            self.instances.iter().filter(|(_, i)| waits(i)).map(|(id, i)| (*id, i.account)).collect();
        for (id, account) in &waiting {
            if seats.are_wanted(*id) || waiting.iter().any(|(other, a)| other != id && a == account) {
                continue;
            }
            // With few standing others join them, several at a time: each message wakes the supervisor and us on cpus
            // that processes could use.
            let mut share = 2;
            while let Some(job) = self.stand_one(*id, share) {
                actions.push(Action::Stand(job));
                share = 1;
            }
        }
    }

    /// Lets the head stand, if it is a process and fewer than the `share`-th part of what may stand of its class do.
    fn stand_one(&mut self, id: InstanceId, share: u32) -> Option<JobId> {
        let heads = self.instances[&id].classes.iter();
        let head =
            heads.filter_map(|c| Some((self.classes[*c as usize].waiting.first_key_value()?, *c))).min();
        let ((order, job), class) = head?;
        let (order, job) = (*order, *job);
        let class = &mut self.classes[class as usize];
        let entry = self.jobs.get_mut(&job).expect("a job that waits");
        let most = standing_max(class.running, class.took_ns) / share;
        if !entry.can_stand || class.running == 0 || class.standing >= most {
            return None;
        }
        class.waiting.remove(&order);
        class.standing += 1;
        entry.place = Place::Standing;
        Some(job)
    }
}
