/* Ranks that pass a number round, and end as they are told: `ring COMMAND [RANK]`, where COMMAND is
   ok, exit CODE, crash, spin (for ever, but the rank that is named exits with 3), where (prints the host). */
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, size, sum = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  const char *command = argc > 1 ? argv[1] : "ok";
  int chosen = argc > 2 ? atoi(argv[2]) : -1;
  if (!strcmp(command, "where")) {
    char host[256];
    gethostname(host, sizeof host);
    printf("%d of %d, sum %d, on %s\n", rank, size, sum, host);
  } else {
    printf("%d of %d, sum %d\n", rank, size, sum);
  }
  fflush(stdout);
  if (!strcmp(command, "crash") && rank == chosen) {
    fprintf(stderr, "about to crash\n");
    kill(getpid(), SIGKILL);
  }
  if (!strcmp(command, "spin")) {
    if (rank == chosen) {
      fprintf(stderr, "no convergence\n");
      _exit(3);
    }
    MPI_Barrier(MPI_COMM_WORLD);
  }
  MPI_Finalize();
  return 0;
}
