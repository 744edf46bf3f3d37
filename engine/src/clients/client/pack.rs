//! From the tasks of a plan to the bytes of its list.

use super::sent::Sent;
use crate::clients::message::{CodeName, Head, Options, TaskHead};
use crate::clients::names::{DataName, NameLog};
use crate::cohort::Cohort;
use crate::function::identity::name_of;
use crate::function::wire::{Encoder, WireError};
use crate::plan::Plan;
use crate::ranks::Limited;
use crate::task::command::PROCESS;
use crate::task::record::Ref;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the primary has been told of in this connection.
#[derive(Default)]
pub(super) struct Known {
    data: HashSet<u32>,
}

/// Tasks of earlier lists that a list takes something of, in the order in which they were met.
#[derive(Default)]
struct Outside {
    names: Vec<(u64, u32)>,
    links: HashMap<Ref, u32>,
}

/// The bytes of a list; `tasks` are those of the plan, in list order.
pub(super) fn pack(
    plan: &Arc<Plan>,
    tasks: &[Ref],
    names: &NameLog,
    known: &mut Known,
) -> Result<Vec<u8>, WireError> {
    let outside = Rc::new(RefCell::new(Outside::default()));
    let links = linker(plan, tasks.len() as u32, &outside);
    let (mut arguments, mut out) = (Encoder::linking(links), Encoder::default());
    let (mut codes, mut data) = (Codes::default(), Vec::new());
    for task in tasks {
        let accesses = task.accesses().iter().map(|access| (access.datum(), access.writes())).collect();
        let head = TaskHead {
            code: codes.place(*task),
            is_wanted: task.is_plain() || task.handles() > 0,
            is_attended: task.is_attended(),
            keeps_arguments: task.keeps_arguments(),
            accesses,
            options: options_of(*task),
        };
        for access in task.accesses().iter().filter(|access| known.data.insert(access.datum())) {
            data.push((access.datum(), name_of_datum(*task, access.datum(), names)));
        }
        out.value(&head)?;
        task.pack(&mut arguments)?;
        out.bytes_of(&arguments.take())?;
    }
    let outside = std::mem::take(&mut outside.borrow_mut().names);
    let head = Head { codes: codes.names, data, outside, tasks: tasks.len() as u32 };
    let mut bytes = Encoder::default();
    bytes.value(&head)?;
    bytes.append(&out.take());
    Ok(bytes.take())
}

/// Links are places in the list; behind them come tasks of earlier lists.
fn linker(plan: &Arc<Plan>, tasks: u32, outside: &Rc<RefCell<Outside>>) -> Box<dyn Fn(Ref) -> Option<u32>> {
    let mut bases: Vec<(u32, u32)> = plan.bases.clone();
    bases.sort_unstable();
    let (gates, outside) = (plan.gates.len() as u32, Rc::clone(outside));
    Box::new(move |task| {
        let id = task.head().cohort.load(Ordering::Acquire);
        if let Ok(at) = bases.binary_search_by_key(&id, |(cohort, _)| *cohort) {
            return (bases[at].1 + task.index()).checked_sub(gates);
        }
        let mut outside = outside.borrow_mut();
        if let Some(link) = outside.links.get(&task) {
            return Some(*link);
        }
        // Of one that never went to the primary the value goes with the list.
        let sent: Arc<Sent> = task.cohort().and_then(Cohort::sent)?;
        let link = tasks + outside.names.len() as u32;
        outside.names.push((sent.number, sent.place_of(task)?));
        outside.links.insert(task, link);
        Some(link)
    })
}

fn options_of(task: Ref) -> Option<Options> {
    let extra = task.extra()?;
    Some(Options {
        name: extra.name.as_deref().map(str::to_string),
        priority: extra.priority,
        cost: extra.cost,
        rank: extra.rank,
        limited: Limited::of(extra),
    })
}

fn name_of_datum(task: Ref, id: u32, names: &NameLog) -> DataName {
    let path =
        || task.shared().space.path_of(id).map(|path| DataName::Path(path.into_os_string().into_vec()));
    names.name_of(id).or_else(path).expect("every datum of a client's batch is a path or in the log")
}

/// Names of code, each once.
#[derive(Default)]
struct Codes {
    names: Vec<CodeName>,
    places: HashMap<*const (), u32>,
}

impl Codes {
    fn place(&mut self, task: Ref) -> u32 {
        let code = task.head().code;
        let next = self.names.len() as u32;
        let place = *self.places.entry(std::ptr::from_ref(code).cast()).or_insert(next);
        if place == next {
            let is_process = std::ptr::eq(code, &PROCESS);
            let travel = code.travel.as_ref().expect("what stays here is a mistake");
            self.names.push(if is_process {
                CodeName::Process
            } else {
                CodeName::Function(name_of(travel.code))
            });
        }
        place
    }
}
