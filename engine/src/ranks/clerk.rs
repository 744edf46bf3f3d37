//! At a guest: the thread that keeps the parts: unpacks them, starts their runs, answers who asks for values.

use super::Ranks;
use super::goods::{given_by, unwritable, value_of};
use super::message::{
    self, Adopted, Came, Cancel, End, Fetch, Give, Have, Kind, Moved, Notice, Read, Replied, RunNumber, Start,
};
use super::part::Setup;
use super::records::Records;
use super::side::{Side, is_there};
use super::times;
use super::told::{Teller, Told};
use super::unpack::{self, Unpacked};
use crate::batch::{Batch, Workers};
use crate::cohort::{Cohort, Progress};
use crate::error::{Cause, Error, Failure};
use crate::function::wire::WireError;
use crate::plan::{Plan, missing};
use crate::resume::Files;
use crate::run::Past;
use crate::shared::Shared;
use crate::task::output::{Portion, so_far};
use crate::task::record::{Ref, state};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use tarragon_transport::Rank;

/// Values of several tasks travel together up to about so many bytes.
const REPLY_BYTES: usize = 1 << 20;

/// What the clerk is to do.
pub(super) enum Order {
    Part {
        list: u64,
        bytes: Vec<u8>,
    },
    Start {
        list: u64,
        bytes: Vec<u8>,
    },
    Fetch {
        list: u64,
        bytes: Vec<u8>,
    },
    Read {
        list: u64,
        bytes: Vec<u8>,
    },
    Give {
        list: u64,
        bytes: Vec<u8>,
    },
    Reuse {
        list: u64,
        bytes: Vec<u8>,
    },
    Cancel {
        list: u64,
        bytes: Vec<u8>,
    },
    Drop {
        list: u64,
    },
    Gift {
        from: Rank,
        number: u64,
        bytes: Vec<u8>,
    },
    Recall {
        from: Rank,
        number: u64,
        place: Option<u32>,
    },
    Muster {
        number: u64,
        bytes: Vec<u8>,
    },
    Moved {
        list: u64,
        bytes: Vec<u8>,
    },
    /// A gang that this rank was mustered for has ended here.
    Dismissed {
        number: u64,
    },
    Stop,
}

/// A guest's role in a list.
pub(super) struct Guest {
    number: AtomicU32,
    /// The tasks of its part in order; kept by the plan.
    tasks: Box<[Ref]>,
    pub(super) records: Records,
    /// What of it has run before in this run, if it was another rank's.
    past: RwLock<Option<Arc<Past>>>,
}

impl Guest {
    /// With the files of each node.
    pub(super) fn new(tasks: Vec<Ref>, files: Vec<Files>) -> Guest {
        let (number, records) = (AtomicU32::new(0), Records::new(files));
        Guest { number, tasks: tasks.into(), records, past: RwLock::default() }
    }

    pub(super) fn past(&self) -> Option<Arc<Past>> {
        self.past.read().clone()
    }

    /// The part was another rank's, where some of it has run in the run that is about to start here.
    pub(super) fn adopt(&self, side: &Side, adopted: &Adopted) {
        let Adopted { done, spoilt, lost: (rank, why), .. } = adopted;
        let is_new = done.is_empty() && spoilt.is_empty();
        let past = (!is_new).then(|| {
            let (imports, host) = (side.imports(), side.ranks().host(Rank(*rank)));
            let nodes = imports as usize + self.tasks.len();
            let mut past = Past::new(nodes, *rank, host, why.clone());
            done.iter().for_each(|place| past.is_over(imports + place));
            spoilt.iter().for_each(|place| past.is_spoilt(imports + place));
            Arc::new(past)
        });
        *self.past.write() = past;
    }

    pub(super) fn number(&self) -> RunNumber {
        self.number.load(Ordering::Acquire)
    }

