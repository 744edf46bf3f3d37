//! Cuts a placed graph into pieces, one per rank: its own vertices, and *imports* that stand for vertices elsewhere for
//! which some of its own wait. An edge between ranks becomes an *export* at its source's rank, one for each rank that
//! imports the source, and edges from the import at its target's.
//!
//! What tasks take from outside of the list is there before the run begins. Tasks of rank 0, which has it, wait for
//! nothing; other ranks import it, behind all other imports, as if from a vertex of rank 0 behind the graph.

use super::hazard::{Dependences, JOIN, NEEDS};
use super::{Listing, Taken};

/// What one rank has of a graph. Its nodes: imports, in order of vertices, then its own vertices, in order.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// For each import the task it stands for ([`JOIN`]: a join), and what of it is an argument here. One from outside
    /// of the list has the place of its producer behind the tasks of the list.
    pub(crate) imports: Vec<(u32, Taken)>,
    /// How many of the imports, the last ones, are from outside.
    pub(crate) outside: u32,
    /// By node: which nodes it waits for. Its `tasks` has [`JOIN`] for imports.
    pub(crate) found: Dependences,
    pub(crate) exports: Exports,
    /// Of rank 0: who takes what from outside, by producer.
    pub(crate) outside_exports: Exports,
}

/// Who waits for the own vertices of a piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exports {
    /// For each own vertex the end of its exports.
    ends: Vec<u32>,
    all: Vec<Export>,
}

/// One rank that waits for a vertex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Export {
    pub(crate) rank: u16,
    /// Which import it is there.
    pub(crate) import: u32,
    /// What goes with it.
    pub(crate) taken: Taken,
}

impl Piece {
    /// The tasks of own vertices, by node; [`JOIN`] for joins.
    pub(crate) fn own(&self) -> &[u32] {
        let tasks = self.found.tasks.as_deref().unwrap_or_default();
        &tasks[self.imports.len()..]
    }
}

impl Exports {
    /// Who waits for the own vertex with this place.
    #[inline]
    pub(crate) fn of(&self, own: usize) -> &[Export] {
        let start = if own == 0 { 0 } else { self.ends[own - 1] };
        &self.all[start as usize..self.ends[own] as usize]
    }

    /// How many vertices there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the value of the own vertex with this place goes elsewhere.
    pub(crate) fn have_value(&self, own: usize) -> bool {
        self.of(own).iter().any(|export| export.taken.has(Taken::VALUE))
    }

    /// Adds the next own vertex, for which these wait.
    pub(crate) fn push(&mut self, exports: impl IntoIterator<Item = Export>) {
        self.all.extend(exports);
        self.ends.push(self.all.len() as u32);
    }
}

/// The piece of each rank.
pub(crate) fn split(list: &Listing, found: &Dependences, rank_of: &[u16], ranks: u16) -> Vec<Piece> {
    let task = |v: u32| found.tasks.as_ref().map_or(v, |tasks| tasks[v as usize]);
    let imports = crossings(list, found, rank_of, ranks);
    // Place of each vertex among those of its rank.
    let mut owned = vec![0u32; usize::from(ranks)];
    let place = |rank: &u16| {
        let count = &mut owned[usize::from(*rank)];
        *count += 1;
        *count - 1
    };
    let local: Vec<u32> = rank_of.iter().map(place).collect();
    let mut pieces: Vec<Piece> = imports.iter().map(|imports| begin(imports, list, found)).collect();
    for v in 0..found.vertices() {
        let rank = usize::from(rank_of[v]);
        let piece = &mut pieces[rank];
        for source in found.sources_of(v) {
            let from = source & !NEEDS;
            let node = if usize::from(rank_of[from as usize]) == rank {
                imports[rank].len() as u32 + local[from as usize]
            } else {
                import_of(&imports[rank], from)
            };
            piece.found.sources.push(node | (source & NEEDS));
        }
        for source in taken_outside(list, found, task(v as u32), rank_of[v]) {
            piece.found.sources.push(import_of(&imports[rank], source) | NEEDS);
        }
        piece.found.ends.push(piece.found.sources.len() as u32);
        piece.found.tasks.get_or_insert_default().push(task(v as u32));
    }
    add_exports(&mut pieces, &imports, rank_of);
    pieces
}

