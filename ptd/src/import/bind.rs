//! Which of a template's names is bound to what?

use super::callable::Imported;
use super::error::ImportError;
use super::resolve::{Wanted, bound, resolve};
use super::term::Unmade;
use crate::mistake::{Findings, Mistake, Mistakes};
use crate::nearest::did_you_mean;
use crate::template::{Keyword, Model, NameId, Template, When};
use crate::value::{Selector, TaskFunction, Value, short_name};
use std::any::TypeId;
use std::path::Path;

/// An import under way: what is bound to the names of a template.
#[must_use = "an import does nothing until it is loaded"]
#[derive(Debug)]
pub struct Import {
    template: Result<Template, Mistakes>,
    args: Vec<Value>,
    kwargs: Vec<(String, Value)>,
}

impl Import {
    /// Of a file. What is wrong with it is told by [`load`](Self::load).
    pub fn of_file(path: impl AsRef<Path>) -> Self {
        Self { template: Template::load(path), args: Vec::new(), kwargs: Vec::new() }
    }

    pub(crate) fn of_template(template: Template) -> Self {
        Self { template: Ok(template), args: Vec::new(), kwargs: Vec::new() }
    }

    /// Binds the next of `import_args`: to plain data, an `Arc` or [`Value::shared`] of the program's own type, a
    /// [`function`](crate::function()), a [`selector`](crate::selector()), a dictionary.
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Binds one of `import_kwargs`, by its keyword.
    pub fn kwarg(mut self, keyword: impl Into<String>, value: impl Into<Value>) -> Self {
        self.kwargs.push((keyword.into(), value.into()));
        self
    }

    /// Binds the next of `import_args` to a function that tasks call. As `arg`, and says what it is.
    pub fn function(self, function: TaskFunction) -> Self {
        self.arg(function)
    }

    /// Binds the next of `import_args` to a function that the template calls. As `arg`, and says what it is.
    pub fn selector(self, selector: Selector) -> Self {
        self.arg(selector)
    }

    /// Binds everything; tasks of the template have results of type `R`, which is `Exit` for processes and jobs.
    ///
    /// Calls the selectors in defaults of `import_kwargs`, on this thread.
    ///
    /// # Errors
    /// Every mistake in the template; if there is none, everything that does not fit it.
    pub fn load<R: 'static>(self) -> Result<Imported<R>, ImportError> {
        let template = self.template.map_err(ImportError::Template)?;
        let model = &template.model;
        let mut findings = Findings::new(&model.source);
        let names = bind(model, self.args, self.kwargs, &mut findings);
        let names = match names {
            Some(names) if findings.mistakes.is_empty() => names,
            _ => return Err(ImportError::Arguments(findings.end(()).err().unwrap_or_default())),
        };
        let wanted = Wanted { id: TypeId::of::<R>(), name: short_name(std::any::type_name::<R>()) };
        let plan = resolve(model, bound(model, names), Some(wanted), &mut findings);
        let (plan, _) = findings.end(plan).map_err(ImportError::Arguments)?;
        Ok(Imported::new(plan, template))
    }
}

/// The value of each name that an import binds; nothing at the others.
fn bind(
    model: &Model,
    args: Vec<Value>,
    kwargs: Vec<(String, Value)>,
    findings: &mut Findings,
) -> Option<Vec<Option<Value>>> {
    let mut values: Vec<Option<Value>> = vec![None; model.names.len()];
    let wanted = &model.import_args;
    for value in args.iter().skip(wanted.len()) {
        let what = format!("the template has {} import_args, and this is one more", wanted.len());
        findings.mistakes.push(Mistake::outside(format!("{value:?}"), what).mend("leave it out"));
    }
    for id in wanted.iter().skip(args.len()) {
        findings.mend(model.names[*id].span, "nothing is given for this name", "give it by position");
    }
    for (id, value) in wanted.iter().zip(args) {
        values[*id] = Some(value);
    }
    for (keyword, value) in kwargs {
        match model.import_kwargs.iter().find(|known| *known.text == *keyword) {
            Some(known) if values[known.name].is_some() => {
                findings.mistakes.push(Mistake::outside(keyword, "this keyword is given twice"));
            }
            Some(known) => values[known.name] = Some(value),
            None => findings.mistakes.push(unknown_keyword(&keyword, &model.import_kwargs)),
        }
    }
    for keyword in &model.import_kwargs {
        if values[keyword.name].is_some() {
            continue;
        }
        match &keyword.default {
            None => {
                let span = model.names[keyword.name].span;
                findings.mend(
                    span,
                    "nothing is given for this name",
                    format!("give `{}` by keyword", keyword.text),
                );
            }
            Some(default) if findings.mistakes.is_empty() => {
                let made = super::resolve::of_import(default, model, &values);
                match made {
                    Ok(value) => values[keyword.name] = Some(value),
                    Err(Unmade { span, what, source }) => {
                        let said = source.map_or_else(String::new, |source| format!(": {source}"));
                        findings.wrong(span, format!("{what}{said}"));
                    }
                }
            }
            Some(_) => {}
        }
    }
    let is_bound = |id: NameId| model.names[id].when == When::Call || values[id].is_some();
    (0..values.len()).all(is_bound).then_some(values)
}

/// About a keyword that the template does not have.
pub(super) fn unknown_keyword(keyword: &str, known: &[Keyword]) -> Mistake {
    let names = known.iter().map(|keyword| &*keyword.text);
    let mistake = Mistake::outside(keyword, "the template has no such keyword");
    match did_you_mean(keyword, names) {
        Some(mend) => mistake.mend(mend),
        None if known.is_empty() => mistake,
        None => {
            let all: Vec<&str> = known.iter().map(|keyword| &*keyword.text).collect();
            mistake.mend(format!("it has {}", all.join(", ")))
        }
    }
}
