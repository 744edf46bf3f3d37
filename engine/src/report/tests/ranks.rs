//! What is shown of a run on several ranks.

use super::super::html::html;
use super::super::record::RunRecord;
use super::super::table::table;
use super::{check_table, events, of_phase, small};
use expect_test::expect;
use serde_json::Value;

/// A small run on two ranks, with two lanes more on the second.
fn of_ranks() -> RunRecord {
    let mut run = small();
    run.lanes = ["rank 0, worker 0", "rank 1, worker 0", "rank 1, worker 1"].map(str::to_owned).to_vec();
    (run.rank_ends, run.within_ns) = (vec![1, 3], 12_300);
    run
}

#[test]
fn trace_has_a_process_for_each_rank() {
    let events = events(&of_ranks());
    let named = |name: &str| -> Vec<(u64, u64, String)> {
        let some = events.iter().filter(|event| event["name"] == name);
        let number = |value: &Value| value.as_u64().unwrap();
        some.map(|event| {
            let name = event["args"]["name"].as_str().unwrap().to_owned();
            (number(&event["pid"]), number(&event["tid"]), name)
        })
        .collect()
    };
    assert_eq!(named("process_name"), [(1, 0, "sweep".to_owned()), (2, 0, "sweep, rank 1".to_owned())]);
    let lanes = [(1, 0, 0, "worker 0"), (2, 1, 1, "worker 0"), (2, 2, 1, "worker 1")];
    let lanes = lanes.map(|(pid, tid, rank, lane)| (pid, tid, format!("rank {rank}, {lane}")));
    assert_eq!(named("thread_name"), lanes);
    let ranks: Vec<_> = of_phase(&events, "X").iter().map(|slice| slice["args"]["rank"].as_u64()).collect();
    assert_eq!(ranks, [Some(0), Some(1), Some(0), Some(1)]);
    let ends: Vec<_> = of_phase(&events, "f").iter().map(|event| event["pid"].as_u64()).collect();
    assert_eq!(ends, [Some(2), Some(1), Some(2), Some(2), Some(2)]);
}

#[test]
fn table_and_page_say_what_each_rank_did() {
    check_table(
        &of_ranks(),
        80,
        &expect![[r#"
        run            sweep, 2026-11-20 16:36:27 UTC
        machine        node 7, 2 CPUs
        ranks          2, clocks known to 12.3 µs
        tasks          7: 3 done, 1 failed, 1 skipped, 1 cancelled, 1 reused
        wall time      60.0 ms on 3 lanes
        T1 (work)      61.0 ms
        critical path  51.0 ms over 3 tasks
        speed-up       1.02 of at most 1.20 (85 %)

        most time       count        mean         max       total
        solve               2     25.0 ms     40.0 ms     50.0 ms
        prepare             1     10.0 ms     10.0 ms     10.0 ms
        plot                1     1.00 ms     1.00 ms     1.00 ms

        rank            tasks       lanes        busy       total
        0                   2           1        33 %     20.0 ms
        1                   2           2        34 %     41.0 ms

        failed
        #3 plot on rank 1, 3 attempts: exit code 1: no such file
    "#]],
    );
    let page = html(&of_ranks());
    assert!(page.contains("<h2>Ranks, 2 of 2, clocks known to 12.3 µs</h2>"));
    assert!(page.contains("<td data-value=\"341\">34 %</td>"));
    assert!(page.contains(">rank 1, worker 0<"));
    let mut run = of_ranks();
    run.rank_ends.extend([3; 100]);
    run.within_ns = 0;
    let table = table(&run, 80);
    assert!(
        table.contains("ranks          102, by one clock") && table.contains("\nand 86 more\n"),
        "{table}"
    );
}
