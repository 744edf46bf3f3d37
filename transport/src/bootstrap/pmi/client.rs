//! This process as a client of the launcher: what it is told, and what all ranks tell one another through it.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::socket::Socket;
use super::text::{bytes_of, digits_after, parts, value};
use super::{ENV_DESCRIPTOR, ENV_ID, ENV_PORT, ENV_RANK, ENV_SIZE, beside, descent};
use crate::fabric::Deadline;
use crate::rank::Rank;
use crate::world::WorldError;

/// The longest line that every launcher takes, its end included.
const LINE_BYTES: usize = 1024;
/// The least room for a value that is made do with.
const VALUE_BYTES_MIN: usize = 64;
/// How long the launcher may take to let a process go, in milliseconds.
const FINALIZE_MS: u64 = 10_000;

/// A connection to the launcher; let go when it is dropped.
pub(crate) struct Client {
    socket: Socket,
    rank: Rank,
    size: u32,
    /// The name of the launch's keys.
    space: String,
    /// Bytes of the longest value.
    value_bytes: usize,
    /// Exchanges made so far, and whether the launcher has failed.
    exchanges: u32,
    is_lost: bool,
    /// Held as long as the process is this rank.
    _claim: UnixListener,
}

impl Client {
    /// Connects to the launcher that the environment names.
    pub(in crate::bootstrap) fn connect(deadline: Deadline) -> Result<Client, WorldError> {
        let claim = |source| WorldError::System { verb: "claim a rank", source };
        let (socket, rank, size) = match std::env::var(ENV_PORT) {
            Ok(address) => called(&address, deadline)?,
            Err(_) => handed()?,
        };
        let claim = descent::claim().map_err(claim)?;
        let (space, value_bytes) = (String::new(), 0);
        let mut client =
            Client { socket, rank, size, space, value_bytes, exchanges: 0, is_lost: false, _claim: claim };
        let verb = "connect to the launcher";
        client.command(verb, "cmd=init pmi_version=1 pmi_subversion=1", deadline)?;
        let maxes = client.command(verb, "cmd=get_maxes", deadline)?;
        let longest = value(&maxes, "vallen_max").and_then(|text| text.parse().ok()).unwrap_or(0_usize);
        client.value_bytes = longest.saturating_sub(1);
        let named = client.command(verb, "cmd=get_my_kvsname", deadline)?;
        client.space = value(&named, "kvsname").map(str::to_owned).ok_or_else(|| strange(verb, &named))?;
        Ok(client)
    }

    /// This rank.
    pub(in crate::bootstrap) fn rank(&self) -> Rank {
        self.rank
    }

    /// How many ranks were launched together.
    pub(in crate::bootstrap) fn size(&self) -> u32 {
        self.size
    }

