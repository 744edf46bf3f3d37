//! Many kills of one operation, spread over its steps and phases, with a look at what each has left behind.

use std::any::Any;
use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::error::Fault;
use crate::step::{Killed, Operation, Stepper, Trace};
use crate::tally::Tally;

/// How often a phase that was missed is looked for once more.
const RETRIES_MAX: usize = 8;

/// How many kills are made, and how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    kills: Kills,
    time_max: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kills {
    Count(u64),
    Everywhere,
}

impl Budget {
    /// So many kills. With fewer than the operation has steps, half of them are shared out equally among the phases,
    /// and the others evenly among all other steps; with more, steps are killed several times.
    pub fn kills(count: u64) -> Self {
        Self { kills: Kills::Count(count), time_max: Duration::MAX }
    }

    /// One kill at each step.
    pub fn everywhere() -> Self {
        Self { kills: Kills::Everywhere, time_max: Duration::MAX }
    }

    /// `quick` kills; `long` ones if the environment says `TARRAGON_TEST_LONG`, as `./test --long` does.
    pub fn quick_or_long(quick: u64, long: u64) -> Self {
        Self::kills(if env::var_os("TARRAGON_TEST_LONG").is_some() { long } else { quick })
    }

    /// No new kill after this time, but one in each phase in any case.
    pub fn within(mut self, time_max: Duration) -> Self {
        self.time_max = time_max;
        self
    }
}

/// Counts the steps of an operation, kills it as often as the budget says, and calls `check` after each kill, when the
/// dead child's locks and memory are dropped. `check` panics if it finds harm, and leaves things such that the
/// operation can be done again; it is called as well after the child that was counted, which ended by itself.
///
/// # Errors
///
/// [`Fault::Broken`] when `check` panics, [`Fault::Uncovered`] for a phase without a kill, and those of
/// [`Stepper::kill_at`]. Nothing is wrong, but nothing shown, if [`Fault::is_skip`].
///
/// # Panics
///
/// If a phase is told that has no name.
pub fn survey(
    operation: Operation<'_>,
    budget: Budget,
    mut check: impl FnMut(&Killed),
) -> Result<Tally, Fault> {
    let start = Instant::now();
    let mut stepper = Stepper::start(operation)?;
    let trace = stepper.count()?;
    let mut tally = Tally::new(stepper.operation(), trace.steps);
    let ended = Killed { pid: 0, step: trace.steps, phase: None };
    look(&stepper, &ended, &mut check)?;
    let first = firsts(&trace);
    for (index, step) in first.iter().chain(&moments(&trace, budget.kills)).copied().enumerate() {
        if index >= first.len() && start.elapsed() > budget.time_max {
            break;
        }
        let killed = stepper.kill_at(step)?;
        judge(&stepper, &killed, &mut tally, &mut check)?;
    }
    seek_uncovered(&mut stepper, &mut tally, &mut check)?;
    tally.set_time(start.elapsed());
    match tally.uncovered() {
        Some(phase) => {
            let phase = stepper.operation().phases()[phase].to_owned();
            Err(Fault::Uncovered { phase, tally: Box::new(tally) })
        }
        None => Ok(tally),
    }
}

fn judge(
    stepper: &Stepper<'_>,
    killed: &Killed,
    tally: &mut Tally,
    check: &mut impl FnMut(&Killed),
) -> Result<(), Fault> {
    let start = Instant::now();
    look(stepper, killed, check)?;
    tally.add(killed, start.elapsed());
    Ok(())
}

/// Calls the check, and says where the kill was if it panics.
fn look(stepper: &Stepper<'_>, killed: &Killed, check: &mut impl FnMut(&Killed)) -> Result<(), Fault> {
    catch_unwind(AssertUnwindSafe(|| check(killed))).map_err(|panic| Fault::Broken {
        operation: stepper.operation().name().to_owned(),
        step: killed.step,
        phase: killed.phase_name(stepper.operation().phases()).to_owned(),
        message: message_of(&*panic),
    })
}

/// Phases come and go with what kills have left behind; those that were missed get more tries.
fn seek_uncovered(
    stepper: &mut Stepper<'_>,
    tally: &mut Tally,
    check: &mut impl FnMut(&Killed),
) -> Result<(), Fault> {
    for _ in 0..RETRIES_MAX {
        let Some(phase) = tally.uncovered() else { break };
        let killed = stepper.kill_in(phase)?;
        judge(stepper, &killed, tally, check)?;
    }
    Ok(())
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without text".to_owned())
}

