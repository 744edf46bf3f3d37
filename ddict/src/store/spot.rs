//! Where a value lies, told to processes of other nodes, which read it there one-sidedly.

use super::entry::{Ctl, INLINE_MAX};
use super::key::Key;
use super::value::Pinned;
use super::{Store, lookup::Seen};
use crate::error::Error;
use serde::{Deserialize, Serialize};

/// Where a key's value lies: its entry's control word, as it was when it showed the value. While the word is that one
/// (but for the lock) the key has this value in its checkpoint: any publication makes its version another one, and the
/// page of an entry stays a page as long as the segment is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Spot {
    /// Offset of the control word.
    pub(crate) cell: u64,
    word: u64,
    /// Offset of the value's block; 0: it lies in the entry.
    pub(crate) block: u64,
}

impl Spot {
    /// Whether a control word still shows the same value.
    pub(crate) fn is_shown_by(&self, word: u64) -> bool {
        Ctl(word).same(Ctl(self.word))
    }
}

impl Store {
    /// As `Store::pin`, and where the value lies, if it is one of that checkpoint itself: one that was carried there
    /// can get a newer one beside it, of which its entry shows nothing.
    pub(crate) fn pin_spot(
        &self,
        key: &[u8],
        checkpoint: u32,
    ) -> Result<Option<(Pinned<'_>, Option<Spot>)>, Error> {
        let key = Key::new(key, self.seed)?;
        let Some((pinned, seen)) = self.pin_with(&key, checkpoint)? else { return Ok(None) };
        self.count_hit(key.hash);
        // The entry is the key's own as long as it shows what it showed.
        let is_own = seen.entry.meta().checkpoint() == checkpoint && seen.entry.is_still(seen.ctl);
        Ok(Some((pinned, is_own.then(|| self.spot_of(&seen)))))
    }

    fn spot_of(&self, seen: &Seen<'_>) -> Spot {
        let is_short = seen.ctl.form() <= INLINE_MAX as u64;
        let block = if is_short { 0 } else { seen.slot.offset() };
        Spot { cell: self.offset_of(seen.entry), word: seen.ctl.unlocked().0, block }
    }
}
