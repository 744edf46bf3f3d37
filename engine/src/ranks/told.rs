//! A failure as another rank is told of it: the user's error as text, with its chain of sources, and as what it is, if
//! that can be written (`error::carried`).

use crate::error::carried::Carried;
use crate::error::{Cause, Failure, How, JobFailure, ProcessFailure};
use crate::task::Usage;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Of the tasks on the way from one that was skipped to the one that failed so many are told of in a single failure; of
/// a longer way the first and the last.
const CHAIN_MAX: usize = 256;

/// Why tasks did not succeed: failures, each behind the one that it comes from.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Told(Vec<Link>);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Link {
    name: String,
    index: u32,
    /// Of the task in the list; `None` if it is of another list.
    place: Option<u32>,
    attempts: u32,
    rank: u32,
    /// The chain began in another list.
    is_outside: bool,
    why: Why,
}

impl Link {
    /// `upstream` is the place of what it comes from; `is_foreign`: it is of another list.
    fn of(failure: &Failure, upstream: Option<u32>, is_foreign: bool) -> Link {
        let Failure { name, index, place, attempts, rank, root, is_entry: _, cause } = failure;
        let why = upstream.map_or_else(|| Why::of(cause), Why::Upstream);
        let (name, is_outside) = (name.clone(), root.is_none());
        Link {
            name,
            index: *index,
            place: place.filter(|_| !is_foreign),
            attempts: *attempts,
            rank: *rank,
            is_outside,
            why,
        }
    }
}

/// Tells of many failures, each once, however many others come from it.
#[derive(Default)]
pub(super) struct Teller {
    told: Told,
    places: HashMap<*const Failure, u32>,
}

impl Teller {
    /// The place of a failure, which is told of with all that it comes from. The caller keeps it until the end.
    pub(super) fn add(&mut self, failure: &Arc<Failure>) -> u32 {
        let (mut news, mut last, mut is_foreign) = (Vec::new(), failure, false);
        let mut upstream = loop {
            if let Some(place) = self.places.get(&Arc::as_ptr(last)) {
                break Some(*place);
            }
            news.push((last, is_foreign));
            is_foreign |= last.is_entry;
            match &last.cause {
                Cause::Upstream(next) => last = next,
                _ => break None,
            }
        };
        for (failure, is_foreign) in news.into_iter().rev() {
            let place = self.told.0.len() as u32;
            self.told.0.push(Link::of(failure, upstream, is_foreign));
            self.places.insert(Arc::as_ptr(failure), place);
            upstream = Some(place);
        }
        upstream.unwrap_or_default()
    }

    pub(super) fn told(self) -> Told {
        self.told
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Why {
    /// The failure at this place.
    Upstream(u32),
    /// What it says, and what each of its sources says; what it is, if that can be written.
    Error(Vec<String>, Option<Carried>),
    Panic {
        message: String,
        place: String,
    },
    InputTaken(String),
    InputMissing(String),
    TimedOut(Duration),
    Cancelled,
    Process {
        ended: Ended,
        tail: String,
        usage: Usage,
    },
}

/// How a process ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Ended {
    Exited(i32),
    Signal { signal: i32, core: bool },
    TimedOut(Duration),
    OverMemory { limit: u64 },
    Cancelled,
    CouldNotStart { what: String, path: PathBuf, errno: Option<i32>, text: String },
    Job(Box<JobFailure>),
    Lost,
}

impl Ended {
    fn of(how: &How) -> Ended {
        match how {
            How::Exited(code) => Ended::Exited(*code),
            How::Signal { signal, core } => Ended::Signal { signal: *signal, core: *core },
            How::TimedOut(time) => Ended::TimedOut(*time),
            How::OverMemory { limit } => Ended::OverMemory { limit: *limit },
            How::Cancelled => Ended::Cancelled,
            How::CouldNotStart { what, path, error } => {
                let (what, path) = (what.to_string(), path.clone());
                Ended::CouldNotStart { what, path, errno: error.raw_os_error(), text: error.to_string() }
            }
            How::Job(job) => Ended::Job(job.clone()),
            How::Lost => Ended::Lost,
        }
    }

    fn how(self) -> How {
        match self {
            Ended::Exited(code) => How::Exited(code),
            Ended::Signal { signal, core } => How::Signal { signal, core },
            Ended::TimedOut(time) => How::TimedOut(time),
            Ended::OverMemory { limit } => How::OverMemory { limit },
            Ended::Cancelled => How::Cancelled,
            Ended::CouldNotStart { what, path, errno, text } => {
                let error = errno.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error);
                How::CouldNotStart { what: what.into(), path, error }
            }
            Ended::Job(job) => How::Job(job),
            Ended::Lost => How::Lost,
        }
    }
}

