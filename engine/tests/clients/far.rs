//! A batch on two ranks, and a client of it.

use super::rig::Rig;
use super::roles::{add, diverges, long, process_id, random, says, square};
use tarragon_engine::{Batch, BatchDescriptor, Context, Error, GangError, Workers, results, tasks};

pub(crate) fn home(rig: &Rig) {
    let batch = Batch::builder().spawn(2).workers(Workers::Threads(2)).build().expect("a batch");
    rig.start("far", &batch.descriptor().expect("a descriptor").to_string()).passes();
    batch.join().expect("all is fine");
}

/// A body that is a client of the batch that runs it.
fn submits(batch: BatchDescriptor, x: u64) -> Result<u64, Error> {
    let batch = batch.attach()?;
    let task = batch.function(square, (x,));
    task.run()?;
    Ok(task.result().get()?)
}

fn members(context: &Context, x: u64) -> Result<u64, GangError> {
    let gang = context.gang();
    gang.all_reduce(x + u64::from(gang.member()), |a, b| a + b)
}

pub(crate) fn client(batch: &Batch, rig: &Rig) {
    let home = batch.descriptor().expect("the primary's");
    let pids: Vec<_> = (0..2).map(|rank| batch.function(process_id, ()).at_rank(rank)).collect();
    let mut last = batch.function(square, (2u64,));
    let mut chain = Vec::new();
    for i in 0..40u64 {
        let next = batch.function(add, (last.result(), i)).at_rank((i % 2) as u32);
        chain.push(std::mem::replace(&mut last, next));
    }
    let spoken = batch.function(says, ("far away".to_string(),)).at_rank(1);
    let echo = batch.process("cat").stdin(spoken.stdout()).at_rank(1);
    let fails = batch.try_function(diverges, (4u32,)).at_rank(1);
    let big = batch.function(long, (200_000usize,)).at_rank(1);
    let inside = batch.function(submits, (home.clone(), 11u64)).at_rank(1);
    let gang = batch.function(members, (5u64,)).ranks(2);
    let list = tasks![pids, chain, last, spoken, echo, fails, big, inside, gang];
    batch.compile(list).expect("a list").run().expect_err("one fails");
    let pids = results(&pids).expect("values");
    assert!(pids[0] == home.pid() && pids[1] != home.pid(), "{pids:?}");
    assert_eq!(last.result().get().expect("a value"), 784);
    assert_eq!(spoken.stdout().get().expect("its output"), "far away");
    assert_eq!(echo.stdout().get().expect("its output"), "far away");
    let error = fails.result().get().expect_err("it fails");
    assert_eq!((error.rank(), error.downcast_ref::<std::io::Error>().is_none()), (1, true));
    assert!(error.to_string().contains("after 4 steps"), "{error}");
    assert_eq!(big.result().get().expect("a value"), long(200_000));
    assert_eq!(inside.result().get().expect("a value"), 121);
    assert_eq!(gang.result().get().expect("a value"), 11);
    random(batch, rig);
}
