//! Every mistake a user can make, with the whole message; and odd input that must work.

mod bad_input {
    mod calls;
    mod lists;
}

use expect_test::Expect;
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;
use tarragon_engine::{Batch, Builder, Task, Workers};

pub(crate) fn one() -> u64 {
    1
}

pub(crate) fn next(x: u64) -> u64 {
    x + 1
}

pub(crate) fn batch() -> Batch {
    Builder::default().workers(Workers::Threads(2)).build().expect("a batch")
}

pub(crate) fn batches() -> Vec<Batch> {
    let all = [Workers::Serial, Workers::Threads(1), Workers::Threads(3)];
    all.iter().map(|w| Builder::default().workers(*w).build().expect("a batch")).collect()
}

/// Compares the whole message, folded to lines of 100 characters.
pub(crate) fn message<T>(result: Result<T, impl std::fmt::Display>, wanted: &Expect) {
    let message = result.err().expect("an error").to_string();
    let mut text = String::new();
    for line in message.lines() {
        let mut width = 0;
        for word in line.split(' ') {
            if width > 0 && width + word.len() > 100 {
                text.push_str("\n   ");
                width = 3;
            }
            text.push_str(if width > 0 { " " } else { "" });
            text.push_str(word);
            width += word.len() + 1;
        }
        text.push('\n');
    }
    wanted.assert_eq(&text);
}

pub(crate) fn named(batch: &Batch, name: &str) -> Task<u64> {
    batch.function(one, ()).name(name)
}

/// Ends the process if `f` takes longer than a test may: a hang is a failure.
pub(crate) fn within_time<R>(f: impl FnOnce() -> R) -> R {
    let (done, wait) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "the test hangs");
            std::process::abort();
        }
    });
    let result = f();
    drop(done);
    watchdog.join().expect("the watchdog ends");
    result
}
