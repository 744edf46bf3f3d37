//! Types of keys and values, their limits, and descriptors.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tarragon_ddict::{Any, DDict, Descriptor, Error, Value};

const MEMORY: u64 = 32 << 20;

fn dict<K: 'static, V: 'static>() -> DDict<K, V> {
    DDict::builder().memory(MEMORY).create().unwrap()
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Particle {
    name: String,
    place: [f64; 3],
    tags: BTreeMap<String, Option<u8>>,
}

fn particle() -> Particle {
    Particle { name: "p".to_owned(), place: [1.0, 2.0, 3.0], tags: [("t".to_owned(), Some(1))].into() }
}

fn round_trip<V: Value + PartialEq + std::fmt::Debug + Clone>(values: &[V]) {
    let dict = dict::<u32, V>();
    for (key, value) in (0..).zip(values) {
        dict.put(&key, value).unwrap();
    }
    for (key, value) in (0..).zip(values) {
        assert_eq!(dict.get(&key).unwrap().as_ref(), Some(value));
        assert_eq!(dict.get_verified(&key).unwrap().as_ref(), Some(value));
    }
}

#[test]
fn values_of_all_kinds_come_back() {
    round_trip(&[0_u8, 1, 255]);
    round_trip(&[i64::MIN, -1, i64::MAX]);
    round_trip(&[f32::MIN, -0.0, f32::INFINITY]);
    round_trip(&[u128::MAX, 1]);
    round_trip(&[true, false]);
    round_trip(&['a', '💧']);
    round_trip(&[(), ()]);
    round_trip(&[String::new(), "ä".to_owned(), "long ".repeat(10_000)]);
    round_trip(&[vec![], vec![1_u8], vec![2; 1 << 20]]);
    round_trip(&[vec![], vec![-1_i16, 2], vec![3; 100_000]]);
    round_trip(&[vec![], vec![u128::MAX; 3]]);
    round_trip(&[vec![particle(); 3], vec![]]);
    round_trip(&[Some(particle()), None]);
}

#[test]
fn dictionaries_of_mixed_values_know_their_types() {
    let dict = dict::<String, Any>();
    dict.put("n", &5_u64).unwrap();
    dict.put("row", &vec![1.0_f64; 100]).unwrap();
    dict.pput("p", &particle()).unwrap();
    assert_eq!(dict.get::<u64, _>("n").unwrap(), Some(5));
    assert_eq!(dict.get::<Particle, _>("p").unwrap(), Some(particle()));
    assert_eq!(dict.get::<u8, _>("nothing").unwrap(), None);
    assert_eq!(dict.get_or("nothing", 9_u8).unwrap(), 9);
    let row = dict.get_ref::<Vec<f64>, _>("row").unwrap().unwrap();
    assert_eq!((row.len(), row[99], row.as_ptr().addr() % 64), (100, 1.0, 0));
    let error = dict.get::<f64, _>("n").unwrap_err();
    assert!(error.to_string().contains("is a u64, not a f64"), "{error}");
    assert_eq!(dict.type_of("row").unwrap().as_deref(), Some("Vec<f64>"));
    assert!(matches!(dict.pop::<i8, _>("n"), Err(Error::ValueType { .. })));
    assert_eq!(dict.pop::<u64, _>("n").unwrap(), Some(5));
    assert!(!dict.put_if_absent("p", &1_u8).unwrap());
    assert_eq!(dict.len().unwrap(), 2);
}

#[test]
fn attach_compares_types() {
    let dict = dict::<String, u64>();
    let descriptor = dict.descriptor();
    assert!(descriptor.attach::<String, u64>().is_ok());
    let error = descriptor.attach::<String, i64>().unwrap_err();
    assert!(matches!(error, Error::Types { .. }));
    assert!(error.to_string().contains("String to u64, not String to i64"), "{error}");
    assert!(matches!(descriptor.attach::<u64, u64>(), Err(Error::Types { .. })));
    assert!(matches!(descriptor.attach::<String, Any>(), Err(Error::Types { .. })));
}

#[test]
fn descriptors_are_text_and_data() {
    let dict = dict::<(u32, String), BTreeMap<String, Particle>>();
    dict.checkpoint().unwrap();
    let descriptor = dict.descriptor();
    let text = descriptor.to_string();
    assert!(text.starts_with("ddict:1:") && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    assert_eq!(text.parse::<Descriptor>().unwrap(), descriptor);
    let bytes = postcard::to_stdvec(&descriptor).unwrap();
    assert_eq!(postcard::from_bytes::<Descriptor>(&bytes).unwrap(), descriptor);
    let attached = descriptor.attach::<(u32, String), BTreeMap<String, Particle>>().unwrap();
    assert_eq!((attached.uid(), attached.checkpoint_id()), (dict.uid(), 1));
    for end in 0..text.len() - 1 {
        let cut = text[..end].parse::<Descriptor>();
        assert!(cut.as_ref().map_or(true, |it| *it != descriptor), "{}", &text[..end]);
    }
    for wrong in ["", "ddict:", "ddict:2:x", "ddict:1:a:b", "queue:1:x", "ddict:1:a%:1:1:u:u:h:0"] {
        let error = wrong.parse::<Descriptor>().unwrap_err();
        assert!(matches!(error, Error::Descriptor { .. }), "{wrong}: {error}");
    }
}

#[test]
fn a_descriptor_of_another_machine_is_refused() {
    let dict = dict::<u32, u32>();
    let text = dict.descriptor().to_string();
    let mut parts: Vec<&str> = text.split(':').collect();
    let host = parts.len() - 2;
    parts[host] = "elsewhere";
    let error = parts.join(":").parse::<Descriptor>().unwrap().attach::<u32, u32>().unwrap_err();
    assert!(matches!(error, Error::Host { .. }), "{error}");
}

#[test]
fn a_destroyed_dictionary_is_gone_for_all() {
    let dict = dict::<u32, Vec<u8>>();
    let other = dict.descriptor().attach::<u32, Vec<u8>>().unwrap();
    dict.put(&1, vec![5; 100]).unwrap();
    let held = other.get_ref(&1).unwrap().unwrap();
    dict.destroy();
    dict.destroy();
    assert_eq!(*held, [5; 100]);
    let is_gone = |error: Error| matches!(error, Error::Gone { .. });
    assert!(is_gone(other.get(&1).unwrap_err()));
    assert!(is_gone(other.put(&1, vec![]).unwrap_err()));
    assert!(is_gone(dict.len().unwrap_err()));
    assert!(is_gone(dict.keys().next().unwrap().unwrap_err()));
    assert!(is_gone(dict.descriptor().attach::<u32, Vec<u8>>().unwrap_err()));
}

#[test]
fn the_last_handle_removes_the_segment() {
    let dict = dict::<u32, u32>();
    let descriptor = dict.descriptor();
    let path = std::path::Path::new("/dev/shm").join(dict.name());
    assert!(path.exists());
    let clone = dict.clone();
    drop(dict);
    assert!(path.exists());
    drop(clone);
    assert!(!path.exists());
    assert!(matches!(descriptor.attach::<u32, u32>(), Err(Error::Gone { .. })));
}

#[test]
fn wrong_settings_are_named() {
    let check = |result: Result<DDict<u8, u8>, Error>, part: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    };
    check(DDict::builder().memory(0).create(), "memory(0)");
    check(DDict::builder().memory(u64::MAX).create(), "memory(");
    check(DDict::builder().memory(MEMORY).shards_per_node(0).create(), "shards_per_node(0)");
    check(DDict::builder().memory(MEMORY).working_set(0).create(), "working_set(0)");
    assert!(DDict::<u8, u8>::builder().timeout(Duration::MAX).create().is_ok());
}

#[test]
fn a_key_of_a_gibibyte_is_refused() {
    let texts = dict::<String, u8>();
    let key = "x".repeat(1 << 30);
    let error = texts.put(&key, 1).unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { bytes, .. } if bytes == 1 << 30), "{error}");
    drop(key);
    let lists = dict::<Vec<u64>, u8>();
    let key = vec![0_u64; 1 << 20];
    assert!(matches!(lists.get(&key), Err(Error::KeyTooLong { bytes, .. }) if bytes == 8 << 20));
    let longest = "y".repeat(65_000);
    texts.put(&longest, 2).unwrap();
    assert_eq!(texts.get(&longest).unwrap(), Some(2));
    assert_eq!(texts.keys().next().unwrap().unwrap(), longest);
}

