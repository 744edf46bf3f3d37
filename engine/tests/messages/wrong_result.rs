//! The handle of a number for a text.
use tarragon_engine::Batch;

fn count() -> usize {
    3
}

fn shout(text: String) -> String {
    text.to_uppercase()
}

fn main() {
    let batch = Batch::new().unwrap();
    let three = batch.function(count, ());
    let _ = batch.function(shout, (three.result(),));
}
