//! Compile from outside: a list as text goes in, edges as text come out; and random lists against the naive
//! definition of a conflict.

mod edges;
mod limits;
mod naive;
mod order;

use super::placement::Layout;
use super::{Frontier, Listing, NEEDS, compile, explain};
use crate::data::{Access, Space};
use crate::graph::{Csr, JOIN, Outline};
use std::fmt::Write;
use std::path::Path;

/// One datum a task declares: a file if the name starts with `/`, a key if it looks like `rows[7]`, else a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Touch {
    datum: String,
    writes: bool,
}

/// One line of a list.
#[derive(Clone, Debug, Default)]
struct Step {
    name: String,
    touches: Vec<Touch>,
    takes: Vec<usize>,
    priority: i32,
    cost: f32,
}

/// Reads `a: reads x, writes /d/f, takes b, priority 3, cost 2`, one task per line.
fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, rest) = line.split_once(':').expect("`name: …`");
        let mut step = Step { name: name.to_string(), cost: 1.0, ..Step::default() };
        for part in rest.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (verb, what) = part.split_once(' ').expect("`verb object`");
            match verb {
                "reads" | "writes" => {
                    step.touches.push(Touch { datum: what.to_string(), writes: verb == "writes" });
                }
                "takes" => {
                    step.takes.push(steps.iter().position(|s| s.name == what).expect("an earlier task"));
                }
                "priority" => step.priority = what.parse().expect("a number"),
                "cost" => step.cost = what.parse().expect("a number"),
                _ => panic!("no verb: {verb}"),
            }
        }
        steps.push(step);
    }
    steps
}

/// Names a datum as a user's task would.
fn intern(space: &Space, datum: &str) -> u32 {
    if datum.starts_with('/') {
        return space.file(Path::new(datum)).expect("an absolute path").id;
    }
    match datum.strip_suffix(']').and_then(|d| d.split_once('[')) {
        Some((namespace, key)) => space.keys(namespace).at(key.parse().expect("a number")).id,
        None => space.named(datum).id,
    }
}

/// The listing that `gather` would make of these tasks.
fn listing(steps: &[Step], space: &Space) -> Listing {
    let mut list = Listing::default();
    let has_inputs = steps.iter().any(|s| !s.takes.is_empty());
    for step in steps {
        let mut accesses: Vec<Access> = Vec::new();
        for touch in &step.touches {
            let id = intern(space, &touch.datum);
            accesses.push(if touch.writes { Access::write(id) } else { Access::read(id) });
        }
        // A record keeps its reads before its writes.
        accesses.sort_by_key(|a| a.writes());
        list.accesses.extend(accesses);
        list.access_ends.push(list.accesses.len() as u32);
        if has_inputs {
            list.inputs.extend(step.takes.iter().map(|from| *from as u32));
            list.input_ends.push(list.inputs.len() as u32);
        }
    }
    if steps.iter().any(|s| s.priority != 0) {
        list.priorities = Some(steps.iter().map(|s| s.priority).collect());
    }
    if steps.iter().any(|s| (s.cost - 1.0).abs() > 0.0) {
        list.costs = Some(steps.iter().map(|s| s.cost).collect());
    }
    list.parents = space.parents();
    list.data_len = space.len();
    list
}

/// A graph with its arrays, which a run by several workers would make.
struct Arrays(Outline);

impl Arrays {
    fn task(&self, node: u32) -> u32 {
        self.0.task(node)
    }
}

impl std::ops::Deref for Arrays {
    type Target = Csr;

    fn deref(&self) -> &Csr {
        &self.0.frozen().csr
    }
}

/// Compiles with buffers that an earlier list has used.
fn compiled(steps: &[Step], frontier: &mut Frontier) -> Arrays {
    Arrays(
        compile(&listing(steps, &Space::new(None)), frontier, &Layout::local()).expect("few edges").outline,
    )
}

/// For each task the set of tasks that come after it, by list index; joins are passed through.
fn closure(csr: &Arrays, tasks: usize) -> Vec<Vec<bool>> {
    let mut after = vec![vec![false; tasks]; csr.len()];
    for node in (0..csr.len()).rev() {
        for target in csr.targets(node as u32) {
            let target = (target & !NEEDS) as usize;
            assert!(target > node, "node {target} comes after node {node}");
            let (low, high) = after.split_at_mut(target);
            low[node].iter_mut().zip(&high[0]).for_each(|(mine, theirs)| *mine |= theirs);
            if csr.task(target as u32) != JOIN {
                low[node][csr.task(target as u32) as usize] = true;
            }
        }
    }
    let mut by_task = vec![Vec::new(); tasks];
    for (node, set) in after.into_iter().enumerate() {
        if csr.task(node as u32) != JOIN {
            by_task[csr.task(node as u32) as usize] = set;
        }
    }
    by_task
}
