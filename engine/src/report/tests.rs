//! Tests of trace, table and page: what they say of small runs, hostile text, and how they grow.

mod ranks;

use super::figures::Figures;
use super::graph::picture;
use super::html::{self, html};
use super::layout::svg;
use super::plain::{bytes, cut, duration, moment, one_line};
use super::record::{Ending, Kind, RunRecord, TaskRecord};
use super::table::table;
use super::timeline::SHOWN_MAX;
use super::trace;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::Value;
use std::io::{self, Write};

const HOSTILE: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "quotes \" ' \\ and & &amp; <b onclick=x>",
    "controls \0 \u{1b}[2J \r\n\t \u{7f} \u{9b}",
    "lines \u{2028} \u{2029} turned \u{202e} round",
    "]]}',{`${x}`",
];

fn task(name: &str, lane: u32, start_ns: u64, end_ns: u64) -> TaskRecord {
    TaskRecord {
        name: name.to_owned(),
        kind: Kind::Function,
        ending: Ending::Done,
        lane,
        start_ns,
        end_ns,
        attempts: 1,
        detail: String::new(),
        cpu_ns: 0,
        max_rss_bytes: 0,
    }
}

/// A run with every ending, on two lanes.
fn small() -> RunRecord {
    const MS: u64 = 1_000_000;
    let process = |task: TaskRecord| TaskRecord {
        kind: Kind::Process,
        detail: "./solve --grid 17\nsecond line".to_owned(),
        cpu_ns: 30 * MS,
        max_rss_bytes: 3 << 20,
        ..task
    };
    let ended = |name: &str, ending| TaskRecord { ending, ..task(name, 0, 0, 0) };
    let failed = TaskRecord {
        ending: Ending::Failed,
        attempts: 3,
        detail: "\n exit code 1: no such file\nand more".to_owned(),
        ..task("plot", 1, 50 * MS, 51 * MS)
    };
    RunRecord {
        name: "sweep".to_owned(),
        started_unix_ms: 1_795_192_587_000,
        wall_ns: 60 * MS,
        lanes: vec!["worker 0".to_owned(), "process slot 0".to_owned()],
        rank_ends: Vec::new(),
        within_ns: 0,
        tasks: vec![
            task("prepare", 0, 0, 10 * MS),
            process(task("solve", 1, 10 * MS, 50 * MS)),
            task("solve", 0, 10 * MS, 20 * MS),
            failed,
            ended("publish", Ending::Skipped),
            ended("clean", Ending::Cancelled),
            ended("fetch", Ending::Reused),
        ],
        edges: vec![(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 4)],
        machine: "node 7, 2 CPUs".to_owned(),
    }
}

/// A run of `count` tasks in chains of ten, with `names` names.
fn large(count: u32, names: u32) -> RunRecord {
    let tasks = (0..count).map(|i| {
        let start = 1_000_000 + u64::from(i / 8) * 1000;
        task(&format!("stage {}", i % names), i % 8, start, start + 900)
    });
    RunRecord {
        name: "large".to_owned(),
        wall_ns: u64::from(count) * 125 + 1_000_900,
        lanes: (0..8).map(|lane| format!("worker {lane}")).collect(),
        tasks: tasks.collect(),
        edges: (1..count).filter(|i| i % 10 != 0).map(|i| (i - 1, i)).collect(),
        ..RunRecord::default()
    }
}

/// A run in which every text is hostile.
fn hostile() -> RunRecord {
    let mut run = small();
    run.name = HOSTILE.concat();
    run.machine = HOSTILE.concat();
    run.lanes = HOSTILE.iter().take(2).map(|text| (*text).to_owned()).collect();
    for (task, text) in run.tasks.iter_mut().zip(HOSTILE.iter().cycle()) {
        task.name = (*text).to_owned();
        task.detail = HOSTILE.concat();
    }
    run
}

