//! Every shape an argument, a parameter, a result and a list may have.
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tarragon_engine::{Batch, Context, tasks, value};

#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
struct Matrix {
    rows: Vec<Vec<f64>>,
}

fn nothing() {}
fn one() -> u64 {
    1
}
fn text() -> String {
    "text".to_string()
}
fn numbers() -> Vec<f64> {
    vec![1.0, 2.0]
}
fn matrix() -> Matrix {
    Matrix { rows: vec![vec![1.0], vec![2.0]] }
}
fn place() -> PathBuf {
    PathBuf::from("/tmp/x")
}
fn generic<T: Copy>(x: T) -> T {
    x
}

fn twelve(
    a: u8,
    b: u16,
    c: u32,
    d: u64,
    e: i8,
    f: &str,
    g: &[f64],
    h: &Path,
    i: Option<u8>,
    j: (u8, u8),
    k: [u8; 2],
    l: &Matrix,
) -> usize {
    let sum = usize::from(a) + usize::from(b) + c as usize + d as usize + e as usize;
    sum + f.len()
        + g.len()
        + h.as_os_str().len()
        + i.map_or(0, usize::from)
        + usize::from(j.0 + j.1)
        + k.len()
        + l.rows.len()
}

fn context_and_twelve(
    ctx: &Context,
    a: u8,
    b: u16,
    c: u32,
    d: u64,
    e: i8,
    f: &str,
    g: &[f64],
    h: &Path,
    i: Option<u8>,
    j: (u8, u8),
    k: [u8; 2],
    l: &Matrix,
) -> usize {
    assert!(!ctx.name().is_empty());
    twelve(a, b, c, d, e, f, g, h, i, j, k, l)
}

fn values(batch: &Batch) {
    let path = PathBuf::from("/tmp/x");
    let list = vec![1.0, 2.0];
    let m = matrix();
    batch
        .compile(tasks![
            batch.function(|x: String| x, ("literal",)),
            batch.function(|x: String| x, ("owned".to_string(),)),
            batch.function(|x: &str| x.len(), ("owned".to_string(),)),
            batch.function(|x: Vec<f64>| x, (&list[..],)),
            batch.function(|x: &[f64]| x.len(), (list.clone(),)),
            batch.function(|x: Vec<f64>| x, (&list,)),
            batch.function(|x: PathBuf| x, (&path,)),
            batch.function(|x: &Path| x.exists(), (&path,)),
            batch.function(|x: &Path| x.exists(), (path.clone(),)),
            batch.function(|x: &PathBuf| x.exists(), (path.clone(),)),
            batch.function(|x: &Matrix| x.rows.len(), (m.clone(),)),
            batch.function(|x: &Matrix| x.rows.len(), (&m,)),
            batch.function(|x: Matrix| x.rows.len(), (&m,)),
            batch.function(|x: Option<u8>| x, (Some(3u8),)),
            batch.function(|x: Option<u8>| x, (None::<u8>,)),
            batch.function(|x: HashMap<String, u8>| x.len(), (HashMap::from([("k".to_string(), 1u8)]),)),
            batch.function(|x: (u8, String)| x, ((1u8, "x".to_string()),)),
            batch.function(|x: [u8; 3]| x, ([1u8, 2, 3],)),
            batch.function(|x: Vec<String>| x.len(), (Vec::<String>::new(),)),
            batch.function(|x: Box<u8>| *x, (Box::new(3u8),)),
            batch.function(|x: &u64| *x, (3u64,)),
            batch.function(generic::<u32>, (3u32,)),
        ])
        .unwrap()
        .run()
        .unwrap();
}

