//! A number is no datum by itself.
use tarragon_engine::Batch;

fn main() {
    let batch = Batch::new().unwrap();
    let _ = batch.function(|| 1u8, ()).reads(7);
}