    /// Tells home that the part has ended; a body that was given up may still hold it.
    pub(super) fn ended(&self, side: &Side, plan: &Plan, is_held: bool) {
        let (mut failures, mut teller) = (Vec::new(), Teller::default());
        if plan.cohort.has_failures() {
            for (place, task) in self.tasks.iter().enumerate() {
                if let Some(failure) = plan.cohort.failure_of(task.index()) {
                    let told = teller.add(&failure);
                    failures.push((place as u32, is_skipped(*task), told, wrote(*task)));
                }
            }
        }
        let (run, told) = (self.number(), teller.told());
        times::tell(side, plan, run, &self.tasks);
        let bytes = message::bytes(&End { run, failures, told, sent: side.sent(), is_held });
        side.ranks().tell(Rank(0), Kind::End, side.list(), &bytes);
        side.ranks().steal();
    }

    /// Tells home that the part can run again, which a body held.
    pub(super) fn freed(&self, side: &Side) {
        side.ranks().tell(Rank(0), Kind::Free, side.list(), &message::bytes(&self.number()));
    }
}

fn is_skipped(task: Ref) -> bool {
    task.head().status.load(Ordering::Acquire) & !state::PARITY == state::SKIPPED
}

/// The clerk.
pub(super) struct Clerk {
    ranks: Arc<Ranks>,
    /// By what they are to be like.
    batches: HashMap<Setup, Batch>,
    parts: HashMap<u64, Unpacked>,
    /// Batches that run for gangs, by their numbers.
    musters: HashMap<u64, Arc<Shared>>,
}

impl Clerk {
    pub(super) fn new(ranks: &Arc<Ranks>) -> Clerk {
        Clerk {
            ranks: Arc::clone(ranks),
            batches: HashMap::new(),
            parts: HashMap::new(),
            musters: HashMap::new(),
        }
    }

