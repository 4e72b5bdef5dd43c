//! Names and shapes of tensors, independent of their source.

/// The names and shapes of a checkpoint's tensors.
pub trait TensorShapes {
    /// All names with their shapes.
    fn shapes(&self) -> Box<dyn Iterator<Item = (&str, &[usize])> + '_>;
    /// Shape of the tensor `name`.
    fn shape(&self, name: &str) -> Option<&[usize]>;
}
