//! Which launcher is there, and of what kind?

use crate::program::{self, BadProgram};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A kind of launcher: what its options are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// Hydra, of MPICH and those who come from it.
    Hydra,
    /// Slurm's `srun`.
    Srun,
}

/// A launcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Launcher {
    pub(crate) flavour: Flavour,
    pub(crate) program: PathBuf,
}

/// Why no job can start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadLauncher {
    #[error(
        "no launcher for jobs: there is neither `mpirun` nor `mpiexec` in PATH: install Open MPI or MPICH, load its \
         module, or name one by `Batch::builder().launcher(..)`"
    )]
    NotFound,
    #[error("the launcher: {0}")]
    Program(BadProgram),
    #[error(
        "{0} is no launcher that is known here: Open MPI's mpirun, MPICH's (Hydra's) mpiexec and Slurm's srun are"
    )]
    Unknown(String),
    #[error("Slurm's variables cannot be read: {0}")]
    Slurm(String),
    #[error(
        "the host `{0}` is not known to this machine (it does not resolve): mend its name, or name it in /etc/hosts"
    )]
    UnknownHost(String),
}

impl Launcher {
    /// The launcher that the user wants, else `srun` in an allocation of Slurm, else `mpirun` or `mpiexec`.
    pub(super) fn find(
        wanted: Option<&Path>,
        in_slurm: bool,
        cwd: &Path,
        path: &OsString,
    ) -> Result<Self, BadLauncher> {
        let find = |name: &Path| program::find(name, cwd, path.clone());
        if let Some(wanted) = wanted {
            return Self::of(find(wanted).map_err(BadLauncher::Program)?);
        }
        let names = ["srun", "mpirun", "mpiexec"].into_iter().skip(usize::from(!in_slurm));
        let found = names.map(Path::new).find_map(|name| find(name).ok());
        Self::of(found.ok_or(BadLauncher::NotFound)?)
    }

    /// Of what kind a program is: by the name behind its links, or by what it says of its version.
    fn of(program: PathBuf) -> Result<Self, BadLauncher> {
        let real = program.canonicalize().unwrap_or_else(|_| program.clone());
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let flavour = by_name(&name).or_else(|| {
            let said = Command::new(&program).arg("--version").stdin(Stdio::null()).output().ok()?;
            by_version(&String::from_utf8_lossy(&said.stdout))
        });
        let unknown = || BadLauncher::Unknown(program.display().to_string());
        Ok(Self { flavour: flavour.ok_or_else(unknown)?, program })
    }
}

fn by_name(name: &str) -> Option<Flavour> {
    match name {
        "srun" => Some(Flavour::Srun),
        "orterun" | "prterun" | "prun" | "mpirun.openmpi" => Some(Flavour::OpenMpi),
        name if name.contains("hydra") => Some(Flavour::Hydra),
        _ => None,
    }
}

fn by_version(text: &str) -> Option<Flavour> {
    if text.contains("Open MPI") || text.contains("OpenRTE") || text.contains("PRTE") {
        Some(Flavour::OpenMpi)
    } else if text.contains("HYDRA") || text.contains("Intel(R) MPI") {
        Some(Flavour::Hydra)
    } else if text.starts_with("slurm") {
        Some(Flavour::Srun)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(folder: &Path, name: &str, says: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).expect("it can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        path
    }

    #[test]
    fn launchers_are_known_by_name_or_by_what_they_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let flavour = |name, says| Launcher::of(script(folder.path(), name, says)).map(|found| found.flavour);
        assert_eq!(flavour("srun", ""), Ok(Flavour::Srun));
        assert_eq!(flavour("mpirun", "mpirun (Open MPI) 5.0.1"), Ok(Flavour::OpenMpi));
        assert_eq!(flavour("mpiexec", "HYDRA build details:"), Ok(Flavour::Hydra));
        assert!(matches!(flavour("mpirun2", "hello"), Err(BadLauncher::Unknown(_))));
        let link = folder.path().join("mpirun3");
        std::os::unix::fs::symlink(script(folder.path(), "mpiexec.hydra", ""), &link)
            .expect("it can be made");
        assert_eq!(Launcher::of(link).map(|found| found.flavour), Ok(Flavour::Hydra));
    }

    #[test]
    fn in_an_allocation_it_is_srun_and_else_mpirun() {
        let folder = tempfile::tempdir().expect("a folder");
        let find = |in_slurm| {
            let found = Launcher::find(None, in_slurm, Path::new("/"), &folder.path().into());
            found.map(|found| found.flavour)
        };
        assert_eq!(find(true), Err(BadLauncher::NotFound));
        script(folder.path(), "srun", "slurm 22");
        script(folder.path(), "mpirun", "mpirun (Open MPI) 4.1.4");
        assert_eq!((find(true), find(false)), (Ok(Flavour::Srun), Ok(Flavour::OpenMpi)));
    }
}
