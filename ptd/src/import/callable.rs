//! A template whose names are bound as far as an import binds them: each call makes a task.

use super::args::Args;
use super::bind::unknown_keyword;
use super::error::CallError;
use super::plan::Plan;
use super::spec::Spec;
use super::task;
use crate::mistake::{Mistake, Mistakes};
use crate::template::Template;
use crate::value::Value;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use tarragon_engine::{Batch, Task};

/// An imported template: makes tasks with results of type `R`, for any batch. Cheap to clone; threads share it.
pub struct Imported<R> {
    plan: Arc<Plan>,
    template: Template,
    result: PhantomData<fn() -> R>,
}

impl<R> Clone for Imported<R> {
    fn clone(&self) -> Self {
        Self { plan: Arc::clone(&self.plan), template: self.template.clone(), result: PhantomData }
    }
}

impl<R> fmt::Debug for Imported<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Imported").field(&self.template.source().name()).finish()
    }
}

impl<R: 'static> Imported<R> {
    pub(super) fn new(plan: Plan, template: Template) -> Self {
        Self { plan: Arc::new(plan), template, result: PhantomData }
    }

    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What the task of a call is, as plain data: nothing is made or run. Calls the template's selectors.
    ///
    /// # Errors
    /// As [`call`](Self::call), but for the batch's.
    pub fn spec(&self, args: impl Into<Args>) -> Result<Spec, CallError> {
        let args = bind(&self.plan, args.into())?;
        Spec::make(&self.plan, &args)
    }

    /// The task of a call, not submitted: for a list, or with further declarations.
    ///
    /// # Errors
    /// As [`call`](Self::call), but for those of submitting.
    pub fn task(&self, batch: &Batch, args: impl Into<Args>) -> Result<Task<R>, CallError> {
        let args = bind(&self.plan, args.into())?;
        task::direct(&self.plan, &args, batch)
    }

    /// Makes the task of a call and submits it: it runs in the background, after the tasks submitted before through
    /// this batch whose data it needs. Blocks as [`Batch::submit`] does.
    ///
    /// # Errors
    /// [`CallError`]: the arguments do not fit, a value is not what its place needs, a selector failed, the batch does
    /// not take the task.
    pub fn call(&self, batch: &Batch, args: impl Into<Args>) -> Result<Task<R>, CallError> {
        let task = self.task(batch, args)?;
        batch.submit(&task)?;
        Ok(task)
    }
}

/// The values of a call, in the order in which the template declares their names.
fn bind(plan: &Plan, args: Args) -> Result<Vec<Value>, CallError> {
    let Args { positional: mut values, keywords } = args;
    let model = &plan.model;
    if keywords.is_empty() && model.kwargs.is_empty() && values.len() == model.args.len() {
        return Ok(values);
    }
    let mut mistakes = Mistakes::default();
    for value in values.iter().skip(model.args.len()) {
        let what = format!("a call has {} args, and this is one more", model.args.len());
        mistakes.push(Mistake::outside(format!("{value:?}"), what).mend("leave it out"));
    }
    for id in model.args.iter().skip(values.len()) {
        let mistake =
            Mistake::at(&model.source, model.names[*id].span, "the call gives nothing for this name");
        mistakes.push(mistake.mend("give it by position"));
    }
    let mut named: Vec<Option<Value>> = vec![None; model.kwargs.len()];
    for (keyword, value) in keywords {
        match model.kwargs.iter().position(|known| *known.text == *keyword) {
            None => mistakes.push(unknown_keyword(&keyword, &model.kwargs)),
            Some(index) if named[index].is_some() => {
                mistakes.push(Mistake::outside(keyword, "this keyword is given twice"));
            }
            Some(index) => named[index] = Some(value),
        }
    }
    for (keyword, value) in model.kwargs.iter().zip(&named) {
        if value.is_none() {
            let span = model.names[keyword.name].span;
            let mistake = Mistake::at(&model.source, span, "the call gives nothing for this name");
            mistakes.push(mistake.mend(format!("give `{}` by keyword", keyword.text)));
        }
    }
    if !mistakes.is_empty() {
        return Err(CallError::Arguments(mistakes));
    }
    values.extend(named.into_iter().flatten());
    Ok(values)
}

/// An imported template and the batch that its calls submit to.
///
/// Calls from several threads are submitted in some order; those of one thread in theirs.
pub struct Callable<'b, R> {
    imported: Imported<R>,
    batch: &'b Batch,
}

impl<R> Clone for Callable<'_, R> {
    fn clone(&self) -> Self {
        Self { imported: self.imported.clone(), batch: self.batch }
    }
}

impl<R> fmt::Debug for Callable<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Callable").field(&self.imported).finish()
    }
}

impl<'b, R: 'static> Callable<'b, R> {
    /// Ties an imported template to a batch.
    pub fn new(imported: Imported<R>, batch: &'b Batch) -> Self {
        Self { imported, batch }
    }

    /// Makes the task of a call and submits it; see [`Imported::call`].
    ///
    /// # Errors
    /// As that.
    pub fn call(&self, args: impl Into<Args>) -> Result<Task<R>, CallError> {
        self.imported.call(self.batch, args)
    }

    /// The task of a call, not submitted.
    ///
    /// # Errors
    /// As [`Imported::task`].
    pub fn task(&self, args: impl Into<Args>) -> Result<Task<R>, CallError> {
        self.imported.task(self.batch, args)
    }

    /// The imported template.
    pub fn imported(&self) -> &Imported<R> {
        &self.imported
    }
}
