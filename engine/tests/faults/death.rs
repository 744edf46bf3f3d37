//! Death by `kill -9`: of the supervisor while processes run, and of the engine at any moment. Each in a program of its
//! own, since both are shared by all batches of a program.

use super::rig::{Ours, Rig, is_long, kill, supervisor, wait_until};
use super::trees::TREES;
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tarragon_engine::{ErrorKind, Exit, Task, tasks};

/// Processes that run when the supervisor is killed.
const RUNNING: usize = 20;

/// One of the trees, which runs until it is killed.
fn endless(rig: &Rig, batch: &Ours, index: usize) -> Task<Exit> {
    let script = format!("{}\nwhile :; do sleep 0.05; done", TREES[index % TREES.len()].1);
    rig.sh(batch, &script).arg("sh").arg(index as u64)
}

fn wait_up(rig: &Rig) {
    wait_until("all run", || (0..RUNNING).all(|index| rig.has(&format!("up.{index}"))));
}

fn kill_supervisor() -> u32 {
    let pid = supervisor().expect("a supervisor");
    kill(pid, Signal::KILL);
    pid
}

#[test]
fn a_killed_supervisor_takes_its_trees_along_and_the_batch_goes_on() {
    if Rig::inner().is_none() {
        let test = "death::a_killed_supervisor_takes_its_trees_along_and_the_batch_goes_on";
        return Rig::new().again(test, "").passes();
    }
    let rig = Rig::new();
    let batch = rig.batch(RUNNING as u32);
    let running: Vec<_> = (0..RUNNING).map(|index| endless(&rig, &batch, index)).collect();
    let waiting: Vec<_> = (0..100).map(|i| rig.sh(&batch, &format!("echo {i}"))).collect();
    let function = batch.closure(|| 3u8);
    let compiled = batch.compile(tasks![running, waiting, function]).expect("a list");
    compiled.start().expect("it starts");
    wait_up(&rig);
    let first = kill_supervisor();
    compiled.wait().expect_err("some were lost");
    for task in &running {
        let error = task.wait().expect_err("it was lost");
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        assert!(error.to_string().ends_with("failed: its supervisor was killed, and it with it"), "{error}");
    }
    for (i, task) in waiting.iter().enumerate() {
        assert_eq!(task.stdout().get().expect("it ran later"), format!("{i}\n"));
    }
    function.result().get().expect("functions are not concerned");
    rig.wait_gone();
    assert_ne!(supervisor().expect("another supervisor"), first);
    rig.sh(&batch, "exit 0").run().expect("the batch goes on");
}

#[test]
fn what_a_killed_supervisor_lost_succeeds_with_retries() {
    if Rig::inner().is_none() {
        return Rig::new().again("death::what_a_killed_supervisor_lost_succeeds_with_retries", "").passes();
    }
    let rig = Rig::new();
    let batch = rig.batch(RUNNING as u32);
    // The first two attempts last for ever.
    let script =
        "echo attempt >> tries.$1; n=$(wc -l < tries.$1); touch up.$1.$n; test $n = 3 || exec sleep 1000";
    let tasks: Vec<_> =
        (0..RUNNING).map(|i| rig.sh(&batch, script).arg("sh").arg(i as u64).retries(2)).collect();
    let after: Vec<_> = tasks.iter().map(|t| batch.process("cat").stdin(t.stdout())).collect();
    let compiled = batch.compile(tasks![tasks, after]).expect("a list");
    compiled.start().expect("it starts");
    for attempt in 1..=2 {
        wait_until("all try", || (0..RUNNING).all(|i| rig.has(&format!("up.{i}.{attempt}"))));
        kill_supervisor();
    }
    compiled.wait().expect("the third attempt succeeds");
    for i in 0..RUNNING {
        assert_eq!(fs::read_to_string(rig.path(&format!("tries.{i}"))).expect("tries").lines().count(), 3);
    }
    drop((compiled, after, tasks, batch));
    rig.wait_gone();
}

/// Kills it again and again while short processes come and go: nothing hangs, and each ends as done or as lost.
#[test]
fn a_supervisor_killed_at_any_moment_stops_nothing() {
    if Rig::inner().is_none() {
        return Rig::new().again("death::a_supervisor_killed_at_any_moment_stops_nothing", "").passes();
    }
    let rig = Rig::new();
    let mut random = Random::new();
    let batch = rig.batch(8);
    let (mut done, mut lost) = (0, 0);
    for _ in 0..if is_long() { 50 } else { 8 } {
        let all: Vec<_> = (0..60).map(|_| rig.sh(&batch, "sleep 0.00$(($$ % 10))")).collect();
        let compiled = batch.compile(&all).expect("a list");
        compiled.start().expect("it starts");
        std::thread::sleep(random.below(Duration::from_millis(150)));
        if let Some(pid) = supervisor() {
            kill(pid, Signal::KILL);
        }
        // Whether any was lost depends on the moment.
        let _ = compiled.wait();
        for task in &all {
            match task.wait() {
                Ok(()) => done += 1,
                Err(error) if error.kind() == ErrorKind::Lost => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("{done} processes succeeded, {lost} were lost");
    assert!(done > 0 && lost > 0, "{done} succeeded, {lost} were lost");
    // All cpus are free again: as many as there are run at once. The last kill may not have been noticed yet.
    let together: Vec<_> = (0..8)
        .map(|i| {
            rig.sh(&batch, &format!("touch in.{i}; while [ $(ls in.* | wc -l) -lt 8 ]; do sleep 0.01; done"))
        })
        .map(|task| task.retries(1))
        .collect();
    batch.compile(&together).expect("a list").run().expect("all run at once");
    rig.wait_gone();
}

/// What the inner program of the next test does until it is killed: trees of all kinds that come, stay and go.
fn engine(rig: &Rig) {
    let batch = rig.batch(40);
    let all: Vec<_> = (0..600)
        .map(|index| match index % 10 {
            0 => endless(rig, &batch, index / 10),
            _ => {
                let begins = TREES[index % TREES.len()].1;
                rig.sh(&batch, &format!("{begins}\nsleep 0.{}", index % 7)).arg("sh").arg(index as u64)
            }
        })
        .collect();
    let compiled = batch.compile(&all).expect("a list");
    compiled.start().expect("it starts");
    rig.touch("started");
    compiled.wait().expect_err("never: it is killed before");
}

#[test]
fn nothing_outlives_a_killed_engine() {
    if let Some(rig) = Rig::inner() {
        return engine(&rig);
    }
    let mut random = Random::new();
    let (mut hit, mut longest) = (0, Duration::ZERO);
    let rounds = if is_long() { 40 } else { 5 };
    for _ in 0..rounds {
        let rig = Rig::new();
        let inner = rig.again("death::nothing_outlives_a_killed_engine", "");
        wait_until("the engine starts", || rig.has("started"));
        std::thread::sleep(random.below(Duration::from_millis(1500)));
        let living = rig.living();
        assert!(living.contains(&inner.pid()), "it was killed by somebody else");
        // The engine and its supervisor are two of them.
        hit += usize::from(living.len() > 2);
        inner.kill();
        let killed = Instant::now();
        rig.wait_gone();
        longest = longest.max(killed.elapsed());
    }
    println!("{hit} of {rounds} kills hit running trees; all gone after {longest:?} at most");
    assert!(hit * 2 > rounds, "only {hit} of {rounds} kills hit running trees");
}

/// Moments nobody has chosen.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the epoch is over");
        Self(now.as_nanos() as u64 | 1)
    }

    fn below(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}
