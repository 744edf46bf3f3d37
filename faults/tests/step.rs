//! Operations killed at every instruction: right protocols pass, wrong ones are caught, and each way to fail is told.

#![expect(clippy::print_stdout, reason = "kills are counted in what the tests print")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tarragon_faults::{
    Budget, Fault, Killed, Operation, Role, Stepper, Tally, Words, phase, playing, survey,
};

const LEFT: usize = 0;
const RIGHT: usize = 1;
const INTENT: usize = 2;

/// Prints the tally, or why there is none on this machine; none in that case.
fn shown(result: Result<Tally, Fault>) -> Option<Tally> {
    match result {
        Ok(tally) => {
            println!("{tally}");
            Some(tally)
        }
        Err(fault) if fault.is_skip() => {
            println!("{fault}");
            None
        }
        Err(fault) => panic!("{fault}"),
    }
}

/// The fault that must be there; none where nobody can be stepped through.
fn fault_of<T>(result: Result<T, Fault>) -> Option<Fault> {
    let fault = result.err().expect("this must fail");
    if fault.is_skip() {
        println!("{fault}");
    }
    (!fault.is_skip()).then_some(fault)
}

fn open(path: &str) -> Words {
    Words::open(Path::new(path)).expect("the test has the words")
}

fn role(test: &str, words: &Words) -> Role {
    Role::new(test).with_argument(words.path().to_str().expect("the path is ASCII"))
}

fn add_one(words: &Words, index: usize) {
    let value = words.word(index).load(SeqCst);
    words.word(index).store(value + 1, SeqCst);
}

/// Both words grow by one; meanwhile the intent says so.
fn grow_both(words: &Words) {
    words.word(INTENT).store(1, SeqCst);
    add_one(words, LEFT);
    add_one(words, RIGHT);
    words.word(INTENT).store(0, SeqCst);
}

/// What a survivor does: both are equal, or the intent says that they need not be and they are made so.
fn check_both(words: &Words) {
    let [left, right, intent] = [LEFT, RIGHT, INTENT].map(|index| words.word(index).load(SeqCst));
    if intent == 0 {
        assert_eq!(left, right, "torn");
    }
    words.word(RIGHT).store(left, SeqCst);
    words.word(INTENT).store(0, SeqCst);
}

fn intent_of(words: &Words) -> usize {
    usize::try_from(words.word(INTENT).load(SeqCst)).expect("0 or 1")
}

#[test]
fn a_right_protocol_is_killed_everywhere() {
    const TEST: &str = "a_right_protocol_is_killed_everywhere";
    if let Some(part) = playing(TEST) {
        part.serve(open, |words| grow_both(words));
    }
    let words = Words::create().unwrap();
    let operation = Operation::new("grow both", role(TEST, &words), &["outside", "between"]);
    let operation = operation.phase_of(|_| intent_of(&words));
    let Some(tally) = shown(survey(operation, Budget::everywhere(), |_| check_both(&words))) else { return };
    assert!(tally.is_complete(), "{tally}");
    assert_eq!(tally.kills(), tally.steps() + 1);
    assert!(tally.phases().iter().all(|(_, kills)| *kills >= 3), "{tally}");
    assert!(words.word(LEFT).load(SeqCst) < tally.kills() + 1, "some kills come before the first store");
}

#[test]
fn a_wrong_protocol_is_caught() {
    const TEST: &str = "a_wrong_protocol_is_caught";
    if let Some(part) = playing(TEST) {
        part.serve(open, |words| {
            // The intent comes an instruction or two too late.
            add_one(words, LEFT);
            words.word(INTENT).store(1, SeqCst);
            add_one(words, RIGHT);
            words.word(INTENT).store(0, SeqCst);
        });
    }
    let words = Words::create().unwrap();
    let operation = Operation::new("grow both", role(TEST, &words), &["outside", "between"]);
    let operation = operation.phase_of(|_| intent_of(&words));
    let found = survey(operation, Budget::everywhere(), |_| check_both(&words));
    let Some(Fault::Broken { step, phase, message, .. }) = fault_of(found) else { return };
    assert!(step > 0 && phase == "outside" && message.contains("torn"), "{step} {phase} {message}");
}

