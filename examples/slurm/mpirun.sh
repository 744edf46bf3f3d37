#!/usr/bin/env bash
# The same by Open MPI's launcher, which finds the allocation's nodes itself: `sbatch examples/slurm/mpirun.sh`
#
# Without `--bind-to none` all threads of a rank would share one core.
#SBATCH --job-name=mpirun
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --time=10
set -euo pipefail
program=${PROGRAM:-target/release/examples/gang}
exec mpirun --bind-to none "$program" "$@"
