//! Tests of the chain: growth and reuse, deaths between any two steps, and every interleaving of a small one.

use super::*;
#[cfg(not(loom))]
use crate::ring::head::KEEP_AFTER;
use crate::ring::testing::Store;

fn push<const N: usize>(chain: &Chain, store: &Store<N>, n: u64) -> bool {
    loop {
        match chain.try_push(store, 0, &n.to_ne_bytes()) {
            Pushed::Yes => return true,
            Pushed::Grow => match store.give() {
                Some(block) => chain.link(store, block).expect("the store is sound"),
                None => return false,
            },
            other => unreachable!("{other:?}"),
        }
    }
}

fn pop<const N: usize>(chain: &Chain, store: &Store<N>, agent: u16) -> Option<u64> {
    let mut item = Item::default();
    let taken = chain.try_pop(store, &store.consumer(agent), 1, &mut item, |_| true);
    (taken == Taken::Yes).then(|| item.word(0))
}

#[cfg(not(loom))]
mod threads {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_short_queue_goes_round_in_two_blocks() {
        let (chain, store) = (Chain::default(), Store::<4>::new(8));
        for n in 0..1000 {
            assert!(push(&chain, &store, n));
            assert_eq!(pop(&chain, &store, 1), Some(n));
            assert_eq!(pop(&chain, &store, 1), None);
        }
        assert_eq!(store.given(), 2);
        assert_eq!(chain.counts::<Store<4>>(), (1000, 1000));
    }

    #[test]
    fn a_long_queue_grows_and_comes_back_in_order() {
        let (chain, store) = (Chain::default(), Store::<8>::new(8));
        for lap in 0..50 {
            let count = 1 + lap % 49;
            (0..count).for_each(|n| assert!(push(&chain, &store, lap * 100 + n)));
            assert_eq!(chain.counts::<Store<8>>().0 - chain.counts::<Store<8>>().1, count);
            (0..count).for_each(|n| assert_eq!(pop(&chain, &store, 1), Some(lap * 100 + n)));
            assert_eq!(pop(&chain, &store, 1), None);
        }
    }

    #[test]
    fn blocks_beyond_the_spares_are_given_up() {
        let (chain, store) = (Chain::default(), Store::<4>::new(8));
        (0..23).for_each(|n| assert!(push(&chain, &store, n)));
        assert_eq!(chain.surplus(&store, SPARES_MAX), None, "nothing is taken yet");
        (0..23).for_each(|n| assert_eq!(pop(&chain, &store, 1), Some(n)));
        let mut dropped = Vec::new();
        while let Some(block) = chain.surplus(&store, SPARES_MAX) {
            chain.drop_oldest(&store);
            dropped.push(block);
        }
        let mut kept = Vec::new();
        chain.each_block(&store, &mut |block| kept.push(block));
        assert_eq!((dropped.len() + kept.len()) as u64, store.given());
        assert_eq!(kept.len() as u64, SPARES_MAX + 1, "the spares and the one in use");
        assert!(dropped.iter().all(|block| !kept.contains(block)));
        assert!(push(&chain, &store, 99));
        assert_eq!(pop(&chain, &store, 1), Some(99));
    }

    /// Every store of a put is undone in turn, as if the producer had died before it; the next one goes on.
    #[test]
    fn a_producer_that_died_anywhere_in_a_put_is_continued() {
        for died_at in 0..5 {
            for items in 1..16_u64 {
                let (chain, store) = (Chain::default(), Store::<4>::new(16));
                let mut next = 0;
                for n in 0..items {
                    assert!(push(&chain, &store, n));
                    if n % 3 > 0 {
                        assert_eq!(pop(&chain, &store, 1), Some(next));
                        next += 1;
                    }
                }
                die(&chain, &store, died_at);
                chain.resume(&store);
                chain.resume(&store);
                let mut blocks = Vec::new();
                chain.each_block(&store, &mut |block| blocks.push(block));
                blocks.sort_unstable();
                let all: Vec<u64> = (1..=store.given()).collect();
                assert_eq!(blocks, all, "died at {died_at} after {items}: each block once");
                (items..items + 20).for_each(|n| assert!(push(&chain, &store, n), "died at {died_at}"));
                (next..items + 20).for_each(|n| assert_eq!(pop(&chain, &store, 1), Some(n), "at {died_at}"));
                assert_eq!(pop(&chain, &store, 1), None);
            }
        }
    }

