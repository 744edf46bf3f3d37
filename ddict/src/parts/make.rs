//! Making a dictionary that spans nodes, and attaching to one.

use super::far::Far;
use super::message::{self, Fault, Home, QUESTION, Question, Reply, Verb};
use super::{Parts, serve};
use crate::error::Error;
use crate::store::{Options, Store};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tarragon_transport::segment::SegmentName;
use tarragon_transport::{Fabric, FabricError, Rank, Request, World};

impl Parts {
    /// Makes a part on each node of a world.
    pub(crate) fn make(world: &World, options: &Options) -> Result<Self, Error> {
        if world.nodes() <= 1 {
            return Store::create(options).map(Self::alone);
        }
        let fabric = world.shared_fabric();
        let host = |rank| world.host(rank).unwrap_or("an unknown host").to_owned();
        // All parts hash alike.
        let seed = RandomState::new().hash_one(std::process::id()) | 1;
        let options = Options { seed: Some(seed), ..options.clone() };
        let asked: Vec<(Rank, Result<Request, FabricError>)> =
            world.node_leaders().into_iter().map(|rank| (rank, ask(&fabric, rank, &options))).collect();
        let made: Vec<(Rank, Result<SegmentName, Error>)> =
            asked.into_iter().map(|(rank, request)| (rank, made(rank, &host(rank), request))).collect();
        let homes = |made: &[(Rank, Result<SegmentName, Error>)]| -> Box<[Home]> {
            let home = |(rank, segment): &(Rank, Result<SegmentName, Error>)| {
                let segment = segment.as_ref().ok()?.clone();
                Some(Home { rank: *rank, host: host(*rank), segment })
            };
            made.iter().filter_map(home).collect()
        };
        let here = fabric.node_of(fabric.rank()).unwrap_or(0);
        let far = Far { fabric, world: world.uid(), here, homes: homes(&made), newest: AtomicU32::new(0) };
        if let Some((_, Err(error))) = made.into_iter().find(|(_, made)| made.is_err()) {
            far.leave();
            return Err(error);
        }
        Self::open(far)
    }

    /// Attaches to the parts at these homes.
    pub(crate) fn attach(world: u128, homes: &[Home]) -> Result<Self, Error> {
        let name = || homes.first().map_or_else(String::new, |home| home.segment.file.clone());
        let fabric = Fabric::of_world(world).ok_or_else(|| Error::World { name: name() })?;
        let here = fabric.node_of(fabric.rank()).unwrap_or(0);
        if here as usize >= homes.len() {
            return Err(Error::World { name: name() });
        }
        let far = Far { fabric, world, here, homes: homes.into(), newest: AtomicU32::new(0) };
        far.enter()?;
        Self::open(far)
    }

    /// With the part of this node.
    fn open(far: Far) -> Result<Self, Error> {
        match Store::open(&far.homes[far.here as usize].segment) {
            Ok(near) => Ok(Self { near, far: Some(Box::new(far)) }),
            Err(error) => {
                far.leave();
                Err(error)
            }
        }
    }
}

fn ask(fabric: &Arc<Fabric>, rank: Rank, options: &Options) -> Result<Request, FabricError> {
    fabric.introduce(rank, serve::install)?;
    let question = Question { part: 0, key: 0, verb: Verb::Make(options.clone()) };
    fabric.request(rank, QUESTION, &message::bytes(&question))
}

fn made(rank: Rank, host: &str, request: Result<Request, FabricError>) -> Result<SegmentName, Error> {
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
