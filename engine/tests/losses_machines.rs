//! Lists on several machines of which one is lost: its rank is killed or frozen, its power fails, its cable is cut.
//!
//! Ranks are started by `srun` on machines made of namespaces; what they list reads no files, so all of it succeeds.
#![expect(clippy::print_stdout, reason = "figures, and what has become of the world")]

#[path = "losses/random.rs"]
mod random;

use random::{check, listed, serially, steps};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tarragon_engine::{Batch, Workers};
use tarragon_testbed::{Blow, Fate, Hosts, Launch, PATIENCE, Slurm, lacks_mpirun, role, say};

const FOLDER: &str = "TARRAGON_LOSSES_FOLDER";
const TASKS: u32 = 300;

fn struck(folder: &Path) -> PathBuf {
    folder.join("struck")
}

/// Rank 0 runs a list of which the one that strikes is on another rank; the others serve.
fn campaign(fate: Fate, seed: u64) {
    let folder = PathBuf::from(std::env::var(FOLDER).expect("a folder"));
    let builder = Batch::builder().survive_losses(true).workers(Workers::Threads(2));
    let batch = builder.build().expect("a batch");
    if let Some(world) = batch.world() {
        // Read if the test fails.
        world.on_change(|_, change| println!("{change:?}"));
    }
    let blow = Blow { fate, file: struck(&folder) };
    let steps = steps(seed, TASKS, 2000, &blow, None);
    let tasks = listed(&batch, &steps, 3);
    let list = batch.compile(&tasks).expect("a list");
    list.run().expect("all succeed");
    assert_eq!(check(&tasks, &serially(&steps), "seed {seed}"), 0);
    let traffic = list.traffic().expect("it is on several ranks");
    assert!(traffic.tasks_rerun > 0, "{traffic:?}");
    list.run().expect("and without it");
    assert_eq!(check(&tasks, &serially(&steps), "the second run"), 0);
    let (rerun, took) = (traffic.tasks_rerun, blow.took_ms());
    say(&format!("{fate:?}: {rerun} of {TASKS} tasks run again, that one after {took} ms"));
}

/// The machine on which the task that strikes is placed; see [`listed`].
fn victim(seed: u64) -> u32 {
    let blow = Blow { fate: Fate::TakenAway, file: PathBuf::new() };
    let steps = steps(seed, TASKS, 0, &blow, None);
    let fatal = steps.iter().find(|step| step.blow.is_some()).expect("one does");
    1 + fatal.id % 2
}

fn machines(test: &'static str, fate: Fate, seed: u64, act: impl FnOnce(&mut Hosts, u32)) {
    if role().is_some() {
        return campaign(fate, seed);
    }
    let Some(mut hosts) = Hosts::for_ranks(3) else { return };
    let Some(slurm) = Slurm::for_ranks(&hosts) else { return };
    hosts.be_impatient();
    let folder = tempfile::tempdir().expect("a folder");
    let launch = Launch::far(slurm.srun(3), test, "rank").env(FOLDER, folder.path());
    let launch = launch.env("TARRAGON_LOSS_LIMIT_MS", "2000").ranks(3);
    let ended = launch.run_beside(|text| {
        let begin = Instant::now();
        while !struck(folder.path()).exists() {
            assert!(begin.elapsed() < PATIENCE, "nobody was struck: {}", text());
            std::thread::sleep(Duration::from_millis(5));
        }
        act(&mut hosts, victim(seed));
        // What is lost is known, and the list goes on, while this is awaited; a step without one of its nodes ends
        // late.
        while !text().contains("run again") && !text().contains("panicked") {
            assert!(begin.elapsed() < PATIENCE, "it does not go on: {}", text());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let said = ended.said();
    assert_eq!(said.len(), 1, "{}", ended.text);
    assert!(said[0].starts_with(&format!("{fate:?}: ")), "{}", ended.text);
    println!("{}", said[0]);
}

#[test]
fn a_rank_of_another_machine_may_be_killed() {
    machines("a_rank_of_another_machine_may_be_killed", Fate::Killed, 1, |_, _| ());
}

/// When it wakes up, it is cast out, and what it still sends is refused.
#[test]
fn a_rank_of_another_machine_may_freeze() {
    machines("a_rank_of_another_machine_may_freeze", Fate::Asleep, 2, |_, _| ());
}

/// On one machine, with a launcher that is told not to end the others. (MPICH's ends all, whatever it is told.)
#[test]
fn a_rank_of_mpirun_may_be_killed() {
    let test = "a_rank_of_mpirun_may_be_killed";
    if role().is_some() {
        return campaign(Fate::Killed, 5);
    }
    if lacks_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let launch = Launch::new(test, "rank").option("--enable-recovery").env(FOLDER, folder.path());
    let ended = launch.env("TARRAGON_LOSS_LIMIT_MS", "2000").ranks(3).run();
    let said = ended.said();
    assert_eq!(said.len(), 1, "{}", ended.text);
    assert!(said[0].starts_with("Killed: "), "{}", ended.text);
}

#[test]
fn a_machine_may_be_switched_off() {
    machines("a_machine_may_be_switched_off", Fate::TakenAway, 3, Hosts::power_off);
}

/// Its rank is cast out, and stops with an error, body and all.
#[test]
fn a_machine_may_be_cut_off() {
    machines("a_machine_may_be_cut_off", Fate::TakenAway, 4, |hosts, machine| hosts.cut(machine));
}
