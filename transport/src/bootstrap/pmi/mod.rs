//! Launchers that speak PMI's first wire protocol: MPICH's `mpirun` (hydra) and its kin, `srun --mpi=pmi2`. It is text
//! over a socket, so nothing is loaded and nothing is linked.
//!
//! # The protocol
//! *Source*: `src/pmi` of MPICH (`simple_pmi.c`) and `src/plugins/mpi/pmi2/pmi1.c` of Slurm, version 1.1.
//!
//! A process finds the number of an open socket in `PMI_FD`, or a host and a port to connect to in `PMI_PORT` (then
//! it says who it is, by `PMI_ID`). Each command is a line of words `name=value`, the first of which is `cmd`, and is
//! answered by one line. Ranks publish under keys of one space (`put`), meet (`barrier_in`, which is answered when
//! all have come), and read (`get`). Lines and values are short and of printable letters, so what ranks exchange goes
//! as hexadecimal digits in as many parts as it takes, the first of which begins with the number of bytes (`text`).
//!
//! # Whose socket it is
//! A rank uses a copy of the descriptor, and keeps both from the programs that it starts; they find its number in their
//! environment all the same. The rank bears a name that goes with its process, in no folder (`descent`): a program
//! that finds the descriptor closed, and a process above it with such a name, is no rank, and learns it by the error
//! `Taken`; without one whoever started it has closed what the launcher handed on.
//!
//! A program may call MPI itself, before it joins or after: MPI speaks over the descriptor too, command by command,
//! each of which is answered before the next. Who has begun MPI says farewell by it (`beside`), since the launcher
//! takes one only. So MPI may be called for the first time as long as the world has not been left.

mod beside;
mod client;
mod descent;
mod socket;
mod text;

pub(super) use client::Client;
pub(super) use socket::is_handed;
use socket::is_taken;

const ENV_DESCRIPTOR: &str = "PMI_FD";
const ENV_PORT: &str = "PMI_PORT";
const ENV_ID: &str = "PMI_ID";
const ENV_RANK: &str = "PMI_RANK";
const ENV_SIZE: &str = "PMI_SIZE";

/// Whether a launcher that speaks PMI started this process, as far as the environment says.
pub(super) fn is_pmi() -> bool {
    std::env::var_os(ENV_DESCRIPTOR).is_some() || std::env::var_os(ENV_PORT).is_some()
}
