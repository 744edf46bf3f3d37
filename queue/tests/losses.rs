//! A queue of a world that goes on when ranks are lost: what they had in their hands goes to others or is reported,
//! nobody waits for ever, and a rank that was frozen takes nothing that others have.
//!
//! Ranks are started by `srun` on machines made of namespaces. Every process has a watchdog.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tarragon_queue::{Descriptor, Error, Queue};
use tarragon_testbed::{Ended, Hosts, Launch, PATIENCE, Slurm, die, role, say};
use tarragon_transport::{Bootstrap, FabricError, HandlerId, Launched, Losses, Rank, World};

fn survivors() -> World {
    let losses = Losses::from_environment().limit(Duration::from_secs(2)).survived();
    World::join_with(&Bootstrap::Launched(Launched::new()), losses).expect("all join")
}

/// Says that the sender has done all.
const OVER: HandlerId = HandlerId(1);
/// That was heard here.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Leaves when the other one that is left has done all, too: the launcher may end it as soon as this one ends.
fn leave(world: &World, other: Rank) {
    world.send(other, OVER, 0, b"").expect("it is there");
    let begin = Instant::now();
    while !IS_OVER.load(SeqCst) {
        assert!(begin.elapsed() < PATIENCE, "{other} does not end");
        world.wait(Duration::from_millis(20));
    }
    world.leave().expect("in good order");
}

/// One queue for all, at rank `maker`.
fn shared(world: &World, maker: Rank) -> Queue<u64> {
    world.on(OVER, |_, _| IS_OVER.store(true, SeqCst));
    let made = (world.rank() == maker).then(|| Queue::<u64>::builder().create_on(world).expect("memory"));
    let text = made.as_ref().map_or_else(String::new, |queue| queue.descriptor().to_string());
    let text = world.broadcast_bytes(maker, text.as_bytes()).expect("all are here");
    let text = String::from_utf8(text).expect("a text");
    let attach = || text.parse::<Descriptor>().expect("a descriptor").attach().expect("it is there");
    let queue = made.unwrap_or_else(attach);
    world.barrier_timeout(PATIENCE).expect("all come");
    // What was said in the barrier is out, also of one that is about to go.
    std::thread::sleep(Duration::from_millis(500));
    queue
}

fn run(machines: u32, test: &'static str) -> Option<Ended> {
    let hosts = Hosts::for_ranks(machines)?;
    let slurm = Slurm::for_ranks(&hosts)?;
    Some(Launch::far(slurm.srun(machines), test, "rank").ranks(machines).run())
}

fn until_a_loss(world: &World) {
    let begin = Instant::now();
    while world.losses().is_empty() {
        assert!(begin.elapsed() < PATIENCE, "no loss is known");
        world.wait(Duration::from_millis(20));
    }
}

/// It has taken two items, and is frozen while a third one comes to it: that one another rank gets, once; the two are
/// reported.
#[test]
fn a_frozen_consumer_takes_nothing_that_another_one_has() {
    let test = "a_frozen_consumer_takes_nothing_that_another_one_has";
    if role().is_none() {
        let Some(ended) = run(3, test) else { return };
        let said = ended.said();
        let expected = ["rank 0: 2 are gone", "rank 2 took the third"];
        // UCX may end the frozen one as soon as it wakes up.
        let frozen: Vec<&str> = said.iter().copied().filter(|line| !expected.contains(line)).collect();
        assert_eq!(said.len() - frozen.len(), 2, "{}", ended.text);
        assert!(frozen.iter().all(|line| *line == "rank 1 got nothing"), "{}", ended.text);
        return;
    }
    let world = survivors();
    let queue = shared(&world, Rank(0));
    match world.rank() {
        Rank(1) => {
            for _ in 0..2 {
                queue.get_timeout(PATIENCE).expect("two are put");
            }
            let me = std::process::id();
            let script = format!("sleep 0.5; kill -STOP {me}; sleep 5; kill -CONT {me}");
            let mut waker = std::process::Command::new("sh").args(["-c", &script]).spawn().expect("a shell");
            let got = queue.get();
            let Err(Error::Lost { source, .. }) = &got else { panic!("{got:?}") };
            assert!(matches!(**source, FabricError::CastOut { .. }), "{source}");
            say("rank 1 got nothing");
            waker.wait().expect("it ends");
            return;
        }
        Rank(0) => {
            (1..3).for_each(|item| queue.put(item).expect("there is room"));
            std::thread::sleep(Duration::from_millis(1500));
            queue.put(3).expect("there is room");
            until_a_loss(&world);
            let Err(Error::Abandoned { items }) = queue.join_timeout(PATIENCE) else { panic!("not told") };
            say(&format!("rank 0: {items} are gone"));
        }
        _ => {
            // It comes back when the other one is lost: that one was first.
            std::thread::sleep(Duration::from_millis(1800));
            assert_eq!(queue.get_timeout(PATIENCE).expect("it comes back"), 3);
            queue.task_done().expect("it was taken");
            say("rank 2 took the third");
            // The one that was frozen has woken up by then, and has taken nothing.
            std::thread::sleep(Duration::from_secs(5));
            assert!(matches!(queue.try_get(), Err(Error::Empty)));
        }
    }
    leave(&world, Rank(2 - world.rank().0));
}

/// All who use a queue whose rank is lost are told which one it was, and why.
#[test]
fn a_queue_that_is_lost_with_its_rank_is_an_error_that_says_so() {
    let test = "a_queue_that_is_lost_with_its_rank_is_an_error_that_says_so";
    if role().is_none() {
        let Some(ended) = run(3, test) else { return };
        let begin =
            "the queue lives on h1 and is served by rank 1 there: rank 1 on host h1 is lost (epoch 1): ";
        assert!(ended.said().iter().all(|line| line.starts_with(begin)), "{}", ended.text);
        assert_eq!(ended.said().len(), 4, "{}", ended.text);
        return;
    }
    let world = survivors();
    let queue = shared(&world, Rank(1));
    if world.rank() == Rank(1) {
        die();
    }
    let waited = queue.get().expect_err("nobody puts");
    let put = queue.put(1).expect_err("nobody is there");
    for error in [waited, put] {
        assert!(matches!(error, Error::Lost { rank: 1, .. }), "{error}");
        say(&error.to_string());
    }
    leave(&world, Rank(2 - world.rank().0));
}
