//! Tarragon, an HPC batch and dataflow engine: a plain list of tasks with declared reads and writes, run in parallel.

pub use tarragon_engine::*;
