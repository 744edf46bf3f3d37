//! Machines, ranks on them, and a dictionary that all ranks have.

use tarragon_ddict::{DDict, Descriptor, Error, Key};
use tarragon_testbed::{Hosts, Launch, Slurm, say};
use tarragon_transport::{Rank, World};

/// What each rank says at its end.
const OVER: &str = "over";

/// Has the test, by its whole name, run as so many ranks on each of so many machines.
pub(super) fn on_machines(count: u32, slots: u32, test: &'static str) {
    let Some(hosts) = Hosts::for_ranks(count) else { return };
    let ended = Launch::far(hosts.mpirun(slots), test, "rank").ranks(count * slots).run();
    ended.expect_success();
    let said = vec![OVER; (count * slots) as usize];
    assert_eq!(ended.said(), said, "not every rank ran the test: {}", ended.text);
    (0..count).for_each(|host| assert_eq!(hosts.shared_memory(host), Vec::<String>::new(), "{}", ended.text));
}

/// A rank has done all.
pub(super) fn over(world: World) {
    say(OVER);
    world.leave().unwrap();
}

/// Has the test run by `srun`, which lets ranks die, as so many ranks on so many machines; these lines are said.
pub(super) fn on_mortal_machines(count: u32, ranks: u32, test: &'static str, said: &[&str]) {
    on_machines_with_slurm(count, ranks, test, |those| those == said);
}

/// The same; what is said is to be like this.
pub(super) fn on_machines_with_slurm(
    count: u32,
    ranks: u32,
    test: &'static str,
    is_right: impl Fn(&[&str]) -> bool,
) {
    let Some(hosts) = Hosts::for_ranks(count) else { return };
    let Some(slurm) = Slurm::for_ranks(&hosts) else { return };
    let ended = Launch::far(slurm.srun(count), test, "rank").ranks(ranks).run();
    let said = ended.said();
    assert!(is_right(&said), "{said:?}\n{}\n{}", ended.text, slurm.logs());
    if said.len() == ranks as usize && ended.status.success() {
        // Nobody has died.
        (0..count)
            .for_each(|host| assert_eq!(hosts.shared_memory(host), Vec::<String>::new(), "{}", ended.text));
    }
}

/// The same dictionary at all ranks: rank `maker` makes it, the others attach by what it tells them.
pub(super) fn shared<K: Key, V: 'static>(
    world: &World,
    maker: Rank,
    make: impl FnOnce() -> DDict<K, V>,
) -> DDict<K, V> {
    let made = (world.rank() == maker).then(make);
    let text = made.as_ref().map_or_else(String::new, |dict| dict.descriptor().to_string());
    let text = String::from_utf8(world.broadcast_bytes(maker, text.as_bytes()).unwrap()).unwrap();
    let dict = made.unwrap_or_else(|| text.parse::<Descriptor>().unwrap().attach().unwrap());
    world.barrier().unwrap();
    dict
}

/// The node whose part has a key.
pub(super) fn home_of<K: Key>(world: &World, dict: &DDict<K, Vec<u64>>, key: &K) -> u32 {
    dict.shard_of(key).unwrap() / (dict.shards() / world.nodes())
}

/// A value that tells whether it is whole: a number, in every word but the first, which is the key.
pub(super) fn value(key: u64, number: u64, words: usize) -> Vec<u64> {
    let mut value = vec![number; words.max(2)];
    value[0] = key;
    value
}

/// The number of a whole value.
pub(super) fn number(key: u64, value: &[u64]) -> u64 {
    let number = value[1];
    assert!(value[0] == key && value[1..].iter().all(|word| *word == number), "key {key}: {value:?}");
    number
}

/// A setting that cannot be was refused.
pub(super) fn expect_setting<K, V>(made: Result<DDict<K, V>, Error>, wanted: &str, given: u64) {
    let error = made.err().unwrap();
    assert!(
        matches!(error, Error::Setting { name, value, .. } if (name, value) == (wanted, given)),
        "{error}"
    );
}
