//! Tests of the ticket ring: order, bound, growth, dead producers, and every interleaving of a small one.

use super::*;
use crate::ring::testing::Store;

struct Silent;

impl Note for Silent {
    fn claiming(&self, _: u64, _: u64) {}
    fn claimed(&self) {}
}

/// A ring with its memory.
struct Whole<const N: usize> {
    ring: TicketRing,
    directory: Vec<AtomicU64>,
    store: Store<N>,
    /// The lock of growth.
    growing: Growing,
}

#[cfg(not(loom))]
type Growing = std::sync::Mutex<()>;
#[cfg(loom)]
type Growing = loom::sync::Mutex<()>;

impl<const N: usize> Whole<N> {
    fn new(blocks: usize) -> Self {
        let ring = TicketRing::default();
        ring.start::<Store<N>>();
        let directory = (0..blocks).map(|_| AtomicU64::new(0)).collect();
        Self { ring, directory, store: Store::new(blocks), growing: Growing::new(()) }
    }

    fn tickets(&self) -> Tickets<'_, Store<N>> {
        Tickets { ring: &self.ring, directory: &self.directory, blocks: &self.store }
    }

    /// False: full.
    fn push(&self, agent: u16, bound: u64, n: u64) -> bool {
        loop {
            match self.tickets().try_push(AgentId(agent), bound, 0, &n.to_ne_bytes(), &Silent) {
                Pushed::Yes => return true,
                Pushed::Full => return false,
                Pushed::Grow if !self.grow() => return false,
                Pushed::Grow => {}
                Pushed::Damaged => unreachable!("the store is sound"),
            }
        }
    }

    fn grow(&self) -> bool {
        let _growing = self.growing.lock().expect("no test panics in it");
        self.tickets().reuse() || self.store.give().is_some_and(|block| self.tickets().link(block))
    }

    fn pop(&self, agent: u16) -> Option<u64> {
        let mut item = Item::default();
        let taken = self.tickets().try_pop(AgentId(agent), &mut item, |_| true);
        (taken == Taken::Yes).then(|| item.word(0))
    }

    /// A producer that dies after it claimed the next cell; the block and ticket it had noted.
    #[cfg(not(loom))]
    fn claim_and_die(&self, agent: u16) -> (u64, u64) {
        let ticket = self.tickets().end();
        let Seen::Cell(block) = self.tickets().find(ticket) else { panic!("the test grew it before") };
        let cell = self.tickets().cell(block, ticket).expect("a cell");
        cell.state.store(pack(ticket, AgentId(agent), WRITING), Ordering::Release);
        (block, ticket)
    }
}

#[cfg(not(loom))]
mod threads {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn items_come_in_order_over_two_blocks() {
        let ring = Whole::<4>::new(4);
        for n in 0..1000 {
            assert!(ring.push(1, 0, n));
            assert_eq!(ring.pop(2), Some(n));
            assert_eq!(ring.pop(2), None);
        }
        assert!(ring.store.given() <= 2, "{} blocks", ring.store.given());
        assert_eq!(ring.tickets().counts(), (1000, 1000));
    }

    #[test]
    fn the_bound_is_exact() {
        let ring = Whole::<4>::new(4);
        for lap in 0..10 {
            (0..5).for_each(|n| assert!(ring.push(1, 5, lap * 5 + n)));
            assert!(!ring.push(2, 5, 99) && ring.tickets().is_full(5));
            (0..5).for_each(|n| assert_eq!(ring.pop(1), Some(lap * 5 + n)));
        }
    }

