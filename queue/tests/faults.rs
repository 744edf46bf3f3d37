//! Each operation is stepped through and killed at many of its instructions, in each of its phases.
//!
//! After a kill the survivor takes all that is in: whole items, all that were committed, perhaps the one that the dead
//! was about; then it goes on. Nothing leaks, nobody is held up for a second. Every other time it recovers first; else
//! it just goes on. 300 kills; `TARRAGON_TEST_LONG=1` makes them 5800. Each test prints its row.

#![expect(clippy::print_stdout, reason = "each test prints its counts")]

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};
use tarragon_faults::{Budget, Operation, Role, playing, survey};
use tarragon_queue::{Descriptor, Error, Loan, Queue};

type Bytes = Vec<u8>;

/// No survivor may be held up longer.
const BLOCKED_MAX: Duration = Duration::from_secs(1);
/// Enough to see that somebody waits, and to notice a death.
const SOON: Duration = Duration::from_millis(300);
/// How often a survey may be done again because somebody was held up: by the machine, if it is not so each time.
const SURVEYS_MAX: usize = 3;
/// Kills of each of the 26 operations.
const KILLS: (u64, u64) = (15, 290);
const MEMORY: u64 = 8 << 20;

/// An operation that is killed.
struct Kind {
    test: &'static str,
    is_strict: bool,
    /// Its phases, the ones that count first; the last is all the rest.
    phases: &'static [&'static str],
    /// What is in the queue before.
    before: &'static [Item],
    operate: fn(&mut Part),
    outcome: Outcome,
}

impl Kind {
    /// Whether the child keeps the head before the operation begins.
    fn keeps(&self) -> bool {
        self.phases.contains(&"keeping")
    }
}

/// Number and length of an item.
type Item = (u8, usize);

/// What the operation does to the queue, if it comes so far.
#[derive(Clone, Copy)]
enum Outcome {
    Puts(&'static [Item]),
    TakesFirst,
    Nothing,
    MarksDone,
    /// Takes the first item and calls it done.
    Deals,
    Closes,
}

/// A child's things.
struct Part {
    descriptor: Descriptor,
    queue: Option<Queue<Bytes>>,
}

impl Part {
    fn queue(&self) -> &Queue<Bytes> {
        self.queue.as_ref().expect("attached before")
    }
}

const SMALL: Item = (9, 40);
const LARGE: Item = (9, 3000);
const FEW: &[Item] = &[(1, 20), (2, 2000), (3, 100)];
const LARGE_FIRST: &[Item] = &[(1, 2000), (2, 20), (3, 100)];
/// So many that the last ten of them need a new block of cells.
const MANY: &[Item] = &[SMALL; 260];
const LAST: usize = 10;
/// A block is still in the ring, or not any more; or the intent is noted; or it has gone, or not yet.
const SHRINK_STRICT: &[&str] = &["leaving", "left", "shrinking", "holding", "ring locked", "outside"];
/// It has taken so many items in a row that it keeps the head, and takes by plain stores.
const KEPT: &[&str] = &["taking", "keeping"];
const KEPT_BLOCK: &[&str] = &["taking", "holding", "keeping"];
/// More than it takes for that.
const IN_A_ROW: usize = 40;
/// Items of 12 blocks of cells: taken again, so many blocks are more than a strict queue keeps.
const BURST: usize = 12 * 256;

/// An item's bytes, which show whether it is whole.
fn bytes((number, len): Item) -> Bytes {
    let mut bytes: Bytes = (0..len).map(|at| (at * 31) as u8 ^ number).collect();
    bytes[0] = number;
    bytes
}

/// What an item is, which must be whole.
fn whole(found: &[u8]) -> Item {
    let item = (found[0], found.len());
    assert_eq!(found, bytes(item), "torn");
    item
}

/// The longest that the survivor was held up.
#[derive(Default)]
struct Held(Duration);

impl Held {
    fn time<R>(&mut self, act: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = act();
        self.0 = self.0.max(start.elapsed());
        result
    }
}

fn create(kind: &Kind) -> Queue<Bytes> {
    let queue = Queue::builder().memory(MEMORY).strict(kind.is_strict).create().expect("shared memory");
    fill(kind, &queue);
    queue
}

/// Puts what is to be in the queue before. Where the queue is to shrink, a burst has left its blocks.
fn fill(kind: &Kind, queue: &Queue<Bytes>) {
    let burst = if kind.phases.contains(&"shrinking") { BURST } else { 0 };
    (0..burst).for_each(|_| queue.put(bytes(SMALL)).expect("there is room"));
    let in_a_row = if kind.keeps() { IN_A_ROW } else { 0 };
    (0..in_a_row).for_each(|_| queue.put(bytes(SMALL)).expect("there is room"));
    kind.before.iter().for_each(|item| queue.put(bytes(*item)).expect("there is room"));
    // Not one more: who finds nothing lets it shrink.
    (0..burst).for_each(|_| drop(queue.get().expect("it was put")));
}

fn publish(queue: &Queue<Bytes>, file: &Path) {
    std::fs::write(file, queue.descriptor().to_string()).expect("a file");
}

fn prepare(kind: &Kind, file: &str) -> Part {
    let text = std::fs::read_to_string(file).expect("the test has written it");
    let descriptor: Descriptor = text.parse().expect("a descriptor");
    let attaches = kind.phases.contains(&"attached");
    let queue: Option<Queue<Bytes>> = (!attaches).then(|| descriptor.attach().expect("the test has it"));
    if let (Outcome::Puts(all), Some(queue)) = (kind.outcome, &queue) {
        let first = all.len().saturating_sub(LAST);
        all[..first].iter().for_each(|item| queue.put(bytes(*item)).expect("there is room"));
    }
    if let (true, Some(queue)) = (kind.keeps(), &queue) {
        (0..IN_A_ROW).for_each(|_| {
            drop(queue.get().expect("the test has put it"));
            queue.task_done().expect("it was taken");
        });
        assert!(queue.under_way(std::process::id()).contains(&"keeping"));
    }
    Part { descriptor, queue }
}

/// Kills an operation as often as the budget says; again, if the survivor was held up.
fn run(kind: &Kind) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    if let Some(part) = playing(kind.test) {
        part.serve(|file| prepare(kind, file), |part| (kind.operate)(part));
    }
    let longest: Vec<Duration> = (0..SURVEYS_MAX)
        .map(|_| survey_once(kind, file.path()))
        .take_while(|held| *held > BLOCKED_MAX)
        .collect();
    assert!(longest.len() < SURVEYS_MAX, "a survivor of {} was held up for {longest:?}", kind.test);
}

