//! Making a dictionary: its size and its habits.

use crate::encoding::{type_name, types_hash};
use crate::error::Error;
use crate::handle::DDict;
use crate::host;
use crate::parts::Parts;
use crate::store::{Options, SHARDS_MAX, Store};
use std::marker::PhantomData;
use std::time::Duration;
use tarragon_transport::World;

/// The least memory a dictionary can have, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 1 << 18;
/// The most memory a dictionary can have, in bytes.
pub const MEMORY_BYTES_MAX: u64 = 1 << 44;
/// The most checkpoints a dictionary can keep.
pub const WORKING_SET_MAX: u32 = 1024;

/// What a dictionary is to be, see [`DDict::builder`].
///
/// ```
/// use std::time::Duration;
/// use tarragon_ddict::DDict;
///
/// let dict = DDict::<String, Vec<f64>>::builder()
///     .memory(1 << 30)
///     .shards_per_node(4)
///     .wait_for_keys(true)
///     .timeout(Duration::from_secs(60))
///     .create()?;
/// # Ok::<(), tarragon_ddict::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "`create` makes the dictionary"]
pub struct Builder<K, V> {
    memory_bytes: Option<u64>,
    shards: u32,
    wait_for_keys: bool,
    working_set: u32,
    timeout: Option<Duration>,
    checksums: bool,
    replicas: u32,
    types: PhantomData<fn(K) -> V>,
}

impl<K: 'static, V: 'static> Builder<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            memory_bytes: None,
            shards: 1,
            wait_for_keys: false,
            working_set: 1,
            timeout: None,
            checksums: false,
            replicas: 1,
            types: PhantomData,
        }
    }

    /// The most bytes it may grow to, index and values; nothing of it is taken before it is used. Default: half of what
    /// shared memory has free, at most half of the machine's memory.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    /// Parts on each node that have an index of their own. More let more processes write at once, and are the pieces
    /// for [`DDict::pinned`] and [`DDict::filter`]. Default 1.
    pub fn shards_per_node(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// Whether a read of a key that is not there waits until somebody puts it. Such a dictionary wants a key anew in
    /// each checkpoint, unless it was put by [`DDict::pput`]. Default: no.
    pub fn wait_for_keys(mut self, wait: bool) -> Self {
        self.wait_for_keys = wait;
        self
    }

    /// How many checkpoints are kept, at least 1. Default 1.
    pub fn working_set(mut self, checkpoints: u32) -> Self {
        self.working_set = checkpoints;
        self
    }

    /// How long a wait may last if the caller does not say. Counted in whole milliseconds. Default: no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether large values have checksums too, for [`DDict::get_verified`]; small ones always have. Default: no.
    pub fn checksums(mut self, checksums: bool) -> Self {
        self.checksums = checksums;
        self
    }

    /// How many nodes keep each key, of a dictionary that [`Builder::create_on`] makes: the one that its hash chooses,
    /// from where it is read, and the next ones, which stand by. A write of any kind returns when all of them have it,
    /// and nobody sees it before: what was read or acknowledged is on so many nodes, as long as none of them is lost.
    /// Where one is, writes go on with the others, and its keys are served by the next one if the world survives losses
    /// (`Losses::survived`). No further copies are made then.
    ///
    /// Reads cost what they cost without. Every write, also of a process of the key's node, is done by that node's
    /// first rank, and takes a way to it and one from there to the others and back: about two round trips. Each node
    /// has memory for what it stands by for, as for its own keys and a quarter more; nothing of it is taken before it
    /// is used. `len`, walks, `filter` and `persist` see a key once.
    ///
    /// Default 1. At most as many as the world has nodes, so on one node 1 alone.
    pub fn replicas(mut self, nodes: u32) -> Self {
        self.replicas = nodes;
        self
    }

    /// Makes it, empty.
    ///
    /// # Errors
    /// `Setting` for a value that cannot be; `Segment` if shared memory is full or the system refuses.
    pub fn create(&self) -> Result<DDict<K, V>, Error> {
        if self.replicas > 1 {
            let wanted = "1 can, where `create_on` is not told of other nodes".to_owned();
            return Err(Error::Setting { name: "replicas", value: u64::from(self.replicas), wanted });
        }
        Ok(DDict::new(Parts::alone(Store::create(&self.options()?)?), 0))
    }

    /// Makes it, empty, with a part on each node of a world: each node has so much memory and so many shards of it, and
    /// a key lies on the node that its hash chooses. Processes read and write the keys of their own node in shared
    /// memory, and ask the first rank of another node for that one's; what they have read before they read without it,
    /// where the network can. Any rank of the world may make it, and any rank may attach by the
    /// [`Descriptor`](crate::Descriptor). On a world of one node this is [`Builder::create`].
    ///
    /// Waits for all nodes to have made their parts.
    ///
    /// # Errors
    /// Those of [`Builder::create`], of any node (`Far` says of which); nothing is left then.
    pub fn create_on(&self, world: &World) -> Result<DDict<K, V>, Error> {
        Ok(DDict::new(Parts::make(world, &self.options()?)?, 0))
    }

    fn options(&self) -> Result<Options, Error> {
        let memory_bytes = match self.memory_bytes {
            Some(bytes) => within("memory", bytes, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX, "bytes")?,
            None => host::memory_bytes_default().clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX),
        };
        within("shards_per_node", u64::from(self.shards), 1, u64::from(SHARDS_MAX), "shards")?;
        within("replicas", u64::from(self.replicas), 1, u64::from(u32::MAX), "nodes")?;
        within("working_set", u64::from(self.working_set), 1, u64::from(WORKING_SET_MAX), "checkpoints")?;
        Ok(Options {
            memory_bytes,
            shards: self.shards,
            wait_for_keys: self.wait_for_keys,
            working_set: self.working_set,
            timeout_ms: self.timeout.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            checksums: self.checksums,
            types: types_hash(&type_name::<K>(), &type_name::<V>()),
            seed: None,
            replicas: self.replicas,
        })
    }
}

fn within(name: &'static str, value: u64, min: u64, max: u64, unit: &str) -> Result<u64, Error> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(Error::Setting { name, value, wanted: format!("{min} to {max} {unit} can") })
}
