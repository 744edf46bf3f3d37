//! A cgroup per process with a memory limit, where the system lets us make one: version 1 below our own group, version
//! 2 below it or beside it, whichever has the memory controller. It is removed when its tree is gone.

use std::fs;
use std::path::{Path, PathBuf};

/// Where groups are made.
pub(super) struct Place {
    /// The folder that groups are made in.
    parent: PathBuf,
    /// The file by which the supervisor returns to its own group.
    home: PathBuf,
    files: Files,
}

/// What the controller's files are called.
#[derive(Clone, Copy)]
struct Files {
    limit: &'static str,
    /// Limits of memory and swap together, or of swap alone: what is written is the limit, or zero.
    swap: (&'static str, bool),
    /// Has a line `oom_kill` and a number.
    events: &'static str,
}

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    swap: ("memory.memsw.limit_in_bytes", true),
    events: "memory.oom_control",
};
const VERSION_2: Files =
    Files { limit: "memory.max", swap: ("memory.swap.max", false), events: "memory.events" };

/// The group of one tree; dropping it removes it.
pub(super) struct Group {
    folder: PathBuf,
    home: PathBuf,
    files: Files,
}

/// The supervisor is in a group; dropping this returns it to its own.
pub(super) struct Inside<'a> {
    home: &'a Path,
}

/// Removes the groups that a supervisor left behind when it was killed.
pub(crate) fn remove_left_by(supervisor: u32) {
    let prefix = prefix(supervisor);
    for place in all_candidates() {
        for entry in fs::read_dir(place.parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                // It may be in use still; then its processes were not to be killed, either.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// How the names of a supervisor's groups begin.
fn prefix(supervisor: u32) -> String {
    format!("tarragon-{supervisor}-")
}

fn all_candidates() -> Vec<Place> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    candidates(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

impl Place {
    /// Finds where groups can be made, by making one.
    pub(super) fn find() -> Option<Place> {
        all_candidates().into_iter().find(|place| place.make_named("probe", u64::MAX >> 12).is_some())
    }

    /// Makes the group of a process; none when that fails, and its memory has to be looked at instead.
    pub(super) fn make(&self, id: u64, limit_bytes: u64) -> Option<Group> {
        self.make_named(&id.to_string(), limit_bytes)
    }

    fn make_named(&self, name: &str, limit_bytes: u64) -> Option<Group> {
        let folder = self.parent.join(prefix(std::process::id()) + name);
        fs::create_dir(&folder).ok()?;
        let group = Group { folder, home: self.home.clone(), files: self.files };
        fs::write(group.folder.join(self.files.limit), limit_bytes.to_string()).ok()?;
        let (swap, with_memory) = self.files.swap;
        // Not every kernel accounts for swap.
        let _ = fs::write(group.folder.join(swap), if with_memory { limit_bytes } else { 0 }.to_string());
        // Only version 2 has this: the kernel kills all of the group, not one of its processes.
        let all = group.folder.join("memory.oom.group");
        let _ = all.exists().then(|| fs::write(all, "1"));
        Some(group)
    }
}

impl Group {
    /// Moves the supervisor into the group, so that what it starts is born there.
    pub(super) fn enter(&self) -> Inside<'_> {
        // If it fails, the tree is not limited by the kernel, and nothing else is.
        let _ = fs::write(self.folder.join("cgroup.procs"), "0");
        Inside { home: &self.home }
    }

    /// True when the kernel had to kill for want of memory in this group.
    pub(super) fn was_over(&self) -> bool {
        let events = fs::read_to_string(self.folder.join(self.files.events)).unwrap_or_default();
        let mut counts = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        counts.any(|count| count.trim() != "0")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that could not be killed keeps its group.
        let _ = fs::remove_dir(&self.folder);
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Its own group was there a moment ago; if it is not, any group will do.
        let _ = fs::write(self.home, "0");
    }
}

/// Where groups might be made, best first, by the texts of `mountinfo` and `cgroup` of this process.
fn candidates(mounts: &str, own: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_it = match kind {
                "cgroup" => controllers.split(',').any(|it| it == "memory"),
                _ => controllers.is_empty(),
            };
            is_it.then_some(path)
        });
        let Some(path) = path else { continue };
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path).trim_start_matches('/');
        let own = Path::new(point).join(below);
        let home = own.join("cgroup.procs");
        match kind {
            "cgroup" if options.split(',').any(|it| it == "memory") => {
                places.push(Place { parent: own, home, files: VERSION_1 });
            }
            "cgroup2" => {
                let beside = (!below.is_empty()).then(|| own.parent().map(Path::to_owned)).flatten();
                for parent in [Some(own), beside].into_iter().flatten() {
                    places.push(Place { parent, home: home.clone(), files: VERSION_2 });
                }
            }
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::candidates;

    fn parents(mounts: &str, own: &str) -> Vec<String> {
        candidates(mounts, own).iter().map(|place| place.parent.display().to_string()).collect()
    }

    #[test]
    fn version_1_is_found_below_ones_own_group() {
        let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        assert_eq!(parents(mounts, "4:memory:/a/b\n1:cpu:/"), ["/sys/fs/cgroup/memory/a/b"]);
    }

    #[test]
    fn version_2_is_looked_for_below_and_beside() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(
            parents(mounts, "0::/user/a.scope"),
            ["/sys/fs/cgroup/user/a.scope", "/sys/fs/cgroup/user"]
        );
        assert_eq!(parents(mounts, "0::/"), ["/sys/fs/cgroup/"]);
    }

    #[test]
    fn a_mount_of_a_part_is_where_it_begins() {
        let mounts = "35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        assert_eq!(parents(mounts, "4:memory:/docker/x/y"), ["/sys/fs/cgroup/memory/y"]);
    }
}