    fn die(chain: &Chain, store: &Store<4>, at: u32) {
        let (block, ticket) = chain.place();
        let cells = store.cells(block).expect("the tail");
        let first = ticket % 4 == 1;
        let last = ticket % 4 == 3;
        match at {
            // Published, but the tail not moved on; in two steps at the end of a block.
            0 if !first => chain.tail.ticket.store(ticket - 1, Ordering::Relaxed),
            1 if first && ticket > 1 => chain.tail.ticket.store(ticket - 2, Ordering::Relaxed),
            // The next block linked, and not yet the rest.
            2 if last => drop(chain.prepare_next(store, cells, ticket)),
            3 if last => {
                let oldest = chain.tail.oldest.load(Ordering::Relaxed);
                if chain.prepare_next(store, cells, ticket).is_ok() {
                    let next = &store.cells(oldest).expect("the oldest")[0];
                    next.word(NEXT).store(chain.tail.oldest.load(Ordering::Relaxed), Ordering::Relaxed);
                    chain.tail.oldest.store(oldest, Ordering::Relaxed);
                }
            }
            4 if last && chain.prepare_next(store, cells, ticket) == Err(Pushed::Grow) => {
                let block = store.give().expect("there are some");
                chain.link(store, block).expect("the store is sound");
            }
            _ => {}
        }
    }

    #[test]
    fn who_refuses_an_item_leaves_it() {
        let (chain, store) = (Chain::default(), Store::<4>::new(2));
        assert!(push(&chain, &store, 3));
        let mut item = Item::default();
        assert_eq!(chain.try_pop(&store, &store.consumer(1), 1, &mut item, |_| false), Taken::Refused);
        assert_eq!(pop(&chain, &store, 1), Some(3));
    }

    /// Items that `agent` takes in a row until it keeps the head.
    fn taken_until_kept(chain: &Chain, store: &Store<16>, agent: u16) -> u64 {
        (1..=1000)
            .find(|&n| {
                assert!(push(chain, store, n));
                assert!(pop(chain, store, agent).is_some());
                chain.head().look().keeper == Some(AgentId(agent))
            })
            .expect("it keeps it")
    }

    #[test]
    fn who_takes_many_keeps_the_head_until_it_is_recalled() {
        let (chain, store) = (Chain::default(), Store::<16>::new(8));
        for recalls in 0..4 {
            assert_eq!(taken_until_kept(&chain, &store, 1), KEEP_AFTER << recalls);
            (0..3).for_each(|n| assert!(push(&chain, &store, n)));
            assert_eq!(pop(&chain, &store, 1), Some(0), "by its keeper");
            assert_eq!(pop(&chain, &store, 2), Some(1), "by another");
            assert_eq!((chain.head().look().owner, chain.head().look().keeper), (None, None));
            assert_eq!(pop(&chain, &store, 2), Some(2));
        }
    }

    /// A keeper that is announced is waited for, and what it died with says whether it has the item.
    #[test]
    fn an_announced_keeper_is_like_an_owner() {
        let (chain, store) = (Chain::default(), Store::<16>::new(8));
        taken_until_kept(&chain, &store, 1);
        assert!(push(&chain, &store, 7));
        let ticket = chain.head().look().ticket;
        store.consumer(1).begin(ticket);
        let mut item = Item::default();
        let taken = chain.try_pop(&store, &store.consumer(2), 1, &mut item, |_| true);
        assert_eq!(taken, Taken::Busy(AgentId(1)));
        let held = |ticket| chain.head().is_held_by(AgentId(1), ticket);
        assert!(held(Some(ticket)), "not committed");
        assert!(!held(None) && !held(Some(ticket - 1)), "nothing announced, or committed");
        assert!(chain.head().release_for(AgentId(1)));
        assert!(!held(Some(ticket)) && !chain.head().release_for(AgentId(1)));
        assert_eq!(pop(&chain, &store, 2), Some(7));
    }