fn survey_once(kind: &Kind, file: &Path) -> Duration {
    let queue = RefCell::new(create(kind));
    publish(&queue.borrow(), file);
    let role = Role::new(kind.test).with_argument(file.to_str().expect("UTF-8"));
    let phase_of = |pid| {
        let signs = queue.borrow().under_way(pid);
        let last = kind.phases.len() - 1;
        kind.phases[..last].iter().position(|phase| signs.contains(phase)).unwrap_or(last)
    };
    let operation = Operation::new(kind.test, role, kind.phases).phase_of(phase_of);
    let (mut held, mut count) = (Held::default(), 0);
    let seconds = if std::env::var_os("TARRAGON_TEST_LONG").is_some() { 300 } else { 10 };
    let budget = Budget::quick_or_long(KILLS.0, KILLS.1).within(Duration::from_secs(seconds));
    let tally = survey(operation, budget, |killed| {
        count += 1;
        let now = queue.borrow().clone();
        if count % 2 == 0 {
            held.time(|| is_sound(&now));
        }
        check(kind, &now, killed.phase.is_none(), &mut held);
        let is_grown = matches!(kind.outcome, Outcome::Puts(all) if all.len() > LAST);
        // Each recall makes it take more items to keep a head.
        if kind.keeps()
            || is_grown
            || matches!(kind.outcome, Outcome::Closes | Outcome::MarksDone | Outcome::Deals)
        {
            queue.replace(create(kind));
            publish(&queue.borrow(), file);
        } else {
            fill(kind, &now);
        }
    });
    match tally {
        Ok(tally) => println!("{tally}; held up for {} ms at most", held.0.as_millis()),
        Err(fault) if fault.is_skip() => println!("skipped: {fault}"),
        Err(fault) => panic!("{fault}"),
    }
    held.0
}

