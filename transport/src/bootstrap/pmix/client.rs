//! This process as a client of the launcher: what it is told, and what all ranks tell one another through it.
//!
//! The library's calls wait for the launcher and for other ranks, some of them without any limit of their own. So each
//! is made by a thread of its own, which is given up when the time is over; a client that has given one up makes no
//! further call.

use std::ffi::CString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::environment;
use super::result::{Found, PmixStatus, proc_of};
use super::sys::{self, Library, Proc};
use crate::fabric::Deadline;
use crate::rank::Rank;
use crate::world::WorldError;

/// What libraries of PMIx are called.
const LIBRARY: &str = "libpmix.so.2";
/// Names another one.
const ENV_LIBRARY: &str = "TARRAGON_LIBPMIX";
/// The first version whose types have the sizes that `sys` knows.
const VERSION_MIN: u32 = 3;
/// How long the launcher may take to let a process go, in milliseconds.
const FINALIZE_MS: u64 = 10_000;

/// A connection to the launcher; let go when it is dropped.
pub(crate) struct Client {
    library: Library,
    own: Proc,
    size: u32,
    /// Exchanges made so far, and whether a call was given up.
    exchanges: u32,
    is_lost: bool,
    /// Held as long as the process is this rank.
    _claim: UnixListener,
}

impl Client {
    /// Connects to the launcher that the environment names.
    pub(in crate::bootstrap) fn connect(deadline: Deadline) -> Result<Client, WorldError> {
        let rank = environment::rank()?;
        let library = load()?;
        let claim = claim(rank)?;
        let own = within(deadline, "connect to the launcher", &library, move || library.init())?;
        let mut client = Client { library, own, size: 0, exchanges: 0, is_lost: false, _claim: claim };
        if client.own.rank != rank.0 {
            return Err(WorldError::Environment { variable: environment::ENV_RANK });
        }
        client.size = match client.get(sys::RANK_WILDCARD, sys::JOB_SIZE.to_owned(), deadline)? {
            Found::Number(size) => size,
            Found::Bytes(_) => 0,
        };
        Ok(client)
    }

    /// This rank.
    pub(crate) fn rank(&self) -> Rank {
        Rank(self.own.rank)
    }

    /// How many ranks were launched together.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Returns every rank's bytes, in the order of ranks, at every rank. All must call it equally often.
    pub(crate) fn exchange(&mut self, bytes: &[u8], deadline: Deadline) -> Result<Vec<Vec<u8>>, WorldError> {
        let key = CString::new(format!("tarragon.{}", self.exchanges)).expect("no zero in it");
        self.exchanges += 1;
        let (library, own, size, published) = (self.library, self.own.clone(), self.size, bytes.to_vec());
        let limit = deadline.left().unwrap_or_default();
        // One call for all ranks, and so one thread.
        self.call(deadline, "meet the other ranks of the launch", move || {
            library.publish(&key, &published)?;
            library.fence(&own, limit)?;
            let theirs =
                (0..size).map(|rank| match library.get(&proc_of(own.nspace, rank), &key, limit)? {
                    Found::Bytes(bytes) => Ok(bytes),
                    Found::Number(_) => Ok(Vec::new()),
                });
            theirs.collect()
        })
    }

    fn get(&mut self, rank: u32, key: CString, deadline: Deadline) -> Result<Found, WorldError> {
        let (library, of) = (self.library, proc_of(self.own.nspace, rank));
        let limit = deadline.left().unwrap_or_default();
        self.call(deadline, "ask the launcher", move || library.get(&of, &key, limit))
    }

    fn call<T: Send + 'static>(
        &mut self,
        deadline: Deadline,
        verb: &'static str,
        call: impl FnOnce() -> Result<T, PmixStatus> + Send + 'static,
    ) -> Result<T, WorldError> {
        let result = within(deadline, verb, &self.library, call);
        self.is_lost |= matches!(result, Err(WorldError::LaunchTimeout { .. }));
        result
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_lost {
            let (library, deadline) = (self.library, Deadline::after(Duration::from_millis(FINALIZE_MS)));
            // A launcher that does not answer finds out by the end of the process.
            let _ = within(deadline, "leave the launch", &self.library, move || library.finalize());
        }
    }
}

/// Makes a call, and waits for it until the deadline.
fn within<T: Send + 'static>(
    deadline: Deadline,
    verb: &'static str,
    library: &Library,
    call: impl FnOnce() -> Result<T, PmixStatus> + Send + 'static,
) -> Result<T, WorldError> {
    let (tell, hear) = sync_channel(1);
    // Nobody hears it when the time was over before.
    let run = move || drop(tell.send(call()));
    let thread = std::thread::Builder::new().name("pmix".to_owned()).spawn(run);
    thread.map_err(|source| WorldError::System { verb: "start a thread", source })?;
    match hear.recv_timeout(deadline.left().unwrap_or_default()) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(status)) if status.code == sys::ERR_TIMEOUT => Err(WorldError::LaunchTimeout { verb }),
        Ok(Err(status)) => Err(WorldError::Pmix { verb, status }),
        Err(RecvTimeoutError::Timeout) => Err(WorldError::LaunchTimeout { verb }),
        Err(RecvTimeoutError::Disconnected) => {
            Err(WorldError::Pmix { verb, status: library.status(sys::ERR_BAD_PARAM) })
        }
    }
}

fn load() -> Result<Library, WorldError> {
    let named = std::env::var(ENV_LIBRARY).ok().filter(|name| !name.is_empty());
    let file = named.unwrap_or_else(|| LIBRARY.to_owned());
    let library = Library::load(&file);
    let library = library.map_err(|why| WorldError::NoPmix { file: file.clone(), why })?;
    let text = library.version_text();
    if version_of(&text).is_none_or(|major| major < VERSION_MIN) {
        let why = format!("it is {text:?}, and version {VERSION_MIN} is the first that will do");
        return Err(WorldError::NoPmix { file, why });
    }
    Ok(library)
}

/// The major version in a text such as "OpenPMIx 4.2.2 (PMIx Standard: 4.1, …)".
fn version_of(text: &str) -> Option<u32> {
    let from = text.find(|letter: char| letter.is_ascii_digit())?;
    text[from..].split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Claims the rank for this process: a program that a rank starts inherits its environment, and is no rank. The name
/// lies in no folder and goes with the process.
fn claim(rank: Rank) -> Result<UnixListener, WorldError> {
    let name = format!("tarragon-pmix-{}-{rank}", environment::name_space().unwrap_or_default());
    let claimed = SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
    claimed.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => WorldError::Taken { rank },
        _ => WorldError::System { verb: "claim a rank", source },
    })
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn versions_are_found_in_what_libraries_say() {
        let texts = ["OpenPMIx 4.2.2 (PMIx Standard: 4.1)", "PMIx 3.1.5rc2", "pmix 12.0", "none", ""];
        assert_eq!(texts.map(version_of), [Some(4), Some(3), Some(12), None, None]);
    }
}
