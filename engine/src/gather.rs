//! From what the user listed to what compile needs, and from the graph to a plan.
//!
//! Three steps: *claim* every task for a new cohort (so that no other list can), *check* arguments and declarations
//! and fill the [`Listing`], and, when there is no mistake, *commit*. A list with mistakes gives its claims back and
//! changes nothing.

use crate::cohort::Cohort;
use crate::compile::{self, EDGES_MAX, Frontier, Listing, TASKS_MAX};
use crate::error::{CompileError, Error, Mistake};
use crate::graph::{Csr, JOIN};
use crate::plan::{Owned, Plan};
use crate::schedule::Ready;
use crate::shared::{Scratch, Shared};
use crate::task::chunk::{ChunkSlots, Compact};
use crate::task::list::{Each, Entry, Item};
use crate::task::record::{CLAIMED, Ref, state};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

struct Gather<'a> {
    shared: &'a Arc<Shared>,
    tasks: Vec<Ref>,
    /// Which of `tasks` were claimed by this list.
    own: usize,
    members: Vec<Owned>,
    bases: Vec<(u32, u32)>,
    mistakes: Vec<Mistake>,
    /// Some task may take results.
    has_inputs: bool,
    /// Compiled batches kept from running while we look at their tasks.
    reading: Vec<Owned>,
    /// A compiled batch in the list is running.
    running: bool,
}

/// Compiles what `each` shows.
pub(crate) fn compile(shared: &Arc<Shared>, each: Each<'_>, size_hint: usize) -> Result<Plan, Error> {
    // One list at a time: it guards the marks that claims leave in records, and the buffers.
    let mut scratch = shared.scratch.lock();
    let mut gather = Gather {
        shared,
        tasks: Vec::with_capacity(size_hint),
        own: 0,
        members: Vec::new(),
        bases: Vec::new(),
        mistakes: Vec::new(),
        has_inputs: false,
        reading: Vec::new(),
        running: false,
    };
    each(&mut |entry| gather.entry(&entry));
    let plan = gather.plan(&mut scratch);
    if plan.is_err() {
        gather.give_back();
    }
    gather.reading.iter().for_each(|owned| owned.plan().stop_reading());
    plan
}

