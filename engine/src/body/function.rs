//! Calls a Rust function or closure inside its record: lends the arguments, catches a panic, keeps the value.
#![expect(unsafe_code, reason = "recovers the types of a record that `Code` has forgotten")]

use super::{Call, Context, Verdict, inside, panics};
use crate::error::Cause;
use crate::function::arg::Moves;
use crate::function::args::Args;
use crate::function::outcome::{ClosureOutcome, Failure, Outcome};
use crate::function::{Data, Function};
use crate::task::input::Input;
use crate::task::record::Ref;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// # Safety
/// The record was created with these types, and this thread executes it.
pub(crate) unsafe fn call_function<F, P, A, How, R, Kind>(task: Ref, call: &Call<'_>) -> Verdict
where
    F: Function<P, Return = R>,
    A: Args<P, How, F, R>,
    R: Outcome<Kind>,
    R::Value: Data,
    R::Failure: Failure,
{
    // SAFETY: the caller vouches for the types.
    let full = unsafe { task.full::<R::Value, F, A::Slots>() };
    // SAFETY: the executing worker alone touches the function and the slots.
    let (function, slots) = unsafe { (&*full.function.get(), &mut *full.slots.get()) };
    if call.moves == Moves::All {
        task.arguments_given();
    }
    let context = || Context::new(task, call);
    inside::now(Some(task));
    let returned = catch_unwind(AssertUnwindSafe(|| {
        let returned = A::call(slots, function, &context, call.moves);
        returned.map(Outcome::split)
    }));
    inside::now(None);
    if call.moves != Moves::Nothing {
        A::done(slots);
    }
    match returned {
        Ok(Ok(Ok(value))) => {
            // SAFETY: the type is the record's, and this worker executes it.
            unsafe { keep_value(task, value) };
            Verdict::Done
        }
        other => failed(other),
    }
}

/// # Safety
/// As [`call_function`].
pub(crate) unsafe fn call_closure<F, R, Kind>(task: Ref, _: &Call<'_>) -> Verdict
where
    F: FnMut() -> R + Send + Sync + 'static,
    R: ClosureOutcome<Kind>,
    R::Value: Send + Sync + 'static,
    R::Failure: Failure,
{
    // SAFETY: the caller vouches for the types.
    let full = unsafe { task.full::<R::Value, F, ()>() };
    // SAFETY: the executing worker alone touches the function.
    let function = unsafe { &mut *full.function.get() };
    inside::now(Some(task));
    let returned = catch_unwind(AssertUnwindSafe(|| Ok(function().split())));
    inside::now(None);
    match returned {
        Ok(Ok(Ok(value))) => {
            // SAFETY: the type is the record's, and this worker executes it.
            unsafe { keep_value(task, value) };
            Verdict::Done
        }
        other => failed(other),
    }
}

/// Puts a new value in place.
///
/// # Safety
/// `V` is the type of the record's value and the caller executes the task.
#[inline(always)]
unsafe fn keep_value<V>(task: Ref, value: V) {
    // SAFETY: the run dropped what an earlier one left before it called the body, and nobody reads it before the
    // worker publishes the status.
    unsafe { task.value::<V>().write(value) };
}

type Returned<V, E> = std::thread::Result<Result<Result<V, E>, Cause>>;

#[cold]
#[inline(never)]
fn failed<V, E: Failure>(returned: Returned<V, E>) -> Verdict {
    let cause = match returned {
        Ok(Ok(Err(error))) => Cause::Error(error.boxed()),
        Ok(Err(cause)) => cause,
        Err(payload) => panics::cause(payload),
        Ok(Ok(Ok(_))) => unreachable!("a value is not a failure"),
    };
    Verdict::Failed(Box::new(cause))
}

/// # Safety
/// The record was created with these types; nobody uses it any more.
pub(crate) unsafe fn drop_args<F, P, A: Args<P, How, F, R>, How, R, V>(task: Ref) {
    // SAFETY: as demanded; the slots are read once and then dead.
    let slots = unsafe { task.full::<V, F, A::Slots>().slots.get().read() };
    A::discard(slots, task.were_arguments_given());
}

/// # Safety
/// The record was created with these types; nobody uses it any more.
pub(crate) unsafe fn drop_closure<F, V>(task: Ref) {
    // SAFETY: as demanded.
    unsafe { task.full::<V, F, ()>().function.get().drop_in_place() };
}

/// # Safety
/// `V` is the type of the value; the caller changed the status so that only it may drop the value.
pub(crate) unsafe fn drop_value<V>(task: Ref) {
    // SAFETY: as demanded.
    unsafe { task.value::<V>().drop_in_place() };
}

/// # Safety
/// The record was created with these types, and nobody executes it now.
pub(crate) unsafe fn inputs<F, P, A: Args<P, How, F, R>, How, R, V>(
    task: Ref,
    visit: &mut dyn FnMut(&mut Input),
) {
    // SAFETY: as demanded.
    A::inputs(unsafe { &mut *task.full::<V, F, A::Slots>().slots.get() }, visit);
}

/// # Safety
/// The record was created with these types, and this worker passes over it in its run.
pub(crate) unsafe fn pass<F, P, A: Args<P, How, F, R>, How, R, V>(task: Ref) {
    // SAFETY: as demanded.
    A::done(unsafe { &mut *task.full::<V, F, A::Slots>().slots.get() });
}

/// # Safety
/// None to keep; it has the type that [`Code`](crate::function::Code) asks for.
pub(crate) unsafe fn call_nothing(task: Ref, _: &Call<'_>) -> Verdict {
    let what = "its arguments came as bytes that serde, which wrote them, cannot read";
    debug_assert!(!task.is_attended());
    Verdict::Failed(Box::new(Cause::Error(what.into())))
}

/// # Safety
/// As [`call_nothing`].
pub(crate) unsafe fn drop_nothing(_: Ref) {}

/// # Safety
/// `V` is the type of the value, which is in place, and stays there meanwhile.
pub(crate) unsafe fn write_value<V: Data>(task: Ref) -> Option<Vec<u8>> {
    // SAFETY: as demanded.
    postcard::to_allocvec(unsafe { &*task.value::<V>() }).ok()
}

/// # Safety
/// `V` is the type of the value; none is in place, and the caller executes the task.
pub(crate) unsafe fn read_value<V: Data>(task: Ref, bytes: &[u8]) -> bool {
    let Ok(value) = postcard::from_bytes(bytes) else { return false };
    // SAFETY: as demanded.
    unsafe { keep_value::<V>(task, value) };
    true
}
