//! Other processes: this test binary once more, playing the part that an environment variable names.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tarragon_ddict::DDict;
use tarragon_faults::playing;

const PART: &str = "DDICT_FAULTS_PART";
/// Names the folder for segments.
const FOLDER: &str = "TARRAGON_SHM";

/// A process that plays a part; dropping it kills it.
pub(crate) struct Player {
    child: Child,
    output: Option<thread::JoinHandle<String>>,
}

/// What this process is to play, if another one started it to play `test`: its argument.
pub(crate) fn part_of(test: &str) -> Option<String> {
    let text = std::env::var(PART).ok()?;
    let (name, argument) = text.split_once('\n')?;
    (name == test).then(|| argument.to_owned())
}

/// Starts a process that plays `test`, with its segments in `folder` if one is given.
pub(crate) fn start(test: &str, argument: &str, folder: Option<&Path>) -> Player {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(PART, format!("{test}\n{argument}"));
    if let Some(folder) = folder {
        command.env(FOLDER, folder);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let output = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    });
    Player { child, output: Some(output) }
}

impl Player {
    /// Waits for its end; how it ended (`None`: not within `limit`, so it was killed), and what it printed.
    pub(crate) fn end(mut self, limit: Duration) -> (Option<ExitStatus>, String) {
        let began = Instant::now();
        let status = loop {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || began.elapsed() > limit {
                break ended;
            }
            thread::sleep(Duration::from_millis(2));
        };
        self.child.kill().ok();
        (status, self.output.take().unwrap().join().unwrap())
    }

    /// Waits for its good end; what it printed.
    pub(crate) fn succeed(self, limit: Duration) -> String {
        let (status, text) = self.end(limit);
        assert!(
            status.is_some_and(|status| status.success()),
            "{status:?} within {limit:?}; it printed:\n{text}"
        );
        text
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Segments in `/dev/shm` that the process with this pid made.
pub(crate) fn files_of(pid: u32) -> Vec<String> {
    let names = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let made =
        |name: &String| name.starts_with("tarragon-") && name.split('-').nth(3) == Some(&pid.to_string());
    names.filter(made).collect()
}

/// Not a test by itself: a program that starts, and so sweeps what the dead have left.
#[test]
fn sweep() {
    let dict = DDict::<u64, u64>::builder().memory(1 << 20).create().unwrap();
    drop(dict);
    if let Some(part) = playing("faults::process::sweep") {
        part.ready();
    }
}
