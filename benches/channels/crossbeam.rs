//! `crossbeam-channel` between two threads of one process: bounded, as all here are.

use super::{Item, Side};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use std::hint::spin_loop;

/// One of two sides.
pub(crate) struct Crossbeam<T> {
    to: Sender<T>,
    from: Receiver<T>,
}

impl<T> Crossbeam<T> {
    /// Both sides.
    pub(crate) fn pair() -> (Self, Self) {
        let ((to, out), (back, from)) = (bounded(1024), bounded(1024));
        (Self { to, from }, Self { to: back, from: out })
    }
}

impl<T: Item> Side<T> for Crossbeam<T> {
    fn send(&mut self, item: T) {
        self.to.send(item).expect("the other side lives");
    }

    fn receive(&mut self) -> T {
        loop {
            match self.from.try_recv() {
                Ok(item) => return item,
                Err(TryRecvError::Empty) => spin_loop(),
                Err(TryRecvError::Disconnected) => panic!("the other side has gone"),
            }
        }
    }

    fn park(&mut self) -> T {
        self.from.recv().expect("the other side lives")
    }
}