    /// Works until it is told to stop.
    pub(super) fn work(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Part { list, bytes } => self.part(list, &bytes),
                Order::Start { list, bytes } => self.start(list, &bytes),
                Order::Fetch { list, bytes } => self.fetch(list, &bytes),
                Order::Read { list, bytes } => self.read(list, &bytes),
                Order::Give { list, bytes } => self.give(list, &bytes),
                Order::Cancel { list, bytes } => self.cancel(list, &bytes),
                Order::Reuse { list, bytes } => self.reuse(list, &bytes),
                Order::Drop { list } => self.drop_part(list),
                Order::Gift { from, number, bytes } => self.gift(from, number, &bytes),
                Order::Recall { from, number, place } => {
                    if !self.ranks.dismissed(number) {
                        self.ranks.recalled(from, number, place);
                    }
                }
                Order::Muster { number, bytes } => self.muster(number, &bytes),
                Order::Moved { list, bytes } => self.moved(list, &bytes),
                Order::Dismissed { number } => {
                    self.musters.remove(&number);
                    self.drop_batches();
                }
                Order::Stop => break,
            }
        }
        // What runs is not wanted any more.
        let plans = self.parts.values().map(|part| part.owned.plan());
        plans.filter_map(|plan| plan.cohort.run()).for_each(|run| run.cancel(None));
    }

    fn part(&mut self, list: u64, bytes: &[u8]) {
        let text = |error: WireError| error.to_string();
        let unpacked = unpack::open(bytes).map_err(text).and_then(|(head, tasks)| {
            let batch = match self.ranks.elsewhere(list) {
                // At home, where the list's own batch runs what was a lost rank's.
                Some(elsewhere) => elsewhere.shared().ok_or("its batch is gone")?,
                None => self.batch(&head.setup).map_err(|error| error.to_string())?,
            };
            unpack::unpack(&self.ranks, &batch, list, &head, tasks).map_err(text)
        });
        match unpacked {
            Ok(part) => drop(self.parts.insert(list, part)),
            Err(why) => self.resign(&format!("it cannot read its part of a list: {why}")),
        }
    }

    /// Tasks of another rank, which has more than it can run.
    fn gift(&mut self, from: Rank, number: u64, bytes: &[u8]) {
        let ranks = Arc::clone(&self.ranks);
        let mut batch = |setup: &Setup| self.batch(setup).map_err(|error| error.to_string());
        if let Err(why) = ranks.run_gift(from, number, bytes, &mut batch) {
            self.resign(&format!("it cannot run tasks of rank {from}: {why}"));
        }
    }

    /// Another rank wants this one in a gang.
    fn muster(&mut self, number: u64, bytes: &[u8]) {
        let ranks = Arc::clone(&self.ranks);
        let mut batch = |setup: &Setup| {
            let shared = self.batch(setup).map_err(|error| error.to_string())?;
            self.musters.insert(number, Arc::clone(&shared));
            Ok(shared)
        };
        if let Err(why) = ranks.muster(number, bytes, &mut batch) {
            self.resign(&format!("it cannot be in a gang: {why}"));
        }
    }

    /// The batch that runs parts which ask for this.
    fn batch(&mut self, setup: &Setup) -> Result<Arc<Shared>, Error> {
        if let Some(batch) = self.batches.get(setup) {
            return Ok(Arc::clone(batch.shared()));
        }
        let mut builder = Batch::builder().of_ranks(&self.ranks).bind(!setup.is_unbound);
        builder = builder
            .work_stealing(!setup.keeps_place)
            .keep_output(setup.keeps_output)
            .signals(false)
            .errors(&setup.errors)
            .timing(setup.measures);
        if let Some(launcher) = &setup.launcher {
            builder = builder.launcher(launcher);
        }
        let workers = self.ranks.workers_of(self.ranks.rank(), setup);
        builder = builder.workers(Workers::Threads(workers as usize));
        if setup.assumed_cpus > 0 {
            builder = builder.assume_cpus(setup.assumed_cpus);
        }
        if setup.assumed_gpus > 0 {
            builder = builder.assume_gpus(setup.assumed_gpus);
        }
        if let Some(run_dir) = &setup.run_dir {
            builder = builder.run_dir(run_dir);
        }
        if let Some(lock) = &setup.lock {
            builder = builder.lock(lock);
        }
        let batch = builder.build()?;
        let shared = Arc::clone(batch.shared());
        self.batches.insert(setup.clone(), batch);
        Ok(shared)
    }

    fn drop_part(&mut self, list: u64) {
        drop(self.parts.remove(&list));
        self.drop_batches();
    }

    /// A batch with a journal keeps the next run from beginning.
    fn drop_batches(&mut self) {
        let (parts, musters) = (&self.parts, &self.musters);
        let is_used = |batch: &Batch| {
            let of_parts = parts.values().map(|part| &part.owned.plan().shared);
            of_parts.chain(musters.values()).any(|shared| Arc::ptr_eq(shared, batch.shared()))
        };
        self.batches.retain(|setup, batch| setup.lock.is_none() || is_used(batch));
    }

    /// What the run that is about to start need not do.
    fn reuse(&self, list: u64, bytes: &[u8]) {
        if let (Some(part), Some((reused, _))) = (self.parts.get(&list), message::head(bytes)) {
            part.guest().records.reuse(reused);
        }
    }

    fn start(&mut self, list: u64, bytes: &[u8]) {
        let Some((Start { run: number, recording, adopted }, _)) = message::head::<Start>(bytes) else {
            return;
        };
        // Without a part this rank has resigned.
        let Some(part) = self.parts.get(&list) else { return };
        part.guest().number.store(number, Ordering::Release);
        if let (Some(side), Some(adopted)) = (&part.owned.plan().side, adopted) {
            side.adopt(&adopted);
        }
        if let Some(recording) = recording {
            part.guest().records.begin(&self.ranks, part.owned.plan(), number, recording);
        }
        if let Err(why) = part.owned.start(false) {
            self.resign(&format!("it cannot start its part of a list: {why}"));
        }
    }

    /// The part of a seat has another holder.
    fn moved(&self, list: u64, bytes: &[u8]) {
        let (Some(part), Some((moved, _))) = (self.parts.get(&list), message::head::<Moved>(bytes)) else {
            return;
        };
        let plan = part.owned.plan();
        let Some(side) = &plan.side else { return };
        let have = Have { run: moved.run, seat: moved.seat, have: side.moved(plan, &moved) };
        self.ranks.tell_owned(Rank(0), Kind::Have, list, message::bytes(&have));
    }

    /// A world with a rank that cannot do its part is no world.
    fn resign(&self, why: &str) {
        self.ranks.lose(self.ranks.world.rank(), why);
    }

    /// Tells home what a task has written so far.
    fn read(&self, list: u64, bytes: &[u8]) {
        let Some(((ticket, read), _)) = message::head::<(u64, Read)>(bytes) else { return };
        let task = self.parts.get(&list).and_then(|part| part.guest().tasks.get(read.task as usize).copied());
        let wrote = match task.and_then(Ref::cohort).zip(task) {
            Some((cohort, task)) => {
                let wrote = cohort.with_output(task.index(), |output| output.read_portion(read.portion));
                let has_ended = matches!(cohort.progress(task), Progress::Ended(_));
                let is_whole = matches!(read.portion, Portion::Whole(_));
                // A rank of a job that has written nothing has no files.
                wrote.map(|wrote| if has_ended && is_whole { wrote } else { so_far(wrote) })
            }
            None => None,
        };
        let (error, wrote) = match wrote {
            None => (String::new(), Vec::new()),
            Some(Ok(bytes)) => (String::new(), bytes),
            Some(Err(error)) => (error.to_string(), Vec::new()),
        };
        let mut bytes = message::bytes(&(ticket, error));
        bytes.extend_from_slice(&wrote);
        self.ranks.tell_owned(Rank(0), Kind::Written, list, bytes);
    }

    fn cancel(&self, list: u64, bytes: &[u8]) {
        let (Some(part), Some((Cancel { run, task }, _))) = (self.parts.get(&list), message::head(bytes))
        else {
            return;
        };
        let guest = part.guest();
        let task = task.map(|place| guest.tasks.get(place as usize).copied());
        if guest.number() == run
            && let Some(run) = part.owned.plan().cohort.run()
        {
            match task {
                None => run.cancel(None),
                Some(Some(task)) => run.cancel(Some(task)),
                Some(None) => {}
            }
        }
    }

    /// Answers for what has ended at once, for each other task as soon as it has.
    fn fetch(&self, list: u64, bytes: &[u8]) {
        let (Some(part), Some((Fetch { run, tasks }, _))) = (self.parts.get(&list), message::head(bytes))
        else {
            return;
        };
        let plan = part.owned.plan();
        let mut reply = message::bytes(&run);
        let empty = reply.len();
        for place in tasks {
            let Some(task) = part.guest().tasks.get(place as usize).copied() else { continue };
            if !is_over(task) {
                self.answer_later(part, list, run, (place, task));
                continue;
            }
            let before = reply.len();
            add_reply(&mut reply, plan, place, task);
            if reply.len() - before > REPLY_BYTES && before > empty {
                // A large value goes by itself.
                self.ranks.tell(Rank(0), Kind::Reply, list, &reply[..before]);
                reply.drain(empty..before);
            }
            if reply.len() > REPLY_BYTES {
                self.ranks.tell(Rank(0), Kind::Reply, list, &reply);
                reply.truncate(empty);
            }
        }
        if reply.len() > empty {
            self.ranks.tell(Rank(0), Kind::Reply, list, &reply);
        }
    }

    /// Sends what a task gave to ranks where another list takes it; this one may be among them.
    fn give(&self, list: u64, bytes: &[u8]) {
        let Some((Give { run, task, to, to_run, imports }, _)) = message::head::<Give>(bytes) else { return };
        let Some(part) = self.parts.get(&list) else { return };
        let (place, past) = (task, part.owned.plan().side.as_ref().and_then(|side| side.past_of(task)));
        let Some(task) = part.guest().tasks.get(place as usize).copied() else { return };
        // Home keeps the list from running meanwhile, and every run of it has ended here.
        let given = match past {
            Some(past) => Err(past.failure(task)),
            None if part.guest().number() == run && is_there(task) => given_by(task),
            None => Err(missing(task)),
        };
        for (rank, import) in imports {
            let (came, value) = match &given {
                Ok(value) => (Came::WithValue, value.as_slice()),
                Err(failure) => (Came::badly(Told::of_outside(failure)), [].as_slice()),
            };
            let mut bytes = message::bytes(&Notice { run: to_run, import, came, wrote: Vec::new() });
            bytes.extend_from_slice(value);
            match u32::from(rank) {
                here if here == self.ranks.rank() => self.ranks.notice(to, &bytes),
                rank => self.ranks.tell_owned(Rank(rank), Kind::Notice, to, bytes),
            }
        }
    }

    fn answer_later(&self, part: &Unpacked, list: u64, run: RunNumber, (place, task): (u32, Ref)) {
        let plan = part.owned.plan();
        let (ranks, weak) = (Arc::clone(&self.ranks), Arc::downgrade(plan));
        let answer = move || {
            // A part that was dropped has nobody who asks.
            if let Some(plan) = weak.upgrade() {
                let mut reply = message::bytes(&run);
                add_reply(&mut reply, &plan, place, task);
                ranks.tell(Rank(0), Kind::Reply, list, &reply);
            }
        };
        plan.shared.awaited.when_ended(task, || is_over(task), Box::new(answer));
    }
}

