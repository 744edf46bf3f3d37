//! A rank that is lost amid a task of its own: the task strikes, once, and does what it should when it runs again.

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::{PATIENCE, die};

/// How a rank goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// By `kill -9`.
    Killed,
    /// By SIGSTOP.
    Frozen,
    /// By SIGSTOP, until it is lost for long.
    Asleep,
    /// With its machine, which the test takes away.
    TakenAway,
}

/// What happens to the first rank but home that runs the task: who makes the file is it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Blow {
    /// How it goes.
    pub fate: Fate,
    /// Made by who it hits.
    pub file: PathBuf,
}

impl Blow {
    /// A body that strikes, on this rank.
    pub fn strike(&self, rank: u32) {
        let begun = now_ms();
        let Ok(mut file) = std::fs::File::create_new(&self.file) else {
            // It runs again.
            return std::fs::write(self.file.with_extension("again"), begun.to_string()).unwrap();
        };
        if rank == 0 {
            return drop(std::fs::remove_file(&self.file));
        }
        write!(file, "{}", now_ms()).unwrap();
        drop(file);
        match self.fate {
            Fate::Killed => die(),
            Fate::Frozen => {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::STOP).unwrap();
                // The signal is the process's: it may be a moment until this thread stops, too.
                std::thread::sleep(PATIENCE);
            }
            Fate::Asleep => {
                let me = std::process::id();
                let script = format!("kill -STOP {me}; sleep 6; kill -CONT {me}");
                let mut waker = std::process::Command::new("sh");
                waker.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                // It goes on when it is lost, and does what it likes, for nobody.
                let _ = waker.status();
            }
            Fate::TakenAway => std::thread::sleep(PATIENCE),
        }
    }
}

fn now_ms() -> u128 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()
}

impl Blow {
    /// Milliseconds from the blow until the task ran again.
    pub fn took_ms(&self) -> u128 {
        let read = |path: &Path| std::fs::read_to_string(path).ok()?.parse::<u128>().ok();
        let (was, again) = (read(&self.file), read(&self.file.with_extension("again")));
        again.zip(was).map_or(0, |(again, was)| again - was)
    }
}
