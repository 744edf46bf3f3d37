//! Templates of tasks tied to a batch: a call submits, and dictionaries are arguments.

use super::BatchDict;
use crate::Batch;
use std::path::Path;
use std::sync::Arc;
use tarragon_ddict::{DDict, Key, Place};
use tarragon_ptd::{Callable, Dictionary, Import, ImportError, Mismatch, Template, Value};

/// What a [`Batch`] makes of YAML templates of tasks; the format is in `docs/ptd.md`, and [`ptd`](crate::ptd) says what
/// can be bound to a template's names.
///
/// ```
/// use tarragon::prelude::*;
/// use tarragon::ptd::{Template, function, selector};
///
/// fn double(dict: DictDescriptor, i: u64) -> Result<(), DictError> {
///     let dict = dict.attach::<u64, u64>()?;
///     let value = dict.get(&i)?.expect("the task before wrote it");
///     dict.put(&(i + 1), 2 * value)
/// }
///
/// let template = Template::of_text("next.yml", "
///     import_args: [next, successor]
///     args: [dict, i]
///     type: function
///     executables:
///       - target: next
///         args: [dict, i]
///     reads:
///       - {ddict: dict, keys: [i]}
///     writes:
///       - {ddict: dict, keys: [{successor: [i]}]}
/// ")?;
/// let batch = Batch::new()?;
/// let dict = batch.ddict::<u64, u64>()?;
/// dict.put(&0, 1)?;
/// // A template in a file: `batch.import("next.yml")`.
/// let next = batch.import_template(&template);
/// let next = next.function(function(double)).selector(selector(|i: u64| i + 1)).load::<()>()?;
/// for i in 0..10 {
///     next.call((&dict, i))?;
/// }
/// // Reading the key runs what was submitted.
/// assert_eq!(dict.get(&10)?, Some(1024));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Templates {
    /// Begins to import a template from a file. What is wrong with it is told by [`load`](BatchImport::load).
    fn import(&self, path: impl AsRef<Path>) -> BatchImport<'_>;

    /// Begins to import a template that was read before.
    fn import_template(&self, template: &Template) -> BatchImport<'_>;
}

impl Templates for Batch {
    fn import(&self, path: impl AsRef<Path>) -> BatchImport<'_> {
        BatchImport { import: Import::of_file(path), batch: self }
    }

    fn import_template(&self, template: &Template) -> BatchImport<'_> {
        BatchImport { import: template.import(), batch: self }
    }
}

/// An import under way; see [`Import`].
#[must_use = "an import does nothing until it is loaded"]
pub struct BatchImport<'b> {
    import: Import,
    batch: &'b Batch,
}

impl std::fmt::Debug for BatchImport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BatchImport").field(&self.import).finish()
    }
}

impl<'b> BatchImport<'b> {
    /// Binds the next of `import_args`; see [`Import::arg`].
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.import = self.import.arg(value);
        self
    }

    /// Binds one of `import_kwargs`, by its keyword.
    pub fn kwarg(mut self, keyword: impl Into<String>, value: impl Into<Value>) -> Self {
        self.import = self.import.kwarg(keyword, value);
        self
    }

    /// Binds the next of `import_args` to a function that tasks call.
    pub fn function(self, function: tarragon_ptd::TaskFunction) -> Self {
        self.arg(function)
    }

    /// Binds the next of `import_args` to a function that the template calls.
    pub fn selector(self, selector: tarragon_ptd::Selector) -> Self {
        self.arg(selector)
    }

    /// Binds everything; what comes back makes and submits a task for each call. Tasks have results of type `R`, which
    /// is [`Exit`](crate::Exit) for processes and jobs.
    ///
    /// # Errors
    /// As [`Import::load`]: every mistake in the template; if there is none, everything that does not fit it.
    pub fn load<R: 'static>(self) -> Result<Callable<'b, R>, ImportError> {
        Ok(Callable::new(self.import.load()?, self.batch))
    }
}

/// A dictionary as templates know it.
struct Keyed<K, V>(DDict<K, V>);

impl<K: Key + Send + Sync, V: Send + Sync + 'static> Dictionary for Keyed<K, V> {
    fn name(&self) -> String {
        self.0.name().to_string()
    }

    fn place(&self, key: &Value) -> Result<Place, Mismatch> {
        let key: K = key.to()?;
        self.0.key(&key).map_err(|error| Mismatch::new(error.to_string()))
    }

    fn descriptor(&self) -> Value {
        Value::shared(self.0.descriptor())
    }

    fn descriptor_text(&self) -> String {
        self.0.descriptor().to_string()
    }
}

/// A template reads and writes its keys, and functions that get it as an argument get its descriptor.
impl<K: Key + Send + Sync, V: Send + Sync + 'static> From<&BatchDict<K, V>> for Value {
    fn from(dict: &BatchDict<K, V>) -> Self {
        Value::dictionary(Arc::new(Keyed((**dict).clone())))
    }
}
