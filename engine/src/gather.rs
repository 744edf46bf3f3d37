//! From what the user listed to what compile needs, and from the graph to a plan.
//!
//! One pass over the list *claims* every task for a new cohort (so that no other list can have it) and fills the
//! [`Listing`]; a second, only if some task takes results, finds the producers. A list with mistakes gives its claims
//! back and changes nothing else.

mod inputs;
mod layout;

pub(crate) use inputs::each_input;

use crate::check;
use crate::cohort::Cohort;
use crate::compile::placement::Layout;
use crate::compile::split::Piece;
use crate::compile::{self, Compilation, EDGES_MAX, Frontier, Listing, TASKS_MAX};
use crate::data::Access;
use crate::error::{CompileError, Error, Mistake};
use crate::graph::{JOIN, Outline};
use crate::outputs::Which;
use crate::plan::{Owned, Plan};
use crate::ranks::{self, Side};
use crate::shared::{Scratch, Shared};
use crate::task::chunk::{ChunkSlots, Compact};
use crate::task::list::{Each, Entry, Item};
use crate::task::output::Heard;
use crate::task::record::{Kept, Ref};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A task of an earlier submission that a list must wait for, with the accesses for which it must.
pub(crate) struct Gate {
    pub(crate) task: Kept,
    pub(crate) accesses: Vec<Access>,
}

struct Gather<'a> {
    shared: &'a Arc<Shared>,
    cohort: Arc<Cohort>,
    listing: &'a mut Listing,
    /// Places of the tasks, in list order.
    places: Vec<Compact>,
    slots: ChunkSlots,
    members: Vec<Owned>,
    bases: Vec<(u32, u32)>,
    mistakes: Vec<Mistake>,
    /// Earlier tasks at the head of the list.
    gates: Vec<Gate>,
    gate_of: HashMap<Ref, u32>,
    /// Tasks of lists that have run before, whose results tasks of other ranks may take.
    producers: Vec<Ref>,
    /// Tasks outside of the list of which its own take what they wrote, and whether they are gates.
    heard: Vec<(bool, Ref, Which)>,
    /// Some task may take results.
    has_inputs: bool,
    /// Some record is counted by itself.
    has_counted: bool,
    /// Some task is attended to, or may be tried again.
    attended: bool,
    /// The list was submitted, and runs after others.
    submitted: bool,
    has_processes: bool,
    /// Some task says on which rank it must run.
    has_ranks: bool,
    /// Some task says near to what it is to run.
    has_near: bool,
    /// Some task is run by several ranks at once.
    has_gangs: bool,
    /// Some task is an MPI job.
    has_jobs: bool,
    /// A compiled batch in the list is running.
    running: bool,
    /// The tasks lie in more chunks than a plan can name.
    too_many_chunks: bool,
}

/// Compiles what `each` shows.
pub(crate) fn compile(shared: &Arc<Shared>, each: Each<'_>, size_hint: usize) -> Result<Plan, Error> {
    compile_after(shared, each, size_hint, None)
}

/// Compiles what `each` shows, to run after what the gates stand for where it depends on that; with gates, and be it
/// none of them, it was submitted.
pub(crate) fn compile_after(
    shared: &Arc<Shared>,
    each: Each<'_>,
    size_hint: usize,
    gates: Option<Vec<Gate>>,
) -> Result<Plan, Error> {
    // One list at a time: it guards the claims in records, and the buffers.
    let mut scratch = shared.scratch.lock();
    let Scratch { listing, frontier } = &mut *scratch;
    let mut gather = Gather::new(shared, listing, size_hint);
    gather.submitted = gates.is_some();
    gather.add_gates(gates.unwrap_or_default());
    each(&mut |entry| gather.entry(&entry));
    let members = gather.members.clone();
    let plan = gather.plan(frontier);
    members.iter().for_each(|owned| owned.plan().stop_reading());
    plan
}

impl<'a> Gather<'a> {
    fn new(shared: &'a Arc<Shared>, listing: &'a mut Listing, size_hint: usize) -> Self {
        listing.clear();
        listing.access_ends.reserve(size_hint);
        Self {
            shared,
            cohort: shared.cohorts.add(),
            listing,
            places: Vec::with_capacity(size_hint),
            slots: ChunkSlots::default(),
            members: Vec::new(),
            bases: Vec::new(),
            mistakes: Vec::new(),
            gates: Vec::new(),
            gate_of: HashMap::new(),
            producers: Vec::new(),
            heard: Vec::new(),
            has_inputs: false,
            has_counted: false,
            attended: false,
            submitted: false,
            has_processes: false,
            has_ranks: false,
            has_near: false,
            has_gangs: false,
            has_jobs: false,
            running: false,
            too_many_chunks: false,
        }
    }