/// What a task takes that comes to its rank from outside of the list, as vertices behind the graph.
fn taken_outside(list: &Listing, found: &Dependences, task: u32, rank: u16) -> Vec<u32> {
    let mut taken = Vec::new();
    if rank != 0 && task != JOIN && !list.outside.is_empty() {
        for source in list.outside_of(task).map(|producer| found.vertices() as u32 + producer) {
            if !taken.contains(&source) {
                taken.push(source);
            }
        }
    }
    taken
}

/// Per rank the vertices elsewhere that its own wait for, in order, and what it takes of them.
fn crossings(list: &Listing, found: &Dependences, rank_of: &[u16], ranks: u16) -> Vec<Vec<(u32, Taken)>> {
    let mut imports: Vec<Vec<(u32, Taken)>> = vec![Vec::new(); usize::from(ranks)];
    let mut inputs = Vec::new();
    for v in 0..found.vertices() {
        let task = found.tasks.as_ref().map_or(v as u32, |tasks| tasks[v]);
        let outside = taken_outside(list, found, task, rank_of[v]);
        imports[usize::from(rank_of[v])].extend(outside.into_iter().map(|source| (source, Taken::VALUE)));
        let of_task = |s: u32| found.tasks.as_ref().map_or(s, |tasks| tasks[s as usize]);
        let elsewhere = found.sources_of(v).iter().map(|s| s & !NEEDS);
        let mut elsewhere = elsewhere.filter(|s| rank_of[*s as usize] != rank_of[v]).peekable();
        if elsewhere.peek().is_none() {
            continue;
        }
        inputs.clear();
        inputs.extend_from_slice(if task == JOIN { &[] } else { list.inputs_of(task as usize) });
        inputs.sort_unstable();
        let taken = |s: u32| match inputs.binary_search(&of_task(s)) {
            Ok(_) => list.taken(task, of_task(s)),
            Err(_) => Taken::NOTHING,
        };
        imports[usize::from(rank_of[v])].extend(elsewhere.map(|s| (s, taken(s))));
    }
    for imports in &mut imports {
        imports.sort_unstable_by_key(|(vertex, _)| *vertex);
        imports.dedup_by(|(vertex, taken), (kept, all)| {
            let is_same = vertex == kept;
            *all = if is_same { all.and(*taken) } else { *all };
            is_same
        });
    }
    imports
}

fn begin(imports: &[(u32, Taken)], list: &Listing, all: &Dependences) -> Piece {
    let vertices = all.vertices() as u32;
    let task = |vertex: u32| match vertex.checked_sub(vertices) {
        Some(producer) => list.len() as u32 + producer,
        None => all.tasks.as_ref().map_or(vertex, |tasks| tasks[vertex as usize]),
    };
    let outside = imports.iter().filter(|(vertex, _)| *vertex >= vertices).count() as u32;
    let tasks = vec![JOIN; imports.len()];
    let found = Dependences { ends: vec![0; imports.len()], sources: Vec::new(), tasks: Some(tasks) };
    let imports = imports.iter().map(|(vertex, taken)| (task(*vertex), *taken)).collect();
    Piece { imports, outside, found, ..Piece::default() }
}

fn import_of(imports: &[(u32, Taken)], vertex: u32) -> u32 {
    let at = imports.binary_search_by_key(&vertex, |(vertex, _)| *vertex);
    at.expect("every source elsewhere is imported") as u32
}

