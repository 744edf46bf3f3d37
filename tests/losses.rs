//! A batch with a dictionary in a world that loses a rank amid its tasks, which is killed, frozen, switched off with
//! its machine, or cut off: the others do what it did, and with two replicas every key is as a serial program puts it.
//!
//! Each run starts this program once more in a role, by a launcher that goes on without a rank: as copies
//! (`Builder::spawn`), by `mpirun --enable-recovery`, or by `srun --no-kill` on machines made of namespaces. Twelve
//! runs; a hundred in the long form (`TARRAGON_TEST_LONG`).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "what was struck, and how much ran again")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tarragon::prelude::*;
use tarragon::{Context, DictDescriptor, DictError, Task};
use tarragon_testbed::{Blow, Fate, Hosts, Launch, PATIENCE, Slurm, lacks_mpirun, role, say};

const LAYERS: u64 = 100;
const WIDTH: u64 = 100;
const FOLDER: &str = "TARRAGON_LOSSES_FOLDER";

/// The dictionary, where it stays open.
static KEPT: OnceLock<DDict<u64, Vec<u64>>> = OnceLock::new();

fn mix(of: u64, x: u64) -> u64 {
    (of ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(11)
}

/// What a key is computed from.
fn before(key: u64) -> Vec<u64> {
    let (layer, i) = (key / WIDTH, key % WIDTH);
    if layer == 0 {
        return Vec::new();
    }
    (0..3).map(|k| (layer - 1) * WIDTH + (i + k * k) % WIDTH).collect()
}

fn row(sum: u64) -> Vec<u64> {
    (0..50).map(|i| sum.wrapping_add(i)).collect()
}

/// Puts a row that it computes from others; one strikes.
fn step(context: &Context, dict: DictDescriptor, key: u64, blow: Option<Blow>) -> Result<(), DictError> {
    let dict = dict.attach::<u64, Vec<u64>>()?;
    if key % 100 == 50 {
        // Some ranks open it for each task, others keep it open from some task on.
        KEPT.get_or_init(|| dict.clone());
    }
    let mut sum = key;
    for other in before(key) {
        sum = dict.get(&other)?.unwrap().iter().fold(sum, |sum, x| mix(sum, *x));
    }
    if let Some(blow) = blow {
        blow.strike(context.rank());
    }
    dict.put(&key, row(sum))?;
    Ok(())
}

/// How a run is: who starts the ranks, how one goes, and the seed of the rest.
#[derive(Clone, Debug)]
struct Plan {
    fate: Fate,
    /// What the test does to the machine of the rank that is struck.
    act: &'static str,
    seed: u64,
    replicas: u32,
}

impl Plan {
    fn of_text(text: &str) -> Plan {
        let words: Vec<&str> = text.split(' ').collect();
        let fate = match words[0] {
            "Killed" => Fate::Killed,
            "Frozen" => Fate::Frozen,
            "Asleep" => Fate::Asleep,
            _ => Fate::TakenAway,
        };
        let act = if words[1] == "off" { "off" } else { "cut" };
        Plan { fate, act, seed: words[2].parse().unwrap(), replicas: words[3].parse().unwrap() }
    }

    fn text(&self) -> String {
        format!("{:?} {} {} {}", self.fate, self.act, self.seed, self.replicas)
    }

    /// The task that strikes, amid the list.
    fn fatal(&self) -> u64 {
        LAYERS * WIDTH / 5 + mix(self.seed, 1) % (LAYERS * WIDTH * 3 / 5)
    }

    /// The rank that it is placed on.
    fn victim(&self, ranks: u32) -> u32 {
        1 + (mix(self.seed, 2) % u64::from(ranks - 1)) as u32
    }
}

fn struck(folder: &Path) -> PathBuf {
    folder.join("struck")
}

/// Rank 0 has the list run and looks at each key.
fn campaign(builder: tarragon::Builder, plan: &Plan) {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let batch = builder.survive_losses(true).build().unwrap();
    let world = batch.world().unwrap();
    let (ranks, nodes) = (world.size(), world.nodes());
    let kind = DDict::<u64, Vec<u64>>::builder().memory(64 << 20).replicas(plan.replicas.min(nodes));
    let dict = batch.ddict_with(&kind).unwrap();
    let blow = Blow { fate: plan.fate, file: struck(&folder) };
    let task = |key: u64| -> Task<()> {
        let blow = (key == plan.fatal()).then(|| blow.clone());
        let is_fatal = blow.is_some();
        let task = batch.function(step, (dict.descriptor(), key, blow)).writes(dict.key(&key).unwrap());
        let task = before(key).into_iter().fold(task, |task, key| task.reads(dict.key(&key).unwrap()));
        if is_fatal { task.at_rank(plan.victim(ranks)) } else { task }
    };
    let tasks: Vec<Task<()>> = (0..LAYERS * WIDTH).map(task).collect();
    let list = batch.compile(&tasks).unwrap();
    let ran = list.run();
    assert!(struck(&folder).exists(), "nobody was struck");
    if plan.replicas == 1 {
        return say(&said_of(&ran.unwrap_err()));
    }
    ran.unwrap();
    let mut rows: Vec<Vec<u64>> = Vec::new();
    for key in 0..LAYERS * WIDTH {
        let add = |sum: u64, other: &u64| rows[*other as usize].iter().fold(sum, |sum, x| mix(sum, *x));
        rows.push(row(before(key).iter().fold(key, add)));
        assert_eq!(dict.get(&key).unwrap().as_ref(), rows.last(), "key {key}");
    }
    let (rerun, took) = (list.traffic().unwrap().tasks_rerun, blow.took_ms());
    assert!(rerun > 0);
    say(&format!("{rerun} of {} tasks run again, that one after {took} ms", tasks.len()));
}

/// An error with all its causes.
fn said_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text.replace('\n', " ")
}

