//! How many edges large lists have: linear in the accesses, whatever the shape. Counted, not timed.

use super::*;

/// Edges of the list that `line` makes of each index.
fn edges(tasks: usize, line: impl Fn(usize) -> (String, bool)) -> usize {
    let step = |i| {
        let (datum, writes) = line(i);
        Step { touches: vec![Touch { datum, writes }], cost: 1.0, ..Step::default() }
    };
    compiled(&(0..tasks).map(step).collect::<Vec<_>>(), &mut Frontier::default()).edges()
}

const SIZES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];

#[test]
fn readers_between_two_writes_cost_two_edges_each() {
    for k in SIZES {
        let found = edges(k + 2, |i| ("x".to_string(), i == 0 || i == k + 1));
        assert_eq!(found, 2 * k, "{k} readers");
    }
}

#[test]
fn a_chain_costs_one_edge_per_task() {
    for k in SIZES {
        assert_eq!(edges(k, |_| ("x".to_string(), true)), k - 1, "{k} writers");
    }
}

#[test]
fn tasks_without_common_data_cost_nothing() {
    for k in SIZES {
        assert_eq!(edges(k, |i| (format!("rows[{i}]"), true)), 0, "{k} tasks");
    }
}

#[test]
fn readers_of_a_directory_and_writers_below_it_cost_their_sum() {
    for k in SIZES {
        let found = edges(2 * k, |i| if i < k { ("/d".into(), false) } else { (format!("/d/{i}"), true) });
        assert!(found <= (2 * k).max(9), "{found} edges of {k} readers and {k} writers");
    }
}

#[test]
fn writers_below_a_directory_and_its_readers_cost_their_sum() {
    for k in SIZES {
        let found = edges(2 * k, |i| if i < k { (format!("/d/{i}"), true) } else { ("/d".into(), false) });
        assert!(found <= (2 * k).max(9), "{found} edges of {k} writers and {k} readers");
    }
}

#[test]
fn writers_below_and_readers_of_a_directory_in_turn_cost_a_few_edges_each() {
    for k in SIZES {
        let turn = |i: usize| {
            if i.is_multiple_of(2) { (format!("/d/{}", i % 64), true) } else { ("/d".to_string(), false) }
        };
        let found = edges(2 * k, turn);
        assert!(found <= 2 * k * 6, "{found} edges of {k} writers and {k} readers in turn");
    }
}

#[test]
fn directories_written_in_turn_with_files_cost_a_few_edges_each() {
    for k in SIZES {
        let turn = |i: usize| {
            let datum = if i.is_multiple_of(10) { "/d".to_string() } else { format!("/d/{}", i % 7) };
            (datum, !i.is_multiple_of(3))
        };
        let found = edges(k, turn);
        assert!(found <= k * 6, "{found} edges of {k} tasks");
    }
}
