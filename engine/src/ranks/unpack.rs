//! At a guest: from a part's bytes to a plan like any other, whose first nodes stand for tasks on other ranks.

use super::Ranks;
use super::clerk::Guest;
use super::outside::Outside;
use super::part::{self, Brings, Head, TaskHead};
use super::side::{Role, Side};
use crate::cohort::Cohort;
use crate::compile::split::Exports;
use crate::compile::{Dependences, TASKS_MAX};
use crate::function::identity::named;
use crate::function::travel::place;
use crate::function::wire::{Decoder, WireError};
use crate::function::{Code, Travel};
use crate::gather::each_input;
use crate::graph::{Csr, Outline};
use crate::plan::{Owned, Plan};
use crate::resume::Files;
use crate::shared::Shared;
use crate::task::Task;
use crate::task::chunk::{ChunkSlots, Compact};
use crate::task::record::Ref;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A part that a guest keeps.
pub(super) struct Unpacked {
    pub(super) owned: Owned,
    /// Handles of tasks whose values home may ask for.
    wanted: Vec<Task<()>>,
}

impl Unpacked {
    /// The tasks whose values may be asked for.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Ref> + '_ {
        self.wanted.iter().map(Task::task)
    }

    pub(super) fn guest(&self) -> &Guest {
        let side = self.owned.plan().side.as_deref();
        side.and_then(Side::guest).expect("a part has a guest's side")
    }
}

/// What stands before the tasks of a part, and the tasks.
pub(super) fn open(bytes: &[u8]) -> Result<(Head, Decoder<'_>), WireError> {
    let mut from = Decoder::new(bytes);
    Ok((from.value::<Head>()?, from))
}

/// Makes the plan of a part.
pub(super) fn unpack(
    ranks: &Arc<Ranks>,
    shared: &Arc<Shared>,
    list: u64,
    head: &Head,
    from: Decoder<'_>,
) -> Result<Unpacked, WireError> {
    let making = make(shared, head, from)?;
    let imports = head.imports.len();
    Ok(making.finish(imports, |ends| {
        let Ends { imported, exports, found, tasks, files } = ends;
        let from_outside = (imports as u32).saturating_sub(head.outside)..imports as u32;
        let outside = Outside::at_guest(from_outside, found);
        let role = Role::Guest(Box::new(Guest::new(tasks, files)));
        Some(Side::new(ranks, list, imported, exports, outside, role))
    }))
}

/// Makes the plan of tasks that another rank gave away.
pub(super) fn unpack_gift(
    shared: &Arc<Shared>,
    head: &Head,
    from: Decoder<'_>,
) -> Result<Unpacked, WireError> {
    if !head.imports.is_empty() {
        return Err(WireError::Malformed("a gift takes nothing from elsewhere"));
    }
    let mut making = make(shared, head, from)?;
    // Its run is open to all workers from the start.
    making.attended = true;
    Ok(making.finish(0, |_| None))
}

fn make<'a>(shared: &'a Arc<Shared>, head: &Head, mut from: Decoder<'_>) -> Result<Making<'a>, WireError> {
    let codes = head.codes.iter().map(|name| named(*name)).collect::<Result<Vec<_>, _>>()?;
    let mut making = Making::new(shared, codes);
    for brings in &head.imports {
        making.import(*brings)?;
    }
    for _ in 0..head.tasks {
        from = making.task(from)?;
    }
    Ok(making)
}

/// What a side is made of.
struct Ends<'f> {
    imported: Box<[Option<Ref>]>,
    exports: Exports,
    found: &'f Dependences,
    tasks: Vec<Ref>,
    files: Vec<Files>,
}

struct Making<'a> {
    shared: &'a Arc<Shared>,
    cohort: Arc<Cohort>,
    codes: Vec<&'static Code>,
    /// By node: the record of a task, or of an import's value.
    nodes: Vec<Option<Ref>>,
    /// The handles that records begin with.
    handles: Vec<Task<()>>,
    wanted: Vec<Task<()>>,
    places: Vec<Compact>,
    slots: ChunkSlots,
    found: Dependences,
    exports: Exports,
    priorities: Vec<i32>,
    attended: bool,
    /// By node.
    files: Vec<Files>,
}

impl<'a> Making<'a> {
    fn new(shared: &'a Arc<Shared>, codes: Vec<&'static Code>) -> Self {
        Self {
            shared,
            cohort: shared.cohorts.add(),
            codes,
            nodes: Vec::new(),
            handles: Vec::new(),
            wanted: Vec::new(),
            places: Vec::new(),
            slots: ChunkSlots::default(),
            found: Dependences::default(),
            exports: Exports::default(),
            priorities: Vec::new(),
            attended: false,
            files: Vec::new(),
        }
    }

