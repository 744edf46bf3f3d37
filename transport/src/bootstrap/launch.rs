//! What a launcher says in the environment of the ranks it starts, and how a program that a rank starts is kept from
//! taking itself for that rank.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::rank::Rank;
use crate::world::WorldError;

pub(super) const ENV_RANK: &str = "PMIX_RANK";
pub(super) const ENV_NAME_SPACE: &str = "PMIX_NAMESPACE";

/// How the names of variables begin that launchers set for one process.
const OF_LAUNCHERS: &[&[u8]] = &[b"PMIX_", b"PMI_", b"PMI2_", b"OMPI_", b"ORTE_", b"PRTE_"];
/// Those of them that a user sets for all that is below.
const OF_USERS: &[&[u8]] = &[b"OMPI_ALLOW_RUN_AS_ROOT", b"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"];

/// Whether a launcher that speaks PMIx started this process, as far as the environment says.
pub(super) fn is_pmix() -> bool {
    std::env::var_os(ENV_RANK).is_some() || std::env::var_os(ENV_NAME_SPACE).is_some()
}

/// The rank that the environment names.
pub(super) fn rank() -> Result<Rank, WorldError> {
    name_space()?;
    let rank = std::env::var(ENV_RANK).ok().and_then(|text| text.parse().ok());
    rank.map(Rank).ok_or(WorldError::Environment { variable: ENV_RANK })
}

/// The launch that the environment names.
pub(super) fn name_space() -> Result<String, WorldError> {
    std::env::var(ENV_NAME_SPACE).map_err(|_| WorldError::Environment { variable: ENV_NAME_SPACE })
}

/// Keeps from a command what the launcher told this process.
pub(super) fn detach(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_launcher(name)) {
        command.env_remove(name);
    }
}

fn is_of_launcher(name: &OsStr) -> bool {
    let name = name.as_bytes();
    OF_LAUNCHERS.iter().any(|begin| name.starts_with(begin)) && !OF_USERS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_launcher_sets_is_told_from_what_a_user_sets() {
        let of_launcher = |name: &str| is_of_launcher(OsStr::new(name));
        assert!(["PMIX_RANK", "PMI_FD", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_ess"].into_iter().all(of_launcher));
        let others = ["PATH", "SLURM_JOB_ID", "XPMIX_RANK", "PMIXED", "OMPI_ALLOW_RUN_AS_ROOT"];
        assert!(!others.into_iter().any(of_launcher));
    }
}
