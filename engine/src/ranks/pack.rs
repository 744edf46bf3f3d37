//! At home: from the pieces of a spread list to its side and the parts that go out.

use super::Ranks;
use super::away::Away;
use super::elsewhere::Elsewhere;
use super::outside::Outside;
use super::part::{self, Brings, Head, Limited, Setup, TaskHead};
use super::side::{Role, Side};
use crate::cohort::Cohort;
use crate::compile::Taken;
use crate::compile::split::Piece;
use crate::function::identity::name_of;
use crate::function::wire::{Encoder, WireError};
use crate::graph::JOIN;
use crate::resume::Files;
use crate::shared::Shared;
use crate::task::record::Ref;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tarragon_transport::Rank;

/// A task that cannot be written for another rank, by its index.
pub(crate) struct Unwritten(pub(crate) u32, pub(crate) WireError);

/// In place of a node: the task is not in the part.
const NOWHERE: u32 = u32::MAX;

/// Where tasks are in a list: those of its cohorts by what is to be added to their index; and others that its tasks
/// take results of.
pub(crate) struct Places {
    pub(crate) bases: Vec<(u32, u32)>,
    pub(crate) others: HashMap<Ref, u32>,
}

impl Places {
    fn of(&self, task: Ref) -> Option<usize> {
        let id = task.head().cohort.load(Ordering::Relaxed);
        let own = self.bases.binary_search_by_key(&id, |(cohort, _)| *cohort);
        match own {
            Ok(at) => Some((self.bases[at].1 + task.index()) as usize),
            Err(_) => self.others.get(&task).map(|place| *place as usize),
        }
    }
}

/// What of a list concerns other ranks; the parts go out when its plan is registered. `task` gives the tasks of the
/// list, and behind them the `outside` producers of others. An error names all tasks that cannot go where they were
/// placed.
pub(crate) fn spread(
    ranks: &Arc<Ranks>,
    shared: &Arc<Shared>,
    cohort: &Arc<Cohort>,
    pieces: &[Piece],
    mut places: Places,
    outside: &[Ref],
    task: &dyn Fn(u32) -> Ref,
) -> Result<Side, Vec<Unwritten>> {
    let setup = &shared.setup;
    let tasks = pieces.iter().map(|piece| piece.own().iter().filter(|t| **t != JOIN).count()).sum();
    // By place of the task: its node in the part at hand.
    let nodes: Rc<[Cell<u32>]> = (0..tasks + outside.len()).map(|_| Cell::new(NOWHERE)).collect();
    places.bases.sort_unstable();
    let places = Rc::new(places);
    let (mut parts, mut unwritten) = (Vec::new(), Vec::new());
    for piece in pieces[1..].iter().filter(|piece| !piece.own().is_empty()) {
        parts.push(pack(&places, piece, setup, task, &nodes, &mut unwritten));
    }
    if !unwritten.is_empty() {
        return Err(unwritten);
    }
    let list = ranks.next_list();
    let away = |(rank, piece): (usize, &Piece)| {
        Away::new(Rank(rank as u32), list, piece.own(), piece.own().iter().map(|index| task(*index)))
    };
    let away = pieces.iter().enumerate().skip(1).map(away).filter(|away| !away.tasks.is_empty()).collect();
    let elsewhere = Elsewhere::new(ranks, shared, list, (tasks, &places.bases), away, parts);
    cohort.bind(Some(Arc::clone(&elsewhere)));
    let home = &pieces[0];
    let imports = home.imports.iter();
    let imports = imports.map(|(index, taken)| (*taken != Taken::NOTHING).then(|| task(*index))).collect();
    let outside = Outside::at_home(outside, home.outside_exports.clone());
    Ok(Side::new(ranks, list, imports, home.exports.clone(), outside, Role::Home(elsewhere)))
}

