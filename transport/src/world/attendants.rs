//! Threads that look after a fabric of two sides: each sleeps on its side, and looks when something comes there, unless
//! other threads of the rank do. Where nothing happens they wake every [`NAP_MS`], to see whether all live.
//!
//! An attendant that finds that others have looked within [`PAUSE_MS`] naps as long, and looks at that again; who goes
//! to sleep calls it, and is heard also if the attendant looks just then. Where nobody else looks it sleeps and looks
//! in turn without a nap: what the other attendant does is no look in this sense. So a message waits for it about a
//! millisecond at most when all threads compute, and as long as the kernel lets them compute on (`slice`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{WorldError, slice};
use crate::fabric::{Fabric, Liveness, Mixed, Side, Way};

/// How long other threads may not have looked before an attendant does, in milliseconds.
const PAUSE_MS: u64 = 1;
/// Looks in succession that find nothing before an attendant naps all the same: another thread may be at a handler.
const IN_VAIN_MAX: u32 = 4;
/// The longest sleep of an attendant, in milliseconds.
const NAP_MS: u64 = 2000;

/// The attendants of a rank. They end when this is dropped.
pub(super) struct Attendants {
    fabric: Arc<Fabric>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Attendants {
    /// Those that the fabric needs, which may be none.
    ///
    /// # Errors
    /// `System` if a thread cannot be had.
    pub(super) fn start(fabric: &Arc<Fabric>) -> Result<Attendants, WorldError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut attendants = Attendants { fabric: fabric.clone(), is_over, threads: Vec::new() };
        if mixed(fabric).is_none() {
            return Ok(attendants);
        }
        for (side, name) in [(Side::Node, "attend-node"), (Side::Network, "attend-net")] {
            let (fabric, is_over) = (fabric.clone(), attendants.is_over.clone());
            let run = move || attend(&fabric, side, &is_over);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            let thread = thread.map_err(|source| WorldError::System { verb: "start a thread", source })?;
            attendants.threads.push(thread);
        }
        Ok(attendants)
    }
}

fn attend(fabric: &Fabric, side: Side, is_over: &AtomicBool) {
    let Some(mixed) = mixed(fabric) else { return };
    slice::shorten();
    let (mut liveness, mut heard) = (Liveness::new(), 0);
    while !is_over.load(Ordering::SeqCst) {
        if mixed.nap(Duration::from_millis(PAUSE_MS), &mut heard) {
            // As long as nobody else looks it does, also when it was woken for nothing, as sends wake it.
            let mut in_vain = 0;
            while in_vain < IN_VAIN_MAX && !is_over.load(Ordering::SeqCst) {
                let is_alone = mixed.attend(side, Duration::from_millis(NAP_MS));
                let is_useful = mixed.pump(side) | (mixed.look(fabric) > 0);
                in_vain = if is_useful { 0 } else { in_vain + 1 };
                if side == Side::Network && liveness.is_due() {
                    fabric.check_peers();
                }
                if !is_alone {
                    break;
                }
            }
        }
        if side == Side::Network && liveness.is_due() {
            fabric.check_peers();
        }
    }
}

fn mixed(fabric: &Fabric) -> Option<&Mixed> {
    match fabric.way() {
        Way::Mixed(mixed) => Some(mixed),
        Way::Loopback(_) | Way::Shm(_) | Way::Ucx(_) => None,
    }
}

impl Drop for Attendants {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // One that was about to sleep hears it the next time.
            while !thread.is_finished() {
                mixed(&self.fabric).into_iter().for_each(Mixed::rouse);
                std::thread::sleep(Duration::from_millis(1));
            }
            // A handler's panic has been said where it happened.
            let _ = thread.join();
        }
    }
}
