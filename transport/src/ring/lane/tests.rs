//! Tests of the lane: one thread, several threads, and every interleaving of a small one.

use super::*;

fn popped(lane: &Lane, cells: &[Cell], agent: u16) -> Option<u64> {
    let mut item = Item::default();
    let taken = lane.try_pop(cells, AgentId(agent), &mut item);
    (taken == Taken::Yes).then(|| item.word(0))
}

#[cfg(not(loom))]
mod threads {
    use super::*;
    use std::sync::Arc;

    fn cells(count: usize) -> Vec<Cell> {
        (0..count).map(|_| Cell::default()).collect()
    }

    #[test]
    fn items_come_in_order_and_the_array_is_bounded() {
        let (lane, cells) = (Lane::default(), cells(4));
        for lap in 0..5_u64 {
            for n in 0..4 {
                assert!(lane.try_push(&cells, 7, &(lap * 4 + n).to_ne_bytes()), "there is room");
            }
            assert!(!lane.try_push(&cells, 7, &[]), "four are all");
            assert_eq!(lane.len(), 4);
            for n in 0..4 {
                assert_eq!(popped(&lane, &cells, 1), Some(lap * 4 + n));
            }
            assert_eq!(popped(&lane, &cells, 1), None);
            assert!(lane.is_empty());
        }
    }

    #[test]
    fn each_length_comes_back() {
        let (lane, cells) = (Lane::default(), cells(2));
        let bytes: Vec<u8> = (1..=112).collect();
        for len in 0..=112 {
            assert!(lane.try_push(&cells, len as u32, &bytes[..len]));
            let mut item = Item::default();
            assert_eq!(lane.try_pop(&cells, AgentId(1), &mut item), Taken::Yes);
            assert_eq!((item.tag, item.bytes()), (len as u32, &bytes[..len]));
        }
    }

    #[test]
    fn a_dead_consumer_takes_nothing_and_blocks_only_until_it_is_settled() {
        let (lane, cells) = (Lane::default(), cells(2));
        assert!(lane.try_push(&cells, 0, &5_u64.to_ne_bytes()));
        assert!(lane.head.try_lock(0, AgentId(9)));
        let mut item = Item::default();
        assert_eq!(lane.try_pop(&cells, AgentId(1), &mut item), Taken::Busy(AgentId(9)));
        assert!(!lane.head.release_for(AgentId(8)), "only the owner's death counts");
        assert!(lane.head.release_for(AgentId(9)));
        assert!(!lane.head.release_for(AgentId(9)), "settling twice does nothing");
        assert_eq!(popped(&lane, &cells, 1), Some(5));
    }

    #[test]
    fn a_producer_that_died_before_it_moved_its_tail_loses_and_doubles_nothing() {
        let (lane, cells) = (Lane::default(), cells(4));
        assert!(lane.try_push(&cells, 0, &1_u64.to_ne_bytes()));
        lane.tail.ticket.store(0, Ordering::Release);
        lane.resume(&cells);
        lane.resume(&cells);
        assert!(lane.try_push(&cells, 0, &2_u64.to_ne_bytes()));
        assert_eq!(popped(&lane, &cells, 1), Some(1));
        assert_eq!(popped(&lane, &cells, 1), Some(2));
    }

    #[test]
    fn who_looks_in_vain_lets_go() {
        let (lane, cells) = (Lane::default(), cells(2));
        let mut item = Item::default();
        assert_eq!(lane.spin_pop(&cells, AgentId(1), 10, &mut item), Taken::Empty);
        assert!(lane.try_push(&cells, 0, &4_u64.to_ne_bytes()));
        assert_eq!(lane.spin_pop(&cells, AgentId(2), 10, &mut item), Taken::Yes);
        assert_eq!(item.word(0), 4);
    }

    #[test]
    fn threads_get_each_item_once_and_whole() {
        const ITEMS: u64 = 20_000;
        let shared = Arc::new((Lane::default(), cells(8)));
        let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let consumers: Vec<_> = (1..=2)
            .map(|agent| {
                let (shared, taken) = (Arc::clone(&shared), Arc::clone(&taken));
                std::thread::spawn(move || {
                    let (mut sum, mut last, mut item) = (0, 0, Item::default());
                    while taken.load(Ordering::Relaxed) < ITEMS {
                        let one = shared.0.try_pop(&shared.1, AgentId(agent), &mut item);
                        if one != Taken::Yes {
                            std::thread::yield_now();
                            continue;
                        }
                        taken.fetch_add(1, Ordering::Relaxed);
                        assert!(item.word(0) > last, "in order");
                        last = item.word(0);
                        sum += last;
                        assert!((1..14).all(|at| item.word(at) == last), "whole");
                    }
                    sum
                })
            })
            .collect();
        for n in 1..=ITEMS {
            let bytes: Vec<u8> = (0..14).flat_map(|_| n.to_ne_bytes()).collect();
            while !shared.0.try_push(&shared.1, 0, &bytes) {
                std::thread::yield_now();
            }
        }
        let sum: u64 = consumers.into_iter().map(|it| it.join().expect("a consumer ends")).sum();
        assert_eq!(sum, ITEMS * (ITEMS + 1) / 2);
    }
}

#[cfg(loom)]
mod models {
    use super::*;
    use loom::sync::Arc;

    /// Two cells, three items, two consumers: each item is taken once, whole, and in order.
    #[test]
    fn loom_each_item_of_a_lane_is_taken_once() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((Lane::default(), [Cell::default(), Cell::default()]));
            let consumer = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || [(); 2].map(|()| popped(&shared.0, &shared.1, 1)))
            };
            let producer = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    (1..=3_u64)
                        .filter(|n| shared.0.try_push(&shared.1, 0, &n.to_ne_bytes()))
                        .collect::<Vec<_>>()
                })
            };
            let mine = popped(&shared.0, &shared.1, 2);
            let theirs = consumer.join().expect("the consumer ends");
            let pushed = producer.join().expect("the producer ends");
            let theirs: Vec<u64> = theirs.into_iter().flatten().collect();
            assert!(theirs.is_sorted(), "in order: {theirs:?}");
            let mut all: Vec<u64> = theirs.into_iter().chain(mine).collect();
            while let Some(n) = popped(&shared.0, &shared.1, 2) {
                all.push(n);
            }
            all.sort_unstable();
            assert_eq!(all, pushed);
        });
    }
}
