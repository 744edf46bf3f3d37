//! Finds the edges of a task list: RAW, WAR and WAW on declared data, and arguments.
//!
//! List order is the sequential program. Two tasks conflict if they access one datum and one of them writes it (a
//! directory conflicts with all below it); every conflict must keep list order. The edges found here are fewer than
//! the conflicts, with the same transitive closure: a task depends on the last writer, a writer also on the readers
//! since, and on the last writer only if nobody has read since.
//!
//! Vertices are numbered in list order, so every edge goes up. Beside tasks there can be *joins*: vertices without a
//! body that stand for "all of these have ended", so that k readers of a directory and m writers below it cost k + m
//! edges instead of k × m.

use super::frontier::{Frontier, NOBODY};
use super::{EDGES_MAX, Hazard, Listing, TooManyEdges, tree};

/// Bit of an edge whose target cannot run if its source fails (RAW, argument).
pub(crate) const NEEDS: u32 = 1 << 31;

/// Edges by target.
#[derive(Debug, Default)]
pub(crate) struct Dependences {
    /// For each vertex the end of its sources.
    pub(crate) ends: Vec<u32>,
    /// Sources, with [`NEEDS`] or without.
    pub(crate) sources: Vec<u32>,
    /// For each vertex how many edges go out of it.
    pub(crate) out: Vec<u32>,
    /// For each vertex its task, or [`JOIN`]; `None` when vertices are tasks.
    pub(crate) tasks: Option<Vec<u32>>,
}

/// In [`Dependences::tasks`]: not a task.
pub(crate) const JOIN: u32 = u32::MAX;

impl Dependences {
    pub(crate) fn vertices(&self) -> usize {
        self.ends.len()
    }

    fn clear(&mut self) {
        self.ends.clear();
        self.sources.clear();
        self.out.clear();
        self.tasks = None;
    }

    #[inline(always)]
    pub(crate) fn sources_of(&self, vertex: usize) -> &[u32] {
        let start = if vertex == 0 { 0 } else { self.ends[vertex - 1] };
        &self.sources[start as usize..self.ends[vertex] as usize]
    }
}

/// Adds an edge to the task whose sources start at `start`, once per source; [`NEEDS`] wins.
#[inline(always)]
pub(super) fn add(sources: &mut Vec<u32>, marks: &mut [Mark], start: usize, from: u32, needs: u32) {
    let mark = &mut marks[from as usize];
    if mark.place as usize > start {
        sources[mark.place as usize - 1] |= needs;
    } else {
        sources.push(from | needs);
        mark.place = sources.len() as u32;
        mark.out += 1;
    }
}

/// What is remembered of a vertex while edges are found.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    /// One above the place of its latest edge among the sources.
    place: u32,
    /// Edges out of it.
    pub(super) out: u32,
}

/// The edges of a list, starting from an empty frontier.
pub(super) fn find(list: &Listing, frontier: &mut Frontier) -> Result<Dependences, TooManyEdges> {
    if list.parents.is_some() {
        return tree::find(list);
    }
    let mut found = std::mem::take(&mut frontier.found);
    found.clear();
    found.ends.reserve(list.len());
    found.sources.reserve(list.accesses.len() + list.inputs.len());
    frontier.reset(list.data_len, list.len());
    for task in 0..list.len() {
        sources_of(list, frontier, task, &mut found.sources);
        if found.sources.len() >= EDGES_MAX as usize {
            return Err(TooManyEdges);
        }
        found.ends.push(found.sources.len() as u32);
    }
    found.out.extend(frontier.marks.iter().map(|m| m.out));
    Ok(found)
}

#[inline(always)]
fn sources_of(list: &Listing, frontier: &mut Frontier, task: usize, sources: &mut Vec<u32>) {
    let start = sources.len();
    for from in list.inputs_of(task) {
        add(sources, &mut frontier.marks, start, *from, NEEDS);
    }
    // Reads stand before writes, so a read sees the writer before this task.
    let vertex = task as u32;
    for access in list.accesses_of(task) {
        let datum = access.datum();
        let (writer, needs) = if access.writes() {
            let each = |marks: &mut [Mark], reader| add(sources, marks, start, reader, 0);
            (frontier.written_by(datum, vertex, each), 0)
        } else {
            (frontier.read_by(datum, vertex), NEEDS)
        };
        if writer != NOBODY && writer != vertex {
            add(sources, &mut frontier.marks, start, writer, needs);
        }
    }
}

/// Every edge with its reason; no joins.
pub(super) fn explain(list: &Listing) -> Vec<(u32, u32, Hazard, u32)> {
    let mut edges = Vec::new();
    for (to, _) in list.access_ends.iter().enumerate() {
        edges.extend(list.inputs_of(to).iter().map(|from| (*from, to as u32, Hazard::Argument, 0)));
    }
    tree::explain(list, &mut edges);
    edges.sort_by_key(|(from, to, ..)| (*to, *from));
    edges.dedup();
    edges
}
