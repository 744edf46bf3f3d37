//! Tests of the ticket ring: order, bound, growth and shrinking, dead producers, and every interleaving of a small one.

use super::*;
use crate::ring::testing::Store;
use crate::ring::wipe;
use crate::sync::fence;

struct Silent;

impl Note for Silent {
    fn claiming(&self, _: u64, _: u64) {}
    fn claimed(&self) {}
    fn last(&self) -> u64 {
        0
    }
}

/// A ring with its memory.
struct Whole<const N: usize> {
    ring: TicketRing,
    directory: Vec<AtomicU64>,
    store: Store<N>,
    /// The lock of growth; blocks that have left, and may be linked again.
    growing: Growing,
    /// Whether the producer that uses [`Whole::push_at_ring`] is at the ring.
    at_ring: AtomicU64,
}

#[cfg(not(loom))]
type Growing = std::sync::Mutex<Vec<u64>>;
#[cfg(loom)]
type Growing = loom::sync::Mutex<Vec<u64>>;

impl<const N: usize> Whole<N> {
    fn new(blocks: usize) -> Self {
        let ring = TicketRing::default();
        ring.start::<Store<N>>();
        let directory = (0..blocks.next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
        let at_ring = AtomicU64::new(0);
        Self { ring, directory, store: Store::new(blocks), growing: Growing::new(Vec::new()), at_ring }
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
        let mut left = self.growing.lock().expect("no test panics in it");
        let tickets = self.tickets();
        let mut give = || left.pop().or_else(|| self.store.give());
        tickets.has_room() || tickets.reuse() || give().is_some_and(|block| tickets.link(block))
    }

    fn pop(&self, agent: u16) -> Option<u64> {
        let mut item = Item::default();
        let taken = self.tickets().try_pop(&self.store.consumer(agent), 1, &mut item, |_| true);
        (taken == Taken::Yes).then(|| item.word(0))
    }

    /// Puts as a producer does whose ring may shrink: says that it is at the ring.
    fn push_at_ring(&self, agent: u16, n: u64) -> bool {
        loop {
            self.at_ring.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let pushed = self.tickets().try_push(AgentId(agent), 0, 0, &n.to_ne_bytes(), &Silent);
            self.at_ring.store(0, Ordering::Release);
            match pushed {
                Pushed::Yes => return true,
                _ if !self.grow() => return false,
                _ => {}
            }
        }
    }

    /// Takes the blocks off that are taken empty, but `spares`, unless that producer is at the ring. Lets `use_anew`
    /// have their cells, and tells which they are. `meanwhile` comes after the look at the producer.
    fn shrink(&self, spares: u64, meanwhile: impl FnOnce(), use_anew: impl Fn(&[Cell])) -> Vec<u64> {
        let _growing = self.growing.lock().expect("no test panics in it");
        let tickets = self.tickets();
        let limit = tickets.begin_shrink();
        fence(Ordering::SeqCst);
        let mut gone = Vec::new();
        if self.at_ring.load(Ordering::Acquire) != 0 {
            return gone;
        }
        meanwhile();
        while let Some(block) = tickets.surplus(limit, spares) {
            tickets.drop_oldest();
            self.store.cells(block).into_iter().for_each(&use_anew);
            gone.push(block);
        }
        gone
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
            assert_eq!(
                ring.tickets().try_pop(&ring.store.consumer(2), 1, &mut item, |_| true),
                Taken::Busy(AgentId(7))
            );
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
            let consumer = ring.store.consumer(3);
            let right = ring.ring.head.right(ticket, false, &consumer).expect("nobody has it");
            ring.tickets().skip(right, &consumer);
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
    fn blocks_beyond_the_spares_leave_the_ring() {
        let ring = Whole::<4>::new(20);
        (0..42).for_each(|n| assert!(ring.push(1, 0, n)));
        assert!(!ring.tickets().is_swollen(0), "nothing is taken yet");
        assert!(ring.shrink(0, || {}, wipe).is_empty());
        (0..41).for_each(|n| assert_eq!(ring.pop(2), Some(n)));
        assert!(ring.tickets().is_swollen(9) && !ring.tickets().is_swollen(10), "ten are taken empty");
        let gone = ring.shrink(3, || {}, wipe);
        assert_eq!(gone, (1..=7).collect::<Vec<_>>(), "the oldest ones");
        let mut kept = Vec::new();
        ring.tickets().each_block(&mut |block| kept.push(block));
        assert_eq!(kept, [8, 9, 10, 11], "the spares and the one in use");
        assert!(gone.iter().all(|&block| !ring.tickets().is_linked(block)));
        assert_eq!(ring.tickets().counts(), (42, 41));
        assert!(ring.tickets().is_ready());
        assert_eq!(ring.pop(2), Some(41));
    }

    #[test]
    fn all_blocks_may_leave_an_empty_ring() {
        let ring = Whole::<4>::new(100);
        for lap in 0..20_u64 {
            (0..8).for_each(|n| assert!(ring.push(1, 0, lap * 8 + n)));
            (0..8).for_each(|n| assert_eq!(ring.pop(2), Some(lap * 8 + n)));
            assert_eq!(ring.pop(2), None);
            assert_eq!(ring.shrink(0, || {}, wipe).len(), 2);
            assert_eq!(ring.tickets().counts(), (lap * 8 + 8, lap * 8 + 8));
            assert!(!ring.tickets().is_ready() && ring.tickets().busy().is_none());
        }
    }

    /// Of what is read in a block that has left nothing is believed.
    #[test]
    fn cells_that_have_left_say_nothing() {
        let ring = Whole::<4>::new(20);
        (0..12).for_each(|n| {
            assert!(ring.push(1, 0, n));
            assert_eq!(ring.pop(2), Some(n));
        });
        ring.shrink(
            0,
            || {},
            |cells| cells.iter().for_each(|it| it.state.store(u64::MAX, Ordering::Release)),
        );
        // A hint from long ago, as one that asks for the counts may have read it.
        ring.ring.tail.0.store(4, Ordering::Release);
        assert_eq!(ring.tickets().counts(), (12, 12));
        assert!(ring.push(1, 0, 12));
        assert_eq!(ring.tickets().counts(), (13, 12));
        assert_eq!(ring.pop(2), Some(12));
    }

    /// Blocks leave and are linked again all the time, while one puts and another takes.
    #[test]
    fn threads_lose_nothing_while_the_ring_shrinks() {
        const ITEMS_MAX: u64 = 20_000_000;
        const GONE: usize = 1000;
        let ring = Whole::<4>::new(16);
        let (put, gone) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let produce = || {
            let goes_on = |n: &u64| *n < ITEMS_MAX && gone.load(Ordering::Relaxed) < GONE as u64;
            let count = (0..).take_while(goes_on).inspect(|&n| while !ring.push_at_ring(1, n) {}).count();
            put.store(count as u64, Ordering::Release);
        };
        let consume = || {
            let mut next = 0;
            while next < put.load(Ordering::Acquire) {
                match ring.pop(2) {
                    Some(n) => assert_eq!(n, next),
                    None => continue,
                }
                next += 1;
            }
        };
        std::thread::scope(|scope| {
            let ends = [scope.spawn(produce), scope.spawn(consume)];
            while !ends.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                let left = ring.shrink(0, || {}, wipe);
                gone.fetch_add(left.len() as u64, Ordering::Relaxed);
                ring.growing.lock().expect("no test panics in it").extend(left);
            }
            ends.into_iter().for_each(|it| it.join().expect("it ends"));
        });
        let (gone, put) = (gone.into_inner(), put.into_inner());
        assert!(gone >= GONE as u64, "{gone} blocks left while {put} items were put");
        assert_eq!(ring.tickets().counts(), (put, put));
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

    /// The blocks' cells say that nobody has claimed them since they left.
    fn are_untouched(ring: &Whole<2>, gone: &[u64]) -> bool {
        let cells = gone.iter().flat_map(|&block| ring.store.cells(block).expect("a block"));
        cells.into_iter().all(|cell| cell.state.load(Ordering::Acquire) == 0)
    }

    /// Three preemptions: the producer stalls, the block leaves, the producer goes on.
    fn check_shrinking(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    /// A producer begins at an old tail while the block it finds there leaves the ring.
    #[test]
    fn loom_no_producer_claims_a_cell_that_has_left() {
        check_shrinking(|| {
            let ring = Arc::new(Whole::<2>::new(3));
            assert!(ring.push(1, 0, 0) && ring.push(1, 0, 1));
            assert_eq!([ring.pop(3), ring.pop(3)], [Some(0), Some(1)]);
            ring.ring.tail.0.store(2, Ordering::Release);
            let producer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || ring.push_at_ring(2, 10))
            };
            let gone = ring.shrink(0, || {}, wipe);
            assert!(producer.join().expect("the producer ends"));
            assert!(are_untouched(&ring, &gone));
            assert_eq!([ring.pop(4), ring.pop(4)], [Some(10), None]);
        });
    }

    /// A producer comes after the look, and its block is filled and emptied by others before the blocks leave.
    #[test]
    fn loom_the_limit_does_not_move_on_with_the_head() {
        check_shrinking(|| {
            let ring = Arc::new(Whole::<2>::new(4));
            (0..3).for_each(|n| assert!(ring.push(1, 0, n)));
            (0..3).for_each(|n| assert_eq!(ring.pop(3), Some(n)));
            assert!(ring.tickets().link(ring.store.give().expect("one is left")));
            let producer = {
                let ring = Arc::clone(&ring);
                loom::thread::spawn(move || ring.push_at_ring(2, 10))
            };
            let mut all = Vec::new();
            let others = || {
                assert_eq!(
                    ring.tickets().try_push(AgentId(1), 0, 0, &20_u64.to_ne_bytes(), &Silent),
                    Pushed::Yes
                );
                all.extend(ring.pop(3));
            };
            let gone = ring.shrink(0, others, wipe);
            assert!(producer.join().expect("the producer ends"));
            assert!(are_untouched(&ring, &gone));
            all.extend(std::iter::from_fn(|| ring.pop(4)));
            all.sort_unstable();
            assert!(all == [10, 20] || (gone.is_empty() && all == [10]), "{all:?}");
        });
    }

    /// A consumer and one who counts look into a block that leaves the ring, and comes to say other things.
    #[test]
    fn loom_nobody_believes_a_cell_that_has_left() {
        const NOBODY: AgentId = AgentId(99);
        for garbage in [pack(3, NOBODY, WRITING), pack(3, NOBODY, FULL), u64::MAX] {
            check_shrinking(move || {
                let ring = Arc::new(Whole::<2>::new(3));
                (0..3).for_each(|n| assert!(ring.push(1, 0, n)));
                assert_eq!(ring.pop(3), Some(0));
                let other = {
                    let ring = Arc::clone(&ring);
                    loom::thread::spawn(move || {
                        assert_ne!(ring.tickets().busy(), Some(NOBODY));
                        let mut item = Item::default();
                        let taken = ring.tickets().try_pop(&ring.store.consumer(4), 1, &mut item, |_| true);
                        assert!(taken != Taken::Busy(NOBODY) && taken != Taken::Damaged);
                        let (put, left) = ring.tickets().counts();
                        assert!(put == 3 && left <= 3);
                        (taken == Taken::Yes).then(|| item.word(0))
                    })
                };
                let mut all: Vec<u64> = ring.pop(3).into_iter().collect();
                ring.shrink(
                    0,
                    || {},
                    |cells| {
                        cells.iter().for_each(|cell| cell.state.store(garbage, Ordering::Release));
                    },
                );
                all.extend(other.join().expect("the consumer ends"));
                all.extend(std::iter::from_fn(|| ring.pop(3)));
                all.sort_unstable();
                assert_eq!(all, [1, 2]);
            });
        }
    }
}
