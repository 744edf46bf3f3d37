//! What a writer notes in its agent's record before the deed, for the survivor who settles it.
//!
//! | word | meaning |
//! |---|---|
//! | STAGE | what is under way (low byte); the version of the entry before it, or the depth of the page (high half) |
//! | ENTRY | the entry that it is about to lock, or has locked |
//! | PAGE, PAGE2 | the page that it is about to lock, and the one that it makes |
//! | NEW, OLD | block of the value that comes in, and of the one that goes |
//! | KEY | block of the key that comes in, or goes |
//! | DIRECTORY | block of a directory that comes in |
//! | SHARD | of the page that is split |
//!
//! A publication of an entry changes its version, and nobody else can change it before, because the writer has its
//! lock (or, for an entry that is not full, the page's). So the version says whether the deed was done.

use super::entry::Ctl;
use std::sync::atomic::Ordering;
use tarragon_transport::agent::{Agent, AgentRecord};

pub(super) const STAGE: usize = 0;
pub(super) const ENTRY: usize = 1;
pub(super) const PAGE: usize = 2;
pub(super) const PAGE2: usize = 3;
pub(super) const NEW: usize = 4;
pub(super) const OLD: usize = 5;
pub(super) const KEY: usize = 6;
pub(super) const DIRECTORY: usize = 7;
pub(super) const SHARD: usize = 8;

pub(super) const IDLE: u64 = 0;
/// A full entry gets another value.
pub(super) const UPDATE: u64 = 1;
/// An entry gets a key and a value.
pub(super) const INSERT: u64 = 2;
/// A key goes.
pub(super) const REMOVE: u64 = 3;
/// Half of a page goes to another one.
pub(super) const SPLIT: u64 = 4;

/// Notes a word.
#[inline(always)]
pub(super) fn note(agent: &Agent<'_>, word: usize, value: u64) {
    agent.record.intent[word].store(value, Ordering::Release);
}

/// Says that a deed begins.
#[inline(always)]
pub(super) fn begin(agent: &Agent<'_>, kind: u64, before: Ctl) {
    note(agent, STAGE, kind | u64::from(before.version()) << 32);
}

/// Says that it is over.
#[inline(always)]
pub(super) fn end(agent: &Agent<'_>) {
    note(agent, STAGE, IDLE);
}

/// What a record says.
pub(super) struct Intent([u64; 9]);

impl Intent {
    pub(super) fn of(record: &AgentRecord) -> Self {
        Self(std::array::from_fn(|word| record.intent[word].load(Ordering::Acquire)))
    }

    pub(super) fn word(&self, word: usize) -> u64 {
        self.0[word]
    }

    pub(super) fn kind(&self) -> u64 {
        self.0[STAGE] & 0xff
    }

    /// Version of the entry, or depth of the page, before.
    pub(super) fn before(&self) -> u32 {
        (self.0[STAGE] >> 32) as u32
    }
}
