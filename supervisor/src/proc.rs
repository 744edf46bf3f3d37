//! The processes of this machine as `/proc` shows them: who descends from whom, who bears whose mark, and how to signal
//! one that cannot be mistaken for another. Whom to signal is left to `serve` and `client`.
//!
//! The list of a process's children that some kernels offer is not on all of them, so a scan reads every process's
//! line: about 10 µs each.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// The environment variable by which a process is known to belong to one that a supervisor started. Its value is a
/// list, separated by commas, of `supervisor's pid:id`: a supervisor below another one appends its own.
pub(crate) const MARK: &str = "TARRAGON_TASK_MARK";

/// Bytes of a process's line in `/proc/[pid]/stat` that are read; it has about 350.
const STAT_BYTES_MAX: usize = 1024;

/// One process at the time of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    /// When it started, in ticks since the machine did. With the pid it names one process, ever.
    pub(crate) start: u64,
    /// It has not ended. One whose first thread has ended while others run has not.
    pub(crate) alive: bool,
}

impl Process {
    /// Reads one process's line; none when it is gone.
    pub(crate) fn read(pid: u32) -> Option<Process> {
        let mut line = [0; STAT_BYTES_MAX];
        let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
        Process::parse(pid, &line[..length])
    }

    fn parse(pid: u32, line: &[u8]) -> Option<Process> {
        // The name in parentheses may hold blanks and parentheses, so fields are counted from its last one.
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        let text = std::str::from_utf8(&line[name_end + 1..]).ok()?;
        let mut fields = text.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let threads: u64 = fields.nth(14)?.parse().ok()?;
        let start = fields.nth(1)?.parse().ok()?;
        let alive = match state {
            "X" | "x" => false,
            "Z" => threads > 1,
            _ => true,
        };
        Some(Process { pid, parent, group, start, alive })
    }

    /// Signals it, unless it is gone; true when the signal was sent. A descriptor of the process is taken before
    /// another look tells that it is the same one, so a pid that was given away in between is never hit.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else { return false };
        let descriptor = pidfd_open(pid, PidfdFlags::empty());
        if Process::read(self.pid).is_none_or(|now| now.start != self.start) {
            return false;
        }
        match descriptor {
            Ok(descriptor) => pidfd_send_signal(descriptor, signal).is_ok(),
            // An old kernel, or no descriptor to be had: the look just now is all there is.
            Err(Errno::NOSYS | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
                kill_process(pid, signal).is_ok()
            }
            Err(_) => false,
        }
    }

    /// Its resident memory in pages; zero when it is gone.
    pub(crate) fn resident_pages(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid)).unwrap_or_default();
        text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
    }

    /// What it belongs to: the id that the supervisor `of` gave, if its environment bears such a mark.
    pub(crate) fn mark(&self, of: u32) -> Option<u64> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        environment.split(|byte| *byte == 0).find_map(|entry| marked(entry, of))
    }
}

/// The id in an environment entry that bears the mark of the supervisor `of`.
fn marked(entry: &[u8], of: u32) -> Option<u64> {
    let value = entry.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
    let value = std::str::from_utf8(value).ok()?;
    let mut marks = value.split(',').filter_map(|mark| mark.split_once(':'));
    marks.find_map(|(supervisor, id)| (supervisor.parse() == Ok(of)).then(|| id.parse().ok())?)
}

/// All processes at one time.
pub(crate) struct Scan {
    processes: Vec<Process>,
    by_pid: HashMap<u32, usize>,
    children: HashMap<u32, Vec<usize>>,
    groups: HashMap<u32, Vec<usize>>,
}

impl Scan {
    /// Looks at every process. Without a readable `/proc` it finds none.
    pub(crate) fn take() -> Scan {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Scan::of(pids.filter_map(Process::read).collect())
    }

