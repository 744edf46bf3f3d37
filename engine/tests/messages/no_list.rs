//! Not tasks.
use tarragon_engine::Batch;

fn main() {
    let batch = Batch::new().unwrap();
    let _ = batch.compile(&[1, 2, 3]);
    let task = batch.function(|| 1u8, ());
    let _ = batch.compile(vec![task.result()]);
}
