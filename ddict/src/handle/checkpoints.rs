//! Checkpoints: generations of the dictionary that live side by side.
//!
//! A handle reads and writes in one checkpoint, numbered from 0, and goes on to the next when its user says so; handles
//! of other processes do so on their own time. A key that a checkpoint did not write is seen there as the one before
//! left it (in a dictionary that waits for keys: only if it was put by `pput`). The newest `working_set` checkpoints
//! are kept; a write in a new one retires the oldest, and its use is an error then.

use super::DDict;
use crate::error::Error;
use std::sync::atomic::Ordering;

impl<K, V> DDict<K, V> {
    /// Number of the handle's checkpoint.
    #[must_use]
    pub fn checkpoint_id(&self) -> u32 {
        self.at()
    }

    /// Goes on to the next checkpoint and returns its number. Nothing is copied, and no other handle is moved.
    ///
    /// # Errors
    /// `Checkpoint` after number 2^32 - 1.
    pub fn checkpoint(&self) -> Result<u32, Error> {
        self.step("after", |now| now.checked_add(1))
    }

    /// Goes back to the checkpoint before and returns its number. What was written since stays where it is: writes
    /// from here on are the older checkpoint's.
    ///
    /// # Errors
    /// `Checkpoint` before number 0; `Retired` if it is no longer kept: then the handle stays where it is.
    pub fn rollback(&self) -> Result<u32, Error> {
        let oldest = self.store().checkpoints()?.1;
        if let Some(before) = self.at().checked_sub(1)
            && before < oldest
        {
            let kept = self.store().options().working_set;
            return Err(Error::Retired { checkpoint: before, oldest, kept });
        }
        self.step("before", |now| now.checked_sub(1))
    }

    /// Goes to the newest checkpoint that anybody wrote to, and returns its number.
    ///
    /// # Errors
    /// `Gone`.
    pub fn sync_to_newest(&self) -> Result<u32, Error> {
        let newest = self.store().checkpoints()?.0;
        self.checkpoint.store(newest, Ordering::Relaxed);
        Ok(newest)
    }

    fn step(&self, side: &'static str, step: impl Fn(u32) -> Option<u32>) -> Result<u32, Error> {
        // No other memory depends on the number: it is the handle's own.
        match self.checkpoint.fetch_update(Ordering::Relaxed, Ordering::Relaxed, &step) {
            Ok(before) => Ok(step(before).expect("the step was just taken")),
            Err(checkpoint) => Err(Error::Checkpoint { checkpoint, side }),
        }
    }
}
