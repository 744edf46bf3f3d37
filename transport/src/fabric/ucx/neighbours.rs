//! Ranks that run on this rank's node. UCX does not see a process die that its parent has not waited for, and a broken
//! connection tells of others late; of these the kernel tells at once.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use xxhash_rust::xxh3::xxh3_64;

use crate::rank::Rank;

/// Bytes by which a rank says where it runs: its node, its process.
const PLACE_BYTES: usize = 12;

/// The processes of this node that are ranks.
#[derive(Default)]
pub(super) struct Neighbours {
    processes: Vec<(Rank, OwnedFd)>,
}

/// Where a rank runs, before where it listens.
pub(super) fn tell(address: &[u8]) -> Vec<u8> {
    let mut told = node().to_le_bytes().to_vec();
    told.extend_from_slice(&std::process::id().to_le_bytes());
    told.extend_from_slice(address);
    told
}

/// Where each rank listens, and those that are this one's neighbours. What is too short is no address, and stays so.
pub(super) fn hear(own: Rank, told: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Neighbours) {
    let here = node().to_le_bytes();
    let mut neighbours = Neighbours::default();
    let mut addresses = Vec::with_capacity(told.len());
    for (rank, told) in (0..).map(Rank).zip(told) {
        let Some((place, address)) = told.split_first_chunk::<PLACE_BYTES>() else {
            addresses.push(Vec::new());
            continue;
        };
        let [.., a, b, c, d] = *place;
        let pid = Pid::from_raw(i32::from_le_bytes([a, b, c, d]));
        if let Some(pid) = pid.filter(|_| rank != own && place.starts_with(&here))
            // Without it the rank is watched as those of other nodes are.
            && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
        {
            neighbours.processes.push((rank, process));
        }
        addresses.push(address.to_vec());
    }
    (addresses, neighbours)
}

impl Neighbours {
    /// Those whose process has ended. One system call.
    pub(super) fn ended(&self) -> Vec<Rank> {
        let mut fds: Vec<PollFd<'_>> =
            self.processes.iter().map(|(_, process)| PollFd::new(process, PollFlags::IN)).collect();
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if fds.is_empty() || poll(&mut fds, Some(&now)).is_err() {
            return Vec::new();
        }
        let ended = self.processes.iter().zip(&fds).filter(|(_, fd)| fd.revents().contains(PollFlags::IN));
        ended.map(|((rank, _), _)| *rank).collect()
    }
}

/// A number of this boot of this machine, and of the numbering of processes here.
fn node() -> u64 {
    let mut text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    text.extend_from_slice(namespace.as_os_str().as_encoded_bytes());
    xxh3_64(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_that_nobody_waits_for_has_ended_too() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let place = [&node().to_le_bytes()[..], &child.id().to_le_bytes(), b"there"].concat();
        let (addresses, neighbours) = hear(Rank(0), vec![tell(b"here"), place, b"short".to_vec()]);
        assert_eq!(addresses, [&b"here"[..], b"there", b""]);
        assert_eq!(neighbours.ended(), []);
        child.kill().unwrap();
        let begin = std::time::Instant::now();
        while neighbours.ended() != [Rank(1)] {
            assert!(begin.elapsed().as_secs() < 60);
        }
        child.wait().unwrap();
    }
}
