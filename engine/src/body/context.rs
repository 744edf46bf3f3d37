//! What a body may ask of the engine while it runs.

use super::Call;
use crate::ranks::Gang;
use crate::run::Wanted;
use crate::shared::Shared;
use crate::task::output::Output;
use crate::task::record::Ref;
use std::cell::{OnceCell, RefCell};
use std::io::{self, Write};
use std::sync::Arc;

/// A running body's view of its task: where to write output, which rank it is on, what it is called.
///
/// A function gets one by taking `&Context` as its first parameter.
///
/// ```
/// use std::io::Write;
/// use tarragon_engine::{Batch, Context, tasks};
///
/// fn greet(ctx: &Context, name: String) {
///     writeln!(ctx.out(), "hello, {name}").expect("a context's output accepts bytes");
/// }
///
/// let batch = Batch::new()?;
/// let a = batch.function(greet, ("world",));
/// batch.compile(tasks![a])?.run()?;
/// assert_eq!(a.stdout().get()?, "hello, world\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Context {
    /// `None` when the call came from another process as bytes.
    task: Option<(Ref, Arc<Shared>)>,
    /// Whether the result is still wanted; `None` when the call came from another process as bytes.
    wanted: Option<Wanted>,
    output: RefCell<Output>,
    gang: OnceCell<Arc<Gang>>,
    gpus: Vec<String>,
}

impl Context {
    pub(crate) fn new(task: Ref, call: &Call<'_>) -> Self {
        let wanted = Wanted::new(call.stop, task, call.attempt);
        let gang = call.gang.map_or_else(OnceCell::new, |gang| OnceCell::from(Arc::clone(gang)));
        let task = Some((task, Arc::clone(call.shared)));
        Self { task, wanted: Some(wanted), output: RefCell::default(), gang, gpus: call.gpus.to_vec() }
    }

    /// For a call that has no task in this process.
    pub(crate) fn detached() -> Self {
        Self { task: None, wanted: None, output: RefCell::default(), gang: OnceCell::new(), gpus: Vec::new() }
    }

    /// The task's standard output: what `stdout().get()` gives. Bytes; never blocks; beyond 1 MiB kept in an unnamed
    /// file under the temporary directory, so memory stays bounded.
    pub fn out(&self) -> impl Write + '_ {
        Stream { context: self, pick: Output::out }
    }

    /// The task's standard error: what `stderr().get()` gives; see [`out`](Self::out).
    pub fn err(&self) -> impl Write + '_ {
        Stream { context: self, pick: Output::err }
    }

    /// Whether nobody wants the result any more: the task was cancelled, or its time is up. A long body asks this now
    /// and then, and returns (what it returns does not matter). Costs a few nanoseconds.
    pub fn cancelled(&self) -> bool {
        self.wanted.as_ref().is_some_and(Wanted::is_over)
    }

    /// The rank that runs this body; 0 in a program of one process.
    pub fn rank(&self) -> u32 {
        self.task.as_ref().map_or(0, |(_, shared)| shared.rank())
    }

    /// Those that run this body at once, each on a rank of its own; see [`Task::ranks`](crate::Task::ranks). Of a task
    /// that does not say so a gang of one.
    pub fn gang(&self) -> &Gang {
        self.gang.get_or_init(|| Arc::new(Gang::alone(self.rank())))
    }

    /// The GPUs that the task holds on this rank, as `CUDA_VISIBLE_DEVICES` would name them: `["2"]`, or UUIDs. Of a
    /// task that asked for a part of one that one; none of a task that did not ask ([`Task::gpus`](crate::Task::gpus)).
    /// The variable itself is this program's, and stays as it is.
    pub fn gpus(&self) -> &[String] {
        &self.gpus
    }

    /// The task's name: what the user gave, or the path of its function; empty for a call that came as bytes.
    pub fn name(&self) -> String {
        self.task.as_ref().map_or_else(String::new, |(task, _)| task.name())
    }

    /// The batch this task belongs to, as another client of it; `None` for a call that came as bytes.
    ///
    /// A body may submit tasks there and wait for them: its worker runs other tasks meanwhile.
    pub fn batch(&self) -> Option<crate::Batch> {
        self.task.as_ref().map(|(_, shared)| crate::Batch::of_body(shared))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.task
            && let Some(cohort) = task.cohort()
        {
            cohort.keep_output(task.index(), self.output.take());
        }
    }
}

struct Stream<'a> {
    context: &'a Context,
    pick: fn(&mut Output) -> &mut dyn Write,
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.pick)(&mut self.context.output.borrow_mut()).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.pick)(&mut self.context.output.borrow_mut()).flush()
    }
}
