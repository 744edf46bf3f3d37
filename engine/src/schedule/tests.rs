//! The desk against what it promises: on random events nothing is ever taken twice, and everything starts at last.

use super::desk::{AccountId, Action, Desk, InstanceId, JobId, Offer, Place, Seats};
use super::devices::{DeviceId, room};
use super::hosts::{HostId, JobNeed, fit};
use super::need::{Need, Stock};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// Seats of every instance, counted.
struct Counted {
    free: HashMap<u32, u32>,
}

impl Seats for Counted {
    fn most(&self, instance: InstanceId) -> u32 {
        self.free[&instance.0]
    }

    fn take(&mut self, instance: InstanceId, cpus: u32) -> bool {
        let free = self.free.get_mut(&instance.0).expect("an instance");
        let fits = *free >= cpus;
        *free -= if fits { cpus } else { 0 };
        fits
    }

    fn are_wanted(&self, _: InstanceId) -> bool {
        false
    }
}

struct World {
    desk: Desk,
    seats: Counted,
    needs: HashMap<JobId, (u32, Need)>,
    running: HashSet<JobId>,
    standing: Vec<JobId>,
    next: u64,
    starts: Vec<JobId>,
}

impl World {
    fn new(account_cpus: u32, instances: &[u32]) -> Self {
        let mut desk = Desk::default();
        desk.account(AccountId(0), account_cpus);
        for (i, _) in instances.iter().enumerate() {
            let stock = Stock { memory: 100, named: vec![3] };
            let (gpus, hosts) = (gpus(i as u32), hosts());
            let offer = Offer { stock, gpus, is_here: true, hosts: &hosts, gpus_of_hosts: GPUS_OF_HOSTS };
            desk.open(InstanceId(i as u32), AccountId(0), offer);
        }
        let free = instances.iter().enumerate().map(|(i, n)| (i as u32, *n)).collect();
        Self {
            desk,
            seats: Counted { free },
            needs: HashMap::new(),
            running: HashSet::new(),
            standing: Vec::new(),
            next: 0,
            starts: Vec::new(),
        }
    }

    fn ready(&mut self, instance: u32, need: Need, priority: i32) -> JobId {
        self.next += 1;
        let id = JobId(self.next);
        self.desk.ready(id, InstanceId(instance), &need, priority, need.job.is_none());
        self.needs.insert(id, (instance, need));
        id
    }

    fn fill(&mut self) {
        let mut actions = Vec::new();
        self.desk.fill(&mut self.seats, &mut actions);
        for action in actions {
            match action {
                Action::Start(job) => {
                    assert!(self.running.insert(job), "started twice");
                    self.starts.push(job);
                }
                Action::Stand(job) => self.standing.push(job),
            }
        }
        self.check();
    }

    /// What the running jobs hold never exceeds what there is.
    fn check(&self) {
        for instance in self.seats.free.keys() {
            let held = self.running.iter().map(|j| &self.needs[j]).filter(|(i, _)| i == instance);
            let (mut memory, mut named) = (0, 0);
            for (_, need) in held {
                memory += need.memory;
                named += need.named.iter().map(|(_, n)| n).sum::<u64>();
            }
            assert!(memory <= 100 && named <= 3, "more held than there is");
        }
        let mut on_hosts: HashMap<String, u32> = HashMap::new();
        for job in &self.running {
            assert_eq!(self.desk.place(*job), Some(Place::Running));
            let need = &self.needs[job].1;
            let placed = self.desk.placed(*job);
            if let Some(job) = need.job {
                assert_eq!(placed.iter().map(|(_, ranks)| ranks).sum::<u32>(), job.ranks);
            }
            for (host, ranks) in placed {
                *on_hosts.entry(host.unwrap_or_default()).or_default() += ranks * need.cpus;
            }
        }
        assert!(hosts().iter().all(|(name, all)| on_hosts.get(name).is_none_or(|held| held <= all)));
        self.check_gpus();
    }

