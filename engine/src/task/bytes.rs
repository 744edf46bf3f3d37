//! Values and arguments of records as bytes, for a journal and for other ranks.
#![expect(unsafe_code, reason = "calls what `Code` knows of a record's types")]

use super::record::Ref;
use crate::function::wire::{Encoder, WireError};

impl Ref {
    /// The value in place as bytes; `None` if it has no serde form. The caller executes the task, or keeps its value
    /// from going.
    pub(crate) fn write_value(self) -> Option<Vec<u8>> {
        let keep = self.head().code.keep.as_ref()?;
        // SAFETY: the code is the record's own, and its body has put the value in place.
        unsafe { (keep.write)(self) }
    }

    /// Puts a value in place that `write_value` wrote; false if it has no serde form, or the bytes are none. The caller
    /// executes the task, or is the one to say how it ended elsewhere.
    pub(crate) fn read_value(self, bytes: &[u8]) -> bool {
        // SAFETY: the code is the record's own, and an earlier value was dropped when the task began.
        self.head().code.keep.as_ref().is_some_and(|keep| unsafe { (keep.read)(self, bytes) })
    }

    /// Writes the arguments for another rank. Nobody executes the task now.
    pub(crate) fn pack(self, out: &mut Encoder) -> Result<(), WireError> {
        let travel = self.head().code.travel.as_ref().ok_or_else(|| WireError::Closure(self.name()))?;
        // SAFETY: the code is the record's own, and nobody executes the task now.
        unsafe { (travel.pack)(self, out) }
    }

    /// The arguments as bytes, as far as they are known before any task has run. The caller keeps the plan from
    /// running.
    pub(crate) fn describe(self) -> Option<Vec<u8>> {
        let describe = self.head().code.describe?;
        // SAFETY: the code is the record's own, and nobody executes the task now.
        unsafe { describe(self) }.ok()
    }
}
