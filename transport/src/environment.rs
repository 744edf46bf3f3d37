//! What of this process's environment a launcher has set for it as a rank, so that a program that it starts can be kept
//! from taking itself for that rank.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// How the names of variables begin that launchers set for one process: those of PMIx, PMI, Open MPI, MPICH.
const OF_LAUNCHERS: &[&str] = &[
    "PMIX_",
    "PMI_",
    "PMI2_",
    "OMPI_",
    "ORTE_",
    "PRTE_",
    "HYDI_",
    "HYDRA_",
    "MPI_LOCALRANKID",
    "MPI_LOCALNRANKS",
];
/// Those of them that a user may have set for all that is below.
const OF_USERS: &[&str] = &["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_", "HYDRA_LAUNCHER", "HYDRA_IFACE"];
/// Those again that Open MPI's launcher sets in a user's manner.
const OF_LAUNCHERS_AS_USERS: &[&str] = &[
    "OMPI_MCA_ess",
    "OMPI_MCA_initial_wdir",
    "OMPI_MCA_mpi_oversubscribe",
    "OMPI_MCA_orte_",
    "OMPI_MCA_pmix",
    "OMPI_MCA_shmem_RUNTIME_QUERY_hint",
];

/// The environment of this process without what a launcher has set for it as a rank: what a program needs that this
/// one starts, so that it takes itself for nobody else. A user's own settings of launchers stay.
pub fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_of_launcher(name))
}

/// How the names of variables begin that launchers set for each rank they start.
pub fn launcher_variables() -> impl Iterator<Item = &'static str> {
    OF_LAUNCHERS.iter().copied()
}

fn is_of_launcher(name: &OsStr) -> bool {
    let begins = |list: &[&str]| list.iter().any(|begin| name.as_bytes().starts_with(begin.as_bytes()));
    begins(OF_LAUNCHERS) && (!begins(OF_USERS) || begins(OF_LAUNCHERS_AS_USERS))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_launcher_sets_is_told_from_what_a_user_sets() {
        let of_launcher = |name: &str| is_of_launcher(OsStr::new(name));
        assert!(
            ["PMIX_RANK", "PMI_FD", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_ess", "OMPI_MCA_orte_launch"]
                .into_iter()
                .all(of_launcher)
        );
        let others =
            ["PATH", "SLURM_JOB_ID", "XPMIX_RANK", "PMIXED", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_MCA_pml"];
        assert!(!others.into_iter().any(of_launcher));
    }
}
