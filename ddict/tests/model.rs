//! A dictionary with checkpoints against the plainest one that can be: random operations must give the same.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use tarragon_ddict::{DDict, Error, Exchange};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    PutIfAbsent(u8, u16),
    Exchange(u8, Option<u16>, Option<u16>),
    Update(u8),
    Remove(u8),
    Pop(u8),
    Get(u8),
    Clear,
    Checkpoint,
    Rollback,
    Newest,
    Walk,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..12_u8;
    // Values of 0 to 300 bytes, from few, so that comparing them is often true.
    let value = || (0..6_u16).prop_map(|it| it * it * 12);
    prop_oneof![
        4 => (key(), value()).prop_map(|(k, v)| Step::Put(k, v)),
        1 => (key(), value()).prop_map(|(k, v)| Step::PutIfAbsent(k, v)),
        1 => (key(), prop::option::of(value()), prop::option::of(value()))
            .prop_map(|(k, a, b)| Step::Exchange(k, a, b)),
        1 => key().prop_map(Step::Update),
        2 => key().prop_map(Step::Remove),
        1 => key().prop_map(Step::Pop),
        3 => key().prop_map(Step::Get),
        1 => Just(Step::Clear),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Rollback),
        1 => Just(Step::Newest),
        1 => Just(Step::Walk),
    ]
}

type Bytes = Vec<u8>;

fn bytes(len: u16) -> Bytes {
    (0..len).map(|i| (i ^ len) as u8).collect()
}

/// Every version of every key; a checkpoint sees the newest that is not newer than itself.
struct Model {
    versions: BTreeMap<(u8, u32), Option<Bytes>>,
    newest: u32,
    kept: u32,
    at: u32,
}

impl Model {
    fn oldest(&self) -> u32 {
        (self.newest + 1).saturating_sub(self.kept)
    }

    fn read(&self) -> Result<(), ()> {
        if self.at < self.oldest() { Err(()) } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), ()> {
        self.read()?;
        self.newest = self.newest.max(self.at);
        Ok(())
    }

    fn get(&self, key: u8) -> Option<Bytes> {
        self.versions.range((key, 0)..=(key, self.at)).next_back().and_then(|(_, value)| value.clone())
    }

    /// Taking out what is not there leaves no trace.
    fn set(&mut self, key: u8, value: Option<Bytes>) {
        if value.is_none() && self.get(key).is_none() {
            return;
        }
        self.versions.insert((key, self.at), value);
    }

    fn items(&self) -> BTreeMap<u8, Bytes> {
        (0..12).filter_map(|key| Some((key, self.get(key)?))).collect()
    }
}

/// The outcome as text, so that all kinds compare; a retired checkpoint is one and the same error everywhere.
fn shown<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(Error::Retired { .. }) => "retired".to_owned(),
        Err(error) => panic!("{error}"),
    }
}

fn real(dict: &DDict<u8, Bytes>, step: &Step) -> String {
    match step {
        Step::Put(key, value) => shown(dict.put(key, bytes(*value))),
        Step::PutIfAbsent(key, value) => shown(dict.put_if_absent(key, bytes(*value))),
        Step::Exchange(key, current, new) => {
            shown(dict.compare_exchange(key, current.map(bytes).as_ref(), new.map(bytes).as_ref()))
        }
        Step::Update(key) => shown(dict.update(key, next)),
        Step::Remove(key) => shown(dict.remove(key)),
        Step::Pop(key) => shown(dict.pop(key)),
        Step::Get(key) => {
            let got = dict.get(key);
            if let Ok(value) = &got {
                assert_eq!(dict.contains(key).unwrap(), value.is_some());
                assert_eq!(dict.get_ref(key).unwrap().map(|it| it.to_vec()), *value);
                assert_eq!(dict.get_verified(key).unwrap(), *value);
            }
            shown(got)
        }
        Step::Clear => shown(dict.clear()),
        Step::Checkpoint => shown(dict.checkpoint()),
        Step::Rollback => match dict.rollback() {
            Err(Error::Checkpoint { .. }) => "none".to_owned(),
            other => shown(other),
        },
        Step::Newest => shown(dict.sync_to_newest()),
        Step::Walk => {
            let items = dict.items().collect::<Result<BTreeMap<_, _>, _>>();
            if let Ok(items) = &items {
                assert_eq!(dict.len().unwrap(), items.len() as u64);
                let mut keys: Vec<u8> = dict.keys().map(Result::unwrap).collect();
                keys.sort_unstable();
                assert_eq!(keys, items.keys().copied().collect::<Vec<_>>());
            }
            shown(items)
        }
    }
}

/// Grows a value, removes it when it is long.
fn next(value: Option<Bytes>) -> Option<Bytes> {
    match value {
        None => Some(bytes(12)),
        Some(value) if value.len() > 100 => None,
        Some(mut value) => {
            value.push(1);
            Some(value)
        }
    }
}

fn modelled(model: &mut Model, step: &Step) -> Result<String, ()> {
    match step {
        Step::Get(key) => model.read().map(|()| format!("{:?}", model.get(*key))),
        Step::Walk => model.read().map(|()| format!("{:?}", model.items())),
        Step::Checkpoint => {
            model.at += 1;
            Ok(model.at.to_string())
        }
        Step::Rollback if model.at == 0 => Ok("none".to_owned()),
        Step::Rollback if model.at - 1 < model.oldest() => Err(()),
        Step::Rollback => {
            model.at -= 1;
            Ok(model.at.to_string())
        }
        Step::Newest => {
            model.at = model.newest;
            Ok(model.at.to_string())
        }
        writes => model.write().map(|()| written(model, writes)),
    }
}

fn written(model: &mut Model, step: &Step) -> String {
    match step {
        Step::Put(key, value) => {
            model.set(*key, Some(bytes(*value)));
            "()".to_owned()
        }
        Step::PutIfAbsent(key, value) => {
            let is_absent = model.get(*key).is_none();
            if is_absent {
                model.set(*key, Some(bytes(*value)));
            }
            is_absent.to_string()
        }
        Step::Exchange(key, current, new) => {
            let found = model.get(*key);
            if found != current.map(bytes) {
                return format!("{:?}", Exchange::Other(found));
            }
            model.set(*key, new.map(bytes));
            format!("{:?}", Exchange::<Bytes>::Done)
        }
        Step::Update(key) => {
            let value = next(model.get(*key));
            model.set(*key, value);
            "()".to_owned()
        }
        Step::Remove(key) => {
            let was_there = model.get(*key).is_some();
            model.set(*key, None);
            was_there.to_string()
        }
        Step::Pop(key) => {
            let value = model.get(*key);
            model.set(*key, None);
            format!("{value:?}")
        }
        _ => {
            model.items().into_keys().for_each(|key| model.set(key, None));
            "()".to_owned()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_steps_give_what_the_model_gives(
        steps in prop::collection::vec(step(), 1..120),
        kept in 1..4_u32,
        shards in 1..3_u32,
    ) {
        let dict = DDict::<u8, Bytes>::builder()
            .memory(8 << 20)
            .working_set(kept)
            .shards_per_node(shards)
            .create()
            .unwrap();
        let mut model = Model { versions: BTreeMap::new(), newest: 0, kept, at: 0 };
        for (index, step) in steps.iter().enumerate() {
            let wanted = modelled(&mut model, step).unwrap_or_else(|()| "retired".to_owned());
            prop_assert_eq!(real(&dict, step), wanted, "step {}: {:?}", index, step);
            prop_assert_eq!(dict.checkpoint_id(), model.at);
        }
    }
}
