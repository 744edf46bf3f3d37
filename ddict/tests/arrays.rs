//! `ndarray` arrays: their bytes are `.npy` files, and they are read in place.

#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use ndarray::{Array0, Array1, Array2, Array3, ArrayD, IxDyn, arr0};
use ndarray_npy::ReadNpyExt;
use std::io::Cursor;
use tarragon_ddict::{Any, DDict};

fn dict<V: 'static>() -> DDict<String, V> {
    DDict::builder().memory(32 << 20).create().unwrap()
}

#[test]
fn arrays_come_back_in_place_and_as_npy() {
    let dict = dict::<Array2<f64>>();
    let array = Array2::from_shape_fn((300, 7), |(i, j)| (i * 10 + j) as f64);
    dict.put("a", &array).unwrap();
    assert_eq!(dict.get("a").unwrap().as_ref(), Some(&array));
    let pinned = dict.get_array("a").unwrap().unwrap();
    assert_eq!(pinned.view(), array);
    assert!(pinned.view().is_view(), "no copy");
    assert_eq!(pinned.view().as_ptr().addr() % 64, 0);
    assert_eq!(Array2::<f64>::read_npy(Cursor::new(pinned.npy())).unwrap(), array);
    assert!(dict.get_array("b").unwrap().is_none());
}

#[test]
fn every_order_and_shape_comes_back() {
    let turned = Array2::from_shape_fn((5, 9), |(i, j)| (i * 100 + j) as i32).reversed_axes();
    let turned_dict = dict::<Array2<i32>>();
    turned_dict.put("a", &turned).unwrap();
    assert_eq!(turned_dict.get("a").unwrap(), Some(turned));

    let empty = dict::<Array3<u8>>();
    empty.put("a", Array3::<u8>::zeros((0, 4, 2))).unwrap();
    assert_eq!(empty.get("a").unwrap().unwrap().shape(), [0, 4, 2]);

    let single = dict::<Array0<f32>>();
    single.put("a", arr0(2.5_f32)).unwrap();
    assert_eq!(single.get("a").unwrap(), Some(arr0(2.5_f32)));

    let any_axes = dict::<ArrayD<u64>>();
    let array = ArrayD::from_shape_fn(IxDyn(&[2, 3, 4, 5]), |i| i[3] as u64);
    any_axes.put("a", &array).unwrap();
    assert_eq!(any_axes.get("a").unwrap(), Some(array.clone()));
    assert_eq!(any_axes.get_array("a").unwrap().unwrap().view(), array);
}

#[test]
fn arrays_are_written_in_place() {
    let dict = dict::<Array1<f32>>();
    dict.put_array_with("a", 1000, |mut array| array.fill(1.5)).unwrap();
    assert_eq!(dict.get("a").unwrap(), Some(Array1::from_elem(1000, 1.5)));
}

#[test]
fn arrays_lie_among_mixed_values() {
    let dict = dict::<Any>();
    let array = Array2::<f64>::ones((3, 3));
    dict.put("a", &array).unwrap();
    assert_eq!(dict.get::<Array2<f64>, _>("a").unwrap(), Some(array));
    assert!(dict.get::<Array1<f64>, _>("a").is_err());
}

#[test]
fn numpy_reads_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    let dict = dict::<Array3<i16>>();
    dict.put("a", Array3::from_shape_fn((2, 3, 4), |(i, j, k)| (i * 12 + j * 4 + k) as i16)).unwrap();
    std::fs::write(&path, dict.get_array("a").unwrap().unwrap().npy()).unwrap();
    let program = format!(
        "import numpy; a = numpy.load({path:?}, mmap_mode='r'); \
         assert a.shape == (2, 3, 4) and a.dtype == numpy.int16 and (a.ravel() == range(24)).all()"
    );
    let python = |code: &str| std::process::Command::new("python3").args(["-c", code]).output();
    if !python("import numpy").is_ok_and(|it| it.status.success()) {
        println!("skipped: numpy_reads_the_bytes needs python3 with numpy");
        return;
    }
    let output = python(&program).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
