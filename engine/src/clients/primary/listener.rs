//! Where clients of a batch attach: the socket, the thread that accepts, and the sessions under way.
//!
//! # States
//! `Open` → `Closed`: no client attaches any more, and no session takes a list; all that was started ends → each
//! session writes what it has to tell and `Bye`, and is cut off after [`PARTING`] at the latest.

use super::session::{self, Session};
use crate::clients::descriptor::BatchDescriptor;
use crate::clients::error::AttachError;
use crate::error::Error;
use crate::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Clients at one time; the next one is told so.
const CLIENTS_MAX: usize = 1024;
/// How long clients have to read what is told them when the batch goes.
const PARTING: Duration = Duration::from_secs(5);
/// Where the system has no room for another connection it is tried again after this.
const PAUSE: Duration = Duration::from_millis(50);

/// See the page.
pub(crate) struct Listener {
    shared: Weak<Shared>,
    pub(super) descriptor: BatchDescriptor,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// To wake who accepts; goes when the batch is closed.
    socket: Option<UnixListener>,
    sessions: Vec<Weak<Session>>,
}

impl Listener {
    /// Opens the socket, and has a thread accept.
    pub(crate) fn open(shared: &Arc<Shared>) -> Result<Arc<Self>, Error> {
        let pid = std::process::id();
        let system = |verb| move |source| AttachError::System { verb, pid, source };
        let descriptor = BatchDescriptor::of_this_process(secret().map_err(system("draw a number for"))?);
        let address = descriptor.address().map_err(system("name"))?;
        let socket = UnixListener::bind_addr(&address).map_err(system("listen for clients of"))?;
        let waking = socket.try_clone().map_err(system("listen for clients of"))?;
        let listener = Arc::new(Self {
            shared: Arc::downgrade(shared),
            descriptor,
            state: Mutex::new(State { socket: Some(waking), ..State::default() }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&listener);
        let thread = std::thread::Builder::new().name("tarragon-listen".to_string());
        let thread = thread.spawn(move || accepting.accept(&socket));
        thread.map_err(|source| Error::Threads { threads: 1, source: Box::new(source) })?;
        Ok(listener)
    }

    pub(crate) fn descriptor(&self) -> &BatchDescriptor {
        &self.descriptor
    }

    fn accept(self: &Arc<Self>, socket: &UnixListener) {
        loop {
            let accepted = socket.accept();
            if self.state.lock().is_closed {
                return;
            }
            match accepted {
                Ok((stream, _)) if is_of_our_user(&stream) => self.serve(stream),
                // It sees whose socket this is.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(target: "tarragon", %error, "cannot accept a client");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn serve(self: &Arc<Self>, stream: UnixStream) {
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("tarragon-session".to_string());
        let spawned = thread.spawn(move || {
            if let Err(error) = session::serve(&this, stream) {
                tracing::warn!(target: "tarragon", %error, "the connection of a client ends");
            }
            this.state.lock().sessions.retain(is_there);
            this.changed.notify_all();
        });
        if let Err(error) = spawned {
            tracing::warn!(target: "tarragon", %error, "cannot serve a client");
        }
    }

    /// Lets a client in, which `make` makes a session for; `None` if the batch takes none any more, else the bound if
    /// there are as many as can be.
    pub(super) fn admit(
        &self,
        make: impl FnOnce(&Arc<Shared>) -> io::Result<Arc<Session>>,
    ) -> io::Result<Option<Result<Arc<Session>, usize>>> {
        let mut state = self.state.lock();
        state.sessions.retain(is_there);
        let Some(shared) = self.shared.upgrade().filter(|_| !state.is_closed) else { return Ok(None) };
        if state.sessions.len() >= CLIENTS_MAX {
            return Ok(Some(Err(CLIENTS_MAX)));
        }
        let session = make(&shared)?;
        state.sessions.push(Arc::downgrade(&session));
        Ok(Some(Ok(session)))
    }

    /// No client attaches any more, and none starts anything.
    pub(crate) fn close(&self) {
        let sessions: Vec<Arc<Session>> = {
            let mut state = self.state.lock();
            state.is_closed = true;
            if let Some(socket) = state.socket.take() {
                // An error would say that nobody can connect.
                let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
            }
            state.sessions.iter().filter_map(Weak::upgrade).collect()
        };
        sessions.iter().for_each(|session| session.seat.close());
    }

    /// All that was started has ended: clients are told that nothing more will come, and why. If it `waits` it returns
    /// when that is written, in bounded time.
    pub(crate) fn part(&self, why: &str, waits: bool) {
        let sessions =
            || -> Vec<Arc<Session>> { self.state.lock().sessions.iter().filter_map(Weak::upgrade).collect() };
        sessions().iter().for_each(|session| session.bye(why));
        if !waits {
            return;
        }
        let deadline = Instant::now() + PARTING;
        let mut state = self.state.lock();
        while state.sessions.iter().any(is_there)
            && !self.changed.wait_until(&mut state, deadline).timed_out()
        {}
        drop(state);
        sessions().iter().for_each(|session| session.cut_off());
    }
}

fn is_there(session: &Weak<Session>) -> bool {
    session.strong_count() > 0
}

/// Nobody can guess it.
fn secret() -> io::Result<[u64; 2]> {
    let mut halves = [[0; 8]; 2];
    let mut source = File::open("/dev/urandom")?;
    halves.iter_mut().try_for_each(|half| source.read_exact(half))?;
    Ok(halves.map(u64::from_le_bytes))
}

fn is_of_our_user(stream: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}
