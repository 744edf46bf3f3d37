//! This program starts copies of itself as the other ranks of its node.
//!
//! # How a world gathers
//! 1. The first process makes the world's segment, is rank 0, and starts `size - 1` copies of its executable with the
//!    same arguments. Their environment names the segment, their rank, the size, and the lifeline.
//! 2. A copy that comes to the same call finds these, maps the segment, compares its executable with rank 0's, and
//!    writes that it has joined (or was refused) into its rank's line.
//! 3. Rank 0 sees all lines joined, says that the world runs, takes the segment's name away, and all calls return.
//!
//! Rank 0 finds a copy that ended before it joined by its exit status. Copies that wait find rank 0's death through the
//! lifeline, which ends them; and a failure of the world in its state.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::executable;
use super::lifeline::{Inherited, Lifeline};
use crate::fabric::shm_layout::{ABSENT, FAILED, GATHERING, JOINED, JOINING, RANKS_MAX, REFUSED, RUNNING};
use crate::fabric::{Deadline, Fabric, Shm, ShmSpec, Way};
use crate::rank::Rank;
use crate::segment::SegmentName;
use crate::sync::Ordering;
use crate::world::{RankEnd, WorldError};

const ENV_WORLD: &str = "TARRAGON_WORLD";
const ENV_RANK: &str = "TARRAGON_RANK";
const ENV_SIZE: &str = "TARRAGON_SIZE";
const ENV_LIFELINE: &str = "TARRAGON_LIFELINE";

/// How long rank 0 sleeps at most between two looks at its children while these join, in milliseconds.
const JOIN_LOOK_MS: u64 = 5;

/// What to start.
#[derive(Clone, Debug)]
pub struct Spawn {
    size: u32,
    args: Option<Vec<OsString>>,
    program: Option<PathBuf>,
    envs: HashMap<OsString, OsString>,
    quiet: bool,
    join_timeout: Duration,
    shm: ShmSpec,
    network: bool,
}

impl Spawn {
    /// A world of `size` ranks, this process included: 1 to 1024.
    pub fn new(size: u32) -> Spawn {
        Spawn {
            size,
            args: None,
            program: None,
            envs: HashMap::new(),
            quiet: false,
            join_timeout: Duration::from_secs(60),
            shm: ShmSpec::new(size),
            network: false,
        }
    }

    /// Arguments of the copies, without the program's name, in place of this process's own.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Spawn {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// A file to start in place of this process's executable: a copy of it in another place. Another program is
    /// refused when it joins.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Spawn {
        self.program = Some(program.into());
        self
    }

    /// A variable for the environment of the copies, besides what they inherit.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Spawn {
        self.envs.insert(name.into(), value.into());
        self
    }

    /// Lets the copies write to nowhere, in place of this process's standard output and error.
    #[must_use]
    pub fn quiet(mut self) -> Spawn {
        self.quiet = true;
        self
    }

    /// How long a copy may take from its start until it joins: a minute if not said.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Spawn {
        self.join_timeout = timeout;
        self
    }

    pub(super) fn time_to_join(&self) -> Duration {
        self.join_timeout
    }

    /// The most bytes of payloads on their way between all ranks of a node. If not said 64 MiB for each rank, and
    /// 256 MiB at least, 4 GiB at most.
    #[must_use]
    pub fn heap_bytes(mut self, bytes: u64) -> Spawn {
        self.shm.heap_bytes = bytes;
        self
    }

    /// Lets the ranks talk through UCX as those of several nodes would, in place of shared memory. Which of its ways
    /// UCX takes is said by its own variables, such as `UCX_TLS=tcp,self`, of all ranks. `TARRAGON_LIBUCP` names
    /// another file than `libucp.so.0` to load it from.
    #[must_use]
    pub fn network(mut self) -> Spawn {
        self.network = true;
        self
    }

    /// If the ranks are to talk through a network: how long a send waits there.
    pub(crate) fn network_patience(&self) -> Option<Duration> {
        self.network.then_some(self.shm.patience)
    }

    /// How long a send waits for a living peer that takes nothing: ten minutes if not said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Spawn {
        self.shm.patience = patience;
        self
    }
}

/// The processes that rank 0 started. Those left are killed and waited for when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Children {
    lifeline: Option<Lifeline>,
    running: Vec<(Rank, Child)>,
    ended: Vec<RankEnd>,
}

