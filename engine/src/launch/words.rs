//! The command line of a launcher: guards for all ranks, on the hosts that the desk has chosen. Pure.

use super::launcher::{Flavour, Launcher};
use std::ffi::OsString;

/// How a job is launched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) words: Vec<OsString>,
    /// Changes to the launcher's environment.
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    /// The variable that tells a rank its number.
    pub(crate) rank_variable: &'static str,
    /// How variables begin that the launcher sets for each rank.
    pub(crate) variables: Vec<String>,
    /// A file that the launcher reads: where it is to be, and what is in it.
    pub(crate) file: Option<(OsString, String)>,
}

/// What a job asks of its launcher.
pub(crate) struct Asked<'a> {
    /// Hosts in the order of ranks, and how many ranks each has.
    pub(crate) hosts: &'a [(String, u32)],
    /// All ranks are on this machine.
    pub(crate) is_local: bool,
    /// How many ranks each executable has.
    pub(crate) executables: &'a [u32],
    /// Cpus of a rank.
    pub(crate) cpus: u32,
    /// Ranks hold GPUs, which their guards show them.
    pub(crate) holds_gpus: bool,
    /// How many GPUs an allocation of Slurm has on each of the hosts.
    pub(crate) gpus_of_node: u32,
    /// The user's own arguments for the launcher.
    pub(crate) more: &'a [OsString],
    /// What is to be started for each rank.
    pub(crate) guard: &'a [OsString],
    /// A variable that guards need.
    pub(crate) variable: &'a str,
    /// A path for a file that the launcher reads.
    pub(crate) file: OsString,
    /// A folder for what it needs for itself, unless the user has chosen one.
    pub(crate) session: Option<OsString>,
}

/// The command line. Ranks are bound by their guards, so that jobs side by side do not share a cpu.
pub(crate) fn line(launcher: &Launcher, asked: &Asked<'_>) -> Line {
    let variables = tarragon_transport::launcher_variables().map(str::to_string).collect();
    let mut line = Line { words: vec![launcher.program.clone().into()], variables, ..Line::default() };
    match launcher.flavour {
        Flavour::OpenMpi => open_mpi(asked, &mut line),
        Flavour::Hydra => hydra(asked, &mut line),
        Flavour::Srun => srun(asked, &mut line),
    }
    line
}

/// Hosts with their ranks: `h0:3,h1:1`.
fn slots(asked: &Asked<'_>) -> String {
    let slots = |(name, ranks): &(String, u32)| format!("{name}:{ranks}");
    match asked.is_local {
        true => format!("localhost:{}", asked.executables.iter().sum::<u32>()),
        false => asked.hosts.iter().map(slots).collect::<Vec<_>>().join(","),
    }
}

impl Line {
    fn add(&mut self, words: &[&str]) {
        self.words.extend(words.iter().map(OsString::from));
    }

    /// A guard for each rank, with words before each executable's.
    fn guards(&mut self, asked: &Asked<'_>, before: &[&str], number: &str) {
        for (index, ranks) in asked.executables.iter().enumerate() {
            if index > 0 {
                self.add(&[":"]);
            }
            self.add(before);
            self.add(&[number, &ranks.to_string()]);
            self.words.extend(asked.guard.iter().cloned());
        }
    }
}

/// All `mpirun` of a user share a folder, which one that ends may remove while another begins; so on one host each gets
/// its own.
fn open_mpi(asked: &Asked<'_>, line: &mut Line) {
    line.rank_variable = "OMPI_COMM_WORLD_RANK";
    line.add(&["--map-by", "slot", "--bind-to", "none"]);
    // On other hosts nobody would remove it; and ranks refuse one for this host alone.
    if let Some(session) = asked.session.as_ref().filter(|_| asked.is_local) {
        line.add(&["--mca", "orte_tmpdir_base"]);
        line.words.push(session.clone());
    }
    line.words.extend(asked.more.iter().cloned());
    // Each executable has hosts and variables of its own, there.
    line.guards(asked, &["--host", &slots(asked), "-x", asked.variable], "-n");
}

