//! A `Result` that could be a value, too.
use tarragon_engine::Batch;

fn fails() -> Result<u64, String> {
    Err("no".to_string())
}

fn main() {
    let batch = Batch::new().unwrap();
    let _ = batch.function(fails, ());
}
