//! On which hosts do the ranks of a job run? This machine, or others that have cpus for jobs alone. Pure.

use std::collections::HashMap;

/// What a job needs beside cpus for each of its ranks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct JobNeed {
    /// How many ranks it has.
    pub(crate) ranks: u32,
    /// How many of them on each host but the last; 0 for as many as fit.
    pub(crate) per_host: u32,
}

/// A host by its number: 0 is this machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct HostId(pub(crate) u32);

/// This machine.
pub(crate) const HERE: HostId = HostId(0);

/// Ranks of a job on one host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub(crate) host: HostId,
    pub(crate) ranks: u32,
}

/// Where a job fits whose ranks need `cpus` each, on hosts that have so many; in the order in which its ranks are dealt
/// out. One host is taken before several; of those that would do the one with least left; of several first those with
/// most.
pub(crate) fn fit(
    job: JobNeed,
    cpus: u32,
    hosts: impl Iterator<Item = (HostId, u32)>,
) -> Option<Vec<Placed>> {
    let slots = hosts.map(|(host, free)| (free / cpus.max(1), host)).filter(|(slots, _)| *slots > 0);
    let mut slots: Vec<(u32, HostId)> = slots.collect();
    slots.sort_unstable();
    let most = if job.per_host == 0 { u32::MAX } else { job.per_host };
    let mut left = job.ranks;
    let mut placed = Vec::new();
    while left > 0 {
        // Hosts that take what is left, or as much as a host is to have: the smallest of them will do.
        let wanted = left.min(most);
        let at = match slots.iter().position(|(slots, _)| *slots >= wanted) {
            Some(at) => at,
            None if job.per_host == 0 => slots.len().checked_sub(1)?,
            None => return None,
        };
        let (slots, host) = slots.remove(at);
        let ranks = slots.min(wanted);
        placed.push(Placed { host, ranks });
        left -= ranks;
    }
    Some(placed)
}

/// How many ranks of a job each of several ranks of a world has, whose nodes and cpus these are; the first of them has
/// some. Node by node, in the order in which they come: a node is taken whole, or as far as a host is to have ranks;
/// one that has less room than that is passed over. Nothing if they do not fit.
pub(crate) fn deal(job: JobNeed, cpus: u32, seats: &[(u32, u32)]) -> Option<Vec<u32>> {
    let slots = |at: usize| seats[at].1 / cpus.max(1);
    let most = if job.per_host == 0 { u32::MAX } else { job.per_host };
    let mut on_node: HashMap<u32, Vec<usize>> = HashMap::new();
    for (at, (node, _)) in seats.iter().enumerate() {
        on_node.entry(*node).or_default().push(at);
    }
    let (mut dealt, mut left) = (vec![0; seats.len()], job.ranks);
    for (node, _) in seats {
        let Some(places) = on_node.remove(node) else { continue };
        let room = places.iter().map(|at| slots(*at)).fold(0, u32::saturating_add);
        let mut wanted = left.min(most);
        if job.per_host > 0 && room < wanted {
            continue;
        }
        for at in places {
            dealt[at] = slots(at).min(wanted);
            wanted -= dealt[at];
            left -= dealt[at];
        }
        if left == 0 {
            break;
        }
    }
    (left == 0 && dealt.first().is_some_and(|first| *first > 0)).then_some(dealt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_world_have_their_share_of_a_job() {
        let job = |ranks, per_host| JobNeed { ranks, per_host };
        let two_each = [(0, 2), (1, 2), (2, 2)];
        assert_eq!(deal(job(5, 0), 1, &two_each), Some(vec![2, 2, 1]));
        assert_eq!(deal(job(3, 0), 2, &two_each), Some(vec![1, 1, 1]));
        assert_eq!(deal(job(7, 0), 1, &two_each), None);
        assert_eq!(deal(job(3, 1), 1, &two_each), Some(vec![1, 1, 1]));
        assert_eq!(deal(job(3, 2), 1, &two_each), Some(vec![2, 1, 0]));
        // Ranks that share a node are one host, wherever they are in the order.
        let in_turns = [(0, 2), (1, 2), (0, 2), (1, 2)];
        assert_eq!(deal(job(3, 0), 1, &in_turns), Some(vec![2, 0, 1, 0]));
        assert_eq!(deal(job(6, 3), 1, &in_turns), Some(vec![2, 2, 1, 1]));
        // A node that has less room than a host is to have is passed over, but not the first rank.
        assert_eq!(deal(job(4, 2), 1, &[(0, 2), (1, 1), (2, 2)]), Some(vec![2, 0, 2]));
        assert_eq!(deal(job(4, 2), 1, &[(0, 1), (1, 2), (2, 2)]), None);
        assert_eq!(deal(job(1, 0), 4, &[(0, 2), (1, 4)]), None);
    }

    fn check(ranks: u32, per_host: u32, cpus: u32, hosts: &[u32]) -> Option<Vec<(u32, u32)>> {
        let hosts = (0..).zip(hosts).map(|(host, free)| (HostId(host), *free));
        let placed = fit(JobNeed { ranks, per_host }, cpus, hosts)?;
        Some(placed.iter().map(|placed| (placed.host.0, placed.ranks)).collect())
    }

    #[test]
    fn a_job_is_on_the_smallest_host_that_has_room() {
        assert_eq!(check(2, 0, 1, &[8, 2, 4]), Some(vec![(1, 2)]));
        assert_eq!(check(2, 0, 2, &[8, 2, 4]), Some(vec![(2, 2)]));
    }

    #[test]
    fn a_job_too_large_for_one_host_takes_the_largest_first() {
        assert_eq!(check(9, 0, 1, &[4, 2, 6]), Some(vec![(2, 6), (0, 3)]));
        assert_eq!(check(12, 0, 1, &[4, 2, 6]), Some(vec![(2, 6), (0, 4), (1, 2)]));
        assert_eq!(check(13, 0, 1, &[4, 2, 6]), None);
    }

    #[test]
    fn hosts_have_as_many_as_they_are_to() {
        assert_eq!(check(4, 2, 1, &[4, 2, 6]), Some(vec![(1, 2), (0, 2)]));
        assert_eq!(check(3, 2, 1, &[1, 2, 0]), Some(vec![(1, 2), (0, 1)]));
        assert_eq!(check(4, 2, 1, &[3, 1]), None);
        assert_eq!(check(4, 1, 2, &[2, 2, 2, 1]), None);
    }

    /// By trying all: what fits is found, and no host has more than it has room for.
    #[test]
    fn whatever_fits_is_found() {
        for code in 0..4u32.pow(3) * 9 * 4 {
            let hosts = [code % 4, code / 4 % 4, code / 16 % 4];
            let (ranks, per_host) = (1 + code / 64 % 9, code / 576 % 4);
            let room: u32 = match per_host {
                0 => hosts.iter().sum(),
                _ => hosts.iter().map(|free| if *free >= per_host { per_host } else { 0 }).sum(),
            };
            let found = check(ranks, per_host, 1, &hosts);
            if per_host == 0 {
                assert_eq!(found.is_some(), ranks <= room, "{ranks} on {hosts:?}");
            } else if ranks <= room {
                assert!(found.is_some(), "{ranks}, {per_host} each, on {hosts:?}");
            }
            for (host, ranks) in found.iter().flatten() {
                assert!(*ranks <= hosts[*host as usize]);
                assert!(per_host == 0 || *ranks <= per_host);
            }
            assert!(found.is_none_or(|found| found.iter().map(|(_, n)| n).sum::<u32>() == ranks));
        }
    }
}
