//! From a list of tasks with accesses to a graph: four passes, each linear in accesses plus edges, none of which
//! knows what a task does.
//!
//! ```text
//! Listing ──hazard──▶ Dependences ──placement──▶ Placement ──split──▶ a Piece for each rank
//!                          └──────────────priority──────────────┴──▶ graph::Outline
//! ```
//!
//! `hazard` finds the edges (through `frontier`, or `tree` when declared paths lie below one another), `placement`
//! the rank of each task, `split` what of the graph each rank has, `priority` the upward ranks. All pure: no thread,
//! clock or IO.

mod frontier;
mod hazard;
pub(crate) mod placement;
pub(crate) mod priority;
pub(crate) mod split;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use frontier::Frontier;
pub(crate) use hazard::{Dependences, NEEDS};

use crate::data::Access;
use crate::graph::Outline;
use placement::{Layout, Placement};
use split::Piece;

/// Tasks in one list; 24 bits, so that an index and flags share a word.
pub(crate) const TASKS_MAX: usize = (1 << 24) - 1;
/// Edges of one graph.
pub(crate) const EDGES_MAX: u32 = u32::MAX - 1;

/// A list of tasks, reduced to what decides their order. Buffers are reused from one compile to the next.
#[derive(Default, Debug)]
pub(crate) struct Listing {
    /// How many of the first tasks are of earlier submissions: others depend on them, they on none.
    pub(crate) gates: usize,
    /// For each task the end of its accesses.
    pub(crate) access_ends: Vec<u32>,
    /// Of each task the reads, then the writes.
    pub(crate) accesses: Vec<Access>,
    /// For each task the end of its inputs; empty when no task has any.
    pub(crate) input_ends: Vec<u32>,
    /// Indices of tasks whose results are arguments.
    pub(crate) inputs: Vec<u32>,
    /// Of tasks that take what others have written, in order: the task, such a producer, and all that it takes of that.
    pub(crate) outputs: Vec<(u32, u32, Taken)>,
    /// Tasks that take a result from outside of the list, in order, and the place of its producer among those; filled
    /// in only if the list may be spread. Such a result is there before the run begins.
    pub(crate) outside: Vec<(u32, u32)>,
    /// Per task, when any task has one that is not 0.
    pub(crate) priorities: Option<Vec<i32>>,
    /// Per task, when any task has one that is not 1.
    pub(crate) costs: Option<Vec<f32>>,
    /// Nearest declared directory of each datum, when any lies below another.
    pub(crate) parents: Option<Vec<u32>>,
    /// One above the highest datum.
    pub(crate) data_len: usize,
}

impl Listing {
    pub(crate) fn clear(&mut self) {
        self.gates = 0;
        self.access_ends.clear();
        self.accesses.clear();
        self.input_ends.clear();
        self.inputs.clear();
        self.outputs.clear();
        self.outside.clear();
        self.priorities = None;
        self.costs = None;
        self.parents = None;
    }

    pub(crate) fn len(&self) -> usize {
        self.access_ends.len()
    }

    #[inline(always)]
    pub(crate) fn accesses_of(&self, task: usize) -> &[Access] {
        let start = if task == 0 { 0 } else { self.access_ends[task - 1] };
        &self.accesses[start as usize..self.access_ends[task] as usize]
    }

    #[inline(always)]
    pub(crate) fn inputs_of(&self, task: usize) -> &[u32] {
        if self.input_ends.is_empty() {
            return &[];
        }
        let start = if task == 0 { 0 } else { self.input_ends[task - 1] };
        &self.inputs[start as usize..self.input_ends[task] as usize]
    }
}

impl Listing {
    /// What a task takes from outside, in the order of its arguments; see `outside`.
    pub(crate) fn outside_of(&self, task: u32) -> impl Iterator<Item = u32> + '_ {
        let start = self.outside.partition_point(|(of, _)| *of < task);
        self.outside[start..].iter().take_while(move |(of, _)| *of == task).map(|(_, producer)| *producer)
    }
}

/// What a task takes of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Taken(u8);

impl Taken {
    pub(crate) const NOTHING: Taken = Taken(0);
    pub(crate) const VALUE: Taken = Taken(1);
    pub(crate) const OUT: Taken = Taken(2);
    pub(crate) const ERR: Taken = Taken(4);
    /// How many bits there are.
    pub(crate) const BITS: u32 = 3;

    /// What has these bits; others are left out.
    pub(crate) fn of_bits(bits: u8) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// Some of `other` is of this.
    pub(crate) fn has(self, other: Taken) -> bool {
        self.0 & other.0 != 0
    }

    /// Some of what it has written is of this.
    pub(crate) fn has_output(self) -> bool {
        self.has(Taken(Self::OUT.0 | Self::ERR.0))
    }

    /// This and that.
    #[must_use]
    pub(crate) fn and(self, other: Taken) -> Self {
        Self(self.0 | other.0)
    }
}

impl Listing {
    /// What a task takes of one of its inputs.
    pub(crate) fn taken(&self, task: u32, producer: u32) -> Taken {
        if self.outputs.is_empty() {
            return Taken::VALUE;
        }
        let at =
            self.outputs.binary_search_by_key(&(task, producer), |(task, producer, _)| (*task, *producer));
        at.map_or(Taken::VALUE, |at| self.outputs[at].2)
    }
}

/// Why one task comes before another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hazard {
    /// True dependence: it reads what the other wrote.
    Raw,
    /// Anti dependence: it overwrites what the other read.
    War,
    /// Output dependence: it overwrites what the other wrote.
    Waw,
    /// Its argument is the other's result.
    Argument,
}

/// More than [`EDGES_MAX`] edges.
#[derive(Debug)]
pub(crate) struct TooManyEdges;

/// A list as a graph: of the rank that compiles it, and the pieces of all ranks if it is spread over several.
pub(crate) struct Compilation {
    pub(crate) outline: Outline,
    /// By rank; empty if all runs on this one.
    pub(crate) pieces: Vec<Piece>,
    /// The graph of the whole list, if it is spread and somebody wants to look at it.
    pub(crate) whole: Option<Outline>,
    /// Edges of the whole list, if it is spread.
    pub(crate) edges: Option<usize>,
}

/// The whole way from a list to what can run on the ranks of a layout.
pub(crate) fn compile(
    list: &Listing,
    frontier: &mut Frontier,
    layout: &Layout,
) -> Result<Compilation, TooManyEdges> {
    let dependences = hazard::find(list, frontier)?;
    let compilation = match placement::place(list, &dependences, layout) {
        Placement::Local => {
            let outline = priority::order(list, &dependences);
            Compilation { outline, pieces: Vec::new(), whole: None, edges: None }
        }
        Placement::Spread(rank_of) => {
            let pieces = split::split(list, &dependences, &rank_of, layout.pieces());
            let outline = priority::order_piece(list, &pieces[0].found);
            let whole = layout.keeps_whole.then(|| priority::order(list, &dependences));
            Compilation { outline, pieces, whole, edges: Some(dependences.sources.len()) }
        }
    };
    frontier.keep(dependences);
    Ok(compilation)
}

/// Every direct conflict and argument edge with its reason, as `(from, to, why, datum)` by task index; the datum is
/// 0 for arguments. For drawings and messages: costs more than [`compile`].
pub(crate) fn explain(list: &Listing) -> Vec<(u32, u32, Hazard, u32)> {
    hazard::explain(list)
}
