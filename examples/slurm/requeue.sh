#!/usr/bin/env bash
# A campaign that is longer than its time limit: `sbatch examples/slurm/requeue.sh DIRECTORY CHAINS STEPS`
#
# Half a minute before the limit Slurm sends USR1 to this script, which has the program end by TERM: it cancels what runs,
# and its journal has what was done. Then the job goes back to the queue, and goes on where it was; so it does when a
# node fails. Whoever cancels it by `scancel` may submit it again, with the same effect.
#SBATCH --job-name=requeue
#SBATCH --nodes=1
#SBATCH --time=60
#SBATCH --signal=B:USR1@30
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
program=${PROGRAM:-target/release/examples/resume}

end_program() {
  kill -TERM "$child" 2>/dev/null
  wait "$child"
}
go_back() {
  end_program
  echo "out of time: back to the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 1
}
trap go_back USR1
trap 'end_program; exit 143' TERM

"$program" campaign "$@" &
child=$!
wait "$child"
