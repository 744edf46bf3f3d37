//! A wake-up across processes: those who wait spin for about its cost, then sleep; those who ring pay one load.
//!
//! # The protocol
//! | word | written by | means |
//! |---|---|---|
//! | `sequence` | who rings a sleeper: +1 | what a sleeper sleeps on; a change is a ring |
//! | `state`, `ASLEEP` | set by who goes to sleep, cleared by who rings | a ring must make a system call |
//! | `state`, `FENCED` | set for good by a sleeper whose system lacks `membarrier` | who rings must pass a full fence |
//! | `parked` | +1 before and -1 after the sleep | a hint: others sleep as well |
//!
//! *Nobody misses a ring.* A sleeper sets `ASLEEP`, passes a heavy fence, and then looks at the thing itself; who rings
//! has made the thing happen, passes a light fence, and then looks at `ASLEEP`. One of the two sees the other. A ring
//! between the sleeper's look and its sleep changes `sequence`, and the kernel does not let it sleep.
//!
//! *One wake-up is under way at a time.* Who rings takes `ASLEEP` off, so all rings until a sleeper runs cost a load.
//! One sleeper wakes; it sets the flag again for the others (another heavy fence), and if more is there than it takes,
//! it rings for the next ([`Woken::Rung`]).
//!
//! *Deaths.* Killed between taking the flag off and the wake-up, or awake and not yet passed on: the sleepers' sleep
//! is cut after [`NAP_MS`], then after twice as long each time up to [`NAP_MS_MAX`], and then they look. Killed
//! asleep: `parked` stays too high, and some wakers set a flag that costs one system call of somebody each.
//!
//! *Source*: Dice, Huang, Yang, "Asymmetric Dekker Synchronization" (2001); membarrier(2), futex(2).

#![expect(unsafe_code, reason = "says that a doorbell may lie in shared memory")]

mod kernel;
#[cfg(test)]
mod tests;

use crate::sync::{AtomicU32, Ordering, fence};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The first sleep without looking, in milliseconds: how long a ring can be late when who rings is killed in it.
pub const NAP_MS: u64 = 250;
/// The longest one, of a thread that has not been rung for a while.
pub const NAP_MS_MAX: u64 = 2000;
/// About what a wake-up costs, in microseconds: how long to spin before sleeping.
pub const SPIN_US: u64 = 40;
/// Looks without a clock or a pause: a quick answer comes within them.
const LOOKS_QUICK: u32 = 256;
/// Looks between two looks at the clock.
const LOOKS_CLOCK: u32 = 32;
/// The most doorbells one waiter sleeps on; further ones are looked at every [`NAP_MS`].
pub const BELLS_MAX: usize = 128;

/// As many sleepers as there can be.
const EVERYBODY: u32 = i32::MAX as u32;

const ASLEEP: u32 = 1;
const FENCED: u32 = 2;

/// A doorbell in shared memory, or in a process for its threads. All zeros: nobody sleeps.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Doorbell {
    sequence: AtomicU32,
    state: AtomicU32,
    parked: AtomicU32,
    #[cfg(loom)]
    futex: kernel::Futex,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Doorbell>() == 64);

// SAFETY: three atomics of fixed width and padding; any value of them is valid.
unsafe impl crate::segment::Shared for Doorbell {}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// What was waited for is there, and it came while the waiter spun.
    Spun,
    /// It is there, and the waiter slept. Whoever shares a doorbell with others that take things must, after taking
    /// its own, ring it if there is more.
    Rung,
    /// The time is over.
    Timeout,
}

impl Doorbell {
    /// Wakes a sleeper, if there is one. Call it after the thing has been made to happen, by a release store at least.
    ///
    /// Costs a load (and a full fence where there is no `membarrier`); a system call of 1-2 µs if somebody sleeps.
    #[inline(always)]
    pub fn ring(&self) {
        light();
        let state = self.state.load(Ordering::Relaxed);
        if state != 0 {
            self.ring_slow(state, 1);
        }
    }

    /// As [`ring`](Self::ring), but wakes all who sleep: they wait for different things.
    #[inline(always)]
    pub fn ring_sleepers(&self) {
        light();
        let state = self.state.load(Ordering::Relaxed);
        if state != 0 {
            self.ring_slow(state, EVERYBODY);
        }
    }

    #[cold]
    fn ring_slow(&self, state: u32, count: u32) {
        if state & FENCED != 0 {
            fence(Ordering::SeqCst);
        }
        if self.state.load(Ordering::Relaxed) & ASLEEP == 0 {
            return;
        }
        if self.state.fetch_and(!ASLEEP, Ordering::SeqCst) & ASLEEP != 0 {
            self.sequence.fetch_add(1, Ordering::SeqCst);
            kernel::wake(self, count);
        }
    }

    /// Wakes all sleepers, also those whose number a killed one has left wrong. Always a system call.
    pub fn ring_all(&self) {
        fence(Ordering::SeqCst);
        self.state.fetch_and(!ASLEEP, Ordering::SeqCst);
        self.sequence.fetch_add(1, Ordering::SeqCst);
        kernel::wake(self, EVERYBODY);
    }

