//! Waiting for keys: until the put, the timeout, or the end of the dictionary; and checkpoints that want keys anew.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tarragon_ddict::{DDict, Error};

const MEMORY: u64 = 8 << 20;
/// Long enough that a test which gets there has failed.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(30);

fn waiting() -> DDict<String, u64> {
    DDict::builder().memory(MEMORY).wait_for_keys(true).timeout(LONG).create().unwrap()
}

/// Runs `wait` in a thread, checks that it has not ended before `act`, and returns what it gives after.
fn wait_then<R: Send>(wait: impl FnOnce() -> R + Send, act: impl FnOnce()) -> R {
    thread::scope(|scope| {
        let (told, ended) = mpsc::channel();
        scope.spawn(move || told.send(wait()));
        assert!(matches!(ended.recv_timeout(SHORT), Err(mpsc::RecvTimeoutError::Timeout)), "it did not wait");
        act();
        ended.recv_timeout(LONG).expect("it was woken")
    })
}

#[test]
fn a_read_waits_for_the_put() {
    let dict = waiting();
    let put = || dict.put("k", 7).unwrap();
    assert_eq!(wait_then(|| dict.get("k").unwrap(), put), Some(7));
    dict.remove("k").unwrap();
    assert_eq!(wait_then(|| dict.get_verified("k").unwrap(), put), Some(7));
    dict.remove("k").unwrap();
    assert_eq!(
        wait_then(
            || dict.multi_get(["k", "l"]).unwrap(),
            || {
                put();
                dict.fetch_add("l", 1).unwrap();
            }
        ),
        [Some(7), Some(1)]
    );
    assert_eq!(dict.get_or("nothing", 3).unwrap(), 3, "this one never waits");
    assert!(!dict.contains("nothing").unwrap());
    assert_eq!(dict.pop("nothing").unwrap(), None);
}

#[test]
fn every_kind_of_write_wakes() {
    let dict = waiting();
    let writes: [(&str, &(dyn Fn() + Sync)); 6] = [
        ("put", &|| dict.put("put", 1).unwrap()),
        ("pput", &|| dict.pput("pput", 1).unwrap()),
        ("absent", &|| assert!(dict.put_if_absent("absent", 1).unwrap())),
        ("update", &|| dict.update("update", |_| Some(1)).unwrap()),
        ("exchange", &|| assert!(dict.compare_exchange("exchange", None, Some(&1)).unwrap().is_done())),
        ("batch", &|| {
            let mut batch = dict.batch_put();
            batch.put("batch", 1).unwrap();
            batch.commit().unwrap();
        }),
    ];
    for (key, write) in writes {
        assert_eq!(wait_then(|| dict.get(key).unwrap(), write), Some(1), "{key}");
    }
}

#[test]
fn a_wait_ends_at_its_timeout() {
    let dict = waiting();
    let patient = |result: Result<(), Error>| {
        let Err(Error::Timeout { key, waited_ms }) = result else { panic!("{result:?}") };
        assert_eq!(key, "`k`");
        assert!(waited_ms >= SHORT.as_millis() as u64);
    };
    patient(dict.get_timeout("k", SHORT).map(|_| ()));
    let short = dict.clone().with_timeout(Some(SHORT));
    patient(short.get("k").map(|_| ()));
    patient(short.wait_for_key("k"));
    patient(short.wait_for_keys(["k"]));
    patient(short.wait_for("k", 5));
    patient(short.multi_get(["k"]).map(|_| ()));
    let made =
        DDict::<String, u64>::builder().memory(MEMORY).wait_for_keys(true).timeout(SHORT).create().unwrap();
    patient(made.get("k").map(|_| ()));
    assert!(made.stats().unwrap().shards[0].waits > 0);
}

#[test]
fn destroying_wakes_who_waits() {
    let dict = waiting();
    let result = wait_then(|| dict.get("k"), || dict.destroy());
    assert!(matches!(result, Err(Error::Gone { .. })), "{result:?}");
}

#[test]
fn wait_for_wants_the_very_value() {
    let dict = DDict::<String, u64>::builder().memory(MEMORY).timeout(LONG).create().unwrap();
    wait_then(|| dict.wait_for("k", 3).unwrap(), || (1..=3).for_each(|i| dict.put("k", i).unwrap()));
    wait_then(
        || dict.wait_for_keys(["k", "l", "m"]).unwrap(),
        || {
            dict.put("m", 0).unwrap();
            dict.put("l", 0).unwrap();
        },
    );
    assert_eq!(wait_then(|| dict.get_timeout("n", LONG).unwrap(), || dict.put("n", 9).unwrap()), 9);
}

#[test]
fn many_waiters_of_many_keys_get_theirs() {
    let dict =
        DDict::<u32, u32>::builder().memory(MEMORY).wait_for_keys(true).timeout(LONG).create().unwrap();
    thread::scope(|scope| {
        for i in 0..64 {
            let dict = &dict;
            scope.spawn(move || assert_eq!(dict.get(&(i / 2)).unwrap(), Some(i / 2 * 10)));
        }
        for i in 0..32 {
            dict.put(&i, i * 10).unwrap();
        }
    });
}

#[test]
fn a_waiting_dictionary_wants_keys_anew_in_each_checkpoint() {
    let dict = DDict::<String, u64>::builder()
        .memory(MEMORY)
        .wait_for_keys(true)
        .working_set(2)
        .timeout(LONG)
        .create()
        .unwrap();
    dict.put("each", 1).unwrap();
    dict.pput("kept", 2).unwrap();
    let next = dict.clone();
    next.checkpoint().unwrap();
    assert_eq!(next.get("kept").unwrap(), Some(2), "persistent keys are carried forward");
    assert!(!next.contains("each").unwrap());
    assert_eq!(wait_then(|| next.get("each").unwrap(), || next.put("each", 10).unwrap()), Some(10));
    assert_eq!(dict.get("each").unwrap(), Some(1), "the older checkpoint is still there");
}

#[test]
fn checkpoints_live_side_by_side_until_they_retire() {
    let dict = DDict::<String, u64>::builder().memory(MEMORY).working_set(2).create().unwrap();
    dict.put("k", 0).unwrap();
    let old = dict.clone();
    assert_eq!(dict.checkpoint().unwrap(), 1);
    assert_eq!(dict.get("k").unwrap(), Some(0));
    dict.put("k", 1).unwrap();
    assert_eq!(old.get("k").unwrap(), Some(0));
    assert_eq!(dict.rollback().unwrap(), 0);
    assert_eq!(dict.get("k").unwrap(), Some(0));
    assert!(matches!(dict.rollback(), Err(Error::Checkpoint { checkpoint: 0, .. })));
    assert_eq!(dict.sync_to_newest().unwrap(), 1);
    dict.checkpoint().unwrap();
    dict.put("k", 2).unwrap();
    let texts = [
        old.get("k").unwrap_err(),
        old.put("k", 9).unwrap_err(),
        old.len().unwrap_err(),
        old.remove("k").unwrap_err(),
    ];
    for error in &texts {
        assert!(matches!(error, Error::Retired { checkpoint: 0, oldest: 1, kept: 2 }), "{error}");
        assert_eq!(error.to_string(), texts[0].to_string(), "one and the same error");
    }
    dict.rollback().unwrap();
    assert!(matches!(dict.rollback(), Err(Error::Retired { checkpoint: 0, .. })));
    assert_eq!(dict.checkpoint_id(), 1);
    assert_eq!(old.sync_to_newest().unwrap(), 2);
    assert_eq!(old.get("k").unwrap(), Some(2));
}
