//! Which tasks of a list must run again, given what a journal tells of the last time. Pure: no IO, no clock.
//!
//! A task whose record is there and still true is *reused*: it does not run. Every other task runs, and
//! 1. so does, after it, whatever takes its result, and whatever reads or writes a datum that it writes: what is there
//!    now is not what that task left or saw;
//! 2. so does, before it, the task that wrote what it reads, unless that is still there as that task left it.
//!
//! Files that the list only reads must be as they are; one that was overwritten by a task of the killed run cannot be
//! had back, so a task that must read it again cannot be resumed, and is reported.
//!
//! All marks only grow, so the search for them ends; it is linear in accesses for each round of (1) and (2), of which
//! there are as many as there are turns from one to the other, in practice one or two.

use std::collections::{HashMap, HashSet};

/// A datum; 0 is none.
pub(super) type Datum = u32;

/// What is known of the last time.
pub(super) trait Past {
    /// Whether the task's record is there, its own files are as it left them (or as a later task did), and what it
    /// gave can be given again.
    fn is_sound(&mut self, task: usize) -> bool;
    /// Whether a datum is still as the task's record says that it left it.
    fn is_as_left(&mut self, task: usize, datum: Datum) -> bool;
    /// Whether a datum is as some recorded task left it.
    fn was_written(&mut self, datum: Datum) -> bool;
}

/// One task: whose results it takes (by index), what it reads, what it writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) takes: Vec<u32>,
    pub(super) reads: Vec<Datum>,
    pub(super) writes: Vec<Datum>,
    /// It takes a result that is not there and cannot be known.
    pub(super) is_unknown: bool,
}

/// A task that must run again cannot, since what it reads is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) task: usize,
    pub(super) datum: Datum,
}

/// Which data lie below one another.
pub(super) struct Tree<'a>(pub(super) &'a [u32]);

impl Tree<'_> {
    fn above(&self, datum: Datum) -> impl Iterator<Item = Datum> + '_ {
        let up = |d: &Datum| self.0.get(*d as usize).copied().filter(|p| *p != 0);
        std::iter::successors(up(&datum), up)
    }
}

/// Data that are not as the last run left them, and what earlier lists of this run have made.
#[derive(Default, Debug, Clone)]
pub(super) struct Dirty {
    data: HashSet<Datum>,
    /// Directories with such data below them.
    above: HashSet<Datum>,
    /// Data that are as the last task which writes them in earlier lists leaves them.
    made: HashSet<Datum>,
}

impl Dirty {
    fn add(&mut self, datum: Datum, tree: &Tree<'_>) {
        self.data.insert(datum);
        self.above.extend(tree.above(datum));
    }

    fn has(&self, datum: Datum, tree: &Tree<'_>) -> bool {
        self.data.contains(&datum)
            || self.above.contains(&datum)
            || tree.above(datum).any(|up| self.data.contains(&up))
    }
}

/// The search; `again` says which tasks run.
struct Search<'a, P> {
    nodes: &'a [Node],
    tree: &'a Tree<'a>,
    past: &'a mut P,
    /// For each task and each of its reads the task that wrote it last.
    writers: Vec<Vec<Option<u32>>>,
    again: Vec<bool>,
}

/// Which tasks must run; `dirty` is what earlier lists of this run have changed, and is extended.
pub(super) fn again<P: Past>(
    nodes: &[Node],
    tree: &Tree<'_>,
    past: &mut P,
    dirty: &mut Dirty,
) -> Result<Vec<bool>, Vec<Gone>> {
    let writers = last_writers(nodes, tree);
    let mut search = Search { nodes, tree, past, writers, again: vec![false; nodes.len()] };
    for (task, node) in nodes.iter().enumerate() {
        if node.is_unknown || !search.past.is_sound(task) {
            search.mark(task);
        }
    }
    while search.forward(dirty) {}
    let gone = search.gone(dirty);
    if !gone.is_empty() {
        return Err(gone);
    }
    let again = search.again;
    for (task, node) in nodes.iter().enumerate() {
        for datum in &node.writes {
            if again[task] {
                dirty.add(*datum, tree);
            }
            if again[task] || past.is_as_left(task, *datum) {
                dirty.made.insert(*datum);
            } else {
                dirty.made.remove(datum);
            }
        }
    }
    Ok(again)
}

