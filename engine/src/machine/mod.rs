//! What may this process use? CPUs, memory and GPUs as affinity, cgroups and the scheduler really grant them.
//!
//! Of CPUs and memory every source can only lower a figure, and a source that is missing or broken says nothing: the
//! next one decides. So looking never fails. What to do with the figures is left to others.

mod cgroup;
mod gpus;
mod limit;
mod slurm;

#[cfg(test)]
mod tests;

pub(crate) use gpus::Gpu;

use limit::{Limit, least};
use std::fs;
use std::path::Path;

/// What this process may use, and which source says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Ids of the CPUs its threads may run on, ascending. Never empty.
    pub(crate) cpus: Vec<u32>,
    /// CPUs it may keep busy at once: at least 1, at most as many as there are ids, fewer where a quota says so.
    pub(crate) cpus_granted: u32,
    /// Why not more CPUs: the source and its words.
    pub(crate) cpus_why: String,
    /// Bytes of memory it may fill; `u64::MAX` where no source tells.
    pub(crate) memory_bytes: u64,
    /// Why not more memory: the source and its words.
    pub(crate) memory_why: String,
    /// GPUs it may use.
    pub(crate) gpus: Vec<Gpu>,
    /// Which source names them.
    pub(crate) gpus_why: String,
}

impl Machine {
    /// Looks at the machine this process runs on, for the calling thread. Reads a dozen small files; never fails.
    pub(crate) fn look() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self::look_in(Path::new("/"), &variable, &affinity())
    }

    /// Looks at the machine whose files lie below `root` (`proc`, `sys`), with its environment, and the CPUs that the
    /// kernel lets a thread use. Without such CPUs the files decide.
    pub(crate) fn look_in(root: &Path, env: &dyn Fn(&str) -> Option<String>, affinity: &[u32]) -> Self {
        let (cpus, source) = cpus(root, affinity);
        let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
        let (mut cpu_limits, mut memory_limits) = (vec![Limit::new(u64::from(count), source)], memory(root));
        for limits in [cgroup::limits(root), slurm::limits(env)] {
            cpu_limits.extend(limits.cpus);
            memory_limits.extend(limits.memory);
        }
        let granted = least(cpu_limits).expect("the CPUs the kernel names are a limit");
        let memory =
            least(memory_limits).unwrap_or_else(|| Limit::new(u64::MAX, "no source tells how much there is"));
        let (gpus, gpus_why) = gpus::look(root, env);
        Self {
            cpus,
            cpus_granted: u32::try_from(granted.amount).unwrap_or(count).max(1),
            cpus_why: granted.why,
            memory_bytes: memory.amount,
            memory_why: memory.why,
            gpus,
            gpus_why,
        }
    }
}

/// This machine's own name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The CPUs the calling thread may run on; empty where the kernel's mask is longer than ours (1024 CPUs).
fn affinity() -> Vec<u32> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let ids = 0..CpuSet::MAX_CPU;
    ids.filter(|id| set.is_set(*id)).filter_map(|id| u32::try_from(id).ok()).collect()
}

/// The CPUs by the first source that names any, ascending, and that source.
fn cpus(root: &Path, affinity: &[u32]) -> (Vec<u32>, &'static str) {
    let allowed = || {
        let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
        ids(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)
    };
    let online = || ids(&fs::read_to_string(root.join("sys/devices/system/cpu/online")).ok()?);
    let (mut cpus, source) = if !affinity.is_empty() {
        (affinity.to_vec(), "affinity")
    } else if let Some(cpus) = allowed() {
        (cpus, "Cpus_allowed_list of /proc/self/status")
    } else if let Some(cpus) = online() {
        (cpus, "/sys/devices/system/cpu/online")
    } else {
        (vec![0], "no source names a CPU")
    };
    cpus.sort_unstable();
    cpus.dedup();
    (cpus, source)
}

/// Ids as the kernel lists them: `0-3,8`. Nothing where a part is no id or the list is empty.
fn ids(list: &str) -> Option<Vec<u32>> {
    /// More CPUs than any machine has: a list that names more is broken, and must not fill memory.
    const CPUS_MAX: u32 = 1 << 16;
    let mut ids = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= CPUS_MAX {
            return None;
        }
        ids.extend(first..=last);
    }
    (!ids.is_empty()).then_some(ids)
}

/// The memory the machine has.
fn memory(root: &Path) -> Vec<Limit> {
    let total = || {
        let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Limit::new(kibibytes.checked_mul(1024)?, "MemTotal of /proc/meminfo"))
    };
    total().into_iter().collect()
}