    fn of(processes: Vec<Process>) -> Scan {
        let mut children: HashMap<u32, Vec<usize>> = HashMap::new();
        let mut groups: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, process) in processes.iter().enumerate() {
            children.entry(process.parent).or_default().push(index);
            groups.entry(process.group).or_default().push(index);
        }
        let by_pid = processes.iter().enumerate().map(|(index, process)| (process.pid, index)).collect();
        Scan { processes, by_pid, children, groups }
    }

    /// All processes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter()
    }

    /// The children of a process.
    pub(crate) fn children(&self, pid: u32) -> impl Iterator<Item = &Process> {
        self.children.get(&pid).into_iter().flatten().map(|index| &self.processes[*index])
    }

    /// The members of a process group.
    pub(crate) fn group(&self, group: u32) -> impl Iterator<Item = &Process> {
        self.groups.get(&group).into_iter().flatten().map(|index| &self.processes[*index])
    }

    /// The process of this pid.
    pub(crate) fn get(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid).map(|index| &self.processes[*index])
    }

    /// True when the process is below `ancestor`.
    pub(crate) fn descends(&self, process: &Process, ancestor: u32) -> bool {
        // Parents may change while a scan is taken, so that a loop is possible; no line is longer than all.
        let parent_of = |pid: &u32| self.get(*pid).map(|process| process.parent);
        let mut line = std::iter::successors(Some(process.parent), parent_of).take(self.processes.len());
        line.any(|pid| pid == ancestor)
    }

    /// These processes and all below them that have not ended, each once.
    pub(crate) fn closure<'a>(&'a self, roots: impl IntoIterator<Item = &'a Process>) -> Vec<Process> {
        let mut seen = std::collections::HashSet::new();
        let mut open: Vec<&Process> = roots.into_iter().collect();
        let mut found = Vec::new();
        while let Some(process) = open.pop() {
            if seen.insert(process.pid) {
                found.extend(Some(*process).filter(|process| process.alive));
                open.extend(self.children(process.pid));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{Process, Scan, marked};

    fn process(pid: u32, parent: u32, group: u32) -> Process {
        Process { pid, parent, group, start: 0, alive: true }
    }

    #[test]
    fn a_line_is_read_past_a_name_with_blanks_and_parentheses() {
        let line = b"7 (a) b (c)) S 3 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2 3";
        let read = Process::parse(7, line);
        assert_eq!(read, Some(Process { pid: 7, parent: 3, group: 5, start: 987, alive: true }));
    }

    #[test]
    fn a_dead_first_thread_is_no_dead_process() {
        let line = |threads| format!("7 (a) Z 3 5 5 0 -1 0 1 2 3 4 5 6 7 8 20 0 {threads} 0 987 1");
        let alive = |threads| Process::parse(7, line(threads).as_bytes()).map(|process| process.alive);
        assert_eq!((alive(1), alive(2)), (Some(false), Some(true)));
    }

    #[test]
    fn marks_are_found_in_a_list() {
        assert_eq!(marked(b"TARRAGON_TASK_MARK=12:5,34:7", 34), Some(7));
        assert_eq!(marked(b"TARRAGON_TASK_MARK=12:5,34:7", 12), Some(5));
        assert_eq!(marked(b"TARRAGON_TASK_MARK=12:5,34:7", 3), None);
        assert_eq!(marked(b"TARRAGON_TASK_MARKS=34:7", 34), None);
    }

    #[test]
    fn the_closure_holds_all_below_and_nothing_beside() {
        let scan = Scan::of(vec![
            process(2, 1, 2),
            process(3, 2, 2),
            process(4, 3, 4),
            process(5, 1, 5),
            Process { alive: false, ..process(6, 4, 4) },
        ]);
        let root = *scan.get(2).unwrap();
        let mut pids: Vec<u32> = scan.closure([&root]).iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [2, 3, 4]);
        assert!(scan.descends(scan.get(4).unwrap(), 2));
        assert!(!scan.descends(scan.get(5).unwrap(), 2));
    }

    #[test]
    fn this_process_is_in_a_scan() {
        let scan = Scan::take();
        let me = scan.get(std::process::id()).unwrap();
        assert!(me.alive);
        assert!(scan.group(me.group).any(|process| process == me));
        assert!(scan.iter().count() > 1);
    }
}
