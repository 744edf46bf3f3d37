//! Which machines may a batch's jobs use? Those that the user names, or the nodes of the Slurm allocation this program
//! runs in. Looks at the environment that it is given.

use super::BadLauncher;
use std::net::ToSocketAddrs;

/// Machines for jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// This machine, as launchers call it.
    pub(crate) here: String,
    /// Jobs may run on this machine.
    pub(crate) is_here: bool,
    /// Others, and how many cpus of each.
    pub(crate) others: Vec<(String, u32)>,
    /// How many GPUs each of them has.
    pub(crate) gpus_of_others: u32,
    /// How many of this node an allocation of Slurm has, maybe more than this process.
    pub(crate) gpus_of_node: u32,
    source: Source,
}

/// Who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Nobody,
    User,
    Slurm,
    /// Variables of Slurm that cannot be read: name and value.
    BadSlurm(String),
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            here: "localhost".to_string(),
            is_here: true,
            others: Vec::new(),
            gpus_of_others: 0,
            gpus_of_node: 0,
            source: Source::Nobody,
        }
    }
}

impl Hosts {
    /// `named` are the user's. One of several ranks has this machine alone.
    pub(crate) fn look(
        named: &[(String, u32)],
        is_one_of_several: bool,
        own: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let mut hosts = match env("SLURM_JOB_ID") {
            Some(_) if named.is_empty() => Self::of_slurm(env),
            _ => Self::default(),
        };
        if !named.is_empty() {
            let others = named.iter().filter(|(name, _)| short(name) != short(own) && name != "localhost");
            hosts = Self { others: others.cloned().collect(), source: Source::User, ..Self::default() };
            if !hosts.others.is_empty() {
                // Where others are, each has to know this one by a name.
                hosts.here = own.to_string();
            }
        }
        if is_one_of_several {
            hosts.others.clear();
            hosts.gpus_of_others = 0;
            hosts.is_here = true;
            // Its jobs may have ranks on the machines of other ranks, too.
            if hosts.source != Source::Slurm || hosts.here == "localhost" {
                hosts.here = own.to_string();
            }
        }
        hosts
    }

    /// As another process, whose batch starts the jobs, says.
    #[cfg(not(loom))]
    pub(super) fn of_primary(is_here: bool, others: Vec<(String, u32)>, gpus_of_others: u32) -> Self {
        Self { is_here, others, gpus_of_others, ..Self::default() }
    }

    /// *Source:* sbatch(1) and srun(1), output environment variables. A step's own nodes count, in one.
    fn of_slurm(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let Some(list) = env("SLURM_STEP_NODELIST").or_else(|| env("SLURM_JOB_NODELIST")) else {
            return Self { source: Source::Slurm, ..Self::default() };
        };
        let cpus = env("SLURM_JOB_CPUS_PER_NODE").unwrap_or_default();
        let (Some(of_job), Some(nodes), Some(cpus)) = (
            env("SLURM_JOB_NODELIST").as_deref().map_or(Some(Vec::new()), names),
            names(&list),
            counts(&cpus),
        ) else {
            let text = format!("SLURM_JOB_NODELIST={list}, SLURM_JOB_CPUS_PER_NODE={cpus}");
            return Self { source: Source::BadSlurm(text), ..Self::default() };
        };
        // Counts are by the allocation's nodes.
        let all = if of_job.is_empty() { &nodes } else { &of_job };
        let of = |name: &String| {
            let at = all.iter().position(|other| other == name).unwrap_or(0);
            cpus.get(at).or(cpus.last()).copied().unwrap_or(1)
        };
        let here = env("SLURMD_NODENAME");
        let is_here = here.as_ref().is_some_and(|here| nodes.contains(here));
        let others = nodes.iter().filter(|name| Some(*name) != here.as_ref());
        let (gpus_of_node, gpus_of_others) = gpus_of_nodes(env, all.len());
        Self {
            others: others.map(|name| (name.clone(), of(name))).collect(),
            here: here.unwrap_or_else(|| "localhost".to_string()),
            is_here,
            gpus_of_node,
            gpus_of_others,
            source: Source::Slurm,
        }
    }

    /// This program runs in an allocation of Slurm.
    pub(crate) fn is_of_slurm(&self) -> bool {
        self.source == Source::Slurm
    }

