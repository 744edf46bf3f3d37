//! The engine inside ranks that a launcher has started.

use tarragon_engine::{Batch, tasks};
use tarragon_testbed::{Launch, lacks_mpirun, role, say};

/// A process of a batch is no rank of the launch: it can be an MPI program, or start one.
#[test]
fn processes_of_a_rank_know_nothing_of_its_launch() {
    let test = "processes_of_a_rank_know_nothing_of_its_launch";
    if role().is_some() {
        let batch = Batch::builder().alone().assume_cpus(2).build().expect("a batch");
        let env = batch.process("env");
        let ranks =
            batch.process("mpirun").args(["--oversubscribe", "--bind-to", "none", "-n", "2", "sh", "-c"]);
        let ranks = ranks.arg("echo rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE");
        batch.compile(tasks![env, ranks]).expect("a list").run().expect("all succeed");
        let env = env.stdout().get().expect("its output");
        let begins = |of: &[&str]| env.lines().any(|line| of.iter().any(|begin| line.starts_with(begin)));
        assert!(
            !begins(&["PMIX_RANK", "PMIX_NAMESPACE", "OMPI_COMM", "OMPI_MCA_orte", "OMPI_MCA_ess"]),
            "{env}"
        );
        assert!(begins(&["OMPI_MCA_coll_base_verbose=0"]), "{env}");
        let said = ranks.stdout().get().expect("its output");
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["rank 0 of 2", "rank 1 of 2"]);
        return say("done");
    }
    if lacks_mpirun() {
        return;
    }
    // A setting of the user's, for all that is below.
    let launch = Launch::new(test, "rank").env("OMPI_MCA_coll_base_verbose", "0");
    let ended = launch.ranks(2).run();
    ended.expect_success();
    assert_eq!(ended.said(), ["done", "done"], "{}", ended.text);
}