    /// Whoever holds a whole GPU has it alone, parts of one are never more than it, and all have what they asked for.
    fn check_gpus(&self) {
        let mut held: HashMap<(Option<String>, DeviceId), u64> = HashMap::new();
        for job in &self.running {
            let (instance, need) = &self.needs[job];
            let (each, ranks) = ((need.gpus / WHOLE).max(1), need.job.map_or(1, |job| job.ranks));
            let mut count = 0;
            for (host, ids) in self.desk.gpus_of(*job) {
                assert!(host.is_some() || ids.iter().all(|id| gpus(*instance).contains(id)));
                count += ids.len() as u64;
                for id in ids {
                    *held.entry((host.clone(), id)).or_default() += need.gpus.min(WHOLE);
                }
            }
            assert_eq!(count, if need.gpus > 0 { each * u64::from(ranks) } else { 0 });
        }
        assert!(held.values().all(|amount| *amount <= WHOLE), "{held:?}");
    }

    /// A running job ends; a standing one of its class takes over, as the supervisor does it.
    fn end(&mut self, job: JobId) {
        assert!(self.running.remove(&job));
        let class = self.desk.class(job);
        if let Some(at) = self.standing.iter().position(|s| self.desk.class(*s) == class) {
            let next = self.standing.remove(at);
            self.desk.took_over(next, job);
            self.running.insert(next);
            self.starts.push(next);
        } else {
            let cpus = self.desk.ended(job);
            let (instance, _) = &self.needs[&job];
            *self.seats.free.get_mut(instance).expect("an instance") += cpus;
        }
    }
}

/// A whole GPU.
const WHOLE: u64 = super::need::UNITS as u64;

/// GPUs of this machine that an instance may use; the second of two shares one with the first.
fn gpus(instance: u32) -> Vec<DeviceId> {
    (2 * instance.min(1)..3).chain(3..3 + instance).map(DeviceId).collect()
}

/// GPUs of each of the other machines.
const GPUS_OF_HOSTS: u32 = 2;

/// Other machines, of all instances together.
fn hosts() -> [(String, u32); 2] {
    [("h1".to_string(), 2), ("h2".to_string(), 3)]
}

fn job(ranks: u32, per_host: u32, cpus: u32) -> Need {
    Need { cpus, job: Some(JobNeed { ranks, per_host }), ..Need::default() }
}

fn cpus(cpus: u32) -> Need {
    Need { cpus, ..Need::default() }
}

#[test]
fn higher_priority_first_then_first_come() {
    let mut world = World::new(1, &[1]);
    let a = world.ready(0, cpus(1), 0);
    let b = world.ready(0, cpus(1), 0);
    let c = world.ready(0, cpus(1), 7);
    world.fill();
    assert_eq!(world.starts, [c]);
    world.end(c);
    assert_eq!(world.starts, [c, a], "the standing one took over");
    world.fill();
    world.end(a);
    assert_eq!(world.starts, [c, a, b]);
}

#[test]
fn a_large_job_is_passed_only_so_often() {
    let mut world = World::new(4, &[4]);
    let first = world.ready(0, cpus(1), 0);
    world.fill();
    let large = world.ready(0, cpus(4), 0);
    let mut small: Vec<JobId> = (0..40).map(|_| world.ready(0, cpus(1), 0)).collect();
    world.fill();
    assert!(!world.starts.contains(&large), "it does not fit beside `first`");
    world.end(first);
    let mut rounds = 0;
    while !world.starts.contains(&large) {
        world.fill();
        rounds += 1;
        assert!(rounds < 50, "the large job starves: {} small ones have passed it", world.starts.len() - 1);
        let ending = world.running.iter().copied().min().expect("something runs");
        if ending != large {
            world.end(ending);
            small.retain(|s| *s != ending);
        }
    }
    assert!(small.len() > 20, "it was passed by {} of 40", 40 - small.len());
}

