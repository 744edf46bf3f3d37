//! What the programs that compute powers of matrices share: the matrices, and how a result is checked.

use ndarray::Array2;

/// Growth of the dominant eigenvalue from the first power to the last. More than 1, so that neighbouring powers
/// differ and a wrong one is found; little enough that no entry overflows.
const GROWTH: f64 = 1e4;

/// Beyond, the smallest entries come near to the smallest numbers there are.
pub(crate) const SIZE_MAX: usize = 1000;

pub(crate) type Matrix = Array2<f64>;

/// A Vandermonde matrix of nodes in (0.75, 1.25], other ones for each `k`, scaled by its dominant eigenvalue.
pub(crate) fn base(k: usize, size: usize, powers: usize) -> Matrix {
    let node = |row: usize| 0.75 + 0.5 * (row as f64 + 1.0 / (k + 1) as f64) / size as f64;
    let matrix = Matrix::from_shape_fn((size, size), |(row, column)| node(row).powi(column as i32));
    let wanted = GROWTH.powf(1.0 / powers as f64);
    &matrix * (wanted / dominant_eigenvalue(&matrix))
}

/// By power iteration; a positive matrix has a dominant eigenvalue, which is positive (Perron, 1907).
fn dominant_eigenvalue(matrix: &Matrix) -> f64 {
    let mut vector = ndarray::Array1::from_elem(matrix.nrows(), 1.0);
    let mut value = 1.0;
    for _ in 0..200 {
        vector = matrix.dot(&vector);
        value = vector.fold(0.0f64, |most, x| most.max(*x));
        vector /= value;
    }
    value
}

/// The product by three loops, which share nothing with the blocked one under test.
pub(crate) fn plain_product(a: &Matrix, b: &Matrix) -> Matrix {
    let n = a.nrows();
    let mut c = Matrix::zeros((n, n));
    for i in 0..n {
        for k in 0..n {
            for j in 0..n {
                c[(i, j)] += a[(i, k)] * b[(k, j)];
            }
        }
    }
    c
}

/// The largest relative error that power `power` may have.
///
/// All entries are positive, so nothing cancels: a product of two sums of N products has a relative error of at most
/// N units of rounding per multiplication and per side, which makes i x N x `f64::EPSILON` for power i.
pub(crate) fn bound(power: usize, size: usize) -> f64 {
    (power * size) as f64 * f64::EPSILON
}

/// The largest relative error of an entry; none if a shape or a number is not what it can be.
pub(crate) fn relative_error(found: &Matrix, wanted: &Matrix) -> Option<f64> {
    let errors = found.iter().zip(wanted).map(|(f, w)| ((f - w) / w).abs());
    let is_sane = found.dim() == wanted.dim() && found.iter().all(|x| x.is_finite() && *x > 0.0);
    is_sane.then(|| errors.fold(0.0, f64::max))
}
