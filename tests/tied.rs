//! Dictionaries and queues tied to a batch: reads come after the submitted tasks that write.

use std::time::Duration;
use tarragon::prelude::*;
use tarragon::{Error, TiedError};

fn square(dict: DictDescriptor, i: u64) -> Result<(), DictError> {
    let dict = dict.attach::<u64, u64>()?;
    std::thread::sleep(Duration::from_micros(100));
    let value = dict.get(&i)?.expect("the task before wrote it");
    dict.put(&(i + 1), value.wrapping_mul(3))
}

#[test]
fn a_read_runs_the_queued_tasks_that_write_the_key() {
    let batch = Batch::new().expect("a batch");
    let dict = batch.ddict::<u64, u64>().expect("a dictionary");
    dict.put(&0, 1).expect("a put");
    for i in 0..200 {
        let task = batch.function(square, (dict.descriptor(), i));
        let task = task.reads(dict.key(&i).expect("a key")).writes(dict.key(&(i + 1)).expect("a key"));
        batch.submit(&task).expect("it is queued");
    }
    // The plain handle does not know of the tasks, the tied one waits for them.
    assert_eq!(dict.get(&200).expect("they succeed"), Some((0..200).fold(1u64, |v, _| v.wrapping_mul(3))));
    assert_eq!(dict.get(&1000).expect("nobody writes it"), None);
    let all = dict.multi_get(&[0, 1, 2]).expect("they are there");
    assert_eq!(all, [Some(1), Some(3), Some(9)]);
}

#[test]
fn tasks_of_one_key_keep_program_order_and_other_dictionaries_are_other_data() {
    let batch = Batch::new().expect("a batch");
    let (one, other) = (batch.ddict::<u64, u64>().expect("one"), batch.ddict::<u64, u64>().expect("another"));
    fn write(dict: DictDescriptor, value: u64) -> Result<(), DictError> {
        dict.attach::<u64, u64>()?.put(&7, value)
    }
    for value in 0..300 {
        for dict in [&one, &other] {
            let task = batch.function(write, (dict.descriptor(), value));
            batch.submit(task.writes(dict.key(&7).expect("a key"))).expect("it is queued");
        }
    }
    assert_eq!(one.get(&7).expect("they succeed"), Some(299));
    assert_eq!(other.get(&7).expect("they succeed"), Some(299));
}

#[test]
fn a_reader_is_told_that_the_writer_failed() {
    let batch = Batch::new().expect("a batch");
    let dict = batch.ddict::<String, f64>().expect("a dictionary");
    fn fails() -> Result<(), std::io::Error> {
        Err(std::io::Error::other("no data"))
    }
    let task = batch.function(fails, ()).writes(dict.key("x").expect("a key"));
    batch.submit(&task).expect("it is queued");
    let error = dict.get("x").expect_err("its writer failed");
    assert!(matches!(&error, TiedError::Batch(Error::Task(_))), "{error}");
    assert!(error.to_string().contains("no data"), "{error}");
    assert_eq!(dict.get("y").expect("nobody writes it"), None);
}

#[test]
fn a_get_starts_the_queued_tasks_that_put() {
    let batch = Batch::new().expect("a batch");
    let queue = batch.queue::<u64>().expect("a queue");
    fn put(queue: QueueDescriptor, item: u64) -> Result<(), QueueError> {
        queue.attach::<u64>()?.put(item)
    }
    for item in 0..50 {
        let task = batch.function(put, (queue.descriptor(), item)).writes(queue.place());
        batch.submit(&task).expect("it is queued");
    }
    let items: Vec<u64> = (0..50).map(|_| queue.get().expect("an item")).collect();
    // Each task may run on another thread, and a queue keeps the order of each producer: so only the items are sure.
    let mut sorted = items.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<_>>());
}

#[test]
fn attaching_in_every_task_leaks_nothing() {
    let batch = Batch::new().expect("a batch");
    let dict = batch.ddict::<u64, Vec<u8>>().expect("a dictionary");
    fn put(dict: DictDescriptor, i: u64) -> Result<(), DictError> {
        dict.attach::<u64, Vec<u8>>()?.put(&(i % 10), vec![i as u8; 5000])
    }
    let list: Vec<_> = (0..5000).map(|i| batch.function(put, (dict.descriptor(), i))).collect();
    batch.compile(&list).expect("no mistakes").run().expect("they succeed");
    let stats = dict.stats().expect("figures");
    assert_eq!(dict.len().expect("a length"), 10, "{stats:?}");
}
