//! The words between a test and the children it kills: what is asked, how far it is, in which phase.
//!
//! One page per child process started by a [`Role`](crate::Role); the children it forks use the same page one after
//! another. The test writes `ASKED`, `GO`, `MANNER` and `SECONDS_MAX`, the forking process `MADE` and `PID`, the forked
//! child `STATE` and `PHASE`; the test clears these two before it asks.

use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{Flags, wait, wake};
use rustix::time::Timespec;

use crate::words::Words;

/// Halves: how many children are wanted, were made, may begin; what they shall do.
const ASKED: usize = 0;
const MADE: usize = 1;
const GO: usize = 2;
const MANNER: usize = 3;
/// Halves, too: the newest child, and how far it is.
const PID: usize = 4;
const STATE: usize = 5;
/// A half: how long it may live.
const SECONDS_MAX: usize = 6;
/// A whole word, of its own line.
const PHASE: usize = 8;

const READY: u32 = 1;
const BEGUN: u32 = 2;
const ENDED: u32 = 3;
const PANICKED: u32 = 4;

/// How long a sleeper sleeps before it looks whether its partner lives.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// What a forked child does with the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Once, between a stop and an exit.
    Stepped = 1,
    /// Again and again.
    Endless = 2,
}

/// The page, by its words' names.
#[derive(Debug)]
pub(crate) struct Control(Words);

impl Control {
    pub(crate) fn new(words: Words) -> Self {
        Self(words)
    }

    pub(crate) fn words(&self) -> &Words {
        &self.0
    }

    // --- the test's side ---

    /// Asks for one more child; returns its number.
    pub(crate) fn ask(&self, manner: Manner, seconds_max: u32) -> u32 {
        self.0.half(SECONDS_MAX).store(seconds_max, SeqCst);
        self.0.half(STATE).store(0, SeqCst);
        self.0.word(PHASE).store(0, SeqCst);
        self.0.half(MANNER).store(manner as u32, SeqCst);
        add_one(self.0.half(ASKED))
    }

    /// Waits until child `number` is there, or `give_up` says why not. Returns its pid.
    pub(crate) fn wait_made<E>(
        &self,
        number: u32,
        give_up: impl FnMut(Duration) -> Option<E>,
    ) -> Result<u32, E> {
        wait_until(self.0.half(MADE), |made| made >= number, give_up)?;
        Ok(self.0.half(PID).load(SeqCst))
    }

    /// Lets the newest child begin.
    pub(crate) fn let_go(&self) {
        add_one(self.0.half(GO));
    }

    /// Waits until a child is ready, or `give_up` says why not.
    pub(crate) fn wait_ready<E>(&self, give_up: impl FnMut(Duration) -> Option<E>) -> Result<(), E> {
        wait_until(self.0.half(STATE), |state| state >= READY, give_up)
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.half(STATE).load(SeqCst) >= BEGUN
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.half(STATE).load(SeqCst) >= ENDED
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.0.half(STATE).load(SeqCst) == PANICKED
    }

    pub(crate) fn phase(&self) -> u64 {
        self.0.word(PHASE).load(SeqCst)
    }

    // --- the children's side ---

    /// Waits until child `number` is asked for. Ends with the process, which dies with the test.
    pub(crate) fn wait_asked(&self, number: u32) -> Manner {
        let never = |_| None::<io::Error>;
        wait_until(self.0.half(ASKED), |asked| asked >= number, never).expect("never gives up");
        let is_stepped = self.0.half(MANNER).load(SeqCst) == Manner::Stepped as u32;
        if is_stepped { Manner::Stepped } else { Manner::Endless }
    }

    /// Tells the pid of a child that was asked for.
    pub(crate) fn say_made(&self, pid: u32) {
        self.0.half(PID).store(pid, SeqCst);
        add_one(self.0.half(MADE));
    }

    /// Waits until child `number` may begin.
    pub(crate) fn wait_go(&self, number: u32) {
        let never = |_| None::<io::Error>;
        wait_until(self.0.half(GO), |go| go >= number, never).expect("never gives up");
    }

    pub(crate) fn seconds_max(&self) -> u32 {
        self.0.half(SECONDS_MAX).load(SeqCst)
    }

    pub(crate) fn say_ready(&self) {
        self.0.half(STATE).store(READY, SeqCst);
        wake_all(self.0.half(STATE));
    }

    pub(crate) fn say_begun(&self) {
        self.0.half(STATE).store(BEGUN, SeqCst);
    }

    pub(crate) fn say_ended(&self) {
        self.0.half(STATE).store(ENDED, SeqCst);
    }

    pub(crate) fn say_panicked(&self) {
        self.0.half(STATE).store(PANICKED, SeqCst);
    }

    pub(crate) fn set_phase(&self, index: u64) {
        self.0.word(PHASE).store(index, SeqCst);
    }
}

/// Adds one for its only writer, wakes who waits for it, and returns the sum.
fn add_one(half: &AtomicU32) -> u32 {
    let sum = half.fetch_add(1, SeqCst) + 1;
    wake_all(half);
    sum
}

fn wake_all(half: &AtomicU32) {
    wake(half, Flags::empty(), i32::MAX as u32).expect("the word is mapped");
}

/// Sleeps until the value is as wanted. Asks `give_up` every 20 ms, with the time waited.
fn wait_until<E>(
    half: &AtomicU32,
    is_wanted: impl Fn(u32) -> bool,
    mut give_up: impl FnMut(Duration) -> Option<E>,
) -> Result<(), E> {
    let start = Instant::now();
    loop {
        let value = half.load(SeqCst);
        if is_wanted(value) {
            return Ok(());
        }
        match wait(half, Flags::empty(), value, Some(&LOOK)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                if let Some(reason) = give_up(start.elapsed()) {
                    return Err(reason);
                }
            }
        }
    }
}
