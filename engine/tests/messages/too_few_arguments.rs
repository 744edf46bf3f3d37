//! One argument for two parameters.
use tarragon_engine::Batch;

fn repeat(n: usize, text: String) -> String {
    text.repeat(n)
}

fn main() {
    let batch = Batch::new().unwrap();
    let _ = batch.function(repeat, (3usize,));
}
