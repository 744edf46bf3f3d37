//! From a plan that has run to the record of that run. The caller keeps the plan from running meanwhile.

use super::record::{Ending, Kind, RunRecord, TaskRecord};
use crate::cohort::Progress;
use crate::error::{ErrorKind, TaskError};
use crate::graph::{Csr, JOIN, NEEDS};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::run::{Measured, Timed};
use crate::task::Usage;
use crate::task::record::{Ref, state};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// A join stands for sources times targets edges. Up to so many all are written down.
const JOIN_EDGES_MAX: usize = 4096;

/// What is known of the latest run of `plan`, which `measured` tells the times of.
pub(crate) fn record_of(plan: &Plan, measured: &Measured) -> RunRecord {
    let positions = Positions::of(plan);
    let lanes = Lanes::of(plan, measured);
    let has_reused = plan.reused.load(Ordering::Relaxed) > 0;
    let task = |(task, node): &(Ref, u32)| {
        let timed = measured.nodes[*node as usize];
        let usage =
            measured.others.as_ref().and_then(|others| others.usages.get(&plan.position(*task)?).copied());
        TaskRecord { lane: lanes.place(&timed), ..task_of(*task, timed, usage, has_reused) }
    };
    let tasks = positions.tasks.iter().map(task).collect();
    RunRecord {
        name: program(),
        started_unix_ms: measured.started_unix_ms,
        wall_ns: measured.wall.as_nanos() as u64,
        edges: edges_of(&plan.whole().frozen().csr, &positions.of_node, &|node| {
            measured.nodes[node as usize].ended
        }),
        tasks,
        within_ns: measured.others.as_ref().map_or(0, |others| others.within.as_nanos() as u64),
        rank_ends: if measured.others.is_some() { lanes.ends } else { Vec::new() },
        lanes: lanes.names,
        machine: machine(),
    }
}

/// Tasks by their place in the list, and nodes of the whole graph by tasks.
struct Positions {
    /// Each task with its node, in list order.
    tasks: Vec<(Ref, u32)>,
    /// The position of each node's task; [`JOIN`] for joins, and for gates, which stand for tasks of other lists.
    of_node: Vec<u32>,
}

impl Positions {
    fn of(plan: &Plan) -> Self {
        let whole = plan.whole();
        let mut nodes: Vec<u32> = (0..whole.len()).filter(|node| whole.task(*node) != JOIN).collect();
        nodes.sort_by_key(|node| whole.task(*node));
        let mut nodes = nodes.into_iter().peekable();
        let node_of = |(index, task)| {
            // Those between are gates, which have no record.
            while nodes.next_if(|node| whole.task(*node) < index).is_some() {}
            Some((task, nodes.next_if(|node| whole.task(*node) == index)?))
        };
        let tasks: Vec<(Ref, u32)> = plan.indexed().into_iter().filter_map(node_of).collect();
        let mut of_node = vec![JOIN; whole.len() as usize];
        tasks.iter().zip(0..).for_each(|((_, node), at)| of_node[*node as usize] = at);
        Self { tasks, of_node }
    }
}

fn task_of(task: Ref, timed: Timed, usage: Option<Usage>, has_reused: bool) -> TaskRecord {
    // What a journal gave took no time.
    let is_reused = has_reused && timed.ended == 0;
    let failure = task.cohort().and_then(|cohort| cohort.failure(task.index()));
    let usage = match &failure {
        Some(failure) => failure.own_usage(),
        None => usage.or_else(|| Some(task.exit()?.usage)),
    };
    let Usage { max_rss_bytes, user, system, .. } = usage.unwrap_or_default();
    TaskRecord {
        name: task.name(),
        kind: kind(task),
        ending: match ending(task, failure.as_ref()) {
            Ending::Done if is_reused => Ending::Reused,
            other => other,
        },
        lane: timed.lane,
        start_ns: timed.began,
        end_ns: timed.ended,
        attempts: timed.attempts.max(failure.as_ref().map_or(0, TaskError::own_attempts)),
        detail: detail(task, failure.as_ref()),
        cpu_ns: user.saturating_add(system).as_nanos() as u64,
        max_rss_bytes,
    }
}

fn kind(task: Ref) -> Kind {
    let code = task.head().code;
    if code.command.is_some() {
        Kind::Process
    } else if (code.name)().contains("{{closure}}") {
        Kind::Closure
    } else {
        Kind::Function
    }
}

fn ending(task: Ref, failure: Option<&TaskError>) -> Ending {
    let progress = task.cohort().map(|cohort| cohort.progress(task));
    match (progress, failure.map(TaskError::kind)) {
        (Some(Progress::Ended(state::FAILED | state::SKIPPED)), Some(ErrorKind::Cancelled)) => {
            Ending::Cancelled
        }
        (Some(Progress::Ended(state::FAILED)), _) => Ending::Failed,
        (Some(Progress::Ended(state::DONE | state::EMPTY | state::TAKEN | state::ELSEWHERE)), _) => {
            Ending::Done
        }
        _ => Ending::Skipped,
    }
}

