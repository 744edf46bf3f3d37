//! An agent that belongs to no thread: several use it in turn, so that what they do in a segment is in one order.

#![expect(unsafe_code, reason = "hands an agent's memory from one thread to the next")]

use super::{CURRENT, Local, RECENT, TABLE};
use crate::error::SegmentError;
use crate::segment::Segment;
use std::sync::{Arc, Weak};

/// An agent for threads that take turns, each of which is it for the time of one call. What they do is one agent's
/// doing: its intent, its tally, and for survivors its death, which is that of the process.
pub struct Seat {
    segment: Weak<Segment>,
    serial: u64,
    local: *const Local,
}

// SAFETY: the memory behind `local` is used by who has the seat alone, by an exclusive borrow; that orders one thread's
// use before the next one's.
unsafe impl Send for Seat {}

/// What the thread had before; put back at the end, also of a panic.
struct Before {
    serial: u64,
    recent: (u64, *const Local),
    known: Option<*const Local>,
}

impl Segment {
    /// An agent of its own, of no thread.
    ///
    /// # Errors
    /// `Agents` if too many use the segment, `Full` if its record finds no memory.
    pub fn seat(self: &Arc<Self>) -> Result<Seat, SegmentError> {
        Ok(Seat { segment: Arc::downgrade(self), serial: self.serial, local: self.join()? })
    }
}

impl Seat {
    /// Does something in which this thread's agent of the segment is this one. An agent must not be kept beyond it;
    /// that it can neither be captured nor returned keeps all from it that do not hide one in a thread-local value.
    ///
    /// # Errors
    /// `ThreadEnds` in destructors of thread-local values: nothing was done.
    pub fn within<R: Send>(&mut self, act: impl FnOnce() -> R + Send) -> Result<R, SegmentError> {
        let serial = self.serial;
        let known = TABLE.try_with(|table| {
            let mut table = table.borrow_mut();
            match table.0.iter_mut().find(|it| it.0 == serial) {
                Some(entry) => Some(std::mem::replace(&mut entry.1, self.local)),
                None => {
                    table.0.push((serial, self.local, Weak::clone(&self.segment)));
                    None
                }
            }
        });
        let known = known.map_err(|_| SegmentError::ThreadEnds)?;
        let recent = CURRENT.with(|it| it[serial as usize % RECENT].replace((serial, self.local)));
        let _before = Before { serial, recent, known };
        Ok(act())
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        TABLE.with(|table| {
            let mut table = table.borrow_mut();
            match self.known {
                Some(known) => {
                    table.0.iter_mut().filter(|it| it.0 == self.serial).for_each(|entry| entry.1 = known);
                }
                None => table.0.retain(|it| it.0 != self.serial),
            }
        });
        CURRENT.with(|it| it[self.serial as usize % RECENT].set(self.recent));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.upgrade() {
            segment.leave(self.local);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::segment::{Segment, Spec};

    #[test]
    fn threads_are_one_agent_in_turn_and_their_own_again() {
        let spec = Spec { kind: "seat", layout: 1, control_bytes: 4096, heap_bytes: 1 << 20 };
        let segment = Segment::create(&spec).expect("memory");
        let mut seat = segment.seat().expect("there is room");
        let id = || segment.agent().expect("a thread of ours").id;
        let own = id();
        let sat = seat.within(id).expect("this thread goes on");
        assert_ne!(sat, own);
        assert_eq!(id(), own);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let (sits, is) = (seat.within(id).expect("it goes on"), id());
                assert_eq!(sits, sat);
                is
            });
            assert_ne!(other.join().expect("no panic"), sat);
        });
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _never: Result<(), _> = seat.within(|| panic!("as a test"));
        }));
        assert!(panics.is_err());
        assert_eq!(id(), own);
        assert_eq!(seat.within(id).expect("still"), sat);
    }
}
