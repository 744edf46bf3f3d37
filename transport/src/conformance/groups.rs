//! Cases: some ranks together.

use std::time::{Duration, Instant};

use super::{PATIENCE, barrier, pattern};
use crate::rank::Rank;
use crate::world::{Group, GroupError, World};

/// Groups of all sizes, on ranks in any order, several at a time.
pub(super) fn work_together(world: &World) {
    for size in 1..=world.size() {
        for turn in 0..world.size() {
            let ranks: Vec<Rank> = (0..size).map(|i| Rank((i * 3 + turn) % world.size())).collect();
            let mut once = ranks.clone();
            once.sort_unstable();
            once.dedup();
            let ranks = if once.len() == ranks.len() { ranks } else { once };
            let me = ranks.iter().position(|rank| *rank == world.rank());
            let number = u64::from(size) << 32 | u64::from(turn);
            let group = me.map(|me| Group::new(&world.shared_fabric(), number, &ranks, me as u32));
            barrier(world);
            if let Some(group) = &group {
                together(group, &ranks);
            }
            barrier(world);
        }
    }
}

fn together(group: &Group, ranks: &[Rank]) {
    let begin = Instant::now();
    let late = move || begin.elapsed() > PATIENCE;
    let (me, n) = (group.member(), group.size());
    assert_eq!((group.ranks(), n), (ranks, ranks.len() as u32));
    let of = |member: u32, round: u32| pattern(u64::from(member * 100 + round), (member * 1000) as usize);
    for round in 0..4 {
        // What is sent to one waits there behind what is received by other tags.
        group.send((me + 1) % n, 7, &of(me, round)).expect("it is here");
        group.send((me + 1) % n, 8, &[round as u8]).expect("it is here");
        let before = (me + n - 1) % n;
        assert_eq!(group.receive(before, 8, &late).expect("it comes"), [round as u8]);
        assert_eq!(group.receive(before, 7, &late).expect("it comes"), of(before, round));
        let all = group.all_gather(&of(me, round), &late).expect("all are here");
        assert_eq!(all, (0..n).map(|member| of(member, round)).collect::<Vec<_>>());
        let root = round % n;
        assert_eq!(group.broadcast(root, &of(me, round), &late).expect("all are here"), of(root, round));
        // It does not commute, so the order shows.
        let mine = format!("({me})").into_bytes();
        let mut combine = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
        let all = group.all_reduce(mine, &mut combine, &late).expect("all are here");
        let expected: String = (0..n).map(|member| format!("({member})")).collect();
        assert_eq!(String::from_utf8_lossy(&all), expected);
        group.barrier(&late).expect("all are here");
    }
    let none = group.receive(n, 0, &late);
    assert!(matches!(none, Err(GroupError::NoSuchMember { member, size }) if member == n && size == n));
    assert!(matches!(group.receive(0, 99, &|| true), Err(GroupError::Over)));
}

/// A member that closes, leaves, or makes another call: the others hear so and do not wait.
pub(super) fn end(world: &World) {
    if world.size() == 1 {
        return;
    }
    let begin = Instant::now();
    let late = move || begin.elapsed() > PATIENCE;
    let ranks: Vec<Rank> = world.ranks().collect();
    let (me, last) = (world.rank().0, world.size() - 1);
    let group = |number: u64| {
        let group = Group::new(&world.shared_fabric(), number, &ranks, me);
        barrier(world);
        group
    };
    let closed = group(1 << 40);
    if me == last {
        std::thread::sleep(Duration::from_millis(20));
        closed.send(0, 1, b"before").expect("it is here");
        closed.close();
        closed.send(0, 1, b"after").expect("it is here");
    } else {
        let met = closed.barrier(&late);
        assert!(matches!(met, Err(GroupError::Closed { by }) if by == last), "{met:?}");
    }
    assert_eq!(closed.closed_by(), Some(last));
    if me == 0 {
        for word in [b"before".as_slice(), b"after"] {
            assert_eq!(closed.receive_closed(last, 1, &late).expect("it comes"), word);
        }
    }
    barrier(world);
    let mut left = Some(group(2 << 40));
    if me == last {
        let left = left.take().expect("made above");
        left.send(0, 1, b"last words").expect("it is here");
        left.leave();
    }
    if let Some(left) = left.filter(|_| me == 0) {
        assert_eq!(left.receive(last, 1, &late).expect("it comes"), b"last words");
        let more = left.receive(last, 1, &late);
        assert!(matches!(more, Err(GroupError::Left { member }) if member == last), "{more:?}");
    }
    barrier(world);
    let mixed = group(3 << 40);
    if me == 0 {
        let wrong = mixed.barrier(&late).expect_err("the others gather");
        assert!(matches!(wrong, GroupError::Order { member } if member != 0), "{wrong}");
        mixed.close();
    } else {
        let wrong = mixed.all_gather(&[], &late).expect_err("the first is at a barrier");
        assert!(matches!(wrong, GroupError::Order { .. } | GroupError::Closed { .. }), "{wrong}");
    }
    barrier(world);
}
