//! A document → a template: declared names, and what a task is made of in terms of them.
//!
//! `keys` is the table of all keys, `grammar` reads a tree by it, `names` knows what is declared, `expr` what a value
//! is made from, and `model` is what comes out. A template is never changed: importing and calling it only read it.

mod expr;
mod grammar;
mod keys;
mod model;
mod names;

pub(crate) use expr::literal;
pub(crate) use grammar::{Entries, StepNames, entries, names_in, read};
pub(crate) use keys::{Shape, Table};
pub use model::TaskKind;
pub(crate) use model::{Access, Callee, Executable, Expr, ExprKind, Keyword, Model, NameId, When};

use crate::import::Import;
use crate::mistake::{Findings, Mistake, Mistakes};
use crate::parse;
use crate::source::Source;
use std::path::Path;
use std::sync::Arc;

pub(crate) mod tables {
    pub(crate) use super::keys::{ACCESS, EXECUTABLE, MAPREDUCE, STEP, TEMPLATE, TIMEOUT, WORKFLOW};
}

/// A template that was found right. Cheap to clone, shared by threads, never changed.
#[derive(Clone, Debug)]
pub struct Template {
    pub(crate) model: Arc<Model>,
    warnings: Arc<Mistakes>,
}

impl Template {
    /// Reads a file.
    ///
    /// # Errors
    /// Every mistake in it; that it cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Mistakes> {
        Self::of_source(&parse::read(path.as_ref())?)
    }

    /// Reads a text, under a name for messages.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn of_text(name: &str, text: &str) -> Result<Self, Mistakes> {
        Self::of_source(&Arc::new(Source::of_text(name, text)))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn of_source(source: &Arc<Source>) -> Result<Self, Mistakes> {
        let mut findings = Findings::new(source);
        let root = parse::parse(source, &mut findings);
        let model = root.as_ref().map(|root| read(root, &mut findings));
        let (model, warnings) = findings.end(model)?;
        let no_tree = || Mistake::of(source, "the document is no template");
        Ok(Self { model: Arc::new(model.ok_or_else(no_tree)?), warnings: Arc::new(warnings) })
    }

    pub(crate) fn of_model(model: Model) -> Self {
        Self { model: Arc::new(model), warnings: Arc::default() }
    }

    /// What is likely to be wrong in it: names that are declared and never used.
    pub fn warnings(&self) -> &Mistakes {
        &self.warnings
    }

    /// The document it is from.
    pub fn source(&self) -> &Arc<Source> {
        &self.model.source
    }

    /// Begins to bind the names that are bound by an import.
    pub fn import(&self) -> Import {
        Import::of_template(self.clone())
    }
}
