//! The graph of a run as boxes and arrows: one box per task, or per name where there are too many tasks to look at.
//! Where the boxes go is left to `layout`.

use super::figures::{Figures, sources_by_target};
use super::plain::{cut, duration};
use super::record::{Ending, RunRecord};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Boxes a picture has at most: more cannot be looked at.
const BOXES_MAX: usize = 300;
/// Arrows of a picture by name: more would be a blot, and a large page.
const ARROWS_MAX: usize = 3_000;

/// Characters of a task's detail that its box shows under the pointer.
const TITLE_CHARS_MAX: usize = 400;

/// Boxes and arrows, with a sentence on what they stand for.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) boxes: Vec<Node>,
    /// From box to box; at most one per pair.
    pub(super) arrows: Vec<Arrow>,
    pub(super) note: String,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) label: String,
    /// All there is to say, in lines.
    pub(super) title: String,
    /// How far along the graph: the boxes of one level make a column.
    pub(super) level: usize,
    /// The worst ending of its tasks.
    pub(super) ending: Ending,
    pub(super) critical: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Edges of the graph it stands for.
    pub(super) edges: usize,
    pub(super) critical: bool,
}

/// The run's graph by task, by name, or by name with numbers left out: the first that is small enough. Without boxes
/// when none is; the note says so.
pub(super) fn picture(run: &RunRecord, figures: &Figures) -> Picture {
    let depths = depths(run);
    if run.tasks.len() <= BOXES_MAX {
        return by_task(run, figures, &depths);
    }
    let whole = Grouping::new(run, |name| Cow::Borrowed(name));
    let grouping = match whole {
        Some(_) => whole,
        None => Grouping::new(run, |name| Cow::Owned(without_numbers(name))),
    };
    match grouping {
        Some(grouping) => by_group(run, &grouping, &depths),
        None => Picture {
            note: format!("The tasks have more than {BOXES_MAX} names: too many to draw."),
            ..Picture::default()
        },
    }
}

/// The length of the longest path that ends at each task, in edges.
fn depths(run: &RunRecord) -> Vec<usize> {
    let sources = sources_by_target(run);
    let mut depths = vec![0; run.tasks.len()];
    for index in 0..depths.len() {
        depths[index] =
            sources.of(index).iter().map(|source| depths[*source as usize] + 1).max().unwrap_or(0);
    }
    depths
}

fn by_task(run: &RunRecord, figures: &Figures, depths: &[usize]) -> Picture {
    let path: HashSet<usize> = figures.critical_tasks.iter().map(|index| *index as usize).collect();
    let steps: HashSet<(usize, usize)> =
        figures.critical_tasks.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
    let boxes = run.tasks.iter().enumerate().map(|(index, task)| {
        let (kind, ending, length) = (task.kind.word(), task.ending.word(), duration(task.duration_ns()));
        let title = format!(
            "{}\n#{index}, {kind}, {ending}, {length}\n{}",
            task.name,
            cut(&task.detail, TITLE_CHARS_MAX)
        );
        Node {
            label: task.name.clone(),
            title: title.trim_end().to_owned(),
            level: depths[index],
            ending: task.ending,
            critical: path.contains(&index),
        }
    });
    let arrow = |(from, to)| Arrow { from, to, edges: 1, critical: steps.contains(&(from, to)) };
    let note = "One box per task, without the edges that others imply. \
                The critical path is drawn thick.";
    Picture {
        boxes: boxes.collect(),
        arrows: needed_edges(run).into_iter().map(arrow).collect(),
        note: note.to_owned(),
    }
}

/// The edges that no path of other edges implies. Cost: tasks × edges steps, so for small graphs only.
fn needed_edges(run: &RunRecord) -> Vec<(usize, usize)> {
    let sources = sources_by_target(run);
    let mut above: Vec<HashSet<u32>> = Vec::with_capacity(run.tasks.len());
    let mut needed = Vec::new();
    for target in 0..run.tasks.len() {
        let mut nearest = sources.of(target).to_vec();
        nearest.sort_unstable();
        nearest.dedup();
        let mut reached = HashSet::new();
        // From the last source to the first: what reaches a source is earlier in the list than it.
        for source in nearest.into_iter().rev() {
            if reached.insert(source) {
                needed.push((source as usize, target));
                reached.extend(&above[source as usize]);
            }
        }
        above.push(reached);
    }
    needed.sort_unstable();
    needed
}

