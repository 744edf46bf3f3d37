//! A record that is kept, but not its value: what the frontier and gates hold of earlier tasks.

use super::chunk;
use super::record::Ref;

/// Keeps a record while it lives.
#[derive(Debug)]
pub(crate) struct Kept(pub(crate) Ref);

impl Kept {
    /// The caller keeps the record meanwhile.
    pub(crate) fn new(task: Ref) -> Self {
        if task.is_plain() {
            chunk::retain(task.0)
        } else {
            task.add_hold()
        }
        Self(task)
    }
}

impl Clone for Kept {
    fn clone(&self) -> Self {
        Self::new(self.0)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A plain record's handles and holds are counted alike.
        if self.0.is_plain() { self.0.drop_handle() } else { self.0.drop_hold() }
    }
}