/// The part of a piece.
fn pack(
    places: &Rc<Places>,
    piece: &Piece,
    setup: &Setup,
    task: &dyn Fn(u32) -> Ref,
    nodes: &Rc<[Cell<u32>]>,
    unwritten: &mut Vec<Unwritten>,
) -> Vec<u8> {
    let imported = piece.imports.iter().map(|(index, _)| *index);
    let own = piece.own().iter().copied();
    let all = || imported.clone().chain(own.clone()).zip(0..);
    all().filter(|(index, _)| *index != JOIN).for_each(|(index, node)| nodes[index as usize].set(node));
    let mut codes = Codes::default();
    let brings = |(index, taken): &(u32, Taken)| match (taken.has(Taken::VALUE), taken.has_output()) {
        (false, false) => Brings::Nothing,
        (false, true) => Brings::Output,
        (true, false) => Brings::Value(codes.place(task(*index))),
        (true, true) => Brings::Both(codes.place(task(*index))),
    };
    let imports: Vec<Brings> = piece.imports.iter().map(brings).collect();
    let (links, places) = (Rc::clone(nodes), Rc::clone(places));
    let mut out = Encoder::default();
    let mut arguments = Encoder::linking(Box::new(move |input| {
        let node = places.of(input).map_or(NOWHERE, |place| links[place].get());
        (node != NOWHERE).then_some(node)
    }));
    for (own, index) in piece.own().iter().enumerate() {
        let (record, node) = (task(*index), (piece.imports.len() + own) as u32);
        let head = head_of(*index, record, codes.place(record), setup.lock.is_some());
        let (sources, exports) = (piece.found.sources_of(node as usize), piece.exports.of(own));
        let written = head.write(&mut out).and_then(|()| record.pack(&mut arguments));
        let written = written.and_then(|()| out.bytes_of(&arguments.take()));
        let written = written.and_then(|()| part::write_edges(&mut out, node, sources, exports));
        unwritten.extend(written.err().map(|error| Unwritten(*index, error)));
    }
    all().filter(|(index, _)| *index != JOIN).for_each(|(index, _)| nodes[index as usize].set(NOWHERE));
    let (setup, tasks) = (setup.clone(), piece.own().len() as u32);
    let head = Head { setup, codes: codes.names, imports, outside: piece.outside, tasks };
    [super::message::bytes(&head), out.take()].concat()
}

fn head_of(index: u32, task: Ref, code: u32, is_recorded: bool) -> TaskHead {
    let extra = task.extra();
    TaskHead {
        code,
        index,
        is_wanted: task.is_plain() || task.handles() > 0,
        name: extra.and_then(|extra| extra.name.as_deref()).map(str::to_string),
        priority: extra.map_or(0, |extra| extra.priority),
        limited: extra.and_then(Limited::of),
        is_attended: task.is_attended(),
        keeps_arguments: task.keeps_arguments(),
        files: is_recorded.then(|| Files::of(task, &task.shared().space)),
        is_fixed: extra.is_some_and(|extra| extra.rank.or(extra.near).is_some()),
    }
}

/// Tasks of which copies go to another rank, all that they take with them.
#[derive(Default)]
pub(super) struct Gifts {
    codes: Codes,
    tasks: Encoder,
    len: usize,
    count: u32,
}

impl Gifts {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a task that is ready and that nobody runs, by its place in the list that runs; false if it cannot be
    /// written.
    pub(super) fn add(&mut self, index: u32, task: Ref) -> bool {
        let head = TaskHead { is_wanted: true, ..head_of(index, task, self.codes.place(task), false) };
        self.write(head, task)
    }

    /// As [`add`](Self::add), of a task that is about to run here, for a member of its gang: tried once, for as long as
    /// it takes, and before what waits there, since others wait for it.
    pub(super) fn add_member(&mut self, index: u32, task: Ref) -> bool {
        let need = task.extra().and_then(|extra| extra.need.clone());
        let limited = need.map(Limited::of_need);
        let head = head_of(index, task, self.codes.place(task), false);
        let head = TaskHead { is_wanted: true, limited, keeps_arguments: false, priority: i32::MAX, ..head };
        self.write(head, task)
    }

    fn write(&mut self, head: TaskHead, task: Ref) -> bool {
        let mut arguments = Encoder::default();
        if task.pack(&mut arguments).is_err() {
            return false;
        }
        let arguments = arguments.take();
        let mut out = Encoder::default();
        let written = head.write(&mut out).and_then(|()| out.bytes_of(&arguments));
        let written = written.and_then(|()| part::write_edges(&mut out, self.count, &[], &[]));
        let bytes = out.take();
        self.len += bytes.len();
        self.tasks.append(&bytes);
        self.count += 1;
        written.is_ok()
    }

    pub(super) fn finish(mut self, setup: &Setup) -> Vec<u8> {
        let head = Head {
            setup: setup.clone(),
            codes: self.codes.names,
            imports: Vec::new(),
            outside: 0,
            tasks: self.count,
        };
        [super::message::bytes(&head), self.tasks.take()].concat()
    }
}

/// Names of code, each once.
#[derive(Default)]
struct Codes {
    names: Vec<i64>,
    places: HashMap<i64, u32>,
    /// The last one, since neighbours in a list are often alike.
    last: Option<(i64, u32)>,
}

impl Codes {
    fn place(&mut self, task: Ref) -> u32 {
        let travel = task.head().code.travel.as_ref().expect("what goes elsewhere can travel");
        let name = name_of(travel.code);
        if let Some((_, place)) = self.last.filter(|(last, _)| *last == name) {
            return place;
        }
        let next = self.names.len() as u32;
        let place = *self.places.entry(name).or_insert(next);
        if place == next {
            self.names.push(name);
        }
        self.last = Some((name, place));
        place
    }
}
