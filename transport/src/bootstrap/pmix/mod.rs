//! Launchers that speak PMIx: Open MPI's `mpirun`, `srun --mpi=pmix`. No MPI is linked, and the library of PMIx is
//! loaded when it is needed. Its exchange is a fence of all ranks.

mod client;
mod environment;
mod result;
mod sys;

pub(super) use client::Client;
pub(super) use environment::is_pmix;
pub use result::PmixStatus;
