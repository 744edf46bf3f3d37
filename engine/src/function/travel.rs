//! A task on its way to another rank: its code by name, its arguments as bytes, results of others among them as links
//! to tasks that are there as well.
#![expect(
    unsafe_code,
    reason = "reaches the argument slots of a record that `Code` has forgotten the types of"
)]

use super::args::Args;
use super::code::{Code, Place, Spec};
use super::identity;
use super::outcome::{Failure, Outcome};
use super::wire::{Decoder, Encoder, WireError};
use super::{Data, Function};
use crate::shared::Shared;
use crate::task::record::Ref;
use std::sync::Arc;

impl<F, P, A, How, R, Kind> Spec<F, P, A, How, R, Kind>
where
    F: Function<P, Return = R>,
    A: Args<P, How, F, R>,
    R: Outcome<Kind>,
    R::Value: Data,
    R::Failure: Failure,
{
    /// The row of these types: what other processes know it by.
    pub(super) fn code() -> &'static Code {
        Self::CODE
    }

    /// # Safety
    /// The record was created with these types, and nobody executes it now.
    pub(super) unsafe fn pack(task: Ref, out: &mut Encoder) -> Result<(), WireError> {
        // SAFETY: as demanded of the caller.
        unsafe { identity::with_slots::<R::Value, F, A::Slots, _>(task, |slots| A::encode(slots, out)) }
    }

    /// The task, as if it had just been made here.
    pub(super) fn unpack(shared: &Arc<Shared>, from: &mut Decoder<'_>) -> Result<Ref, WireError> {
        let slots = A::decode(from)?;
        let function = identity::conjure::<F>();
        Ok(Ref::create::<R::Value, F, A::Slots>(shared, Self::CODE, function, slots))
    }
}

/// A record with room for a value.
pub(crate) fn place<V: Data>(shared: &Arc<Shared>) -> Ref {
    Ref::create::<V, (), ()>(shared, Place::<V>::CODE, (), ())
}
