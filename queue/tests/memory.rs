//! A queue whose memory is short: what a producer that does nothing any more has used is there for others.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tarragon_queue::{Error, Queue};

const MEMORY: u64 = 8 << 20;
/// Nobody waits as long if there is memory.
const LONG: Duration = Duration::from_secs(5);

/// A producer that has filled a queue, and does nothing more until it is dropped.
struct Idle(Option<Sender<()>>, Option<JoinHandle<()>>);

impl Idle {
    fn fills(queue: &Queue<Vec<u8>>, lengths: &'static [usize]) -> Self {
        let (queue, (done, filled), (end, ends)) = (queue.clone(), channel(), channel::<()>());
        let thread = std::thread::spawn(move || {
            let mut next = lengths.iter().cycle();
            while queue.try_put(vec![7; *next.next().expect("it goes round")]).is_ok() {}
            done.send(()).expect("the test waits");
            wait_for_end(&ends);
        });
        filled.recv().expect("it fills the queue");
        Self(Some(end), Some(thread))
    }
}

fn wait_for_end(ends: &Receiver<()>) {
    assert!(ends.recv().is_err(), "it ends with its sender");
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.take();
        let ended = self.1.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|it| it.is_ok()));
    }
}

/// Takes what is in, and not one more: who finds nothing may give memory back.
fn drain(queue: &Queue<Vec<u8>>) -> usize {
    let count = queue.len();
    (0..count).for_each(|_| drop(queue.try_get().expect("it is in")));
    count as usize
}

/// Another producer fills the drained queue anew, and finds most of its memory.
fn another_finds_room(lengths: &'static [usize], strict: bool) {
    let queue = Queue::<Vec<u8>>::builder().memory(MEMORY).strict(strict).create().expect("shared memory");
    let _idle = Idle::fills(&queue, lengths);
    assert!(drain(&queue) > 100);
    let mut put = 0;
    while put < MEMORY / 4 * 3 {
        let item = vec![1; 100 << 10];
        put += item.len() as u64;
        match queue.put_timeout(item, LONG) {
            Ok(()) => {}
            Err(error) => panic!("{error} after {put} bytes, with nothing else in the queue"),
        }
    }
    drain(&queue);
    let audit = queue.audit();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

#[test]
fn cells_of_an_idle_producer_go_back() {
    another_finds_room(&[8], false);
    another_finds_room(&[8], true);
}

#[test]
fn blocks_of_an_idle_producer_go_back() {
    const LENGTHS: &[usize] = &[200, 700, 1500, 3000, 5000, 8000, 10_000, 14_000, 20_000, 28_000, 32_000];
    another_finds_room(LENGTHS, false);
    another_finds_room(LENGTHS, true);
}

/// Two producers in turns: each finds the memory that the other one has left.
#[test]
fn producers_take_turns_with_the_memory() {
    let queue = Queue::<Vec<u8>>::builder().memory(MEMORY).create().expect("shared memory");
    for turn in 0..6 {
        let lengths: &'static [usize] = if turn % 2 == 0 { &[16] } else { &[30_000, 300] };
        let _idle = Idle::fills(&queue, lengths);
        let least = if turn % 2 == 0 { 30_000 } else { 200 };
        let taken = drain(&queue);
        assert!(taken > least, "{taken} items of {lengths:?} in turn {turn}");
        assert!(matches!(queue.try_get(), Err(Error::Empty)));
    }
}

/// Owners go on allocating while others, short of memory, take their empty spans.
#[test]
fn spans_change_hands_while_their_owners_allocate() {
    let queue = Queue::<Vec<u8>>::builder().memory(MEMORY).create().expect("shared memory");
    const ITEMS: u64 = 20_000;
    const LENGTHS: [usize; 7] = [130, 1000, 5000, 9000, 15_000, 31_000, 100_000];
    std::thread::scope(|scope| {
        for producer in 0..3_u64 {
            let queue = &queue;
            scope.spawn(move || {
                for n in 0..ITEMS / 3 {
                    let mut item = vec![n as u8; LENGTHS[((n * 5 + producer) % 7) as usize]];
                    item[..8].copy_from_slice(&n.to_ne_bytes());
                    item[8..16].copy_from_slice(&producer.to_ne_bytes());
                    queue.put_timeout(item, Duration::from_secs(60)).expect("there is room in time");
                }
            });
        }
        let mut next = [0_u64; 3];
        for _ in 0..ITEMS / 3 * 3 {
            let item = queue.get_ref_timeout(Duration::from_secs(60)).expect("all arrive");
            let word = |at: usize| u64::from_ne_bytes(item[at..at + 8].try_into().expect("eight bytes"));
            let (n, producer) = (word(0), word(8));
            assert_eq!(n, next[producer as usize], "in order");
            assert_eq!(item.len(), LENGTHS[((n * 5 + producer) % 7) as usize]);
            assert!(item[16..].iter().all(|byte| *byte == n as u8), "torn");
            next[producer as usize] += 1;
        }
    });
    let audit = queue.audit();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}
