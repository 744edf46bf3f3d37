//! Names in shared memory that tell whose they are, so that what a bench left that was killed goes with the next one.

use std::path::{Path, PathBuf};

/// Where files are that live in memory, or where temporary files are.
pub(crate) fn in_memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() }
}

/// A name that begins with a word and this process's id.
pub(crate) fn name(word: &str) -> String {
    format!("{word}-{}-", std::process::id())
}

/// Removes what bears the word and the id of this process, or of one that is gone.
pub(crate) fn sweep(word: &str) {
    let Ok(entries) = std::fs::read_dir(in_memory()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|it| it.strip_prefix(word)?.strip_prefix('-')?.split('-').next());
        let Some(owner) = owner.and_then(|it| it.parse::<u32>().ok()) else { continue };
        if owner == std::process::id() || !Path::new(&format!("/proc/{owner}")).exists() {
            // What another one sweeps at the same time is gone as well.
            let _ = std::fs::remove_file(entry.path()).or_else(|_| std::fs::remove_dir_all(entry.path()));
        }
    }
}
