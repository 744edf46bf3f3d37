//! Segments that peers read: what they see, and that they do no harm when the segment is gone. On two machines of
//! namespaces, each with a rank that is started by the test's own program.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tarragon_testbed::{Hosts, Launch, role, say, wait_until};
use tarragon_transport::segment::{Segment, Spec};
use tarragon_transport::{FabricError, Rank, RemoteKey, World, wire};

const BYTES: u64 = 1 << 20;

fn word_at(segment: &Segment, index: u64) -> &AtomicU64 {
    segment.at(segment.control() + 8 * index).unwrap()
}

/// The owner's part: shows a segment, changes it, and lets it go while the other reads.
fn show(world: &World) {
    let spec = Spec { kind: "test", layout: 1, control_bytes: BYTES, heap_bytes: 0 };
    let segment: Arc<Segment> = Segment::create(&spec).unwrap();
    (0..BYTES / 8).for_each(|i| word_at(&segment, i).store(i + 1, Ordering::Relaxed));
    let region = world.fabric().show(&segment).unwrap();
    assert!(matches!(region.write(0, &[1]), Err(FabricError::RegionShown { .. })));
    let mut own = [0; 8];
    region.read(segment.control() + 800, &mut own).unwrap();
    assert_eq!(u64::from_ne_bytes(own), 101);
    let told = wire::encode(&(region.key().clone(), segment.control())).unwrap();
    world.broadcast_bytes(Rank(0), &told).unwrap();
    world.barrier().unwrap();
    word_at(&segment, 100).store(7, Ordering::Release);
    world.barrier().unwrap();
    // The other reads on while the region goes, then the segment.
    drop(region);
    let path = segment.path();
    drop(segment);
    assert!(!path.exists());
    world.barrier().unwrap();
}

fn read(world: &World) {
    let told = world.broadcast_bytes(Rank(0), &[]).unwrap();
    let ((key, control), _) = wire::head::<(RemoteKey, u64)>(&told).unwrap();
    let fabric = world.fabric();
    let word = |index: u64| {
        let mut word = [0; 8];
        fabric.get(&key, control + 8 * index, &mut word).map(|()| u64::from_ne_bytes(word))
    };
    assert_eq!(word(100).unwrap(), 101);
    let (mut one, mut many, mut none) = ([0; 8], vec![0; 300_000], []);
    fabric
        .get_all(&key, &mut [(control + 16, &mut one[..]), (0, &mut none), (control + 80, &mut many)])
        .unwrap();
    assert_eq!(u64::from_ne_bytes(one), 3);
    let words = many.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
    assert!(words.eq(11..11 + 300_000 / 8));
    let bounds = fabric.get_all(&key, &mut [(0, &mut one[..]), (key.bytes() - 4, &mut [0; 8])]);
    assert!(matches!(bounds, Err(FabricError::RegionBounds { .. })), "{bounds:?}");
    let put = fabric.put(&key, control, &[1; 8]);
    assert!(matches!(put, Err(FabricError::RegionShown { rank: Rank(0) })), "{put:?}");
    world.barrier().unwrap();
    world.barrier().unwrap();
    assert!([7, 0].contains(&word(100).unwrap()));
    wait_until("zeros are read", || {
        let now = word(100).unwrap();
        assert!([7, 0].contains(&now), "{now}");
        now == 0
    });
    assert_eq!(word(BYTES / 8 - 1).unwrap(), 0);
    world.barrier().unwrap();
}

#[test]
fn a_segment_is_read_by_peers_as_long_as_it_is_shown() {
    let test = "a_segment_is_read_by_peers_as_long_as_it_is_shown";
    if role().is_none() {
        let Some(hosts) = Hosts::for_ranks(2) else { return };
        let ended = Launch::far(hosts.mpirun(1), test, "rank").ranks(2).run();
        ended.expect_success();
        assert_eq!(ended.said(), ["over"; 2], "{}", ended.text);
        return;
    }
    let world = World::from_environment().unwrap();
    if world.rank() == Rank(0) {
        show(&world)
    } else {
        read(&world)
    }
    say("over");
    world.leave().unwrap();
}

/// Ranks that share a node share memory; there is nothing to show it by.
#[test]
fn without_a_network_nothing_is_shown() {
    let world = World::solo();
    let spec = Spec { kind: "test", layout: 1, control_bytes: 64, heap_bytes: 0 };
    let segment = Segment::create(&spec).unwrap();
    assert!(matches!(world.fabric().show(&segment), Err(FabricError::NoNetwork)));
}
