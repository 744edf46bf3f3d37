//! Why a task waits, in words for whoever wonders. Looks at what others keep up to date, and keeps nothing itself.

use super::record::Ref;
use crate::cohort::{Cohort, Progress};
use crate::graph::NEEDS;
use crate::plan::Plan;
use crate::run::Run;
use std::collections::HashSet;
use std::sync::Arc;

/// Tasks named as those that another waits for.
const NAMED_MAX: usize = 5;

/// Why `task` waits; `None` if it does not: it runs, or has ended. Cost: a look at each edge of its list.
pub(crate) fn why_waiting(task: Ref) -> Option<String> {
    let Some(cohort) = task.cohort() else { return Some(without_list(task)) };
    match cohort.progress(task) {
        Progress::Ended(_) => None,
        Progress::NotStarted => {
            Some("it is compiled, but nobody has started the list that it is part of".to_string())
        }
        Progress::Pending { running } => in_run(task, cohort, running),
    }
}

fn without_list(task: Ref) -> String {
    if task.is_queued() {
        return "it is submitted and stands in a queue, which runs when it is long enough, after a few milliseconds \
                without a further task, or when somebody waits for one of its tasks"
            .to_string();
    }
    "nobody has started it: it is in no list that was compiled or submitted".to_string()
}

fn in_run(task: Ref, cohort: &Cohort, running: bool) -> Option<String> {
    // Between the start of a run and its first task, and just after its last, there is no run to look at.
    let run = cohort.run()?;
    if let Some(sent) = cohort.sent() {
        return Some(sent.why_waiting());
    }
    let plan = &*run.plan;
    let node = plan.node_of(task)?;
    let may_be_attended = task.is_attended() || task.keeps_arguments();
    if may_be_attended && let Some(words) = plan.shared.office().why_waiting(&run, node) {
        return words;
    }
    if running {
        return None;
    }
    let why = waits_for_others(plan, node).unwrap_or_else(|| ready(&run, task));
    // What it waited for may have ended while we looked.
    matches!(cohort.progress(task), Progress::Pending { running: false }).then_some(why)
}

/// The unfinished tasks before it.
fn waits_for_others(plan: &Plan, node: u32) -> Option<String> {
    let outside = plan.taken_from_outside().filter(|producer| is_pending(*producer));
    let outside: Vec<Ref> = outside.collect();
    if !outside.is_empty() {
        return Some(format!(
            "its list begins when results from outside of it are there; missing: {}",
            named(&outside)
        ));
    }
    let before = unfinished_before(plan, node);
    (!before.is_empty()).then(|| format!("it waits for {}", named(&before)))
}

/// Tasks that have not ended and must before the node may run, in the order of the run. Every edge goes up, so one pass
/// down from the node sees all, through joins, too.
fn unfinished_before(plan: &Plan, node: u32) -> Vec<Ref> {
    let csr = &plan.graph.frozen().csr;
    let mut wanted = HashSet::from([node]);
    let mut found = Vec::new();
    for source in (0..node).rev() {
        if !csr.targets(source).iter().any(|target| wanted.contains(&(target & !NEEDS))) {
            continue;
        }
        match plan.record(source).or_else(|| plan.gate(source)) {
            Some(task) if is_pending(task) => found.push(task),
            Some(_) => {}
            None => drop(wanted.insert(source)),
        }
    }
    found.reverse();
    found
}

fn is_pending(task: Ref) -> bool {
    task.cohort().is_some_and(|cohort| !matches!(cohort.progress(task), Progress::Ended(_)))
}

/// `task #1 `a` (runs), task #2 `b` and 3 more`.
fn named(tasks: &[Ref]) -> String {
    let name = |task: &Ref| {
        let runs = task.cohort().is_some_and(|c| c.progress(*task) == Progress::Pending { running: true });
        format!("task #{} `{}`{}", task.index(), task.name(), if runs { " (runs)" } else { "" })
    };
    let mut text = tasks.iter().take(NAMED_MAX).map(name).collect::<Vec<_>>().join(", ");
    if tasks.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", tasks.len() - NAMED_MAX));
    }
    text
}

/// Nothing is before it.
fn ready(run: &Arc<Run>, task: Ref) -> String {
    if run.stop.is_told(task) {
        return "it was cancelled, and is skipped as soon as a worker comes to it".to_string();
    }
    let workers = run.plan.shared.executor.workers();
    let plural = if workers == 1 { "" } else { "s" };
    format!("it is ready and waits for a worker: the batch has {workers} worker{plural}, all at other tasks")
}
