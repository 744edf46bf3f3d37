//! A dictionary in shared memory: any process of a node puts and gets at memory speed, and no `kill -9` can hurt it.

mod error;
mod store;

pub use error::Error;
