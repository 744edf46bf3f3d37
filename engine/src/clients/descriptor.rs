//! What leads to a batch from another process: plain data, a line of text.

use super::client;
use super::error::AttachError;
use crate::batch::Batch;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::str::FromStr;

/// Names a batch: any process of its node and its user attaches with it. Plain data: it is printed, parsed, sent and
/// stored; none of that touches the batch, and having one keeps nothing alive.
///
/// Its text is one line without blanks: `let text = descriptor.to_string()`, and `text.parse::<BatchDescriptor>()`.
/// Who has it may run programs as the user, so show it to nobody else.
///
/// ```
/// use tarragon_engine::{Batch, BatchDescriptor, tasks};
///
/// let batch = Batch::new()?;
/// let text = batch.descriptor()?.to_string();
///
/// // In another process:
/// let client = text.parse::<BatchDescriptor>()?.attach()?;
/// let hello = client.process("echo").arg("hello");
/// client.compile(tasks![hello])?.run()?;
/// assert_eq!(hello.stdout().get()?, "hello\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BatchDescriptor {
    pub(super) host: String,
    /// Which boot of the machine.
    pub(super) boot: String,
    pub(super) pid: u32,
    /// When the process started, in the kernel's ticks since the boot: a pid is used again.
    pub(super) started: u64,
    /// Nobody can guess it. The first half is seen by all, in the list of sockets.
    pub(super) secret: [u64; 2],
}

const PREFIX: &str = "tarragon-batch:1:";
/// Characters of a text that errors show.
const SHOWN_MAX: usize = 80;

impl BatchDescriptor {
    /// Of a batch of this process.
    pub(super) fn of_this_process(secret: [u64; 2]) -> Self {
        let pid = std::process::id();
        Self { host: host(), boot: boot(), pid, started: started(pid).unwrap_or_default(), secret }
    }

    /// The machine on which the batch lives.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The process that built the batch.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Becomes a client of the batch: what comes back has the verbs of any batch, and its tasks run there. They are
    /// processes, and if this program is the same executable as the batch's, functions; closures stay in the process
    /// that made them, so they are mistakes that compile reports.
    ///
    /// - Processes run in this process's directory, with the environment of the batch's program (but for what
    ///   [`Task::env`](crate::Task::env) says). Functions run in the directory of the batch's program: give them
    ///   absolute paths. Declared paths are relative to this process's directory.
    /// - `close` (or dropping the last clone) tells the batch that this client is done; the batch's `join` waits for
    ///   that. `join` here waits until all has ended that this process has started.
    /// - Of a task it is known whether it has ended, but not whether it runs: until then it is `Waiting`. Its output
    ///   can be read, but has no [`path`](crate::Stream::path).
    /// - A compiled list is sent anew for each of its runs.
    /// - [`Task::near`](crate::Task::near) says nothing.
    ///
    /// Costs a thread in either process, and in the first call of a process reading its executable. Blocks until the
    /// batch's program answers.
    ///
    /// # Errors
    /// [`Error::Attach`]; [`Error::Threads`].
    pub fn attach(&self) -> Result<Batch, Error> {
        client::attach(self)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("tarragon-batch-{}-{:016x}", self.pid, self.secret[0]))
    }

    /// What is known of it when nobody listens.
    pub(super) fn absence(&self) -> AttachError {
        let (host, pid) = (self.host.clone(), self.pid);
        if started(pid) != Some(self.started) {
            return AttachError::Gone { host, pid };
        }
        let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        if network("self") != network(&pid.to_string()) {
            return AttachError::OtherNetwork { pid };
        }
        AttachError::Closed { host, pid }
    }

    /// An error if it lives on another machine.
    pub(super) fn check_node(&self) -> Result<(), AttachError> {
        if self.boot == boot() { Ok(()) } else { Err(self.other_node()) }
    }

    pub(super) fn other_node(&self) -> AttachError {
        AttachError::OtherNode { host: self.host.clone(), pid: self.pid, here: host() }
    }

    /// Whether this process has the host's name: containers and namespaces of one machine may not.
    pub(super) fn is_of_this_host(&self) -> bool {
        self.host == host()
    }
}

/// This machine's name.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn boot() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// When a process started; `None` if there is none.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may have blanks and parentheses itself.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let is_dead = matches!(fields.first(), Some(&"Z" | &"X"));
    if is_dead { None } else { fields.get(19)?.parse().ok() }
}

impl fmt::Display for BatchDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, boot, pid, started, secret: [seen, hidden] } = self;
        let text = format!("{boot}:{pid}:{started}:{seen:016x}{hidden:016x}:{host}");
        write!(f, "{PREFIX}{:08x}:{text}", sum(&text))
    }
}

/// Finds a letter that was lost or changed on the way.
fn sum(text: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32
}

impl FromStr for BatchDescriptor {
    type Err = AttachError;

    fn from_str(text: &str) -> Result<Self, AttachError> {
        let shown = || text.trim().chars().take(SHOWN_MAX).collect();
        parse(text.trim()).ok_or_else(|| AttachError::NotADescriptor { text: shown() })
    }
}

fn parse(text: &str) -> Option<BatchDescriptor> {
    let (check, text) = text.strip_prefix(PREFIX)?.split_once(':')?;
    if u32::from_str_radix(check, 16).ok()? != sum(text) {
        return None;
    }
    let mut parts = text.splitn(5, ':');
    let boot = parts.next()?.to_owned();
    let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let secret = u128::from_str_radix(parts.next()?, 16).ok()?;
    let secret = [(secret >> 64) as u64, secret as u64];
    Some(BatchDescriptor { host: parts.next()?.to_owned(), boot, pid, started, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_from_its_text_and_every_damage_is_seen() {
        let descriptor = BatchDescriptor::of_this_process([1 << 50, u64::MAX]);
        let text = descriptor.to_string();
        assert_eq!(text.parse::<BatchDescriptor>().expect("its own text"), descriptor);
        assert_eq!(format!(" {text}\n").parse::<BatchDescriptor>().expect("with blanks around"), descriptor);
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'x' { b'y' } else { b'x' };
            let damaged = String::from_utf8(damaged).expect("still text");
            assert!(damaged.parse::<BatchDescriptor>().is_err(), "{damaged}");
            assert!(text[..at].parse::<BatchDescriptor>().is_err(), "{}", &text[..at]);
        }
    }

    #[test]
    fn a_process_that_is_gone_is_told_from_one_that_runs() {
        let mut descriptor = BatchDescriptor::of_this_process([0; 2]);
        assert!(matches!(descriptor.absence(), AttachError::Closed { .. }));
        descriptor.started += 1;
        assert!(matches!(descriptor.absence(), AttachError::Gone { .. }));
    }
}
