//! Values and arguments of records as bytes, for a journal.
#![expect(unsafe_code, reason = "calls what `Code` knows of a record's types")]

use super::record::Ref;

impl Ref {
    /// The value in place as bytes; `None` if it has no serde form. The caller executes the task.
    pub(crate) fn write_value(self) -> Option<Vec<u8>> {
        let keep = self.head().code.keep.as_ref()?;
        // SAFETY: the code is the record's own, and its body has just put the value in place.
        unsafe { (keep.write)(self) }
    }

    /// Puts a value in place that `write_value` wrote; false if it has no serde form, or the bytes are none. The caller
    /// executes the task.
    pub(crate) fn read_value(self, bytes: &[u8]) -> bool {
        // SAFETY: the code is the record's own, and an earlier value was dropped when the task began.
        self.head().code.keep.as_ref().is_some_and(|keep| unsafe { (keep.read)(self, bytes) })
    }

    /// The arguments as bytes, as far as they are known before any task has run. The caller keeps the plan from
    /// running.
    pub(crate) fn describe(self) -> Option<Vec<u8>> {
        let describe = self.head().code.describe?;
        // SAFETY: the code is the record's own, and nobody executes the task now.
        unsafe { describe(self) }.ok()
    }
}
