#!/usr/bin/env bash
# Many MPI jobs, side by side on all nodes of an allocation: `sbatch examples/slurm/ensemble.sh [ARGUMENT...]`
#
# The program runs once, on the first node, and starts each job by `srun` where there is room for it.
#SBATCH --job-name=ensemble
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=10
set -euo pipefail
# Which PMI the cluster's MPI was built for; without it what the cluster's administrator chose.
export SLURM_MPI_TYPE=${SLURM_MPI_TYPE:-pmix}
program=${PROGRAM:-target/release/examples/mpi_ensemble}
exec "$program" "$@"