    /// Returns every rank's bytes, in the order of ranks, at every rank. All must call it equally often.
    pub(in crate::bootstrap) fn exchange(
        &mut self,
        bytes: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<Vec<u8>>, WorldError> {
        let verb = "meet the other ranks of the launch";
        let number = self.exchanges;
        self.exchanges += 1;
        for (part, text) in parts(bytes, self.room()?).into_iter().enumerate() {
            let key = key(number, self.rank.0, part);
            let line = format!("cmd=put kvsname={} key={key} value={text}", self.space);
            self.command(verb, &line, deadline)?;
        }
        self.command(verb, "cmd=barrier_in", deadline)?;
        (0..self.size)
            .map(|rank| match rank == self.rank.0 {
                true => Ok(bytes.to_vec()),
                false => self.bytes_of_rank(verb, number, rank, deadline),
            })
            .collect()
    }

    /// Letters of a value for which there is room in a line.
    fn room(&self) -> Result<usize, WorldError> {
        let longest_key = key(u32::MAX, u32::MAX, u32::MAX as usize).len();
        let around = "cmd=put kvsname= key= value=\n".len() + self.space.len() + longest_key;
        let room = self.value_bytes.min(LINE_BYTES.saturating_sub(around));
        let why = || format!("values have {} bytes at most", self.value_bytes);
        let verb = "publish where this rank is";
        if room < VALUE_BYTES_MIN { Err(WorldError::Pmi { verb, why: why() }) } else { Ok(room) }
    }

    fn bytes_of_rank(
        &mut self,
        verb: &'static str,
        number: u32,
        rank: u32,
        deadline: Deadline,
    ) -> Result<Vec<u8>, WorldError> {
        let mut all = self.part(verb, &key(number, rank, 0), deadline)?;
        let mut left = digits_after(&all).ok_or_else(|| strange(verb, &all))?;
        for part in 1.. {
            if left == 0 {
                break;
            }
            let next = self.part(verb, &key(number, rank, part), deadline)?;
            left = left.checked_sub(next.len().max(1)).ok_or_else(|| strange(verb, &next))?;
            all.push_str(&next);
        }
        bytes_of(&all).ok_or_else(|| strange(verb, &all))
    }

    fn part(&mut self, verb: &'static str, key: &str, deadline: Deadline) -> Result<String, WorldError> {
        let answer = self.command(verb, &format!("cmd=get kvsname={} key={key}", self.space), deadline)?;
        value(&answer, "value").map(str::to_owned).ok_or_else(|| strange(verb, &answer))
    }

    /// Sends a command and returns its answer, which says that it succeeded.
    fn command(&mut self, verb: &'static str, line: &str, deadline: Deadline) -> Result<String, WorldError> {
        let answer = self.socket.write(line, deadline).and_then(|()| self.socket.read(deadline));
        match answer {
            Ok(answer) if value(&answer, "rc").is_none_or(|code| code == "0") => Ok(answer),
            Ok(answer) => Err(strange(verb, &answer)),
            Err(error) => {
                self.is_lost = true;
                Err(lost(verb, &error))
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.is_lost {
            self.socket.keep();
        } else if !beside::has_begun() {
            // A launcher that does not answer finds out by the end of the process.
            let _ = self.command(
                "leave the launch",
                "cmd=finalize",
                Deadline::after(Duration::from_millis(FINALIZE_MS)),
            );
        }
    }
}

/// The socket that the launcher has handed to this process, and who it is.
fn handed() -> Result<(Socket, Rank, u32), WorldError> {
    let number = |variable| {
        let number = std::env::var(variable).ok().and_then(|text| text.parse().ok());
        number.ok_or(WorldError::Environment { variable })
    };
    let (rank, size): (u32, u32) = (number(ENV_RANK)?, number(ENV_SIZE)?);
    let rank = Rank(rank);
    if let Some(socket) = Socket::inherited() {
        return Ok((socket, rank, size));
    }
    if super::is_taken() {
        return Err(WorldError::Twice { rank });
    }
    if descent::has_rank_above() {
        return Err(WorldError::Taken { rank });
    }
    Err(WorldError::Environment { variable: ENV_DESCRIPTOR })
}

/// A socket to the launcher at an address, who tells this process which rank it is.
fn called(address: &str, deadline: Deadline) -> Result<(Socket, Rank, u32), WorldError> {
    let verb = "connect to the launcher";
    let id = std::env::var(ENV_ID).map_err(|_| WorldError::Environment { variable: ENV_ID })?;
    if descent::has_rank_above() {
        let rank = id.parse().map(Rank).unwrap_or(Rank(0));
        return Err(WorldError::Taken { rank });
    }
    let talk = || -> std::io::Result<(Socket, Option<u32>, Option<u32>)> {
        let mut socket = Socket::connect(address)?;
        socket.write(&format!("cmd=initack pmiid={id}"), deadline)?;
        let (mut rank, mut size) = (None, None);
        // An answer, then one line each for the size, the rank and the level of debugging.
        for _ in 0..4 {
            let line = socket.read(deadline)?;
            let number = |name| value(&line, name).and_then(|text| text.parse().ok());
            (rank, size) = (rank.or(number("rank")), size.or(number("size")));
        }
        Ok((socket, rank, size))
    };
    let (socket, rank, size) = talk().map_err(|error| lost(verb, &error))?;
    match (rank, size) {
        (Some(rank), Some(size)) => Ok((socket, Rank(rank), size)),
        _ => Err(WorldError::Environment { variable: ENV_ID }),
    }
}

fn key(exchange: u32, rank: u32, part: usize) -> String {
    format!("tarragon-{exchange}-{rank}-{part}")
}

fn lost(verb: &'static str, error: &std::io::Error) -> WorldError {
    match error.kind() {
        std::io::ErrorKind::TimedOut => WorldError::LaunchTimeout { verb },
        _ => WorldError::Pmi { verb, why: error.to_string() },
    }
}

/// An answer that says that something failed, or nothing that is understood.
fn strange(verb: &'static str, answer: &str) -> WorldError {
    WorldError::Pmi { verb, why: answer.to_owned() }
}
