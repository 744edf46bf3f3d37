//! A task as plain data → a task of a batch.

use super::error::CallError;
use super::spec::{Datum, FunctionCall, Spec};
use crate::mistake::Mistake;
use crate::source::Span;
use crate::template::TaskKind;
use crate::value::{Mismatch, short_name};
use crate::workflow::ErasedTask;
use std::any::Any;
use tarragon_engine::{Batch, Exit, Task};

/// How much of a label's resource a task holds: so little that the label limits nobody.
const LABEL_SHARE: f64 = 0.0001;

/// The task that a spec describes.
pub(super) fn make<R: 'static>(spec: &Spec, batch: &Batch) -> Result<Task<R>, CallError> {
    let task = match &spec.function {
        Some(FunctionCall { function, values, spans }) => {
            if !function.returns::<R>() {
                let (returns, wanted) = (function.result_name(), short_name(std::any::type_name::<R>()));
                let what = format!("the function returns {returns}, and {wanted} is asked for");
                return Err(wrong(spec, Mismatch(what)));
            }
            let task = function.task::<R>(batch, values);
            task.map_err(|(index, why)| wrong_argument(spec, spans[index], index, &why))?
        }
        None => {
            let task = programs(spec, batch).map_err(|why| wrong(spec, why))?;
            let mut slot = Some(task);
            let any: &mut dyn Any = &mut slot;
            let task = any.downcast_mut::<Option<Task<R>>>().and_then(Option::take);
            task.ok_or_else(|| {
                let what = format!(
                    "the result of a {} is an `Exit`, and another type is asked for",
                    spec.kind.word()
                );
                wrong(spec, Mismatch(what))
            })?
        }
    };
    Ok(finish(spec, task))
}

/// A task with all that a spec says of it beside what it runs.
pub(crate) fn finish<R>(spec: &Spec, mut task: Task<R>) -> Task<R> {
    for datum in &spec.reads {
        task = match datum {
            Datum::File(path) => task.reads(&**path),
            Datum::Key { place, .. } => task.reads(place),
        };
    }
    for datum in &spec.writes {
        task = match datum {
            Datum::File(path) => task.writes(&**path),
            Datum::Key { place, .. } => task.writes(place),
        };
    }
    options(spec, task)
}

/// About an argument that does not fit its parameter.
fn wrong_argument(spec: &Spec, span: Span, index: usize, why: &Mismatch) -> CallError {
    let what = format!("argument {} of the function: {why}", index + 1);
    CallError::Value(Box::new(Mistake::at(&spec.source, span, what)))
}

fn wrong(spec: &Spec, why: Mismatch) -> CallError {
    CallError::Value(Box::new(Mistake::of(&spec.source, why.0)))
}

fn options<R>(spec: &Spec, mut task: Task<R>) -> Task<R> {
    if let Some(name) = &spec.name {
        task = task.name(&**name);
    }
    if let Some(timeout) = spec.timeout {
        task = task.timeout(timeout);
    }
    if let Some(cpus) = spec.cpus {
        task = task.cpus(cpus);
    }
    if let Some(gpus) = spec.gpus {
        task = task.gpus(gpus);
    }
    if let Some(memory) = spec.memory {
        task = task.memory(memory);
    }
    if let Some(label) = &spec.label {
        task = task.resource(label, LABEL_SHARE);
    }
    if let Some(retries) = spec.retries {
        task = task.retries(retries);
    }
    task
}

/// A process or job.
fn programs(spec: &Spec, batch: &Batch) -> Result<Task<Exit>, Mismatch> {
    let first = &spec.programs[0];
    let mut task = match spec.kind {
        TaskKind::Job => batch.job(&*first.path, first.ranks),
        _ => batch.process(&*first.path),
    };
    for (index, program) in spec.programs.iter().enumerate() {
        if index > 0 {
            task = task.and(&*program.path, program.ranks);
        }
        for word in &program.args {
            task = word.give(task, None)?;
        }
        for (name, word) in &program.env {
            task = word.give(task, Some(name))?;
        }
        if let Some(cwd) = &program.cwd {
            task = task.cwd(&**cwd);
        }
    }
    if let Some(ranks) = spec.ranks_per_node
        && spec.kind == TaskKind::Job
    {
        task = task.ranks_per_node(ranks);
    }
    for code in &spec.accept_exit {
        task = task.accept_exit(*code);
    }
    if let Some(path) = &spec.stdout {
        task = task.stdout_to(&**path);
    }
    if let Some(path) = &spec.stderr {
        task = task.stderr_to(&**path);
    }
    Ok(task)
}

impl Spec {
    /// The task of a batch that it describes, not submitted.
    ///
    /// # Errors
    /// [`CallError::Value`] if its result is not of type `R`, or a value does not fit a parameter.
    pub fn task<R: 'static>(&self, batch: &Batch) -> Result<Task<R>, CallError> {
        make(self, batch)
    }

    /// As [`task`](Self::task), with a result of whichever type it has.
    ///
    /// # Errors
    /// [`CallError::Value`] if a value does not fit a parameter.
    pub fn any_task(&self, batch: &Batch) -> Result<Box<dyn ErasedTask>, CallError> {
        match &self.function {
            None => Ok(Box::new(self.task::<Exit>(batch)?)),
            Some(FunctionCall { function, values, spans }) => {
                let task = function.erased(batch, self, values);
                task.map_err(|(index, why)| wrong_argument(self, spans[index], index, &why))
            }
        }
    }

    /// The function that it calls, by name.
    pub fn function(&self) -> Option<&'static str> {
        self.function.as_ref().map(|call| call.function.name())
    }
}