#[test]
fn a_large_job_of_one_instance_is_not_starved_by_another() {
    let mut world = World::new(2, &[2, 2]);
    let first = world.ready(1, cpus(1), 0);
    world.fill();
    let large = world.ready(0, cpus(2), 0);
    (0..40).for_each(|_| assert!(world.ready(1, cpus(1), 0).0 > 0));
    let mut ended = 0;
    world.fill();
    world.end(first);
    while !world.starts.contains(&large) {
        world.fill();
        ended += 1;
        assert!(ended < 30, "the other instance starves it");
        if let Some(job) = world.running.iter().copied().find(|j| *j != large) {
            world.end(job);
        }
    }
}

#[test]
fn a_job_that_needs_all_hosts_is_not_starved() {
    let mut world = World::new(4, &[4]);
    let first: Vec<JobId> = (0..4).map(|_| world.ready(0, job(2, 0, 1), 0)).collect();
    world.fill();
    assert_eq!(world.starts, first, "they fit side by side");
    let large = world.ready(0, job(9, 0, 1), 0);
    (0..60).for_each(|_| assert!(world.ready(0, job(1, 0, 1), 0).0 > 0));
    let mut rounds = 0;
    while !world.starts.contains(&large) {
        world.fill();
        rounds += 1;
        assert!(rounds < 60, "{} have passed it", world.starts.len());
        if let Some(job) = world.running.iter().copied().filter(|job| *job != large).min() {
            world.end(job);
        }
    }
    assert_eq!(world.desk.placed(large).len(), 3);
}

#[test]
fn a_job_goes_to_others_when_this_machine_has_no_seats() {
    let mut world = World::new(4, &[0]);
    let small = world.ready(0, job(2, 0, 1), 0);
    let too_large = world.ready(0, job(6, 0, 1), 0);
    world.fill();
    assert_eq!(world.starts, [small]);
    assert_eq!(world.desk.placed(small), [(Some("h1".to_string()), 2)]);
    assert!(world.desk.placed(too_large).is_empty());
}

fn with_gpus(gpus: u64) -> Need {
    Need { gpus, ..Need::default() }
}

#[test]
fn what_holds_gpus_does_not_stand() {
    let mut world = World::new(4, &[4]);
    let all: Vec<JobId> = (0..5).map(|_| world.ready(0, with_gpus(WHOLE), 0)).collect();
    world.fill();
    assert_eq!(world.starts, all[..3], "there are three");
    assert!(world.standing.is_empty());
    let before = world.desk.gpus_of(all[1]);
    world.end(all[1]);
    world.fill();
    assert_eq!(world.desk.gpus_of(all[3]), before);
    assert_eq!((world.starts.len(), world.desk.free_gpus(InstanceId(0))), (4, 0));
}

#[test]
fn a_task_that_wants_all_gpus_is_not_starved_by_parts_of_its_own_or_another_instance() {
    for others in [0, 1] {
        let mut world = World::new(100, &[50, 50]);
        // The one that both have.
        let first: Vec<JobId> = (0..4).map(|_| world.ready(others, with_gpus(WHOLE / 4), 0)).collect();
        world.fill();
        assert_eq!(world.starts, first);
        let large = world.ready(0, with_gpus(3 * WHOLE), 0);
        let small: Vec<JobId> = (0..2000).map(|_| world.ready(others, with_gpus(WHOLE / 2), 0)).collect();
        let mut rounds = 0;
        while !world.starts.contains(&large) {
            world.fill();
            rounds += 1;
            assert!(rounds < 1500, "{} small ones have passed it", world.starts.len());
            if let Some(job) = world.running.iter().copied().filter(|job| *job != large).min() {
                world.end(job);
            }
        }
        assert!(small.iter().any(|job| !world.starts.contains(job)), "it came last");
    }
}

#[test]
fn ranks_of_a_job_are_where_there_are_gpus() {
    let mut world = World::new(9, &[9]);
    let large = world.ready(0, Need { gpus: WHOLE, ..job(6, 0, 1) }, 0);
    let next = world.ready(0, Need { gpus: WHOLE / 2, ..job(1, 0, 1) }, 0);
    world.fill();
    assert_eq!(world.starts, [large, next]);
    let on = |host: Option<&str>, ids: &[u32]| {
        (host.map(str::to_string), ids.iter().copied().map(DeviceId).collect::<Vec<_>>())
    };
    let held = [on(None, &[0, 1, 2]), on(Some("h2"), &[0, 1]), on(Some("h1"), &[0])];
    assert_eq!(world.desk.gpus_of(large), held);
    assert_eq!(world.desk.gpus_of(next), [on(Some("h1"), &[1])]);
}

