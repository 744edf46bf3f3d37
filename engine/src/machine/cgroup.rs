//! What control groups grant to this process: quotas of CPU time and bounds of memory, version 1, 2, or both at once.
//!
//! A group is bound by its own limit and by those of all groups above it, so each hierarchy is walked from the group of
//! this process up to where it is mounted; what lies above a mount (outside a container) cannot be seen.
//! *Source:* the kernel's Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, scheduler/sched-bwc.rst.

use super::limit::{Limit, Limits};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Version 1 says "no limit" with the highest page-aligned number; no machine has that many bytes.
const UNLIMITED_BYTES: u64 = 1 << 60;
/// The period of a quota that names none, in microseconds.
const PERIOD_US: u64 = 100_000;
/// Groups between this process's and the mount that are looked at; deeper ones are beyond what any system makes.
const DEPTH_MAX: usize = 64;

/// What a mounted hierarchy can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// All controllers in one hierarchy.
    Unified,
    /// Version 1's hierarchy of the controller `cpu`.
    Cpu,
    /// Version 1's hierarchy of the controller `memory`.
    Memory,
}

/// One hierarchy as it is mounted.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// The group that is visible at `point`.
    group: PathBuf,
    point: PathBuf,
}

/// The limits of this process's groups below `root`.
pub(super) fn limits(root: &Path) -> Limits {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut mounts: Vec<Mount> = read("proc/self/mountinfo").lines().flat_map(mounts_of).collect();
    if mounts.is_empty() {
        mounts = usual_mounts();
    }
    let groups = read("proc/self/cgroup");
    let mut limits = Limits::default();
    for mount in mounts {
        for folder in folders(&mount, group_of(&groups, mount.version)) {
            let inside = Folder { root, folder };
            match mount.version {
                Version::Unified => {
                    limits.cpus.extend(inside.cpu_max());
                    limits.memory.extend(inside.bytes("memory.max"));
                }
                Version::Cpu => limits.cpus.extend(inside.cfs_quota()),
                Version::Memory => limits.memory.extend(inside.bytes("memory.limit_in_bytes")),
            }
        }
    }
    limits
}

/// The hierarchies one line of mountinfo speaks of: `id parent device root point options… - type source superoptions`.
/// *Source:* proc_pid_mountinfo(5).
fn mounts_of(line: &str) -> Vec<Mount> {
    let Some((place, kind)) = line.split_once(" - ") else { return Vec::new() };
    let mut place = place.split(' ').skip(3).map(unescaped);
    let (Some(group), Some(point)) = (place.next(), place.next()) else { return Vec::new() };
    let mut kind = kind.split(' ');
    let versions = match kind.next() {
        Some("cgroup2") => vec![Version::Unified],
        Some("cgroup") => kind.nth(1).unwrap_or_default().split(',').filter_map(controller).collect(),
        _ => Vec::new(),
    };
    let mount = |version| Mount { version, group: group.clone(), point: point.clone() };
    versions.into_iter().map(mount).collect()
}

fn controller(name: &str) -> Option<Version> {
    match name {
        "cpu" => Some(Version::Cpu),
        "memory" => Some(Version::Memory),
        _ => None,
    }
}

/// Where hierarchies lie when nothing tells: systemd's places.
fn usual_mounts() -> Vec<Mount> {
    [
        (Version::Unified, "/sys/fs/cgroup"),
        (Version::Unified, "/sys/fs/cgroup/unified"),
        (Version::Cpu, "/sys/fs/cgroup/cpu"),
        (Version::Cpu, "/sys/fs/cgroup/cpu,cpuacct"),
        (Version::Memory, "/sys/fs/cgroup/memory"),
    ]
    .into_iter()
    .map(|(version, point)| Mount { version, group: "/".into(), point: point.into() })
    .collect()
}

/// The group of this process in a hierarchy, from `/proc/self/cgroup`'s lines `id:controllers:path`; the root group
/// where no line tells.
fn group_of(groups: &str, version: Version) -> &Path {
    let named = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::Unified => id == "0" && controllers.is_empty(),
            _ => controllers.split(',').filter_map(controller).any(|one| one == version),
        };
        ours.then_some(path)
    });
    Path::new(named.unwrap_or("/"))
}

/// The folders of a group and of those above it up to the mount, innermost first. A group outside of what is mounted
/// (seen from a container, or with `..`) leaves the mount itself, which is the closest that can be seen.
fn folders(mount: &Mount, group: &Path) -> Vec<PathBuf> {
    let below = group.strip_prefix(&mount.group).unwrap_or(Path::new(""));
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    let below = if plain { below } else { Path::new("") };
    below.ancestors().take(DEPTH_MAX).map(|part| mount.point.join(part)).collect()
}

/// A path of mountinfo, where blanks and backslashes stand as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)).into()
}

/// A group's folder as the process sees it, on a machine whose files lie below `root`.
struct Folder<'a> {
    root: &'a Path,
    folder: PathBuf,
}

impl Folder<'_> {
    fn read(&self, file: &str) -> Option<String> {
        let folder = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        Some(fs::read_to_string(self.root.join(folder).join(file)).ok()?.trim().to_owned())
    }

    fn why(&self, file: &str, words: &str) -> String {
        format!("{} is {words}", self.folder.join(file).display())
    }

    /// Version 2: `quota period`, or `max period`, in microseconds.
    fn cpu_max(&self) -> Option<Limit> {
        let words = self.read("cpu.max")?;
        let (quota, period) = words.split_once(' ').unwrap_or((&words, ""));
        let cpus = whole_cpus(quota.parse().ok()?, period.trim().parse().unwrap_or(PERIOD_US))?;
        Some(Limit::new(cpus, self.why("cpu.max", &words)))
    }

    /// Version 1: quota and period in files of their own; a quota of -1 is none.
    fn cfs_quota(&self) -> Option<Limit> {
        let quota = self.read("cpu.cfs_quota_us")?;
        let period = self.read("cpu.cfs_period_us").and_then(|text| text.parse().ok()).unwrap_or(PERIOD_US);
        let cpus = whole_cpus(quota.parse().ok()?, period)?;
        Some(Limit::new(cpus, self.why("cpu.cfs_quota_us", &format!("{quota} of {period}"))))
    }

    fn bytes(&self, file: &str) -> Option<Limit> {
        let words = self.read(file)?;
        let amount = words.parse().ok().filter(|bytes| *bytes < UNLIMITED_BYTES)?;
        Some(Limit::new(amount, self.why(file, &words)))
    }
}

/// The CPUs a quota keeps busy, a started one counted whole: a worker more that is throttled at times does better than
/// a CPU that idles.
fn whole_cpus(quota_us: u64, period_us: u64) -> Option<u64> {
    (quota_us > 0 && period_us > 0).then(|| quota_us.div_ceil(period_us))
}
