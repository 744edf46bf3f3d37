//! A result that cannot travel.
use tarragon_engine::Batch;

struct Opaque;

fn make() -> Opaque {
    Opaque
}

fn take(_: Opaque) {}

fn main() {
    let batch = Batch::new().unwrap();
    let _ = batch.function(make, ());
    let _ = batch.function(take, (Opaque,));
}
