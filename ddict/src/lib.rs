//! A dictionary in shared memory: any process of a node puts and gets at memory speed, and no `kill -9` can hurt it.
//!
//! ```
//! use tarragon_ddict::DDict;
//!
//! let dict = DDict::<String, Vec<f64>>::builder().memory(1 << 30).create()?;
//! dict.put("row", vec![1.0, 2.0, 3.0])?;
//! let row = dict.get_ref("row")?.expect("it was put");
//! assert_eq!(row[1], 2.0);
//! println!("attach with {}", dict.descriptor());
//! # Ok::<(), tarragon_ddict::Error>(())
//! ```
//!
//! # Nodes
//! Made by [`Builder::create_on`] a dictionary has a part on each node of a world. A key lies on the node that its hash
//! chooses; processes of that node read and write it in shared memory, others ask the node's first rank, which takes a
//! round trip. What is read in place there, is a copy here. What was read before is read again one-sidedly, without the
//! other process, where the network can. [`DDict::bput`] gives a key a copy on every node, which [`DDict::bget`] reads
//! there. With [`Builder::replicas`] several nodes keep each key, so that what was written is not lost with one: in a
//! world that survives losses the next node that keeps a key serves it when the rank that did is lost.
//!
//! # Signals
//! A dictionary goes with its last user: when that drops it, exits, or is ended by SIGHUP, SIGINT or SIGTERM. For the
//! last of these a program that makes or attaches to one takes the three signals, each if it has its default action
//! then: it still ends by that signal, after at most a second. A handler that the program installed before is left
//! alone. One that it installs later replaces ours: the signal is its matter then, and if it ends the program by other
//! means than an exit, the next program to start removes what is left, as it does after `kill -9`.
//!
//! In reading order: [`Builder`] makes a dictionary, [`DDict`] is the handle, [`Descriptor`] leads another process to
//! it. `encoding` says how keys and values become bytes, `view` and `array` how they are read in place, `store` how
//! they lie in shared memory, `persist` how they lie in files.

pub mod array;

mod builder;
mod descriptor;
mod encoding;
mod error;
mod handle;
mod host;
mod parts;
mod persist;
mod store;
mod view;

pub use builder::{Builder, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, WORKING_SET_MAX};
pub use descriptor::Descriptor;
pub use encoding::{Key, Number, Plain, Value};
pub use error::Error;
pub use handle::{
    Any, BatchPut, DDict, Exchange, Filtered, Items, Keys, ShardHandle, ShardStats, Stats, Values,
};
pub use persist::{PersistId, Persisted, PersistedItems, persisted_ids, remove_persisted};
pub use tarragon_transport::Place;
pub use view::{Ref, View};

pub use tarragon_transport::heap::Audit;
