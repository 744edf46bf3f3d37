//! Values and arguments of records as bytes, for a journal and for other ranks.
#![expect(unsafe_code, reason = "calls what `Code` knows of a record's types")]

use super::record::Ref;
use crate::function::Keep;
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

    /// As [`write_value`](Self::write_value), for another rank.
    pub(crate) fn pack_value(self) -> Option<Vec<u8>> {
        let keep = self.value_by()?;
        // SAFETY: the code is the record's own; the caller keeps the value in place.
        unsafe { (keep.write)(self) }
    }

    /// Puts a value of another rank in place; false if the bytes are none. The caller is the one to say how the task
    /// ended, and has dropped an earlier value.
    pub(crate) fn unpack_value(self, bytes: &[u8]) -> bool {
        // SAFETY: the code is the record's own, and no value is in place.
        self.value_by().is_some_and(|keep| unsafe { (keep.read)(self, bytes) })
    }

    /// Whether a rank with nothing to do may run it: it can travel, and nobody has chosen its place.
    pub(crate) fn may_leave(self) -> bool {
        self.head().code.travel.is_some()
            && self.extra().is_none_or(|extra| extra.rank.or(extra.near).is_none() && extra.gang == 1)
    }

    /// It is an MPI job.
    pub(crate) fn is_mpi(self) -> bool {
        self.head().code.command.is_some() && self.command_of().job.is_some()
    }

    /// How many ranks run it at once.
    pub(crate) fn gang(self) -> u32 {
        self.extra().map_or(1, |extra| extra.gang)
    }

    /// Whether its value can go to another rank.
    pub(crate) fn value_travels(self) -> bool {
        self.value_by().is_some()
    }

    fn value_by(self) -> Option<&'static Keep> {
        let code = self.head().code;
        code.travel.as_ref().map(|travel| &travel.value).or(code.keep.as_ref())
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
