//! What few tasks have: a name, a priority, a cost, many accesses, resources, limits, mistakes found while it was
//! built.

use crate::data::Access;
use crate::error::{Mistake, TaskError};
use crate::schedule::Need;
use std::time::Duration;

/// Declarations that do not fit in a record's head.
pub(crate) struct Extra {
    pub(crate) accesses: Vec<Access>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) priority: i32,
    /// Estimated cost of the body in any one unit; 1 when not given.
    pub(crate) cost: f32,
    /// The rank it must run on, if the user said so.
    pub(crate) rank: Option<u32>,
    /// A rank on the node that it is to run on if it can, if the user said so.
    pub(crate) near: Option<u32>,
    /// What it holds while it runs, if the user said so.
    pub(crate) need: Option<Need>,
    pub(crate) limits: Limits,
    /// How many ranks run it at once.
    pub(crate) gang: u32,
    /// Reported by the next compile, with all others.
    pub(crate) mistakes: Vec<Mistake>,
}

/// How long a task may run, and how often it is tried.
#[derive(Clone, Default)]
pub(crate) struct Limits {
    pub(crate) timeout: Option<Duration>,
    /// From TERM to KILL.
    pub(crate) grace: Option<Duration>,
    pub(crate) retries: u32,
    /// Before the first further attempt; doubled for each one after it.
    pub(crate) back_off: Duration,
    /// Which failures are worth another attempt; all when not given.
    pub(crate) retry_if: Option<fn(&TaskError) -> bool>,
}

impl Extra {
    pub(crate) fn with(accesses: Vec<Access>) -> Self {
        Self {
            accesses,
            name: None,
            priority: 0,
            cost: 1.0,
            rank: None,
            near: None,
            need: None,
            limits: Limits::default(),
            gang: 1,
            mistakes: Vec::new(),
        }
    }
}
