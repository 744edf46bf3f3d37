//! Who the ranks of a launch are and where they run, found out before there is any fabric.
//!
//! Each rank tells all others its *card*. All read the same cards, so all come to the same answer: whether they run the
//! same program, and which of them share a node, which is to say a kernel and a folder for shared memory. A fabric is
//! built from the roster with further exchanges; what one rank could not do, all are told, so that nobody waits.

use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::executable;
use super::launch::Launcher;
use crate::fabric::Deadline;
use crate::rank::Rank;
use crate::wire;
use crate::world::{Stranger, WorldError};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// In place of a host or a version that a rank did not tell.
const UNKNOWN: &str = "unknown";

/// What a rank says of itself. Later versions may add fields at the end, and must not change the first two.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Card {
    version: String,
    host: String,
    fingerprint: u128,
    node: NodeIdentity,
}

/// What tells nodes apart: equal for two ranks exactly if they run on one kernel and see one folder for shared memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct NodeIdentity {
    boot: String,
    device: u64,
    inode: u64,
}

/// A rank's place.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seat {
    host: String,
    node: u32,
}

/// All ranks of a world and where they run.
pub(crate) struct Roster {
    rank: Rank,
    /// By rank.
    seats: Vec<Seat>,
    launcher: Mutex<Option<Launcher>>,
}

impl Roster {
    /// Of `size` ranks, all on this node, that no launcher started.
    pub(super) fn local(rank: Rank, size: u32) -> Roster {
        let seat = Seat { host: host(), node: 0 };
        Roster { rank, seats: vec![seat; size as usize], launcher: Mutex::default() }
    }

    /// Of the ranks of a launch: all must call it.
    pub(super) fn of_launch(launcher: Launcher, deadline: Deadline) -> Result<Roster, WorldError> {
        let mut roster =
            Roster { rank: launcher.rank(), seats: Vec::new(), launcher: Mutex::new(Some(launcher)) };
        let card = own_card().map(|card| ((), wire::encode(&card).expect("a card has no maps")));
        let ((), cards) = roster.share(card, deadline)?;
        roster.seats = seats(&cards)?;
        Ok(roster)
    }

    pub(super) fn rank(&self) -> Rank {
        self.rank
    }

    pub(super) fn size(&self) -> u32 {
        self.seats.len() as u32
    }