    #[test]
    fn a_full_directory_is_an_end_of_growth() {
        let ring = Whole::<4>::new(2);
        let pushed = (0..20).filter(|&n| ring.push(1, 0, n)).count();
        assert_eq!(pushed, 8);
        assert_eq!((0..8).map_while(|_| ring.pop(1)).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
        assert!(ring.push(1, 0, 20));
        assert_eq!(ring.pop(1), Some(20));
    }

    #[test]
    fn a_dead_producers_cell_is_stepped_over_and_counted_once() {
        let ring = Whole::<8>::new(4);
        assert!(ring.push(1, 0, 1));
        let mut expected = vec![1];
        for round in 0..6 {
            let (block, ticket) = ring.claim_and_die(7);
            assert!(ring.push(1, 0, 100 + round), "others go past the dead one's cell");
            expected.push(100 + round);
            assert!(ring.tickets().is_writing(AgentId(7), block, ticket));
            let mut got = Vec::new();
            while let Some(n) = ring.pop(2) {
                got.push(n);
            }
            assert_eq!(got, [expected[round as usize]]);
            let mut item = Item::default();
            assert_eq!(ring.tickets().try_pop(AgentId(2), &mut item, |_| true), Taken::Busy(AgentId(7)));
            ring.tickets().poison(AgentId(6), block, ticket);
            assert!(ring.tickets().is_writing(AgentId(7), block, ticket), "only its own death counts");
            ring.tickets().poison(AgentId(7), block, ticket);
            ring.tickets().poison(AgentId(7), block, ticket);
            assert!(!ring.tickets().is_writing(AgentId(7), block, ticket));
        }
        assert_eq!(ring.pop(2), Some(105));
        assert_eq!(ring.tickets().counts(), (7, 7));
    }

    #[test]
    fn a_consumer_that_died_stepping_over_counts_once() {
        let ring = Whole::<8>::new(4);
        assert!(ring.push(1, 0, 1));
        assert_eq!(ring.pop(1), Some(1));
        for round in 1..5 {
            let (block, ticket) = ring.claim_and_die(7);
            ring.tickets().poison(AgentId(7), block, ticket);
            // It dies before the last store of `skip`: the head is back where it was.
            assert!(ring.ring.head.try_lock(ticket, AgentId(3)));
            ring.tickets().skip(ticket);
            ring.ring.head.start(ticket);
            assert_eq!(ring.tickets().skipped(), round - 1);
            assert_eq!(ring.pop(2), None);
            assert_eq!(ring.tickets().skipped(), round);
        }
    }

    #[test]
    fn a_producer_with_an_old_ticket_harms_nobody() {
        let ring = Whole::<4>::new(4);
        (0..40).for_each(|n| {
            assert!(ring.push(1, 0, n));
            assert_eq!(ring.pop(1), Some(n));
        });
        // A hint from long ago, as a stalled producer sees it.
        ring.ring.tail.0.store(5, Ordering::Release);
        assert!(ring.push(2, 0, 40));
        assert_eq!(ring.pop(1), Some(40));
    }

    #[test]
    fn threads_keep_each_producers_order_and_lose_nothing() {
        const ITEMS: u64 = 10_000;
        let ring = Arc::new(Whole::<16>::new(4));
        let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let producers: Vec<_> = (1..=2_u16)
            .map(|agent| {
                let ring = Arc::clone(&ring);
                std::thread::spawn(move || {
                    for n in 1..=ITEMS {
                        while !ring.push(agent, 30, n << 1 | u64::from(agent - 1)) {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let consumers: Vec<_> = (3..=4)
            .map(|agent| {
                let (ring, taken) = (Arc::clone(&ring), Arc::clone(&taken));
                std::thread::spawn(move || {
                    let mut last = [0; 2];
                    let mut sum = 0;
                    while taken.load(Ordering::Relaxed) < 2 * ITEMS {
                        let Some(n) = ring.pop(agent) else {
                            std::thread::yield_now();
                            continue;
                        };
                        let of = &mut last[(n & 1) as usize];
                        assert!(n >> 1 > *of, "in order");
                        *of = n >> 1;
                        sum += n >> 1;
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                    sum
                })
            })
            .collect();
        producers.into_iter().for_each(|it| it.join().expect("a producer ends"));
        let sum: u64 = consumers.into_iter().map(|it| it.join().expect("a consumer ends")).sum();
        assert_eq!(sum, ITEMS * (ITEMS + 1));
    }
}

#[cfg(loom)]
mod models {
    use super::*;
    use loom::sync::Arc;

    /// Two producers, a consumer, blocks of two cells that are used again: each item once, each producer's in order.
    #[test]
    fn loom_each_item_of_a_ring_is_taken_once() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let ring = Arc::new(Whole::<2>::new(2));
            assert!(ring.push(1, 0, 0) && ring.push(1, 0, 1));
            assert_eq!([ring.pop(3), ring.pop(3)], [Some(0), Some(1)]);
            let producer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || ring.push(2, 0, 20))
            };
            let consumer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || ring.pop(3))
            };
            assert!(ring.push(1, 0, 10));
            assert!(ring.push(1, 0, 11));
            assert!(producer.join().expect("the producer ends"));
            let mut all: Vec<u64> = consumer.join().expect("the consumer ends").into_iter().collect();
            while let Some(n) = ring.pop(4) {
                all.push(n);
            }
            assert!(all.iter().filter(|&&n| n < 20).is_sorted(), "in order: {all:?}");
            all.sort_unstable();
            assert_eq!(all, [10, 11, 20]);
        });
    }

    /// Two consumers: no item twice.
    #[test]
    fn loom_two_consumers_take_different_items() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let ring = Arc::new(Whole::<2>::new(2));
            assert!(ring.push(1, 0, 1) && ring.push(1, 0, 2));
            let consumer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || ring.pop(3))
            };
            let producer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || ring.push(1, 2, 3))
            };
            let mine = ring.pop(4);
            let theirs = consumer.join().expect("the consumer ends");
            let pushed = producer.join().expect("the producer ends");
            let mut all: Vec<u64> = mine.into_iter().chain(theirs).collect();
            while let Some(n) = ring.pop(4) {
                all.push(n);
            }
            all.sort_unstable();
            assert_eq!(all, (1..=if pushed { 3 } else { 2 }).collect::<Vec<_>>());
        });
    }
}
