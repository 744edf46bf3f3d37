//! A line on the terminal that shows how far a compiled batch is. Counting is left to the engine, drawing to indicatif.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tarragon_engine::{Compiled, Counts, Watch};

/// How often the line changes at most.
const PERIOD: Duration = Duration::from_millis(100);
/// Of a long list counting takes time; it may take this part of a cpu.
const PART_OF_CPU: u32 = 50;
/// Redraws per second at most; indicatif's own bound lies above ours.
const DRAWS_PER_SECOND_MAX: u8 = 10;
const LINE: &str = "{bar:24} {pos}/{len} tasks, {msg}, {per_sec}, {eta} left";
const LAST_LINE: &str = "{bar:24} {pos}/{len} tasks, {msg}, {elapsed}";

/// Shows on the terminal how far a compiled batch is: tasks that have ended, run, failed and were skipped, tasks per
/// second, and an estimate of the time left. It goes on until all tasks have ended in one run, or until it is dropped.
///
/// It draws on standard error if that is a terminal, at most ten times a second, and does nothing at all otherwise.
/// While it lives it keeps the tasks, as [`Watch`] does.
///
/// ```
/// use tarragon::{Batch, Progress};
///
/// let batch = Batch::new()?;
/// let squares: Vec<_> = (0..100u64).map(|i| batch.function(|i: u64| i * i, (i,))).collect();
/// let compiled = batch.compile(&squares)?;
/// let progress = Progress::watch(&compiled);
/// compiled.run()?;
/// drop(progress);
/// # Ok::<(), tarragon::Error>(())
/// ```
#[must_use = "it is shown until it is dropped"]
#[derive(Debug)]
pub struct Progress(Option<Drawing>);

#[derive(Debug)]
struct Drawing {
    /// Dropped to stop.
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Shows it until what comes back is dropped. Starts a thread if there is a terminal.
    pub fn watch(compiled: &Compiled) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let watch = compiled.watch();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("tarragon-progress".to_string());
        // Without a thread nothing is shown, and the batch runs as well.
        let thread = thread.spawn(move || draw(&watch, &stopped)).ok();
        Self(thread.map(|thread| Drawing { stop, thread }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Drawing { stop, thread }) = self.0.take() {
            drop(stop);
            // If it panicked it has said so, and the line is no reason for us to.
            let _ = thread.join();
        }
    }
}

fn draw(watch: &Watch, stopped: &Receiver<()>) {
    let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND_MAX);
    let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style(LINE));
    loop {
        let began = Instant::now();
        let counts = watch.progress();
        show(&bar, counts);
        let period = PERIOD.max(began.elapsed() * PART_OF_CPU);
        let is_stopped = stopped.recv_timeout(period) != Err(RecvTimeoutError::Timeout);
        if is_stopped || counts.is_over() {
            break;
        }
    }
    bar.set_style(style(LAST_LINE));
    show(&bar, watch.progress());
    bar.abandon();
}

fn show(bar: &ProgressBar, counts: Counts) {
    bar.set_length(counts.total as u64);
    bar.set_message(words(counts));
    bar.set_position(counts.ended() as u64);
}

/// `2 running, 1 failed, 3 skipped`.
fn words(counts: Counts) -> String {
    let some = [(counts.failed, "failed"), (counts.skipped, "skipped")];
    let some = some.into_iter().filter(|(count, _)| *count > 0);
    let all = std::iter::once((counts.running, "running")).chain(some);
    all.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a template that the tests draw").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_leave_out_what_did_not_happen() {
        let counts = Counts { total: 9, waiting: 3, running: 2, done: 4, ..Counts::default() };
        assert_eq!(words(counts), "2 running");
        assert_eq!(words(Counts { failed: 1, skipped: 2, ..counts }), "2 running, 1 failed, 2 skipped");
    }
}