/// How often the short form is done.
fn times() -> u64 {
    if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 9 } else { 1 }
}

/// Does a plan, whose launcher is given, and returns what rank 0 says of it. `act` does to the machine of the struck
/// what the plan says.
fn run(launch: Launch, plan: &Plan, limit_ms: u32, act: impl FnOnce()) -> String {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch.env(FOLDER, folder.path()).env("TARRAGON_LOSS_LIMIT_MS", limit_ms.to_string());
    let ended = launch.run_beside(|text| {
        if plan.fate != Fate::TakenAway {
            return;
        }
        let begin = Instant::now();
        while !struck(folder.path()).exists() {
            assert!(begin.elapsed() < PATIENCE, "nobody was struck: {}", text());
            std::thread::sleep(Duration::from_millis(5));
        }
        act();
        // A step without one of its nodes ends late; the cable is cut until the list has gone on.
        while !text().contains("run again") && !text().contains("panicked") && !text().contains("is lost") {
            assert!(begin.elapsed() < PATIENCE, "it does not go on: {}", text());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let said = ended.said();
    assert_eq!(said.len(), 1, "{plan:?}: {}", ended.text);
    said[0].to_string()
}

fn plans(of_each: &[(Fate, &'static str)], first: u64) -> Vec<Plan> {
    let plan =
        |(seed, (fate, act)): (u64, &(Fate, &'static str))| Plan { fate: *fate, act, seed, replicas: 2 };
    (0..times()).flat_map(|_| of_each).enumerate().map(|(i, it)| plan((first + i as u64, it))).collect()
}

#[test]
fn copies_that_lose_one() {
    let test = "copies_that_lose_one";
    if let Some(text) = role() {
        return campaign(Batch::builder().spawn(4), &Plan::of_text(&text));
    }
    let kinds = [Fate::Killed, Fate::Frozen, Fate::Killed, Fate::Frozen].map(|fate| (fate, "-"));
    for plan in plans(&kinds, 100) {
        let said = run(Launch::alone(test, &plan.text()), &plan, 1000, || ());
        println!("spawn, {:?}: {said}", plan.fate);
    }
}

#[test]
fn ranks_of_mpirun_that_lose_one() {
    let test = "ranks_of_mpirun_that_lose_one";
    if let Some(text) = role() {
        return campaign(Batch::builder(), &Plan::of_text(&text));
    }
    if lacks_mpirun() {
        return;
    }
    for plan in plans(&[(Fate::Killed, "-"); 2], 200) {
        let launch = Launch::new(test, &plan.text()).option("--enable-recovery").ranks(3);
        println!("mpirun --enable-recovery, {:?}: {}", plan.fate, run(launch, &plan, 2000, || ()));
    }
}

/// One run on machines of its own, with `srun`.
fn on_machines(test: &'static str, plan: &Plan) -> Option<String> {
    let mut hosts = Hosts::for_ranks(3)?;
    let slurm = Slurm::for_ranks(&hosts)?;
    hosts.be_impatient();
    let launch = Launch::far(slurm.srun(3), test, &plan.text()).ranks(3);
    Some(run(launch, plan, 2000, || match plan.act {
        "off" => hosts.power_off(plan.victim(3)),
        _ => hosts.cut(plan.victim(3)),
    }))
}

fn machines_of_srun(test: &'static str, kinds: &[(Fate, &'static str)], first: u64) {
    if let Some(text) = role() {
        return campaign(Batch::builder(), &Plan::of_text(&text));
    }
    for plan in plans(kinds, first) {
        let Some(said) = on_machines(test, &plan) else { return };
        println!("srun --no-kill, {:?} {}: {said}", plan.fate, plan.act);
    }
}

#[test]
fn machines_of_srun_whose_rank_is_killed_or_frozen() {
    let test = "machines_of_srun_whose_rank_is_killed_or_frozen";
    machines_of_srun(test, &[(Fate::Killed, "-"), (Fate::Asleep, "-")], 300);
}

#[test]
fn machines_of_srun_that_are_switched_off() {
    machines_of_srun("machines_of_srun_that_are_switched_off", &[(Fate::TakenAway, "off"); 2], 400);
}

#[test]
fn machines_of_srun_that_are_cut_off() {
    machines_of_srun("machines_of_srun_that_are_cut_off", &[(Fate::TakenAway, "cut"); 2], 500);
}

/// Keys that were on one node alone are gone with it, and the error says with which.
#[test]
fn without_replicas_the_error_names_what_is_gone() {
    let test = "without_replicas_the_error_names_what_is_gone";
    if let Some(text) = role() {
        return campaign(Batch::builder(), &Plan::of_text(&text));
    }
    let plan = Plan { fate: Fate::TakenAway, act: "off", seed: 400, replicas: 1 };
    let Some(said) = on_machines(test, &plan) else { return };
    println!("{said}");
    let victim = plan.victim(3);
    assert!(said.contains(&format!("rank {victim}")) && said.contains(&format!("h{victim}")), "{said}");
}
