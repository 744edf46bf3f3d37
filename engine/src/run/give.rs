//! Ready nodes that leave this pool again, because another rank has nothing to do (see `ranks::steal`): the oldest, as
//! any thief of a deque gets, from wherever they are while no worker runs them.
//!
//! What cannot go stays where it is, in its order: a body may wait, by means of its own, for what bodies before it in
//! the list do, and would wait for ever if they came behind it. Nobody can look into a deque without taking; so only
//! hoards are looked into unless all that could be found can go.

use super::node::Run;
use super::pool::{Piece, Pool};
use super::solo::ALONE;
use super::worker::{Kept, POISONED};
use crossbeam_deque::Steal;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was found: nodes that can go, and pieces that cannot, for reasons that came up meanwhile.
struct Found<'a> {
    wanted: usize,
    can_go: &'a dyn Fn(u32) -> bool,
    slot: u32,
    nodes: Vec<u32>,
    useless: Vec<Piece>,
}

impl Found<'_> {
    fn is_enough(&self) -> bool {
        self.nodes.len() >= self.wanted || !self.useless.is_empty()
    }

    fn add(&mut self, piece: Piece) {
        let is_ours = piece.run == self.slot && piece.node & POISONED == 0;
        if is_ours && self.nodes.len() < self.wanted && (self.can_go)(piece.node) {
            self.nodes.push(piece.node);
        } else {
            self.useless.push(piece);
        }
    }
}

impl Pool {
    /// Workers that nothing keeps from working but that there is nothing to do: those that search count.
    pub(crate) fn idle(&self) -> u32 {
        self.seats.idle()
    }

    /// About how many nodes of a run are ready and wait for a worker; 0 while a worker waits for nodes.
    pub(crate) fn surplus(&self, run: &Run) -> usize {
        if self.seats.idle() > 0 {
            return 0;
        }
        let hints = self.places.iter().map(|place| place.hoard.hint()).filter(|hint| hint & ALONE == 0);
        let kept: usize = hints.map(|hint| hint as usize).sum();
        let shared: usize = self.places.iter().map(|place| place.stealer.len()).sum();
        kept + shared + self.outside.len() + run.roots_left() as usize
    }

    /// Takes up to `wanted` ready nodes of a run away, of those that can go. Whoever has them ends them (see
    /// [`Run::end_outside`]), or puts them back.
    pub(crate) fn give(
        self: &Arc<Self>,
        run: &Arc<Run>,
        wanted: usize,
        can_go: &dyn Fn(u32) -> bool,
    ) -> Vec<u32> {
        let slot = run.slot.load(Ordering::Acquire);
        // While this is held no run gets or loses its place, so what names the place is of this run.
        let active = self.active.read();
        if !active.has(slot, run) {
            return Vec::new();
        }
        let mut found = Found { wanted, can_go, slot, nodes: Vec::new(), useless: Vec::new() };
        if active.order.len() == 1 && run.plan.all_may_leave() {
            for place in &self.places {
                take(&mut found, || place.stealer.steal());
            }
            take(&mut found, || self.outside.steal());
            run.give_roots(&mut found);
        }
        for place in &self.places {
            let hint = place.hoard.hint();
            if !found.is_enough() && hint != 0 && hint & ALONE == 0 {
                let wanted = found.wanted - found.nodes.len();
                let nodes = place.hoard.raid(|kept| kept.give(run, wanted, can_go)).unwrap_or_default();
                found.nodes.extend(nodes);
            }
        }
        drop(active);
        let Found { nodes, useless, .. } = found;
        self.put(useless);
        nodes
    }

    /// Puts nodes back that [`give`](Self::give) gave.
    pub(crate) fn put_back(self: &Arc<Self>, run: &Run, nodes: impl IntoIterator<Item = u32>) {
        let slot = run.slot.load(Ordering::Acquire);
        self.put(nodes.into_iter().map(|node| Piece { run: slot, node }).collect());
    }

    fn put(self: &Arc<Self>, pieces: Vec<Piece>) {
        let work = pieces.len() as u32;
        pieces.into_iter().for_each(|piece| self.outside.push(piece));
        self.look_after(work);
    }
}

fn take(found: &mut Found<'_>, mut steal: impl FnMut() -> Steal<Piece>) {
    while !found.is_enough() {
        match steal() {
            Steal::Success(piece) => found.add(piece),
            Steal::Retry => std::hint::spin_loop(),
            Steal::Empty => return,
        }
    }
}

impl Run {
    /// Roots that nobody has taken.
    fn roots_left(&self) -> u32 {
        if !self.has_roots() {
            return 0;
        }
        self.roots().saturating_sub(self.cursor.load(Ordering::Relaxed))
    }

    fn give_roots(&self, found: &mut Found<'_>) {
        while !found.is_enough() && self.has_roots() {
            let roots = self.plan.graph.frozen().csr.roots();
            let wanted = (found.wanted - found.nodes.len()) as u32;
            let start = self.cursor.fetch_add(wanted, Ordering::AcqRel);
            let end = start.saturating_add(wanted).min(roots.len());
            for root in start..end {
                let node = self.root(roots.get(root));
                // What stands for a task elsewhere is nothing to run.
                if !self.plan.is_import(node & !POISONED) {
                    found.add(Piece { run: found.slot, node });
                }
            }
        }
    }
}

impl Kept {
    /// The oldest of what is kept of a run that can go, and of roots the last; and how much is left.
    fn give(&mut self, run: &Arc<Run>, wanted: usize, can_go: &dyn Fn(u32) -> bool) -> (Vec<u32>, u32) {
        if let Some(node) = self.solo {
            return (Vec::new(), ALONE | node);
        }
        let mut nodes = Vec::new();
        if !self.run.as_ref().is_some_and(|(_, kept)| Arc::ptr_eq(kept, run)) {
            return (nodes, self.len());
        }
        let leaves = |node: u32| node & POISONED == 0 && can_go(node);
        self.nodes.retain(|node| {
            let goes = nodes.len() < wanted && leaves(*node);
            if goes {
                nodes.push(*node);
            }
            !goes
        });
        let roots = run.plan.graph.frozen().csr.roots();
        while nodes.len() < wanted && !self.roots.is_empty() {
            let node = run.root(roots.get(self.roots.end - 1));
            if !leaves(node) {
                break;
            }
            nodes.push(node);
            self.roots.end -= 1;
        }
        (nodes, self.len())
    }
}
