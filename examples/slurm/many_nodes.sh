#!/usr/bin/env bash
# One program on all nodes of an allocation: `sbatch examples/slurm/many_nodes.sh [ARGUMENT...]`
#
# Its rank 0 goes on with `main`; the ranks on the other nodes run the tasks that are sent to them. One rank for each
# node has all cpus of its node.
#SBATCH --job-name=many_nodes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=10
set -euo pipefail
program=${PROGRAM:-target/release/examples/gang}
exec srun --mpi=pmix --cpus-per-task="${SLURM_CPUS_ON_NODE:-1}" "$program" "$@"
