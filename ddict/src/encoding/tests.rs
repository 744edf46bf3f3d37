//! Keys: one encoding for equal keys, ordered as they are, read back as written. Values: read back as written.

use super::{decode, encode, read_key, show, with_key};
use crate::error::Error;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

fn bytes_of<Q: Serialize + ?Sized>(key: &Q) -> Vec<u8> {
    with_key(key, <[u8]>::to_vec).unwrap()
}

fn check_key<K: super::Key + PartialEq + Debug>(key: K) {
    let bytes = bytes_of(&key);
    assert_eq!(read_key::<K>(&bytes).as_ref(), Ok(&key), "{bytes:?}");
}

fn check_order<K: super::Key + Ord + Debug + Clone>(left: K, right: K) {
    assert_eq!(bytes_of(&left).cmp(&bytes_of(&right)), left.cmp(&right), "{left:?} {right:?}");
    check_key(left.clone());
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
enum Shape {
    Nothing,
    One(i32),
    Two(String, Vec<u8>),
    Named { left: Option<u16>, right: (i64, bool) },
}

fn shape() -> impl Strategy<Value = Shape> + Clone {
    prop_oneof![
        Just(Shape::Nothing),
        any::<i32>().prop_map(Shape::One),
        (text(), prop::collection::vec(0..3_u8, 0..4)).prop_map(|(a, b)| Shape::Two(a, b)),
        any::<(Option<u16>, i64, bool)>().prop_map(|(left, a, b)| Shape::Named { left, right: (a, b) }),
    ]
}

/// Texts that are often prefixes of one another, and have zeros.
fn text() -> impl Strategy<Value = String> + Clone {
    "[\u{0}\u{1}ab\u{ff}]{0,4}"
}

proptest! {
    #[test]
    fn keys_are_ordered_and_read_back(
        shapes in any_pair(shape()),
        texts in any_pair(text()),
        pairs in any_pair((text(), any::<i8>())),
        lists in any_pair(prop::collection::vec(text(), 0..3)),
        deep in any_pair(prop::collection::vec(prop::collection::vec(any::<Option<i16>>(), 0..3), 0..3)),
        numbers in any::<((u64, u64), (i64, i64), (u128, u128), (i128, i128), (char, char), (bool, bool))>(),
    ) {
        check_order(shapes.0, shapes.1);
        check_order(texts.0, texts.1);
        check_order(pairs.0, pairs.1);
        check_order(lists.0, lists.1);
        check_order(deep.0, deep.1);
        let (a, b, c, d, e, f) = numbers;
        check_order(a.0, a.1);
        check_order(b.0, b.1);
        check_order(c.0, c.1);
        check_order(d.0, d.1);
        check_order(e.0, e.1);
        check_order(f.0, f.1);
    }

    #[test]
    fn floats_are_ordered(left: f64, right: f64) {
        prop_assert_eq!(bytes_of(&left).cmp(&bytes_of(&right)), left.total_cmp(&right));
        check_key(left);
    }

    #[test]
    fn damaged_keys_never_panic(bytes: Vec<u8>) {
        let _ = read_key::<(String, Vec<Shape>, BTreeMap<u8, f32>)>(&bytes);
        let _ = read_key::<Vec<()>>(&bytes);
    }

    #[test]
    fn values_are_read_back(
        a: Vec<f64>, b: String, c: Vec<u8>, d: (u32, Option<String>), e: u128, f: i8, g: bool, h: Vec<String>,
    ) {
        check_value(&a);
        check_value(&b);
        check_value(&c);
        check_value(&d);
        check_value(&e);
        check_value(&f);
        check_value(&g);
        check_value(&h);
    }
}

fn any_pair<S: Strategy + Clone>(of: S) -> impl Strategy<Value = (S::Value, S::Value)>
where
    S::Value: Clone,
{
    (of.clone(), of).prop_flat_map(|(a, b)| prop_oneof![Just((a.clone(), b)), Just((a.clone(), a))])
}

fn check_value<V: super::Value + Debug>(value: &V) {
    let bytes = encode(value, |pieces| pieces.to_vec()).unwrap();
    let back = decode::<V>(&bytes).unwrap();
    assert_eq!(encode(&back, |pieces| pieces.to_vec()).unwrap(), bytes, "{value:?} {back:?}");
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
}

#[test]
fn borrowed_forms_have_the_bytes_of_the_key() {
    assert_eq!(bytes_of("abc"), b"abc");
    assert_eq!(bytes_of("abc"), bytes_of(&"abc".to_owned()));
    assert_eq!(bytes_of(&[1_u8, 0, 2][..]), bytes_of(&vec![1_u8, 0, 2]));
    assert_eq!(bytes_of(&[1_u8, 0, 2]), [1, 0, 2]);
    assert_eq!(bytes_of(std::path::Path::new("a/b")), bytes_of(&std::path::PathBuf::from("a/b")));
}

#[test]
fn bytes_of_keys_stay_as_they_are() {
    // Persisted dictionaries hold these: whoever changes them raises the version of the encoding.
    assert_eq!(bytes_of(&0x0102_u16), [1, 2]);
    assert_eq!(bytes_of(&-1_i16), [0x7f, 0xff]);
    assert_eq!(bytes_of(&1.0_f32), [0xbf, 0x80, 0, 0]);
    assert_eq!(bytes_of(&("a\0", 1_u8)), [b'a', 0, 255, 0, 1, 1]);
    assert_eq!(bytes_of(&(vec![7_u8], Some(true))), [1, 7, 0, 1, 1]);
    assert_eq!(bytes_of(&Shape::One(0)), [0, 1, 0x80, 0, 0, 0]);
}

#[test]
fn random_order_of_a_map_does_not_matter() {
    let one: HashMap<u32, String> = (0..100).map(|i| (i, i.to_string())).collect();
    let other: HashMap<u32, String> = (0..100).rev().map(|i| (i, i.to_string())).collect();
    assert_eq!(bytes_of(&one), bytes_of(&other));
    check_key(one);
}

#[test]
fn keys_without_an_encoding_are_errors() {
    assert!(matches!(with_key(&vec![(), ()], |_| ()), Err(Error::Encode { .. })));
    let long = vec![1_u64; 10_000];
    assert!(matches!(with_key(&long, |_| ()), Err(Error::KeyTooLong { bytes: 80_000, .. })));
}

#[test]
fn long_keys_go_through_the_heap_unharmed() {
    for length in [7, 8, 9, 63, 64, 65, 1000] {
        let key: Vec<u8> = (0..length).map(|i| i as u8).collect();
        assert_eq!(bytes_of(&key), key);
        check_key((key.clone(), 5_u8, "x".repeat(length)));
    }
}

#[test]
fn values_of_another_length_are_errors() {
    assert!(decode::<u32>(&[0; 5]).is_err());
    assert!(decode::<Vec<f64>>(&[0; 9]).is_err());
    assert!(decode::<String>(&[0xff]).is_err());
    assert!(decode::<(u8, u8)>(&[1, 2, 3]).is_err());
    assert_eq!(decode::<Vec<f64>>(&[]).unwrap(), Vec::<f64>::new());
}

#[test]
fn keys_are_shown_as_text_or_digits() {
    assert_eq!(show(b"abc"), "`abc`");
    assert_eq!(show(&[0, 255]), "0x00ff");
    assert!(show(&[b'a'; 1000]).chars().count() < 60);
    assert!(show("ä".repeat(100).as_bytes()).starts_with("`ä"));
}
