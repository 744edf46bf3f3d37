//! Which GPUs may this process use, and what does a program call them?
//!
//! The first source that says anything decides, also where it says that there are none:
//!
//! 1. `CUDA_VISIBLE_DEVICES`: indices, or UUIDs that begin with `GPU-` or `MIG-`. As CUDA reads it, up to the first
//!    word that is no device; so an empty one, `-1` or `NoDevFiles` is none.
//! 2. In a job of Slurm `SLURM_STEP_GPUS`, else `SLURM_JOB_GPUS`: indices. A job without either has none, whatever the
//!    machine has.
//! 3. Folders in `/proc/driver/nvidia/gpus`, else devices `/dev/nvidia0`, `/dev/nvidia1`, …: how many there are,
//!    numbered from 0.
//!
//! A GPU has a *name*, which goes into `CUDA_VISIBLE_DEVICES` of who holds it, and a *mark*, by which processes of one
//! node find out that they see the same one: Slurm may number those of each job from 0 (`ConstrainDevices`), and then
//! says in `SLURM_STEP_GPUS` which they are.
//!
//! *Source:* CUDA C++ Programming Guide, "CUDA Environment Variables"; srun(1) and sbatch(1), output environment
//! variables, and what Slurm 22.05 sets.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// As `CUDA_VISIBLE_DEVICES` has it.
    pub(crate) name: String,
    /// The same in all processes of the node that see it.
    pub(crate) mark: String,
}

/// More than any node has: a list that names more is broken.
const GPUS_MAX: usize = 1 << 10;

/// The GPUs, and which source says so.
pub(super) fn look(root: &Path, env: &dyn Fn(&str) -> Option<String>) -> (Vec<Gpu>, String) {
    let files = on_machine(root);
    let of_slurm = || {
        let names = ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"];
        names.into_iter().find_map(|name| Some((name, env(name)?)))
    };
    let in_slurm = env("SLURM_JOB_ID").is_some();
    if let Some(text) = env("CUDA_VISIBLE_DEVICES") {
        let names = visible(&text, files.as_ref().map(|(count, _)| *count));
        let marks = of_slurm().filter(|_| in_slurm).map(|(_, text)| visible(&text, None));
        let marks = marks.filter(|marks| marks.len() == names.len()).unwrap_or_else(|| names.clone());
        let gpus = names.into_iter().zip(marks).map(|(name, mark)| Gpu { name, mark }).collect();
        return (gpus, format!("CUDA_VISIBLE_DEVICES={text}"));
    }
    if in_slurm {
        return match of_slurm() {
            Some((name, text)) => (alike(visible(&text, None)), format!("{name}={text}")),
            None => (Vec::new(), "Slurm has granted none to this job: ask by --gpus or --gres".to_string()),
        };
    }
    match files {
        Some((count, source)) => (alike((0..count).map(|number| number.to_string()).collect()), source),
        None => (Vec::new(), "no source names one".to_string()),
    }
}

/// GPUs whose names are their marks.
fn alike(names: Vec<String>) -> Vec<Gpu> {
    names.into_iter().map(|name| Gpu { mark: name.clone(), name }).collect()
}

/// The devices of a list as CUDA reads it, of which the machine has so many, if that is known; each once.
fn visible(text: &str, count: Option<usize>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for word in text.split(',').map(str::trim).take(GPUS_MAX) {
        let is_uuid =
            ["GPU-", "MIG-"].iter().any(|begin| word.len() > begin.len() && word.starts_with(begin));
        let name = match word.parse::<u32>() {
            _ if is_uuid => word.to_string(),
            Ok(index) if count.is_none_or(|count| (index as usize) < count) => index.to_string(),
            _ => break,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// How many the driver knows, or has made devices for, and where that was found.
fn on_machine(root: &Path) -> Option<(usize, String)> {
    let entries = |path: &str| fs::read_dir(root.join(path)).ok().map(|all| all.filter_map(Result::ok));
    let driver = entries("proc/driver/nvidia/gpus").map(Iterator::count).filter(|count| *count > 0);
    if let Some(count) = driver {
        return Some((count.min(GPUS_MAX), "/proc/driver/nvidia/gpus".to_string()));
    }
    let is_device = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nvidia"));
        let is_number = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        is_number && entry.file_type().is_ok_and(|kind| kind.is_char_device())
    };
    let devices = entries("dev")?.filter(is_device).count();
    (devices > 0).then(|| (devices.min(GPUS_MAX), "/dev/nvidia*".to_string()))
}
