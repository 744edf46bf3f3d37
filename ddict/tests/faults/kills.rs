//! Each kind of operation is stepped through and killed at many of its instructions, in each of its phases.
//!
//! After a kill the survivor finds every key whole, the target as it was or as it was to be, nothing leaked, nothing
//! held. Every other time it recovers first; else it just operates, and must not be held up.

use super::bed::{Bed, Dict, State, promptly, published, put, state, state_of};
use super::contents::contents;
use std::time::Duration;
use tarragon_ddict::{Descriptor, Error};
use tarragon_faults::{Budget, Fault, Killed, Operation, Role, Tally, playing, survey};

/// Kills of each operation, in the quick and in the long form.
const KILLS: (u64, u64) = (16, 500);

/// A kind of operation.
struct Kind {
    /// Full name of its test.
    test: &'static str,
    /// Its phases, the ones that count first; see `sign`.
    phases: &'static [&'static str],
    /// What the target has before, and after.
    old: Option<State>,
    new: Option<State>,
    make: fn() -> Bed,
    /// Whether each child gets a dictionary that nothing was done to.
    is_fresh: bool,
    operate: fn(&mut Part),
    check: fn(&Kind, &Bed, bool),
}

/// A child's things, made ready before its instructions count.
struct Part {
    descriptor: Descriptor,
    dict: Option<Dict>,
    target: String,
    new: Vec<u8>,
    old: Vec<u8>,
}

impl Part {
    fn dict(&self) -> &Dict {
        self.dict.as_ref().unwrap()
    }
}

/// Whether a process is in a phase, by what `under_way` says of it.
pub(crate) fn is_in(phase: &str, signs: u64) -> bool {
    let bit = |bit: u32| signs >> bit & 1 == 1;
    match phase {
        "update" => signs & 0xff == 1,
        "insert" => signs & 0xff == 2,
        "remove" => signs & 0xff == 3,
        "split" => signs & 0xff == 4,
        "attached" => bit(8),
        "registered" => bit(9),
        "entry locked" => bit(10),
        "page locked" => bit(11),
        "allocated" => bit(12),
        "pinned" => bit(13),
        "heap locked" => bit(14),
        "checkpoints locked" => bit(15),
        "directory locked" => bit(16),
        "outside" => true,
        _ => panic!("no phase {phase}"),
    }
}

/// Index of the first of the phases that a process is in.
pub(crate) fn phase_in(phases: &[&str], signs: u64) -> usize {
    phases.iter().position(|phase| is_in(phase, signs)).unwrap()
}

fn prepare(kind: &Kind, file: &str) -> Part {
    let (descriptor, target) = published(file);
    let bytes =
        |state: Option<State>| state.map(|it| contents(&target, it.number, it.len)).unwrap_or_default();
    let (old, new) = (bytes(kind.old), bytes(kind.new));
    // The operation is attaching itself.
    let is_attached = !kind.phases.contains(&"attached");
    let dict = is_attached.then(|| descriptor.attach().unwrap());
    Part { descriptor, dict, target, new, old }
}

/// Kills the operation of a kind, as often as the budget says.
fn run(kind: &Kind) {
    let file = tempfile::NamedTempFile::new().unwrap();
    if let Some(part) = playing(kind.test) {
        part.serve(|file| prepare(kind, file), |part| (kind.operate)(part));
    }
    let bed = std::cell::RefCell::new((kind.make)());
    bed.borrow().set(kind.old);
    bed.borrow().publish(file.path());
    let role = Role::new(kind.test).with_argument(file.path().to_str().unwrap());
    let name = kind.test.rsplit("::").next().unwrap();
    let look = |pid| phase_in(kind.phases, bed.borrow().dict.under_way(pid));
    let operation = Operation::new(name, role, kind.phases).phase_of(look);
    let mut count = 0;
    let tally = survey(operation, budget(), |killed: &Killed| {
        count += 1;
        if count % 2 == 0 {
            bed.borrow().dict.recover();
        }
        (kind.check)(kind, &bed.borrow(), killed.phase.is_none());
        if kind.is_fresh {
            let fresh = (kind.make)();
            bed.replace(fresh);
            bed.borrow().set(kind.old);
            bed.borrow().publish(file.path());
        }
    });
    report(tally);
}

/// How often each operation is killed.
pub(crate) fn budget() -> Budget {
    let seconds = if is_long() { 600 } else { 20 };
    Budget::quick_or_long(KILLS.0, KILLS.1).within(Duration::from_secs(seconds))
}

/// Whether the long form is asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("TARRAGON_TEST_LONG").is_some()
}

/// Prints the row of an operation: its kills by phase.
pub(crate) fn report(tally: Result<Tally, Fault>) {
    match tally {
        Ok(tally) => println!("{tally}"),
        Err(fault) if fault.is_skip() => println!("skipped: {fault}"),
        Err(fault) => panic!("{fault}"),
    }
}

