//! A graph to look at: tasks by name, edges with their reasons, as petgraph and in drawings.

use crate::compile::Hazard;
use petgraph::algo::tred::{dag_to_toposorted_adjacency_list, dag_transitive_reduction_closure};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

/// One reason why a task comes before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The earlier task, by index in the list.
    pub from: u32,
    /// The later task.
    pub to: u32,
    /// Why.
    pub hazard: Hazard,
    /// The datum; `None` for arguments.
    pub datum: Option<String>,
}

/// The graph of a compiled batch, for checks and drawings; made on demand by
/// [`Compiled::graph`](crate::Compiled::graph). Running uses other arrays.
///
/// ```
/// # use tarragon_engine::{Batch, tasks};
/// let batch = Batch::new()?;
/// let a = batch.function(|| 1u8, ()).name("a").writes("/tmp/x");
/// let b = batch.function(|| 2u8, ()).name("b").reads("/tmp/x");
/// let graph = batch.compile(tasks![a, b])?.graph();
/// assert_eq!(graph.petgraph().edge_count(), 1);
/// assert!(graph.to_dot().contains("RAW /tmp/x"));
/// # Ok::<(), tarragon_engine::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) names: Vec<String>,
    pub(crate) edges: Vec<Edge>,
}

impl Graph {
    /// Names of the tasks, in list order.
    pub fn tasks(&self) -> &[String] {
        &self.names
    }

    /// Every direct dependence with its reason, by later then earlier task. One pair may have several.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The graph as petgraph sees it: tasks by name, one edge per pair with the reasons joined. Node index is list
    /// index.
    pub fn petgraph(&self) -> DiGraph<String, String> {
        let mut graph = DiGraph::with_capacity(self.names.len(), self.edges.len());
        self.names.iter().for_each(|n| {
            graph.add_node(n.clone());
        });
        let mut edges = self.edges.iter().peekable();
        while let Some(edge) = edges.next() {
            let mut label = reason(edge);
            while let Some(more) = edges.next_if(|e| (e.from, e.to) == (edge.from, edge.to)) {
                label.push_str(", ");
                label.push_str(&reason(more));
            }
            graph.add_edge(NodeIndex::new(edge.from as usize), NodeIndex::new(edge.to as usize), label);
        }
        graph
    }

    /// The same graph without the edges that others imply. Cost: up to tasks × edges; for drawings.
    ///
    /// *Source*: Habib, Morvan, Rampon, "On the calculation of transitive reduction-closure of orders" (1993).
    pub fn reduced(&self) -> DiGraph<String, String> {
        let mut graph = self.petgraph();
        // Every edge goes up, so list order is a topological order.
        let order: Vec<NodeIndex> = graph.node_indices().collect();
        let (list, _) = dag_to_toposorted_adjacency_list::<_, u32>(&graph, &order);
        let (reduction, _) = dag_transitive_reduction_closure(&list);
        graph.retain_edges(|g, e| {
            let (a, b) = g.edge_endpoints(e).expect("an edge of this graph");
            reduction.contains_edge(a.index() as u32, b.index() as u32)
        });
        graph
    }

    /// Checks what every graph must keep: edges go from lower to higher index and name tasks of the list.
    ///
    /// # Errors
    /// The first edge that does not.
    pub fn check(&self) -> Result<(), Edge> {
        let n = self.names.len() as u32;
        let wrong = self.edges.iter().find(|e| e.from >= e.to || e.to >= n);
        wrong.map_or(Ok(()), |e| Err(e.clone()))
    }

    /// The largest number of tasks at one depth: an estimate of how many can run at once.
    pub fn width(&self) -> usize {
        let depths = self.depths();
        let mut counts = vec![0; self.names.len() + 1];
        depths.iter().for_each(|d| counts[*d] += 1);
        counts.into_iter().max().unwrap_or(0)
    }

    /// The length of the longest path to each task, in edges.
    pub(crate) fn depths(&self) -> Vec<usize> {
        let mut depths = vec![0; self.names.len()];
        for e in &self.edges {
            depths[e.to as usize] = depths[e.to as usize].max(depths[e.from as usize] + 1);
        }
        depths
    }

    /// Edges of the reduced graph as `(from, to, reasons)`.
    pub(crate) fn drawn(&self) -> Vec<(usize, usize, String)> {
        let graph = self.reduced();
        graph
            .edge_references()
            .map(|e| (e.source().index(), e.target().index(), e.weight().clone()))
            .collect()
    }
}

/// `RAW /tmp/x`, `argument`.
pub(crate) fn reason(edge: &Edge) -> String {
    let why = match edge.hazard {
        Hazard::Raw => "RAW",
        Hazard::War => "WAR",
        Hazard::Waw => "WAW",
        Hazard::Argument => return "argument".to_string(),
    };
    format!("{why} {}", edge.datum.as_deref().unwrap_or("?"))
}
