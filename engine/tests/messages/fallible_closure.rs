//! A closure that returns a `Result`, where it could pass for a value.
use tarragon_engine::Batch;

fn main() {
    let batch = Batch::new().unwrap();
    let path = "x".to_string();
    let _ = batch.closure(move || std::fs::read(&path));
}
