//! The way of a record from an appending thread to the disk.
//!
//! An appender encodes on its own, and under one lock gives the record its position and copies it into `buffer`. One
//! writer thread swaps the whole buffer for an empty one, writes it with one call, syncs if that is due, and says how
//! far it came. Nobody but the writer touches the file.
//!
//! Three marks, each a position in the file and a count of records, only grow, and keep their order: `synced` is at
//! most `written`, that at most `accepted`. Appenders move `accepted`, the writer the other two. Whoever waits, waits
//! for a mark to pass a position, and says so first (`asked`), so that the writer does not put it off.
//!
//! The writer rests in one of three ways, and only an appender that has to wake it pays for that: *asleep*, nothing to
//! do, the next record wakes it; *gathering*, a record came and others may follow within [`Limits::gather`], only a
//! large buffer or somebody who waits wakes it; *failing*, the last write failed, and it tries again after
//! [`Limits::retry`], or when it is told to hurry. What could not be written stays in memory, in order, until it can;
//! when [`Limits::unwritten_bytes_max`] are waiting, new records are refused and counted, so that what is in the file
//! is always the beginning of what was accepted. When the disk fails to *sync*, nobody can know what of the earlier
//! writes it holds (the kernel forgets pages that it could not write), so that failure lasts.
//!
//! Nothing is lost on the way out: `closing` is set under the lock that appenders take, so what was accepted before is
//! in the buffer, and the writer leaves only when that is written or a try since then has failed.

use super::disk::{Disk, write_records};
use super::error::JournalError;
use super::record::{self, CHECKSUM_BYTES};
use super::{Limits, Sync};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How far something has come.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Mark {
    /// Where in the file, in bytes.
    position: u64,
    /// Records of this run before that.
    records: u64,
}

/// What the writer is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    /// It works, or is about to: nobody need wake it.
    Busy,
    /// Waits for a record.
    Asleep,
    /// Waits a moment for more records.
    Gathering,
    /// Waits before it tries again.
    Failing,
}

/// What went wrong last.
#[derive(Clone, Debug)]
struct Trouble {
    operation: &'static str,
    cause: Arc<io::Error>,
    /// When: the next try is counted from here.
    since: Instant,
    /// True if trying again is no use.
    lasting: bool,
}

#[derive(Debug)]
struct State {
    /// Records that are accepted and that the writer has not taken yet.
    buffer: Vec<u8>,
    accepted: Mark,
    written: Mark,
    synced: Mark,
    /// Somebody waits until the file has all before this position.
    asked_written: u64,
    /// Somebody waits until the disk has all before this position.
    asked_synced: u64,
    /// Records that found no room.
    refused: u64,
    trouble: Option<Trouble>,
    /// The trouble that caused the first missing record, kept when it is over.
    past_trouble: Option<Trouble>,
    /// Tries of the writer, failed ones too.
    attempts: u64,
    rest: Rest,
    /// A failing writer shall try at once.
    hurried: bool,
    /// Nothing is accepted any more.
    closing: bool,
    /// The writer has left.
    ended: bool,
}

/// What appenders and the writer thread share.
pub(super) struct Writer {
    path: PathBuf,
    sync: Sync,
    limits: Limits,
    /// The file's own number, the seed of checksums.
    number: u64,
    state: Mutex<State>,
    /// The writer waits here.
    work: Condvar,
    /// Everybody else waits here.
    done: Condvar,
}

/// Ends all waiting when the writer leaves by a panic, so that a bug of ours is an error of the journal and no hang.
struct Leaving<'a>(&'a Writer);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if !state.ended {
            let cause = Arc::new(io::Error::other("its writer stopped, which is a bug in Tarragon"));
            state.trouble =
                Some(Trouble { operation: "write to", cause, since: Instant::now(), lasting: true });
            state.ended = true;
            self.0.done.notify_all();
        }
    }
}

/// What the writer does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    syncs: bool,
    closing: bool,
}

impl Writer {
    /// A writer for the file at `path`, which ends at `end`.
    pub(super) fn new(path: PathBuf, number: u64, end: u64, sync: Sync, limits: Limits) -> Writer {
        let mark = Mark { position: end, records: 0 };
        let state = State {
            buffer: Vec::new(),
            accepted: mark,
            written: mark,
            synced: mark,
            asked_written: 0,
            asked_synced: 0,
            refused: 0,
            trouble: None,
            past_trouble: None,
            attempts: 0,
            rest: Rest::Busy,
            hurried: false,
            closing: false,
            ended: false,
        };
        let state = Mutex::new(state);
        Writer { path, sync, limits, number, state, work: Condvar::new(), done: Condvar::new() }
    }