fn trace_text(run: &RunRecord) -> String {
    let mut out = Vec::new();
    trace::write(run, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn events(run: &RunRecord) -> Vec<Value> {
    let trace: Value = serde_json::from_str(&trace_text(run)).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

fn of_phase<'a>(events: &'a [Value], phase: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == phase).collect()
}

/// The JSON inside a page.
fn page_data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"run\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// Counts what is written, and the largest piece.
#[derive(Default)]
struct Counter {
    total: usize,
    largest: usize,
}

impl Write for Counter {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.total += piece.len();
        self.largest = self.largest.max(piece.len());
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn check_table(run: &RunRecord, width: usize, expected: &Expect) {
    let lines = table(run, width);
    expected.assert_eq(&lines);
    assert!(lines.lines().all(|line| line.chars().count() <= width));
}

// --- trace -----------------------------------------------------------------------------------------------------------

#[test]
fn trace_has_a_slice_per_task_that_ran() {
    let events = events(&small());
    let slices = of_phase(&events, "X");
    assert_eq!(slices.len(), 4);
    let solve = slices[1];
    assert_eq!(
        (&solve["name"], &solve["cat"], &solve["tid"]),
        (&"solve".into(), &"process".into(), &1.into())
    );
    assert_eq!((solve["ts"].as_f64(), solve["dur"].as_f64()), (Some(10_000.0), Some(40_000.0)));
    assert_eq!(solve["args"]["max_rss_bytes"], 3 << 20);
    assert_eq!(
        (&slices[2]["args"]["ending"], &slices[3]["args"]["ending"]),
        (&"done".into(), &"failed".into())
    );
    assert_eq!(slices[3]["args"]["attempts"], 3);
}

#[test]
fn trace_keeps_every_nanosecond() {
    let run = RunRecord { tasks: vec![task("t", 0, 1_234_567, 1_234_569)], ..RunRecord::default() };
    assert!(trace_text(&run).contains("\"ts\":1234.567,\"dur\":0.002,"));
}

#[test]
fn trace_names_its_lanes() {
    let events = events(&small());
    let names: Vec<_> = events
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|event| &event["args"]["name"])
        .collect();
    assert_eq!(names, ["worker 0", "process slot 0"]);
}

#[test]
fn trace_draws_arrows_between_tasks_that_ran() {
    let events = events(&small());
    let (leave, arrive) = (of_phase(&events, "s"), of_phase(&events, "f"));
    assert_eq!((leave.len(), arrive.len()), (5, 5));
    // From the last nanosecond of the one to the start of the other.
    assert_eq!((leave[2]["ts"].as_f64(), arrive[2]["ts"].as_f64()), (Some(49_999.999), Some(50_000.0)));
    assert!(leave.iter().zip(&arrive).all(|(leave, arrive)| leave["id"] == arrive["id"]));
}

#[test]
fn trace_of_many_edges_has_no_arrows() {
    let mut run = large(20_000, 3);
    assert!(of_phase(&events(&run), "s").is_empty());
    run.edges.truncate(10_000);
    assert_eq!(of_phase(&events(&run), "s").len(), 10_000);
}

#[test]
fn trace_keeps_hostile_text() {
    let run = hostile();
    let events = events(&run);
    let slices = of_phase(&events, "X");
    for (slice, task) in slices.iter().zip(&run.tasks) {
        assert_eq!(
            (&slice["name"], &slice["args"]["detail"]),
            (&task.name.as_str().into(), &task.detail.as_str().into())
        );
    }
}

#[test]
fn trace_grows_by_the_task_and_is_written_as_it_goes() {
    let written = |count| {
        let mut counter = Counter::default();
        trace::write(&large(count, 5), &mut counter).unwrap();
        counter
    };
    let (one, ten) = (written(10_000), written(100_000));
    assert!(ten.total < 11 * one.total, "{} {}", one.total, ten.total);
    assert!(ten.total > 100_000 && ten.largest <= 1 << 17, "{}", ten.largest);
}

#[test]
fn trace_reports_what_the_writer_refuses() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert_eq!(trace::write(&small(), &mut Full).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(html::write(&small(), &mut Full).unwrap_err().kind(), io::ErrorKind::StorageFull);
}

// --- table -----------------------------------------------------------------------------------------------------------

#[test]
fn table_says_how_it_went() {
    check_table(
        &small(),
        80,
        &expect![[r#"
        run            sweep, 2026-11-20 16:36:27 UTC
        machine        node 7, 2 CPUs
        tasks          7: 3 done, 1 failed, 1 skipped, 1 cancelled, 1 reused
        wall time      60.0 ms on 2 lanes
        T1 (work)      61.0 ms
        critical path  51.0 ms over 3 tasks
        speed-up       1.02 of at most 1.20 (85 %)

        most time       count        mean         max       total
        solve               2     25.0 ms     40.0 ms     50.0 ms
        prepare             1     10.0 ms     10.0 ms     10.0 ms
        plot                1     1.00 ms     1.00 ms     1.00 ms

        failed
        #3 plot, 3 attempts: exit code 1: no such file
    "#]],
    );
}

#[test]
fn table_is_cut_to_the_width() {
    let mut run = small();
    run.tasks[0].name = "prepare everything that anybody could ever want to have prepared".to_owned();
    check_table(
        &run,
        60,
        &expect![[r#"
        run            sweep, 2026-11-20 16:36:27 UTC
        machine        node 7, 2 CPUs
        tasks          7: 3 done, 1 failed, 1 skipped, 1 cancelled,…
        wall time      60.0 ms on 2 lanes
        T1 (work)      61.0 ms
        critical path  51.0 ms over 3 tasks
        speed-up       1.02 of at most 1.20 (85 %)

        most time          count        mean         max       total
        solve                  2     25.0 ms     40.0 ms     50.0 ms
        prepare eve…           1     10.0 ms     10.0 ms     10.0 ms
        plot                   1     1.00 ms     1.00 ms     1.00 ms

        failed
        #3 plot, 3 attempts: exit code 1: no such file
    "#]],
    );
}

#[test]
fn table_of_nothing() {
    check_table(
        &RunRecord::default(),
        80,
        &expect![[r#"
        run            , 1970-01-01 00:00:00 UTC
        tasks          none
        wall time      0 ns on 0 lanes
        T1 (work)      0 ns
        critical path  0 ns over 0 tasks
        speed-up       0.00 of at most 0.00 (0 %)
    "#]],
    );
}

#[test]
fn table_counts_failures_it_does_not_list() {
    let mut run = large(15, 2);
    run.tasks.iter_mut().for_each(|task| task.ending = Ending::Failed);
    assert!(table(&run, 80).ends_with("#9 stage 1: \nand 5 more\n"), "{}", table(&run, 80));
}

#[test]
fn table_leaves_the_terminal_alone() {
    let lines = table(&hostile(), 400);
    let bad = |c: &char| (c.is_control() && *c != '\n') || ['\u{202e}', '\u{2028}'].contains(c);
    assert_eq!(lines.chars().find(bad), None);
    assert!(lines.contains("\\u{1b}[2J"));
}

// --- page ------------------------------------------------------------------------------------------------------------

#[test]
fn page_data_has_a_column_per_figure() {
    let data = page_data(&html(&small()));
    let sorted_by_lane = serde_json::json!([0, 2, 1, 3]);
    assert_eq!(data["index"], sorted_by_lane);
    assert_eq!(data["start"], serde_json::json!([0, 10_000_000, 10_000_000, 50_000_000]));
    assert_eq!(data["names"], serde_json::json!(["solve", "prepare", "plot"]));
    assert_eq!(data["name"], serde_json::json!([1, 0, 0, 2]));
    assert_eq!(data["critical"], serde_json::json!([0, 2, 3]));
    assert_eq!(data["cpu"], serde_json::json!([0, 0, 30_000_000, 0]));
    assert_eq!(data["attempts"], serde_json::json!([1, 1, 1, 3]));
    assert_eq!(data["details"][1][0], 3);
}

#[test]
fn page_leaves_out_what_nobody_measured() {
    let data = page_data(&html(&large(20, 2)));
    assert!(
        ["cpu", "rss", "attempts", "details"].iter().all(|name| data[name].as_array().unwrap().is_empty())
    );
    // 30 ms of CPU time in the one task that was measured, which took 40 ms.
    assert!(html(&small()).contains("CPU time, 75 % of the time measured"));
    assert!(!html(&large(20, 2)).contains("peak memory") && html(&small()).contains("peak memory"));
}

#[test]
fn page_needs_nothing_from_elsewhere() {
    let page = html(&small());
    for foreign in ["http:", "https:", "//cdn", " src=", "<link", "@import", "url(h", "fetch(", "XMLHttp"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn page_cannot_be_broken_out_of() {
    let run = hostile();
    let page = html(&run);
    let lower = page.to_lowercase();
    assert_eq!((lower.matches("<script").count(), lower.matches("</script").count()), (2, 2));
    assert!(!page.contains("<b onclick") && !page.contains("<!--"));
    assert!(!page.contains(['\0', '\u{1b}', '\u{9b}', '\u{202e}']), "controls are replaced");
    let data = page_data(&page);
    let names: Vec<&str> =
        data["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(HOSTILE[..3].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(names.contains(&"controls \u{fffd} \u{fffd}[2J \u{fffd}\n\t \u{fffd} \u{fffd}"), "{names:?}");
}

#[test]
fn page_shows_bytes_that_are_no_text() {
    let mut run = small();
    run.tasks[0].name = String::from_utf8_lossy(b"odd \xff name").into_owned();
    assert!(html(&run).contains("odd \u{fffd} name") && trace_text(&run).contains("odd \u{fffd} name"));
}

#[test]
fn page_grows_by_the_task() {
    let written = |count| {
        let mut counter = Counter::default();
        html::write(&large(count, 5), &mut counter).unwrap();
        counter.total
    };
    let (one, ten) = (written(10_000), written(100_000));
    assert!(ten < 11 * one && ten < 100_000 * 40, "{one} {ten}");
}

#[test]
fn page_of_too_many_tasks_shows_the_failed_and_the_longest() {
    let count = SHOWN_MAX as u32 + 10;
    let mut run = large(count, 3);
    run.tasks[7].ending = Ending::Failed;
    run.tasks[8].end_ns += 500;
    run.tasks[7].end_ns -= 500;
    run.tasks[9].end_ns -= 1;
    let page = html(&run);
    assert!(
        page.contains(&format!("Of {count} tasks that ran, the timeline shows the failed and the longest"))
    );
    let data = page_data(&page);
    let index: Vec<u64> = data["index"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert_eq!(index.len(), SHOWN_MAX);
    assert!(index.contains(&7) && index.contains(&8) && !index.contains(&9));
}

#[test]
fn page_of_a_lane_without_a_name_shows_the_task() {
    let mut run = small();
    run.tasks[0].lane = u32::MAX;
    let data = page_data(&html(&run));
    assert_eq!(data["lanes"].as_array().unwrap().len(), 3);
    assert_eq!((&data["index"][3], &data["lane"][3]), (&0.into(), &2.into()));
}

#[test]
fn page_of_nothing_is_a_page() {
    let page = html(&RunRecord::default());
    assert_eq!(page_data(&page)["wall"], 0);
    assert!(page.ends_with("</html>\n"));
}

// --- graph -----------------------------------------------------------------------------------------------------------

#[test]
fn graph_has_a_box_per_task_and_no_implied_edge() {
    let run = small();
    let picture = picture(&run, &Figures::of(&run));
    let arrows: Vec<_> = picture.arrows.iter().map(|arrow| (arrow.from, arrow.to, arrow.critical)).collect();
    assert_eq!(arrows, [(0, 1, true), (0, 2, false), (1, 3, true), (2, 3, false), (3, 4, false)]);
    let levels: Vec<_> = picture.boxes.iter().map(|node| node.level).collect();
    assert_eq!(levels, [0, 1, 1, 2, 3, 0, 0]);
}

#[test]
fn graph_of_many_tasks_has_a_box_per_name() {
    let run = large(1000, 10);
    let picture = picture(&run, &Figures::of(&run));
    assert_eq!((picture.boxes.len(), picture.arrows.len()), (10, 9));
    assert_eq!((picture.arrows[0].edges, picture.boxes[3].label.as_str()), (100, "100 × stage 3"));
}

#[test]
fn graph_of_many_names_leaves_out_their_numbers() {
    let mut run = large(1000, 1000);
    let shown = picture(&run, &Figures::of(&run));
    assert_eq!((shown.boxes.len(), shown.boxes[0].label.as_str()), (1, "1000 × stage #"));
    run.tasks.iter_mut().enumerate().for_each(|(i, task)| task.name = "x".repeat(i + 1));
    let shown = picture(&run, &Figures::of(&run));
    assert!(shown.boxes.is_empty() && shown.note.contains("too many to draw"));
    assert!(html(&run).contains("too many to draw"));
}

#[test]
fn graph_of_names_that_take_turns_is_drawn() {
    let run = large(1000, 3);
    let picture = picture(&run, &Figures::of(&run));
    assert_eq!(picture.arrows.len(), 3);
    let drawn = svg(&picture);
    assert_eq!((drawn.matches("<rect").count(), drawn.matches("data-from").count()), (3, 3));
}

#[test]
fn graph_puts_no_box_on_another() {
    let mut run = large(300, 300);
    run.edges = (1..300).map(|i| (i / 7, i)).collect();
    let drawn = svg(&picture(&run, &Figures::of(&run)));
    let mut places: Vec<&str> =
        drawn.split("<rect ").skip(1).map(|rect| rect.split(" width").next().unwrap()).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 300);
}

// --- figures and text ------------------------------------------------------------------------------------------------

/// The longest path to a task, by definition.
fn longest_to(run: &RunRecord, task: u32) -> u64 {
    let sources = run.forward_edges().filter(|(_, to)| *to == task).map(|(from, _)| longest_to(run, from));
    sources.max().unwrap_or(0) + run.tasks[task as usize].duration_ns()
}

proptest! {
    #[test]
    fn critical_path_is_the_longest(
        lengths in prop::collection::vec(0u64..9, 1..9),
        edges in prop::collection::vec((0u32..9, 0u32..10), 0..20),
    ) {
        let tasks = lengths.iter().map(|length| task("t", 0, 1, 1 + length)).collect();
        let run = RunRecord { tasks, edges, ..RunRecord::default() };
        let figures = Figures::of(&run);
        let longest = (0..lengths.len() as u32).map(|task| longest_to(&run, task)).max();
        prop_assert_eq!(Some(figures.critical_ns), longest);
        let along: u64 = figures.critical_tasks.iter().map(|task| lengths[*task as usize]).sum();
        prop_assert_eq!(along, figures.critical_ns);
        let edges: Vec<_> = run.forward_edges().collect();
        prop_assert!(figures.critical_tasks.windows(2).all(|step| edges.contains(&(step[0], step[1]))));
    }
}

#[test]
fn amounts_have_three_digits_and_a_unit() {
    let times = [0, 999, 1_000, 12_345, 123_456_789, 1_500_000_000, 150_000_000_000, 7_260_000_000_000];
    let shown = ["0 ns", "999 ns", "1.00 µs", "12.3 µs", "123 ms", "1.50 s", "2 min 30 s", "2 h 01 min"];
    assert_eq!(times.map(duration), shown);
    assert_eq!(
        [0, 1023, 1024, 5 << 30, u64::MAX].map(bytes),
        ["0 B", "1023 B", "1.00 KiB", "5.00 GiB", "16.0 EiB"]
    );
}

#[test]
fn moments_know_leap_years() {
    let days = [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (47_540, "2100-02-28")];
    for (day, date) in days {
        assert_eq!(moment(day * 86_400_000 + 86_399_999), format!("{date} 23:59:59 UTC"));
    }
    assert_eq!(moment(47_541 * 86_400_000), "2100-03-01 00:00:00 UTC");
}

#[test]
fn text_is_cut_at_characters() {
    assert_eq!([cut("äöü", 3), cut("äöüß", 3), cut("", 0), cut("ab", 1)], ["äöü", "äö…", "", "…"]);
    assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\u{1b}");
}