#[test]
fn a_child_executes_exactly_so_many_steps() {
    const TEST: &str = "a_child_executes_exactly_so_many_steps";
    if let Some(part) = playing(TEST) {
        part.serve(open, |words| {
            for index in 0..10 {
                phase(index);
                words.word(LEFT).store(index + 1, SeqCst);
            }
        });
    }
    let words = Words::create().unwrap();
    let phases: Vec<String> = (0..10).map(|index| index.to_string()).collect();
    let phases: Vec<&str> = phases.iter().map(String::as_str).collect();
    let mut stepper = Stepper::start(Operation::new("ten stores", role(TEST, &words), &phases)).unwrap();
    let trace = match stepper.count() {
        Err(fault) if fault.is_skip() => return println!("{fault}"),
        trace => trace.unwrap(),
    };
    assert_eq!(stepper.count().unwrap(), trace, "the same way, the same steps");
    assert_eq!(trace.spans.len(), 10);
    assert_eq!(trace.spans[9].steps.end, trace.steps);
    for span in &trace.spans[1..] {
        words.word(LEFT).store(0, SeqCst);
        let killed = stepper.kill_at(span.steps.start).unwrap();
        assert_eq!((killed.step, killed.phase), (span.steps.start, Some(span.phase)));
        assert_eq!(words.word(LEFT).load(SeqCst), span.phase as u64, "stores before this phase");
        assert!(!Path::new(&format!("/proc/{}", killed.pid)).exists(), "it is reaped");
        let before = stepper.kill_at(span.steps.start - 1).unwrap();
        assert_eq!(before.phase, Some(span.phase - 1), "the instruction before says the phase");
    }
    let over = stepper.kill_at(u64::MAX).unwrap();
    assert_eq!((over.step, over.phase), (trace.steps, None));
}

/// Children that run to a breakpoint leave what children leave that were stepped all the way.
#[test]
fn breakpoints_lead_where_steps_lead() {
    const TEST: &str = "breakpoints_lead_where_steps_lead";
    const TURNS: usize = 12;
    if let Some(part) = playing(TEST) {
        part.serve(open, |words| {
            for turn in 1..TURNS {
                phase(turn as u64 % 2);
                add_one(words, turn);
                add_one(words, 0);
            }
        });
    }
    let words = Words::create().unwrap();
    let left_by = |stepper: &mut Stepper<'_>, step| {
        let Killed { step, phase, .. } = stepper.kill_at(step).unwrap();
        let values: Vec<u64> = (0..TURNS).map(|index| words.word(index).swap(0, SeqCst)).collect();
        (step, phase, values)
    };
    let operation = || Operation::new("turns", role(TEST, &words), &["even", "odd"]);
    let mut slow = Stepper::start(operation()).unwrap();
    let mut quick = Stepper::start(operation()).unwrap();
    let steps = match quick.count() {
        Err(fault) if fault.is_skip() => return println!("{fault}"),
        trace => trace.unwrap().steps,
    };
    (0..TURNS).for_each(|index| words.word(index).store(0, SeqCst));
    for step in (0..steps).step_by(3).chain([steps - 1, steps, steps + 5]) {
        assert_eq!(left_by(&mut quick, step), left_by(&mut slow, step), "step {step} of {steps}");
    }
}

