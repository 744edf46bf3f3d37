//! A run as a few lines for a terminal.

use super::figures::{Figures, groups, ranks};
use super::plain::{clocks, cut, duration, first_line, moment, one_line};
use super::record::{Ending, RunRecord};
use std::fmt::{self, Write};

/// Names listed as those that took the most time.
const SLOWEST_MAX: usize = 5;
/// Failed tasks listed; the rest is counted.
const FAILED_MAX: usize = 10;
/// Ranks listed; the rest is counted.
const RANKS_MAX: usize = 16;
/// Lines are never cut shorter than this, in characters: less would say nothing.
const WIDTH_MIN: usize = 40;
/// Characters of the columns right of a name.
const COLUMNS: usize = 4 * 12;

/// The run in lines of at most `width` characters (40 at least), each ended: counts, figures, the names that took the
/// most time, and which tasks failed and why.
pub(crate) fn table(run: &RunRecord, width: usize) -> String {
    let mut lines = String::new();
    write_lines(&mut lines, run, width.max(WIDTH_MIN)).expect("writing to a string succeeds");
    lines
}

fn write_lines(out: &mut String, run: &RunRecord, width: usize) -> fmt::Result {
    let figures = Figures::of(run);
    let mut line = |name: &str, text: String| writeln!(out, "{}", cut(&format!("{name:<14} {text}"), width));
    line("run", one_line(&format!("{}, {}", run.name, moment(run.started_unix_ms))))?;
    if !run.machine.is_empty() {
        line("machine", one_line(&run.machine))?;
    }
    if !run.rank_ends.is_empty() {
        line("ranks", format!("{}, {}", run.rank_ends.len(), clocks(run.within_ns)))?;
    }
    line("tasks", figures.counts_in_words())?;
    let lanes = figures.lanes;
    line("wall time", format!("{} on {lanes} lane{}", duration(run.wall_ns), plural(lanes)))?;
    line("T1 (work)", duration(figures.work_ns))?;
    let path = figures.critical_tasks.len();
    line("critical path", format!("{} over {path} task{}", duration(figures.critical_ns), plural(path)))?;
    let (up, bound) = (figures.speed_up(), figures.bound());
    let part = 100.0 * up / bound.max(1e-9);
    line("speed-up", format!("{up:.2} of at most {bound:.2} ({part:.0} %)"))?;
    write_slowest(out, run, width)?;
    write_ranks(out, run, width)?;
    write_failed(out, run, &figures, width)
}

fn write_slowest(out: &mut String, run: &RunRecord, width: usize) -> fmt::Result {
    let groups = groups(run);
    if groups.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = groups.iter().take(SLOWEST_MAX).map(|group| one_line(group.name)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("most time".len());
    let room = longest.min(width.saturating_sub(COLUMNS)).max("most time".len());
    writeln!(out)?;
    let mut row = |name: &str, columns: [String; 4]| {
        let columns: String = columns.iter().map(|column| format!("{column:>12}")).collect();
        let line = format!("{:<room$}{columns}", cut(name, room));
        writeln!(out, "{}", cut(&line, width))
    };
    row("most time", ["count", "mean", "max", "total"].map(str::to_owned))?;
    for (group, name) in groups.iter().zip(&names) {
        let times = [group.mean_ns(), group.max_ns, group.total_ns].map(duration);
        let [mean, max, total] = times;
        row(name, [group.count.to_string(), mean, max, total])?;
    }
    Ok(())
}

fn write_ranks(out: &mut String, run: &RunRecord, width: usize) -> fmt::Result {
    let ranks = ranks(run);
    if ranks.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut row = |name: String, columns: [String; 4]| {
        let columns: String = columns.iter().map(|column| format!("{column:>12}")).collect();
        writeln!(out, "{}", cut(&format!("{name:<9}{columns}"), width))
    };
    row("rank".to_owned(), ["tasks", "lanes", "busy", "total"].map(str::to_owned))?;
    for (number, rank) in ranks.iter().enumerate().take(RANKS_MAX) {
        let busy = format!("{:.0} %", rank.busy(run));
        let columns = [rank.tasks.to_string(), rank.lanes.to_string(), busy, duration(rank.total_ns)];
        row(number.to_string(), columns)?;
    }
    if ranks.len() > RANKS_MAX {
        writeln!(out, "and {} more", ranks.len() - RANKS_MAX)?;
    }
    Ok(())
}

fn write_failed(out: &mut String, run: &RunRecord, figures: &Figures, width: usize) -> fmt::Result {
    let failed = figures.count(Ending::Failed);
    if failed == 0 {
        return Ok(());
    }
    writeln!(out, "\nfailed")?;
    let tasks = run.tasks.iter().enumerate().filter(|(_, task)| task.ending == Ending::Failed);
    for (index, task) in tasks.take(FAILED_MAX) {
        let attempts =
            if task.attempts > 1 { format!(", {} attempts", task.attempts) } else { String::new() };
        let rank = run.rank_of(task.lane).filter(|_| task.ran());
        let rank = rank.map_or_else(String::new, |rank| format!(" on rank {rank}"));
        let head = format!("#{index} {}{rank}{attempts}: ", one_line(&task.name));
        writeln!(out, "{}", cut(&(head + &one_line(first_line(&task.detail))), width))?;
    }
    if failed > FAILED_MAX {
        writeln!(out, "and {} more", failed - FAILED_MAX)?;
    }
    Ok(())
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
