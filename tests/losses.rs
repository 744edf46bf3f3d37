//! A batch with a dictionary over several machines, one of which is switched off amid its tasks: these run on the
//! others, and what they have put is there.
//!
//! The machines are namespaces of this one. The test has `srun` start this program, which runs the test again in a
//! role.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::time::{Duration, Instant};
use tarragon::prelude::*;
use tarragon::{Context, DictDescriptor, DictError, Task};
use tarragon_testbed::{Hosts, Launch, PATIENCE, Slurm, role, say};

const LAYERS: u64 = 20;
const WIDTH: u64 = 30;
const FOLDER: &str = "TARRAGON_LOSSES_FOLDER";

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

/// Puts a row that it computes from others. The first to make the file, on another rank than home, waits there until
/// its
/// machine is gone.
fn step(context: &Context, dict: DictDescriptor, key: u64, fatal: Option<PathBuf>) -> Result<(), DictError> {
    let dict = dict.attach::<u64, Vec<u64>>()?;
    let mut sum = key;
    for other in before(key) {
        sum = dict.get(&other)?.unwrap().iter().fold(sum, |sum, x| mix(sum, *x));
    }
    if let Some(file) = fatal.filter(|_| context.rank() > 0)
        && std::fs::File::create_new(file).is_ok()
    {
        std::thread::sleep(PATIENCE);
    }
    std::thread::sleep(Duration::from_millis(2));
    let row: Vec<u64> = (0..50).map(|i| sum.wrapping_add(i)).collect();
    dict.put(&key, &row)?;
    Ok(())
}

fn campaign() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let batch = Batch::builder().survive_losses(true).build().unwrap();
    let dict = batch.ddict_with(&DDict::<u64, Vec<u64>>::builder().memory(64 << 20).replicas(2)).unwrap();
    let fatal = LAYERS / 2 * WIDTH;
    let task = |key: u64| -> Task<()> {
        let file = (key == fatal).then(|| folder.join("struck"));
        let task = batch.function(step, (dict.descriptor(), key, file)).writes(dict.key(&key).unwrap());
        let task = before(key).into_iter().fold(task, |task, key| task.reads(dict.key(&key).unwrap()));
        if key == fatal { task.at_rank(2) } else { task }
    };
    let tasks: Vec<Task<()>> = (0..LAYERS * WIDTH).map(task).collect();
    let list = batch.compile(&tasks).unwrap();
    list.run().unwrap();
    let mut rows: Vec<Vec<u64>> = Vec::new();
    for key in 0..LAYERS * WIDTH {
        let add = |sum: u64, other: &u64| rows[*other as usize].iter().fold(sum, |sum, x| mix(sum, *x));
        let sum = before(key).iter().fold(key, add);
        rows.push((0..50).map(|i| sum.wrapping_add(i)).collect());
        assert_eq!(dict.get(&key).unwrap().as_ref(), rows.last(), "key {key}");
    }
    say(&format!("{} tasks run again", list.traffic().unwrap().tasks_rerun));
}

#[test]
fn a_campaign_survives_the_loss_of_a_machine() {
    let test = "a_campaign_survives_the_loss_of_a_machine";
    if role().is_some() {
        return campaign();
    }
    let Some(mut hosts) = Hosts::for_ranks(3) else { return };
    let Some(slurm) = Slurm::for_ranks(&hosts) else { return };
    hosts.be_impatient();
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::far(slurm.srun(3), test, "rank").env(FOLDER, folder.path());
    let ended = launch.env("TARRAGON_LOSS_LIMIT_MS", "2000").ranks(3).run_beside(|text| {
        let begin = Instant::now();
        while !folder.path().join("struck").exists() {
            assert!(begin.elapsed() < PATIENCE, "nobody was struck: {}", text());
            std::thread::sleep(Duration::from_millis(5));
        }
        hosts.power_off(2);
    });
    assert_eq!(ended.said().len(), 1, "{}", ended.text);
    assert!(ended.said()[0].ends_with(" tasks run again"), "{}", ended.text);
}
