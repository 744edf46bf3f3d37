//! A client's connection: attaching, what is written, the thread that receives.

use super::pack::{self, Known};
use super::sent::Sent;
use crate::attend::{Gpus, Share, Totals};
use crate::batch::Batch;
use crate::clients::descriptor::BatchDescriptor;
use crate::clients::error::AttachError;
use crate::clients::message::{
    self, Greeting, Hello, Origin, Refusal, ToClient, ToSession, VERSION, Welcome,
};
use crate::clients::names::NameLog;
use crate::error::{Cause, CompileError, Error, Failure, Mistake, carried};
use crate::function::identity::fingerprint;
use crate::launch::Launching;
use crate::outputs::{Outputs, Portion};
use crate::plan::Plan;
use crate::ranks::Setup;
use crate::run::Executor;
use crate::shared::{Parts, Resources, Shared};
use crate::task::record::Ref;
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// How long the primary's program may take to answer who attaches.
const GREETING_TIME: Duration = Duration::from_secs(60);
/// A process that ends closes its sockets a moment before it is gone; so often is looked, with this time between.
const LOOKS: u32 = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// See the page of `clients`.
pub(crate) struct Connection {
    descriptor: BatchDescriptor,
    stream: UnixStream,
    /// Both run the same executable.
    shares_code: bool,
    /// Where the primary's executable is.
    program: String,
    workers: u32,
    names: NameLog,
    order: Mutex<Known>,
    out: Mutex<()>,
    next: AtomicU64,
    lists: Mutex<HashMap<u64, Weak<Sent>>>,
    /// Output that was asked for, once it has come.
    reading: Mutex<HashMap<u64, Option<io::Result<Vec<u8>>>>>,
    has_read: Condvar,
    /// Why nothing more will come.
    lost: OnceLock<String>,
}

/// A batch whose tasks run where the descriptor comes from.
pub(in crate::clients) fn attach(descriptor: &BatchDescriptor) -> Result<Batch, Error> {
    descriptor.check_node()?;
    let (stream, welcome) = greet(descriptor)?;
    let system = |verb| move |source| AttachError::System { verb, pid: descriptor.pid, source };
    let reader = stream.try_clone().map_err(system("receive from"))?;
    let shares_code = welcome.fingerprint.is_some() && welcome.fingerprint == own_fingerprint();
    if shares_code {
        carried::learn(&welcome.errors);
    }
    let connection = Arc::new(Connection {
        descriptor: descriptor.clone(),
        stream,
        shares_code,
        program: welcome.program.clone(),
        workers: welcome.workers,
        names: NameLog::default(),
        order: Mutex::default(),
        out: Mutex::default(),
        next: AtomicU64::new(1),
        lists: Mutex::default(),
        reading: Mutex::default(),
        has_read: Condvar::new(),
        lost: OnceLock::new(),
    });
    let shared = Shared::new(parts(&connection, welcome));
    let receiver = Arc::clone(&connection);
    let thread = std::thread::Builder::new().name("tarragon-client".to_string());
    let thread = thread.spawn(move || receiver.receive(reader));
    thread.map_err(|source| Error::Threads { threads: 1, source: Box::new(source) })?;
    Ok(Batch::inside(&Arc::new(shared)))
}

fn parts(connection: &Arc<Connection>, welcome: Welcome) -> Parts {
    let (names, amounts) = welcome.named.into_iter().unzip();
    let (gpus, gpus_why) = welcome.gpus;
    Parts {
        executor: Executor::Remote(Arc::clone(connection)),
        timing: false,
        share: Share::assume(welcome.cpus),
        gpus: Gpus::default(),
        totals: Totals { cpus: welcome.cpus, memory: welcome.memory, gpus, gpus_why, named: amounts },
        resources: Resources(names),
        outputs: Outputs::new(None, false),
        cpu_ids: Vec::new(),
        binds: false,
        launching: Launching::of_primary(welcome.is_here, welcome.hosts, welcome.gpus_of_hosts),
        background: welcome.background,
        signals: false,
        lock: None,
        book: None,
        ranks: None,
        setup: Setup::default(),
    }
}

