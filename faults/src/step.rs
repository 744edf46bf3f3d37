//! One operation of a child, instruction by instruction: how many there are, in which phase each is, and a kill after
//! any of them.
//!
//! Instructions of libraries count like others; so does a system call, as one; a string instruction counts once per
//! repetition. Address-space randomisation does no harm, since steps are counted. An operation whose way depends on
//! time, or on what earlier kills left behind, may end earlier or later than it did when counted.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;

use crate::error::Fault;
use crate::nursery::Nursery;
use crate::role::Role;
use crate::route::{Leg, Route};
use crate::traced::Traced;

/// How long a child may live unless told otherwise, in seconds.
const SECONDS_MAX: u32 = 60;

/// What is killed: one operation, who does it, and what its phases are called.
pub struct Operation<'a> {
    name: &'a str,
    role: Role,
    phases: &'a [&'a str],
    phase_of: Option<PhaseOf<'a>>,
    seconds_max: u32,
}

/// Tells the phase a child is in, by its pid.
type PhaseOf<'a> = Box<dyn FnMut(u32) -> usize + 'a>;

/// Steps of an operation from begin to end, by phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Instructions that the operation executed.
    pub steps: u64,
    /// In order, without gaps: in which phase the child is after so many steps, from 0 to below `steps`.
    pub spans: Vec<Span>,
}

/// Consecutive steps in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index into the operation's phases.
    pub phase: usize,
    /// Numbers of instructions that have been executed.
    pub steps: Range<u64>,
}

/// A child that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// The pid it had.
    pub pid: u32,
    /// How many instructions of the operation it executed; all that were counted if the operation was over.
    pub step: u64,
    /// The phase it was in; none if the operation was over by then.
    pub phase: Option<usize>,
}

/// Kills children inside one operation. Stays with the thread that made it, as the kernel binds tracing to a thread.
#[derive(Debug)]
pub struct Stepper<'a> {
    operation: Operation<'a>,
    nursery: Nursery,
    route: Option<Route>,
    thread: PhantomData<*const ()>,
}

impl<'a> Operation<'a> {
    /// The operation that `role` does in [`Part::serve`](crate::Part::serve), with its phases in any order. The child
    /// tells its phase by [`phase`](crate::phase), unless [`Operation::phase_of`] says where to look.
    ///
    /// # Panics
    ///
    /// Without phases.
    pub fn new(name: &'a str, role: Role, phases: &'a [&'a str]) -> Self {
        assert!(!phases.is_empty(), "an operation has at least one phase");
        Self { name, role, phases, phase_of: None, seconds_max: SECONDS_MAX }
    }

    /// `look` tells the phase of the child with the pid it gets, as an index into the phases. Called after each step,
    /// while the child is stopped: it should read shared memory, as an intent, and no more.
    pub fn phase_of(mut self, look: impl FnMut(u32) -> usize + 'a) -> Self {
        self.phase_of = Some(Box::new(look));
        self
    }

    /// A child that is not killed after so many seconds is taken for stuck; 60 unless told. At least 1.
    pub fn seconds_max(mut self, seconds: u32) -> Self {
        self.seconds_max = seconds.max(1);
        self
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Names of its phases.
    pub fn phases(&self) -> &'a [&'a str] {
        self.phases
    }
}

impl fmt::Debug for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Operation");
        shown.field("name", &self.name).field("role", &self.role).field("phases", &self.phases);
        shown.finish_non_exhaustive()
    }
}

impl Killed {
    /// Name of the phase it was killed in; `after` if the operation was over.
    pub fn phase_name<'p>(&self, phases: &[&'p str]) -> &'p str {
        self.phase.map_or("after", |index| phases[index])
    }
}

impl<'a> Stepper<'a> {
    /// Starts the process that makes the children.
    ///
    /// # Errors
    ///
    /// [`Fault::NotPermitted`] where nobody can be stepped through; [`Fault::System`].
    pub fn start(operation: Operation<'a>) -> Result<Self, Fault> {
        if !cfg!(target_arch = "x86_64") {
            let errno = io::Error::new(io::ErrorKind::Unsupported, "tried on x86_64 only");
            return Err(Fault::NotPermitted { errno });
        }
        let nursery = Nursery::start(&operation.role)?;
        Ok(Self { operation, nursery, route: None, thread: PhantomData })
    }

