//! What a list takes from lists that have run before, at home and at guests; see the page of `ranks`.
//!
//! At home it is known who takes what; all of it is sent when a run is under way. At a guest the last imports are from
//! outside, and if they fail, that is blamed as it is for tasks of home: before failures of the list, and of several
//! that one task takes, the first of its arguments.

use super::elsewhere::Elsewhere;
use super::goods::{Given, Goods, given_by};
use super::message::RunNumber;
use super::seats::Holder;
use super::side::{Side, is_there};
use super::told::Told;
use crate::compile::split::{Export, Exports};
use crate::compile::{Dependences, NEEDS};
use crate::plan::missing;
use crate::task::record::{Ref, state};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// See the page.
#[derive(Default)]
pub(crate) struct Outside {
    /// At home: tasks of other lists, which arguments of tasks of this one keep.
    producers: Box<[Ref]>,
    /// At home: who takes what they gave, by producer.
    exports: Exports,
    /// At a guest: imports that are from outside.
    imports: Range<u32>,
    /// At a guest: nodes that wait for several of them, in the order of their arguments.
    orders: HashMap<u32, Box<[u32]>>,
}

impl Outside {
    pub(super) fn at_home(producers: &[Ref], exports: Exports) -> Self {
        Self { producers: producers.into(), exports, ..Self::default() }
    }

    /// Of a part with these edges.
    pub(super) fn at_guest(imports: Range<u32>, found: &Dependences) -> Self {
        let of_node = |node: u32| {
            let sources = found.sources_of(node as usize).iter().map(|source| source & !NEEDS);
            let order: Box<[u32]> = sources.filter(|source| imports.contains(source)).collect();
            (order.len() > 1).then_some((node, order))
        };
        let nodes = if imports.len() > 1 { found.vertices() as u32 } else { 0 };
        let orders = (0..nodes).filter_map(of_node).collect();
        Self { imports, orders, ..Self::default() }
    }

    /// Who gives what tasks of other ranks take.
    pub(super) fn producers(&self) -> impl Iterator<Item = Ref> + '_ {
        self.taken().map(|(producer, _)| producer)
    }

    /// With the place of what they give among the producers.
    fn taken(&self) -> impl Iterator<Item = (Ref, usize)> + '_ {
        let all = self.producers.iter().copied().zip(0..self.exports.len());
        all.filter(|(_, place)| !self.exports.of(*place).is_empty())
    }

    /// If `source` is an import from outside: which of those it is that `node` waits for.
    pub(super) fn place(&self, node: u32, source: u32) -> Option<u32> {
        if !self.imports.contains(&source) {
            return None;
        }
        let order = self.orders.get(&node);
        Some(order.and_then(|order| order.iter().position(|s| *s == source)).unwrap_or_default() as u32)
    }
}

impl Side {
    /// At home, where the run has waited for the producers, which stay as they are until it has ended: sends what they
    /// gave to who takes it, or to one seat alone.
    pub(super) fn give_outside(&self, run: RunNumber, seat: Option<u16>) {
        for (producer, place) in self.outside.taken() {
            let mut exports = self.outside.exports.of(place).to_vec();
            exports.retain(|export| seat.is_none_or(|seat| export.rank == seat));
            if exports.is_empty() {
                continue;
            }
            let elsewhere = producer.cohort().and_then(|cohort| cohort.elsewhere());
            // A value that has come here is also where it came from, which may be where it goes.
            let may_be_there = |task: &Ref| is_there(*task) || is_away(*task);
            let gone = elsewhere.as_ref().and_then(|elsewhere| elsewhere.gone(producer));
            let told = elsewhere.filter(|_| gone.is_none() && may_be_there(&producer));
            if !told.is_some_and(|elsewhere| self.has_given(&elsewhere, producer, run, &exports)) {
                let value = match gone {
                    _ if is_there(producer) => given_by(producer),
                    Some(loss) => Err(loss),
                    None => Err(missing(producer)),
                };
                let given: Given = value
                    .map(|value| Goods::of_value(Some(value)))
                    .map_err(|failure| Told::of_outside(&failure));
                self.tell_all(&exports, run, &given);
            }
        }
    }

    /// Has the rank of a producer send what it gave; false if it runs here.
    fn has_given(&self, of: &Elsewhere, producer: Ref, run: RunNumber, exports: &[Export]) -> bool {
        let mut lists: BTreeMap<u64, Vec<(u16, u32)>> = BTreeMap::new();
        for export in exports {
            let Holder { rank, list } = self.seats.holder(export.rank);
            lists.entry(list).or_default().push((rank as u16, export.import));
        }
        for (list, imports) in lists {
            let n = imports.len();
            let Some(bytes) = of.give(producer, (list, run), imports) else { return false };
            self.count_sent(n, bytes);
        }
        true
    }
}

/// Whether a task is done on another rank, and its value there.
fn is_away(task: Ref) -> bool {
    use crate::cohort::Progress;
    task.cohort().is_some_and(|cohort| cohort.progress(task) == Progress::Ended(state::ELSEWHERE))
}
