//! Tests of the machine's limits, on folders that look like other machines.

use super::Machine;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const GIB: u64 = 1 << 30;
const EIGHT: &[u32] = &[0, 1, 2, 3, 4, 5, 6, 7];
const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");
const MOUNT_V2: (&str, &str) = (
    "proc/self/mountinfo",
    "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
);
const MOUNTS_V1: (&str, &str) = (
    "proc/self/mountinfo",
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
     32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
     35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
     41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
);

/// A machine made of these files, with this environment and eight CPUs.
fn look(files: &[(&str, &str)], env: &[(&str, &str)]) -> Machine {
    look_with(files, env, EIGHT)
}

fn look_with(files: &[(&str, &str)], env: &[(&str, &str)], affinity: &[u32]) -> Machine {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let env: HashMap<_, _> = env.iter().copied().collect();
    Machine::look_in(root.path(), &|name| env.get(name).map(|text| (*text).to_owned()), affinity)
}

/// Granted CPUs and memory, and that the reasons name these sources.
fn check(machine: &Machine, cpus: (u32, &str), memory: (u64, &str)) {
    assert_eq!((machine.cpus_granted, machine.memory_bytes), (cpus.0, memory.0), "{machine:?}");
    assert!(machine.cpus_why.contains(cpus.1), "{machine:?}");
    assert!(machine.memory_why.contains(memory.1), "{machine:?}");
}

#[test]
fn a_machine_without_limits_grants_what_it_has() {
    let machine = look_with(&[MEMINFO], &[], &[5, 2, 2]);
    check(&machine, (2, "affinity"), (16 * GIB, "MemTotal"));
    assert_eq!(machine.cpus, [2, 5]);
}

#[test]
fn nothing_at_all_grants_one_cpu_and_unknown_memory() {
    let machine = look_with(&[], &[], &[]);
    check(&machine, (1, "no source"), (u64::MAX, "no source"));
    assert_eq!(machine.cpus, [0]);
}

#[test]
fn without_affinity_the_files_name_the_cpus() {
    let status = ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2,8\n");
    let online = ("sys/devices/system/cpu/online", "0-15\n");
    assert_eq!(look_with(&[status, online], &[], &[]).cpus, [0, 1, 2, 8]);
    let broken = ("proc/self/status", "Cpus_allowed_list:\t0-4294967295\n");
    check(&look_with(&[broken, online], &[], &[]), (16, "online"), (u64::MAX, ""));
}

#[test]
fn version_2_takes_the_least_up_to_the_root() {
    let group = ("proc/self/cgroup", "0::/job/step\n");
    let inner = ("sys/fs/cgroup/job/step/cpu.max", "350000 100000\n");
    let outer = ("sys/fs/cgroup/job/cpu.max", "150000 100000\n");
    let inner_memory = ("sys/fs/cgroup/job/step/memory.max", "max\n");
    let outer_memory = ("sys/fs/cgroup/job/memory.max", "4294967296\n");
    let machine = look(&[MEMINFO, MOUNT_V2, group, inner, outer, inner_memory, outer_memory], &[]);
    check(&machine, (2, "/sys/fs/cgroup/job/cpu.max is 150000 100000"), (4 * GIB, "job/memory.max"));
    let machine = look(&[MEMINFO, MOUNT_V2, group, inner], &[]);
    check(&machine, (4, "step/cpu.max"), (16 * GIB, "MemTotal"));
}

#[test]
fn version_2_without_limits_limits_nothing() {
    let group = ("proc/self/cgroup", "0::/job\n");
    let cpu = ("sys/fs/cgroup/job/cpu.max", "max 100000\n");
    let machine = look(&[MEMINFO, MOUNT_V2, group, cpu], &[]);
    check(&machine, (8, "affinity"), (16 * GIB, "MemTotal"));
}

#[test]
fn version_1_takes_the_least_up_to_the_root() {
    let groups = ("proc/self/cgroup", "9:memory:/a/b\n3:cpu,cpuacct:/c\n0::/\n");
    let files = [
        MEMINFO,
        MOUNTS_V1,
        groups,
        ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2147483648\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "125000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "50000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
    ];
    check(
        &look(&files, &[]),
        (3, "cpu.cfs_quota_us is 125000 of 50000"),
        (2 * GIB, "a/memory.limit_in_bytes"),
    );
}

