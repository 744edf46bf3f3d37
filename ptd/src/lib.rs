//! YAML templates of tasks ("parameterized task descriptors", PTD) and workflow files → tasks of an engine.
//!
//! A template describes a family of tasks over names; importing it binds some of the names, and each call binds the
//! others and makes a task:
//!
//! ```
//! use tarragon_engine::Batch;
//! use tarragon_ptd::{Template, function, selector};
//!
//! fn power(base: &f64, exponent: i32) -> f64 {
//!     base.powi(exponent)
//! }
//!
//! let template = Template::of_text("power.yml", "
//!     import_args: [power]
//!     args: [base, exponent]
//!     type: function
//!     executables:
//!       - target: power
//!         args: [base, exponent]
//!     name: {format: ['power_{}', exponent]}
//! ")?;
//! let power = template.import().arg(function(power)).load::<f64>()?;
//!
//! let batch = Batch::new()?;
//! let eight = power.call(&batch, (2.0, 3))?;
//! let sixty_four = power.call(&batch, (eight.result(), 2))?;
//! assert_eq!(sixty_four.result().get()?, 64.0);
//! # let _ = selector(|i: u64| i);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The whole grammar is in `docs/ptd.md`, and as a JSON Schema in `ptd/schema.json` ([`schema`](schema())).

mod mistake;
mod nearest;
mod source;

pub mod parse;

mod value;

#[doc(hidden)]
pub mod typed {
    //! What [`function`](crate::function()) and [`selector`](crate::selector()) demand; programs name none of it.
    pub use crate::value::{Borrowed, Callee, Fits, Kept, Parameter, Parameters, Select, Types};
}

mod template;

mod import;

pub mod workflow;

mod schema;

pub use import::{Args, CallError, Callable, Datum, Import, ImportError, Imported, Program, Spec};
pub use mistake::{Mistake, Mistakes};
pub use schema::schema;
pub use source::{Source, Span};
pub use template::{TaskKind, Template};
pub use value::{
    Dictionary, Mismatch, Selected, Selector, Signature, TaskFunction, Value, function, selector,
    try_function,
};
