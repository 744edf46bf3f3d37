//! One client at the primary: a thread that reads what it wants, a thread that tells it what has become of that.

use super::listener::Listener;
use super::unpack::{self, Data};
use crate::background::Client;
use crate::clients::client::own_fingerprint;
use crate::clients::message::{
    self, Greeting, Hello, How, Origin, Refusal, ToClient, ToSession, VERSION, Welcome,
};
use crate::cohort::Progress;
use crate::error::{Cause, Error, Failure};
use crate::outputs::{Portion, Which};
use crate::plan::Owned;
use crate::ranks::Told;
use crate::shared::Shared;
use crate::task::output::read_so_far;
use crate::task::record::{Kept, Ref, state};
use crate::task::{Task, TaskList};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How long a client has to say who it is.
const GREETING_TIME: Duration = Duration::from_secs(10);
/// News are written together up to about so many bytes.
const TOGETHER_BYTES: usize = 1 << 16;
/// What a task has written comes with the news of its end up to so many bytes; more is asked for.
const OUTPUT_BYTES_MAX: u64 = 1 << 16;

/// See the page.
pub(super) struct Session {
    stream: UnixStream,
    pub(super) seat: Seat,
    out: Sender<News>,
}

/// What the client is to be told.
enum News {
    Frame(Vec<u8>),
    Ended(Arc<List>, u32),
    Bye(String),
}

/// The client's place in the batch: `join` waits until it is closed.
pub(super) struct Seat {
    shared: Arc<Shared>,
    /// By number of each `Batch` value of the client.
    clients: Mutex<HashMap<u32, Arc<Client>>>,
    is_closed: AtomicBool,
}

/// A list that the client has started.
struct List {
    number: u64,
    tasks: Vec<Held>,
}

/// A task of it.
enum Held {
    /// The client has a handle of it, so it has one here.
    Wanted(Task<()>),
    /// The record alone.
    Unwanted(Kept),
}

/// Serves a client until it hangs up, or is cut off.
pub(super) fn serve(listener: &Arc<Listener>, mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(GREETING_TIME))?;
    message::write_preface(&mut stream)?;
    if message::read_preface(&mut stream)? != VERSION {
        return Ok(());
    }
    let Some(frame) = message::read_frame(&mut stream)? else { return Ok(()) };
    let (hello, _) = message::open::<Hello>(&frame)?;
    if hello.secret != listener.descriptor.secret {
        return stream.write_all(&message::frame(&Greeting::Closed, &[])?);
    }
    let (out, news) = channel();
    let writing = stream.try_clone()?;
    let admitted = listener.admit(|shared| {
        let stream = stream.try_clone()?;
        Ok(Arc::new(Session { stream, seat: Seat::new(shared), out }))
    })?;
    let session = match admitted {
        None => return stream.write_all(&message::frame(&Greeting::Closed, &[])?),
        Some(Err(max)) => return stream.write_all(&message::frame(&Greeting::TooMany(max as u64), &[])?),
        Some(Ok(session)) => session,
    };
    let fingerprint = own_fingerprint();
    let shares_code = fingerprint.is_some() && fingerprint == hello.fingerprint;
    let welcome = welcome(&session.seat.shared, fingerprint);
    stream.write_all(&message::frame(&Greeting::Welcome(welcome), &[])?)?;
    stream.set_read_timeout(None)?;
    let writer = std::thread::Builder::new().name("tarragon-news".to_string());
    let writer = writer.spawn(move || {
        if write(writing.try_clone(), &news).is_err() {
            // The client is gone, as its reader finds out by this.
            let _ = writing.shutdown(Shutdown::Both);
        }
    })?;
    let read =
        Reader { session: &session, shares_code, data: Data::default(), lists: HashMap::new() }.read(stream);
    session.seat.close();
    // Tasks that have not ended hold ends of the queue.
    let _ = session.out.send(News::Bye(String::new()));
    drop(session);
    let _ = writer.join();
    read
}

