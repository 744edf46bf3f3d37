//! As `kills`, for operations with a world of their own: adding to a number, and making a dictionary.

use super::bed::{assert_clean, promptly};
use super::kills::{budget, phase_in, report};
use super::process::files_of;
use std::cell::RefCell;
use tarragon_ddict::{DDict, Descriptor};
use tarragon_faults::{Operation, Role, playing, survey};

#[test]
fn fetch_add() {
    const TEST: &str = "faults::single::fetch_add";
    const PHASES: &[&str] = &["entry locked", "outside"];
    type Numbers = DDict<String, u64>;
    if let Some(part) = playing(TEST) {
        part.serve(
            |text| text.parse::<Descriptor>().unwrap().attach::<String, u64>().unwrap(),
            |dict| {
                dict.fetch_add("count", 5).unwrap();
            },
        );
    }
    let dict = Numbers::builder().memory(1 << 20).create().unwrap();
    let mut sum = 0;
    let role = Role::new(TEST).with_argument(&dict.descriptor().to_string());
    let operation =
        Operation::new("fetch_add", role, PHASES).phase_of(|pid| phase_in(PHASES, dict.under_way(pid)));
    let mut kills = 0;
    let tally = survey(operation, budget(), |killed| {
        kills += 1;
        if kills % 2 == 0 {
            dict.recover();
        }
        let now = promptly(|| dict.get_or("count", 0)).unwrap();
        assert!(now == sum + 5 || killed.phase.is_some() && now == sum, "{now} after {sum}");
        assert_eq!(promptly(|| dict.fetch_add("count", 1)).unwrap(), now);
        sum = now + 1;
        dict.recover();
        assert_eq!((dict.len().unwrap(), dict.participants()), (1, (1, 1)));
        assert_clean(&dict);
    });
    report(tally);
}

/// What a killed maker leaves is gone once another program has made a dictionary.
#[test]
fn create() {
    const TEST: &str = "faults::single::create";
    const PHASES: &[&str] = &["unseen", "named"];
    if let Some(part) = playing(TEST) {
        part.serve(
            |_| (),
            |()| {
                let dict = DDict::<String, u64>::builder().memory(1 << 20).create().unwrap();
                dict.put("key", 1).unwrap();
            },
        );
    }
    let left: RefCell<Vec<u32>> = RefCell::default();
    let phase_of = |pid| usize::from(!files_of(pid).is_empty());
    let operation = Operation::new("create", Role::new(TEST), PHASES).phase_of(phase_of);
    let tally = survey(operation, budget(), |killed| {
        // The child that was killed just now swept what the one before had left, unless it was killed before that.
        if killed.phase.is_none() {
            for pid in left.borrow_mut().drain(..) {
                assert_eq!(files_of(pid), Vec::<String>::new(), "left by {pid}");
            }
        }
        left.borrow_mut().push(killed.pid);
    });
    report(tally);
    let swept = Role::new("faults::process::sweep").start().unwrap().wait_ready();
    swept.unwrap();
    for pid in left.into_inner() {
        assert_eq!(files_of(pid), Vec::<String>::new(), "left by {pid}");
    }
}
