//! A compiled graph before anybody needs its arrays: edges by target, as compile found them.
//!
//! A run that stays on one worker walks the nodes in order and looks at no edge. So the arrays that other workers need
//! are frozen when the first of them comes, by whoever opens the run; after that the outline is the arrays.

use super::csr::{Csr, JOIN};
use crate::compile::Dependences;
use crate::schedule::Ready;
use std::sync::{Mutex, OnceLock};

/// The arrays of a graph and a counter for each node: what a run by several workers needs.
pub(crate) struct Frozen {
    pub(crate) csr: Csr,
    pub(crate) ready: Ready,
}

impl Frozen {
    fn new(csr: Csr) -> Self {
        Self { ready: Ready::new((0..csr.len() as u32).map(|node| csr.in_degree(node))), csr }
    }
}

/// A graph whose arrays are made when needed.
pub(crate) struct Outline {
    nodes: u32,
    /// For each node its task, or [`JOIN`]; `None` when nodes are tasks.
    tasks: Option<Box<[u32]>>,
    found: Mutex<Option<Dependences>>,
    frozen: OnceLock<Frozen>,
}

impl Outline {
    /// A graph in list order, with unit costs: its arrays can wait.
    pub(crate) fn later(found: &Dependences) -> Self {
        Self {
            nodes: found.vertices() as u32,
            tasks: found.tasks.as_deref().map(Into::into),
            found: Mutex::new(Some(found.copy())),
            frozen: OnceLock::new(),
        }
    }

    /// A graph frozen in the order of `order`, with priorities.
    pub(crate) fn now(found: &Dependences, order: &[u32], csr: Csr) -> Self {
        let task = |v: u32| found.tasks.as_ref().map_or(v, |t| t[v as usize]);
        Self {
            nodes: order.len() as u32,
            tasks: Some(order.iter().map(|v| task(*v)).collect()),
            found: Mutex::new(None),
            frozen: OnceLock::from(Frozen::new(csr)),
        }
    }

    /// Number of nodes.
    pub(crate) fn len(&self) -> u32 {
        self.nodes
    }

    /// Whether nodes are tasks in list order.
    pub(crate) fn is_list_order(&self) -> bool {
        self.tasks.is_none()
    }

    /// The index in the list of a node's task; [`JOIN`] if it has none.
    #[inline(always)]
    pub(crate) fn task(&self, node: u32) -> u32 {
        self.tasks.as_ref().map_or(node, |t| t[node as usize])
    }

    /// The arrays; the first call makes them (about 15 ns per task).
    pub(crate) fn frozen(&self) -> &Frozen {
        self.frozen.get_or_init(|| {
            let found = self.found.lock().expect("making arrays does not panic").take();
            let found = found.expect("the dependences are there until they are frozen, once");
            let cost = |task: u32| u32::from(task != JOIN);
            Frozen::new(Csr::freeze(&found, None, |_| 0, |best, task| best + cost(task)))
        })
    }
}