fn welcome(shared: &Shared, fingerprint: Option<[u8; 16]>) -> Welcome {
    let program = std::env::current_exe().unwrap_or_default().display().to_string();
    Welcome {
        fingerprint,
        program,
        workers: shared.executor.workers() as u32,
        cpus: shared.totals.cpus,
        memory: shared.totals.memory,
        gpus: (shared.totals.gpus, shared.totals.gpus_why.clone()),
        named: shared.resources.names().into_iter().zip(shared.totals.named.iter().copied()).collect(),
        hosts: hosts(shared),
        is_here: shared.launching.hosts.is_here,
        gpus_of_hosts: shared.launching.hosts.gpus_of_others,
        background: shared.background,
        errors: shared.setup.errors.clone(),
    }
}

/// Where jobs may run beside this machine.
fn hosts(shared: &Shared) -> Vec<(String, u32)> {
    let of_ranks = shared.ranks.as_ref().filter(|ranks| ranks.size() > 1).map(|ranks| ranks.as_hosts(shared));
    of_ranks.unwrap_or_else(|| shared.launching.hosts.others.clone())
}

/// Writes news until the last, or until the client is gone.
fn write(stream: io::Result<UnixStream>, news: &Receiver<News>) -> io::Result<()> {
    let mut stream = stream?;
    let mut bytes = Vec::new();
    while let Ok(first) = news.recv() {
        let more = std::iter::from_fn(|| news.try_recv().ok());
        for news in std::iter::once(first).chain(more) {
            match news {
                News::Frame(frame) => bytes.extend(frame),
                News::Ended(list, place) => bytes.extend(ended(&list, place)?),
                News::Bye(why) => {
                    bytes.extend(message::frame(&ToClient::Bye { why }, &[])?);
                    stream.write_all(&bytes)?;
                    // What is written stays to be read.
                    return stream.shutdown(Shutdown::Both);
                }
            }
            if bytes.len() >= TOGETHER_BYTES {
                stream.write_all(&bytes)?;
                bytes.clear();
            }
        }
        stream.write_all(&bytes)?;
        bytes.clear();
    }
    Ok(())
}

impl Session {
    /// After all that it is to be told so far.
    pub(super) fn bye(&self, why: &str) {
        let _ = self.out.send(News::Bye(why.to_string()));
    }

    /// Whatever it has not been told.
    pub(super) fn cut_off(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn tell(&self, message: &ToClient, rest: &[&[u8]]) -> io::Result<()> {
        // Without a writer there is no client.
        let _ = self.out.send(News::Frame(message::frame(message, rest)?));
        Ok(())
    }
}

impl Seat {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.inner_clients.fetch_add(1, Ordering::Relaxed);
        shared.client_is_open();
        Self { shared: Arc::clone(shared), clients: Mutex::default(), is_closed: AtomicBool::new(false) }
    }

    /// Nothing more is started by the client; what it has started goes on.
    pub(super) fn close(&self) {
        if !self.is_closed.swap(true, Ordering::AcqRel) {
            self.shared.client_is_closed();
        }
    }

    /// The client with this number, as the batch knows it.
    fn client(&self, number: u32) -> Arc<Client> {
        let mut clients = self.clients.lock();
        Arc::clone(clients.entry(number).or_insert_with(|| Client::new(&self.shared, false)))
    }

    /// Starts a list.
    fn start(&self, from: Origin, tasks: &dyn TaskList) -> Result<(), Error> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        match from {
            Origin::Submitted { client } => self.client(client).submit_now(&self.shared, tasks),
            Origin::Compiled => {
                let owned = Owned::compile(&self.shared, &|see| tasks.each(see), tasks.size_hint())?;
                owned.start(true)
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.close();
        self.clients.lock().clear();
        self.shared.inner_clients.fetch_sub(1, Ordering::AcqRel);
        self.shared.close_if_unused();
    }
}

/// Reads what the client wants.
struct Reader<'a> {
    session: &'a Arc<Session>,
    shares_code: bool,
    data: Data,
    lists: HashMap<u64, Arc<List>>,
}