#[test]
fn hybrid_reads_both_hierarchies() {
    let groups = ("proc/self/cgroup", "4:memory:/\n1:cpu:/\n0::/x\n");
    let files = [
        MEMINFO,
        MOUNTS_V1,
        groups,
        ("sys/fs/cgroup/unified/x/memory.max", "1073741824"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000"),
    ];
    check(&look(&files, &[]), (1, "cpu,cpuacct"), (GIB, "unified/x/memory.max"));
}

#[test]
fn a_container_sees_its_group_at_the_mount() {
    let mount = ("proc/self/mountinfo", "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
    let limit = ("sys/fs/cgroup/cpu.max", "300000 100000");
    for path in ["0::/docker/abc\n", "0::/\n", "0::/../elsewhere\n"] {
        check(
            &look(&[MEMINFO, mount, limit, ("proc/self/cgroup", path)], &[]),
            (3, "cpu.max"),
            (16 * GIB, ""),
        );
    }
}

#[test]
fn mount_points_may_hold_blanks() {
    let mount = ("proc/self/mountinfo", "31 23 0:28 / /my\\040groups rw - cgroup2 cgroup2 rw\n");
    let limit = ("my groups/cpu.max", "200000 100000");
    check(&look(&[mount, limit], &[]), (2, "/my groups/cpu.max"), (u64::MAX, ""));
}

#[test]
fn without_mountinfo_the_usual_places_are_looked_at() {
    check(&look(&[("sys/fs/cgroup/cpu.max", "200000 100000")], &[]), (2, "cpu.max"), (u64::MAX, ""));
    check(&look(&[("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000")], &[]), (4, "cfs_quota"), (u64::MAX, ""));
    let memory = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824");
    check(&look(&[memory], &[]), (8, "affinity"), (GIB, "limit_in_bytes"));
}

#[test]
fn broken_files_are_passed_over() {
    let files = [
        ("proc/meminfo", "MemTotal: many kB\n"),
        (
            "proc/self/mountinfo",
            "\n1 2 3\nx - cgroup2\n31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        ),
        ("proc/self/cgroup", "nonsense\n0::/job\n"),
        ("sys/fs/cgroup/job/cpu.max", "0 0\n"),
        ("sys/fs/cgroup/job/memory.max", "-5\n"),
        ("sys/fs/cgroup/memory.max", ""),
    ];
    check(&look(&files, &[]), (8, "affinity"), (u64::MAX, "no source"));
}

#[test]
fn slurm_counts_only_inside_a_job() {
    let limits = [("SLURM_CPUS_PER_TASK", "2"), ("SLURM_CPUS_ON_NODE", "4"), ("SLURM_MEM_PER_NODE", "2048")];
    check(&look(&[MEMINFO], &limits), (8, "affinity"), (16 * GIB, "MemTotal"));
    let inside: Vec<_> = [("SLURM_JOB_ID", "17")].into_iter().chain(limits).collect();
    check(&look(&[MEMINFO], &inside), (2, "SLURM_CPUS_PER_TASK=2"), (2 * GIB, "SLURM_MEM_PER_NODE=2048 MiB"));
    let node = [("SLURM_JOB_ID", "17"), ("SLURM_CPUS_ON_NODE", "4"), ("SLURM_MEM_PER_CPU", "512")];
    check(&look(&[MEMINFO], &node), (4, "SLURM_CPUS_ON_NODE=4"), (2 * GIB, "=512 MiB for 4 CPUs"));
}

#[test]
fn slurm_zero_or_nonsense_limits_nothing() {
    let env = [("SLURM_JOB_ID", "17"), ("SLURM_MEM_PER_NODE", "0"), ("SLURM_CPUS_ON_NODE", "all")];
    check(&look(&[MEMINFO], &env), (8, "affinity"), (16 * GIB, "MemTotal"));
}

#[test]
fn the_least_of_all_sources_holds() {
    let quota = ("sys/fs/cgroup/cpu.max", "300000 100000");
    let slurm = [("SLURM_JOB_ID", "17"), ("SLURM_CPUS_ON_NODE", "5")];
    check(&look(&[MEMINFO, quota], &slurm), (3, "cpu.max"), (16 * GIB, ""));
    check(&look_with(&[MEMINFO, quota], &slurm, &[3, 4]), (2, "affinity"), (16 * GIB, ""));
}

#[test]
fn this_machine_grants_something() {
    let machine = Machine::look();
    assert!(!machine.cpus.is_empty() && machine.cpus.is_sorted());
    assert!((1..=machine.cpus.len()).contains(&(machine.cpus_granted as usize)), "{machine:?}");
    assert!(machine.memory_bytes >= 1 << 20, "{machine:?}");
    let missing = Machine::look_in(Path::new("/nonexistent"), &|_| None, &machine.cpus);
    assert!(machine.memory_bytes <= missing.memory_bytes);
}

/// The names and marks of the GPUs, and the source.
fn gpus(files: &[(&str, &str)], env: &[(&str, &str)]) -> (String, String, String) {
    let machine = look(files, env);
    let names = machine.gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(",");
    let marks = machine.gpus.iter().map(|gpu| gpu.mark.as_str()).collect::<Vec<_>>().join(",");
    (names, marks, machine.gpus_why)
}

#[test]
fn visible_devices_are_read_as_cuda_reads_them() {
    let names = |text: &str| gpus(&[], &[("CUDA_VISIBLE_DEVICES", text)]).0;
    assert_eq!(names("0,1"), "0,1");
    assert_eq!(names(" 3, 1 ,2"), "3,1,2");
    assert_eq!(names("GPU-8932f937-d72c,MIG-GPU-a/1/0,MIG-41b3"), "GPU-8932f937-d72c,MIG-GPU-a/1/0,MIG-41b3");
    for none in ["", " ", "-1", "NoDevFiles", "none", "GPU-", "MIG-", ",0", "0x1", "1.5", "99999999999"] {
        assert_eq!(names(none), "", "{none:?}");
    }
    // Up to the first that is none.
    assert_eq!(names("2,-1,0"), "2");
    assert_eq!(names("0,x,1"), "0");
    assert_eq!(names("1,,0"), "1");
    // One that is named twice is one.
    assert_eq!(names("1,01,0,1"), "1,0");
    let many: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    assert_eq!(names(&many.join(",")).split(',').count(), 1024);
}

#[test]
fn a_variable_names_no_device_that_the_driver_does_not_know() {
    let driver = [
        ("proc/driver/nvidia/gpus/0000:07:00.0/information", "Model: A"),
        ("proc/driver/nvidia/gpus/0000:0b:00.0/information", "Model: A"),
    ];
    assert_eq!(gpus(&driver, &[("CUDA_VISIBLE_DEVICES", "1,2,0")]).0, "1");
    assert_eq!(gpus(&driver, &[("CUDA_VISIBLE_DEVICES", "GPU-1,0")]).0, "GPU-1,0");
    let (names, marks, why) = gpus(&driver, &[]);
    assert_eq!((&*names, &*marks, &*why), ("0,1", "0,1", "/proc/driver/nvidia/gpus"));
}

#[test]
fn in_a_job_of_slurm_only_what_it_grants_counts() {
    let driver = [("proc/driver/nvidia/gpus/0000:07:00.0/information", "Model: A")];
    let job = ("SLURM_JOB_ID", "17");
    let (names, _, why) = gpus(&driver, &[job]);
    assert_eq!(names, "");
    assert!(why.contains("granted none"), "{why}");
    let (names, _, why) = gpus(&driver, &[job, ("SLURM_JOB_GPUS", "0,1")]);
    assert_eq!((&*names, &*why), ("0,1", "SLURM_JOB_GPUS=0,1"));
    assert_eq!(gpus(&[], &[job, ("SLURM_JOB_GPUS", "0,1"), ("SLURM_STEP_GPUS", "1")]).0, "1");
    // What is left of another job says nothing outside of one.
    assert_eq!(gpus(&driver, &[("SLURM_JOB_GPUS", "2,3")]).0, "0");
    assert_eq!(gpus(&[], &[("SLURM_STEP_GPUS", "2,3")]).0, "");
}

#[test]
fn the_variable_comes_first_and_slurm_says_which_devices_they_are() {
    let job = [("SLURM_JOB_ID", "17"), ("CUDA_VISIBLE_DEVICES", "0,1")];
    let (names, marks, why) = gpus(&[], &[&job[..], &[("SLURM_STEP_GPUS", "2,3")]].concat());
    assert_eq!((&*names, &*marks, &*why), ("0,1", "2,3", "CUDA_VISIBLE_DEVICES=0,1"));
    // Of another step, maybe.
    let (_, marks, _) = gpus(&[], &[&job[..], &[("SLURM_STEP_GPUS", "2")]].concat());
    assert_eq!(marks, "0,1");
    assert_eq!(gpus(&[], &[job[0], ("CUDA_VISIBLE_DEVICES", ""), ("SLURM_JOB_GPUS", "0")]).0, "");
}

#[test]
fn files_that_are_no_devices_are_no_gpus() {
    assert_eq!(gpus(&[("dev/nvidia0", ""), ("dev/nvidiactl", "")], &[]).0, "");
    assert_eq!(gpus(&[], &[]).2, "no source names one");
}

#[test]
fn devices_of_the_driver_are_counted() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("dev")).unwrap();
    for (name, minor) in
        [("nvidia0", 0), ("nvidia1", 1), ("nvidiactl", 255), ("nvidia-uvm", 2), ("nvidia", 3)]
    {
        let path = root.path().join("dev").join(name);
        let made = mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, makedev(195, minor));
        if let Err(why) = made {
            return tarragon_testbed::skip("mknod", &why.to_string());
        }
    }
    let machine = Machine::look_in(root.path(), &|_| None, EIGHT);
    assert_eq!(machine.gpus.len(), 2);
    assert_eq!(machine.gpus_why, "/dev/nvidia*");
}
