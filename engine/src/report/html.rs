//! A run as one HTML page that needs nothing else: no network, no fonts, no scripts but its own.
//!
//! Tables and graph are plain HTML and SVG, made here; `page.js` draws the timeline, and sorts and searches. Names and
//! messages are untrusted: they come in escaped, as text or as JSON, never as markup or code.

use super::figures::{Figures, Group, RankFigures, groups, ranks};
use super::graph::picture;
use super::layout::svg;
use super::plain::{bytes, clocks, cut, duration, escaped, moment};
use super::record::{Ending, RunRecord, TaskRecord};
use super::timeline::Timeline;
use std::cmp::Reverse;
use std::io::{self, BufWriter, Write};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Rows of a table; more would make the page slow to search.
const ROWS_MAX: usize = 500;
/// Characters of a name or a reason in a table.
const CELL_CHARS_MAX: usize = 2_000;
/// The browser itself refuses to fetch or to run anything that is not in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The page as text: see [`write`].
#[cfg(test)]
pub(super) fn html(run: &RunRecord) -> String {
    let mut page = Vec::new();
    write(run, &mut page).expect("writing to a vector succeeds");
    String::from_utf8(page).expect("the page is made of text")
}

/// Writes the page: counts and figures, timeline, graph, and tables of names, long tasks and failed ones. Flushes.
///
/// Size: about 40 bytes per task that ran, besides its name; timelines show at most 200 000 tasks and tables 500 rows.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write(run: &RunRecord, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let out = &mut out;
    let figures = Figures::of(run);
    let title = escaped(&run.name);
    write!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
    writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    write!(out, "<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n")?;
    write!(out, "<header>\n<h1>{title}</h1>\n<p>{}", moment(run.started_unix_ms))?;
    if !run.machine.is_empty() {
        write!(out, ", {}", escaped(&run.machine))?;
    }
    writeln!(out, "</p>")?;
    write_cards(out, &figures)?;
    writeln!(out, "</header>")?;
    let timeline = Timeline::new(run);
    write_timeline_frame(out, &timeline)?;
    write_graph(out, run, &figures)?;
    write_tables(out, run, &figures)?;
    write!(out, "<div id=\"tip\" hidden></div>\n<script type=\"application/json\" id=\"run\">\n")?;
    timeline.write(&figures, out)?;
    write!(out, "\n</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n")?;
    out.flush()
}

fn write_cards(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    writeln!(out, "<div class=\"cards\">")?;
    let mut card = |class: &str, figure: String, words: String| {
        writeln!(out, "<div class=\"card\"><b class=\"{class}\">{figure}</b><span>{words}</span></div>")
    };
    for ending in Ending::ALL {
        let count = figures.count(ending);
        if count > 0 || ending == Ending::Done {
            card(ending.word(), count.to_string(), format!("tasks {}", ending.word()))?;
        }
    }
    card("", duration(figures.wall_ns), format!("wall time on {} lanes", figures.lanes))?;
    card("", duration(figures.work_ns), "T1, all work".to_owned())?;
    let path = figures.critical_tasks.len();
    card("", duration(figures.critical_ns), format!("critical path, {path} tasks"))?;
    let (up, bound) = (figures.speed_up(), figures.bound());
    let part = 100.0 * up / bound.max(1e-9);
    card("", format!("{up:.2} ×"), format!("speed-up, {part:.0} % of the possible {bound:.2}"))?;
    if figures.cpu_ns > 0 {
        let busy = 100.0 * figures.cpu_ns as f64 / figures.measured_ns.max(1) as f64;
        card("", duration(figures.cpu_ns), format!("CPU time, {busy:.0} % of the time measured"))?;
    }
    if figures.max_rss_bytes > 0 {
        card("", bytes(figures.max_rss_bytes), "peak memory of a task".to_owned())?;
    }
    writeln!(out, "</div>")
}

