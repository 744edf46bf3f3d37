//! Signs of life in shared memory, and the end of a process that is lost and still there.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::futex;

use super::Shm;
use super::layout::JOINED;
use crate::membership::{Beats, Members, Why};
use crate::rank::Rank;
use crate::sync::Ordering;

/// The number of the numbering of processes that this one's number belongs to; 0 if that is not known.
pub(super) fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |it| it.ino())
}

/// Milliseconds of the clock that all processes of a node have; it wraps.
fn clock_ms() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000) as u32
}

impl Shm {
    /// In a world of one node, whose seats are its ranks: takes in signs and what rank 0 says.
    pub(in crate::fabric) fn look_for_signs(&self, members: &Members, beats: &mut Beats) {
        let (size, now_ms) = (self.size(), clock_ms());
        beats.seen.resize(size as usize, 0);
        for (rank, seen) in (0..size).map(Rank).zip(&mut beats.seen) {
            let line = self.map.line(rank);
            let sign = line.sign.load(Ordering::Acquire);
            let is_new = rank != self.seat && std::mem::replace(seen, sign) != sign;
            // One that is ahead, or wrong, is of now.
            let age_ms = match now_ms.wrapping_sub((sign >> 32) as u32) {
                ahead if ahead > u32::MAX / 2 => 0,
                age => u64::from(age),
            };
            let at = Instant::now().checked_sub(Duration::from_millis(age_ms)).unwrap_or_else(Instant::now);
            let lost = line.lost.load(Ordering::Acquire);
            match self.seat {
                Rank(0) if is_new => members.sign(rank, sign as u32, at),
                Rank(0) => {}
                _ => {
                    if is_new && rank == Rank(0) {
                        members.hear(self.map.head().settled.load(Ordering::Acquire), at);
                    }
                    if lost != 0 {
                        members.lose(lost as u32, rank, Why::decode((lost >> 32) as u8));
                    }
                }
            }
        }
    }

    pub(in crate::fabric) fn give_sign(&self, settled: u32, told: u32, is_news: bool) {
        let line = self.map.line(self.seat);
        if self.seat == Rank(0) {
            self.map.head().settled.store(settled, Ordering::Release);
        }
        line.sign.store(u64::from(clock_ms()) << 32 | u64::from(told), Ordering::Release);
        match self.seat {
            _ if !is_news => {}
            Rank(0) => (1..self.size()).map(Rank).for_each(|rank| self.raise_alarm(rank)),
            _ => self.raise_alarm(Rank(0)),
        }
    }

    pub(in crate::fabric) fn spread(&self, epoch: u32, rank: Rank, why: Why) {
        self.map.line(rank).lost.store(u64::from(epoch) | (why as u64) << 32, Ordering::Release);
        (0..self.size()).map(Rank).for_each(|rank| self.raise_alarm(rank));
    }

    /// Wakes the watch of a rank.
    pub(in crate::fabric) fn raise_alarm(&self, rank: Rank) {
        let Some(seat) = self.seat_of(rank) else { return };
        let alarm = &self.map.line(seat).alarm;
        alarm.fetch_add(1, Ordering::SeqCst);
        // Nobody there is fine: it looks before it sleeps.
        let _ = futex::wake(alarm, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Sleeps until the alarm, unless `is_called`.
    pub(in crate::fabric) fn sleep_watch(&self, pause: Duration, is_called: impl Fn() -> bool) {
        let alarm = &self.map.line(self.seat).alarm;
        let seen = alarm.load(Ordering::SeqCst);
        if is_called() {
            return;
        }
        let pause = rustix::fs::Timespec::try_from(pause).ok();
        // Woken, changed before, interrupted or late: all mean to look again.
        let _ = futex::wait(alarm, futex::Flags::empty(), seen, pause.as_ref());
    }

    /// Ends the process of a lost rank, if it is still there: frozen, it may hold locks of this memory.
    pub(in crate::fabric) fn end(&self, rank: Rank) {
        let Some(seat) = self.seat_of(rank).filter(|&seat| seat != self.seat) else { return };
        let line = self.map.line(seat);
        let is_named = line.namespace.load(Ordering::Acquire) == namespace() && namespace() != 0;
        let pid = Pid::from_raw(line.pid.load(Ordering::Acquire) as i32).filter(|_| is_named);
        let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
        // Only who lives holds its lock, so the number that was looked up is still its own.
        if line.state.load(Ordering::Acquire) == JOINED && self.map.is_alive(seat) {
            // Who may not be ended stays: its locks do, too, and who waits for them says so.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}