    /// Waits until `ready` says so or `until` has come; spins first. `ready` is called often, and once more before
    /// the answer [`Woken::Timeout`]. Never sleeps longer than [`NAP_MS_MAX`] without calling it.
    pub fn wait(&self, until: Option<Instant>, mut ready: impl FnMut() -> bool) -> Woken {
        if spin(until, &mut ready) { Woken::Spun } else { self.sleep(until, ready) }
    }

    /// Like [`wait`](Self::wait), but sleeps at once.
    pub fn sleep(&self, until: Option<Instant>, ready: impl FnMut() -> bool) -> Woken {
        sleep_on(&[self], until, ready)
    }

    /// How often a sleeper was woken; changes with each wake-up, wraps. For tests and figures.
    pub fn rings(&self) -> u32 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// Announces a sleeper; the value that it will sleep on. A heavy fence must follow, then the look.
    fn arm(&self) -> u32 {
        let seen = self.sequence.load(Ordering::Acquire);
        self.state.fetch_or(ASLEEP, Ordering::SeqCst);
        seen
    }

    /// After a sleep: says for the others who sleep on that they do. True if there are any.
    fn disarm(&self) -> bool {
        let others = self.parked.fetch_sub(1, Ordering::SeqCst) > 1;
        if others {
            self.state.fetch_or(ASLEEP, Ordering::SeqCst);
        }
        others
    }
}

/// Waits on several doorbells at once, as [`Doorbell::wait`] does on one; sleeps on the first [`BELLS_MAX`].
pub fn wait_any(bells: &[&Doorbell], until: Option<Instant>, mut ready: impl FnMut() -> bool) -> Woken {
    if spin(until, &mut ready) { Woken::Spun } else { sleep_on(bells, until, ready) }
}

/// Looks for about [`SPIN_US`]; true as soon as `ready` says so. On a machine of one core it only yields.
pub fn spin(until: Option<Instant>, ready: &mut impl FnMut() -> bool) -> bool {
    if ready() {
        return true;
    }
    if !kernel::many_cores() {
        kernel::pause_long();
        return ready();
    }
    for _ in 0..kernel::looks(LOOKS_QUICK) {
        if ready() {
            return true;
        }
    }
    let start = Instant::now();
    let end = start + Duration::from_micros(SPIN_US);
    let end = until.map_or(end, |until| until.min(end));
    while Instant::now() < end {
        for _ in 0..kernel::looks(LOOKS_CLOCK) {
            if ready() {
                return true;
            }
            kernel::pause();
        }
    }
    false
}

thread_local! {
    /// The next nap of this thread, in milliseconds: longer after each that ended of itself, whatever it waits for.
    static NEXT_NAP_MS: Cell<u64> = const { Cell::new(NAP_MS) };
}

fn sleep_on(bells: &[&Doorbell], until: Option<Instant>, mut ready: impl FnMut() -> bool) -> Woken {
    let bells = &bells[..bells.len().min(BELLS_MAX)];
    let mut seen = [0_u32; BELLS_MAX];
    loop {
        for (bell, seen) in bells.iter().zip(&mut seen) {
            *seen = bell.arm();
        }
        heavy(bells);
        if ready() {
            return Woken::Rung;
        }
        let longest = Duration::from_millis(NEXT_NAP_MS.get());
        let nap = until.map_or(longest, |until| longest.min(until.saturating_duration_since(Instant::now())));
        if nap.is_zero() {
            return Woken::Timeout;
        }
        for bell in bells {
            bell.parked.fetch_add(1, Ordering::SeqCst);
        }
        kernel::sleep(bells, &seen, nap);
        let was_rung = bells.iter().zip(&seen).any(|(bell, &seen)| bell.rings() != seen);
        if was_rung {
            NEXT_NAP_MS.set(NAP_MS);
        } else if nap == longest {
            NEXT_NAP_MS.set(NAP_MS_MAX.min(2 * NEXT_NAP_MS.get()));
        }
        if bells.iter().filter(|bell| bell.disarm()).count() > 0 {
            heavy(bells);
        }
        if ready() {
            return Woken::Rung;
        }
    }
}

/// The frequent side of an asymmetric fence over all processes: orders earlier stores before later loads, as seen by
/// a thread that passes [`heavy`]. Free where the kernel has `membarrier`.
#[inline(always)]
fn light() {
    if kernel::registered() {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// Asks the kernel for `membarrier` once per process. Until it was called, every ring passes a full fence, which is
/// always right; whoever maps a doorbell calls it.
pub fn prepare() {
    kernel::register();
}

/// The rare side: every thread of every process that rings passes a full fence before this returns; or all who ring
/// one of `bells` are told to pass one themselves. Costs 1-20 µs.
fn heavy(bells: &[&Doorbell]) {
    if !kernel::all_processes() {
        for bell in bells {
            bell.state.fetch_or(FENCED, Ordering::SeqCst);
        }
    }
    fence(Ordering::SeqCst);
}