fn write_timeline_frame(out: &mut impl Write, timeline: &Timeline) -> io::Result<()> {
    write!(
        out,
        "<section>\n<div class=\"head\"><h2>Timeline</h2><div class=\"tools\">\
         <input id=\"search\" type=\"search\" placeholder=\"find tasks\" aria-label=\"find tasks\">\
         <button data-key=\"-\" aria-label=\"zoom out\">−</button>\
         <button data-key=\"+\" aria-label=\"zoom in\">+</button>\
         <button data-key=\"0\">all</button></div></div>\n\
         <div class=\"frame\"><canvas id=\"timeline\" tabindex=\"0\" aria-label=\"tasks by lane and time\">\
         </canvas></div>\n<div id=\"legend\"></div>\n\
         <p>Drag to move; double-click, + and −, or the wheel after a click to zoom; 0 shows all.</p>\n"
    )?;
    let (shown, ran) = (timeline.shown(), timeline.ran);
    if shown < ran {
        writeln!(
            out,
            "<p>Of {ran} tasks that ran, the timeline shows the failed and the longest: {shown}.</p>"
        )?;
    }
    writeln!(out, "<noscript><p>The timeline needs JavaScript.</p></noscript>\n</section>")
}

fn write_graph(out: &mut impl Write, run: &RunRecord, figures: &Figures) -> io::Result<()> {
    let picture = picture(run, figures);
    writeln!(out, "<section>\n<div class=\"head\"><h2>Graph</h2></div>")?;
    if !picture.boxes.is_empty() {
        writeln!(out, "<div class=\"frame\">\n{}</div>", svg(&picture))?;
    }
    writeln!(out, "<p>{}</p>\n</section>", picture.note)
}

