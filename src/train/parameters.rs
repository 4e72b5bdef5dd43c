//! The parameters of a network under the names of its checkpoint, and their gradients.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};

use super::error::TrainError;
use super::initial;
use crate::model::architecture::{Architecture, Position};
use crate::model::checkpoint::Checkpoint;
use crate::model::weights;

/// One tensor that an optimiser changes.
pub struct Parameter {
    /// Its names in a checkpoint. More than one where the references share a module between layers.
    names: Vec<String>,
    var: Var,
    frozen: bool,
}

impl Parameter {
    /// The first of its names, which is the one that PyTorch's `named_parameters` gives.
    pub fn name(&self) -> &str {
        &self.names[0]
    }

    /// Its values.
    pub fn value(&self) -> Tensor {
        self.var.as_detached_tensor()
    }

    /// Its values as a variable, from which candle records what is computed.
    pub(super) fn variable(&self) -> &Tensor {
        self.var.as_tensor()
    }

    /// Axis lengths, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.var.dims()
    }

    /// Whether optimisers leave it as it is.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Replaces its values by a tensor of the same shape.
    ///
    /// # Errors
    /// A candle error where shape, number type or device differ.
    pub fn set(&self, value: &Tensor) -> candle_core::Result<()> {
        self.var.set(value)
    }
}

/// All tensors of a network: parameters, and constants such as rotary frequencies.
pub struct Parameters {
    parameters: Vec<Parameter>,
    constants: Vec<(String, Tensor)>,
    places: HashMap<String, Place>,
    dtype: DType,
    device: Device,
}

#[derive(Clone, Copy)]
enum Place {
    Parameter(usize),
    Constant(usize),
}

/// Constants that follow from the architecture. Checkpoints store them, and the references do not train them.
fn is_constant(name: &str) -> bool {
    name.ends_with("rotary_embed.freqs") || name.ends_with("pope_embed.inv_freqs")
}

impl Parameters {
    /// Seeded random values, distributed as the references initialise them.
    pub fn random(arch: &Architecture, seed: u64, dtype: DType, device: &Device) -> Result<Self, TrainError> {
        Self::build(arch, dtype, device, |name, shape| {
            Ok(Tensor::from_vec(initial::values(arch, name, shape, seed), shape, device)?)
        })
    }

    /// The values of a checkpoint, whose tensors must be those of `arch`.
    pub fn from_checkpoint(
        arch: &Architecture,
        checkpoint: &Checkpoint,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let builder = weights::from_checkpoint(checkpoint, device);
        Self::build(arch, dtype, device, |name, shape| {
            if !builder.contains_tensor(name) && is_constant(name) {
                return Ok(Tensor::from_vec(initial::values(arch, name, shape, 0), shape, device)?);
            }
            Ok(builder.get(shape, name)?)
        })
    }

    fn build(
        arch: &Architecture,
        dtype: DType,
        device: &Device,
        mut value: impl FnMut(&str, &[usize]) -> Result<Tensor, TrainError>,
    ) -> Result<Self, TrainError> {
        let mut built = Self {
            parameters: Vec::new(),
            constants: Vec::new(),
            places: HashMap::new(),
            dtype,
            device: device.clone(),
        };
        let mut shared: HashMap<&'static str, usize> = HashMap::new();
        for tensor in arch.tensors() {
            let values = value(&tensor.name, &tensor.shape)?.to_dtype(dtype)?;
            if is_constant(&tensor.name) {
                built.places.insert(tensor.name.clone(), Place::Constant(built.constants.len()));
                built.constants.push((tensor.name, values));
                continue;
            }
            let owner = shared_module(arch, &tensor.name).and_then(|module| {
                let next = built.parameters.len();
                let first = *shared.entry(module).or_insert(next);
                (first != next).then_some(first)
            });
            match owner {
                // The references hold one module, so that a checkpoint's copies are equal.
                Some(first) => {
                    built.places.insert(tensor.name.clone(), Place::Parameter(first));
                    built.parameters[first].names.push(tensor.name);
                }
                None => {
                    built.places.insert(tensor.name.clone(), Place::Parameter(built.parameters.len()));
                    let var = Var::from_tensor(&values)?;
                    built.parameters.push(Parameter { names: vec![tensor.name], var, frozen: false });
                }
            }
        }
        Ok(built)
    }

