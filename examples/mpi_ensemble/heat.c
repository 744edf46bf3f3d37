/* Heat in a rod, an MPI program like any other: `heat CELLS STEPS NUMBER FILE` takes STEPS explicit steps of
   u[i] += NUMBER * (u[i-1] - 2 u[i] + u[i+1]) from u = sin(pi x), with cold ends, and rank 0 writes the sum of u * u to
   FILE. Each rank has a block of the rod and hears the cells beside it from its neighbours. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, size;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (argc != 5) {
    if (rank == 0) fprintf(stderr, "usage: heat CELLS STEPS NUMBER FILE\n");
    MPI_Finalize();
    return 2;
  }
  int cells = atoi(argv[1]), steps = atoi(argv[2]);
  double number = atof(argv[3]);
  if (number > 0.5) {
    if (rank == 0) fprintf(stderr, "unstable: the number %g is over 0.5\n", number);
    MPI_Finalize();
    return 3;
  }
  int first = (long)cells * rank / size, here = (long)cells * (rank + 1) / size - first;
  double *u = calloc(here + 2, sizeof *u), *next = calloc(here + 2, sizeof *next);
  for (int i = 1; i <= here; i++) u[i] = sin(acos(-1.0) * (first + i) / (cells + 1));
  int left = rank > 0 ? rank - 1 : MPI_PROC_NULL, right = rank < size - 1 ? rank + 1 : MPI_PROC_NULL;
  for (int step = 0; step < steps; step++) {
    MPI_Sendrecv(&u[1], 1, MPI_DOUBLE, left, 0, &u[here + 1], 1, MPI_DOUBLE, right, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Sendrecv(&u[here], 1, MPI_DOUBLE, right, 1, &u[0], 1, MPI_DOUBLE, left, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int i = 1; i <= here; i++) next[i] = u[i] + number * (u[i - 1] - 2 * u[i] + u[i + 1]);
    double *old = u;
    u = next, next = old;
    u[0] = u[here + 1] = 0;
  }
  double own = 0, all = 0;
  for (int i = 1; i <= here; i++) own += u[i] * u[i];
  MPI_Reduce(&own, &all, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  printf("cells %d to %d\n", first, first + here);
  if (rank == 0) {
    FILE *file = fopen(argv[4], "w");
    if (!file || fprintf(file, "%.17g\n", all) < 0 || fclose(file)) {
      perror(argv[4]);
      MPI_Abort(MPI_COMM_WORLD, 4);
    }
  }
  MPI_Finalize();
  return 0;
}