fn hydra(asked: &Asked<'_>, line: &mut Line) {
    line.rank_variable = "PMI_RANK";
    line.add(&["-bind-to", "none", "-hosts", &slots(asked)]);
    line.words.extend(asked.more.iter().cloned());
    line.guards(asked, &[], "-n");
}

/// Without what a step has set, which a further `srun` would read as options. `--overlap` shares what this program's
/// own step has; the ledger sees to it that jobs do not overlap each other.
///
/// Of GPUs a step has all that the allocation has on its nodes, out of which each rank is shown its own: with
/// `--gpus-per-task` steps that overlap would be given the same ones (Slurm 22.05). Without a word of them it would
/// have as many as the allocation was asked for each task.
fn srun(asked: &Asked<'_>, line: &mut Line) {
    line.rank_variable = "SLURM_PROCID";
    line.variables.push("SLURM_".to_string());
    line.env = OF_STEPS.iter().map(|name| (OsString::from(name), None)).collect();
    // Which GPUs there are is another matter on each node.
    line.variables.extend(OF_DEVICES.iter().map(|name| name.to_string()));
    if asked.holds_gpus {
        line.env.extend(OF_GPUS.iter().map(|name| (OsString::from(name), None)));
    }
    let ranks: u32 = asked.executables.iter().sum();
    let per_rank = |(name, ranks): &(String, u32)| std::iter::repeat_n(format!("{name}\n"), *ranks as usize);
    // With more than one host exactly as the desk has dealt them.
    line.file = Some((asked.file.clone(), asked.hosts.iter().flat_map(per_rank).collect()));
    line.env.push(("SLURM_HOSTFILE".into(), Some(asked.file.clone())));
    line.add(&["--overlap", "--cpu-bind=none", "--export=ALL", "--input=none", "--wait=0"]);
    line.add(&["--kill-on-bad-exit=0", "--distribution=arbitrary"]);
    line.add(&[
        &format!("--nodes={}", asked.hosts.len()),
        &format!("--ntasks={ranks}"),
        &format!("--cpus-per-task={}", asked.cpus),
    ]);
    match asked.gpus_of_node {
        all if asked.holds_gpus && all > 0 && asked.hosts.len() == 1 => line.add(&[&format!("--gpus={all}")]),
        all if asked.holds_gpus && all > 0 => line.add(&[&format!("--gpus-per-node={all}")]),
        _ => {}
    }
    line.words.extend(asked.more.iter().cloned());
    line.words.extend(asked.guard.iter().cloned());
}

/// Variables by which Slurm shows GPUs to a process.
const OF_DEVICES: &[&str] =
    &["CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"];

/// What an allocation was asked for, which `srun` would ask its step for. *Source:* srun(1).
const OF_GPUS: &[&str] = &[
    "SLURM_GPUS",
    "SLURM_GPUS_PER_NODE",
    "SLURM_GPUS_PER_SOCKET",
    "SLURM_GPUS_PER_TASK",
    "SLURM_GPU_BIND",
    "SLURM_GRES",
    "SLURM_NTASKS_PER_GPU",
    "SLURM_STEP_GRES",
    "SLURM_TRES_BIND",
];