/// One step in the middle of each phase that was seen.
fn firsts(trace: &Trace) -> Vec<u64> {
    let phases: BTreeSet<usize> = trace.spans.iter().map(|span| span.phase).collect();
    let middle = |phase| {
        let steps: Vec<u64> = steps_of(trace, phase).collect();
        steps[steps.len() / 2]
    };
    phases.into_iter().map(middle).collect()
}

/// The steps to kill at beyond those of [`firsts`], in scattered order, so that also the beginning of the list is
/// spread over the operation.
fn moments(trace: &Trace, kills: Kills) -> Vec<u64> {
    let (all, first) = (trace.steps + 1, firsts(trace));
    let wanted = match kills {
        Kills::Everywhere => all,
        Kills::Count(count) => count.max(first.len() as u64),
    };
    let mut chosen: BTreeSet<u64> = first.iter().copied().collect();
    if wanted < all {
        let share = wanted as usize / 2 / first.len();
        for phase in first.iter().map(|&step| phase_at(trace, step)) {
            let steps: Vec<u64> = steps_of(trace, phase).collect();
            chosen.extend(evenly(&steps, share.saturating_sub(1)));
        }
    }
    let others: Vec<u64> = (0..all).filter(|step| !chosen.contains(step)).collect();
    let count = wanted.min(all) as usize - chosen.len();
    chosen.extend(evenly(&others, count));
    for step in &first {
        chosen.remove(step);
    }
    let mut scattered: Vec<u64> = chosen.into_iter().collect();
    scattered.sort_by_key(|step| step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let again: Vec<u64> = first.iter().chain(&scattered).copied().collect();
    let missing = wanted as usize - again.len();
    scattered.extend(again.iter().cycle().take(missing));
    scattered
}

fn phase_at(trace: &Trace, step: u64) -> usize {
    let span = trace.spans.iter().find(|span| span.steps.contains(&step));
    span.expect("spans have no gaps").phase
}

fn steps_of(trace: &Trace, phase: usize) -> impl Iterator<Item = u64> {
    trace.spans.iter().filter(move |span| span.phase == phase).flat_map(|span| span.steps.clone())
}

/// `count` of the steps, or all, with equal distances.
fn evenly(steps: &[u64], count: usize) -> impl Iterator<Item = u64> {
    let count = count.min(steps.len());
    (0..count).map(move |index| steps[(2 * index + 1) * steps.len() / (2 * count)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Span;

    /// 1000 steps, of which 3 in the middle are in phase 1.
    fn trace() -> Trace {
        let span = |phase, steps| Span { phase, steps };
        Trace { steps: 1000, spans: vec![span(0, 0..500), span(1, 500..503), span(0, 503..1000)] }
    }

    fn all_moments(kills: Kills) -> Vec<u64> {
        firsts(&trace()).into_iter().chain(moments(&trace(), kills)).collect()
    }

    #[test]
    fn few_kills_reach_short_phases_and_all_parts() {
        let steps = all_moments(Kills::Count(40));
        assert_eq!(steps.len(), 40);
        assert!([500, 501, 502].iter().all(|step| steps.contains(step)), "{steps:?}");
        for part in 0..10 {
            let (from, to) = (part * 100, part * 100 + 100);
            assert!(steps.iter().any(|step| (from..to).contains(step)), "none in {from}..{to}: {steps:?}");
        }
    }

    #[test]
    fn a_prefix_of_the_kills_is_spread_as_well() {
        let steps = &all_moments(Kills::Everywhere)[..50];
        for part in 0..5 {
            let (from, to) = (part * 200, part * 200 + 200);
            assert!(steps.iter().any(|step| (from..to).contains(step)), "none in {from}..{to}: {steps:?}");
        }
    }

    #[test]
    fn everywhere_is_each_step_once() {
        let mut steps = all_moments(Kills::Everywhere);
        steps.sort_unstable();
        assert_eq!(steps, (0..=1000).collect::<Vec<_>>());
    }

    #[test]
    fn more_kills_than_steps_kill_steps_again() {
        let steps = all_moments(Kills::Count(2500));
        assert_eq!(steps.len(), 2500);
        for step in 0..=1000 {
            assert!(steps.iter().filter(|it| **it == step).count() >= 2, "step {step}");
        }
    }

    #[test]
    fn one_kill_per_phase_is_the_least() {
        assert_eq!(all_moments(Kills::Count(0)), firsts(&trace()));
    }
}
