//! Weights stored as 8-bit integers with a scale for each row, as [`convert`](crate::model::convert) writes them: the integers
//! of a tensor under its name, their scales as f32 under its name and [`ROW_SCALES`].

use std::collections::BTreeMap;

use super::tensor::TensorEntry;
use super::{CheckpointError, Dtype};

/// End of the name of a tensor of scales.
pub(in crate::model) const ROW_SCALES: &str = ".row_scales";

/// Takes the scales out of `tensors` and returns them by the name of the tensor that they belong to.
///
/// # Errors
/// When scales have no tensor of 8-bit integers, or do not have one value for each of its rows.
pub(super) fn take(
    tensors: &mut BTreeMap<String, TensorEntry>,
    origin: &str,
) -> Result<BTreeMap<String, TensorEntry>, CheckpointError> {
    let names: Vec<String> = tensors.keys().filter(|name| name.ends_with(ROW_SCALES)).cloned().collect();
    let mut scales = BTreeMap::new();
    for name in names {
        let Some(entry) = tensors.remove(&name) else { continue };
        let owner = &name[..name.len() - ROW_SCALES.len()];
        let wrong =
            |reason: String| CheckpointError::Tensor { file: origin.to_owned(), name: name.clone(), reason };
        let Some(integers) = tensors.get(owner) else {
            return Err(wrong(format!(
                "there is no tensor `{owner}` to scale; convert the checkpoint again"
            )));
        };
        if integers.dtype != Dtype::I8 || integers.strides.is_some() {
            return Err(wrong(format!(
                "expected `{owner}` in 8-bit integers, found {}; convert the checkpoint again",
                integers.dtype
            )));
        }
        let rows = integers.shape.first().copied().unwrap_or(1);
        if entry.dtype != Dtype::F32 || entry.shape != [rows] {
            return Err(wrong(format!(
                "expected {rows} scales in f32, found {:?} in {}; convert the checkpoint again",
                entry.shape, entry.dtype
            )));
        }
        scales.insert(owner.to_owned(), entry);
    }
    Ok(scales)
}