fn last_writers(nodes: &[Node], tree: &Tree<'_>) -> Vec<Vec<Option<u32>>> {
    let mut at: HashMap<Datum, u32> = HashMap::new();
    let mut below: HashMap<Datum, u32> = HashMap::new();
    let mut all = Vec::with_capacity(nodes.len());
    for (task, node) in nodes.iter().enumerate() {
        let writer = |d: &Datum| {
            let own = std::iter::once(*d).chain(tree.above(*d)).filter_map(|d| at.get(&d));
            own.chain(below.get(d)).max().copied()
        };
        all.push(node.reads.iter().map(writer).collect());
        for datum in &node.writes {
            at.insert(*datum, task as u32);
            for up in tree.above(*datum) {
                below.insert(up, task as u32);
            }
        }
    }
    all
}

impl<P: Past> Search<'_, P> {
    /// The task runs; so do those before it whose work it needs and that is not there any more.
    fn mark(&mut self, task: usize) {
        let mut todo = vec![task];
        while let Some(task) = todo.pop() {
            if std::mem::replace(&mut self.again[task], true) {
                continue;
            }
            for (i, datum) in self.nodes[task].reads.iter().enumerate() {
                if let Some(writer) = self.writers[task][i].map(|w| w as usize)
                    && !self.again[writer]
                    && !self.is_left(writer, *datum)
                {
                    todo.push(writer);
                }
            }
        }
    }

    /// Whether what a task wrote of a datum is as it left it.
    fn is_left(&mut self, task: usize, datum: Datum) -> bool {
        let tree = self.tree;
        let is_related = |d: Datum| {
            d == datum || tree.above(d).any(|up| up == datum) || tree.above(datum).any(|up| up == d)
        };
        let nodes = self.nodes;
        nodes[task].writes.iter().filter(|d| is_related(**d)).all(|d| self.past.is_as_left(task, *d))
    }

    /// Marks what runs because of what runs before it; true if that was anything.
    fn forward(&mut self, dirty: &Dirty) -> bool {
        let mut dirty = Dirty { made: HashSet::new(), ..dirty.clone() };
        let mut changed = false;
        for (task, node) in self.nodes.iter().enumerate() {
            let touches = |d: &Datum| dirty.has(*d, self.tree);
            let follows = node.takes.iter().any(|t| self.again[*t as usize])
                || node.reads.iter().chain(&node.writes).any(touches);
            if follows && !self.again[task] {
                self.mark(task);
                changed = true;
            }
            if self.again[task] {
                node.writes.iter().for_each(|d| dirty.add(*d, self.tree));
            }
        }
        changed
    }

    /// Tasks that run, and read what no task of the list makes and a task of the last run has overwritten.
    fn gone(&mut self, dirty: &Dirty) -> Vec<Gone> {
        let mut gone = Vec::new();
        for task in (0..self.nodes.len()).filter(|t| self.again[*t]) {
            for (i, datum) in self.nodes[task].reads.iter().enumerate() {
                let is_made = self.writers[task][i].is_some()
                    || dirty.has(*datum, self.tree)
                    || dirty.made.contains(datum);
                if !is_made && self.past.was_written(*datum) {
                    gone.push(Gone { task, datum: *datum });
                }
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks as text: `name: reads a b, writes c, takes other`, and what is known of them: `sound`, and which data are
    /// as left (`left c`).
    struct Told {
        sound: HashSet<usize>,
        left: HashSet<(usize, Datum)>,
        written: HashSet<Datum>,
    }

    impl Past for Told {
        fn is_sound(&mut self, task: usize) -> bool {
            self.sound.contains(&task)
        }

        fn is_as_left(&mut self, task: usize, datum: Datum) -> bool {
            self.left.contains(&(task, datum))
        }

        fn was_written(&mut self, datum: Datum) -> bool {
            self.written.contains(&datum)
        }
    }

    fn node(takes: &[u32], reads: &[Datum], writes: &[Datum]) -> Node {
        Node { takes: takes.to_vec(), reads: reads.to_vec(), writes: writes.to_vec(), is_unknown: false }
    }

    fn check(
        nodes: &[Node],
        sound: &[usize],
        left: &[(usize, Datum)],
        written: &[Datum],
    ) -> Result<Vec<usize>, Vec<Gone>> {
        let mut told = Told {
            sound: sound.iter().copied().collect(),
            left: left.iter().copied().collect(),
            written: written.iter().copied().collect(),
        };
        let again = again(nodes, &Tree(&[0, 0, 0, 2, 2]), &mut told, &mut Dirty::default())?;
        Ok(again.iter().enumerate().filter(|(_, a)| **a).map(|(i, _)| i).collect())
    }

    #[test]
    fn a_chain_goes_on_where_it_stopped() {
        let chain = [node(&[], &[], &[1]), node(&[], &[1], &[2]), node(&[], &[2], &[3])];
        assert_eq!(check(&chain, &[0, 1, 2], &[], &[]), Ok(vec![]));
        assert_eq!(check(&chain, &[0, 1], &[(1, 2)], &[]), Ok(vec![2]));
        assert_eq!(check(&chain, &[0, 2], &[(0, 1)], &[]), Ok(vec![1, 2]), "what follows runs, too");
        assert_eq!(check(&chain, &[0, 1], &[], &[]), Ok(vec![0, 1, 2]), "what it needs is gone");
    }

    #[test]
    fn results_are_followed() {
        let list = [node(&[], &[], &[]), node(&[0], &[], &[]), node(&[1], &[], &[]), node(&[], &[], &[])];
        assert_eq!(check(&list, &[0, 2, 3], &[], &[]), Ok(vec![1, 2]));
    }

    #[test]
    fn a_file_changed_in_place_is_made_anew() {
        // 0 makes it, 1 and 2 change it; 2 was killed in the middle.
        let list = [node(&[], &[], &[1]), node(&[], &[1], &[1]), node(&[], &[1], &[1])];
        assert_eq!(check(&list, &[0, 1], &[(1, 1)], &[1]), Ok(vec![2]), "2 had not touched it");
        assert_eq!(check(&list, &[0, 1], &[], &[]), Ok(vec![0, 1, 2]), "2 had touched it");
    }

    #[test]
    fn what_a_later_task_overwrote_is_made_again_for_readers() {
        // 0 writes f, 1 reads it, 2 overwrites it; 1 must run again.
        let list = [node(&[], &[], &[1]), node(&[], &[1], &[4]), node(&[], &[], &[1])];
        assert_eq!(
            check(&list, &[0, 2], &[(2, 1)], &[1]),
            Ok(vec![0, 1, 2]),
            "and then 2 overwrites it again"
        );
    }

    #[test]
    fn a_first_input_that_is_overwritten_cannot_be_had_back() {
        let list = [node(&[], &[1], &[4]), node(&[], &[], &[1])];
        assert_eq!(check(&list, &[1], &[], &[1]), Err(vec![Gone { task: 0, datum: 1 }]));
        assert_eq!(check(&list, &[1], &[], &[]), Ok(vec![0]), "nobody has changed it");
    }

    #[test]
    fn what_an_earlier_list_made_may_be_read() {
        let mut told = Told { sound: [0].into(), left: [(0, 1)].into(), written: [1].into() };
        let mut dirty = Dirty::default();
        let tree = Tree(&[]);
        assert_eq!(again(&[node(&[], &[], &[1])], &tree, &mut told, &mut dirty), Ok(vec![false]));
        told.sound.clear();
        assert_eq!(again(&[node(&[], &[1], &[])], &tree, &mut told, &mut dirty), Ok(vec![true]));
    }

    #[test]
    fn directories_are_related_to_what_is_in_them() {
        // Data 3 and 4 lie below 2.
        let list = [node(&[], &[], &[3]), node(&[], &[2], &[1]), node(&[], &[], &[4])];
        assert_eq!(check(&list, &[1, 2], &[], &[]), Ok(vec![0, 1]));
        let list = [node(&[], &[], &[2]), node(&[], &[3], &[1]), node(&[], &[4], &[])];
        assert_eq!(check(&list, &[0], &[(0, 2)], &[]), Ok(vec![1, 2]));
        assert_eq!(check(&list, &[0], &[], &[]), Ok(vec![0, 1, 2]));
    }
}
