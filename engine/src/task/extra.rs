//! What few tasks have: a name, a priority, a cost, many accesses, mistakes found while it was built.

use crate::data::Access;
use crate::error::Mistake;

/// Declarations that do not fit in a record's head.
pub(crate) struct Extra {
    pub(crate) accesses: Vec<Access>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) priority: i32,
    /// Estimated cost of the body in any one unit; 1 when not given.
    pub(crate) cost: f32,
    /// Reported by the next compile, with all others.
    pub(crate) mistakes: Vec<Mistake>,
}

impl Extra {
    pub(crate) fn with(accesses: Vec<Access>) -> Self {
        Self { accesses, name: None, priority: 0, cost: 1.0, mistakes: Vec::new() }
    }
}