/// Which group each task belongs to.
struct Grouping {
    names: Vec<String>,
    group: Vec<usize>,
}

impl Grouping {
    /// Groups by what `key` makes of a name; nothing where that gives too many groups.
    fn new(run: &RunRecord, key: impl Fn(&str) -> Cow<'_, str>) -> Option<Self> {
        let mut places: HashMap<Cow<str>, usize> = HashMap::new();
        let mut grouping = Self { names: Vec::new(), group: Vec::with_capacity(run.tasks.len()) };
        for task in &run.tasks {
            let name = key(&task.name);
            let next = places.len();
            let place = *places.entry(name.clone()).or_insert(next);
            if place == BOXES_MAX {
                return None;
            }
            if place == next {
                grouping.names.push(name.into_owned());
            }
            grouping.group.push(place);
        }
        Some(grouping)
    }
}

/// A name with each run of digits as `#`: tasks of a sweep often differ in nothing else.
fn without_numbers(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            c => text.push(c),
        }
    }
    text
}

fn by_group(run: &RunRecord, grouping: &Grouping, depths: &[usize]) -> Picture {
    let mut boxes: Vec<Node> = grouping.names.iter().map(|name| group_box(name)).collect();
    let mut totals = vec![(0usize, 0u64); boxes.len()];
    for (index, task) in run.tasks.iter().enumerate() {
        let place = grouping.group[index];
        let node = &mut boxes[place];
        node.level = node.level.min(depths[index]);
        node.ending = worse(node.ending, task.ending);
        totals[place] = (totals[place].0 + 1, totals[place].1.saturating_add(task.duration_ns()));
    }
    for (node, (count, total)) in boxes.iter_mut().zip(totals) {
        node.title = format!("{}\n{count} tasks, {} in all", node.title, duration(total));
        if count > 1 {
            node.label = format!("{count} × {}", node.label);
        }
    }
    close_gaps(&mut boxes);
    let mut edges: HashMap<(usize, usize), usize> = HashMap::new();
    for (from, to) in run.forward_edges() {
        *edges.entry((grouping.group[from as usize], grouping.group[to as usize])).or_default() += 1;
    }
    let mut arrows: Vec<Arrow> = edges
        .into_iter()
        .filter(|((from, to), _)| from != to)
        .map(|((from, to), edges)| Arrow { from, to, edges, critical: false })
        .collect();
    arrows.sort_unstable_by_key(|arrow| (std::cmp::Reverse(arrow.edges), arrow.from, arrow.to));
    let left_out = arrows.len().saturating_sub(ARROWS_MAX);
    arrows.truncate(ARROWS_MAX);
    let mut note = format!("One box per name: {} tasks are too many to draw one by one.", run.tasks.len());
    if left_out > 0 {
        note += &format!(" {left_out} arrows that stand for the fewest edges are left out.");
    }
    Picture { boxes, arrows, note }
}

fn group_box(name: &str) -> Node {
    let (label, title) = (name.to_owned(), name.to_owned());
    Node { label, title, level: usize::MAX, ending: Ending::Reused, critical: false }
}

/// A group shows the ending that asks most for attention.
fn worse(a: Ending, b: Ending) -> Ending {
    let order = [Ending::Failed, Ending::Cancelled, Ending::Skipped, Ending::Done, Ending::Reused];
    order.into_iter().find(|ending| [a, b].contains(ending)).unwrap_or(a)
}

/// Numbers the levels that have a box from 0 on.
fn close_gaps(boxes: &mut [Node]) {
    let mut levels: Vec<usize> = boxes.iter().map(|node| node.level).collect();
    levels.sort_unstable();
    levels.dedup();
    for node in boxes {
        node.level = levels.partition_point(|level| *level < node.level);
    }
}
