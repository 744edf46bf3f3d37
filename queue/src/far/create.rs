//! Making a queue that all ranks of a world can use.

use super::served;
use crate::builder::Builder;
use crate::descriptor::Home;
use crate::error::Error;
use crate::queue::Queue;
use serde::{Serialize, de::DeserializeOwned};
use tarragon_transport::World;

impl<T: Serialize + DeserializeOwned + 'static> Builder<T> {
    /// Makes it for all ranks of `world`. Its memory lies on this rank's node, whose ranks use it as one that
    /// [`create`](Builder::create) makes; in a world of one node it is that. Ranks of other nodes that attach by its
    /// descriptor ask this rank: an operation is a message there and a response.
    /// [`put_all`](Queue::put_all) and [`fetch_ahead`](Queue::fetch_ahead) make many items share them.
    ///
    /// When this rank dies or leaves the world, ranks of other nodes can use the queue no more (`Lost`); those of its
    /// node still can. What differs from another node otherwise:
    /// - `put` returns when the item is in the queue. Items of one thread stay in order.
    /// - A rank that dies while items are on their way to it has not taken them: others get them, later than in their
    ///   order. In the moment before its death it may have seen one that another rank is given again.
    /// - `loan` and `get_ref` use memory of this process, and copy.
    /// - `select` asks again and again, less and less often, up to every 20 ms.
    /// - Timeouts count from when the request has come, and the way there and back comes on top.
    ///
    /// # Errors
    /// `Segment` if shared memory is full or refused.
    pub fn create_on(self, world: &World) -> Result<Queue<T>, Error> {
        let mut made = self.make()?;
        if world.nodes() > 1 {
            let host = world.host(world.rank()).unwrap_or_default().to_owned();
            made.home = Some(Home { world: world.uid(), rank: world.rank().0, host });
            served::install(&world.shared_fabric());
            world.before_leaving(served::end);
        }
        Ok(Queue::of(made))
    }
}
