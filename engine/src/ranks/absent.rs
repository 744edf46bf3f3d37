//! Under the model checker there are no other ranks: what the rest of the engine needs to know of them, of which there
//! is none.

use crate::body::Verdict;
use crate::cohort::Cohort;
use crate::compile::split::Piece;
use crate::error::{Cause, Error, Failure};
use crate::function::wire::WireError;
use crate::journal::Entry;
use crate::outputs::Portion;
use crate::plan::Plan;
use crate::resume::Ledger;
use crate::run::{Others, Past, Run, Timed};
use crate::schedule::Need;
use crate::shared::Shared;
use crate::task::record::Ref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What ranks sent one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {}

/// Of a task that one rank runs.
pub struct Gang(());

impl Gang {
    pub(crate) fn alone(_: u32) -> Gang {
        Gang(())
    }
}

/// There is nobody to be called.
#[derive(Debug)]
pub enum GangError {}

/// Nobody else has cpus.
#[derive(Clone)]
pub(crate) struct Far {
    pub(crate) host: Option<String>,
    pub(crate) ranks: u32,
    pub(crate) cpus: Vec<u32>,
}

pub(crate) struct Holding {
    pub(crate) far: Vec<Far>,
}

impl Holding {
    pub(crate) fn assemble(_: &Arc<Run>, _: Ref, _: &[(u32, u32)], _: u32) -> Result<Self, Cause> {
        Ok(Self { far: Vec::new() })
    }
}

pub(crate) enum Role {}
pub(crate) type OfPlan = ();

pub(crate) fn join_gang(_: &Arc<Run>, _: Ref, _: &Arc<AtomicBool>) -> Result<Option<Role>, Cause> {
    Ok(None)
}

impl Role {
    pub(crate) fn gang(&self) -> &Arc<Gang> {
        match *self {}
    }

    pub(crate) fn is_leader(&self) -> bool {
        match *self {}
    }

    pub(crate) fn finish(self, _: Verdict, _: &dyn Fn() -> bool) -> (Verdict, Option<u32>) {
        match self {}
    }
}

/// What guests' batches are to be like.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) workers: u32,
    pub(crate) assumed_cpus: u32,
    pub(crate) assumed_gpus: u32,
    pub(crate) run_dir: Option<std::path::PathBuf>,
    pub(crate) keeps_output: bool,
    pub(crate) is_unbound: bool,
    pub(crate) keeps_place: bool,
    pub(crate) launcher: Option<PathBuf>,
    pub(crate) measures: bool,
    pub(crate) lock: Option<std::path::PathBuf>,
    pub(crate) errors: Vec<i64>,
}

pub(crate) enum Ranks {}
pub(crate) enum Side {}
pub(crate) enum Elsewhere {}
pub(crate) enum Nobody {}
pub(crate) struct Unwritten(pub(crate) u32, pub(crate) WireError);

/// Where tasks are in a list.
pub(crate) struct Places {
    pub(crate) bases: Vec<(u32, u32)>,
    pub(crate) others: std::collections::HashMap<Ref, u32>,
}

/// At a guest: tells home what it did.
pub(crate) struct Recorder {
    pub(crate) reads_files: bool,
    pub(crate) nobody: Nobody,
}

impl Recorder {
    pub(crate) fn record(&self, _: u32, _: Entry) {
        match self.nobody {}
    }
}