/// Adds how a task came out, which has ended.
fn add_reply(reply: &mut Vec<u8>, plan: &Plan, place: u32, task: Ref) {
    let (came, value) = match plan.side.as_ref().and_then(|side| side.past_of(place)) {
        None => came_of(&plan.cohort, task),
        // It has run on a rank that is lost, and not here.
        Some(past) => (badly(task, past.failure(task)), Vec::new()),
    };
    let head: Replied = (place, came, value.len() as u64);
    reply.extend_from_slice(&message::bytes(&head));
    reply.extend_from_slice(&value);
}

/// How a task came out, which has ended, and its value.
pub(super) fn came_of(cohort: &Cohort, task: Ref) -> (Came, Vec<u8>) {
    let _stays = cohort.reading();
    match task.head().status.load(Ordering::Acquire) & !state::PARITY {
        state::DONE => match value_of(task) {
            Some(value) => (Came::WithValue, value),
            None => (badly(task, unwritable(task)), Vec::new()),
        },
        state::FAILED | state::SKIPPED => {
            let failure = cohort.failure_of(task.index());
            let gone = || Failure::new(task, Cause::Cancelled, 0);
            (badly(task, failure.unwrap_or_else(gone)), Vec::new())
        }
        _ => (Came::Well, Vec::new()),
    }
}

/// Whether a task of a part has ended.
pub(super) fn is_over(task: Ref) -> bool {
    task.cohort().is_some_and(|cohort| matches!(cohort.progress(task), Progress::Ended(_)))
}

fn badly(task: Ref, failure: Arc<Failure>) -> Came {
    Came::Badly { skipped: is_skipped(task), why: Box::new(Told::of(&failure)), wrote: wrote(task) }
}

/// What a task that did not succeed wrote to its context's output.
fn wrote(task: Ref) -> String {
    let text = task.cohort().and_then(|cohort| cohort.with_output(task.index(), |output| output.text()));
    text.flatten().unwrap_or_default()
}
