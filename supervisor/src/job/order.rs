//! What a leader is asked for: the launcher's command, and what each rank is to run. The engine writes it to a file.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::devices::Devices;
use super::{GUARD, LEADER};

/// A job to run. Strings may be anything that the system takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Order {
    /// The launcher's program and arguments, a guard for each rank at their end: see [`Order::guard`].
    pub launcher: Vec<OsString>,
    /// Changes to the launcher's environment alone; `None` removes a name.
    pub launcher_env: Vec<(OsString, Option<OsString>)>,
    /// The variable in which the launcher tells a rank its number.
    pub rank_variable: String,
    /// How the names of variables begin that the launcher sets for each rank. Others are as the leader has them.
    pub launcher_variables: Vec<String>,
    /// What runs, ranks of the first one first.
    pub executables: Vec<Executable>,
    /// Exit codes that count as success, beside 0.
    pub accept: Vec<i32>,
    /// What rank 0 reads on its standard input; nothing if it is not given.
    pub stdin: Option<OsString>,
    /// How long ranks may take between TERM and KILL.
    pub grace: Duration,
    /// The machines that ranks run on, beside the leader's own.
    pub hosts: Vec<String>,
    /// The CPUs to bind ranks to; none, or too few, leaves ranks as the launcher started them.
    pub cpus: Vec<Cpus>,
    /// The GPUs that ranks hold; none leaves ranks those that the launcher shows them.
    pub devices: Vec<Devices>,
}

/// One of a job's executables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Executable {
    /// How many ranks run it.
    pub ranks: u32,
    /// The program, an absolute path, the same on each machine.
    pub program: OsString,
    /// Its arguments, its name first.
    pub args: Vec<OsString>,
    /// Changes to the leader's environment; `None` removes a name.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Its directory, an absolute path.
    pub cwd: OsString,
}

/// CPUs of one machine for ranks on it, each of which takes as many from the front as it is its due.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cpus {
    /// The machine's name; empty for the leader's.
    pub host: String,
    /// How many each rank takes.
    pub per_rank: u32,
    /// Their numbers.
    pub ids: Vec<u32>,
    /// Numbers count the CPUs that a rank's guard may use, in ascending order, instead of the machine's.
    pub are_places: bool,
}

impl Order {
    /// The command of a guard, for the end of the launcher's.
    ///
    /// # Errors
    /// If the system does not tell where this executable is.
    pub fn guard() -> io::Result<[OsString; 2]> {
        Ok([std::env::current_exe()?.into_os_string(), GUARD.into()])
    }

    /// The variable that a launcher has to pass on to guards.
    pub fn variable() -> &'static str {
        super::VARIABLE
    }

    /// Writes it into the job's folder, which is made.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let bytes = postcard::to_stdvec(self).map_err(io::Error::other)?;
        std::fs::write(file(folder), bytes)
    }

    /// The leader's program and arguments (its name first), for a process to start.
    pub fn leader(folder: &Path) -> (PathBuf, Vec<OsString>) {
        // Of the supervisor, who starts it: the same executable, even if another one has its place by now.
        ("/proc/self/exe".into(), vec![LEADER.into(), folder.into()])
    }

    pub(super) fn read(folder: &Path) -> io::Result<Order> {
        let bytes = std::fs::read(file(folder))?;
        postcard::from_bytes(&bytes).map_err(io::Error::other)
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> u32 {
        self.executables.iter().map(|executable| executable.ranks).sum()
    }

    /// Which executable a rank runs.
    pub(super) fn executable_of(&self, rank: u32) -> Option<usize> {
        let mut first = 0;
        self.executables.iter().position(|executable| {
            first += executable.ranks;
            rank < first
        })
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("order")
}

#[cfg(test)]
mod tests {
    use super::{Executable, Order};

    #[test]
    fn ranks_run_executables_in_their_order() {
        let of = |ranks| Executable { ranks, ..Executable::default() };
        let order = Order { executables: vec![of(2), of(1)], ..Order::default() };
        let found: Vec<_> = (0..4).map(|rank| order.executable_of(rank)).collect();
        assert_eq!(found, [Some(0), Some(0), Some(1), None]);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let order = Order { rank_variable: "PMI_RANK".into(), accept: vec![3], ..Order::default() };
        order.write(&folder.path().join("new")).unwrap();
        let read = Order::read(&folder.path().join("new")).unwrap();
        assert_eq!((read.rank_variable, read.accept), ("PMI_RANK".to_owned(), vec![3]));
    }
}
