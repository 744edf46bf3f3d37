//! The templates of the Dragon Batch guide load unchanged and do what the guide says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tarragon_engine::{Batch, Exit};
use tarragon_ptd::{
    Datum, Dictionary, Import, Mismatch, Signature, TaskKind, Template, Value, function, selector,
};
use tarragon_transport::Place;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Its address is seen, so that a copy would show.
#[derive(serde::Serialize, serde::Deserialize)]
struct Matrix {
    cells: Vec<f64>,
}

fn address(matrix: &Matrix, _: u64) -> usize {
    std::ptr::from_ref(matrix).addr()
}

#[test]
fn the_template_of_the_guide_is_imported_and_called_as_there() {
    let dir = tempfile::tempdir().unwrap();
    let batch = Batch::new().unwrap();
    let matrix = Arc::new(Matrix { cells: vec![1.0; 1000] });
    let get_file = selector(|dir: PathBuf, i: u64, j: u64| dir.join(format!("file_{}", i + j)));
    let import = Import::of_file(data("gpu_matmul_ptd.yml"));
    let lazy = import.function(function(address)).arg(dir.path()).selector(get_file).load::<usize>().unwrap();
    assert!(lazy.template().warnings().is_empty());
    let spec = lazy.spec((&matrix, 3)).unwrap();
    assert_eq!(spec.kind(), TaskKind::Function);
    assert_eq!(spec.name(), Some("gpu_matmul_task"));
    assert_eq!(spec.timeout(), Some(Duration::from_secs(30)));
    assert_eq!(spec.reads(), [Datum::File(dir.path().join("file_3").into())]);
    assert_eq!(spec.writes().collect::<Vec<_>>(), [Datum::File(dir.path().join("file_4").into())]);
    // Large arguments are shared, not copied.
    let tasks: Vec<_> = (0..100u64).map(|i| lazy.call(&batch, (&matrix, i)).unwrap()).collect();
    for task in &tasks {
        assert_eq!(task.result().get().unwrap(), std::ptr::from_ref(&*matrix).addr());
    }
    assert_eq!(matrix.cells.len(), 1000);
}

#[test]
fn files_between_calls_order_them() {
    fn step(dir: &Path, i: u64) -> std::io::Result<()> {
        let before = std::fs::read_to_string(dir.join(format!("file_{i}")))?;
        std::fs::write(dir.join(format!("file_{}", i + 1)), before + "+")
    }
    let text = "
import_args: [step, dir, get_file]
args: [i]
type: function
executables: [{target: step, args: [dir, i]}]
reads: [{files: [{get_file: [dir, i, 0]}]}]
writes: [{files: [{get_file: [dir, i, 1]}]}]
";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file_0"), "").unwrap();
    let batch = Batch::new().unwrap();
    let get_file = Signature::<(PathBuf, u64, u64)>::selector(|dir: &Path, i: u64, j: u64| {
        dir.join(format!("file_{}", i + j))
    });
    let template = Template::of_text("step.yml", text).unwrap();
    let import = template.import().function(Signature::<(PathBuf, u64)>::function(step));
    let step = import.arg(dir.path()).selector(get_file).load::<()>().unwrap();
    let tasks: Vec<_> = (0..50u64).map(|i| step.call(&batch, (i,)).unwrap()).collect();
    tasks[49].result().get().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("file_50")).unwrap(), "+".repeat(50));
}

/// A dictionary whose keys are integers and text.
struct Named(&'static str, u128);

impl Dictionary for Named {
    fn name(&self) -> String {
        self.0.into()
    }

    fn place(&self, key: &Value) -> Result<Place, Mismatch> {
        let bytes = key.to::<u64>().map(|key| key.to_le_bytes().to_vec());
        let bytes = bytes.or_else(|_| key.to::<String>().map(String::into_bytes))?;
        Ok(Place { uid: self.1, bytes, home: None })
    }

    fn descriptor(&self) -> Value {
        Value::shared(self.descriptor_text())
    }

    fn descriptor_text(&self) -> String {
        format!("{}#{}", self.0, self.1)
    }
}

#[test]
fn a_job_with_all_forms_of_dragons_own_keys_loads_unchanged() {
    let import = Import::of_file(data("dictionary_job_ptd.yml"))
        .arg("./solver")
        .selector(selector(|i: u64, by: u64| i + by))
        .selector(selector(|step: u64, tag: String| format!("{tag}-{step}")))
        .arg(10)
        .arg([("OMP_NUM_THREADS", 1)])
        .arg("/data/run")
        .arg(())
        .kwarg("tag", "fine")
        .kwarg("task_name", "solve");
    let solve = import.load::<Exit>().unwrap();
    let warnings: Vec<String> = solve.template().warnings().iter().map(|it| it.text.clone()).collect();
    assert_eq!(warnings, ["unused_here"]);
    let fields = Value::dictionary(Arc::new(Named("fields", 1)));
    let coefficients = Value::dictionary(Arc::new(Named("coefficients", 2)));
    let spec = solve.spec((fields, coefficients, 5)).unwrap();
    assert_eq!(
        spec.command(),
        "2 x (cd run && OMP_NUM_THREADS=1 ./solver 10 fine) : \
         1 x (cd /data/run && OMP_NUM_THREADS=1 ./solver 16 fine-10)"
    );
    let place = |uid, bytes: &[u8]| Place { uid, bytes: bytes.to_vec(), home: None };
    let key = |name: &str, place| Datum::Key { name: name.into(), place };
    assert_eq!(
        spec.reads(),
        [
            key("fields[5]", place(1, &5u64.to_le_bytes())),
            key("coefficients[5]", place(2, &5u64.to_le_bytes())),
            key("coefficients[\"last\"]", place(2, b"last")),
            Datum::File(Path::new("input.dat").into()),
        ]
    );
    assert_eq!(spec.writes().collect::<Vec<_>>(), [key("fields[6]", place(1, &6u64.to_le_bytes()))]);
    assert_eq!((spec.name(), spec.timeout()), (Some("solve"), Some(Duration::from_secs(120))));
}

#[test]
fn a_default_is_replaced_by_what_is_given() {
    let import = |import: Import| {
        import
            .arg("./solver")
            .selector(selector(|i: u64, by: u64| i + by))
            .selector(selector(|_: u64, _: String| -> String { unreachable!("the default is not needed") }))
            .arg(10)
            .arg(())
            .arg("/data/run")
            .arg(())
            .kwarg("tag", "fine")
            .kwarg("task_name", "solve")
    };
    let solve =
        import(Import::of_file(data("dictionary_job_ptd.yml"))).kwarg("scaled", 3).load::<Exit>().unwrap();
    let dictionary = || Value::dictionary(Arc::new(Named("d", 1)));
    let command = solve.spec((dictionary(), dictionary(), 5)).unwrap().command();
    assert!(command.ends_with("./solver 16 3)"), "{command}");
}
