//! Cases: what all ranks do together.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{PATIENCE, Tally, barrier};
use crate::fabric::Fabric;
use crate::message::HandlerId;
use crate::rank::Rank;
use crate::world::{World, WorldError};

/// What was sent before a barrier has been delivered after it.
pub(super) fn barriers_hold(world: &World) {
    const ID: HandlerId = HandlerId(30);
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    world.on(ID, move |_, _| {
        count.fetch_add(1, SeqCst);
    });
    barrier(world);
    for round in 1..=50 {
        world.ranks().for_each(|to| world.send(to, ID, round, &[0; 500]).expect("all are here"));
        barrier(world);
        let size = u64::from(world.size());
        assert!(
            seen.load(SeqCst) >= round * size,
            "round {round}: {} of {}",
            seen.load(SeqCst),
            round * size
        );
        barrier(world);
    }
}

/// A barrier that timed out is gone on with by the next call.
pub(super) fn barrier_resumes(world: &World) {
    const ID: HandlerId = HandlerId(31);
    let go = Arc::new(AtomicU64::new(0));
    let went = go.clone();
    world.on(ID, move |_, _| {
        went.fetch_add(1, SeqCst);
    });
    barrier(world);
    let late = Rank(world.size() - 1);
    let others = u64::from(late.0);
    if world.rank() == late {
        super::until(world, "the others' failure", || go.load(SeqCst) >= others);
    } else {
        let met = world.barrier_timeout(Duration::from_millis(20));
        assert!(matches!(met, Err(WorldError::Timeout { .. })), "{met:?}");
        world.send(late, ID, 0, &[]).expect("all are here");
    }
    barrier(world);
    barrier(world);
}

/// Who waits for what a handler does is not left asleep by another thread that ran it just before.
pub(super) fn deliveries_of_others_end_a_wait(world: &World) {
    const ID: HandlerId = HandlerId(36);
    let seen = Tally::register(world, ID);
    for round in 1..=50 {
        world.wait(Duration::ZERO);
        world.send(world.rank(), ID, round, &[]).expect("it is here");
        let other = || {
            while seen.count() < round {
                world.progress();
            }
        };
        std::thread::scope(|scope| drop(scope.spawn(other).join()));
        let begin = Instant::now();
        world.wait(PATIENCE);
        assert!(begin.elapsed() < PATIENCE, "round {round}: a wait that nothing ended");
    }
    barrier(world);
}

/// Each gets what each gave, and all get what one gave.
pub(super) fn gather_and_broadcast(world: &World) {
    let own = |rank: Rank| vec![rank.0 as u8; 100 * rank.index()];
    for round in 0..20 {
        let all = world.all_gather(&own(world.rank())).expect("all are here");
        assert_eq!(all, world.ranks().map(own).collect::<Vec<_>>());
        let root = Rank(round % world.size());
        let mine = format!("{round} of {}", world.rank());
        let told = world.broadcast_bytes(root, mine.as_bytes()).expect("all are here");
        assert_eq!(String::from_utf8_lossy(&told), format!("{round} of {root}"));
    }
    barrier(world);
}

/// Two ranks in different calls find that out.
pub(super) fn order_is_checked(world: &World) {
    if world.size() == 1 {
        return;
    }
    // The barrier of rank 0 meets the gathering of the others; both then know, and both calls are given up for the
    // ones that are meant.
    barrier(world);
    let wrong =
        if world.rank().0 == 0 { world.barrier_timeout(PATIENCE).err() } else { world.all_gather(&[]).err() };
    let named = matches!(wrong, Some(WorldError::Order { rank }) if rank != world.rank());
    assert!(named, "{wrong:?}");
}

/// What a library is sent is received where no program has called it, and all know their world by one number.
pub(super) fn libraries_come_with_their_messages(world: &World) {
    const ID: HandlerId = HandlerId(33);
    #[derive(Default)]
    struct Library {
        tags: AtomicU64,
    }
    fn install(fabric: &Arc<Fabric>) {
        let library = fabric.state::<Library>();
        fabric.on(ID, move |_, message| {
            library.tags.fetch_add(message.tag, SeqCst);
        });
    }
    let fabric = Fabric::of_world(world.uid()).expect("this process is in it");
    let before = fabric.state::<Library>().tags.load(SeqCst);
    let all = world.all_gather(&world.uid().to_le_bytes()).expect("all are here");
    assert!(all.iter().all(|uid| *uid == all[0]), "{all:?}");
    for to in world.ranks() {
        fabric.introduce(to, install).expect("it is here");
        world.send(to, ID, 1 + u64::from(world.rank().0), &[]).expect("it is here");
    }
    barrier(world);
    let size = u64::from(world.size());
    let sum = size * (size + 1) / 2;
    super::until(world, "what all have sent", || fabric.state::<Library>().tags.load(SeqCst) - before >= sum);
    barrier(world);
    assert_eq!(fabric.state::<Library>().tags.load(SeqCst) - before, sum);
}

/// Each rank asks all others, from two threads; one response of each is late, and one is not waited for.
pub(super) fn requests_are_responded_to(world: &World) {
    const ID: HandlerId = HandlerId(34);
    const LATER: HandlerId = HandlerId(35);
    let late = Arc::new(Mutex::new(Vec::new()));
    world.on(ID, |fabric, message| {
        let twice = [message.payload, message.payload].concat();
        fabric.respond(message, &twice).expect("who asks is here");
    });
    let keep = late.clone();
    world.on(LATER, move |_, message| {
        keep.lock().expect("whole").push((message.source, message.tag));
    });
    barrier(world);
    let fabric = world.shared_fabric();
    let ask = |to: Rank, bytes: &[u8]| {
        let request = fabric.request(to, ID, bytes).expect("it is here");
        request.wait(PATIENCE).expect("it is here").expect("it responds")
    };
    std::thread::scope(|scope| {
        for thread in 0..2u8 {
            scope.spawn(move || {
                for round in 0..50u8 {
                    for to in world.ranks() {
                        let bytes = vec![thread ^ round; usize::from(round) * 40];
                        assert_eq!(ask(to, &bytes), [bytes.clone(), bytes].concat());
                    }
                }
            });
        }
    });
    let next = Rank((world.rank().0 + 1) % world.size());
    drop(fabric.request(next, LATER, &[]).expect("it is here"));
    let request = fabric.request(next, LATER, &[]).expect("it is here");
    assert_eq!(request.wait(Duration::from_millis(5)).expect("it is here"), None);
    barrier(world);
    super::until(world, "two requests", || late.lock().expect("whole").len() == 2);
    for (source, tag) in std::mem::take(&mut *late.lock().expect("whole")) {
        fabric.respond_to(source, tag, b"late").expect("it is here");
    }
    assert_eq!(request.wait(PATIENCE).expect("it is here").expect("it responds"), b"late");
    barrier(world);
}
