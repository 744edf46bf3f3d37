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
    /// For each vertex its task, or [`JOIN`]; `None` when vertices are tasks.
    pub(crate) tasks: Option<Vec<u32>>,
}

/// In [`Dependences::tasks`]: not a task.
pub(crate) const JOIN: u32 = u32::MAX;

impl Dependences {
    pub(crate) fn vertices(&self) -> usize {
        self.ends.len()
    }

    /// The same without room to spare.
    pub(crate) fn copy(&self) -> Self {
        Self { ends: self.ends.clone(), sources: self.sources.clone(), tasks: None }
    }

    fn clear(&mut self) {
        self.ends.clear();
        self.sources.clear();
        self.tasks = None;
    }

    #[inline(always)]
    pub(crate) fn sources_of(&self, vertex: usize) -> &[u32] {
        let start = if vertex == 0 { 0 } else { self.ends[vertex - 1] };
        &self.sources[start as usize..self.ends[vertex] as usize]
    }
}

/// Sources of one vertex up to which a duplicate is found by looking at all of them.
const FEW: usize = 8;

/// Adds an edge to the task whose sources start at `start`, once per source; [`NEEDS`] wins.
#[inline(always)]
pub(super) fn add(sources: &mut Vec<u32>, marks: &mut Marks, start: usize, from: u32, needs: u32) {
    let now = &mut sources[start..];
    if now.len() >= FEW {
        return marks.add(sources, start, from, needs);
    }
    match now.iter_mut().find(|s| **s & !NEEDS == from) {
        Some(source) => *source |= needs,
        None => sources.push(from | needs),
    }
}

/// Finds duplicates among many sources: for each vertex one above the place of its latest edge.
#[derive(Default)]
pub(super) struct Marks {
    places: Vec<u32>,
    /// The task whose first sources are marked, by the start of its sources.
    start: Option<usize>,
}

impl Marks {
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.start = None;
    }

    #[inline(never)]
    fn add(&mut self, sources: &mut Vec<u32>, start: usize, from: u32, needs: u32) {
        if self.start != Some(start) {
            self.start = Some(start);
            for (i, source) in sources[start..].iter().enumerate() {
                self.set(source & !NEEDS, start + i);
            }
        }
        match self.places.get(from as usize) {
            Some(place) if *place as usize > start => sources[*place as usize - 1] |= needs,
            _ => {
                self.set(from, sources.len());
                sources.push(from | needs);
            }
        }
    }

    fn set(&mut self, vertex: u32, place: usize) {
        let vertex = vertex as usize;
        if vertex >= self.places.len() {
            self.places.resize((vertex + 1).next_power_of_two(), 0);
        }
        self.places[vertex] = place as u32 + 1;
    }
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
    frontier.reset(list.data_len);
    for task in 0..list.gates {
        for access in list.accesses_of(task) {
            match access.writes() {
                true => frontier.written_by(access.datum(), task as u32, |_, _| ()),
                false => frontier.read_by(access.datum(), task as u32),
            };
        }
        found.ends.push(0);
    }
    for task in list.gates..list.len() {
        sources_of(list, frontier, task, &mut found.sources);
        if found.sources.len() >= EDGES_MAX as usize {
            return Err(TooManyEdges);
        }
        found.ends.push(found.sources.len() as u32);
    }
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
            let each = |marks: &mut Marks, reader| add(sources, marks, start, reader, 0);
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