    fn travel(&self, place: u32) -> Result<&'static Travel, WireError> {
        let code = self.codes.get(place as usize).copied();
        code.and_then(|code| code.travel.as_ref()).ok_or(WireError::Malformed("names code that is not there"))
    }

    fn import(&mut self, brings: Brings) -> Result<(), WireError> {
        let record = match brings {
            Brings::Nothing => None,
            Brings::Output => Some(place::<()>(self.shared)),
            Brings::Value(code) | Brings::Both(code) => Some((self.travel(code)?.place)(self.shared)),
        };
        if let (Some(record), Brings::Output | Brings::Both(_)) = (record, brings) {
            // Indices are places in the list, so these are of nobody.
            record.head().index.store(TASKS_MAX as u32 + 1 + self.nodes.len() as u32, Ordering::Relaxed);
            record.head().cohort.store(self.cohort.id, Ordering::Release);
        }
        if let Some(record) = record {
            self.add(record)?;
            self.handles.push(Task::adopt(record));
        }
        self.nodes.push(record);
        self.files.push(Files::default());
        self.priorities.push(i32::MAX);
        self.found.ends.push(0);
        Ok(())
    }

    /// Gives a record a place in the plan.
    fn add(&mut self, record: Ref) -> Result<Compact, WireError> {
        self.slots.place(record).ok_or(WireError::Malformed("more tasks than fit in a list"))
    }

    fn task<'b>(&mut self, mut from: Decoder<'b>) -> Result<Decoder<'b>, WireError> {
        let head = TaskHead::read(&mut from)?;
        let travel = self.travel(head.code)?;
        let arguments = from.bytes_of()?;
        let mut decoder = Decoder::linking(arguments, &self.nodes);
        // What serde does for the user's types is the user's code. A task whose arguments it cannot read fails.
        let made = catch_unwind(AssertUnwindSafe(|| (travel.unpack)(self.shared, &mut decoder)));
        let record = made.ok().and_then(Result::ok).unwrap_or_else(|| (travel.place)(self.shared));
        let mut task = Task::<()>::adopt(record);
        if let Some(name) = head.name {
            task = task.name(name);
        }
        if let Some(limited) = head.limited {
            task.with_extra(|extra| limited.give(extra))?;
        }
        if head.is_fixed {
            let rank = self.shared.rank();
            task.with_extra(|extra| extra.rank = Some(rank));
        }
        if head.is_attended {
            record.attend();
        }
        if head.keeps_arguments {
            record.keep_arguments();
        }
        self.attended |= head.is_attended || head.keeps_arguments;
        record.head().index.store(head.index, Ordering::Relaxed);
        record.head().cohort.store(self.cohort.id, Ordering::Release);
        let place = self.add(record)?;
        self.places.push(place);
        let node = self.nodes.len() as u32;
        self.exports.push(part::read_edges(&mut from, node, &mut self.found.sources)?);
        self.found.ends.push(self.found.sources.len() as u32);
        self.priorities.push(head.priority);
        self.nodes.push(Some(record));
        self.files.push(head.files.unwrap_or_default());
        if head.is_wanted {
            self.wanted.push(task)
        } else {
            self.handles.push(task)
        }
        Ok(from)
    }

    fn finish(mut self, imports: usize, side: impl FnOnce(Ends<'_>) -> Option<Side>) -> Unpacked {
        let tasks: Vec<Ref> = self.nodes[imports..].iter().copied().flatten().collect();
        let counted = |task: &&Ref| !task.is_plain();
        let has_counted = tasks.iter().any(|task| !task.is_plain());
        tasks.iter().filter(counted).for_each(|task| task.add_hold());
        let consumed = self.consumed(imports);
        let graph = self.graph();
        let mut records = vec![Compact::NONE; imports];
        records.append(&mut self.places);
        let chunks = self.slots.finish();
        chunks.keep_cohort(&self.cohort);
        let imported: Box<[Option<Ref>]> = self.nodes[..imports].into();
        let (found, exports, files) = (&self.found, self.exports, self.files);
        let side = side(Ends { imported, exports, found, tasks, files });
        let shared = Arc::clone(self.shared);
        let plan = Plan::of_part(
            shared,
            self.cohort,
            graph,
            records,
            chunks,
            (self.attended, has_counted),
            consumed,
            side,
        );
        // The plan keeps its tasks from now on, and these the values they take.
        drop(self.handles);
        Unpacked { owned: Owned::new(plan), wanted: self.wanted }
    }

    /// Turns links into uses, and counts them per producer; a value that goes elsewhere is used by that.
    fn consumed(&mut self, imports: usize) -> Box<[(Compact, u32)]> {
        let mut uses: HashMap<Ref, u32> = HashMap::new();
        for (own, task) in self.nodes[imports..].iter().copied().flatten().enumerate() {
            each_input(task, &mut |input| {
                input.make_internal();
                *uses.entry(input.task).or_default() += 1;
            });
            if self.exports.have_value(own) {
                *uses.entry(task).or_default() += 1;
            }
        }
        let place = |(task, uses): (Ref, u32)| Some((self.slots.place(task)?, uses));
        uses.into_iter().filter_map(place).collect()
    }

    fn graph(&self) -> Outline {
        if self.priorities.iter().all(|priority| matches!(*priority, 0 | i32::MAX)) {
            return Outline::later(&self.found);
        }
        let order: Vec<u32> = (0..self.found.vertices() as u32).collect();
        let user = |node: u32| self.priorities[node as usize];
        Outline::now(&self.found, &order, Csr::freeze(&self.found, Some(&order), user, |best, _| best + 1))
    }
}