/// *Source:* srun(1), input environment variables; and what a step sets that they are read from.
const OF_STEPS: &[&str] = &[
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPU_BIND",
    "SLURM_CPU_BIND_LIST",
    "SLURM_CPU_BIND_TYPE",
    "SLURM_CPU_BIND_VERBOSE",
    "SLURM_DISTRIBUTION",
    "SLURM_EXACT",
    "SLURM_EXCLUSIVE",
    "SLURM_GTIDS",
    "SLURM_LOCALID",
    "SLURM_MEM_BIND",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_GPU",
    "SLURM_MEM_PER_NODE",
    "SLURM_NNODES",
    "SLURM_NODEID",
    "SLURM_NPROCS",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_CORE",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_NTASKS_PER_SOCKET",
    "SLURM_OVERCOMMIT",
    "SLURM_PROCID",
    "SLURM_SRUN_COMM_HOST",
    "SLURM_SRUN_COMM_PORT",
    "SLURM_STEPID",
    "SLURM_STEP_ID",
    "SLURM_STEP_LAUNCHER_PORT",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
    "SLURM_TASK_PID",
    "SLURM_TRES_PER_TASK",
    "SLURM_UMASK",
];

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(flavour: Flavour, is_local: bool, executables: &[u32], expected: Expect) {
        let guard = ["/bin/program".into(), "guard".into()];
        let hosts = [("h0".to_string(), 2), ("h1".to_string(), 1)];
        let asked = Asked {
            hosts: if is_local { &hosts[..1] } else { &hosts },
            is_local,
            executables,
            cpus: 2,
            holds_gpus: false,
            gpus_of_node: 2,
            more: &["--more".into()],
            guard: &guard,
            variable: "V",
            file: "/run/hosts".into(),
            session: Some("/run/session".into()),
        };
        let line = line(&Launcher { flavour, program: "/bin/launch".into() }, &asked);
        let words: Vec<_> = line.words.iter().map(|word| word.to_string_lossy()).collect();
        let file = line.file.map(|(_, text)| text.replace('\n', " ")).unwrap_or_default();
        let text = words
            .join(" ")
            .replace(" --more", "\n--more")
            .replace(" : ", "\n: ")
            .replace(" --distribution", "\n--distribution");
        expected.assert_eq(&format!("{text}\n{file}"));
    }

    #[test]
    fn open_mpis_line() {
        check(
            Flavour::OpenMpi,
            true,
            &[2],
            expect![[r#"
            /bin/launch --map-by slot --bind-to none --mca orte_tmpdir_base /run/session
            --more --host localhost:2 -x V -n 2 /bin/program guard
        "#]],
        );
        check(
            Flavour::OpenMpi,
            false,
            &[1, 2],
            expect![[r#"
            /bin/launch --map-by slot --bind-to none
            --more --host h0:2,h1:1 -x V -n 1 /bin/program guard
            : --host h0:2,h1:1 -x V -n 2 /bin/program guard
        "#]],
        );
    }

    #[test]
    fn hydras_line() {
        check(
            Flavour::Hydra,
            false,
            &[1, 2],
            expect![[r#"
            /bin/launch -bind-to none -hosts h0:2,h1:1
            --more -n 1 /bin/program guard
            : -n 2 /bin/program guard
        "#]],
        );
    }

    #[test]
    fn a_step_has_all_gpus_of_the_allocation() {
        let with = |holds_gpus| {
            let hosts = [("h0".to_string(), 2)];
            let asked = Asked {
                hosts: &hosts,
                is_local: false,
                executables: &[2],
                cpus: 1,
                holds_gpus,
                gpus_of_node: 2,
                more: &[],
                guard: &[],
                variable: "V",
                file: "/run/hosts".into(),
                session: None,
            };
            line(&Launcher { flavour: Flavour::Srun, program: "/bin/launch".into() }, &asked)
        };
        let removes =
            |line: &Line| line.env.iter().any(|(name, value)| name == "SLURM_GPUS" && value.is_none());
        assert!(removes(&with(true)) && !removes(&with(false)));
        let asks = |line: &Line| line.words.iter().any(|word| word == "--gpus=2");
        assert!(asks(&with(true)) && !asks(&with(false)));
        let shown = "CUDA_VISIBLE_DEVICES".to_string();
        assert!(with(true).variables.contains(&shown), "each node has its own");
    }

    #[test]
    fn sruns_line() {
        check(
            Flavour::Srun,
            false,
            &[3],
            expect![[r#"
            /bin/launch --overlap --cpu-bind=none --export=ALL --input=none --wait=0 --kill-on-bad-exit=0
            --distribution=arbitrary --nodes=2 --ntasks=3 --cpus-per-task=2
            --more /bin/program guard
            h0 h0 h1 "#]],
        );
    }
}