impl Told {
    /// One failure.
    pub(crate) fn of(failure: &Failure) -> Told {
        let (mut chain, mut last, mut is_foreign) = (Vec::new(), failure, false);
        loop {
            if chain.len() == CHAIN_MAX {
                chain.pop();
            }
            chain.push((last, is_foreign));
            is_foreign |= last.is_entry;
            match &last.cause {
                Cause::Upstream(next) => last = next,
                _ => break,
            }
        }
        let mut links = Vec::new();
        for (failure, is_foreign) in chain.into_iter().rev() {
            let upstream = (links.len() as u32).checked_sub(1);
            links.push(Link::of(failure, upstream, is_foreign));
        }
        Told(links)
    }

    /// For a process that runs another executable: what errors say, and not what they are.
    pub(crate) fn forget_types(&mut self) {
        for link in &mut self.0 {
            if let Why::Error(_, Some(Carried::Own(..))) = &link.why
                && let Why::Error(_, carried) = &mut link.why
            {
                *carried = None;
            }
        }
    }

    /// The same of a task of another list.
    pub(super) fn of_outside(failure: &Failure) -> Told {
        let mut told = Told::of(failure);
        told.0.iter_mut().for_each(|link| link.place = None);
        told
    }

    /// The failures again, by place, on the rank that is told; `index_of` says which index a task has that is
    /// elsewhere, by its place in the list, if the rank knows that.
    pub(super) fn failures(self, index_of: &dyn Fn(u32) -> Option<u32>) -> Vec<Arc<Failure>> {
        let mut failures: Vec<Arc<Failure>> = Vec::with_capacity(self.0.len());
        for Link { name, index, place, attempts, rank, is_outside, why } in self.0 {
            let index = place.and_then(index_of).unwrap_or(index);
            let cause = match why {
                Why::Upstream(place) => failures.get(place as usize).cloned().map(Cause::Upstream),
                why => Some(why.cause()),
            };
            let cause = cause.unwrap_or(Cause::Cancelled);
            let failure = Failure::of(name, index, attempts, rank, cause).placed(place);
            failures.push(if is_outside { failure.begun_outside(false) } else { failure });
        }
        failures
    }

    /// The one failure again.
    pub(crate) fn failure(self, index_of: &dyn Fn(u32) -> Option<u32>) -> Arc<Failure> {
        self.failures(index_of).pop().unwrap_or_else(|| {
            let cause = Cause::Error("a rank told of a failure without a task".into());
            Failure::of(String::new(), u32::MAX, 0, 0, cause)
        })
    }
}

impl Why {
    fn of(cause: &Cause) -> Why {
        match cause {
            Cause::Panic { message, place } => Why::Panic { message: message.clone(), place: place.clone() },
            Cause::InputTaken(name) => Why::InputTaken(name.clone()),
            Cause::InputMissing(name) => Why::InputMissing(name.clone()),
            Cause::TimedOut(time) => Why::TimedOut(*time),
            Cause::Cancelled => Why::Cancelled,
            Cause::Error(error) => Why::Error(texts(&**error), Carried::of(&**error)),
            Cause::Process(process) => {
                let (ended, tail) = (Ended::of(&process.how), process.tail.clone());
                Why::Process { ended, tail, usage: process.usage }
            }
            other => Why::Error(vec![other.to_string()], None),
        }
    }

    fn cause(self) -> Cause {
        match self {
            Why::Error(texts, carried) => {
                let error = carried.and_then(|carried| carried.error());
                Cause::Error(error.unwrap_or_else(|| Box::new(Remote::of(texts))))
            }
            Why::Panic { message, place } => Cause::Panic { message, place },
            Why::InputTaken(name) => Cause::InputTaken(name),
            Why::InputMissing(name) => Cause::InputMissing(name),
            Why::TimedOut(time) => Cause::TimedOut(time),
            Why::Cancelled | Why::Upstream(_) => Cause::Cancelled,
            Why::Process { ended, tail, usage } => {
                Cause::Process(Box::new(ProcessFailure { how: ended.how(), tail, usage }))
            }
        }
    }
}

fn texts(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        texts.push(error.to_string());
        source = error.source();
    }
    texts
}

/// An error of another rank: what it said.
#[derive(Debug)]
struct Remote {
    text: String,
    source: Option<Box<Remote>>,
}