pub(in crate::clients) fn own_fingerprint() -> Option<[u8; 16]> {
    fingerprint().ok().map(|fingerprint| fingerprint.0)
}

/// Connects, and hears what the batch is like.
fn greet(descriptor: &BatchDescriptor) -> Result<(UnixStream, Welcome), AttachError> {
    let pid = descriptor.pid;
    let system = |verb| move |source| AttachError::System { verb, pid, source };
    let address = descriptor.address().map_err(system("name"))?;
    let mut stream = UnixStream::connect_addr(&address).map_err(|source| match source.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound if descriptor.is_of_this_host() => {
            descriptor.absence()
        }
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => descriptor.other_node(),
        _ => AttachError::System { verb: "reach", pid, source },
    })?;
    let peer = rustix::net::sockopt::socket_peercred(&stream);
    let peer = peer.map_err(|errno| system("ask who runs")(errno.into()))?;
    let (theirs, ours) = (peer.uid.as_raw(), rustix::process::geteuid().as_raw());
    if theirs != ours {
        return Err(AttachError::OtherUser { pid, theirs, ours });
    }
    let hello = Hello { secret: descriptor.secret, fingerprint: own_fingerprint() };
    let said = (|| {
        stream.set_read_timeout(Some(GREETING_TIME))?;
        message::write_preface(&mut stream)?;
        let theirs = message::read_preface(&mut stream)?;
        if theirs != VERSION {
            return Ok(Err(theirs));
        }
        stream.write_all(&message::frame(&hello, &[])?)?;
        let frame = message::read_frame(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        stream.set_read_timeout(None)?;
        message::open::<Greeting>(&frame).map(|(greeting, _)| Ok(greeting))
    })();
    match said {
        Ok(Ok(Greeting::Welcome(welcome))) => Ok((stream, welcome)),
        Ok(Ok(Greeting::Closed)) => Err(descriptor.absence()),
        Ok(Ok(Greeting::TooMany(max))) => Err(AttachError::TooMany { pid, max: max as usize }),
        Ok(Err(theirs)) => Err(AttachError::OtherVersion { pid, theirs, ours: VERSION.to_string() }),
        // It ends, or has closed the batch, just now.
        Err(error) if is_hung_up(&error) => Err(descriptor.absence()),
        Err(error) => Err(AttachError::System { verb: "talk to", pid, source: error }),
    }
}

fn is_hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Held by a run that begins until its list is sent.
pub(crate) struct Turn<'a> {
    connection: &'a Arc<Connection>,
    known: MutexGuard<'a, Known>,
}

impl Turn<'_> {
    /// Sends the list of a plan whose run has begun, and waits until the primary has taken it; an error if it does not.
    pub(crate) fn offer(self, plan: &Arc<Plan>) -> Result<(), Error> {
        let Turn { connection, mut known } = self;
        plan.cohorts().iter().for_each(|cohort| cohort.bind_sent(None));
        connection.check()?;
        let tasks: Box<[Ref]> = plan.list().into();
        if tasks.is_empty() {
            return Ok(());
        }
        let packed = pack::pack(plan, &tasks, &connection.names, &mut known);
        let bytes = packed.map_err(|why| {
            // What was named in bytes that go nowhere is named again.
            *known = Known::default();
            connection.refused(why.to_string())
        })?;
        let number = connection.next.fetch_add(1, Ordering::Relaxed);
        let sent = Sent::new(connection, number, plan, tasks);
        connection.lists.lock().insert(number, Arc::downgrade(&sent));
        plan.cohorts().iter().for_each(|cohort| cohort.bind_sent(Some(Arc::clone(&sent))));
        let from = plan.client.as_ref().map(|client| Origin::Submitted { client: client.number });
        let list = ToSession::List { number, from: from.unwrap_or(Origin::Compiled) };
        // Who loses the connection tells the lists that it finds.
        let written = connection.check().and_then(|()| connection.write(&list, &[&bytes]));
        if written.is_err() {
            *known = Known::default();
        }
        drop((known, bytes));
        let taken = written.and_then(|()| sent.answer());
        if taken.is_err() {
            plan.cohorts().iter().for_each(|cohort| cohort.bind_sent(None));
        }
        taken
    }
}

