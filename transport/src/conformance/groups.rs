//! Cases: some ranks together.

use std::time::{Duration, Instant};

use super::{PATIENCE, barrier, pattern};
use crate::rank::Rank;
use crate::world::{Group, GroupError, MAIL_BYTES_MAX, World};

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
        group.send((me + 1) % n, 7, &of(me, round), &late).expect("it is here");
        group.send((me + 1) % n, 8, &[round as u8], &late).expect("it is here");
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
        closed.send(0, 1, b"before", &late).expect("it is here");
        closed.close();
        closed.send(0, 1, b"after", &late).expect("it is here");
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
        left.send(0, 1, b"last words", &late).expect("it is here");
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

/// A message of those that fill a mail.
const PIECE: usize = 64 << 10;

/// What waits at one that does not receive has a bound, by whatever calls it comes; what is received later is whole.
pub(super) fn have_bounds(world: &World) {
    if world.size() == 1 {
        return;
    }
    let begin = Instant::now();
    let late = move || begin.elapsed() > PATIENCE;
    let ranks: Vec<Rank> = world.ranks().collect();
    let (me, last) = (world.rank().0, world.size() - 1);
    let group = Group::new(&world.shared_fabric(), 4 << 40, &ranks, me);
    barrier(world);
    let max = MAIL_BYTES_MAX + PIECE as u64;
    let count = 3 * MAIL_BYTES_MAX / PIECE as u64;
    let piece = |number: u64| pattern(number, PIECE);
    // The first one sends, and the last one receives when the first one waits; others do nothing.
    if me == 0 {
        (0..count).for_each(|it| group.send(last, 1, &piece(it), &late).expect("it is here"));
        // Larger than all credit.
        group.send(last, 1, &pattern(1, 2 * MAIL_BYTES_MAX as usize), &late).expect("it is here");
        group.send(last, 1, b"after", &late).expect("it is here");
    } else if me == last {
        expect_full(world, &group, max);
        (0..count).for_each(|it| assert_eq!(group.receive(0, 1, &late).expect("it comes"), piece(it)));
        let large = group.receive(0, 1, &late).expect("it comes");
        assert!(large == pattern(1, 2 * MAIL_BYTES_MAX as usize));
        assert_eq!(group.receive(0, 1, &late).expect("it comes"), b"after");
    }
    group.barrier(&late).expect("all are here");
    // Calls of all, of which the last one makes none for a while.
    if me == last {
        expect_full(world, &group, max * 3);
    }
    for number in 0..count {
        let mine = if me == 0 { piece(number) } else { Vec::new() };
        assert!(group.broadcast(0, &mine, &late).expect("all are here") == piece(number), "{number}");
    }
    // Messages that are received after a call do not hold it up, nor what one sends to itself.
    let pair = [0, last].iter().position(|it| *it == me);
    if let Some(place) = pair {
        let other = [last, 0][place];
        (0..count / 3).for_each(|it| group.send(other, 2, &piece(it), &late).expect("it is here"));
        (0..count).for_each(|it| group.send(me, 2, &piece(it), &late).expect("it is here"));
    }
    group.barrier(&late).expect("all are here");
    if let Some(place) = pair {
        for (from, count) in [([last, 0][place], count / 3), (me, count)] {
            (0..count).for_each(|it| assert!(group.receive(from, 2, &late).expect("it comes") == piece(it)));
        }
    }
    assert_eq!(group.mail_bytes(), 0);
    group.barrier(&late).expect("all are here");
    waits_end(world, group, last);
    barrier(world);
}

/// Waits until as much has come as may, and a while longer.
fn expect_full(world: &World, group: &Group, max: u64) {
    let begin = Instant::now();
    while group.mail_bytes() < MAIL_BYTES_MAX * 9 / 10 {
        assert!(begin.elapsed() < PATIENCE, "only {} bytes have come", group.mail_bytes());
        world.wait(Duration::from_millis(1));
    }
    let full = Instant::now();
    while full.elapsed() < Duration::from_millis(100) {
        assert!(group.mail_bytes() <= max, "{} bytes wait, of {max}", group.mail_bytes());
        world.wait(Duration::from_millis(1));
    }
}

/// What ends the wait of a sender: its own will, a close, and that the other one is gone.
fn waits_end(world: &World, group: Group, last: u32) {
    let (begin, fill) = (Instant::now(), vec![0; PIECE]);
    let soon = move || begin.elapsed() > Duration::from_millis(200);
    let late = move || begin.elapsed() > PATIENCE;
    let send_all = |group: &Group, is_over: &dyn Fn() -> bool| {
        (0..1 << 20).find_map(|_| group.send(last, 3, &fill, is_over).err())
    };
    if group.member() == 0 {
        let over = send_all(&group, &soon);
        assert!(matches!(over, Some(GroupError::Over)), "{over:?}");
        group.post(last, 4, b"full").expect("it is here");
        let closed = send_all(&group, &late);
        assert!(matches!(closed, Some(GroupError::Closed { by }) if by == last), "{closed:?}");
    } else if group.member() == last {
        assert_eq!(group.receive(0, 4, &late).expect("it comes"), b"full");
        group.close();
    }
    // To one that is gone nothing would be waited for.
    barrier(world);
    drop(group);
    barrier(world);
    let ranks: Vec<Rank> = world.ranks().collect();
    let group = Group::new(&world.shared_fabric(), 5 << 40, &ranks, world.rank().0);
    barrier(world);
    if group.member() == 0 {
        // To one that has left nothing is waited for, and only what is posted comes.
        let count = 3 * MAIL_BYTES_MAX / PIECE as u64;
        (0..count).for_each(|_| group.send(last, 3, &fill, &late).expect("its rank is here"));
        group.post(last, 3, b"posted").expect("its rank is here");
    } else if group.member() == last {
        expect_full(world, &group, MAIL_BYTES_MAX + PIECE as u64);
        group.leave();
        assert_eq!(group.receive(0, 3, &late).expect("it comes"), b"posted");
        assert_eq!(group.mail_bytes(), 0);
    }
    barrier(world);
    drop(group);
}
