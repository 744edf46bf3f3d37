//! What a launcher that speaks PMIx says in the environment of the ranks it starts.

use crate::rank::Rank;
use crate::world::WorldError;

pub(super) const ENV_RANK: &str = "PMIX_RANK";
pub(super) const ENV_NAME_SPACE: &str = "PMIX_NAMESPACE";

/// Whether a launcher that speaks PMIx started this process, as far as the environment says.
pub(in crate::bootstrap) fn is_pmix() -> bool {
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
