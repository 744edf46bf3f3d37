//! How often an operation was killed, and where: what a test prints.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::step::{Killed, Operation};

/// The kills of one operation.
///
/// Printed: `put: 2314 steps; phases: prepare 120 kills, locked 40 kills, after 1 kill; 161 kills at 160 of 2315
/// moments in 1.2 s, slowest check 3 ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    operation: String,
    steps: u64,
    phases: Vec<(String, u64)>,
    after: u64,
    moments: BTreeSet<u64>,
    time: Duration,
    check_max: Duration,
}

impl Tally {
    pub(crate) fn new(operation: &Operation<'_>, steps: u64) -> Self {
        Self {
            operation: operation.name().to_owned(),
            steps,
            phases: operation.phases().iter().map(|name| ((*name).to_owned(), 0)).collect(),
            after: 0,
            moments: BTreeSet::new(),
            time: Duration::ZERO,
            check_max: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, killed: &Killed, check: Duration) {
        match killed.phase {
            Some(phase) => self.phases[phase].1 += 1,
            None => self.after += 1,
        }
        let is_inside = killed.phase.is_some() && killed.step < self.steps;
        self.moments.insert(if is_inside { killed.step } else { self.steps });
        self.check_max = self.check_max.max(check);
    }

    pub(crate) fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    /// Index of a phase without kills.
    pub(crate) fn uncovered(&self) -> Option<usize> {
        self.phases.iter().position(|(_, kills)| *kills == 0)
    }

    /// Instructions of the operation when it was counted.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// All kills, those after the operation included.
    pub fn kills(&self) -> u64 {
        self.phases.iter().map(|(_, kills)| kills).sum::<u64>() + self.after
    }

    /// Kills by phase, in the operation's order.
    pub fn phases(&self) -> &[(String, u64)] {
        &self.phases
    }

    /// Kills when the operation was over.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Whether there was a kill before the first instruction, between any two, and after the last.
    pub fn is_complete(&self) -> bool {
        self.moments.len() as u64 == self.steps + 1
    }

    /// The longest time that one call of the survivor's check took.
    pub fn check_max(&self) -> Duration {
        self.check_max
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills = |count: u64| format!("{count} kill{}", if count == 1 { "" } else { "s" });
        write!(f, "{}: {} steps; phases: ", self.operation, self.steps)?;
        for (name, count) in &self.phases {
            write!(f, "{name} {}, ", kills(*count))?;
        }
        write!(f, "after {}; {} at {} of ", kills(self.after), kills(self.kills()), self.moments.len())?;
        write!(f, "{} moments in {:.1} s, ", self.steps + 1, self.time.as_secs_f64())?;
        write!(f, "slowest check {} ms", self.check_max.as_millis())
    }
}