impl Connection {
    /// The right to begin a run: see `order` on the page of `clients`.
    pub(crate) fn turn(self: &Arc<Self>) -> Turn<'_> {
        Turn { connection: self, known: self.order.lock() }
    }

    /// What this process calls its data.
    pub(crate) fn names(&self) -> &NameLog {
        &self.names
    }

    /// Whether code has one name in both processes.
    pub(super) fn shares_code(&self) -> bool {
        self.shares_code
    }

    pub(crate) fn descriptor(&self) -> &BatchDescriptor {
        &self.descriptor
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers as usize
    }

    /// Tasks that cannot run in the primary's process.
    pub(crate) fn check_tasks(&self, tasks: impl Iterator<Item = Ref>, mistakes: &mut Vec<Mistake>) {
        let (pid, mut others) = (self.descriptor.pid, Vec::new());
        for (task, record) in (0..).zip(tasks) {
            let code = record.head().code;
            let decides = || record.extra().is_some_and(|extra| extra.limits.retry_if.is_some());
            if code.travel.is_none() {
                mistakes.push(Mistake::StaysHere { task, name: record.name(), pid });
            } else if !self.shares_code && (code.command.is_none() || decides()) {
                others.push((task, record));
            }
        }
        if let Some((task, first)) = others.first() {
            let ours = std::env::current_exe().unwrap_or_default().display().to_string();
            let (task, name, more, theirs) = (*task, first.name(), others.len() - 1, self.program.clone());
            mistakes.push(Mistake::OtherExecutable { task, name, more, pid, ours, theirs });
        }
    }

    /// An error once the primary is gone.
    fn check(&self) -> Result<(), Error> {
        self.lost.get().map_or(Ok(()), |why| Err(self.loss(why)))
    }

    /// What whoever starts something is told once the primary is gone.
    pub(super) fn lost(&self) -> Error {
        self.loss(self.lost.get().map_or("", String::as_str))
    }

    fn loss(&self, why: &str) -> Error {
        Error::BatchLost {
            pid: self.descriptor.pid,
            host: self.descriptor.host.clone(),
            why: why.to_string(),
        }
    }

    /// Why a task that the primary had has not ended well.
    pub(super) fn failure(&self, task: Ref) -> Arc<Failure> {
        let (pid, host) = (self.descriptor.pid, self.descriptor.host.clone());
        let why = self.lost.get().cloned().unwrap_or_default();
        Failure::new(task, Cause::BatchLost { pid, host, why }, 0)
    }

    fn refused(&self, why: String) -> Error {
        Error::BatchRefused { pid: self.descriptor.pid, why }
    }

    /// What the primary said of a list as the error that it is.
    pub(super) fn refusal(&self, why: Refusal) -> Error {
        match why {
            Refusal::Closed => Error::Closed,
            Refusal::NoBackground => Error::NoBackground,
            Refusal::Interrupted => Error::Interrupted,
            Refusal::Mistakes(all) => {
                let mistakes = all.into_iter().map(|what| Mistake::Refused { what }).collect();
                Error::Compile(CompileError { mistakes })
            }
            Refusal::Other(why) => self.refused(why),
        }
    }

    /// Sends a message.
    pub(super) fn write(&self, head: &impl Serialize, rest: &[&[u8]]) -> Result<(), Error> {
        let frame = message::frame(head, rest).map_err(|error| self.refused(error.to_string()))?;
        let _out = self.out.lock();
        let written = (&self.stream).write_all(&frame);
        written.map_err(|error| self.loss(self.lost.get().unwrap_or(&error.to_string())))
    }

    /// What this client submits later depends on nothing that came before.
    pub(crate) fn forget(&self, client: u32) {
        // If the primary is gone, whoever submits is told.
        let _ = self.write(&ToSession::Forget { client }, &[]);
    }

    /// All `Batch` values of this process are closed.
    pub(crate) fn close(&self) {
        let _ = self.write(&ToSession::Close, &[]);
    }

    /// Nobody has anything of the batch any more.
    pub(crate) fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// What a task has written so far.
    pub(super) fn read(&self, number: u64, place: u32, portion: Portion) -> io::Result<Vec<u8>> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        self.reading.lock().insert(ticket, None);
        // Who loses the connection removes the questions that it finds.
        let ask = ToSession::Read { ticket, number, place, portion };
        let asked = self.check().and_then(|()| self.write(&ask, &[]));
        let mut reading = self.reading.lock();
        if let Err(error) = asked {
            reading.remove(&ticket);
            return Err(io::Error::other(error));
        }
        loop {
            match reading.get_mut(&ticket).map(Option::take) {
                Some(None) => {}
                Some(Some(read)) => {
                    reading.remove(&ticket);
                    return read;
                }
                None => return Err(io::Error::other(self.lost())),
            }
            self.has_read.wait(&mut reading);
        }
    }

    pub(super) fn forget_list(&self, number: u64) {
        self.lists.lock().remove(&number);
        let _ = self.write(&ToSession::Drop { number }, &[]);
    }

    // ── what comes ──────────────────────────────────────────────────────────────────────────────────────────

    fn receive(&self, stream: UnixStream) {
        let mut from = io::BufReader::new(stream);
        let why = loop {
            let frame = match message::read_frame(&mut from) {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(error) if is_hung_up(&error) => break None,
                Err(error) => break Some(error.to_string()),
            };
            match message::open::<ToClient>(&frame) {
                Ok((ToClient::Bye { why }, _)) => break Some(why),
                Ok((message, rest)) => self.take_in(message, rest),
                Err(error) => break Some(error.to_string()),
            }
        };
        self.lose(why.unwrap_or_else(|| self.absence()));
        self.hang_up();
    }

    fn take_in(&self, message: ToClient, rest: &[u8]) {
        let list = |number| self.lists.lock().get(&number).and_then(Weak::upgrade);
        match message {
            ToClient::Accepted { number } => {
                if let Some(sent) = list(number) {
                    sent.answered(Ok(()));
                }
            }
            ToClient::Refused { number, why } => {
                if let Some(sent) = list(number) {
                    sent.answered(Err(why));
                }
            }
            ToClient::Ended { number, place, how } => {
                if let Some(sent) = list(number) {
                    sent.ended(place, how, rest);
                }
            }
            ToClient::Written { ticket, error } => {
                let read = error.map_or_else(|| Ok(rest.to_vec()), |error| Err(io::Error::other(error)));
                if let Some(place) = self.reading.lock().get_mut(&ticket) {
                    *place = Some(read);
                }
                self.has_read.notify_all();
            }
            ToClient::Bye { .. } => {}
        }
    }

    /// The socket has ended: whether the program has, too.
    fn absence(&self) -> String {
        for _ in 0..LOOKS {
            if matches!(self.descriptor.absence(), AttachError::Gone { .. }) {
                return "its program has ended".to_string();
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        "its program runs, but has ended the connection".to_string()
    }

    /// Whoever waits is told that nothing will come.
    fn lose(&self, why: String) {
        let _ = self.lost.set(why);
        self.reading.lock().retain(|_, read| read.is_some());
        self.has_read.notify_all();
        let lists: Vec<Arc<Sent>> = self.lists.lock().values().filter_map(Weak::upgrade).collect();
        lists.iter().for_each(|sent| sent.lose());
    }
}
