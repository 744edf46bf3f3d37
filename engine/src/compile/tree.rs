//! Hazards when declared paths lie below one another: a directory conflicts with everything under it.
//!
//! Beside its own last writer and readers, a datum keeps those of the data below it since it was itself written.
//! What is used without being cleared (the readers of a directory, when one file below is written; the writers below
//! a directory, when it is read) becomes one *join* vertex as soon as it is longer than [`JOIN_MIN`], so that the
//! number of edges stays linear in the accesses.

use super::hazard::{Dependences, JOIN, Marks, NEEDS, add};
use super::{EDGES_MAX, Hazard, Listing, TooManyEdges};
use crate::data::Access;

/// Sources that are worth a join.
const JOIN_MIN: usize = 4;

#[derive(Default, Clone)]
struct Row {
    writer: Option<u32>,
    readers: Vec<u32>,
    writers_below: Vec<u32>,
    readers_below: Vec<u32>,
}

/// Where edges go while the tree finds them.
trait Sink {
    fn edge(&mut self, from: u32, why: Hazard, datum: u32);
    /// May replace the vertices by one that waits for all of them.
    fn shrink(&mut self, vertices: &mut Vec<u32>, needs: u32);
}

struct Tree<'a> {
    rows: Vec<Row>,
    parents: &'a [u32],
}

impl Tree<'_> {
    fn above(parents: &[u32], datum: u32) -> impl Iterator<Item = usize> + '_ {
        let up = |d: &usize| parents.get(*d).copied().filter(|p| *p != 0).map(|p| p as usize);
        std::iter::successors(up(&(datum as usize)), up)
    }

    /// Shows `sink` everything that a task with this access depends on.
    fn depend(&mut self, access: Access, sink: &mut impl Sink) {
        let datum = access.datum();
        let (reads, writes) = (access.reads(), access.writes());
        if reads {
            // What was written before the latest write of the datum or of a directory above it is no longer read.
            let own = std::iter::once(datum as usize);
            let whole = own.chain(Self::above(self.parents, datum)).filter_map(|d| self.rows[d].writer).max();
            let parts = &mut self.rows[datum as usize].writers_below;
            parts.retain(|part| whole.is_none_or(|whole| *part > whole));
            sink.shrink(parts, NEEDS);
            whole.iter().chain(&*parts).for_each(|w| sink.edge(*w, Hazard::Raw, datum));
        }
        if writes {
            self.overwrite(datum, sink);
        }
    }

    fn overwrite(&mut self, datum: u32, sink: &mut impl Sink) {
        for above in Self::above(self.parents, datum) {
            let row = &mut self.rows[above];
            row.writer.iter().for_each(|w| sink.edge(*w, Hazard::Waw, datum));
            sink.shrink(&mut row.readers, 0);
            row.readers.iter().for_each(|r| sink.edge(*r, Hazard::War, datum));
        }
        let row = &self.rows[datum as usize];
        let readers = row.readers.iter().chain(&row.readers_below);
        readers.for_each(|r| sink.edge(*r, Hazard::War, datum));
        let writers = row.writer.iter().chain(&row.writers_below);
        writers.for_each(|w| sink.edge(*w, Hazard::Waw, datum));
    }

    /// Remembers that `vertex` has this access.
    fn remember(&mut self, access: Access, vertex: u32) {
        let datum = access.datum();
        if access.writes() {
            Self::above(self.parents, datum).for_each(|a| self.rows[a].writers_below.push(vertex));
            self.rows[datum as usize] = Row { writer: Some(vertex), ..Row::default() };
        } else {
            Self::above(self.parents, datum).for_each(|a| self.rows[a].readers_below.push(vertex));
            self.rows[datum as usize].readers.push(vertex);
        }
    }

    fn task(&mut self, list: &Listing, task: usize, sink: &mut impl Sink) {
        list.accesses_of(task).iter().for_each(|a| self.depend(*a, sink));
    }

    /// Reads before writes, so that a task which does both counts as the writer.
    fn after(&mut self, list: &Listing, task: usize, vertex: u32) {
        let accesses = list.accesses_of(task);
        accesses.iter().filter(|a| !a.writes()).for_each(|a| self.remember(*a, vertex));
        accesses.iter().filter(|a| a.writes()).for_each(|a| self.remember(*a, vertex));
    }
}

fn tree(list: &Listing) -> Tree<'_> {
    let parents = list.parents.as_deref().unwrap_or(&[]);
    Tree { rows: vec![Row::default(); list.data_len], parents }
}

/// Collects the sources of one task, and joins before it.
struct Collect {
    found: Dependences,
    tasks: Vec<u32>,
    marks: Marks,
    /// Sources of the task at hand, before joins made for it take their places in `found`.
    now: Vec<(u32, u32)>,
}

impl Sink for Collect {
    fn edge(&mut self, from: u32, why: Hazard, _: u32) {
        self.now.push((from, if why == Hazard::Raw { NEEDS } else { 0 }));
    }

    fn shrink(&mut self, vertices: &mut Vec<u32>, needs: u32) {
        if vertices.len() < JOIN_MIN {
            return;
        }
        let join = self.tasks.len() as u32;
        let sources: Vec<_> = vertices.drain(..).map(|v| (v, needs)).collect();
        self.vertex(JOIN, &sources);
        vertices.push(join);
    }
}

impl Collect {
    fn vertex(&mut self, task: u32, sources: &[(u32, u32)]) {
        let start = self.found.sources.len();
        for (from, needs) in sources {
            add(&mut self.found.sources, &mut self.marks, start, *from, *needs);
        }
        self.found.ends.push(self.found.sources.len() as u32);
        self.tasks.push(task);
    }
}

/// The edges of a list in which declared paths lie below one another.
pub(super) fn find(list: &Listing) -> Result<Dependences, TooManyEdges> {
    let mut tree = tree(list);
    let mut sink = Collect {
        found: Dependences::default(),
        tasks: Vec::new(),
        marks: Marks::default(),
        now: Vec::new(),
    };
    // Inputs name tasks, edges name vertices, and joins shift the one against the other.
    let mut vertex_of = Vec::with_capacity(list.len());
    for task in 0..list.len() {
        sink.now.clear();
        for from in list.inputs_of(task) {
            sink.now.push((vertex_of[*from as usize], NEEDS));
        }
        if task >= list.gates {
            tree.task(list, task, &mut sink);
        }
        let vertex = sink.tasks.len() as u32;
        let now = std::mem::take(&mut sink.now);
        sink.vertex(task as u32, &now);
        sink.now = now;
        vertex_of.push(vertex);
        tree.after(list, task, vertex);
        if sink.found.sources.len() >= EDGES_MAX as usize {
            return Err(TooManyEdges);
        }
    }
    let joins = sink.tasks.len() != list.len();
    sink.found.tasks = joins.then_some(sink.tasks);
    Ok(sink.found)
}

struct Explain<'a>(&'a mut Vec<(u32, u32, Hazard, u32)>, u32);

impl Sink for Explain<'_> {
    fn edge(&mut self, from: u32, why: Hazard, datum: u32) {
        self.0.push((from, self.1, why, datum));
    }

    fn shrink(&mut self, _: &mut Vec<u32>, _: u32) {}
}

/// Adds every edge with its reason.
pub(super) fn explain(list: &Listing, edges: &mut Vec<(u32, u32, Hazard, u32)>) {
    let mut tree = tree(list);
    for task in 0..list.len() {
        tree.task(list, task, &mut Explain(edges, task as u32));
        tree.after(list, task, task as u32);
    }
}
