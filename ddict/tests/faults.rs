//! `kill -9`, full memory, flipped bits and wrong worlds: nothing committed is lost, nothing leaks, nobody is blocked.
//!
//! `TARRAGON_TEST_LONG=1` runs the long form. Each test prints its counts.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]
#![expect(clippy::print_stdout, reason = "each test prints its counts")]

mod faults {
    mod bed;
    mod contents;
    mod process;

    mod kills;
    mod single;

    mod storm;

    mod full;

    mod flips;

    mod worlds;

    mod cycles;
}