    /// What is wrong with them, as far as can be known now. Those that Slurm names are its own matter.
    pub(super) fn check(&self) -> Result<(), BadLauncher> {
        match &self.source {
            Source::BadSlurm(text) => Err(BadLauncher::Slurm(text.clone())),
            Source::User => {
                let unknown =
                    self.others.iter().find(|(name, _)| (name.as_str(), 0).to_socket_addrs().is_err());
                unknown.map_or(Ok(()), |(name, _)| Err(BadLauncher::UnknownHost(name.clone())))
            }
            Source::Nobody | Source::Slurm => Ok(()),
        }
    }
}

/// How many GPUs an allocation has on this node, and for sure on each other one of so many. Slurm names those of this
/// node alone. The others have as many; but where the allocation has a number of them in all, Slurm deals it out as it
/// likes, and where that has not come out even a step cannot be told to have all of them.
fn gpus_of_nodes(env: &dyn Fn(&str) -> Option<String>, nodes: usize) -> (u32, u32) {
    // `a100:2,v100:1`, or a number alone.
    let count = |text: String| -> Option<u32> {
        text.split(',').map(|part| part.rsplit(':').next()?.trim().parse::<u32>().ok()).sum()
    };
    let of_job = env("SLURM_JOB_GPUS").map(|list| list.split(',').filter(|id| !id.is_empty()).count() as u32);
    let here = of_job.or_else(|| env("SLURM_GPUS_ON_NODE").and_then(count)).unwrap_or(0);
    let is_each = env("SLURM_GPUS_PER_NODE").is_some();
    let all = env("SLURM_GPUS").and_then(count).filter(|_| !is_each);
    let is_even = all.is_none_or(|all| u64::from(all) == u64::from(here) * nodes as u64);
    (here, if is_even { here } else { 0 })
}

fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The names in a list as Slurm writes it: `h[0-3,07],login`. Nothing if it is none.
fn names(list: &str) -> Option<Vec<String>> {
    /// More than any allocation has: a list that names more is broken.
    const NAMES_MAX: usize = 1 << 20;
    let mut names = Vec::new();
    let mut rest = list.trim();
    while !rest.is_empty() {
        let end = top_level_comma(rest)?;
        let (part, after) = rest.split_at(end);
        rest = after.strip_prefix(',').unwrap_or(after);
        let mut of_part = vec![String::new()];
        let mut text = part;
        while !text.is_empty() {
            let (plain, after) = text.split_at(text.find('[').unwrap_or(text.len()));
            of_part.iter_mut().for_each(|name| name.push_str(plain));
            text = after;
            if let Some(inside) = text.strip_prefix('[') {
                let (ranges, after) = inside.split_once(']')?;
                let numbers = numbers(ranges)?;
                if of_part.len() * numbers.len() > NAMES_MAX {
                    return None;
                }
                let all = of_part.iter().flat_map(|name| numbers.iter().map(move |n| format!("{name}{n}")));
                of_part = all.collect();
                text = after;
            }
        }
        if of_part.iter().any(String::is_empty) || part.contains([' ', '/', ']']) && !part.contains('[') {
            return None;
        }
        names.append(&mut of_part);
    }
    (!names.is_empty()).then_some(names)
}

/// Where the first part of a list ends; nothing if brackets do not match.
fn top_level_comma(list: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, letter) in list.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    (depth == 0).then_some(list.len())
}

/// The numbers of `0-3,07`, with their leading zeros.
fn numbers(ranges: &str) -> Option<Vec<String>> {
    const NUMBERS_MAX: u64 = 1 << 20;
    let mut all = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if to < from || to - from > NUMBERS_MAX {
            return None;
        }
        let width = first.len();
        all.extend((from..=to).map(|number| format!("{number:0width$}")));
    }
    Some(all)
}

