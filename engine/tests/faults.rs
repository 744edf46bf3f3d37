//! Faults with real processes: trees that do not want to end, output without end, full disks, and the death of the
//! supervisor or the engine itself. What tests share is in `rig`; long forms run when `TARRAGON_TEST_LONG` is set.

mod faults {
    mod crowd;
    mod death;
    mod output;
    mod rig;
    mod trees;
}