impl Ranks {
    pub(crate) fn rank(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn size(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn cpus(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn nodes(&self) -> Vec<u32> {
        match *self {}
    }

    pub(crate) fn sharers(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn live(&self) -> Vec<u16> {
        match *self {}
    }

    pub(crate) fn survives(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_room_for(&self, _: u32) -> bool {
        match *self {}
    }

    pub(crate) fn loss_of(&self, _: u32) -> Option<String> {
        match *self {}
    }

    pub(crate) fn gpus(&self) -> Vec<crate::machine::Gpu> {
        match *self {}
    }

    pub(crate) fn gpus_of(&self, _: u32) -> u32 {
        match *self {}
    }

    pub(crate) fn least(&self) -> (u32, u64, u32) {
        match *self {}
    }

    pub(crate) fn is_home(&self) -> bool {
        match *self {}
    }

    pub(crate) fn receive_some(&self) -> usize {
        match *self {}
    }

    pub(crate) fn spins(&self) -> bool {
        match *self {}
    }

    pub(crate) fn stand_back(&self) {
        match *self {}
    }

    pub(crate) fn steal(&self) {
        match *self {}
    }

    pub(crate) fn deal(&self, _: &Shared, _: u32, _: &Need) -> Option<Vec<(u32, u32)>> {
        match *self {}
    }

    pub(crate) fn reach(&self, _: &Shared, _: &Need, _: Option<usize>) -> Option<u16> {
        match *self {}
    }

    pub(crate) fn cpus_of_others(&self, _: &Shared) -> u32 {
        match *self {}
    }

    pub(crate) fn no_room(&self, _: &Need) -> Cause {
        match *self {}
    }

    pub(crate) fn stop_gangs(&self, _: &Arc<Run>, _: Ref) {
        match *self {}
    }
}

impl Side {
    pub(crate) fn elsewhere(&self) -> Option<&Arc<Elsewhere>> {
        match *self {}
    }

    pub(crate) fn register(&self, _: &Arc<Plan>) {
        match *self {}
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn imports(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn parts(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn away(&self) -> std::iter::Empty<Ref> {
        match *self {}
    }

    pub(crate) fn outside_place(&self, _: u32, _: u32) -> Option<u32> {
        match *self {}
    }

    pub(crate) fn producers(&self) -> std::iter::Empty<Ref> {
        match *self {}
    }

    pub(crate) fn past(&self) -> Option<Arc<Past>> {
        match *self {}
    }

    pub(crate) fn keeps_journal(&self) -> bool {
        match *self {}
    }

    pub(crate) fn take_ledger(&self) -> Option<Ledger> {
        match *self {}
    }

    pub(crate) fn times(&self, _: u64) -> Option<(Vec<(u32, Timed)>, Others)> {
        match *self {}
    }

    pub(crate) fn traffic(&self) -> Option<Traffic> {
        match *self {}
    }

    pub(crate) fn begin(&self, _: &Run) {
        match *self {}
    }

    pub(crate) fn go_on(&self, _: &Arc<Run>) {
        match *self {}
    }

    pub(crate) fn export(&self, _: u32, _: &Plan, _: Option<&Arc<Failure>>) {
        match *self {}
    }

    pub(crate) fn lets_go(&self, _: &Plan) {
        match *self {}
    }

    pub(crate) fn ended(&self, _: &Plan, _: bool) {
        match *self {}
    }

    pub(crate) fn freed(&self) {
        match *self {}
    }

    pub(crate) fn cancel(&self, _: &Arc<Run>, _: Option<Ref>) {
        match *self {}
    }
}

impl Elsewhere {
    pub(crate) fn read(&self, _: Ref, _: Portion) -> Option<std::io::Result<Vec<u8>>> {
        match *self {}
    }

    pub(crate) fn has(&self, _: Ref) -> bool {
        match *self {}
    }

    pub(crate) fn is_away(&self, _: u32) -> bool {
        match *self {}
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn rank_of(&self, _: Ref) -> u32 {
        match *self {}
    }
}

impl Cohort {
    pub(crate) fn request(&self, _: impl Iterator<Item = Ref>) {}
}

pub(crate) fn spread(
    ranks: &Arc<Ranks>,
    _: &Arc<crate::shared::Shared>,
    _: &Arc<Cohort>,
    _: &[Piece],
    _: Places,
    _: &[Ref],
    _: &dyn Fn(u32) -> Ref,
) -> Result<Side, Vec<Unwritten>> {
    match **ranks {}
}