fn add_exports(pieces: &mut [Piece], imports: &[Vec<(u32, Taken)>], rank_of: &[u16]) {
    let by_rank = imports.iter().enumerate().flat_map(|(rank, imports)| {
        imports.iter().enumerate().map(move |(import, (vertex, taken))| {
            (*vertex, Export { rank: rank as u16, import: import as u32, taken: *taken })
        })
    });
    let mut all: Vec<(u32, Export)> = by_rank.collect();
    all.sort_by_key(|(vertex, _)| *vertex);
    let mut all = all.into_iter().peekable();
    for (vertex, rank) in (0..).zip(rank_of) {
        let exports = std::iter::from_fn(|| all.next_if(|(of, _)| *of == vertex));
        pieces[usize::from(*rank)].exports.push(exports.map(|(_, export)| export));
    }
    // What is left is from behind the graph.
    for vertex in rank_of.len() as u32.. {
        if all.peek().is_none() {
            break;
        }
        let exports = std::iter::from_fn(|| all.next_if(|(of, _)| *of == vertex));
        pieces[0].outside_exports.push(exports.map(|(_, export)| export));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A graph in which vertex i waits for some below it and takes results of some from outside, and where each is.
    fn graphs() -> impl Strategy<Value = (Vec<Vec<u32>>, Vec<Vec<u32>>, Vec<u16>)> {
        let some = |below: u32| proptest::collection::btree_set(0..below.max(1), 0..4);
        (1u32..20).prop_flat_map(move |n| {
            let sources: Vec<_> = (0..n).map(some).collect();
            let outside: Vec<_> = (0..n).map(|_| some(5)).collect();
            let ranks = proptest::collection::vec(0u16..3, n as usize);
            (sources, outside, ranks).prop_map(|(sources, outside, ranks)| {
                let below = |(i, s): (usize, std::collections::BTreeSet<u32>)| {
                    s.into_iter().filter(|s| (*s as usize) < i).collect()
                };
                let outside = outside.into_iter().map(|of| of.into_iter().rev().collect());
                (sources.into_iter().enumerate().map(below).collect(), outside.collect(), ranks)
            })
        })
    }

    proptest! {
        /// Every edge is there once: inside a piece, or as an export that arrives at the import which its target
        /// waits for.
        #[test]
        fn pieces_together_are_the_graph((sources, outside, rank_of) in graphs()) {
            let mut found = Dependences::default();
            let mut list = Listing::default();
            // A source with an even number is an argument, of some their output.
            let taken = |source: u32| match source % 6 {
                0 => Taken::OUT,
                2 => Taken::OUT.and(Taken::VALUE),
                4 => Taken::VALUE,
                _ => Taken::NOTHING,
            };
            for (task, sources) in (0..).zip(&sources) {
                let inputs = sources.iter().filter(|s| *s % 2 == 0);
                list.inputs.extend(inputs.clone());
                let outputs: std::collections::BTreeSet<u32> = inputs.copied().filter(|s| s % 6 != 4).collect();
                list.outputs.extend(outputs.into_iter().map(|source| (task, source, taken(source))));
                list.input_ends.push(list.inputs.len() as u32);
                list.access_ends.push(0);
                found.sources.extend(sources.iter().map(|s| s | NEEDS));
                found.ends.push(found.sources.len() as u32);
            }
            let takes = |(task, producers): (u32, &Vec<u32>)| producers.iter().map(move |p| (task, *p)).collect();
            list.outside = (0..).zip(&outside).flat_map(|of| -> Vec<(u32, u32)> { takes(of) }).collect();
            let n = sources.len() as u32;
            let pieces = split(&list, &found, &rank_of, 3);
            let mut seen: Vec<Vec<u32>> = vec![Vec::new(); sources.len()];
            let mut seen_outside = seen.clone();
            for (rank, piece) in pieces.iter().enumerate() {
                for (own, task) in piece.own().iter().enumerate() {
                    prop_assert_eq!(usize::from(rank_of[*task as usize]), rank);
                    for source in piece.found.sources_of(piece.imports.len() + own) {
                        let node = (source & !NEEDS) as usize;
                        prop_assert_eq!(source & NEEDS, NEEDS);
                        let from = match piece.imports.get(node) {
                            Some((from, all)) if *from >= n => {
                                let first = piece.imports.len() - piece.outside as usize;
                                prop_assert!(*all == Taken::VALUE && node >= first);
                                let export = Export { rank: rank as u16, import: node as u32, taken: Taken::VALUE };
                                let exports = pieces[0].outside_exports.of((from - n) as usize);
                                prop_assert!(exports.contains(&export));
                                seen_outside[*task as usize].push(from - n);
                                continue;
                            }
                            Some((from, all)) => {
                                prop_assert_eq!(*all, taken(*from));
                                let home = &pieces[usize::from(rank_of[*from as usize])];
                                let at = home.own().iter().position(|t| t == from).expect("it is there");
                                let export = Export { rank: rank as u16, import: node as u32, taken: *all };
                                prop_assert!(home.exports.of(at).contains(&export));
                                *from
                            }
                            None => piece.own()[node - piece.imports.len()],
                        };
                        seen[*task as usize].push(from);
                    }
                }
            }
            seen.iter_mut().for_each(|from| from.sort_unstable());
            prop_assert_eq!(seen, sources);
            // Rank 0 has what is outside; others get it in the order of the arguments.
            let expected = outside.iter().zip(&rank_of).map(|(of, rank)| if *rank == 0 { &[] } else { &of[..] });
            prop_assert!(seen_outside.iter().map(Vec::as_slice).eq(expected));
        }
    }
}