/// Where the system calls are: a file is locked and written, the file's text must be whole when the lock is free.
#[test]
fn kernel_locks_are_free_after_each_kill() {
    const TEST: &str = "kernel_locks_are_free_after_each_kill";
    if let Some(part) = playing(TEST) {
        part.serve(
            |path| File::options().write(true).open(path).unwrap(),
            |file| {
                file.lock().unwrap();
                phase(1);
                file.write_all(b"whole").unwrap();
                file.unlock().unwrap();
                phase(0);
            },
        );
    }
    let path = tempfile::NamedTempFile::with_prefix("tarragon-faults").unwrap().into_temp_path();
    let role = Role::new(TEST).with_argument(path.to_str().unwrap());
    let operation = Operation::new("locked write", role, &["free", "locked"]);
    let check = |_: &Killed| {
        let mut file = File::open(&path).unwrap();
        file.try_lock().expect("nobody lives who has the lock");
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text == "whole", "{text}");
        File::options().write(true).truncate(true).open(&path).unwrap();
    };
    let Some(tally) = shown(survey(operation, Budget::quick_or_long(300, 10_000), check)) else { return };
    assert!(tally.kills() >= 300, "{tally}");
}

#[test]
fn a_phase_without_kills_fails() {
    const TEST: &str = "a_phase_without_kills_fails";
    if let Some(part) = playing(TEST) {
        part.serve(open, |words| grow_both(words));
    }
    let words = Words::create().unwrap();
    let operation = Operation::new("grow both", role(TEST, &words), &["outside", "between", "never"]);
    let operation = operation.phase_of(|_| intent_of(&words));
    let found = survey(operation, Budget::kills(10), |_| check_both(&words));
    let Some(fault) = fault_of(found) else { return };
    assert!(matches!(&fault, Fault::Uncovered { phase, .. } if phase == "never"), "{fault}");
    assert!(fault.to_string().contains("between"), "{fault}");
}

#[test]
fn a_phase_that_only_recovery_has_is_found() {
    const TEST: &str = "a_phase_that_only_recovery_has_is_found";
    if let Some(part) = playing(TEST) {
        part.serve(open, |words| {
            // Every fourth time is another way.
            let count = words.word(LEFT).fetch_add(1, SeqCst);
            phase(u64::from(count % 4 == 3));
            words.word(RIGHT).store(count, SeqCst);
        });
    }
    let words = Words::create().unwrap();
    let operation = Operation::new("now and then", role(TEST, &words), &["usual", "rare"]);
    let Some(tally) = shown(survey(operation, Budget::kills(1), |_| {})) else { return };
    assert!(tally.phases()[1].1 > 0, "{tally}");
    assert!(tally.kills() <= 5, "at most one round: {tally}");
}

#[test]
fn a_child_that_fails_or_is_stuck_is_told() {
    const TEST: &str = "a_child_that_fails_or_is_stuck_is_told";
    if let Some(part) = playing(TEST) {
        part.serve(str::to_owned, |how| match how.as_str() {
            "panics" => std::panic::panic_any(0),
            "sleeps" => std::thread::sleep(Duration::from_secs(1000)),
            _ => loop {
                std::hint::spin_loop();
            },
        });
    }
    let fault = |how| {
        let operation = Operation::new(how, Role::new(TEST).with_argument(how), &["all"]);
        let operation = if how == "panics" { operation } else { operation.seconds_max(1) };
        fault_of(survey(operation, Budget::kills(1), |_| {}))
    };
    let Some(panics) = fault("panics") else { return };
    assert!(matches!(&panics, Fault::Ended { what, .. } if what == "exit status 101"), "{panics}");
    assert!(matches!(fault("sleeps"), Some(Fault::Endless { step: 1..10_000, .. })));
    assert!(matches!(fault("spins"), Some(Fault::Endless { step: 100.., .. })));
}

#[test]
fn a_role_that_no_test_plays_is_told() {
    let operation = Operation::new("none", Role::new("no_test_has_this_name"), &["all"]);
    let found = survey(operation, Budget::kills(1), |_| {});
    assert!(matches!(fault_of(found), None | Some(Fault::NotPlayed { .. })));
}