/// The target is as it was or as it was to be, and can be written; the rest is untouched.
fn check_target(kind: &Kind, bed: &Bed, is_over: bool) {
    let now = promptly(|| bed.target_state());
    assert!(now == kind.new || !is_over && now == kind.old, "{now:?} after {:?}, {:?}", kind.old, kind.new);
    promptly(|| bed.set(Some(state(9, 16))));
    bed.dict.recover();
    bed.check_others(bed.others.len() as u64 + 1);
    bed.set(None);
    bed.set(kind.old);
    bed.check_whole(bed.others.len() as u64 + u64::from(kind.old.is_some()));
}

/// Each key is untouched or gone; all are gone if the operation was over.
fn check_cleared(_: &Kind, bed: &Bed, is_over: bool) {
    for (key, state) in &bed.others {
        let now = promptly(|| state_of(&bed.dict, key));
        assert!(now.is_none() || !is_over && now == Some(*state), "{key}: {now:?}");
    }
    for (key, state) in &bed.others {
        promptly(|| put(&bed.dict, key, *state));
    }
    bed.dict.recover();
    bed.check_others(bed.others.len() as u64 + u64::from(bed.target_state().is_some()));
}

/// The checkpoint before is as it was; the new one has the old value or the new; the next one can be begun.
fn check_advanced(kind: &Kind, bed: &Bed, is_over: bool) {
    assert_eq!(promptly(|| bed.target_state()), kind.old);
    let keys = bed.others.len() as u64 + 1;
    bed.dict.recover();
    bed.check_others(keys);
    let next = bed.dict.clone();
    assert_eq!(next.checkpoint().unwrap(), 2);
    let now = state_of(&next, &bed.target);
    assert!(now == kind.new || !is_over && now == kind.old, "{now:?}");
    for wanted in 2..5 {
        assert_eq!(next.checkpoint_id(), wanted);
        promptly(|| put(&next, &bed.target, state(9, 400)));
        for (key, state) in &bed.others {
            assert_eq!(state_of(&next, key), Some(*state), "{key} is carried forward");
        }
        assert_eq!(next.len().unwrap(), keys, "len in checkpoint {wanted}");
        next.checkpoint().unwrap();
    }
    let gone = bed.dict.get(bed.target.as_str());
    assert!(matches!(gone, Err(Error::Retired { .. })), "{gone:?}");
    super::bed::assert_clean(&next);
    assert_eq!(bed.dict.participants(), (1, 1), "members and agents");
}

fn small() -> Bed {
    Bed::with_others(Dict::builder().memory(8 << 20).create().unwrap(), "target", 60)
}

fn long_key() -> Bed {
    let bed = small();
    Bed { target: "target".repeat(50), ..bed }
}

/// The next put splits a page; `doubles`: and the directory has no word left for it.
fn splitting(doubles: bool) -> Bed {
    let dict = Dict::builder().memory(8 << 20).create().unwrap();
    let mut bed = Bed { dict, target: String::new(), others: Vec::new() };
    loop {
        let name = format!("t/{}", bed.others.len());
        let (keys, depth, directory) = bed.dict.page_of(name.as_str()).unwrap();
        if keys >= 36 && doubles == (depth == directory) {
            return Bed { target: name, ..bed };
        }
        let (key, state) = super::bed::other(bed.others.len());
        put(&bed.dict, &key, state);
        bed.others.push((key, state));
    }
}

/// At checkpoint 1 of 2 that are kept; every other key was written in both.
fn advancing() -> Bed {
    let dict = Dict::builder().memory(8 << 20).working_set(2).create().unwrap();
    let mut bed = Bed::with_others(dict, "target", 100);
    bed.set(Some(state(7, 100)));
    bed.dict.checkpoint().unwrap();
    for (key, other) in bed.others.iter_mut().step_by(2) {
        *other = state(1, other.len + 3);
        put(&bed.dict, key, *other);
    }
    bed
}

/// No block of 40 000 bytes is left.
fn full() -> Bed {
    let dict = Dict::builder().memory(1 << 20).create().unwrap();
    let mut bed = Bed::with_others(dict, "target", 20);
    bed.set(Some(state(1, 3000)));
    loop {
        let (key, state) = (format!("f/{}", bed.others.len()), state(0, 33_000));
        match bed.dict.put(key.as_str(), contents(&key, 0, state.len)) {
            Ok(()) => bed.others.push((key, state)),
            Err(Error::Memory(_)) => return bed,
            Err(error) => panic!("{error}"),
        }
    }
}

fn put_new(part: &mut Part) {
    part.dict().put(part.target.as_str(), &part.new).unwrap();
}

