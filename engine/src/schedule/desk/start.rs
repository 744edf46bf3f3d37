//! The desk's decisions: what starts now, and what stands. See the page of [`Desk`]'s module.

use super::{AccountId, Action, Desk, Instance, InstanceId, JobId, Order, Place, RUNWAY_NS, Seats};
use crate::schedule::hosts::{HERE, Placed, fit};
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

    /// An account whose cpus are kept for the head of an instance that has been passed often enough.
    fn is_kept(&self, account: AccountId, from: InstanceId) -> bool {
        self.instances.iter().any(|(id, i)| {
            *id != from
                && i.account == account
                && i.blocked.is_some_and(|cpus| i64::from(cpus) > self.accounts[&account.0].0)
                && i.passed >= self.passes_max(i)
        })
    }

    fn start_one(&mut self, id: InstanceId, seats: &mut dyn Seats) -> Option<JobId> {
        let instance = &self.instances[&id];
        let mut heads: Vec<(Order, u32)> = instance
            .classes
            .iter()
            .filter_map(|c| Some((*self.classes[*c as usize].waiting.first_key_value()?.0, *c)))
            .collect();
        if heads.is_empty() || self.is_kept(instance.account, id) {
            return None;
        }
        heads.sort_unstable();
        let passes_max = self.passes_max(instance);
        for (i, (order, class)) in heads.iter().enumerate() {
            let class = *class as usize;
            let claimed = self.claim(id, &self.classes[class].need, seats);
            let instance = self.instances.get_mut(&id).expect("an open instance");
            let free = self.accounts.get_mut(&instance.account.0).expect("an account");
            let need = &self.classes[class].need;
            let Some((here, placed)) = claimed else {
                if i == 0 {
                    instance.blocked = Some(need.all_cpus().min(free.1));
                    if instance.passed >= passes_max {
                        return None;
                    }
                }
                continue;
            };
            free.0 -= i64::from(here);
            for placed in placed.iter().filter(|placed| placed.host != HERE) {
                self.hosts[placed.host.0 as usize - 1].free -= i64::from(placed.ranks * need.cpus);
            }
            instance.stock.take(need);
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
            self.passed_by(id);
            return Some(job);
        }
        None
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
        let Some(job) = need.job else {
            return (need.cpus <= free && seats.take(id, need.cpus)).then(|| (need.cpus, Vec::new()));
        };
        let others = instance.hosts.iter().map(|host| {
            let free = self.hosts[host.0 as usize - 1].free.max(0);
            (*host, u32::try_from(free).unwrap_or(u32::MAX))
        });
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

    /// A job of `id` took cpus that heads of other instances of its account wait for.
    fn passed_by(&mut self, id: InstanceId) {
        let account = self.instances[&id].account;
        let free = self.accounts[&account.0].0;
        let others = self.instances.iter_mut().filter(|(other, i)| **other != id && i.account == account);
        others
            .filter(|(_, i)| i.blocked.is_some_and(|cpus| i64::from(cpus) > free))
            .for_each(|(_, i)| i.passed += 1);
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
