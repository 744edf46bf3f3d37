//! Ranks that a launcher which speaks PMIx has started: Open MPI's `mpirun`, `srun --mpi=pmix`. No MPI is linked, and
//! the library of PMIx is loaded when it is needed.
//!
//! # How a world gathers
//! 1. Each rank connects to the launcher and is told its rank and the number of ranks.
//! 2. *Cards* are exchanged, see `roster`: all know who runs where, and refuse those who run another program.
//! 3. On each node the first of its ranks makes a segment, and the names are exchanged. The others of the node map it,
//!    all say so, and the first takes the name away: from here on nothing stays behind, however the ranks end.
//! 4. If there are several nodes, each rank loads the network's library, and addresses are exchanged.
//!
//! An exchange is a fence of all ranks. It gives each rank the bytes of all others, or what kept one from going on, so
//! this needs nothing of what copies and their starter tell one another in shared memory.

mod client;
mod result;
mod sys;

pub(crate) use client::Client;
pub use result::PmixStatus;

use std::time::Duration;

use super::roster::Roster;
use crate::fabric::shm_layout::{RANKS_MAX, RUNNING};
use crate::fabric::{Deadline, Fabric, Listening, Mixed, Shm, ShmSpec, Ucx, Way};
use crate::rank::Rank;
use crate::segment::SegmentName;
use crate::sync::Ordering;
use crate::wire;
use crate::world::WorldError;

/// How a world is to be that a launcher started.
#[derive(Clone, Debug)]
pub struct Pmix {
    join_timeout: Duration,
    heap_bytes: Option<u64>,
    patience: Option<Duration>,
}

impl Default for Pmix {
    fn default() -> Self {
        Pmix::new()
    }
}

impl Pmix {
    /// As many ranks as were launched.
    pub fn new() -> Pmix {
        Pmix { join_timeout: Duration::from_secs(60), heap_bytes: None, patience: None }
    }

    /// How long it may take until all ranks have joined: a minute if not said.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Pmix {
        self.join_timeout = timeout;
        self
    }

    /// The most bytes of payloads on their way between all ranks of a node. If not said 64 MiB for each rank, and
    /// 256 MiB at least, 4 GiB at most.
    #[must_use]
    pub fn heap_bytes(mut self, bytes: u64) -> Pmix {
        self.heap_bytes = Some(bytes);
        self
    }

    /// How long a send waits for a living peer that takes nothing: ten minutes if not said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Pmix {
        self.patience = Some(patience);
        self
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

/// Joins the launch that the environment names.
pub(super) fn join(pmix: &Pmix) -> Result<(Fabric, Roster), WorldError> {
    let deadline = Deadline::after(pmix.join_timeout);
    let client = Client::connect(deadline)?;
    let size = client.size();
    if size == 0 || size > RANKS_MAX || client.rank().0 >= size {
        return Err(WorldError::Ranks { size, max: RANKS_MAX });
    }
    let mut roster = Roster::of_launch(client, deadline)?;
    let node = shm(&mut roster, pmix, deadline)?;
    let way = match roster.nodes() {
        1 => Way::Shm(node),
        _ => Way::Mixed(Box::new(Mixed::new(node, ucx(&mut roster, pmix, deadline)?))),
    };
    Ok((Fabric::new(way), roster))
}

/// The fabric of ranks on several nodes.
fn ucx(roster: &mut Roster, pmix: &Pmix, deadline: Deadline) -> Result<Ucx, WorldError> {
    let spec = pmix.spec(roster.size());
    let listening = Listening::on(spec.size).map_err(WorldError::from);
    let (listening, addresses) = roster.share(listening, deadline)?;
    Ok(listening.connect(roster.rank(), addresses, spec.patience)?)
}

/// The fabric of the ranks that share this rank's node.
fn shm(roster: &mut Roster, pmix: &Pmix, deadline: Deadline) -> Result<Shm, WorldError> {
    let members = roster.node_ranks();
    let (spec, first) = (pmix.spec(members.len() as u32), members[0]);
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
