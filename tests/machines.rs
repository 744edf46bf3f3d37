//! A batch on several machines, with a dictionary and a queue that its tasks share wherever they run.
//!
//! The machines are namespaces of this one. The test starts a launcher with this program, which runs the test again in
//! a role.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::time::Duration;
use tarragon::prelude::*;
use tarragon::{Context, DictDescriptor, DictError, Task, results};
use tarragon_testbed::{Hosts, Launch, role, say, skip};

const KEYS: u64 = 60;

/// Puts a row, and says where.
fn put(context: &Context, dict: DictDescriptor, i: u64) -> Result<u32, DictError> {
    let dict = dict.attach::<u64, Vec<f64>>()?;
    dict.put_slice(&i, &vec![i as f64; 1 + 200 * i as usize])?;
    Ok(context.rank())
}

/// Adds up all rows, in place where they lie on this node.
fn sum(context: &Context, dict: DictDescriptor) -> Result<(u32, f64), DictError> {
    let dict = dict.attach::<u64, Vec<f64>>()?;
    let row = |i: u64| Ok(dict.get_ref(&i)?.map_or(0.0, |row| row.iter().sum::<f64>()));
    let sums: Result<Vec<f64>, DictError> = (0..KEYS).map(row).collect();
    Ok((context.rank(), sums?.into_iter().sum()))
}

fn campaign() {
    let batch = Batch::new().unwrap();
    let ranks = batch.world().unwrap().size();
    let dict = batch.ddict_with(&DDict::<u64, Vec<f64>>::builder().memory(64 << 20)).unwrap();
    let key = |i| dict.key(&i).unwrap();
    let puts: Vec<Task<u32>> = (0..KEYS)
        .map(|i| batch.function(put, (dict.descriptor(), i)).writes(key(i)).at_rank(i as u32 % ranks))
        .collect();
    let sums: Vec<Task<(u32, f64)>> = (0..ranks)
        .map(|rank| {
            let task = batch.function(sum, (dict.descriptor(),)).at_rank(rank);
            (0..KEYS).fold(task, |task, i| task.reads(key(i)))
        })
        .collect();
    batch.compile(tasks![puts, sums]).unwrap().run().unwrap();
    let wanted: f64 = (0..KEYS).map(|i| i as f64 * (1 + 200 * i) as f64).sum();
    let found = results(&sums).unwrap();
    assert!(found.iter().all(|(_, sum)| *sum == wanted), "{found:?}, not {wanted}");
    let seen: BTreeSet<u32> = results(&puts).unwrap().into_iter().collect();
    assert_eq!(dict.len().unwrap(), KEYS);
    let local = dict.local_len().unwrap();
    assert!(0 < local && local < KEYS, "{local} keys are here");
    // What is submitted is run by who reads a key that it writes.
    let late = batch.function(put, (dict.descriptor(), KEYS)).writes(key(KEYS)).at_rank(ranks - 1);
    batch.submit(&late).unwrap();
    assert_eq!(dict.get(&KEYS).unwrap().unwrap().len() as u64, 1 + 200 * KEYS);
    // Items of all ranks come to the queue, and tasks on all ranks take them.
    let queue = batch.queue::<u64>().unwrap();
    let offers: Vec<Task<()>> =
        (0..KEYS).map(|i| batch.function(offer, (queue.descriptor(), i)).at_rank(i as u32 % ranks)).collect();
    let takes: Vec<Task<u64>> =
        (0..ranks).map(|rank| batch.function(take, (queue.descriptor(), KEYS / 4)).at_rank(rank)).collect();
    batch.compile(tasks![offers, takes]).unwrap().run().unwrap();
    assert_eq!(results(&takes).unwrap().into_iter().sum::<u64>(), KEYS * (KEYS - 1) / 2);
    say(&format!("{}: {seen:?}", batch.world().unwrap()));
}

/// The first value, and where it was read.
fn first(context: &Context, dict: DictDescriptor, i: u64) -> Result<(u32, f64), DictError> {
    let dict = dict.attach::<u64, Vec<f64>>()?;
    Ok((context.rank(), dict.get_ref(&i)?.map_or(-1.0, |row| row[0])))
}