    /// The operation that is killed.
    pub fn operation(&self) -> &Operation<'a> {
        &self.operation
    }

    /// Lets a child do the whole operation and end by itself. Returns the steps. Blocks for 3-5 µs per step.
    ///
    /// # Errors
    ///
    /// As [`Stepper::kill_at`].
    ///
    /// # Panics
    ///
    /// If a phase is told that has no name.
    pub fn count(&mut self) -> Result<Trace, Fault> {
        let Operation { name, phases, phase_of, seconds_max, .. } = &mut self.operation;
        let mut traced = Traced::begin(&mut self.nursery, name, *seconds_max)?;
        let mut spans: Vec<Span> = Vec::new();
        let mut places = Vec::new();
        while !traced.is_over()? {
            let (phase, step) = (phase_now(&traced, phases, phase_of), traced.step());
            match spans.last_mut() {
                Some(span) if span.phase == phase => span.steps.end = step + 1,
                _ => spans.push(Span { phase, steps: step..step + 1 }),
            }
            places.push(traced.place());
            traced.advance()?;
        }
        let steps = traced.step();
        traced.run_out()?;
        self.route = Some(Route::new(&places));
        Ok(Trace { steps, spans })
    }

    /// Kills a child after so many steps of the operation, or when the operation is over, if that comes first. When it
    /// returns, the kernel has dropped the child's locks and memory, and the child is reaped.
    ///
    /// Once the operation was counted, the child runs to a breakpoint near that step, and is stepped from there; should
    /// it go another way than the one that was counted, it is killed where it comes by that instruction, in the phase
    /// that it tells then, or when it is over.
    ///
    /// # Errors
    ///
    /// [`Fault::Ended`] if the child ends before it is killed, [`Fault::Endless`] after ten million steps or
    /// [`Operation::seconds_max`], [`Fault::NotPlayed`], [`Fault::NotPermitted`], [`Fault::System`].
    ///
    /// # Panics
    ///
    /// If a phase is told that has no name.
    pub fn kill_at(&mut self, step: u64) -> Result<Killed, Fault> {
        let Operation { name, phases, phase_of, seconds_max, .. } = &mut self.operation;
        let mut traced = Traced::begin(&mut self.nursery, name, *seconds_max)?;
        match &self.route {
            None => traced.follow(step, Leg::steps(step))?,
            Some(route) => match route.to(step) {
                Some(leg) => traced.follow(step, leg)?,
                None => traced.finish()?,
            },
        }
        let is_over = traced.is_over()?;
        let step = match &self.route {
            Some(route) if is_over => route.steps(),
            _ => traced.step(),
        };
        let phase = (!is_over).then(|| phase_now(&traced, phases, phase_of));
        // Dropping it kills it.
        Ok(Killed { pid: traced.pid(), step, phase })
    }

    /// Kills a child as soon as it is in this phase, or when the operation is over.
    ///
    /// # Errors
    ///
    /// As [`Stepper::kill_at`].
    ///
    /// # Panics
    ///
    /// If a phase is told that has no name.
    pub fn kill_in(&mut self, wanted: usize) -> Result<Killed, Fault> {
        let Operation { name, phases, phase_of, seconds_max, .. } = &mut self.operation;
        let mut traced = Traced::begin(&mut self.nursery, name, *seconds_max)?;
        let mut phase = None;
        while !traced.is_over()? {
            phase = Some(phase_now(&traced, phases, phase_of)).filter(|phase| *phase == wanted);
            if phase.is_some() {
                break;
            }
            traced.advance()?;
        }
        Ok(Killed { pid: traced.pid(), step: traced.step(), phase })
    }
}

fn phase_now(traced: &Traced<'_>, phases: &[&str], phase_of: &mut Option<PhaseOf<'_>>) -> usize {
    let phase = match phase_of {
        Some(look) => look(traced.pid()),
        None => usize::try_from(traced.control().phase()).expect("an index fits"),
    };
    assert!(phase < phases.len(), "phase {phase} has no name among {phases:?}");
    phase
}