    /// Tells the launcher that this rank has ended its part.
    pub(crate) fn close(&self) {
        drop(self.launcher.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// How many nodes the ranks run on.
    pub(crate) fn nodes(&self) -> u32 {
        self.seats.iter().map(|seat| seat.node + 1).max().unwrap_or(0)
    }

    /// The name of the machine of a rank; `None` if there is no such rank.
    pub(crate) fn host(&self, rank: Rank) -> Option<&str> {
        self.seats.get(rank.index()).map(|seat| seat.host.as_str())
    }

    /// The ranks that share this rank's node, itself among them, in their order.
    pub(crate) fn node_ranks(&self) -> Vec<Rank> {
        let own = self.seats.get(self.rank.index()).map(|seat| seat.node);
        let ranks = (0..).map(Rank).zip(&self.seats);
        ranks.filter(|(_, seat)| Some(seat.node) == own).map(|(rank, _)| rank).collect()
    }

    /// The node of a rank; `None` if there is no such rank.
    pub(crate) fn node_of(&self, rank: Rank) -> Option<u32> {
        self.seats.get(rank.index()).map(|seat| seat.node)
    }

    /// The first rank of each node.
    pub(crate) fn node_leaders(&self) -> Vec<Rank> {
        let first = |node| self.seats.iter().position(|seat| seat.node == node);
        (0..self.nodes()).filter_map(first).map(|rank| Rank(rank as u32)).collect()
    }

    /// Tells all ranks what this one has made: some bytes about it, or why it could not. Returns what was made, and the
    /// bytes of all, in the order of ranks. If some rank could not, all return an error: that rank its own, the others
    /// one that names it.
    pub(super) fn share<T>(
        &mut self,
        made: Result<(T, Vec<u8>), WorldError>,
        deadline: Deadline,
    ) -> Result<(T, Vec<Vec<u8>>), WorldError> {
        let heard = match self.launcher.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Some(launcher) => launcher.exchange(&Roster::told(&made), deadline),
            None => return made.map(|(made, told)| (made, vec![told])),
        };
        self.agree(made, heard)
    }

    /// The bytes by which all are told what this rank has made, or why it could not; see [`Roster::agree`].
    pub(crate) fn told<T>(made: &Result<(T, Vec<u8>), WorldError>) -> Vec<u8> {
        let told: Result<&[u8], String> = match made {
            Ok((_, bytes)) => Ok(bytes),
            Err(error) => Err(error.to_string()),
        };
        wire::encode(&told).expect("bytes or a text")
    }

    /// What `share` returns, of what all were [told](Roster::told).
    pub(crate) fn agree<T>(
        &self,
        made: Result<(T, Vec<u8>), WorldError>,
        heard: Result<Vec<Vec<u8>>, WorldError>,
    ) -> Result<(T, Vec<Vec<u8>>), WorldError> {
        let (made, _) = made?;
        let mut all: Vec<Vec<u8>> = Vec::new();
        for (rank, bytes) in (0..).map(Rank).zip(heard?) {
            let why = match wire::decode::<Result<Vec<u8>, String>>(&bytes) {
                Ok(Ok(bytes)) => {
                    all.push(bytes);
                    continue;
                }
                Ok(Err(why)) => why,
                Err(error) => error.to_string(),
            };
            let host = self.host(rank).unwrap_or(UNKNOWN).to_owned();
            return Err(WorldError::Elsewhere { rank, host, why });
        }
        Ok((made, all))
    }
}

fn own_card() -> Result<Card, WorldError> {
    let system = |verb| move |source| WorldError::System { verb, source };
    let fingerprint = executable::own_fingerprint().map_err(system("read the executable"))?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let boot = boot.map_err(system("ask which boot of the machine this is"))?.trim().to_owned();
    let folder = std::fs::metadata(crate::segment::file::folder());
    let folder = folder.map_err(system("look at the folder for shared memory"))?;
    let node = NodeIdentity { boot, device: folder.dev(), inode: folder.ino() };
    Ok(Card { version: VERSION.to_owned(), host: host(), fingerprint, node })
}

/// This machine's name.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Where the ranks of these cards sit; an error that names all whose program is not that of rank 0.
fn seats(cards: &[Vec<u8>]) -> Result<Vec<Seat>, WorldError> {
    let read: Vec<Option<Card>> = cards.iter().map(|card| wire::decode(card).ok()).collect();
    let first = read.first().and_then(Option::as_ref);
    let (mut seats, mut strangers) = (Vec::new(), Vec::new());
    let mut nodes: Vec<&NodeIdentity> = Vec::new();
    for (rank, (card, bytes)) in (0..).map(Rank).zip(read.iter().zip(cards)) {
        match card {
            Some(card) if first.is_some_and(|first| first.fingerprint == card.fingerprint) => {
                let node = nodes.iter().position(|&node| *node == card.node).unwrap_or_else(|| {
                    nodes.push(&card.node);
                    nodes.len() - 1
                });
                seats.push(Seat { host: card.host.clone(), node: node as u32 });
            }
            _ => {
                let (version, host) = head_of(bytes);
                strangers.push(Stranger { rank, host, version });
            }
        }
    }
    let (version, host) = head_of(cards.first().map_or(&[], Vec::as_slice));
    if strangers.is_empty() { Ok(seats) } else { Err(WorldError::Strangers { strangers, host, version }) }
}

/// The version and the host on a card of any version.
fn head_of(card: &[u8]) -> (String, String) {
    let head = wire::head::<(String, String)>(card);
    head.map_or_else(|| (UNKNOWN.to_owned(), UNKNOWN.to_owned()), |(head, _)| head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(host: &str, fingerprint: u128, boot: &str, device: u64) -> Vec<u8> {
        let node = NodeIdentity { boot: boot.to_owned(), device, inode: 1 };
        let version = "1.0".to_owned();
        wire::encode(&Card { version, host: host.to_owned(), fingerprint, node }).unwrap()
    }

    #[test]
    fn nodes_are_kernels_with_one_folder_for_shared_memory() {
        let cards = [card("a", 1, "x", 7), card("b", 1, "y", 7), card("a", 1, "x", 7), card("a", 1, "x", 8)];
        let roster = Roster { rank: Rank(2), seats: seats(&cards).unwrap(), launcher: Mutex::default() };
        assert_eq!(roster.nodes(), 3);
        assert_eq!(roster.node_ranks(), [Rank(0), Rank(2)]);
        assert_eq!(roster.node_leaders(), [Rank(0), Rank(1), Rank(3)]);
        assert_eq!((roster.node_of(Rank(2)), roster.node_of(Rank(4))), (Some(0), None));
        assert_eq!((roster.host(Rank(1)), roster.host(Rank(4))), (Some("b"), None));
    }

    #[test]
    fn strangers_are_named_with_their_hosts() {
        let mut newer = wire::encode(&("2.0", "c")).unwrap();
        newer.push(99);
        let cards = [card("a", 1, "x", 7), card("b", 2, "x", 7), card("a", 1, "x", 7), newer, Vec::new()];
        let text = seats(&cards).unwrap_err().to_string();
        assert_eq!(
            text,
            "not all ranks run the same executable: rank 1 on host b (Tarragon 1.0), rank 3 on host c (Tarragon 2.0), \
             rank 4 on host unknown (Tarragon unknown) run another one than rank 0 on host a (Tarragon 1.0)"
        );
    }
}