macro_rules! kinds {
    ($($name:ident: $phases:expr, $old:expr => $new:expr, $make:expr, $fresh:expr, $check:expr, $operate:expr;)*) => {
        $(
            #[test]
            fn $name() {
                run(&Kind {
                    test: concat!("faults::kills::", stringify!($name)),
                    phases: &$phases,
                    old: $old,
                    new: $new,
                    make: $make,
                    is_fresh: $fresh,
                    operate: $operate,
                    check: $check,
                });
            }
        )*
    };
}

const SHORT: Option<State> = Some(state(1, 16));
const SHORT_NEW: Option<State> = Some(state(2, 16));
const BLOCK: Option<State> = Some(state(1, 3000));
const BLOCK_NEW: Option<State> = Some(state(2, 5000));
const RUN: Option<State> = Some(state(1, 50_000));
const RUN_NEW: Option<State> = Some(state(2, 70_000));

kinds! {
    put_new_key: ["insert", "page locked", "outside"],
        None => SHORT_NEW, small, false, check_target, put_new;
    put_new_key_and_block: ["insert", "page locked", "allocated", "outside"],
        None => BLOCK_NEW, small, false, check_target, put_new;
    put_replacing_short: ["entry locked", "outside"],
        SHORT => SHORT_NEW, small, false, check_target, put_new;
    put_replacing_block: ["update", "entry locked", "allocated", "outside"],
        BLOCK => BLOCK_NEW, small, false, check_target, put_new;
    put_replacing_run: ["update", "heap locked", "allocated", "outside"],
        RUN => RUN_NEW, small, false, check_target, put_new;
    put_long_key: ["insert", "page locked", "allocated", "outside"],
        None => BLOCK_NEW, long_key, false, check_target, put_new;
    put_in_place: ["update", "entry locked", "allocated", "outside"],
        BLOCK => BLOCK_NEW, small, false, check_target, |part| {
            let fill = |place: &mut [u8]| place.copy_from_slice(&part.new);
            part.dict().put_with(part.target.as_str(), part.new.len(), fill).unwrap();
        };
    get: ["pinned", "outside"],
        BLOCK => BLOCK, small, false, check_target, |part| {
            assert!(part.dict().get(part.target.as_str()).unwrap().is_some());
        };
    get_in_place: ["pinned", "outside"],
        BLOCK => BLOCK, small, false, check_target, |part| {
            let value = part.dict().get_ref(part.target.as_str()).unwrap().unwrap();
            assert_eq!(value[..], part.old[..]);
        };
    remove: ["remove", "entry locked", "page locked", "outside"],
        BLOCK => None, small, false, check_target, |part| {
            assert!(part.dict().remove(part.target.as_str()).unwrap());
        };
    remove_long_key: ["remove", "entry locked", "page locked", "outside"],
        RUN => None, long_key, false, check_target, |part| {
            assert!(part.dict().remove(part.target.as_str()).unwrap());
        };
    pop: ["remove", "entry locked", "page locked", "outside"],
        SHORT => None, small, false, check_target, |part| {
            assert_eq!(part.dict().pop(part.target.as_str()).unwrap().as_ref(), Some(&part.old));
        };
    compare_exchange: ["update", "entry locked", "allocated", "pinned", "outside"],
        BLOCK => BLOCK_NEW, small, false, check_target, |part| {
            let (old, new) = (Some(&part.old), Some(&part.new));
            assert!(part.dict().compare_exchange(part.target.as_str(), old, new).unwrap().is_done());
        };
    put_splitting: ["directory locked", "split", "insert", "page locked", "allocated", "outside"],
        None => BLOCK_NEW, || splitting(false), true, check_target, put_new;
    put_doubling: ["split", "directory locked", "insert", "page locked", "allocated", "outside"],
        None => BLOCK_NEW, || splitting(true), true, check_target, put_new;
    clear: ["remove", "entry locked", "page locked", "outside"],
        BLOCK => None, small, true, check_cleared, |part| {
            part.dict().clear().unwrap();
        };
    advance: ["insert", "remove", "entry locked", "page locked", "checkpoints locked", "outside"],
        BLOCK => BLOCK_NEW, advancing, true, check_advanced, |part| {
            part.dict().checkpoint().unwrap();
            part.dict().put(part.target.as_str(), &part.new).unwrap();
        };
    put_without_memory: ["heap locked", "outside"],
        BLOCK => BLOCK, full, false, check_target, |part| {
            let refused = part.dict().put(part.target.as_str(), vec![0; 200_000]);
            assert!(matches!(refused, Err(Error::Memory(_))), "{refused:?}");
        };
    attach: ["registered", "attached", "outside"],
        BLOCK => BLOCK, small, false, check_target, |part| {
            let dict: Dict = part.descriptor.attach().unwrap();
            assert_eq!(dict.get(part.target.as_str()).unwrap().as_ref(), Some(&part.old));
        };
}