/// The counts of `4(x2),2`.
fn counts(text: &str) -> Option<Vec<u32>> {
    let mut counts = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1usize),
        };
        counts.extend(std::iter::repeat_n(count.parse::<u32>().ok()?, times.min(1 << 20)));
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(named: &[(&str, u32)], is_one_of_several: bool, env: &[(&str, &str)]) -> Hosts {
        let named: Vec<(String, u32)> = named.iter().map(|(name, cpus)| (name.to_string(), *cpus)).collect();
        let value = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        Hosts::look(&named, is_one_of_several, "own.cluster", &value)
    }

    fn others(hosts: &Hosts) -> Vec<(&str, u32)> {
        hosts.others.iter().map(|(name, cpus)| (name.as_str(), *cpus)).collect()
    }

    #[test]
    fn lists_of_slurm_are_read() {
        assert_eq!(
            names("h[0-2,07],login"),
            Some(["h0", "h1", "h2", "h07", "login"].map(String::from).to_vec())
        );
        assert_eq!(names("a[1-2]b[08-09]x").map(|n| n.join(" ")), Some("a1b08x a1b09x a2b08x a2b09x".into()));
        for broken in ["", "h[0-2", "h0-2]", "h[2-0]", "h[a]", "h[0-99999999999]", ",a"] {
            assert_eq!(names(broken), None, "{broken}");
        }
        assert_eq!(counts("4(x2),2"), Some(vec![4, 4, 2]));
        assert_eq!(counts("4(x2"), None);
    }

    #[test]
    fn an_allocations_nodes_are_hosts_and_this_one_only_if_it_is_among_them() {
        let job =
            [("SLURM_JOB_ID", "1"), ("SLURM_JOB_NODELIST", "h[0-2]"), ("SLURM_JOB_CPUS_PER_NODE", "4(x2),2")];
        let on = |node| look(&[], false, &[&job[..], &[("SLURMD_NODENAME", node)]].concat());
        assert_eq!((others(&on("h0")), on("h0").is_here), (vec![("h1", 4), ("h2", 2)], true));
        assert_eq!((others(&on("login")).len(), on("login").is_here), (3, false));
        assert!(!look(&[], false, &job).is_here);
        // In a step its own nodes count.
        let step = [&job[..], &[("SLURMD_NODENAME", "h2"), ("SLURM_STEP_NODELIST", "h[1-2]")]].concat();
        assert_eq!(others(&look(&[], false, &step)), [("h1", 4)]);
        // Other ranks use the other nodes.
        assert_eq!(others(&look(&[], true, &step)), []);
    }

    #[test]
    fn other_nodes_have_as_many_gpus_as_is_sure() {
        let gpus = |nodes: &str, more: &[(&str, &str)]| {
            let job = [
                ("SLURM_JOB_ID", "1"),
                ("SLURM_JOB_NODELIST", nodes),
                ("SLURM_JOB_CPUS_PER_NODE", "4"),
                ("SLURMD_NODENAME", "h0"),
            ];
            look(&[], false, &[&job[..], more].concat()).gpus_of_others
        };
        let here = ("SLURM_JOB_GPUS", "0,1");
        assert_eq!(gpus("h[0-1]", &[]), 0);
        assert_eq!(gpus("h[0-1]", &[here]), 2);
        assert_eq!(gpus("h[0-3]", &[("SLURM_GPUS_ON_NODE", "2")]), 2);
        assert_eq!(gpus("h[0-3]", &[here, ("SLURM_GPUS_PER_NODE", "a100:2"), ("SLURM_GPUS", "8")]), 2);
        assert_eq!(gpus("h[0-1]", &[here, ("SLURM_GPUS", "a100:2,v100:1")]), 0);
        assert_eq!(gpus("h[0-2]", &[here, ("SLURM_GPUS", "5")]), 0);
        assert_eq!(gpus("h[0-2]", &[here, ("SLURM_GPUS", "6")]), 2);
        assert_eq!(gpus("h[0-1]", &[here, ("SLURM_GPUS_PER_NODE", "x")]), 2);
    }

    #[test]
    fn damaged_variables_are_told() {
        let env = [("SLURM_JOB_ID", "1"), ("SLURM_JOB_NODELIST", "h[0-2"), ("SLURM_JOB_CPUS_PER_NODE", "4")];
        let error = look(&[], false, &env).check().expect_err("they are damaged");
        assert!(error.to_string().contains("h[0-2"), "{error}");
    }

    #[test]
    fn named_hosts_are_used_and_this_one_is_no_other() {
        let hosts = look(&[("own", 9), ("a", 2)], false, &[("SLURM_JOB_ID", "1")]);
        assert_eq!(
            (others(&hosts), &*hosts.here, hosts.is_of_slurm()),
            (vec![("a", 2)], "own.cluster", false)
        );
        let unknown = look(&[("no.such.host.invalid", 1)], false, &[]).check().expect_err("nobody knows it");
        assert!(unknown.to_string().contains("no.such.host.invalid"), "{unknown}");
    }
}
