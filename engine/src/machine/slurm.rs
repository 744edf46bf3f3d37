//! What Slurm grants to this process, as it tells in the environment.

use super::limit::{Limit, Limits};

/// The limits of the job this process belongs to; none outside a job, where variables may be left over from elsewhere.
/// *Source:* sbatch(1) and srun(1), output environment variables.
pub(super) fn limits(env: &dyn Fn(&str) -> Option<String>) -> Limits {
    let mut limits = Limits::default();
    if env("SLURM_JOB_ID").is_none() {
        return limits;
    }
    let number = |name: &str| env(name)?.trim().parse::<u64>().ok().filter(|number| *number > 0);
    let found = |name: &str| number(name).map(|number| Limit::new(number, format!("{name}={number}")));
    limits.cpus.extend(found("SLURM_CPUS_PER_TASK"));
    limits.cpus.extend(found("SLURM_CPUS_ON_NODE"));

    // The memory of a node belongs to all tasks on it, the memory per CPU to the CPUs of this task.
    const MEBIBYTE: u64 = 1 << 20;
    limits.memory.extend(found("SLURM_MEM_PER_NODE").map(|limit| times(limit, MEBIBYTE, " MiB")));
    let cpus = limits.cpus.first().map(|limit| limit.amount);
    if let (Some(per_cpu), Some(cpus)) = (found("SLURM_MEM_PER_CPU"), cpus) {
        let unit = format!(" MiB for {cpus} CPUs");
        limits.memory.push(times(per_cpu, MEBIBYTE.saturating_mul(cpus), &unit));
    }
    limits
}

fn times(limit: Limit, factor: u64, unit: &str) -> Limit {
    Limit::new(limit.amount.saturating_mul(factor), limit.why + unit)
}