#[test]
fn a_value_larger_than_the_memory_is_refused() {
    let dict = DDict::<u8, Vec<u8>>::builder().memory(1 << 20).create().unwrap();
    dict.put(&1, vec![1; 1000]).unwrap();
    let error = dict.put(&1, vec![0; 2 << 20]).unwrap_err();
    assert!(matches!(error, Error::Memory(_)), "{error}");
    assert!(error.to_string().contains(|c: char| c.is_ascii_digit()), "{error}");
    assert!(matches!(dict.put_with(&1, usize::MAX, |_| ()), Err(Error::Memory(_))));
    assert_eq!(dict.get(&1).unwrap(), Some(vec![1; 1000]), "nothing was written");
}

#[test]
fn memory_full_while_many_put_harms_nothing() {
    let dict = DDict::<(u8, u32), Vec<u8>>::builder().memory(4 << 20).create().unwrap();
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (dict, refused) = (&dict, &refused);
            scope.spawn(move || {
                for i in 0..200 {
                    match dict.put(&(thread, i), vec![i as u8; 20_000]) {
                        Ok(()) => {}
                        Err(Error::Memory(_)) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            dict.remove(&(thread, i / 2)).unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert!(refused.into_inner() > 0);
    for item in dict.items() {
        let ((_, i), value) = item.unwrap();
        assert_eq!(value, vec![i as u8; 20_000]);
    }
    dict.clear().unwrap();
    dict.put(&(0, 0), vec![1; 20_000]).unwrap();
}
