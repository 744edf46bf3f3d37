//! Making a dictionary that spans nodes, and attaching to one.

use super::far::Far;
use super::message::{self, Fault, Home, QUESTION, Question, Reply, Verb};
use super::{Parts, serve, succession};
use crate::error::Error;
use crate::store::{Options, Store};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tarragon_transport::segment::SegmentName;
use tarragon_transport::{Fabric, FabricError, Rank, Request, World};

impl Parts {
    /// Makes a part on each node of a world.
    pub(crate) fn make(world: &World, options: &Options) -> Result<Self, Error> {
        if options.replicas > world.nodes() {
            let wanted = format!("1 to {} can, as many as there are nodes", world.nodes());
            return Err(Error::Setting { name: "replicas", value: u64::from(options.replicas), wanted });
        }
        if world.nodes() <= 1 {
            return Store::create(options).map(Self::alone);
        }
        let fabric = world.shared_fabric();
        let host = |rank| world.host(rank).unwrap_or("an unknown host").to_owned();
        // All parts hash alike.
        let seed = RandomState::new().hash_one(std::process::id()) | 1;
        let options = Options { seed: Some(seed), ..options.clone() };
        let nodes = world.nodes();
        let asked: Vec<(Rank, Result<Request, FabricError>)> = world
            .node_leaders()
            .into_iter()
            .map(|rank| (rank, ask(&fabric, rank, &options, nodes)))
            .collect();
        let made = |(rank, request)| {
            let (segment, copies, replicas) = made(rank, &host(rank), request)?;
            Ok(Home { rank, host: host(rank), segment, copies, replicas })
        };
        let made: Vec<Result<Home, Error>> = asked.into_iter().map(made).collect();
        let homes = made.iter().flatten().cloned().collect();
        let far = Far::new(fabric, world.uid(), homes);
        let failed = made.into_iter().find_map(Result::err);
        if let Some(error) = failed.or_else(|| far.tell_homes().err()) {
            far.leave();
            return Err(error);
        }
        Self::open(far)
    }

    /// Attaches to the parts at these homes.
    pub(crate) fn attach(world: u128, homes: &[Home]) -> Result<Self, Error> {
        let name = || homes.first().map_or_else(String::new, |home| home.segment.file.clone());
        let fabric = Fabric::of_world(world).ok_or_else(|| Error::World { name: name() })?;
        let far = Far::new(fabric, world, homes.into());
        if far.here as usize >= homes.len() {
            return Err(Error::World { name: name() });
        }
        far.enter()?;
        Self::open(far)
    }

    /// With the part of this node.
    fn open(far: Far) -> Result<Self, Error> {
        let home = &far.homes[far.here as usize];
        match Store::open(&home.segment).and_then(|near| Ok((near, Store::open(&home.copies)?))) {
            Ok((mut near, copies)) => {
                let far = Arc::new(far);
                let asked = Arc::clone(&far);
                near.ask_before_change(Box::new(move |cell| asked.give_up(cell)));
                if far.is_movable() {
                    succession::look_after(&far);
                }
                Ok(Self { near, far: Some(far), copies: Some(copies) })
            }
            Err(error) => {
                far.leave();
                Err(error)
            }
        }
    }
}

fn ask(fabric: &Arc<Fabric>, rank: Rank, options: &Options, nodes: u32) -> Result<Request, FabricError> {
    fabric.introduce(rank, serve::install)?;
    let question = Question { part: 0, key: 0, write: None, verb: Verb::Make(options.clone(), nodes) };
    fabric.request(rank, QUESTION, &message::bytes(&question))
}

/// The segments of a part that was made, of its copies, and of its replicas of other parts.
fn made(
    rank: Rank,
    host: &str,
    request: Result<Request, FabricError>,
) -> Result<(SegmentName, SegmentName, Vec<SegmentName>), Error> {
    let far = |what: String| Error::Far { rank: rank.0, host: host.to_owned(), what };
    let answer =
        request.and_then(|request| request.wait(Duration::MAX)).map_err(|why| far(why.to_string()))?;
    let answer = answer.unwrap_or_default();
    match message::head::<Result<Reply, Fault>>(&answer) {
        Some((Ok(reply), _)) => serve::made(reply),
        Some((Err(fault), _)) => return Err(fault.error("to be made", (rank, host), &[])),
        None => None,
    }
    .ok_or_else(|| far("it answers what was not asked".to_owned()))
}