    /// Accepts a record: `frame` is its length and payload. Waits while too much is unwritten, and where every record
    /// is synced until it is. Returns the position after the record.
    pub(super) fn append(&self, frame: &[u8]) -> Result<u64, JournalError> {
        let hash = record::hash_frame(frame, self.number);
        let bytes = (frame.len() + CHECKSUM_BYTES) as u64;
        let mut state = self.state.lock();
        self.wait_for_room(&mut state, bytes)?;
        let sum = record::checksum(hash, state.accepted.position);
        state.buffer.extend_from_slice(frame);
        state.buffer.extend_from_slice(&sum);
        state.accepted.position += bytes;
        state.accepted.records += 1;
        let end = state.accepted.position;
        if self.sync == Sync::EachRecord {
            self.wait_for(&mut state, end, true, false)?;
        } else if state.rest == Rest::Asleep
            || (state.rest == Rest::Gathering && state.buffer.len() >= self.limits.gather_bytes)
        {
            self.wake(&mut state);
        }
        Ok(end)
    }

    /// Returns when there is room for `bytes` more. A record larger than the bound goes when nothing else waits.
    fn wait_for_room(&self, state: &mut MutexGuard<'_, State>, bytes: u64) -> Result<(), JournalError> {
        loop {
            if state.closing || state.ended {
                return Err(JournalError::Closed { path: self.path.clone() });
            }
            let unwritten = state.accepted.position - state.written.position;
            let fits = unwritten == 0 || unwritten + bytes <= self.limits.unwritten_bytes_max;
            match &state.trouble {
                Some(trouble) if trouble.lasting || !fits => {
                    state.refused += 1;
                    state.past_trouble = state.trouble.clone();
                    return Err(self.failing(state).expect("there is trouble"));
                }
                _ if fits => return Ok(()),
                _ => {}
            }
            state.asked_written = state.asked_written.max(state.accepted.position);
            self.wake(state);
            self.done.wait(state);
        }
    }

    /// Returns when the file, or with `synced` the disk, has all before `position`. With `hurries` a failing writer
    /// tries once more first, without it its trouble is the answer.
    fn wait_for(
        &self,
        state: &mut MutexGuard<'_, State>,
        position: u64,
        synced: bool,
        hurries: bool,
    ) -> Result<(), JournalError> {
        let attempts_before = state.attempts;
        state.hurried |= hurries;
        loop {
            let mark = if synced { state.synced } else { state.written };
            if mark.position >= position {
                return Ok(());
            }
            let in_vain = !hurries || state.attempts > attempts_before;
            match &state.trouble {
                Some(trouble) if in_vain || trouble.lasting => {
                    return Err(self.failing(state).expect("there is trouble"));
                }
                _ if state.ended => return Err(JournalError::Closed { path: self.path.clone() }),
                _ => {}
            }
            state.asked_written = state.asked_written.max(position);
            if synced {
                state.asked_synced = state.asked_synced.max(position);
            }
            self.wake(state);
            self.done.wait(state);
        }
    }

    /// Returns when the file has all before `position`.
    pub(super) fn wait_written(&self, position: u64) -> Result<(), JournalError> {
        self.wait_for(&mut self.state.lock(), position, false, false)
    }

