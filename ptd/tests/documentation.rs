//! Every YAML block of `docs/ptd.md` loads, and its workflows do what is said of them.

use std::path::Path;
use std::sync::Arc;
use tarragon_engine::{AnyTask, Batch, Exit};
use tarragon_ptd::workflow::{Options, Planned, Workflow, load};
use tarragon_ptd::{Args, Dictionary, Mismatch, Template, Value, selector};
use tarragon_transport::Place;

const PAGE: &str = include_str!("../../docs/ptd.md");

fn blocks() -> impl Iterator<Item = &'static str> {
    PAGE.split("```").filter_map(|part| part.strip_prefix("yaml\n"))
}

struct Fields;

impl Dictionary for Fields {
    fn name(&self) -> String {
        "fields".into()
    }

    fn place(&self, key: &Value) -> Result<Place, Mismatch> {
        Ok(Place { uid: 1, bytes: key.to::<u64>()?.to_le_bytes().to_vec(), home: None })
    }

    fn descriptor(&self) -> Value {
        Value::NULL
    }

    fn descriptor_text(&self) -> String {
        String::new()
    }
}

#[test]
fn the_template_of_every_key_loads_and_has_every_key() {
    let block = blocks().next().unwrap();
    let template = Template::of_text("every_key.yml", block).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert!(template.warnings().is_empty(), "{}", template.warnings());
    let schema: serde_json::Value = serde_json::from_str(&tarragon_ptd::schema()).unwrap();
    for table in ["template", "executable", "access", "timeout"] {
        for key in schema["$defs"][table]["properties"].as_object().unwrap().keys() {
            assert!(block.contains(&format!("{key}:")), "the page does not show `{key}` of {table}");
        }
    }
    let import = template.import().arg("./solver").selector(selector(|i: u64, by: u64| i + by));
    let import = import.arg(Value::dictionary(Arc::new(Fields))).arg("base").kwarg("tag", "t");
    let imported = import.load::<Exit>().unwrap_or_else(|error| panic!("{error}"));
    let spec = imported.spec(Args::from((7, 1)).kwarg("input", "in.dat")).unwrap();
    assert_eq!(
        spec.command(),
        "2 x (cd base && OMP_NUM_THREADS=4 ./solver --step 7 in.dat --threads 4 -v) : 1 x ./coupler 8"
    );
    assert_eq!(spec.timeout().unwrap().as_secs(), 5400);
    let writes: Vec<String> = spec.writes().map(|datum| format!("{datum:?}")).collect();
    assert!(writes[1].contains("base/results/t_0007.dat"), "{writes:?}");
}

/// Runs a workflow to its end.
fn run(workflow: &Workflow) -> usize {
    let batch = Batch::new().expect("a batch");
    let mut count = 0;
    for planned in workflow.calls() {
        match planned {
            Planned::Call(call) => {
                count += 1;
                let task = call.task(&batch).expect("its values fit");
                batch.submit(&*task as &dyn AnyTask).expect("the batch is open");
            }
            Planned::Gate(gate) => batch.submit(gate.task(&batch)).expect("the batch is open"),
        }
    }
    batch.fence().expect("all tasks succeed");
    count
}

#[test]
fn the_workflows_run() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().display().to_string();
    // Tasks run where this program is; here they are to run in the folder.
    let in_folder = |block: &str| {
        block
            .replace("    args: [", &format!("    cwd: {home}\n    args: ["))
            .replace("{target: sh,", &format!("{{cwd: {home}, target: sh,"))
    };
    let in_folder =
        |block: &str| in_folder(block).replace("{target: gzip,", &format!("{{cwd: {home}, target: gzip,"));
    let mut flows = Vec::new();
    for block in blocks().skip(1) {
        let name = block
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# "))
            .filter(|name| name.ends_with(".yml"));
        let path = match name {
            Some(name) => dir.path().join(name),
            None => dir.path().join(format!("flow_{}.yml", flows.len())),
        };
        std::fs::write(&path, in_folder(block)).unwrap();
        if name.is_none() {
            flows.push(path);
        }
    }
    assert_eq!(flows.len(), 2);
    let load = |path: &Path| load(path, &Options::new()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(run(&load(&flows[0])), 1 + 6 + 2);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("2_exact.dat"), "2 exact\n");
    assert_eq!(read("eight.dat"), "8 fast\n");
    assert_eq!(run(&load(&flows[1])), 1 + 10 + 1 + 1);
    assert!(dir.path().join("all.dat.gz").exists());
}