impl Gather<'_> {
    fn entry(&mut self, entry: &Entry<'_>) {
        match &entry.0 {
            Item::Task(task) => self.task(*task),
            Item::Compiled(plan) => self.compiled(plan),
        }
    }

    #[inline]
    fn task(&mut self, task: Ref) {
        let index = self.tasks.len() as u32;
        if !Arc::ptr_eq(task.shared(), self.shared) {
            self.mistakes.push(Mistake::ForeignTask { task: index, name: task.name() });
            return;
        }
        let head = task.head();
        match head.cohort.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                head.index.store(index, Ordering::Relaxed);
                self.has_inputs |= head.code.inputs.is_some();
                self.tasks.push(task);
                self.own += 1;
            }
            Err(CLAIMED) => self.twice(index, task.index(), task),
            Err(_) => match self.position(task) {
                Some(first) => self.twice(index, first, task),
                None => self.mistakes.push(Mistake::Relisted { task: index, name: task.name() }),
            },
        }
    }

    fn twice(&mut self, task: u32, first: u32, what: Ref) {
        self.mistakes.push(Mistake::Twice { task, first, name: what.name() });
    }

    fn compiled(&mut self, owned: &Owned) {
        let plan = owned.plan();
        let base = self.tasks.len() as u32;
        if !Arc::ptr_eq(&plan.shared, self.shared) {
            let name = "a compiled batch".to_string();
            self.mistakes.push(Mistake::ForeignTask { task: base, name });
            return;
        }
        if !plan.try_start_reading() {
            self.running = true;
            return;
        }
        self.reading.push(owned.clone());
        let list = plan.list();
        if list.is_empty() {
            // Nothing of it runs, so it may be listed again.
            return;
        }
        if let Some((task, first)) = list.iter().find_map(|t| Some((*t, self.position(*t)?))) {
            return self.twice(base, first, task);
        }
        self.bases.extend(plan.bases.iter().map(|(cohort, b)| (*cohort, b + base)));
        self.has_inputs |= list.iter().any(|t| t.head().code.inputs.is_some());
        self.tasks.extend(list);
        self.members.push(owned.clone());
    }

    /// Where a task is in this list, if it is.
    #[inline]
    fn position(&self, task: Ref) -> Option<u32> {
        // Another batch numbers its cohorts as this one does.
        if !Arc::ptr_eq(task.shared(), self.shared) {
            return None;
        }
        match task.head().cohort.load(Ordering::Acquire) {
            0 => None,
            CLAIMED => Some(task.index()),
            id => self.bases.iter().find(|(cohort, _)| *cohort == id).map(|(_, base)| base + task.index()),
        }
    }

    fn plan(&mut self, scratch: &mut Scratch) -> Result<Plan, Error> {
        if self.running {
            return Err(Error::AlreadyRunning);
        }
        if self.tasks.len() > TASKS_MAX {
            let tasks = self.tasks.len();
            self.mistakes.push(Mistake::TooManyTasks { tasks, max: TASKS_MAX });
            return Err(self.mistakes());
        }
        let Scratch { listing, frontier } = scratch;
        let externals = self.fill(listing);
        if !self.mistakes.is_empty() {
            return Err(self.mistakes());
        }
        let csr = graph(listing, frontier)?;
        self.commit(csr, listing, &externals)
    }

    fn mistakes(&mut self) -> Error {
        Error::Compile(CompileError { mistakes: std::mem::take(&mut self.mistakes) })
    }

    /// Writes the listing; returns tasks that take a result from outside, as `(index, producer)`.
    fn fill(&mut self, listing: &mut Listing) -> Vec<(u32, Ref)> {
        listing.clear();
        listing.access_ends.reserve(self.tasks.len());
        let mut externals = Vec::new();
        for i in 0..self.tasks.len() {
            let task = self.tasks[i];
            listing.accesses.extend_from_slice(task.accesses());
            listing.access_ends.push(listing.accesses.len() as u32);
            if task.extra().is_some() {
                self.extra(i, task, listing);
            }
            if self.has_inputs {
                self.inputs(i as u32, task, listing, &mut externals);
                listing.input_ends.push(listing.inputs.len() as u32);
            }
        }
        listing.parents = self.shared.space.parents();
        listing.data_len = self.shared.space.len();
        externals
    }

    #[cold]
    fn extra(&mut self, index: usize, task: Ref, listing: &mut Listing) {
        let Some(extra) = task.extra() else { return };
        self.mistakes.extend(extra.mistakes.iter().cloned());
        let n = self.tasks.len();
        if extra.priority != 0 {
            listing.priorities.get_or_insert_with(|| vec![0; n])[index] = extra.priority;
        }
        if extra.cost.to_bits() != 1.0f32.to_bits() {
            listing.costs.get_or_insert_with(|| vec![1.0; n])[index] = extra.cost;
        }
    }

    fn inputs(&mut self, index: u32, task: Ref, listing: &mut Listing, externals: &mut Vec<(u32, Ref)>) {
        let mut mistakes = Vec::new();
        each_input(task, &mut |input| {
            let producer = input.task;
            match self.position(producer) {
                Some(at) if at < index => listing.inputs.push(at),
                Some(at) => mistakes.push(Mistake::LaterInput {
                    task: index,
                    name: task.name(),
                    producer: at,
                    producer_name: producer.name(),
                }),
                None if !Arc::ptr_eq(producer.shared(), self.shared) => {
                    mistakes.push(Mistake::ForeignInput {
                        task: index,
                        name: task.name(),
                        producer_name: producer.name(),
                    })
                }
                None if producer.cohort().is_some_and(Cohort::has_run) => externals.push((index, producer)),
                None => mistakes.push(Mistake::UnlistedInput {
                    task: index,
                    name: task.name(),
                    producer_name: producer.name(),
                }),
            }
        });
        self.mistakes.append(&mut mistakes);
    }

    /// Nothing can go wrong any more, except that the list is too large for its index types.
    fn commit(&mut self, csr: Csr, listing: &Listing, externals: &[(u32, Ref)]) -> Result<Plan, Error> {
        let mut slots = ChunkSlots::default();
        let mut too_many = false;
        let mut place = |task: Ref| {
            slots.place(task).unwrap_or_else(|| {
                too_many = true;
                Compact::NONE
            })
        };
        let records: Box<[Compact]> = (0..csr.len() as u32)
            .map(|node| match csr.task(node) {
                JOIN => Compact::NONE,
                task => place(self.tasks[task as usize]),
            })
            .collect();
        if too_many {
            let tasks = self.tasks.len();
            self.mistakes.push(Mistake::TooManyTasks { tasks, max: TASKS_MAX });
            return Err(self.mistakes());
        }
        let cohort = self.shared.cohorts.add(self.own as u32);
        self.bases.push((cohort.id, 0));
        for task in &self.tasks {
            let head = task.head();
            if head.cohort.load(Ordering::Relaxed) == CLAIMED {
                head.status.store(state::LISTED, Ordering::Relaxed);
                task.add_hold();
                head.cohort.store(cohort.id, Ordering::Release);
            }
        }
        let consumed =
            if listing.inputs.is_empty() { Box::default() } else { self.consume(cohort.id, &mut slots) };
        let externals = if externals.is_empty() { Box::default() } else { by_node(&csr, externals) };
        Ok(Plan {
            shared: Arc::clone(self.shared),
            cohort,
            members: std::mem::take(&mut self.members),
            bases: std::mem::take(&mut self.bases),
            ready: Ready::new((0..csr.len() as u32).map(|node| csr.in_degree(node))),
            csr,
            records,
            chunks: slots.finish(),
            consumed,
            externals,
            owners: AtomicU32::new(1),
            measured: Mutex::new(None),
        })
    }

    /// Turns arguments from this list into uses, and counts them per producer; `own` is the new cohort.
    fn consume(&self, own: u32, slots: &mut ChunkSlots) -> Box<[(Compact, u32)]> {
        let mut uses = vec![0u32; self.tasks.len()];
        for task in &self.tasks {
            // A compiled batch in the list also runs without it, so its arguments from outside stay so.
            let is_own = task.head().cohort.load(Ordering::Relaxed) == own;
            each_input(*task, &mut |input| {
                if let Some(at) = self.position(input.task)
                    && (is_own || input.is_internal())
                {
                    input.make_internal();
                    uses[at as usize] += 1;
                }
            });
        }
        let used = uses.iter().enumerate().filter(|(_, n)| **n > 0);
        used.filter_map(|(at, n)| Some((slots.place(self.tasks[at])?, *n))).collect()
    }

    fn give_back(&mut self) {
        for task in &self.tasks {
            let _ = task.head().cohort.compare_exchange(CLAIMED, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

fn graph(listing: &Listing, frontier: &mut Frontier) -> Result<Csr, Error> {
    compile::compile(listing, frontier).map_err(|_| {
        Error::Compile(CompileError { mistakes: vec![Mistake::TooManyEdges { max: EDGES_MAX }] })
    })
}

fn by_node(csr: &Csr, externals: &[(u32, Ref)]) -> Box<[(u32, Ref)]> {
    let mut node_of = std::collections::HashMap::new();
    (0..csr.len() as u32).for_each(|node| {
        node_of.insert(csr.task(node), node);
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

use inputs::each_input;

mod inputs {
    #![expect(unsafe_code, reason = "argument slots are reached through their record's code")]
    use super::Ref;
    use crate::task::input::Input;

    /// Shows each argument of a task that is another task's result.
    pub(super) fn each_input(task: Ref, see: &mut dyn FnMut(&mut Input)) {
        if let Some(inputs) = task.head().code.inputs {
            // SAFETY: the code is the record's own. Slots change while their list is compiled, which holds a lock,
            // and are read by the worker that executes the task; a drawing only reads which tasks they name.
            unsafe { inputs(task, see) };
        }
    }
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
        let shared = task.task().shared();
        let mut gather = Gather {
            shared,
            tasks: vec![task.task(); TASKS_MAX + 1],
            own: 0,
            members: Vec::new(),
            bases: Vec::new(),
            mistakes: Vec::new(),
            has_inputs: false,
            reading: Vec::new(),
            running: false,
        };
        let error = gather.plan(&mut Scratch::default()).err().expect("one too many");
        expect![[r#"
            the task list has 1 mistake
              the list has 16777216 tasks, at most 16777215 fit in one: compile it in parts"#]]
        .assert_eq(&error.to_string());
    }
}
