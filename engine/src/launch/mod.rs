//! With which launcher, on which hosts and by which words does a job start?
//!
//! A batch knows once, when it is built, which machines its jobs may use beside this one (`hosts`), and finds its
//! launcher when the first job is compiled (`launcher`). At which of the hosts a job's ranks are is the desk's decision
//! (see `schedule::hosts`); `words` makes the launcher's command line from it. What then runs is a *leader* of the
//! supervisor's crate (see `tarragon_supervisor::job`), which has the launcher start a guard for each rank.
//!
//! # Hosts
//! | where the program runs | a job's ranks run |
//! |---|---|
//! | anywhere | on this machine, within the batch's cpus |
//! | in an allocation of Slurm, one process | on the allocation's nodes, this machine only if it is one of them |
//! | with hosts that the user named | also on those |
//! | as one of several ranks | on this rank's cpus, and where it needs more on those of ranks behind it |
//!
//! How cpus of several ranks come together is `ranks::gang::hold`'s question.
//!
//! # Inside of a rank
//! What `mpirun` or `srun` has set for this program as a rank would make a launcher take itself for a part of that job:
//! such variables are removed for all processes (see `tarragon_transport::environment`), and here for `srun` those of a
//! step, which it reads as options.

mod hosts;
mod launcher;
mod words;

pub(crate) use hosts::Hosts;
pub(crate) use launcher::{BadLauncher, Launcher};
pub(crate) use words::{Asked, line};

use crate::program;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How jobs of one batch start.
#[derive(Debug, Default)]
pub(crate) struct Launching {
    pub(crate) hosts: Hosts,
    /// The launcher that the user wants.
    pub(crate) wanted: Option<PathBuf>,
    /// It is another process that starts them.
    starts_elsewhere: bool,
    found: OnceLock<Result<Launcher, BadLauncher>>,
}

impl Launching {
    pub(crate) fn new(hosts: Hosts, wanted: Option<PathBuf>) -> Self {
        Self { hosts, wanted, ..Self::default() }
    }

    /// Of a batch whose jobs another process starts.
    #[cfg(not(loom))]
    pub(crate) fn of_primary(is_here: bool, others: Vec<(String, u32)>, gpus_of_others: u32) -> Self {
        Self {
            hosts: Hosts::of_primary(is_here, others, gpus_of_others),
            starts_elsewhere: true,
            ..Self::default()
        }
    }

    /// What keeps jobs from starting, as far as this process can know.
    pub(crate) fn check(&self, env: &[(OsString, OsString)], cwd: &Path) -> Result<(), BadLauncher> {
        if self.starts_elsewhere {
            return Ok(());
        }
        self.launcher(env, cwd).map(|_| ()).map_err(Clone::clone)
    }

    /// The launcher; looked for once.
    pub(crate) fn launcher(
        &self,
        env: &[(OsString, OsString)],
        cwd: &Path,
    ) -> Result<&Launcher, &BadLauncher> {
        let find = || {
            let path = program::path_of(env);
            self.hosts.check()?;
            Launcher::find(self.wanted.as_deref(), self.hosts.is_of_slurm(), cwd, &path)
        };
        self.found.get_or_init(find).as_ref()
    }
}