fn is_sound(queue: &Queue<Bytes>) {
    let audit = queue.audit();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

/// The queue is as it was before, or as it was to be; and works. It is empty in the end.
fn check(kind: &Kind, queue: &Queue<Bytes>, is_over: bool, held: &mut Held) {
    let mut found: Vec<Item> = Vec::new();
    while let Ok(item) = held.time(|| queue.try_get()) {
        found.push(whole(&item));
    }
    match kind.outcome {
        Outcome::Puts(new) => {
            let (before, after): (Vec<Item>, Vec<Item>) = found.iter().partition(|item| item.0 != SMALL.0);
            assert_eq!(before, kind.before, "committed items, in order");
            assert!(after.len() + LAST >= new.len(), "{} of {} arrived", after.len(), new.len());
            assert!(new.starts_with(&after), "{after:?} of {} new ones", new.len());
            assert!(!is_over || after.len() == new.len(), "{} of {} arrived", after.len(), new.len());
        }
        Outcome::TakesFirst => {
            let lost = kind.before.len() - found.len();
            assert!(lost <= 1 && (lost == 1 || !is_over), "{lost} lost");
            assert_eq!(found, kind.before[lost..], "committed items, in order");
        }
        Outcome::Nothing | Outcome::Closes => assert_eq!(found, kind.before),
        Outcome::MarksDone => {
            assert_eq!(found, kind.before);
            let done = (0..).take_while(|_| queue.task_done().is_ok()).count();
            let by_dead = kind.before.len() - done;
            assert!(by_dead <= 1 && (by_dead == 1 || !is_over), "{by_dead} done by the dead");
            held.time(|| queue.join_timeout(BLOCKED_MAX)).expect("all are done");
        }
        Outcome::Deals => {
            let lost = kind.before.len() - found.len();
            assert!(lost <= 1 && (lost == 1 || !is_over), "{lost} taken by the dead");
            assert_eq!(found, kind.before[lost..], "committed items, in order");
            found[1..].iter().for_each(|_| queue.task_done().expect("it was taken"));
            let one_is_left = matches!(queue.join_timeout(SOON), Err(Error::Unfinished { left: 1 }));
            assert!(one_is_left || lost == 1, "nobody else has called done");
            queue.task_done().expect("it was taken");
            let joined = held.time(|| queue.join_timeout(BLOCKED_MAX));
            let is_abandoned = matches!(joined, Err(Error::Abandoned { items: 1 }));
            assert!(if is_abandoned { lost == 1 && !is_over } else { joined.is_ok() }, "{joined:?}");
            queue.join_timeout(BLOCKED_MAX).expect("what was abandoned was told");
            assert_eq!(queue.task_done().is_ok(), is_abandoned, "somebody else may have dealt with it");
            assert!(matches!(queue.task_done(), Err(Error::NotTaken { .. })));
        }
    }
    let is_closed = queue.is_closed();
    assert!(!is_closed || matches!(kind.outcome, Outcome::Closes));
    assert!(is_closed || !is_over || !matches!(kind.outcome, Outcome::Closes));
    for item in [(7, 30), (8, 5000)] {
        let put = held.time(|| queue.put_timeout(bytes(item), BLOCKED_MAX));
        assert_eq!(is_closed, matches!(put, Err(Error::Closed)));
        if !is_closed {
            put.expect("there is room");
            let back = held.time(|| queue.get_timeout(BLOCKED_MAX)).expect("it was put");
            assert_eq!(whole(&back), item);
        }
    }
    is_sound(queue);
    assert_eq!(queue.len(), 0);
    assert_eq!(queue.participants(), (1, 1), "members and agents");
}

fn put(part: &Part, item: Item) {
    part.queue().put(bytes(item)).expect("there is room");
}

fn loan(part: &mut Part) {
    let mut loan = part.queue().loan(LARGE.1).expect("there is room");
    loan.copy_from_slice(&bytes(LARGE));
    Loan::send(loan).expect("there is room");
}

fn deal(part: &mut Part) {
    drop(part.queue().get().expect("there is one"));
    part.queue().task_done().expect("it was taken");
}

/// One test per operation: its name, whether the queue is strict, phases, what is in, the operation, what it does.
macro_rules! kills {
    ($($name:ident, $is_strict:expr, $phases:expr, $before:expr, $operate:expr, $outcome:expr;)*) => {
        $(#[test]
        fn $name() {
            run(&Kind {
                test: stringify!($name),
                is_strict: $is_strict,
                phases: $phases,
                before: $before,
                operate: $operate,
                outcome: $outcome,
            });
        })*
    };
}

kills! {
    put_inline, false, &["registered", "outside"], FEW, |part| put(part, SMALL), Outcome::Puts(&[SMALL]);
    put_inline_strict, true, &["claimed", "claiming", "outside"], FEW, |part| put(part, SMALL),
        Outcome::Puts(&[SMALL]);
    put_block, false, &["heap locked", "putting", "holding", "outside"], FEW, |part| put(part, LARGE),
        Outcome::Puts(&[LARGE]);
    put_block_strict, true, &["heap locked", "claimed", "claiming", "holding", "outside"], FEW,
        |part| put(part, LARGE), Outcome::Puts(&[LARGE]);
    put_loan, false, &["putting", "holding", "outside"], FEW, loan, Outcome::Puts(&[LARGE]);
    put_many_grows, false, &["linking", "holding", "outside"], FEW,
        |part| MANY[..LAST].iter().for_each(|item| put(part, *item)), Outcome::Puts(MANY);
    put_many_grows_strict, true, &["linking", "ring locked", "outside"], FEW,
        |part| MANY[..LAST].iter().for_each(|item| put(part, *item)), Outcome::Puts(MANY);
    get_inline, false, &["taking", "outside"], FEW, |part| drop(part.queue().get()), Outcome::TakesFirst;
    get_block, false, &["taking", "holding", "outside"], LARGE_FIRST, |part| drop(part.queue().get()),
        Outcome::TakesFirst;
    get_block_strict, true, &["taking", "holding", "outside"], LARGE_FIRST, |part| drop(part.queue().get()),
        Outcome::TakesFirst;
    get_ref, false, &["taking", "holding", "outside"], LARGE_FIRST,
        |part| assert_eq!(whole(&part.queue().get_ref().expect("there is one")), LARGE_FIRST[0]),
        Outcome::TakesFirst;
    get_kept, false, KEPT, FEW, |part| drop(part.queue().get()), Outcome::TakesFirst;
    get_kept_strict, true, KEPT, FEW, |part| drop(part.queue().get()), Outcome::TakesFirst;
    get_block_kept, false, KEPT_BLOCK, LARGE_FIRST, |part| drop(part.queue().get()), Outcome::TakesFirst;
    get_block_kept_strict, true, KEPT_BLOCK, LARGE_FIRST, |part| drop(part.queue().get()),
        Outcome::TakesFirst;
    get_and_done_kept, false, KEPT, FEW, deal, Outcome::Deals;
    get_and_done_kept_strict, true, KEPT_BLOCK, LARGE_FIRST, deal, Outcome::Deals;
    task_done, false, &["outside"], FEW, |part| part.queue().task_done().expect("one is there"),
        Outcome::MarksDone;
    get_and_done, false, &["taking", "outside"], FEW, deal, Outcome::Deals;
    get_and_done_strict, true, &["taking", "holding", "outside"], LARGE_FIRST, deal, Outcome::Deals;
    attach, false, &["attached", "outside"], FEW,
        |part| drop(part.descriptor.attach::<Bytes>().expect("the test has it")), Outcome::Nothing;
    close, false, &["outside"], FEW, |part| part.queue().close(), Outcome::Closes;
    put_many_shrinks_strict, true, SHRINK_STRICT, FEW,
        |part| MANY[..LAST].iter().for_each(|item| put(part, *item)), Outcome::Puts(MANY);
    get_nothing_shrinks_strict, true, SHRINK_STRICT, &[],
        |part| assert!(matches!(part.queue().try_get(), Err(Error::Empty))), Outcome::Nothing;
}

/// What an idle producer's chain has too much is taken off by a child that is killed in it.
#[test]
fn shrink_others() {
    shrink_where_memory_is_short("shrink_others", false, &["shrinking", "holding", "outside"]);
}

/// And what the ring has too much.
#[test]
fn shrink_others_strict() {
    shrink_where_memory_is_short("shrink_others_strict", true, SHRINK_STRICT);
}

fn shrink_where_memory_is_short(test: &'static str, is_strict: bool, phases: &'static [&str]) {
    let kind = Kind {
        test,
        is_strict,
        phases,
        before: &[],
        operate: |part| drop(part.queue().loan(1 << 20).expect("the queue is empty")),
        outcome: Outcome::Nothing,
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    if let Some(part) = playing(test) {
        part.serve(|file| prepare(&kind, file), |part| (kind.operate)(part));
    }
    let queue = Queue::builder().memory(MEMORY).strict(is_strict).create().expect("shared memory");
    publish(&queue, file.path());
    let swell = || {
        let put = std::iter::repeat_with(|| queue.try_put(bytes(SMALL))).take_while(Result::is_ok).count();
        assert!(put > 10 * BURST, "{put} items fill the memory");
        (0..put).for_each(|_| drop(queue.get().expect("it was put")));
    };
    swell();
    let last = phases.len() - 1;
    let role = Role::new(test).with_argument(file.path().to_str().expect("UTF-8"));
    let phase_of = |pid| {
        let signs = queue.under_way(pid);
        phases[..last].iter().position(|phase| signs.contains(phase)).unwrap_or(last)
    };
    let operation = Operation::new(test, role, phases).phase_of(phase_of);
    let mut held = Held::default();
    let budget = Budget::quick_or_long(KILLS.0, KILLS.1).within(Duration::from_secs(60));
    let tally = survey(operation, budget, |killed| {
        check(&kind, &queue, killed.phase.is_none(), &mut held);
        swell();
        is_sound(&queue);
    });
    match tally {
        Ok(tally) => println!("{tally}; held up for {} ms at most", held.0.as_millis()),
        Err(fault) if fault.is_skip() => println!("skipped: {fault}"),
        Err(fault) => panic!("{fault}"),
    }
}