impl Reader<'_> {
    fn read(mut self, stream: UnixStream) -> io::Result<()> {
        let mut from = io::BufReader::new(stream);
        loop {
            let frame = match message::read_frame(&mut from) {
                Ok(Some(frame)) => frame,
                // A client may go as it likes.
                Ok(None) => return Ok(()),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let (message, rest) = message::open::<ToSession>(&frame)?;
            match message {
                ToSession::List { number, from } => self.list(number, from, rest)?,
                ToSession::Cancel { number, place } => self.cancel(number, place),
                ToSession::Read { ticket, number, place, portion } => {
                    let read = self.output(number, place, portion);
                    let (error, bytes) = match &read {
                        Ok(bytes) => (None, bytes.as_slice()),
                        Err(error) => (Some(error.to_string()), [].as_slice()),
                    };
                    self.session.tell(&ToClient::Written { ticket, error }, &[bytes])?;
                }
                ToSession::Forget { client } => self.session.seat.client(client).forget(),
                ToSession::Drop { number } => drop(self.lists.remove(&number)),
                ToSession::Close => self.session.seat.close(),
            }
        }
    }

    fn list(&mut self, number: u64, from: Origin, bytes: &[u8]) -> io::Result<()> {
        let shared = &self.session.seat.shared;
        let lists = &self.lists;
        let outside = |number: u64, place: u32| lists.get(&number)?.task(place);
        let unpacked = unpack::unpack(shared, self.shares_code, &mut self.data, &outside, bytes);
        let tasks = match unpacked {
            Ok(tasks) => tasks,
            Err(error) => {
                let why = Refusal::Other(error.to_string());
                return self.session.tell(&ToClient::Refused { number, why }, &[]);
            }
        };
        let (tasks, wanted): (Vec<Task<()>>, Vec<bool>) = tasks.into_iter().unzip();
        let kept = tasks.iter().zip(&wanted);
        let kept = kept.map(|(task, wanted)| (!wanted).then(|| Kept::new(task.task()))).collect::<Vec<_>>();
        let started = self.session.seat.start(from, &tasks);
        if let Err(error) = started {
            let why = refusal(error);
            return self.session.tell(&ToClient::Refused { number, why }, &[]);
        }
        self.session.tell(&ToClient::Accepted { number }, &[])?;
        let held = tasks.into_iter().zip(kept).map(|(task, kept)| match kept {
            None => Held::Wanted(task),
            Some(kept) => Held::Unwanted(kept),
        });
        let list = Arc::new(List { number, tasks: held.collect() });
        self.lists.insert(number, Arc::clone(&list));
        watch(shared, &list, &self.session.out);
        Ok(())
    }

    fn cancel(&self, number: u64, place: Option<u32>) {
        let Some(list) = self.lists.get(&number) else { return };
        let task = place.map(|place| list.task(place));
        let first = list.task(place.unwrap_or(0));
        if let Some(run) = first.and_then(Ref::cohort).and_then(|cohort| cohort.run()) {
            run.cancel(task.flatten());
        }
    }

    fn output(&self, number: u64, place: u32, portion: Portion) -> io::Result<Vec<u8>> {
        let task = self.lists.get(&number).and_then(|list| list.task(place));
        task.map_or_else(|| Ok(Vec::new()), |task| read_so_far(task, portion))
    }
}

impl List {
    fn task(&self, place: u32) -> Option<Ref> {
        self.tasks.get(place as usize).map(|held| match held {
            Held::Wanted(task) => task.task(),
            Held::Unwanted(kept) => kept.0,
        })
    }

    fn all(&self) -> impl Iterator<Item = Ref> + '_ {
        (0..self.tasks.len() as u32).filter_map(|place| self.task(place))
    }

    fn is_wanted(&self, place: u32) -> bool {
        matches!(self.tasks.get(place as usize), Some(Held::Wanted(_)))
    }
}