    #[test]
    fn threads_get_each_item_once() {
        const ITEMS: u64 = 20_000;
        let shared = Arc::new((Chain::default(), Store::<16>::new(8)));
        let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let consumers: Vec<_> = (1..=2)
            .map(|agent| {
                let (shared, taken) = (Arc::clone(&shared), Arc::clone(&taken));
                std::thread::spawn(move || {
                    let (mut sum, mut last) = (0, 0);
                    while taken.load(Ordering::Relaxed) < ITEMS {
                        let Some(n) = pop(&shared.0, &shared.1, agent) else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert!(n > last, "in order");
                        (last, sum) = (n, sum + n);
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                    sum
                })
            })
            .collect();
        for n in 1..=ITEMS {
            while !push(&shared.0, &shared.1, n) {
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

    /// The keeper and others that recall: each item once, and in order to each.
    fn check_keeping(preemptions: usize, others: &'static [u16], pops: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let shared = Arc::new((Chain::default(), Store::<8>::new(1)));
            (0..6).for_each(|n| assert!(push(&shared.0, &shared.1, n)));
            assert_eq!(pop(&shared.0, &shared.1, 1), Some(0));
            assert_eq!(shared.0.head().look().keeper, Some(AgentId(1)));
            let take = |agent| {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    (0..pops).map(|_| pop(&shared.0, &shared.1, agent)).collect::<Vec<_>>()
                })
            };
            let others: Vec<_> = others.iter().map(|&agent| take(agent)).collect();
            let mut all: Vec<u64> = (0..pops).filter_map(|_| pop(&shared.0, &shared.1, 1)).collect();
            for other in others {
                let theirs: Vec<u64> = other.join().expect("it ends").into_iter().flatten().collect();
                assert!(theirs.is_sorted(), "in order: {theirs:?}");
                all.extend(theirs);
            }
            all.extend(std::iter::from_fn(|| pop(&shared.0, &shared.1, 4)));
            all.sort_unstable();
            assert_eq!(all, (1..6).collect::<Vec<_>>());
        });
    }

    #[test]
    fn loom_a_kept_head_is_recalled_and_no_item_is_taken_twice() {
        check_keeping(4, &[2], 2);
    }

    #[test]
    fn loom_two_recall_a_head_at_once() {
        check_keeping(2, &[2, 3], 1);
    }

    /// Blocks of one item, so that each put grows or reuses: two consumers take each item once and in order.
    #[test]
    fn loom_each_item_of_a_chain_is_taken_once() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let shared = Arc::new((Chain::default(), Store::<2>::new(3)));
            assert!(push(&shared.0, &shared.1, 0));
            let consumer = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || [(); 2].map(|()| pop(&shared.0, &shared.1, 1)))
            };
            let producer = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || (1..=2).filter(|&n| push(&shared.0, &shared.1, n)).count())
            };
            let mine = pop(&shared.0, &shared.1, 2);
            let theirs = consumer.join().expect("the consumer ends");
            let pushed = producer.join().expect("the producer ends") as u64;
            let theirs: Vec<u64> = theirs.into_iter().flatten().collect();
            assert!(theirs.is_sorted(), "in order: {theirs:?}");
            let mut all: Vec<u64> = theirs.into_iter().chain(mine).collect();
            while let Some(n) = pop(&shared.0, &shared.1, 2) {
                all.push(n);
            }
            all.sort_unstable();
            assert_eq!(all, (0..=pushed).collect::<Vec<_>>());
        });
    }
}