#[test]
fn instances_take_turns() {
    let mut world = World::new(1, &[1, 1]);
    let a: Vec<JobId> = (0..3).map(|_| world.ready(0, cpus(1), 0)).collect();
    let b: Vec<JobId> = (0..3).map(|_| world.ready(1, cpus(1), 0)).collect();
    for _ in 0..6 {
        world.fill();
        let job = *world.running.iter().next().expect("one runs");
        world.end(job);
    }
    assert_eq!(world.starts, [a[0], b[0], a[1], b[1], a[2], b[2]]);
}

#[test]
fn jobs_join_those_that_stand_several_at_a_time() {
    let mut world = World::new(2, &[2]);
    for _ in 0..20 {
        world.ready(0, cpus(1), 0);
    }
    world.fill();
    let mut standing = vec![world.standing.len()];
    for _ in 0..8 {
        let job = *world.running.iter().next().expect("one runs");
        world.end(job);
        world.fill();
        standing.push(world.standing.len());
    }
    assert_eq!(standing, [6, 5, 4, 3, 6, 5, 4, 3, 6]);
}

#[test]
fn a_withdrawn_job_never_starts() {
    let mut world = World::new(1, &[1]);
    let a = world.ready(0, cpus(1), 0);
    let b = world.ready(0, cpus(1), 0);
    let c = world.ready(0, cpus(1), 0);
    world.desk.withdraw(b);
    world.fill();
    world.standing.clear();
    world.desk.bounced(c);
    world.end(a);
    world.fill();
    assert_eq!(world.starts, [a, c]);
}

proptest! {
    #[test]
    fn nothing_is_taken_twice_and_everything_starts(
        events in prop::collection::vec(
            ((0u32..2, 0u32..4, 0u64..60, 0u64..3, -1i32..2, 0usize..4), (0u32..12, 0u32..3, 0u64..9)), 1..80
        )
    ) {
        let mut world = World::new(4, &[4, 3]);
        for ((instance, cpu, memory, named, priority, ends), (ranks, per_host, gpus)) in events {
            let named = if named > 0 { vec![(0, named)] } else { Vec::new() };
            // About half of them are jobs, as far as they fit at all.
            let own = [4, 3][instance as usize];
            let gpus = [0, 0, 0, 0, WHOLE / 4, WHOLE / 3, WHOLE, WHOLE, 2 * WHOLE][gpus as usize];
            let devices = [super::tests::gpus(instance).len() as u32, GPUS_OF_HOSTS, GPUS_OF_HOSTS];
            let with = |(cpus, devices): (u32, u32)| cpus.min(room(devices, gpus).saturating_mul(cpu));
            let all = [own, 2, 3].into_iter().zip(devices).map(with).zip(0..);
            let all = all.map(|(cpus, host)| (HostId(host), cpus));
            let job = Some(JobNeed { ranks, per_host });
            let job = job.filter(|job| ranks > 0 && cpu > 0 && ranks < 7 && fit(*job, cpu, all).is_some());
            world.ready(instance, Need { cpus: cpu.min(3), memory, gpus, named, job }, priority);
            world.fill();
            for _ in 0..ends {
                if let Some(job) = world.running.iter().copied().min() {
                    world.end(job);
                }
            }
            world.fill();
        }
        let mut rounds = 0;
        while let Some(job) = world.running.iter().copied().min() {
            world.end(job);
            world.fill();
            rounds += 1;
            prop_assert!(rounds < 1000);
        }
        prop_assert_eq!(world.starts.len() as u64, world.next, "some job never started");
        prop_assert_eq!(&world.seats.free, &HashMap::from([(0, 4), (1, 3)]));
    }
}
