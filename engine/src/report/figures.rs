//! Figures of a run: counts, work, critical path, and the tasks grouped by name. How they look is left to others.

use super::record::{Ending, RunRecord};
use std::collections::HashMap;

/// What table and page say about a whole run.
#[derive(Debug)]
pub(super) struct Figures {
    /// How many tasks ended in each way, in the order of [`Ending::ALL`].
    pub(super) counts: [usize; Ending::ALL.len()],
    /// T1: the sum of all durations.
    pub(super) work_ns: u64,
    /// T∞: the longest sum of durations along edges.
    pub(super) critical_ns: u64,
    /// The tasks on that path that ran, in order.
    pub(super) critical_tasks: Vec<u32>,
    pub(super) wall_ns: u64,
    pub(super) lanes: usize,
    /// CPU time of the tasks for which it was measured.
    pub(super) cpu_ns: u64,
    /// The sum of the durations of those tasks.
    pub(super) measured_ns: u64,
    /// Peak memory of the largest task.
    pub(super) max_rss_bytes: u64,
}

/// What one rank did.
#[derive(Clone, Debug, Default)]
pub(super) struct RankFigures {
    pub(super) tasks: usize,
    pub(super) lanes: u32,
    pub(super) total_ns: u64,
}

impl RankFigures {
    /// The part of its lanes' time in which tasks ran, in percent.
    pub(super) fn busy(&self, run: &RunRecord) -> f64 {
        let time = f64::from(self.lanes) * run.wall_ns as f64;
        100.0 * self.total_ns as f64 / time.max(1.0)
    }
}

/// What each rank did; empty if there was one.
pub(super) fn ranks(run: &RunRecord) -> Vec<RankFigures> {
    let starts = [0].into_iter().chain(run.rank_ends.iter().copied());
    let lanes = starts.zip(&run.rank_ends).map(|(start, end)| end.saturating_sub(start));
    let mut ranks: Vec<RankFigures> =
        lanes.map(|lanes| RankFigures { lanes, ..RankFigures::default() }).collect();
    for task in run.tasks.iter().filter(|task| task.ran()) {
        if let Some(rank) = run.rank_of(task.lane).and_then(|rank| ranks.get_mut(rank)) {
            rank.tasks += 1;
            rank.total_ns = rank.total_ns.saturating_add(task.duration_ns());
        }
    }
    ranks
}

/// All tasks of one name that ran.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    pub(super) count: usize,
    pub(super) total_ns: u64,
    pub(super) max_ns: u64,
    pub(super) cpu_ns: u64,
    pub(super) max_rss_bytes: u64,
}

impl Figures {
    /// Cost: linear in tasks plus edges.
    pub(super) fn of(run: &RunRecord) -> Self {
        let mut counts = [0; Ending::ALL.len()];
        let (mut work_ns, mut cpu_ns, mut measured_ns, mut max_rss_bytes) = (0u64, 0u64, 0u64, 0);
        for task in &run.tasks {
            counts[task.ending as usize] += 1;
            work_ns = work_ns.saturating_add(task.duration_ns());
            cpu_ns = cpu_ns.saturating_add(task.cpu_ns);
            if task.cpu_ns > 0 {
                measured_ns = measured_ns.saturating_add(task.duration_ns());
            }
            max_rss_bytes = max_rss_bytes.max(task.max_rss_bytes);
        }
        let (critical_ns, critical_tasks) = critical_path(run);
        let lanes = run.lanes.len();
        Self {
            counts,
            work_ns,
            critical_ns,
            critical_tasks,
            wall_ns: run.wall_ns,
            lanes,
            cpu_ns,
            measured_ns,
            max_rss_bytes,
        }
    }

    pub(super) fn count(&self, ending: Ending) -> usize {
        self.counts[ending as usize]
    }

    /// T1 divided by the time it took.
    pub(super) fn speed_up(&self) -> f64 {
        self.work_ns as f64 / self.wall_ns.max(1) as f64
    }

