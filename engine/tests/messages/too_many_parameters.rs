//! Thirteen parameters.
use tarragon_engine::Batch;

#[rustfmt::skip]
fn many(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}

fn main() {
    let batch = Batch::new().unwrap();
    let _ = batch.function(many, (0u8, 0u8, 0u8, 0u8, 0u8, 0u8, 0u8, 0u8, 0u8, 0u8, 0u8, 0u8, 0u8));
}