/// A column of a table: its head, and whether it is text (left, sorted from A) or a number.
type Column = (&'static str, bool);

/// A cell: a number with how it is shown, or text.
enum Cell {
    Number(u64, String),
    Text(String),
    /// Text that says why something failed.
    Why(String),
}

fn write_tables(out: &mut impl Write, run: &RunRecord, figures: &Figures) -> io::Result<()> {
    writeln!(out, "<div class=\"tables\">")?;
    let of = |count: usize| format!("{} of {count}", count.min(ROWS_MAX));
    let failed = figures.count(Ending::Failed);
    if failed > 0 {
        let columns =
            [("#", false), ("failed task", true), ("why", true), ("attempts", false), ("time", false)];
        let tasks = run.tasks.iter().enumerate().filter(|(_, task)| task.ending == Ending::Failed);
        write_table(out, &format!("Failed tasks, {}", of(failed)), &columns, tasks.map(failed_row))?;
    }
    let groups = groups(run);
    let columns = [("name", true), ("count", false), ("mean", false), ("max", false), ("total", false)];
    let columns = columns.into_iter().chain(measured(figures)).collect::<Vec<_>>();
    let title = format!("Time by name, {}", of(groups.len()));
    write_table(out, &title, &columns, groups.iter().map(group_row))?;
    if !run.rank_ends.is_empty() {
        let columns =
            [("rank", false), ("tasks", false), ("lanes", false), ("busy", false), ("total", false)];
        let ranks = ranks(run);
        let title = format!("Ranks, {}, {}", of(ranks.len()), clocks(run.within_ns));
        let rows = ranks.iter().enumerate().map(|(number, rank)| rank_row(run, number, rank));
        write_table(out, &title, &columns, rows)?;
    }
    let longest = longest(run);
    let columns = [("#", false), ("long task", true), ("lane", true), ("start", false), ("time", false)];
    let columns = columns.into_iter().chain(measured(figures)).collect::<Vec<_>>();
    let rows = longest.iter().map(|index| long_row(run, *index));
    write_table(out, "Longest tasks", &columns, rows)?;
    writeln!(out, "</div>")
}

/// The last columns, CPU time and peak memory: neither where nobody measured.
fn measured(figures: &Figures) -> impl Iterator<Item = Column> {
    let any = figures.cpu_ns > 0 || figures.max_rss_bytes > 0;
    [("CPU time", false), ("peak memory", false)].into_iter().filter(move |_| any)
}

/// The tasks that took longest, the longest first.
fn longest(run: &RunRecord) -> Vec<usize> {
    let mut longest: Vec<usize> = (0..run.tasks.len()).filter(|index| run.tasks[*index].ran()).collect();
    let key = |index: &usize| (Reverse(run.tasks[*index].duration_ns()), *index);
    if longest.len() > ROWS_MAX {
        longest.select_nth_unstable_by_key(ROWS_MAX, key);
        longest.truncate(ROWS_MAX);
    }
    longest.sort_unstable_by_key(key);
    longest
}

fn failed_row((index, task): (usize, &TaskRecord)) -> Vec<Cell> {
    vec![
        number(index as u64),
        Cell::Text(task.name.clone()),
        Cell::Why(task.detail.clone()),
        number(u64::from(task.attempts)),
        time(task.duration_ns()),
    ]
}

fn group_row(group: &Group) -> Vec<Cell> {
    let mut cells = vec![Cell::Text(group.name.to_owned()), number(group.count as u64)];
    cells.extend([group.mean_ns(), group.max_ns, group.total_ns].map(time));
    cells.extend(resources(group.cpu_ns, group.max_rss_bytes));
    cells
}

fn rank_row(run: &RunRecord, rank: usize, figures: &RankFigures) -> Vec<Cell> {
    let busy = figures.busy(run);
    vec![
        number(rank as u64),
        number(figures.tasks as u64),
        number(u64::from(figures.lanes)),
        Cell::Number((10.0 * busy) as u64, format!("{busy:.0} %")),
        time(figures.total_ns),
    ]
}

fn long_row(run: &RunRecord, index: usize) -> Vec<Cell> {
    let task = &run.tasks[index];
    let lane = run.lanes.get(task.lane as usize).cloned().unwrap_or_default();
    let mut cells = vec![number(index as u64), Cell::Text(task.name.clone()), Cell::Text(lane)];
    cells.extend([task.start_ns, task.duration_ns()].map(time));
    cells.extend(resources(task.cpu_ns, task.max_rss_bytes));
    cells
}

fn number(number: u64) -> Cell {
    Cell::Number(number, number.to_string())
}

fn time(ns: u64) -> Cell {
    Cell::Number(ns, duration(ns))
}

/// What was measured; a dash where nothing was.
fn resources(cpu_ns: u64, max_rss_bytes: u64) -> [Cell; 2] {
    let shown =
        |amount: u64, text: String| Cell::Number(amount, if amount > 0 { text } else { "–".to_owned() });
    [shown(cpu_ns, duration(cpu_ns)), shown(max_rss_bytes, bytes(max_rss_bytes))]
}

fn write_table(
    out: &mut impl Write,
    title: &str,
    columns: &[Column],
    rows: impl Iterator<Item = Vec<Cell>>,
) -> io::Result<()> {
    writeln!(
        out,
        "<section>\n<div class=\"head\"><h2>{title}</h2></div>\n<div class=\"frame\"><table>\n<thead><tr>"
    )?;
    for (head, is_text) in columns {
        let class = if *is_text { " class=\"text\"" } else { "" };
        write!(out, "<th{class}><button>{head}</button></th>")?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for cells in rows.take(ROWS_MAX) {
        write!(out, "<tr>")?;
        for cell in cells.into_iter().take(columns.len()) {
            write_cell(out, cell)?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table></div>\n</section>")
}

fn write_cell(out: &mut impl Write, cell: Cell) -> io::Result<()> {
    let text = |text: &str| escaped(&cut(text, CELL_CHARS_MAX));
    match cell {
        Cell::Number(value, shown) => write!(out, "<td data-value=\"{value}\">{shown}</td>"),
        Cell::Text(words) => write!(out, "<td class=\"text\">{}</td>", text(&words)),
        Cell::Why(words) => write!(out, "<td class=\"text why\">{}</td>", text(&words)),
    }
}