    /// Returns when all that was accepted is in the file, and on the disk unless that is never asked.
    pub(super) fn flush(&self) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        let end = state.accepted.position;
        self.wait_for(&mut state, end, self.sync != Sync::Never, true)
    }

    /// Tells the writer to end; it does when it has written what was accepted, or failed to.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        self.wake(&mut state);
        // Whoever waits for room must learn that there will be none.
        self.done.notify_all();
    }

    /// What is wrong now.
    pub(super) fn error(&self) -> Option<JournalError> {
        self.failing(&self.state.lock())
    }

    /// What is missing in the end.
    pub(super) fn verdict(&self) -> Result<(), JournalError> {
        let state = self.state.lock();
        match (self.failing(&state), &state.past_trouble) {
            (Some(disk @ JournalError::Disk { .. }), _) => Err(disk),
            (Some(JournalError::Failing { path, cause, waiting, refused, .. }), _) => {
                Err(JournalError::Incomplete { path, missing: waiting + refused, cause })
            }
            (None, Some(trouble)) if state.refused > 0 => {
                let (missing, cause) = (state.refused, trouble.cause.clone());
                Err(JournalError::Incomplete { path: self.path.clone(), missing, cause })
            }
            (Some(other), _) => Err(other),
            (None, _) => Ok(()),
        }
    }

    fn failing(&self, state: &State) -> Option<JournalError> {
        let Trouble { operation, cause, lasting, .. } = state.trouble.clone()?;
        let (path, refused) = (self.path.clone(), state.refused);
        if lasting {
            let missing = refused + state.accepted.records - state.synced.records;
            return Some(JournalError::Disk { path, missing, cause });
        }
        let waiting = state.accepted.records - state.written.records;
        Some(JournalError::Failing { path, operation, cause, waiting, refused })
    }

    fn wake(&self, state: &mut State) {
        if state.rest != Rest::Busy {
            state.rest = Rest::Busy;
            self.work.notify_one();
        }
    }

    /// How many accepted records are not in the file.
    pub(super) fn waiting(&self) -> u64 {
        let state = self.state.lock();
        state.accepted.records - state.written.records
    }

    /// The writer thread.
    pub(super) fn run(&self, disk: &mut dyn Disk) {
        let _leaving = Leaving(self);
        // Records that the writer works on. After a failure it begins with the first one that is not in the file.
        let mut taken = Vec::new();
        let mut synced_at = Instant::now();
        loop {
            let (step, position) = self.next_step(&mut taken, synced_at);
            let (records, bytes, outcome) = write_records(disk, &taken, position);
            taken.drain(..bytes);
            let mut failed = outcome.is_err();
            // Before the sync, which takes long, and which not everybody waits for.
            self.publish_written(records, bytes as u64, outcome);
            if step.syncs && !failed {
                let outcome = disk.sync();
                synced_at = Instant::now();
                failed = outcome.is_err();
                self.publish_synced(outcome);
            }
            if step.closing && self.ends(failed) {
                return;
            }
        }
    }

    /// Waits for something to do; takes the buffer if nothing is left of the last one. Returns what to do, and where in
    /// the file `taken` goes.
    fn next_step(&self, taken: &mut Vec<u8>, synced_at: Instant) -> (Step, u64) {
        let mut state = self.state.lock();
        let mut gathered = false;
        loop {
            let step = match &state.trouble {
                _ if state.closing => Some(self.syncs_at_end()),
                Some(trouble) if trouble.lasting => None,
                Some(trouble) => {
                    let is_due = state.hurried || trouble.since.elapsed() >= self.limits.retry;
                    is_due.then_some(
                        self.sync == Sync::EachRecord || state.asked_synced > state.synced.position,
                    )
                }
                None => self.healthy_step(&state, gathered, synced_at),
            };
            if let Some(syncs) = step {
                state.rest = Rest::Busy;
                state.hurried = false;
                if taken.is_empty() {
                    std::mem::swap(taken, &mut state.buffer);
                }
                return (Step { syncs, closing: state.closing }, state.written.position);
            }
            gathered = self.rest(&mut state, synced_at);
        }
    }

    fn syncs_at_end(&self) -> bool {
        self.sync != Sync::Never
    }

    /// Whether to sync, if there is something to do now.
    fn healthy_step(&self, state: &State, gathered: bool, synced_at: Instant) -> Option<bool> {
        let unwritten = state.accepted.position > state.written.position;
        let is_asked = state.asked_written > state.written.position;
        let is_large = state.buffer.len() >= self.limits.gather_bytes;
        let syncs = match self.sync {
            Sync::EachRecord => unwritten || state.accepted.position > state.synced.position,
            Sync::Never => false,
            Sync::Every(period) => {
                let unsynced = state.accepted.position > state.synced.position;
                let is_asked = state.asked_synced > state.synced.position;
                unsynced && (is_asked || synced_at.elapsed() >= period)
            }
        };
        (syncs || (unwritten && (gathered || is_asked || is_large))).then_some(syncs)
    }

    /// Rests until woken, or until it is time for the next thing. True if that was the time given to other records to
    /// follow the first.
    fn rest(&self, state: &mut MutexGuard<'_, State>, synced_at: Instant) -> bool {
        let unwritten = state.accepted.position > state.written.position;
        let (rest, until) = match (&state.trouble, self.sync) {
            (Some(trouble), _) if trouble.lasting => (Rest::Failing, None),
            (Some(trouble), _) => (Rest::Failing, trouble.since.checked_add(self.limits.retry)),
            (None, _) if unwritten => (Rest::Gathering, Instant::now().checked_add(self.limits.gather)),
            (None, Sync::Every(period)) if state.written.position > state.synced.position => {
                (Rest::Asleep, synced_at.checked_add(period))
            }
            (None, _) => (Rest::Asleep, None),
        };
        state.rest = rest;
        match until {
            Some(until) => {
                self.work.wait_until(state, until);
            }
            None => self.work.wait(state),
        }
        rest == Rest::Gathering
    }

    /// Says that so much more is in the file, or why it is not.
    fn publish_written(&self, records: u64, bytes: u64, outcome: io::Result<()>) {
        let mut state = self.state.lock();
        state.written.position += bytes;
        state.written.records += records;
        self.publish(&mut state, outcome, "write to", false);
    }

    /// Says that all that is in the file is on the disk, or why it is not.
    fn publish_synced(&self, outcome: io::Result<()>) {
        let mut state = self.state.lock();
        // Trouble that is there after a good write is that of an earlier sync, and this one proves nothing about it.
        if outcome.is_ok() && state.trouble.is_none() {
            state.synced = state.written;
        }
        self.publish(&mut state, outcome, "sync", true);
    }

    fn publish(&self, state: &mut State, outcome: io::Result<()>, operation: &'static str, lasting: bool) {
        state.attempts += 1;
        // A disk that failed to sync stays failed, even if the last try at closing goes well.
        if !state.trouble.as_ref().is_some_and(|trouble| trouble.lasting) {
            let trouble =
                |error| Trouble { operation, cause: Arc::new(error), since: Instant::now(), lasting };
            state.trouble = outcome.err().map(trouble);
        }
        self.done.notify_all();
    }

    /// True, and made known, if the writer has no more to do for a journal that closes.
    fn ends(&self, failed: bool) -> bool {
        let mut state = self.state.lock();
        state.ended = failed || state.written == state.accepted;
        self.done.notify_all();
        state.ended
    }
}