/// Tasks run where their keys lie, and then nothing but themselves travels; placed anywhere, the values do.
fn near_keys() {
    const ROWS: u64 = 80;
    let batch = Batch::new().unwrap();
    let world = batch.world().unwrap();
    let dict = batch.ddict_with(&DDict::<u64, Vec<f64>>::builder().memory(64 << 20)).unwrap();
    (0..ROWS).for_each(|i| dict.put_slice(&i, &vec![i as f64; 8192]).unwrap());
    let run = |is_near: bool| {
        let read = |i: u64| {
            let task = batch.function(first, (dict.descriptor(), i));
            if is_near { task.near(&dict.key(&i).unwrap()) } else { task }
        };
        let reads: Vec<Task<(u32, f64)>> = (0..ROWS).map(read).collect();
        let compiled = batch.compile(&reads).unwrap();
        let before = world.fabric().network_bytes();
        compiled.run().unwrap();
        let found = results(&reads).unwrap();
        let after = world.fabric().network_bytes();
        assert!(found.iter().enumerate().all(|(i, (_, value))| *value == i as f64), "{found:?}");
        let bytes = after.0 + after.1 - before.0 - before.1;
        (found.into_iter().map(|(rank, _)| rank).collect::<Vec<u32>>(), bytes / ROWS)
    };
    let (ranks, near) = run(true);
    for (i, rank) in (0..ROWS).zip(&ranks) {
        let home = dict.key(&i).unwrap().home.unwrap();
        let ran_on = world.ranks().nth(*rank as usize).unwrap();
        assert_eq!(world.host(home), world.host(ran_on), "key {i}");
    }
    assert_eq!(
        ranks.iter().collect::<BTreeSet<_>>().len() as u32,
        world.size(),
        "both ranks of a node: {ranks:?}"
    );
    let (_, anywhere) = run(false);
    assert!(
        near < 2_000 && anywhere > 10_000,
        "bytes per task on the wire: {near} near, {anywhere} anywhere"
    );
    say(&format!("{}", world.fabric().network_bytes().0 > 0));
}

#[test]
fn tasks_run_near_their_keys() {
    if role().is_some() {
        return near_keys();
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let ended = Launch::far(hosts.mpirun(2), "tasks_run_near_their_keys", "rank").ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["true"], "{}", ended.text);
}

fn offer(queue: QueueDescriptor, i: u64) -> Result<(), QueueError> {
    queue.attach::<u64>()?.put(i)
}

/// The sum of so many items.
fn take(queue: QueueDescriptor, count: u64) -> Result<u64, QueueError> {
    let queue = queue.attach::<u64>()?;
    (0..count).map(|_| queue.get()).sum()
}

#[test]
fn tasks_on_two_machines_share_a_dictionary_and_a_queue() {
    if role().is_some() {
        return campaign();
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let ended = Launch::far(hosts.mpirun(2), "tasks_on_two_machines_share_a_dictionary_and_a_queue", "rank")
        .ranks(4)
        .run();
    ended.expect_success();
    assert_eq!(ended.said(), ["ranks 4 nodes 2 fabric shm+ucx: {0, 1, 2, 3}"], "{}", ended.text);
    (0..2).for_each(|host| assert_eq!(hosts.shared_memory(host), Vec::<String>::new()));
}

/// One frame of a hundred is lost, and each takes 5 ms: slower, and the same.
#[test]
fn a_bad_network_changes_nothing_of_it() {
    if role().is_some() {
        return campaign();
    }
    let Some(hosts) = Hosts::for_ranks(2) else { return };
    let cable = match hosts.bad_cable(Duration::from_millis(5), 10) {
        Ok(cable) => cable,
        Err(why) => return skip("tap", &why),
    };
    let ended = Launch::far(hosts.mpirun(2), "a_bad_network_changes_nothing_of_it", "rank").ranks(4).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["ranks 4 nodes 2 fabric shm+ucx: {0, 1, 2, 3}"], "{}", ended.text);
    assert!(cable.lost() > 0, "none of the frames was lost");
}
