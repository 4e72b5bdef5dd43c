//! Products of plain matrices with strides, on one thread, for code that packs nothing ahead.

use gemm::Parallelism;

/// A view of a matrix in a slice, its elements at `row · row_stride + column · column_stride`.
#[derive(Clone, Copy)]
pub struct MatrixView<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> MatrixView<'a> {
    /// Row after row: [rows, columns].
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `row_stride` values apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// Its transpose.
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Whether every element lies in the slice.
    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.data.len()
    }
}

/// out ← scale · a · b, or out ← out + scale · a · b where `add`. Rows of `out` begin `stride` values apart.
///
/// # Panics
/// Where the shapes do not match or an operand's elements do not lie in its slice.
pub fn multiply(a: MatrixView, b: MatrixView, scale: f32, out: &mut [f32], stride: usize, add: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert!(k == b.rows && a.fits() && b.fits(), "operands do not match");
    assert!(stride >= n && (m - 1) * stride + n <= out.len(), "the result does not fit");
    // SAFETY: all elements that the shapes and strides reach lie inside the slices, as was just checked, and `out` is borrowed
    // mutably, so that it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_strided_and_transposed_views_are_right() {
        let a: Vec<f32> = (0..3 * 7).map(|i| i as f32 - 5.0).collect();
        let b: Vec<f32> = (0..5 * 4).map(|i| 0.5 * i as f32).collect();
        // A: [3, 5] inside rows of 7; B: [5, 4] and the same as the transpose of [4, 5].
        let b_t: Vec<f32> = (0..20).map(|i| b[(i % 5) * 4 + i / 5]).collect();
        for view in [MatrixView::new(&b, 5, 4), MatrixView::new(&b_t, 4, 5).t()] {
            let mut out = vec![1.0; 3 * 6];
            multiply(MatrixView::strided(&a, 3, 5, 7), view, 2.0, &mut out, 6, true);
            for (i, row) in out.chunks_exact(6).enumerate() {
                for (j, x) in row.iter().enumerate() {
                    let sum: f32 = (0..5).map(|k| a[i * 7 + k] * b[k * 4 + j.min(3)]).sum();
                    assert_eq!(*x, if j < 4 { 1.0 + 2.0 * sum } else { 1.0 });
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_result_beyond_its_slice_is_refused() {
        multiply(
            MatrixView::new(&[1.0; 4], 2, 2),
            MatrixView::new(&[1.0; 4], 2, 2),
            1.0,
            &mut [0.0; 3],
            2,
            false,
        );
    }
}
