//! A failure as another rank is told of it: the user's error as text, with its chain of sources.

use crate::error::{Cause, Failure, How, ProcessFailure};
use crate::task::Usage;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Tasks of a chain of skipped ones that are told of; of a longer one the first and the last.
const CHAIN_MAX: usize = 256;

/// Why a task did not succeed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Told {
    /// From this task to the one that failed.
    chain: Vec<Task>,
    cause: Why,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Task {
    name: String,
    index: u32,
    attempts: u32,
    rank: u32,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Why {
    /// What it says, and what each of its sources says.
    Error(Vec<String>),
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
            Ended::Lost => How::Lost,
        }
    }
}

impl Told {
    pub(super) fn of(failure: &Failure) -> Told {
        let mut chain = Vec::new();
        let mut last = failure;
        loop {
            let (name, index) = (last.name.clone(), last.index);
            let task = Task { name, index, attempts: last.attempts, rank: last.rank };
            if chain.len() == CHAIN_MAX {
                chain.pop();
            }
            chain.push(task);
            match &last.cause {
                Cause::Upstream(next) => last = next,
                _ => break,
            }
        }
        Told { chain, cause: Why::of(&last.cause) }
    }

    /// The failure again, on the rank that is told.
    pub(super) fn failure(self) -> Arc<Failure> {
        let mut cause = Some(self.cause.cause());
        let mut last: Option<Arc<Failure>> = None;
        for task in self.chain.into_iter().rev() {
            let cause = match (last.take(), cause.take()) {
                (Some(failure), _) => Cause::Upstream(failure),
                (None, Some(cause)) => cause,
                (None, None) => Cause::Cancelled,
            };
            let Task { name, index, attempts, rank } = task;
            last = Some(Arc::new(Failure { name, index, attempts, rank, cause }));
        }
        last.unwrap_or_else(|| {
            let cause = Cause::Error("a rank told of a failure without a task".into());
            Arc::new(Failure { name: String::new(), index: u32::MAX, attempts: 0, rank: 0, cause })
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
            Cause::Error(error) => Why::Error(texts(&**error)),
            Cause::Process(process) => {
                let (ended, tail) = (Ended::of(&process.how), process.tail.clone());
                Why::Process { ended, tail, usage: process.usage }
            }
            other => Why::Error(vec![other.to_string()]),
        }
    }

    fn cause(self) -> Cause {
        match self {
            Why::Error(texts) => Cause::Error(Box::new(Remote::of(texts))),
            Why::Panic { message, place } => Cause::Panic { message, place },
            Why::InputTaken(name) => Cause::InputTaken(name),
            Why::InputMissing(name) => Cause::InputMissing(name),
            Why::TimedOut(time) => Cause::TimedOut(time),
            Why::Cancelled => Cause::Cancelled,
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
        Arc::new(Failure { name: name.to_string(), index: 7, attempts: 1, rank: 3, cause })
    }

    fn there_and_back(failure: &Failure) -> Arc<Failure> {
        let bytes = postcard::to_allocvec(&Told::of(failure)).expect("it is written");
        postcard::from_bytes::<Told>(&bytes).expect("it is read").failure()
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
            let back = there_and_back(&failure);
            assert_eq!(back.to_string(), failure.to_string());
            let (Cause::Upstream(root), Cause::Upstream(was)) = (&back.cause, &failure.cause) else {
                panic!("the chain is there")
            };
            assert_eq!((root.to_string(), root.rank, root.index), (was.to_string(), 3, 7));
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
        let told = Told::of(&last);
        assert_eq!(told.chain.len(), CHAIN_MAX);
        assert_eq!(told.chain.last().map(|task| task.name.as_str()), Some("root"));
    }
}
