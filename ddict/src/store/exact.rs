//! What a store is told that repeats the writes of another one: the state of a key in one checkpoint, as it is.
//!
//! The two have the same settings and are told of the same writes in an order that agrees key by key, so they answer
//! alike. What a write did can be taken back: its checkpoint's entry is put to what it was.

use super::key::Key;
use super::lookup::{Seen, Which};
use super::patience::Patience;
use super::{Keep, REMOVED_FORM, Store, When};
use crate::error::Error;
use std::sync::atomic::Ordering;

/// What one checkpoint's entry of a key says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Exact {
    /// There is none: an older checkpoint's is seen.
    Nothing,
    /// The key was removed in this checkpoint.
    Removed,
    Value(Vec<u8>, Keep),
}

impl Store {
    /// An error if this checkpoint cannot be written to; whether it would become the newest by that.
    pub(crate) fn check_write(&self, checkpoint: u32) -> Result<bool, Error> {
        self.admit_read(checkpoint)?;
        self.admit_locked()?;
        Ok(u64::from(checkpoint) > self.root().newest.load(Ordering::Relaxed))
    }

    /// What the checkpoint's own entry of a key says.
    pub(crate) fn exact(&self, key: &[u8], checkpoint: u32) -> Result<Exact, Error> {
        let key = Key::new(key, self.seed)?;
        loop {
            let Some(seen) = self.find(&key, Which::At(checkpoint))? else { return Ok(Exact::Nothing) };
            if seen.ctl.form() == REMOVED_FORM {
                return Ok(Exact::Removed);
            }
            if let Some(value) = self.pin_seen(&seen)? {
                let keep = if seen.ctl.is_persistent() { Keep::Persistent } else { Keep::Default };
                return Ok(Exact::Value(value.to_vec(), keep));
            }
        }
    }

    /// Puts the checkpoint's own entry of a key to what it was.
    pub(crate) fn put_exact(&self, key: &[u8], checkpoint: u32, exact: &Exact) -> Result<(), Error> {
        match exact {
            Exact::Nothing => self.withdraw(key, checkpoint),
            Exact::Removed => self.remove(key, checkpoint, |_| ()).map(drop),
            Exact::Value(value, keep) => self.put(key, checkpoint, value, When::Always, *keep).map(drop),
        }
    }

    /// Takes the checkpoint's own entry of a key out.
    fn withdraw(&self, key: &[u8], checkpoint: u32) -> Result<(), Error> {
        let (agent, key) = (self.segment.agent()?, Key::new(key, self.seed)?);
        let mut patience = Patience::default();
        loop {
            let locked = self.lock_page(&agent, key.hash)?;
            let found: Option<Seen<'_>> = self.probe(locked.page, &key, Which::At(checkpoint))?;
            let Some(seen) = found else { return Ok(()) };
            if self.take_out(&agent, &locked, &seen, &mut patience)?.is_some() {
                return Ok(());
            }
        }
    }
}
