//! The thread that gives a rank's signs of life, looks for those of others, and tells who is lost: see `membership`.
//! Where nothing happens it wakes three times within the limit, and never where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::WorldError;
use crate::fabric::Fabric;
use crate::membership::Beats;

/// The watch of a rank. It ends when this is dropped.
pub(super) struct Watch {
    fabric: Arc<Fabric>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// None for a rank alone.
    ///
    /// # Errors
    /// `System` if a thread cannot be had.
    pub(super) fn start(fabric: &Arc<Fabric>) -> Result<Watch, WorldError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut watch = Watch { fabric: Arc::clone(fabric), is_over, thread: None };
        if fabric.size() == 1 {
            return Ok(watch);
        }
        let (fabric, is_over) = (Arc::clone(fabric), Arc::clone(&watch.is_over));
        let run = move || {
            let mut beats = Beats::default();
            while !is_over.load(Ordering::SeqCst) {
                let Some(pause) = fabric.watch(&mut beats) else { return };
                fabric.sleep_watch(pause, &|| is_over.load(Ordering::SeqCst));
            }
        };
        let thread = std::thread::Builder::new().name("tarragon-watch".to_owned()).spawn(run);
        watch.thread = Some(thread.map_err(|source| WorldError::System { verb: "start a thread", source })?);
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return };
        // A listener may drop the world.
        if thread.thread().id() == std::thread::current().id() {
            return;
        }
        while !thread.is_finished() {
            self.fabric.rouse_watch();
            std::thread::sleep(Duration::from_millis(1));
        }
        // A listener's panic has been said where it happened.
        let _ = thread.join();
    }
}
