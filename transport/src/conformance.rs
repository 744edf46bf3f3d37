//! What every fabric must do: a suite of cases, each run by all ranks of a world at once.
//!
//! A test of a fabric makes a world on it and calls [`run`]; a case that does not hold panics with what it expected.
//! Which worlds there are, and how their ranks are started, is left to the tests.

mod delivery;
mod groups;
mod hardship;
mod one_sided;
mod together;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::message::HandlerId;
use crate::world::World;

/// How long a case may wait for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A case: its name, and what all ranks do. It ends with a barrier and leaves nothing underway.
pub type Case = (&'static str, fn(&World));

/// All cases but that of a death, after which a world is of no use.
pub const CASES: &[Case] = &[
    ("once_and_in_order", delivery::once_and_in_order),
    ("all_sizes", delivery::all_sizes),
    ("all_to_all", delivery::all_to_all),
    ("to_itself", delivery::to_itself),
    ("shared_payloads", delivery::shared_payloads),
    ("several_threads", delivery::several_threads),
    ("handlers_send", delivery::handlers_send),
    ("handlers_send_much", hardship::handlers_send_much),
    ("full_both_ways", hardship::full_both_ways),
    ("large_both_ways", hardship::large_both_ways),
    ("unknown_handler", hardship::unknown_handler),
    ("wrong_arguments", hardship::wrong_arguments),
    ("barriers_hold", together::barriers_hold),
    ("barrier_resumes", together::barrier_resumes),
    ("gather_and_broadcast", together::gather_and_broadcast),
    ("order_is_checked", together::order_is_checked),
    ("deliveries_of_others_end_a_wait", together::deliveries_of_others_end_a_wait),
    ("libraries_come_with_their_messages", together::libraries_come_with_their_messages),
    ("requests_are_responded_to", together::requests_are_responded_to),
    ("groups_work_together", groups::work_together),
    ("groups_end", groups::end),
    ("groups_have_bounds", groups::have_bounds),
    ("put_and_get", one_sided::put_and_get),
    ("put_before_message", one_sided::put_before_message),
    ("region_errors", one_sided::region_errors),
];

/// Runs all cases on all ranks of `world`. The case of a death is left to [`death`].
///
/// # Panics
/// If one does not hold.
pub fn run(world: &World) {
    for (name, case) in CASES {
        let case = std::panic::AssertUnwindSafe(|| case(world));
        if let Err(panic) = std::panic::catch_unwind(case) {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
            panic!("case {name}, rank {} of {}: {why}", world.rank(), world.size());
        }
    }
}

pub use hardship::death;

/// Makes progress until `done`.
fn until(world: &World, what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what} has not come about");
        world.wait(Duration::from_millis(10));
    }
}

fn barrier(world: &World) {
    world.barrier_timeout(PATIENCE).expect("nobody dies in this case");
}

/// Counts messages for a handler, and adds up their tags.
#[derive(Default)]
struct Tally {
    count: AtomicU64,
    tags: AtomicU64,
}

impl Tally {
    /// Registers it, and lets nobody go on before all have.
    fn register(world: &World, id: HandlerId) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        let own = tally.clone();
        world.on(id, move |_, message| own.add(message.tag));
        barrier(world);
        tally
    }

    fn add(&self, tag: u64) {
        self.tags.fetch_add(tag, SeqCst);
        self.count.fetch_add(1, SeqCst);
    }

    fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// Waits for so many, and for no more.
    fn expect(&self, world: &World, count: u64, tags: u64) {
        until(world, "the last message", || self.count() >= count);
        barrier(world);
        assert_eq!((self.count(), self.tags.load(SeqCst)), (count, tags), "messages and their tags");
    }
}

/// Bytes that differ by seed and place.
fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut pattern: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next()).collect();
    pattern.truncate(bytes);
    pattern
}