    fn add_gates(&mut self, gates: Vec<Gate>) {
        self.listing.gates = gates.len();
        self.attended |= !gates.is_empty();
        for gate in &gates {
            self.gate_of.insert(gate.task.0, self.places.len() as u32);
            self.listing.accesses.extend_from_slice(&gate.accesses);
            self.listing.access_ends.push(self.listing.accesses.len() as u32);
            self.places.push(Compact::NONE);
        }
        self.gates = gates;
    }

    /// The tasks of the list, in order.
    fn tasks(&self) -> impl Iterator<Item = Ref> + Clone + '_ {
        self.places.iter().skip(self.gates.len()).map(|place| self.slots.resolve(*place))
    }

    #[inline]
    fn entry(&mut self, entry: &Entry<'_>) {
        match &entry.0 {
            Item::Task(task) => self.task(*task),
            Item::Compiled(plan) => self.compiled(plan),
        }
    }

    #[inline]
    fn task(&mut self, task: Ref) {
        let index = self.places.len() as u32;
        if !self.slots.is_last(task) && !Arc::ptr_eq(task.shared(), self.shared) {
            self.mistakes.push(Mistake::ForeignTask { task: index, name: task.name() });
            return;
        }
        let head = task.head();
        if head.cohort.load(Ordering::Relaxed) != 0 || task.is_queued() && !self.submitted {
            return self.not_new(index, task);
        }
        head.index.store(index, Ordering::Relaxed);
        head.cohort.store(self.cohort.id, Ordering::Release);
        self.has_inputs |= head.code.inputs.is_some();
        self.has_counted |= !task.is_plain();
        self.attended |= task.is_attended() || task.keeps_arguments();
        self.has_processes |= head.code.command.is_some();
        task.add_accesses(&mut self.listing.accesses);
        self.add(task);
        if task.extra().is_some() {
            self.extra(index as usize, task);
        }
    }

    #[inline]
    fn add(&mut self, task: Ref) {
        self.listing.access_ends.push(self.listing.accesses.len() as u32);
        let place = self.slots.place(task);
        self.too_many_chunks |= place.is_none();
        self.places.push(place.unwrap_or(Compact::NONE));
    }

    #[cold]
    fn not_new(&mut self, index: u32, task: Ref) {
        match self.position(task) {
            Some(first) => self.twice(index, first, task),
            None => self.mistakes.push(Mistake::Relisted { task: index, name: task.name() }),
        }
    }

    fn twice(&mut self, task: u32, first: u32, what: Ref) {
        self.mistakes.push(Mistake::Twice { task, first, name: what.name() });
    }

    fn compiled(&mut self, owned: &Owned) {
        let plan = owned.plan();
        let base = self.places.len() as u32;
        if !Arc::ptr_eq(&plan.shared, self.shared) {
            let name = "a compiled batch".to_string();
            self.mistakes.push(Mistake::ForeignTask { task: base, name });
            return;
        }
        let list = plan.list();
        if list.is_empty() {
            // Nothing of it runs, so it may be listed again.
            return;
        }
        if let Some((task, first)) = list.iter().find_map(|t| Some((*t, self.position(*t)?))) {
            return self.twice(base, first, task);
        }
        if !plan.try_start_reading() {
            self.running = true;
            return;
        }
        self.members.push(owned.clone());
        self.bases.extend(plan.bases.iter().map(|(cohort, b)| (*cohort, b + base)));
        for (i, task) in list.into_iter().enumerate() {
            self.has_inputs |= task.head().code.inputs.is_some();
            self.attended |= task.is_attended() || task.keeps_arguments();
            self.listing.accesses.extend_from_slice(task.accesses());
            self.add(task);
            if task.extra().is_some() {
                self.extra(base as usize + i, task);
            }
        }
    }

    /// Where a task is in this list, if it is.
    #[inline]
    fn position(&self, task: Ref) -> Option<u32> {
        // Another batch numbers its cohorts as this one does.
        if !Arc::ptr_eq(task.shared(), self.shared) {
            return None;
        }
        match task.head().cohort.load(Ordering::Acquire) {
            id if id == self.cohort.id => Some(task.index()),
            id => self.bases.iter().find(|(cohort, _)| *cohort == id).map(|(_, base)| base + task.index()),
        }
    }

    #[cold]
    fn extra(&mut self, index: usize, task: Ref) {
        let Some(extra) = task.extra() else { return };
        self.mistakes.extend(extra.mistakes.iter().cloned());
        self.has_ranks |= extra.rank.is_some();
        self.has_near |= extra.near.is_some();
        self.has_gangs |= extra.gang > 1;
        let is_job = extra.need.as_ref().is_some_and(|need| need.job.is_some());
        self.has_jobs |= is_job;
        if (extra.gang > 1 || is_job) && self.shared.ranks.as_ref().is_some_and(|ranks| ranks.survives()) {
            // A member may be lost; then others take its place.
            task.keep_arguments();
            self.attended = true;
        }
        if let Some(need) = &extra.need {
            check::need(self.shared, index as u32, task, need, &mut self.mistakes);
        }
        let n = index + 1;
        if extra.priority != 0 {
            let all = self.listing.priorities.get_or_insert_default();
            all.resize(n.max(all.len()), 0);
            all[index] = extra.priority;
        }
        if extra.cost.to_bits() != 1.0f32.to_bits() {
            let all = self.listing.costs.get_or_insert_default();
            all.resize(n.max(all.len()), 1.0);
            all[index] = extra.cost;
        }
    }

    fn plan(mut self, frontier: &mut Frontier) -> Result<Plan, Error> {
        match self.graph(frontier) {
            Ok(compiled) => Ok(self.commit(compiled)),
            Err(error) => {
                self.give_back();
                Err(error)
            }
        }
    }

    fn graph(&mut self, frontier: &mut Frontier) -> Result<Compiled, Error> {
        if self.running {
            return Err(Error::AlreadyRunning);
        }
        let tasks = self.places.len();
        if tasks > TASKS_MAX || self.too_many_chunks {
            self.mistakes.push(Mistake::TooManyTasks { tasks, max: TASKS_MAX });
            return Err(self.mistakes());
        }
        if let Some(connection) = self.shared.executor.connection() {
            let mut mistakes = Vec::new();
            connection.check_tasks(self.tasks(), &mut mistakes);
            self.mistakes.append(&mut mistakes);
        } else if self.has_processes {
            let mut mistakes = Vec::new();
            check::processes(self.shared, self.tasks(), self.submitted, &mut mistakes);
            self.mistakes.append(&mut mistakes);
        }
        let externals = if self.has_inputs { self.find_inputs() } else { Vec::new() };
        if !self.mistakes.is_empty() {
            return Err(self.mistakes());
        }
        if let Some(priorities) = &mut self.listing.priorities {
            priorities.resize(tasks, 0);
        }
        if let Some(costs) = &mut self.listing.costs {
            costs.resize(tasks, 1.0);
        }
        self.listing.parents = self.shared.space.parents();
        self.listing.data_len = self.shared.space.len();
        let mut layout = self.layout(&externals);
        if !self.mistakes.is_empty() {
            return Err(self.mistakes());
        }
        loop {
            let Compilation { outline, pieces, whole, edges } = graph(self.listing, frontier, &layout)?;
            let Some(ranks) = self.shared.ranks.as_ref().filter(|_| !pieces.is_empty()) else {
                return Ok(Compiled { outline, whole, edges, externals, side: None, exported: Vec::new() });
            };
            let task = |index: u32| self.at(index);
            let others = self.others();
            match ranks::spread(ranks, self.shared, &self.cohort, &pieces, others, &self.producers, &task) {
                Ok(side) => {
                    let exported = valued_exports(&pieces[0], self.gates.len());
                    let side = Some(Box::new(side));
                    let is_here = |(index, _): &(u32, Ref)| !self.is_away(*index);
                    let externals = externals.into_iter().filter(is_here).collect();
                    return Ok(Compiled { outline, whole, edges, externals, side, exported });
                }
                // It stays here, where it fails if it must.
                Err(unwritten) => {
                    for ranks::Unwritten(index, error) in unwritten {
                        tracing::warn!(target: "tarragon", task = index, %error, "cannot go to another rank");
                        layout.fixed[index as usize] = 0;
                    }
                }
            }
        }
    }

    /// What stands at a place of the list; behind it are producers from outside.
    fn at(&self, index: u32) -> Ref {
        let index = index as usize;
        match (self.gates.get(index), index.checked_sub(self.places.len())) {
            (Some(gate), _) => gate.task.0,
            (None, Some(producer)) => self.producers[producer],
            (None, None) => self.slots.resolve(self.places[index]),
        }
    }

    /// Where tasks are, of this list and of others.
    fn others(&self) -> ranks::Places {
        let outside = self.producers.iter().copied().zip(self.places.len() as u32..);
        let gates = self.gate_of.iter().map(|(task, place)| (*task, *place));
        let bases = self.bases.iter().copied().chain([(self.cohort.id, 0)]).collect();
        ranks::Places { bases, others: outside.chain(gates).collect() }
    }

    /// Whether the task at a place of the list runs on another rank.
    fn is_away(&self, index: u32) -> bool {
        self.cohort.elsewhere().is_some_and(|elsewhere| elsewhere.is_away(index))
    }

    fn mistakes(&mut self) -> Error {
        Error::Compile(CompileError { mistakes: std::mem::take(&mut self.mistakes) })
    }

    /// Nothing can go wrong any more.
    fn commit(mut self, compiled: Compiled) -> Plan {
        let Compiled { outline: graph, whole, edges, externals, side, exported } = compiled;
        let own = self.cohort.id;
        self.bases.push((own, 0));
        if self.has_counted {
            self.tasks()
                .filter(|t| !t.is_plain() && t.head().cohort.load(Ordering::Relaxed) == own)
                .for_each(Ref::add_hold);
        }
        let consumed = if self.listing.inputs.is_empty() { Box::default() } else { self.consume(&exported) };
        let externals = if externals.is_empty() { Box::default() } else { by_node(&graph, &externals) };
        let gates = gates_by_node(&graph, std::mem::take(&mut self.gates));
        let records = if graph.is_list_order() {
            self.places.into_boxed_slice()
        } else {
            (0..graph.len())
                .map(|node| match graph.task(node) {
                    JOIN => Compact::NONE,
                    task => self.places[task as usize],
                })
                .collect()
        };
        let chunks = self.slots.finish();
        chunks.keep_cohort(&self.cohort);
        Plan {
            shared: Arc::clone(self.shared),
            cohort: self.cohort,
            members: self.members,
            bases: self.bases,
            graph,
            whole,
            edges,
            records,
            chunks,
            attended: self.attended,
            has_counted: self.has_counted,
            consumed,
            externals,
            heard: Heard::of(self.heard),
            gates,
            side,
            client: None,
            reused: AtomicUsize::new(0),
            owners: AtomicU32::new(1),
            open_runs: AtomicU32::new(0),
            measured: Mutex::new(None),
            is_gift: false,
            all_may_leave: OnceLock::new(),
            member: ranks::OfPlan::default(),
        }
    }

    /// Turns arguments from this list into uses, and counts them per producer, as far as they are of this rank; a value
    /// that is `exported` to others is used by that.
    fn consume(&self, exported: &[u32]) -> Box<[(Compact, u32)]> {
        let mut uses = vec![0u32; self.places.len()];
        exported.iter().for_each(|index| uses[*index as usize] += 1);
        for task in self.tasks() {
            let is_here = !self.position(task).is_some_and(|place| self.is_away(place));
            // A compiled batch in the list also runs without it, so its arguments from outside stay so.
            let is_own = task.head().cohort.load(Ordering::Relaxed) == self.cohort.id;
            each_input(task, &mut |input| {
                if let Some(at) = self.position(input.task)
                    && (is_own || input.is_internal())
                {
                    input.make_internal();
                    uses[at as usize] += u32::from(is_here);
                }
            });
        }
        let used = uses.iter().enumerate().filter(|(_, n)| **n > 0);
        used.map(|(at, n)| (self.places[at], *n)).collect()
    }

    /// Lets go of the tasks. Handles in other threads may have seen the cohort meanwhile, so it stays with the chunks.
    fn give_back(self) {
        let id = self.cohort.id;
        for place in self.places.iter().filter(|p| **p != Compact::NONE) {
            let cohort = &self.slots.resolve(*place).head().cohort;
            let _ = cohort.compare_exchange(id, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        self.slots.finish().keep_cohort(&self.cohort);
    }
}

/// A list with a graph.
struct Compiled {
    outline: Outline,
    whole: Option<Outline>,
    edges: Option<usize>,
    /// Tasks that take a result from outside, by index, and whose.
    externals: Vec<(u32, Ref)>,
    side: Option<Box<Side>>,
    /// Tasks of this rank whose values go to others, by index.
    exported: Vec<u32>,
}

fn valued_exports(piece: &Piece, gates: usize) -> Vec<u32> {
    let tasks = piece.own().iter().enumerate();
    let is_valued = |(own, _): &(usize, &u32)| piece.exports.have_value(*own);
    // A gate has no record of its own: what it gives is kept by who takes it.
    tasks.filter(is_valued).map(|(_, index)| *index).filter(|index| *index as usize >= gates).collect()
}

fn graph(listing: &Listing, frontier: &mut Frontier, layout: &Layout) -> Result<Compilation, Error> {
    compile::compile(listing, frontier, layout).map_err(|_| {
        Error::Compile(CompileError { mistakes: vec![Mistake::TooManyEdges { max: EDGES_MAX }] })
    })
}

fn gates_by_node(graph: &Outline, gates: Vec<Gate>) -> Box<[(u32, Kept)]> {
    let mut gates: Vec<Option<Kept>> = gates.into_iter().map(|gate| Some(gate.task)).collect();
    let nodes = if gates.is_empty() { 0 } else { graph.len() };
    let task = |node| gates.get_mut(graph.task(node) as usize).and_then(Option::take);
    let mut task = task;
    (0..nodes).filter_map(|node| Some((node, task(node)?))).collect()
}

/// A task that is to be submitted: what is wrong with it already.
pub(crate) fn check_task(shared: &Arc<Shared>, index: u32, task: Ref, mistakes: &mut Vec<Mistake>) {
    if !Arc::ptr_eq(task.shared(), shared) {
        return mistakes.push(Mistake::ForeignTask { task: index, name: task.name() });
    }
    if let Some(extra) = task.extra() {
        mistakes.extend(extra.mistakes.iter().cloned());
        if let Some(need) = &extra.need {
            check::need(shared, index, task, need, mistakes);
        }
    }
    if let Some(connection) = shared.executor.connection() {
        connection.check_tasks(std::iter::once(task), mistakes);
    } else if task.head().code.command.is_some() {
        check::processes(shared, std::iter::once(task), true, mistakes);
    }
}

fn by_node(graph: &Outline, externals: &[(u32, Ref)]) -> Box<[(u32, Ref)]> {
    let mut node_of = std::collections::HashMap::new();
    (0..graph.len()).for_each(|node| {
        node_of.insert(graph.task(node), node);
    });
    externals.iter().map(|(index, producer)| (node_of[index], *producer)).collect()
}

/// The listing of a plan made again, with indices of its own list: for drawings. The caller keeps the plan from
/// running.
pub(crate) fn listing_of(plan: &Plan) -> Listing {
    let mut listing = Listing::default();
    let tasks = plan.list();
    let position = |task: Ref| {
        let id = task.head().cohort.load(Ordering::Acquire);
        plan.bases.iter().find(|(cohort, _)| *cohort == id).map(|(_, base)| base + task.index())
    };
    for task in &tasks {
        listing.accesses.extend_from_slice(task.accesses());
        listing.access_ends.push(listing.accesses.len() as u32);
        each_input(*task, &mut |input| listing.inputs.extend(position(input.task)));
        listing.input_ends.push(listing.inputs.len() as u32);
    }
    listing.parents = plan.shared.space.parents();
    listing.data_len = plan.shared.space.len();
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// One task stands for all: a real list of so many would take gigabytes.
    #[test]
    fn a_list_that_is_too_long_says_its_bound() {
        let batch = crate::Builder::default().workers(crate::Workers::Serial).build().expect("a batch");
        let task = batch.function(|| 1u8, ());
        let mut listing = Listing::default();
        let mut gather = Gather::new(task.task().shared(), &mut listing, 0);
        gather.places = vec![Compact::NONE; TASKS_MAX + 1];
        let error = gather.plan(&mut Frontier::default()).err().expect("one too many");
        expect![[r#"
            the task list has 1 mistake
              the list has 16777216 tasks, at most 16777215 fit in one: compile it in parts"#]]
        .assert_eq(&error.to_string());
    }
}
