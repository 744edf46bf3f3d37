//! One program on the ranks of a launcher, on one machine and on several.
//!
//! Each test starts a launcher with this program, which runs the one test again in a role.

use std::collections::BTreeSet;
use tarragon_engine::{Batch, Context, results, tasks};
use tarragon_testbed::{Hosts, Launch, Slurm, lacks_mpirun, role, say};

fn where_am_i(context: &Context, _: u32) -> u32 {
    context.rank()
}

/// The same program under `mpirun`: rank 0 goes on, the others serve.
#[test]
fn a_launched_program_runs_on_all_ranks() {
    let test = "a_launched_program_runs_on_all_ranks";
    if role().is_some() {
        let batch = Batch::new().expect("a batch");
        let list: Vec<_> = (0..40u32).map(|i| batch.function(where_am_i, (i,))).collect();
        batch.compile(&list).expect("a list").run().expect("all succeed");
        let ranks: BTreeSet<u32> = results(&list).expect("all are there").into_iter().collect();
        return say(&format!("{ranks:?}"));
    }
    if lacks_mpirun() {
        return;
    }
    let ended = Launch::new(test, "rank").ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["{0, 1, 2, 3}"], "{}", ended.text);
}

/// Values of tasks cross from machine to machine, wherever they go, and come home.
fn campaign_of_machines() {
    fn grow(values: Vec<u64>, context_free: u64) -> Vec<u64> {
        values.into_iter().chain([context_free]).collect()
    }
    let batch = Batch::new().expect("a batch");
    let world = batch.world().expect("several ranks");
    let ranks = world.size();
    let mut last = batch.function(grow, (vec![7u64; 50_000], 0u64)).at_rank(ranks - 1);
    let mut chain = Vec::new();
    for i in 1..40u64 {
        let next = batch.function(grow, (last.result(), i)).at_rank(i as u32 * 5 % ranks);
        chain.push(std::mem::replace(&mut last, next));
    }
    let spread: Vec<_> = (0..10 * ranks).map(|i| batch.function(where_am_i, (i,))).collect();
    let compiled = batch.compile(tasks![chain, last, spread]).expect("a list");
    for _ in 0..3 {
        compiled.run().expect("all succeed");
        let values = last.result().get().expect("it is there");
        assert_eq!(values[50_000..], (0..40).collect::<Vec<u64>>());
    }
    let seen: BTreeSet<u32> = results(&spread).expect("all are there").into_iter().collect();
    let (sent, received) = world.fabric().network_bytes();
    assert!(sent > 0 && received > 0, "{sent} {received}");
    say(&format!("{world}: {seen:?}"));
}

#[test]
fn a_program_runs_on_two_machines_of_mpirun() {
    let test = "a_program_runs_on_two_machines_of_mpirun";
    if role().is_some() {
        return campaign_of_machines();
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let ended = Launch::far(hosts.mpirun(2), test, "rank").ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["ranks 4 nodes 2 fabric shm+ucx: {0, 1, 2, 3}"], "{}", ended.text);
    (0..2).for_each(|host| assert_eq!(hosts.shared_memory(host), Vec::<String>::new()));
}

#[test]
fn a_program_runs_on_three_machines_of_srun() {
    let test = "a_program_runs_on_three_machines_of_srun";
    if role().is_some() {
        return campaign_of_machines();
    }
    let Some(hosts) = Hosts::for_ranks(3) else { return };
    let Some(slurm) = Slurm::for_ranks(&hosts) else { return };
    let ended = Launch::far(slurm.srun(3), test, "rank").ranks(3).run();
    assert!(ended.status.success(), "{}\n{}", ended.text, slurm.logs());
    assert_eq!(ended.said(), ["ranks 3 nodes 3 fabric shm+ucx: {0, 1, 2}"], "{}", ended.text);
    (0..3).for_each(|host| assert_eq!(hosts.shared_memory(host), Vec::<String>::new()));
}
