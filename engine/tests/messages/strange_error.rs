//! An error that is none.
use tarragon_engine::Batch;

struct Opaque;

fn fails() -> Result<u64, Opaque> {
    Err(Opaque)
}

fn main() {
    let batch = Batch::new().unwrap();
    let _ = batch.function(fails, ());
}