/// Why it failed, then what it ran.
fn detail(task: Ref, failure: Option<&TaskError>) -> String {
    let why = failure.map(TaskError::reason);
    let what = task.head().code.command.is_some().then(|| task.command_of().line());
    [why, what].into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The lanes of all ranks: of each its workers, then as many slots as were used.
struct Lanes {
    names: Vec<String>,
    /// By rank.
    ends: Vec<u32>,
}

impl Lanes {
    fn of(plan: &Plan, measured: &Measured) -> Self {
        let mut workers = vec![plan.shared.executor.workers() as u32];
        if let Some(others) = &measured.others {
            workers.extend(&others.workers);
        }
        let mut used = workers.clone();
        for timed in measured.nodes.iter().filter(|timed| timed.attempts > 0) {
            if let Some(used) = used.get_mut(timed.rank as usize) {
                *used = (*used).max(timed.lane.saturating_add(1));
            }
        }
        let of =
            if used.len() > 1 { |rank: usize| format!("rank {rank}, ") } else { |_: usize| String::new() };
        let (mut names, mut ends) = (Vec::new(), Vec::new());
        for (rank, (workers, used)) in workers.into_iter().zip(used).enumerate() {
            names.extend((0..workers).map(|lane| format!("{}worker {lane}", of(rank))));
            names.extend((workers..used).map(|lane| format!("{}slot {}", of(rank), lane - workers)));
            ends.push(names.len() as u32);
        }
        Self { names, ends }
    }

    /// The lane of a task among all.
    fn place(&self, timed: &Timed) -> u32 {
        let before = (timed.rank as usize).checked_sub(1).and_then(|below| self.ends.get(below));
        before.map_or(0, |end| *end).saturating_add(timed.lane)
    }
}

/// Edges between tasks, by position: those that pass a join go to where it leads.
///
/// A large join is written down as fewer edges than it stands for: each of its sources before the first target, and
/// the source that ended last before each target. All of them are true, and none that decided when a task began is
/// missing.
fn edges_of(csr: &Csr, position: &[u32], ended: &dyn Fn(u32) -> u64) -> Vec<(u32, u32)> {
    let mut edges = Vec::with_capacity(csr.edges());
    // Tasks before each join, as nodes. Every edge goes up, so they are complete when the join's turn comes.
    let mut before: HashMap<u32, Vec<u32>> = HashMap::new();
    for node in 0..csr.len() as u32 {
        let is_task = position[node as usize] != JOIN;
        let sources = if is_task { vec![node] } else { before.remove(&node).unwrap_or_default() };
        let (joins, tasks): (Vec<u32>, Vec<u32>) = csr
            .targets(node)
            .iter()
            .map(|target| target & !NEEDS)
            .partition(|to| position[*to as usize] == JOIN);
        joins.into_iter().for_each(|join| before.entry(join).or_default().extend_from_slice(&sources));
        let mut edge = |from: u32, to: u32| edges.push((position[from as usize], position[to as usize]));
        if sources.len() * tasks.len() <= JOIN_EDGES_MAX || is_task {
            sources.iter().for_each(|from| tasks.iter().for_each(|to| edge(*from, *to)));
        } else if let (Some(last), Some((first, rest))) =
            (sources.iter().copied().max_by_key(|source| ended(*source)), tasks.split_first())
        {
            sources.iter().for_each(|from| edge(*from, *first));
            rest.iter().for_each(|to| edge(last, *to));
        }
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// The program's name.
fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(|path| path.file_name());
    name.map_or_else(|| "a run".to_string(), |name| name.to_string_lossy().into_owned())
}

/// The machine's name, and what of it this program may use.
fn machine() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Machine::look();
    let cpus = machine.cpus_granted;
    let plural = if cpus == 1 { "" } else { "s" };
    let mut text = format!("{cpus} cpu{plural} ({})", machine.cpus_why);
    if machine.memory_bytes < u64::MAX {
        text = format!("{text}, {} ({})", super::plain::bytes(machine.memory_bytes), machine.memory_why);
    }
    if !machine.gpus.is_empty() {
        let gpus = machine.gpus.len();
        text = format!("{text}, {gpus} gpu{} ({})", if gpus == 1 { "" } else { "s" }, machine.gpus_why);
    }
    match host.trim() {
        "" => text,
        host => format!("{host}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Csr;

    /// Nodes 0, 1 → join 2 → join 3 → 4, 5; 0 → 4 beside them.
    #[test]
    fn edges_pass_joins_and_stand_once() {
        let csr = Csr::of_sources(&[&[], &[], &[0, 1], &[2], &[3, 0], &[3]]);
        let position = [0, 1, JOIN, JOIN, 2, 3];
        assert_eq!(edges_of(&csr, &position, &|_| 0), [(0, 2), (0, 3), (1, 2), (1, 3)]);
    }

    #[test]
    fn a_large_join_is_written_down_in_as_many_edges_as_it_has() {
        let (sources, targets) = (100u32, 100u32);
        let all: Vec<u32> = (0..sources).collect();
        let mut list: Vec<&[u32]> = vec![&[]; sources as usize];
        list.push(&all);
        list.extend((0..targets).map(|_| &[100u32][..]));
        let csr = Csr::of_sources(&list);
        let position: Vec<u32> =
            (0..201).map(|node| if node == 100 { JOIN } else { node - u32::from(node > 100) }).collect();
        let edges = edges_of(&csr, &position, &|node| if node == 42 { 9 } else { 1 });
        assert_eq!(edges.len(), 199);
        assert!((0..100).all(|from| edges.contains(&(from, 100))), "every source before the first target");
        assert!((101..200).all(|to| edges.contains(&(42, to))), "the last to end before every target");
    }
}
