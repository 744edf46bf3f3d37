//! The floors, in shared memory and nothing around them: a line each way that holds a flag and a payload; the same
//! with a futex to sleep on; a ring of one producer and one consumer; blocks of which a line hands over the number.

use super::{Hands, Item, Side};
use crate::beside::page::Page;
use rustix::thread::futex;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Words from one line to the next that shares nothing with it.
const LINE: usize = 16;

/// Which of two sides this is: 0 made the channel, 1 came to it.
type Which = usize;

/// A payload and its flag in one cache line, one for each way.
pub(crate) struct Line {
    page: Page,
    which: Which,
    sent: u64,
    seen: u64,
    /// Wakes who sleeps on the flag.
    wakes: bool,
}

impl Line {
    pub(crate) fn create(wakes: bool) -> Self {
        Self { page: Page::create(2 * LINE), which: 0, sent: 0, seen: 0, wakes }
    }

    pub(crate) fn attach(address: &str, wakes: bool) -> Self {
        Self { page: Page::open(address), which: 1, sent: 0, seen: 0, wakes }
    }

    pub(crate) fn address(&self) -> String {
        self.page.address()
    }

    fn payload(&self, which: Which) -> &AtomicU64 {
        &self.page.words()[which * LINE + 1]
    }
}

impl Side<u64> for Line {
    fn send(&mut self, item: u64) {
        let flag = self.page.futex(self.which * LINE);
        self.sent += 1;
        self.payload(self.which).store(item, Relaxed);
        flag.store(self.sent as u32, Release);
        if self.wakes {
            futex::wake(flag, futex::Flags::empty(), 1).expect("a futex");
        }
    }

    fn receive(&mut self) -> u64 {
        self.seen += 1;
        let flag = self.page.futex((1 - self.which) * LINE);
        while flag.load(Acquire) != self.seen as u32 {
            spin_loop();
        }
        self.payload(1 - self.which).load(Relaxed)
    }

    fn park(&mut self) -> u64 {
        let flag = self.page.futex((1 - self.which) * LINE);
        while flag.load(Acquire) == self.seen as u32 {
            // Whatever ends the wait, the flag decides.
            let _ = futex::wait(flag, futex::Flags::empty(), self.seen as u32, None);
        }
        self.receive()
    }
}

/// Slots of the ring.
const SLOTS: u64 = 1024;

/// Turns to wait before looking again for the other side's place.
const PAUSES: usize = 64;

/// A ring of one producer, who made it, and one consumer; each keeps a copy of the other's place and looks again only
/// when it must.
pub(crate) struct Ring<T> {
    page: Page,
    /// Where this side goes on, and how far the other one was when last looked at.
    at: u64,
    limit: u64,
    item: PhantomData<T>,
}

impl<T: Item> Ring<T> {
    pub(crate) fn create() -> Self {
        Self::with(Page::create(2 * LINE + SLOTS as usize * T::WORDS), SLOTS)
    }

    pub(crate) fn attach(address: &str) -> Self {
        Self::with(Page::open(address), 0)
    }

    fn with(page: Page, limit: u64) -> Self {
        Self { page, at: 0, limit, item: PhantomData }
    }

    pub(crate) fn address(&self) -> String {
        self.page.address()
    }

    fn slot(&self) -> &[AtomicU64] {
        let first = 2 * LINE + (self.at % SLOTS) as usize * T::WORDS;
        &self.page.words()[first..first + T::WORDS]
    }

    /// Spins until there is something between this side's place and the limit.
    fn wait(&mut self, other: usize, ahead: u64) {
        while self.at == self.limit {
            self.limit = self.page.words()[other].load(Acquire) + ahead;
            if self.at == self.limit {
                // Who looks at once takes the line away from who is about to write to it.
                (0..PAUSES).for_each(|_| spin_loop());
            }
        }
    }
}

impl<T: Item> Side<T> for Ring<T> {
    fn send(&mut self, item: T) {
        self.wait(LINE, SLOTS);
        self.slot().iter().zip(item.words()).for_each(|(slot, word)| slot.store(*word, Relaxed));
        self.at += 1;
        self.page.words()[0].store(self.at, Release);
    }

    fn receive(&mut self) -> T {
        self.wait(0, 0);
        let slot = self.slot();
        let item = T::from_words(|word| slot[word].load(Relaxed));
        self.at += 1;
        self.page.words()[LINE].store(self.at, Release);
        item
    }
}

/// Blocks of one size, written in place; a line tells which.
pub(crate) struct Blocks {
    line: Line,
    blocks: Page,
    size: usize,
    next: usize,
}

/// How many blocks take turns.
const BLOCKS: usize = 2;

impl Blocks {
    pub(crate) fn create(size: usize) -> Self {
        let line = Line::create(false);
        Self { line, blocks: Page::create(BLOCKS * size / 8), size, next: 0 }
    }

    pub(crate) fn attach(address: &str, size: usize) -> Self {
        let (line, blocks) = address.split_once('+').expect("two addresses");
        Self { line: Line::attach(line, false), blocks: Page::open(blocks), size, next: 0 }
    }

    pub(crate) fn address(&self) -> String {
        format!("{}+{}", self.line.address(), self.blocks.address())
    }
}

impl Hands for Blocks {
    fn hand(&mut self, bytes: &[u8], ready: impl FnOnce()) {
        self.blocks.copy_in(self.next * self.size / 8, bytes);
        ready();
        self.line.send(self.next as u64);
        self.next = (self.next + 1) % BLOCKS;
    }

    fn take(&mut self) -> (u64, u64) {
        let first = self.line.receive() as usize * self.size / 8;
        let words = &self.blocks.words()[first..first + self.size / 8];
        (words[0].load(Relaxed), words[words.len() - 1].load(Relaxed))
    }
}