impl Remote {
    fn of(texts: Vec<String>) -> Remote {
        let chain = texts.into_iter().rev();
        let link = |source: Option<Box<Remote>>, text| Some(Box::new(Remote { text, source }));
        chain.fold(None, link).map_or_else(|| Remote { text: String::new(), source: None }, |last| *last)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Remote {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(name: &str, cause: Cause) -> Arc<Failure> {
        Failure::of(name.to_string(), 7, 1, 3, cause)
    }

    fn there_and_back(failure: &Failure) -> Arc<Failure> {
        let bytes = postcard::to_allocvec(&Told::of(failure)).expect("it is written");
        postcard::from_bytes::<Told>(&bytes).expect("it is read").failure(&|_| None)
    }

    #[test]
    fn a_failure_says_the_same_on_another_rank() {
        let gone = io::Error::from_raw_os_error(2);
        let ends = [
            How::Exited(3),
            How::Signal { signal: 9, core: true },
            How::TimedOut(Duration::from_secs(2)),
            How::OverMemory { limit: 5 },
            How::CouldNotStart { what: "the program".into(), path: "/x".into(), error: gone },
            How::Lost,
        ];
        for how in ends {
            let usage = Usage { max_rss_bytes: 7, ..Usage::default() };
            let process = ProcessFailure { how, tail: "last words".into(), usage };
            let failure = failure("p", Cause::Process(Box::new(process)));
            let back = there_and_back(&failure);
            assert_eq!(back.to_string(), failure.to_string());
            assert!(matches!(&back.cause, Cause::Process(process) if process.usage == usage));
        }
        let panic = Cause::Panic { message: "no".into(), place: "a.rs:1:2".into() };
        let error = std::io::Error::other("the disk is gone");
        for cause in [Cause::Error(Box::new(error)), panic, Cause::Cancelled, Cause::InputMissing("x".into())]
        {
            let failure = failure("b", Cause::Upstream(failure("a", cause)));
            assert_eq!(there_and_back(&failure).root, Some(7));
            let failure = failure.begun_outside(true);
            assert_eq!(there_and_back(&failure).root, None);
            let back = there_and_back(&failure);
            assert_eq!(back.to_string(), failure.to_string());
            let (Cause::Upstream(root), Cause::Upstream(was)) = (&back.cause, &failure.cause) else {
                panic!("the chain is there")
            };
            assert_eq!((root.to_string(), root.rank, root.index), (was.to_string(), 3, 7));
        }
    }

    /// A guest knows tasks by their places in the list that runs; home, which may have compiled them in another, by
    /// their index there.
    #[test]
    fn home_knows_the_index_of_a_task_by_its_place() {
        let failure =
            failure("b", Cause::Upstream(failure("a", Cause::Cancelled).placed(Some(9)))).placed(Some(12));
        let back = Told::of(&failure).failure(&|place| (place == 12).then_some(2));
        assert_eq!((back.index, back.place, back.root), (2, Some(12), Some(9)));
        let back = Told::of_outside(&failure).failure(&|_| Some(2));
        assert_eq!((back.index, back.place), (7, None));
        // Of a chain that began in another list the beginning is left as it is.
        let entry = self::failure("c", Cause::Upstream(failure)).begun_outside(true);
        let mut teller = Teller::default();
        teller.add(&entry);
        for told in [Told::of(&entry), teller.told()] {
            let back = told.failure(&|_| Some(2));
            let Cause::Upstream(before) = &back.cause else { panic!("it comes from another") };
            assert_eq!((back.index, before.index, before.place, back.root), (2, 7, None, None));
        }
    }

    #[test]
    fn sources_of_an_error_are_told_as_well() {
        let inner = Remote { text: "inner".into(), source: None };
        let outer = Remote { text: "outer".into(), source: Some(Box::new(inner)) };
        let back = there_and_back(&failure("a", Cause::Error(Box::new(outer))));
        let source = back.source().expect("the user's error");
        assert_eq!(source.to_string(), "outer");
        assert_eq!(source.source().expect("its source").to_string(), "inner");
    }

    /// A chain as long as a list needs neither a deep stack nor a long message.
    #[test]
    fn of_a_long_chain_both_ends_are_told() {
        let mut last = failure("root", Cause::Cancelled);
        for _ in 0..100_000 {
            last = failure("skipped", Cause::Upstream(last));
        }
        let told = Told::of(&last).0;
        assert_eq!(told.len(), CHAIN_MAX);
        let name = |link: Option<&Link>| link.map(|link| link.name.clone());
        assert_eq!((name(told.first()), name(told.last())), (Some("root".into()), Some("skipped".into())));
    }

    /// Of a list of skipped tasks each is told of once, with what it comes from by its place.
    #[test]
    fn many_failures_that_come_from_each_other_take_as_much_as_there_are() {
        let mut all = vec![failure("root", Cause::Error("the disk is gone".into()))];
        for i in 0..10_000usize {
            all.push(failure("skipped", Cause::Upstream(Arc::clone(&all[i / 2]))));
        }
        let mut teller = Teller::default();
        let places: Vec<u32> = all.iter().rev().map(|failure| teller.add(failure)).collect();
        let bytes = postcard::to_allocvec(&teller.told()).expect("it is written");
        assert!(bytes.len() < 20 * all.len(), "{} bytes", bytes.len());
        let back = postcard::from_bytes::<Told>(&bytes).expect("it is read").failures(&|_| None);
        assert_eq!(back.len(), all.len());
        for (place, was) in places.into_iter().zip(all.iter().rev()) {
            assert_eq!(back[place as usize].to_string(), was.to_string());
            assert_eq!(back[place as usize].root().to_string(), was.root().to_string());
        }
    }
}