fn handles(batch: &Batch) {
    let (n, s, v, m, p, u) = (
        batch.function(one, ()),
        batch.function(text, ()),
        batch.function(numbers, ()),
        batch.function(matrix, ()),
        batch.function(place, ()),
        batch.function(nothing, ()),
    );
    let many = || vec![n.result(), n.result()];
    batch
        .compile(tasks![
            n,
            s,
            v,
            m,
            p,
            u,
            batch.function(|x: u64| x, (n.result(),)),
            batch.function(|x: u64| x, (&n,)),
            batch.function(|x: &u64| *x, (n.result(),)),
            batch.function(|x: &u64| *x, (&n,)),
            batch.function(|x: &str| x.len(), (s.result(),)),
            batch.function(|x: &String| x.len(), (s.result(),)),
            batch.function(|x: &[f64]| x.len(), (v.result(),)),
            batch.function(|x: Vec<f64>| x.len(), (v.result(),)),
            batch.function(|x: &Path| x.exists(), (p.result(),)),
            batch.function(|x: &Matrix| x.rows.len(), (m.result(),)),
            batch.function(|x: Matrix| x, (m.result(),)),
            batch.function(|_: ()| (), (u.result(),)),
            batch.function(|x: Vec<u64>| x.len(), (many(),)),
            batch.function(|x: &[u64]| x.len(), (many(),)),
            batch.function(|x: &Vec<u64>| x.len(), (many(),)),
            batch.function(|x: Vec<Matrix>| x.len(), (vec![&m, &m],)),
            batch.function(|x: Option<u64>| x, (Some(n.result()),)),
            batch.function(|x: [u64; 2]| x, ([n.result(), n.result()],)),
            batch.function(|x: &[u64; 2]| x[0], ([&n, &n],)),
            batch.function(|x: (u64, String)| x.0, ((n.result(), s.result()),)),
            batch.function(|x: &(u64, String)| x.0, ((n.result(), s.result()),)),
            batch.function(|x: (u64, f64)| x.0, ((n.result(), value(0.5)),)),
            batch.function(|x: Vec<Vec<u64>>| x.len(), (vec![many(), many()],)),
            batch.function(|x: Vec<(u64, Option<String>)>| x.len(), (vec![(n.result(), Some(s.result()))],)),
            batch.function(|x: String| x.len(), (n.stdout(),)),
            batch.function(|x: &str| x.len(), (n.stderr(),)),
            batch.function(|x: u64, y: &str, z: f64| x + y.len() as u64 + z as u64, (n.result(), &s, 0.5)),
        ])
        .unwrap()
        .run()
        .unwrap();
}

fn arities(batch: &Batch) {
    let (v, m) = (batch.function(numbers, ()), batch.function(matrix, ()));
    let a = batch.function(
        twelve,
        (
            1u8,
            2u16,
            3u32,
            4u64,
            5i8,
            "six".to_string(),
            v.result(),
            place(),
            Some(1u8),
            (1u8, 1u8),
            [0u8; 2],
            m.result(),
        ),
    );
    let b = batch.function(
        context_and_twelve,
        (
            1u8,
            2u16,
            3u32,
            4u64,
            5i8,
            "six".to_string(),
            v.result(),
            place(),
            Some(1u8),
            (1u8, 1u8),
            [0u8; 2],
            &m,
        ),
    );
    let c = batch.function(|ctx: &Context| ctx.rank(), ());
    batch.compile(tasks![v, m, a, b, c]).unwrap().run().unwrap();
    assert_eq!(a.result().get().unwrap(), b.result().get().unwrap());
}

fn outcomes(batch: &Batch) {
    let captured = 3u64;
    batch
        .compile(tasks![
            batch.function(|| std::io::Result::Ok(1u8), ()),
            batch.function(|| Ok::<u8, Box<dyn std::error::Error + Send + Sync>>(1), ()),
            batch.function(|| Ok::<u8, std::num::ParseIntError>(1), ()),
            batch.try_function(|| Ok::<u8, String>(1), ()),
            batch.closure(move || captured),
            batch.closure(move || captured.to_string()),
            batch.closure(std::sync::Mutex::<u8>::default),
            batch.try_closure(|| Ok::<u8, String>(1)),
            batch.try_closure(|| std::io::Result::Ok(std::sync::atomic::AtomicU8::new(1))),
        ])
        .unwrap()
        .run()
        .unwrap();
}

fn lists(batch: &Batch) {
    let new = || batch.function(one, ());
    batch.compile(&new()).unwrap().run().unwrap();
    batch.compile(new()).unwrap().run().unwrap();
    batch.compile((&new(), &batch.function(text, ()), [new(), new()])).unwrap().run().unwrap();
    batch.compile(vec![new(), new()]).unwrap().run().unwrap();
    batch.compile([&new(), &new()]).unwrap().run().unwrap();
    batch.compile(&[new()][..]).unwrap().run().unwrap();
    batch.compile(tasks![]).unwrap().run().unwrap();
    let inner = batch.compile(vec![(new(), batch.function(text, ()))]).unwrap();
    let boxed: Vec<Box<dyn tarragon_engine::TaskList>> = vec![Box::new(new()), Box::new(vec![new()])];
    batch.compile(tasks![inner, boxed, new()]).unwrap().run().unwrap();
}

fn main() {
    let batch = Batch::new().unwrap();
    values(&batch);
    handles(&batch);
    arities(&batch);
    outcomes(&batch);
    lists(&batch);
}
