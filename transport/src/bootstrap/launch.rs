//! Ranks that a launcher has started, whichever protocol it speaks.
//!
//! # Which launcher
//! The first of these that holds: a descriptor or a port of PMI's wire protocol was handed to this process (`pmi`); the
//! environment speaks of PMIx (`pmix`). A program that a rank of one launcher starts may start ranks by another, which
//! inherit what the environment says of both: a descriptor of PMI that is not open here is somebody else's.
//!
//! # How a world gathers
//! 1. Each rank connects to the launcher and is told its rank and the number of ranks.
//! 2. *Cards* are exchanged, see `roster`: all know who runs where, and refuse those who run another program.
//! 3. On each node the first of its ranks makes a segment, and the names are exchanged. The others of the node map it,
//!    all say so, and the first takes the name away: from here on nothing stays behind, however the ranks end.
//! 4. If there are several nodes, each rank loads the network's library, and addresses are exchanged.
//!
//! An exchange gives each rank the bytes of all others, or what kept one from going on, so this needs nothing of what
//! copies and their starter tell one another in shared memory. A rank that never comes to an exchange is an error at
//! the others when the time to join is over; a launcher that ends is one at once.

use std::time::Duration;

use super::roster::Roster;
use super::{pmi, pmix};
use crate::fabric::shm_layout::{RANKS_MAX, RUNNING};
use crate::fabric::{Deadline, Fabric, Listening, Mixed, Shm, ShmSpec, Ucx, Way};
use crate::rank::Rank;
use crate::segment::SegmentName;
use crate::sync::Ordering;
use crate::wire;
use crate::world::WorldError;

/// How a world is to be that a launcher started.
#[derive(Clone, Debug)]
pub struct Launched {
    join_timeout: Duration,
    heap_bytes: Option<u64>,
    patience: Option<Duration>,
}

impl Default for Launched {
    fn default() -> Self {
        Launched::new()
    }
}

impl Launched {
    /// As many ranks as were launched.
    pub fn new() -> Launched {
        Launched { join_timeout: Duration::from_secs(60), heap_bytes: None, patience: None }
    }

    /// How long it may take until all ranks have joined: a minute if not said.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Launched {
        self.join_timeout = timeout;
        self
    }

    /// The most bytes of payloads on their way between all ranks of a node. If not said 64 MiB for each rank, and
    /// 256 MiB at least, 4 GiB at most.
    #[must_use]
    pub fn heap_bytes(mut self, bytes: u64) -> Launched {
        self.heap_bytes = Some(bytes);
        self
    }

    /// How long a send waits for a living peer that takes nothing: ten minutes if not said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Launched {
        self.patience = Some(patience);
        self
    }

    pub(super) fn time_to_join(&self) -> Duration {
        self.join_timeout
    }

    fn spec(&self, size: u32) -> ShmSpec {
        let usual = ShmSpec::new(size);
        ShmSpec {
            size,
            heap_bytes: self.heap_bytes.unwrap_or(usual.heap_bytes),
            patience: self.patience.unwrap_or(usual.patience),
        }
    }
}

/// This process's connection to its launcher; let go when it is dropped.
pub(crate) enum Launcher {
    Pmi(pmi::Client),
    Pmix(Box<pmix::Client>),
}

impl Launcher {
    fn connect(deadline: Deadline) -> Result<Launcher, WorldError> {
        if pmi::is_pmi() && (pmi::is_handed() || !pmix::is_pmix()) {
            pmi::Client::connect(deadline).map(Launcher::Pmi)
        } else {
            pmix::Client::connect(deadline).map(|client| Launcher::Pmix(Box::new(client)))
        }
    }

    pub(super) fn rank(&self) -> Rank {
        match self {
            Launcher::Pmi(client) => client.rank(),
            Launcher::Pmix(client) => client.rank(),
        }
    }

    /// How many ranks were launched together.
    fn size(&self) -> u32 {
        match self {
            Launcher::Pmi(client) => client.size(),
            Launcher::Pmix(client) => client.size(),
        }
    }

    /// Returns every rank's bytes, in the order of ranks, at every rank. All must call it equally often.
    pub(super) fn exchange(&mut self, bytes: &[u8], deadline: Deadline) -> Result<Vec<Vec<u8>>, WorldError> {
        match self {
            Launcher::Pmi(client) => client.exchange(bytes, deadline),
            Launcher::Pmix(client) => client.exchange(bytes, deadline),
        }
    }
}

/// Whether a launcher started this process, as far as the environment says.
pub(super) fn is_launched() -> bool {
    pmi::is_pmi() || pmix::is_pmix()
}

/// Joins the launch that the environment names.
pub(super) fn join(launched: &Launched) -> Result<(Fabric, Roster), WorldError> {
    let deadline = Deadline::after(launched.join_timeout);
    let launcher = Launcher::connect(deadline)?;
    let size = launcher.size();
    if size == 0 || size > RANKS_MAX || launcher.rank().0 >= size {
        return Err(WorldError::Ranks { size, max: RANKS_MAX });
    }
    let mut roster = Roster::of_launch(launcher, deadline)?;
    let node = shm(&mut roster, launched, deadline)?;
    let way = match roster.nodes() {
        1 => Way::Shm(node),
        _ => Way::Mixed(Box::new(Mixed::new(node, ucx(&mut roster, launched, deadline)?))),
    };
    Ok((Fabric::new(way), roster))
}

/// The fabric of ranks on several nodes.
fn ucx(roster: &mut Roster, launched: &Launched, deadline: Deadline) -> Result<Ucx, WorldError> {
    let spec = launched.spec(roster.size());
    let listening = Listening::on(spec.size).map_err(WorldError::from);
    let (listening, addresses) = roster.share(listening, deadline)?;
    Ok(listening.connect(roster.rank(), addresses, spec.patience)?)
}

/// The fabric of the ranks that share this rank's node.
fn shm(roster: &mut Roster, launched: &Launched, deadline: Deadline) -> Result<Shm, WorldError> {
    let members = roster.node_ranks();
    let (spec, first) = (launched.spec(members.len() as u32), members[0]);
    let made = if roster.rank() == first {
        Shm::create(&spec).map(|shm| {
            let name = wire::encode(shm.map().segment.name()).expect("a text and a number");
            (Some(shm), name)
        })
    } else {
        Ok((None, Vec::new()))
    };
    let (made, names) = roster.share(made.map_err(WorldError::from), deadline)?;
    let opened = match made {
        Some(shm) => Ok(shm),
        None => open(&names[first.index()], roster.rank(), &members, &spec),
    };
    let entered = opened.map(|shm| {
        let shm = shm.with_members(members);
        shm.enter();
        (shm, Vec::new())
    });
    let (shm, _) = roster.share(entered, deadline)?;
    if roster.rank() == first {
        shm.map().head().state.store(RUNNING, Ordering::Release);
        shm.map().segment.unlink();
    }
    Ok(shm)
}

fn open(name: &[u8], rank: Rank, members: &[Rank], spec: &ShmSpec) -> Result<Shm, WorldError> {
    let name: SegmentName = wire::decode(name).map_err(|_| WorldError::Failed { rank })?;
    let seat = members.iter().position(|&member| member == rank).expect("a rank is on its own node");
    let shm = Shm::open(&name, Rank(seat as u32), spec)?;
    let size = shm.map().size;
    if size == spec.size { Ok(shm) } else { Err(WorldError::Size { rank, wanted: spec.size, size }) }
}