    /// The parameters in the order of the network's modules.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.parameters.iter()
    }

    /// Number of parameter tensors.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether there is none; a network always has some.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        match self.places.get(name)? {
            Place::Parameter(i) => self.parameters.get(*i),
            Place::Constant(_) => None,
        }
    }

    /// Number of values that an optimiser may change.
    pub fn trainable_values(&self) -> usize {
        self.parameters.iter().filter(|p| !p.frozen).map(|p| p.var.elem_count()).sum()
    }

    /// Freezes every parameter of which one name matches one of `patterns`, in which `*` stands for any text. Returns how many are frozen.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a pattern that matches nothing.
    pub fn freeze(&mut self, patterns: &[String]) -> Result<usize, TrainError> {
        for pattern in patterns {
            let mut matched = false;
            for parameter in &mut self.parameters {
                if parameter.names.iter().any(|name| matches(pattern, name)) {
                    parameter.frozen = true;
                    matched = true;
                }
            }
            if !matched {
                let example = self.parameters.first().map_or("", |p| p.name());
                return Err(TrainError::setting(
                    "freeze",
                    format!("a pattern that matches a parameter name such as `{example}`"),
                    format!("`{pattern}`, which matches none of {}", self.parameters.len()),
                ));
            }
        }
        Ok(self.parameters.iter().filter(|p| p.frozen).count())
    }

    /// Every tensor of a checkpoint, by name: parameters under all their names, and constants.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Tensor)> {
        let parameters =
            self.parameters.iter().flat_map(|p| p.names.iter().map(move |name| (name.as_str(), p.value())));
        parameters.chain(self.constants.iter().map(|(name, value)| (name.as_str(), value.clone())))
    }

    /// The device of the tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Their number type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Index of the parameter of that name in [`Parameters::iter`]; none for constants.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        match self.places.get(name)? {
            Place::Parameter(i) => Some(*i),
            Place::Constant(_) => None,
        }
    }

    /// The tensor of that name; a parameter as a variable where `tracked`, so that candle records what is computed from it.
    pub(super) fn tensor(&self, name: &str, tracked: bool) -> candle_core::Result<Tensor> {
        match self.places.get(name) {
            Some(Place::Parameter(i)) if tracked => Ok(self.parameters[*i].var.as_tensor().clone()),
            Some(Place::Parameter(i)) => Ok(self.parameters[*i].value()),
            Some(Place::Constant(i)) => Ok(self.constants[*i].1.clone()),
            None => candle_core::bail!("the network has no tensor {name}"),
        }
    }
}

/// The module that owns the parameter `name` where the references share one between all layers: PoPE's biases, one for the time
/// axis and one for the frequency axis.
fn shared_module(arch: &Architecture, name: &str) -> Option<&'static str> {
    if arch.position != Position::Polar || !name.ends_with("pope_embed.bias") {
        return None;
    }
    let [_, time, _] = arch.transformer_indices;
    let transformer = name.split('.').nth(2)?.parse::<usize>().ok()?;
    Some(if transformer == time { "time" } else { "freq" })
}

/// Whether `name` matches `pattern`, in which `*` stands for any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The gradient of a loss with respect to each parameter.
pub struct Gradients {
    values: Vec<Option<Tensor>>,
}

impl Gradients {
    pub(super) fn none(parameters: &Parameters) -> Self {
        Self { values: vec![None; parameters.len()] }
    }

    /// The gradient of parameter `index` of [`Parameters::iter`]; none where the loss does not depend on it.
    pub fn get(&self, index: usize) -> Option<&Tensor> {
        self.values.get(index)?.as_ref()
    }

    /// The gradient of the parameter called `name`.
    pub fn by_name(&self, parameters: &Parameters, name: &str) -> Option<&Tensor> {
        self.get(parameters.index(name)?)
    }

    /// Adds to the gradient of parameter `index`.
    pub(super) fn add(&mut self, index: usize, gradient: &Tensor) -> candle_core::Result<()> {
        let value = &mut self.values[index];
        *value = Some(match value.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient.detach(),
        });
        Ok(())
    }

    /// Adds the gradients of another batch of the same network.
    ///
    /// # Errors
    /// A candle error, such as a device out of memory.
    pub fn accumulate(&mut self, other: &Self) -> candle_core::Result<()> {
        for (index, gradient) in other.values.iter().enumerate() {
            if let Some(gradient) = gradient {
                self.add(index, gradient)?;
            }
        }
        Ok(())
    }

    /// Multiplies every gradient.
    ///
    /// # Errors
    /// A candle error, such as a device out of memory.
    pub fn scale(&mut self, factor: f64) -> candle_core::Result<()> {
        for value in self.values.iter_mut().flatten() {
            *value = (&*value * factor)?;
        }
        Ok(())
    }

    /// Euclidean norm over the gradients of all parameters that are not frozen.
    ///
    /// # Errors
    /// A candle error, such as a device out of memory.
    pub fn norm(&self, parameters: &Parameters) -> candle_core::Result<f64> {
        let mut sum = 0.0;
        for (value, parameter) in self.values.iter().zip(parameters.iter()) {
            if let (Some(value), false) = (value, parameter.frozen) {
                sum += value.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
            }
        }
        Ok(sum.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, expected) in [
            ("band_split.*", "band_split.to_features.0.1.weight", true),
            ("*.to_qkv.weight", "layers.0.0.layers.0.0.to_qkv.weight", true),
            ("layers.*.0.layers.*.gamma", "layers.3.0.layers.0.1.net.0.gamma", true),
            ("final_norm.gamma", "final_norm.gamma", true),
            ("final_norm", "final_norm.gamma", false),
            ("*", "anything", true),
            ("layers.*.bias", "layers.0.weight", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn freezing_names_a_pattern_that_matches_nothing() {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner, arch.mask_hidden) =
            (8, 1, 2, 4, 32, 16);
        let mut parameters = Parameters::random(&arch, 1, DType::F32, &Device::Cpu).unwrap();
        let all = parameters.trainable_values();
        assert_eq!(parameters.freeze(&["band_split.*".into()]).unwrap(), 3 * 62);
        assert!(parameters.trainable_values() < all);
        let error = parameters.freeze(&["bands.*".into()]).unwrap_err().to_string();
        assert!(error.contains("`bands.*`"), "{error}");
    }
}