impl Children {
    /// Notes who has ended. Returns whether nobody is left.
    pub(crate) fn look(&mut self) -> bool {
        let ended = &mut self.ended;
        self.running.retain_mut(|(rank, child)| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                ended.push(RankEnd { rank: *rank, status });
                false
            }
            // Not ours any more: somebody has waited for all children of the process.
            Err(_) => false,
        });
        self.running.is_empty()
    }

    /// How those ended that have, in the order of their ranks.
    pub(crate) fn ended(&mut self) -> Vec<RankEnd> {
        self.ended.sort_by_key(|end| end.rank);
        self.ended.clone()
    }

    /// The ranks of those that run.
    pub(crate) fn running(&self) -> Vec<Rank> {
        self.running.iter().map(|(rank, _)| *rank).collect()
    }

    /// The process of a rank, if it runs.
    pub(crate) fn pid(&self, rank: Rank) -> Option<u32> {
        self.running.iter().find(|(it, _)| *it == rank).map(|(_, child)| child.id())
    }

    fn end_of(&self, rank: Rank) -> Option<ExitStatus> {
        self.ended.iter().find(|end| end.rank == rank).map(|end| end.status)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.lifeline = None;
        for (_, child) in &mut self.running {
            // Errors say that it has ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Joins the world that the environment names, or makes one and starts its ranks.
pub(crate) fn start(spawn: &Spawn) -> Result<(Fabric, Children), WorldError> {
    match invitation()? {
        Some(invitation) => Ok((join(spawn, &invitation)?, Children::default())),
        None => make(spawn),
    }
}

/// What the environment of a copy says.
struct Invitation {
    world: SegmentName,
    rank: Rank,
    size: u32,
    lifeline: Inherited,
}

/// `None` if this process was not started as a rank.
fn invitation() -> Result<Option<Invitation>, WorldError> {
    let read = |name: &'static str| std::env::var(name).ok();
    let Some(lifeline) = read(ENV_LIFELINE).and_then(|text| Inherited::find(&text)) else {
        return Ok(None);
    };
    let wrong = |variable| WorldError::Environment { variable };
    let number = |name| read(name).and_then(|text| text.parse::<u32>().ok()).ok_or(wrong(name));
    let world = read(ENV_WORLD).and_then(|text| parse_name(&text)).ok_or(wrong(ENV_WORLD))?;
    Ok(Some(Invitation { world, rank: Rank(number(ENV_RANK)?), size: number(ENV_SIZE)?, lifeline }))
}

fn join(spawn: &Spawn, invitation: &Invitation) -> Result<Fabric, WorldError> {
    let &Invitation { ref world, rank, size, .. } = invitation;
    let shm = Shm::open(world, rank, &ShmSpec { size, ..spawn.shm })?;
    let (map, line) = (shm.map(), shm.map().line(rank));
    let claim = line.state.compare_exchange(ABSENT, JOINING, Ordering::AcqRel, Ordering::Acquire);
    if rank.0 == 0 || claim.is_err() {
        return Err(WorldError::Twice { rank });
    }
    let refuse = |error| {
        line.state.store(REFUSED, Ordering::Release);
        shm.ring_all(Rank(0));
        Err(error)
    };
    if map.size != size || spawn.size != size {
        return refuse(WorldError::Size { rank, wanted: spawn.size, size: map.size });
    }
    let head = map.head();
    let theirs = head.executable.each_ref().map(|word| word.load(Ordering::Acquire));
    match executable::is_same(theirs, map.line(Rank(0)).pid.load(Ordering::Acquire)) {
        Ok(true) => {}
        Ok(false) => return refuse(WorldError::Stranger { rank }),
        Err(source) => return refuse(WorldError::System { verb: "compare executables", source }),
    }
    match invitation.lifeline.watch() {
        Ok(true) => {}
        Ok(false) => return refuse(WorldError::Twice { rank }),
        Err(source) => return refuse(WorldError::System { verb: "watch the starter", source }),
    }
    shm.enter();
    shm.ring_all(Rank(0));
    let deadline = Deadline::after(spawn.join_timeout);
    loop {
        match head.state.load(Ordering::Acquire) {
            RUNNING => return Ok(Fabric::new(Way::Shm(shm))),
            FAILED => return Err(WorldError::Failed { rank }),
            _ => {}
        }
        let Some(left) = deadline.left() else { return Err(WorldError::JoinTimeout { rank: Rank(0) }) };
        shm.sleep_until(left, || head.state.load(Ordering::Acquire) != GATHERING);
    }
}

fn make(spawn: &Spawn) -> Result<(Fabric, Children), WorldError> {
    if spawn.size == 0 || spawn.size > RANKS_MAX {
        return Err(WorldError::Ranks { size: spawn.size, max: RANKS_MAX });
    }
    let shm = Shm::create(&spawn.shm)?;
    let system = |verb| move |source| WorldError::System { verb, source };
    let own = executable::own().map_err(system("look at the executable"))?;
    let head = shm.map().head();
    head.executable.iter().zip(own).for_each(|(to, word)| to.store(word, Ordering::Release));
    shm.enter();
    let mut children = Children::default();
    let gathered = start_all(spawn, &shm, &mut children).and_then(|()| gather(spawn, &shm, &mut children));
    let state = if gathered.is_ok() { RUNNING } else { FAILED };
    head.state.store(state, Ordering::Release);
    (1..spawn.size).for_each(|rank| shm.ring_all(Rank(rank)));
    // All have it mapped or never will: without a name nothing stays behind, however the ranks end.
    shm.map().segment.unlink();
    gathered.map(|()| (Fabric::new(Way::Shm(shm)), children))
}

fn start_all(spawn: &Spawn, shm: &Shm, children: &mut Children) -> Result<(), WorldError> {
    let system = |verb| move |source| WorldError::System { verb, source };
    let lifeline = Lifeline::new().map_err(system("make a pipe"))?;
    let program = match &spawn.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(system("find the executable"))?,
    };
    let args = spawn.args.clone().unwrap_or_else(|| std::env::args_os().skip(1).collect());
    for rank in 1..spawn.size {
        let mut command = Command::new(&program);
        command.env_clear().envs(crate::environment());
        command.args(&args).envs(&spawn.envs).stdin(Stdio::null());
        command.env(ENV_WORLD, name_text(shm.map().segment.name()));
        command.env(ENV_RANK, rank.to_string()).env(ENV_SIZE, spawn.size.to_string());
        command.env(ENV_LIFELINE, lifeline.text());
        if spawn.quiet {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let child = command.spawn().map_err(|source| WorldError::Start { rank: Rank(rank), source })?;
        children.running.push((Rank(rank), child));
    }
    lifeline.close_to_others().map_err(system("close a pipe"))?;
    children.lifeline = Some(lifeline);
    Ok(())
}

/// Waits until all have joined.
fn gather(spawn: &Spawn, shm: &Shm, children: &mut Children) -> Result<(), WorldError> {
    let deadline = Deadline::after(spawn.join_timeout);
    loop {
        children.look();
        let mut missing = None;
        for rank in (1..spawn.size).map(Rank) {
            match shm.map().line(rank).state.load(Ordering::Acquire) {
                REFUSED => return Err(WorldError::Refused { rank }),
                state if state >= JOINED => {}
                _ => missing = missing.or(Some(rank)),
            }
            let joined = shm.map().line(rank).state.load(Ordering::Acquire) >= JOINED;
            if let (false, Some(status)) = (joined, children.end_of(rank)) {
                return Err(WorldError::EndedEarly { rank, status });
            }
        }
        let Some(rank) = missing else { return Ok(()) };
        let Some(left) = deadline.left() else { return Err(WorldError::JoinTimeout { rank }) };
        let joins = || shm.map().line(rank).state.load(Ordering::Acquire) >= JOINED;
        shm.sleep_until(left.min(Duration::from_millis(JOIN_LOOK_MS)), joins);
    }
}

/// A segment's name as one word.
fn name_text(name: &SegmentName) -> String {
    format!("{:032x}/{}", name.uid, name.file)
}

fn parse_name(text: &str) -> Option<SegmentName> {
    let (uid, file) = text.split_once('/')?;
    let uid = u128::from_str_radix(uid, 16).ok()?;
    Some(SegmentName { file: file.to_owned(), uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_survive_the_environment() {
        let name = SegmentName { file: "tarragon-world-0-1".to_owned(), uid: 7 << 100 };
        assert_eq!(parse_name(&name_text(&name)), Some(name));
        assert_eq!(parse_name("7"), None);
        assert_eq!(parse_name("x/y"), None);
    }
}
