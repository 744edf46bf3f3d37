//! Memory that is full while many put: a clear error, nothing lost, and all of it can be used again.

use super::bed::{Dict, assert_clean};
use super::contents::{Dice, contents, number_in};
use super::kills::is_long;
use super::process::{part_of, start};
use std::collections::BTreeMap;
use std::time::Duration;
use tarragon_ddict::{Descriptor, Error};

const TEST: &str = "faults::full::many_put_until_it_is_full";
const PROCESSES: usize = 4;
const MEMORY: u64 = 12 << 20;

/// Puts, overwrites and removes its own keys; returns how often it was refused.
fn play(dict: &Dict, player: u64, rounds: u64) -> (u64, usize) {
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    let mut dice = Dice::new(player + 1);
    let mut refused = 0;
    for number in 0..rounds {
        let key = format!("{player}/{}", dice.below(200));
        // First it only grows.
        if number > rounds / 4 && dice.below(4) == 0 {
            assert_eq!(dict.remove(key.as_str()).unwrap(), known.remove(&key).is_some());
            continue;
        }
        let bits = 4 + dice.below(15);
        let len = 16 + dice.below(1 << bits);
        match dict.put(key.as_str(), contents(&key, number, len as usize)) {
            Ok(()) => {
                known.insert(key, number);
            }
            Err(Error::Memory(_)) => {
                refused += 1;
                check(dict, &key, known.get(&key));
            }
            Err(error) => panic!("{error}"),
        }
    }
    known.iter().for_each(|(key, number)| check(dict, key, Some(number)));
    (refused, known.len())
}

fn check(dict: &Dict, key: &str, wanted: Option<&u64>) {
    let found = dict.get_verified(key).unwrap().map(|bytes| number_in(key, &bytes).expect("whole"));
    assert_eq!(found.as_ref(), wanted, "{key}");
}

#[test]
fn many_put_until_it_is_full() {
    if let Some(argument) = part_of(TEST) {
        let (player, descriptor) = argument.split_once(' ').unwrap();
        let dict = descriptor.parse::<Descriptor>().unwrap().attach().unwrap();
        let rounds = if is_long() { 100_000 } else { 4000 };
        let (refused, keys) = play(&dict, player.parse().unwrap(), rounds);
        println!("\nplayed {refused} {keys} end");
        return;
    }
    let dict = Dict::builder().memory(MEMORY).create().unwrap();
    let players: Vec<_> =
        (0..PROCESSES).map(|player| start(TEST, &format!("{player} {}", dict.descriptor()), None)).collect();
    let (mut refused, mut keys) = (0, 0);
    for player in players {
        let text = player.succeed(Duration::from_secs(if is_long() { 600 } else { 60 }));
        let line = text.lines().find(|line| line.starts_with("played")).unwrap();
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        refused += numbers[0];
        keys += numbers[1];
    }
    assert!(refused > 0, "it was never full");
    assert_eq!(dict.len().unwrap(), keys);
    assert_clean(&dict);
    dict.clear().unwrap();
    assert_eq!(dict.len().unwrap(), 0);
    assert_clean(&dict);
    assert_reusable(&dict);
    println!("full: {PROCESSES} processes, {refused} puts refused, {keys} keys at the end");
}

/// All of it can be used again: for one large value, and for many.
fn assert_reusable(dict: &Dict) {
    // Pages of the index stay where they are, so the largest piece is not the whole.
    let large = contents("large", 1, MEMORY as usize / 6);
    dict.put("large", &large).unwrap();
    assert_eq!(dict.pop("large").unwrap(), Some(large));
    let block = contents("block", 1, 6000);
    let count = (0..).take_while(|index| dict.put(&format!("again {index}"), &block).is_ok()).count();
    let bytes = (count * block.len()) as u64;
    assert!(bytes > MEMORY / 10 * 8, "only {bytes} of {MEMORY} bytes can be used again");
    assert_clean(dict);
}
