//! Several processes and one dictionary.

use crate::process::{Other, PATIENCE, hear, role};
use tarragon_ddict::{DDict, Descriptor, Error};

type Dict = DDict<String, Vec<u64>>;

fn attach(text: &str) -> Dict {
    text.parse::<Descriptor>().unwrap().attach().unwrap()
}

fn create() -> Dict {
    DDict::builder().memory(64 << 20).create().unwrap()
}

#[test]
fn another_process_reads_and_writes() {
    if let Some((_, text)) = role() {
        let dict = attach(&text);
        let held = dict.get_ref("from the first").unwrap().unwrap();
        assert_eq!(held[..], [1, 2, 3]);
        dict.put("from the other", vec![4; 10_000]).unwrap();
        println!("DONE");
        hear();
        return;
    }
    let dict = create();
    dict.put("from the first", vec![1, 2, 3]).unwrap();
    let mut other =
        Other::start("live::another_process_reads_and_writes", "reader", &dict.descriptor().to_string());
    other.line("DONE");
    assert_eq!(dict.get("from the other").unwrap(), Some(vec![4; 10_000]));
    other.say("end");
    other.finish();
}

#[test]
fn a_put_of_another_process_wakes() {
    if let Some((_, text)) = role() {
        let dict = attach(&text);
        hear();
        dict.put("k", vec![5]).unwrap();
        return;
    }
    let dict = create();
    let mut other =
        Other::start("live::a_put_of_another_process_wakes", "writer", &dict.descriptor().to_string());
    other.say("now");
    assert_eq!(dict.get_timeout("k", PATIENCE).unwrap(), [5]);
    other.finish();
}

#[test]
fn values_are_never_torn_for_another_process() {
    if let Some((_, text)) = role() {
        let dict = attach(&text);
        println!("READY");
        for i in 0.. {
            let len = (i % 2000) as usize;
            if dict.put("k", vec![i; len + 1]).is_err() {
                break;
            }
        }
        return;
    }
    let dict = create();
    dict.put("k", vec![0]).unwrap();
    let mut other = Other::start(
        "live::values_are_never_torn_for_another_process",
        "writer",
        &dict.descriptor().to_string(),
    );
    other.line("READY");
    for _ in 0..20_000 {
        let value = dict.get_ref("k").unwrap().unwrap();
        assert!(value.iter().all(|it| it == &value[0]));
        assert_eq!(value.len() as u64, value[0] % 2000 + 1);
    }
    dict.destroy();
    other.finish();
}

#[test]
fn a_killed_process_loses_nothing_that_was_put() {
    if let Some((_, text)) = role() {
        let dict = attach(&text);
        let _held = dict.get_ref("start").unwrap().unwrap();
        for i in 0_u64.. {
            dict.put(&format!("key {}", i % 500), vec![i; (i % 300) as usize + 1]).unwrap();
            if i >= 500 {
                dict.put("done", vec![i]).unwrap();
            }
            if i == 600 {
                println!("RUNNING");
            }
        }
        return;
    }
    let dict = create();
    for round in 0..10 {
        dict.put("start", vec![round; 1000]).unwrap();
        let mut other = Other::start(
            "live::a_killed_process_loses_nothing_that_was_put",
            "writer",
            &dict.descriptor().to_string(),
        );
        other.line("RUNNING");
        other.kill();
        let done = dict.get("done").unwrap().unwrap()[0];
        for i in done - 499..=done {
            let value = dict.get_verified(&format!("key {}", i % 500)).unwrap().unwrap();
            assert!(value.iter().all(|it| it == &value[0]), "not torn");
            assert!(value[0] == i || value[0] == i + 500, "not lost: {} for {i}", value[0]);
        }
        dict.put("start", vec![]).unwrap();
    }
    dict.recover();
    let audit = dict.audit().unwrap();
    assert!(audit.leaked.is_empty() && audit.dangling.is_empty(), "{audit:?}");
}

#[test]
fn the_dictionary_outlives_its_maker() {
    if role().is_some() {
        let dict = create();
        dict.put("k", vec![1; 1000]).unwrap();
        println!("AT {}", dict.descriptor());
        hear();
        return;
    }
    let mut maker = Other::start("live::the_dictionary_outlives_its_maker", "maker", "");
    let text = maker.line("AT ");
    let dict = attach(&text);
    maker.kill();
    assert_eq!(dict.get("k").unwrap(), Some(vec![1; 1000]));
    dict.put("k", vec![2]).unwrap();
    drop(dict);
    let gone = text.parse::<Descriptor>().unwrap().attach::<String, Vec<u64>>();
    assert!(matches!(gone, Err(Error::Gone { .. })));
}

#[test]
fn two_processes_count_together() {
    const TIMES: u64 = 5000;
    if let Some((_, text)) = role() {
        let dict: DDict<String, u64> = text.parse::<Descriptor>().unwrap().attach().unwrap();
        (0..TIMES).for_each(|_| assert!(dict.fetch_add("n", 1).is_ok()));
        return;
    }
    let dict: DDict<String, u64> = DDict::builder().memory(1 << 20).create().unwrap();
    let text = dict.descriptor().to_string();
    let others = [(); 2].map(|()| Other::start("live::two_processes_count_together", "counter", &text));
    (0..TIMES).for_each(|_| assert!(dict.fetch_add("n", 1).is_ok()));
    others.into_iter().for_each(Other::finish);
    assert_eq!(dict.get("n").unwrap(), Some(3 * TIMES));
}
