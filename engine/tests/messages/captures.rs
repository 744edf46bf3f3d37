//! A closure that captures, where a function is asked for.
use tarragon_engine::Batch;

fn main() {
    let batch = Batch::new().unwrap();
    let n = 3u64;
    let _ = batch.function(move |x: u64| x + n, (1u64,));
}
