//! The tasks of a run as compact JSON for the page's timeline: a column per figure, sorted by lane and start.

use super::figures::{Figures, groups};
use super::json::{write_array, write_string};
use super::plain::{cut, visible};
use super::record::{Ending, Kind, RunRecord, TaskRecord};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

/// Tasks a timeline shows; of more, the longest.
pub(super) const SHOWN_MAX: usize = 200_000;
/// In runs that show more tasks, only failed ones bring their detail.
const DETAILED_MAX: usize = 10_000;
/// Tasks that bring their detail, in any run.
const DETAILS_MAX: usize = 10_000;
/// Characters of such a detail.
const DETAIL_CHARS_MAX: usize = 400;

/// Which tasks a timeline shows.
pub(super) struct Timeline<'a> {
    run: &'a RunRecord,
    /// Positions in the list, sorted by lane and start.
    shown: Vec<u32>,
    /// Tasks that ran, shown or not.
    pub(super) ran: usize,
}

impl<'a> Timeline<'a> {
    /// The failed tasks that ran, then the longest. Cost: n log n of the tasks shown, linear in the others.
    pub(super) fn new(run: &'a RunRecord) -> Self {
        let tasks = &run.tasks;
        let mut shown: Vec<u32> =
            (0..tasks.len()).filter(|index| tasks[*index].ran()).map(|index| index as u32).collect();
        let ran = shown.len();
        if ran > SHOWN_MAX {
            let worth = |index: &u32| {
                let task = &tasks[*index as usize];
                Reverse((task.ending == Ending::Failed, task.duration_ns(), Reverse(*index)))
            };
            shown.select_nth_unstable_by_key(SHOWN_MAX, worth);
            shown.truncate(SHOWN_MAX);
        }
        let mut timeline = Self { run, shown: Vec::new(), ran };
        shown.sort_unstable_by_key(|index| {
            let task = &tasks[*index as usize];
            (timeline.lane(task), task.start_ns, *index)
        });
        timeline.shown = shown;
        timeline
    }

    pub(super) fn shown(&self) -> usize {
        self.shown.len()
    }

    /// The lane of a task; one that the run does not name counts as one more.
    fn lane(&self, task: &TaskRecord) -> usize {
        (task.lane as usize).min(self.run.lanes.len())
    }

    fn tasks(&self) -> impl Iterator<Item = &'a TaskRecord> + '_ {
        self.shown.iter().map(|index| &self.run.tasks[*index as usize])
    }

    /// Writes one JSON object. Lists of figures have an entry per task shown; those that nobody measured are empty.
    pub(super) fn write(&self, figures: &Figures, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{{\"wall\":{},\"lanes\":", self.end_ns())?;
        write_array(out, self.lanes(), |out, lane| write_string(out, &visible(lane)))?;
        // Names that took the most time come first, so that they get colours of their own.
        let names: Vec<&str> = groups(self.run).iter().map(|group| group.name).collect();
        let numbers: HashMap<&str, usize> =
            names.iter().enumerate().map(|(number, name)| (*name, number)).collect();
        write!(out, ",\n\"names\":")?;
        write_array(out, &names, |out, name| write_string(out, &visible(name)))?;
        write!(out, ",\n\"kinds\":")?;
        write_array(out, Kind::ALL, |out, kind| write_string(out, kind.word()))?;
        write!(out, ",\"endings\":")?;
        write_array(out, Ending::ALL, |out, ending| write_string(out, ending.word()))?;
        write_column(out, "index", self.shown.iter().map(|index| u64::from(*index)))?;
        self.column(out, "name", |task| numbers[task.name.as_str()] as u64)?;
        self.column(out, "lane", |task| self.lane(task) as u64)?;
        self.column(out, "start", |task| task.start_ns)?;
        self.column(out, "length", TaskRecord::duration_ns)?;
        self.column(out, "kind", |task| task.kind as u64)?;
        self.column(out, "ending", |task| task.ending as u64)?;
        self.measured(out, "attempts", 1, |task| u64::from(task.attempts))?;
        self.measured(out, "cpu", 0, |task| task.cpu_ns)?;
        self.measured(out, "rss", 0, |task| task.max_rss_bytes)?;
        let critical: HashSet<u32> = figures.critical_tasks.iter().copied().collect();
        let places = (0u64..).zip(&self.shown).filter(|(_, index)| critical.contains(index));
        write_column(out, "critical", places.map(|(place, _)| place))?;
        write!(out, ",\n\"details\":")?;
        write_array(out, self.details(), |out, (place, detail)| {
            write!(out, "[{place},")?;
            write_string(out, &visible(&cut(detail, DETAIL_CHARS_MAX)))?;
            write!(out, "]")
        })?;
        write!(out, "}}")
    }

    /// The end of the last task, or of the run: whichever is later, so that all is in sight.
    fn end_ns(&self) -> u64 {
        self.tasks().map(|task| task.end_ns).max().unwrap_or(0).max(self.run.wall_ns)
    }

    fn lanes(&self) -> impl Iterator<Item = &str> {
        let lanes = &self.run.lanes;
        let strays = self.tasks().any(|task| self.lane(task) == lanes.len());
        lanes.iter().map(String::as_str).chain(strays.then_some("elsewhere"))
    }

    fn details(&self) -> impl Iterator<Item = (usize, &str)> {
        let all = self.shown.len() <= DETAILED_MAX;
        let wanted =
            move |task: &TaskRecord| !task.detail.is_empty() && (all || task.ending == Ending::Failed);
        let details = self.tasks().enumerate().filter(move |(_, task)| wanted(task));
        details.map(|(place, task)| (place, task.detail.as_str())).take(DETAILS_MAX)
    }

    fn column(
        &self,
        out: &mut impl Write,
        name: &str,
        figure: impl Fn(&TaskRecord) -> u64,
    ) -> io::Result<()> {
        write_column(out, name, self.tasks().map(figure))
    }

    /// A column that is left empty when no task has more than `nothing`.
    fn measured(
        &self,
        out: &mut impl Write,
        name: &str,
        nothing: u64,
        figure: impl Fn(&TaskRecord) -> u64,
    ) -> io::Result<()> {
        if self.tasks().any(|task| figure(task) > nothing) {
            self.column(out, name, figure)
        } else {
            write_column(out, name, std::iter::empty())
        }
    }
}

fn write_column(out: &mut impl Write, name: &str, figures: impl Iterator<Item = u64>) -> io::Result<()> {
    write!(out, ",\n\"{name}\":")?;
    write_array(out, figures, |out, figure| write!(out, "{figure}"))
}