    /// The speed-up no schedule can exceed: the lanes, or T1 divided by the critical path if that is less.
    pub(super) fn bound(&self) -> f64 {
        (self.work_ns as f64 / self.critical_ns.max(1) as f64).min(self.lanes as f64)
    }

    /// Counts as words, those of zero left out: `7 tasks: 5 done, 2 failed`.
    pub(super) fn counts_in_words(&self) -> String {
        let tasks: usize = self.counts.iter().sum();
        let shown: Vec<String> = Ending::ALL
            .iter()
            .filter(|ending| self.count(**ending) > 0)
            .map(|ending| format!("{} {}", self.count(*ending), ending.word()))
            .collect();
        if shown.is_empty() { "none".to_owned() } else { format!("{tasks}: {}", shown.join(", ")) }
    }
}

/// The longest path by duration, and its tasks that ran. Edges go forward, so one pass in list order settles all.
fn critical_path(run: &RunRecord) -> (u64, Vec<u32>) {
    let tasks = run.tasks.len();
    let sources = sources_by_target(run);
    let mut until = vec![0u64; tasks];
    let mut before: Vec<Option<u32>> = vec![None; tasks];
    for (index, task) in run.tasks.iter().enumerate() {
        let longest = sources.of(index).iter().copied().max_by_key(|source| until[*source as usize]);
        before[index] = longest;
        let waited = longest.map_or(0, |source| until[source as usize]);
        until[index] = waited.saturating_add(task.duration_ns());
    }
    let last = (0..tasks).max_by_key(|index| (until[*index], tasks - index));
    let mut path: Vec<u32> =
        std::iter::successors(last.map(|last| last as u32), |at| before[*at as usize]).collect();
    path.retain(|index| run.tasks[*index as usize].ran());
    path.reverse();
    (last.map_or(0, |last| until[last]), path)
}

/// The sources of each task, in one array.
pub(super) struct Sources {
    starts: Vec<usize>,
    sources: Vec<u32>,
}

impl Sources {
    pub(super) fn of(&self, task: usize) -> &[u32] {
        &self.sources[self.starts[task]..self.starts[task + 1]]
    }
}

/// Sorts the edges by their target, by counting.
pub(super) fn sources_by_target(run: &RunRecord) -> Sources {
    let mut starts = vec![0usize; run.tasks.len() + 1];
    for (_, to) in run.forward_edges() {
        starts[to as usize + 1] += 1;
    }
    for index in 1..starts.len() {
        starts[index] += starts[index - 1];
    }
    let mut sources = vec![0; starts[run.tasks.len()]];
    let mut next = starts.clone();
    for (from, to) in run.forward_edges() {
        sources[next[to as usize]] = from;
        next[to as usize] += 1;
    }
    Sources { starts, sources }
}

/// The tasks that ran, grouped by name: the group that took the most time first.
pub(super) fn groups(run: &RunRecord) -> Vec<Group<'_>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for task in run.tasks.iter().filter(|task| task.ran()) {
        let place = *places.entry(&task.name).or_insert_with(|| {
            let name = &task.name;
            groups.push(Group { name, count: 0, total_ns: 0, max_ns: 0, cpu_ns: 0, max_rss_bytes: 0 });
            groups.len() - 1
        });
        let group = &mut groups[place];
        group.count += 1;
        group.total_ns = group.total_ns.saturating_add(task.duration_ns());
        group.max_ns = group.max_ns.max(task.duration_ns());
        group.cpu_ns = group.cpu_ns.saturating_add(task.cpu_ns);
        group.max_rss_bytes = group.max_rss_bytes.max(task.max_rss_bytes);
    }
    groups.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then(a.name.cmp(b.name)));
    groups
}

impl Group<'_> {
    pub(super) fn mean_ns(&self) -> u64 {
        self.total_ns / self.count.max(1) as u64
    }
}