/// Has the client told when each task ends.
fn watch(shared: &Arc<Shared>, list: &Arc<List>, out: &Sender<News>) {
    for (place, task) in (0..).zip(list.all()) {
        // What is done on another rank is brought here first.
        let is_here = |progress| matches!(progress, Progress::Ended(kind) if kind != state::ELSEWHERE);
        let is_over = || task.cohort().is_some_and(|cohort| is_here(cohort.progress(task)));
        let (of_list, out) = (Arc::clone(list), out.clone());
        let tell = move || {
            let _ = out.send(News::Ended(of_list, place));
        };
        shared.awaited.when_ended(task, is_over, Box::new(tell));
    }
    // Of other ranks nobody would say that a task has ended before its list has.
    if let Some(cohort) = list.task(0).and_then(Ref::cohort) {
        cohort.request(list.all());
    }
}

/// The news that a task has ended.
fn ended(list: &List, place: u32) -> io::Result<Vec<u8>> {
    let number = list.number;
    let (Some(task), Some(first)) = (list.task(place), list.task(0)) else { return Ok(Vec::new()) };
    let Some(cohort) = task.cohort() else { return Ok(Vec::new()) };
    let badly = |failure: &Failure, is_skipped: bool, wrote: String| {
        let how = How::Badly { is_skipped, why: Told::of(failure), first: first.index(), wrote };
        message::frame(&ToClient::Ended { number, place, how }, &[])
    };
    let _gate = cohort.reading();
    let progress = cohort.progress(task);
    if let Progress::Ended(state::FAILED | state::SKIPPED) = progress
        && let Some(error) = cohort.failure(task.index())
    {
        let is_skipped = progress == Progress::Ended(state::SKIPPED);
        return badly(&error.failure(), is_skipped, error.stdout().unwrap_or_default().to_string());
    }
    let is_wanted = list.is_wanted(place);
    let output = if is_wanted { small_output(task) } else { None };
    let is_there = is_wanted && progress == Progress::Ended(state::DONE);
    let value = if is_there { task.pack_value() } else { None };
    if is_there && value.is_none() {
        let what = "its result cannot go to the client: serde cannot write it";
        return badly(&Failure::new(task, Cause::Error(what.into()), 1), false, String::new());
    }
    let (out, err) = output.as_ref().map_or(([].as_slice(), [].as_slice()), |(out, err)| (out, err));
    let wrote = output.as_ref().map(|(out, err)| (out.len() as u32, err.len() as u32));
    let how = How::Well { has_value: value.is_some(), wrote };
    let rest = [out, err, value.as_deref().unwrap_or_default()];
    message::frame(&ToClient::Ended { number, place, how }, &rest).or_else(|error| {
        let what = format!("its result cannot go to the client: {error}");
        badly(&Failure::new(task, Cause::Error(what.into()), 1), false, String::new())
    })
}

/// What a task wrote, if it is here and little.
fn small_output(task: Ref) -> Option<(Vec<u8>, Vec<u8>)> {
    let cohort = task.cohort()?;
    if cohort.elsewhere().is_some_and(|elsewhere| elsewhere.has(task)) {
        return None;
    }
    let small =
        |which| move |output: &mut crate::task::output::Output| output.at_most(which, OUTPUT_BYTES_MAX);
    let stream = |which| cohort.with_output(task.index(), small(which)).unwrap_or(Some(Vec::new()));
    Some((stream(Which::Out)?, stream(Which::Err)?))
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Closed => Refusal::Closed,
        Error::NoBackground => Refusal::NoBackground,
        Error::Interrupted => Refusal::Interrupted,
        Error::Compile(all) => Refusal::Mistakes(all.mistakes.iter().map(ToString::to_string).collect()),
        other => Refusal::Other(other.to_string()),
    }
}
