//! AdamW and Muon, with the moving average of the parameters.
//!
//! Muon takes the matrices of the transformers, AdamW everything else, as in the project's Python training; or AdamW takes all.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::error::TrainError;
use super::parameters::{Gradients, Parameter, Parameters};

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Learning rate of AdamW. By default 1e-3.
    pub adam_lr: f64,
    /// Learning rate of Muon. By default none: AdamW takes all parameters.
    pub muon_lr: Option<f64>,
    /// Decay of AdamW's first and second moments. By default 0.9 and 0.98.
    pub betas: [f64; 2],
    /// Decay of the weights, decoupled from the gradient. By default 0.01.
    pub weight_decay: f64,
    /// Momentum of Muon. By default 0.95.
    pub momentum: f64,
    /// Longest gradient, as a norm over all parameters; longer ones are scaled down. By default 1.
    pub clip_norm: Option<f64>,
    /// Momentum of the moving average; 0 keeps none. By default 0.998.
    pub average: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            adam_lr: 1e-3,
            muon_lr: None,
            betas: [0.9, 0.98],
            weight_decay: 0.01,
            momentum: 0.95,
            clip_norm: Some(1.0),
            average: 0.998,
        }
    }
}

impl OptimizerConfig {
    /// Refuses numbers with which no training can work.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> std::result::Result<(), TrainError> {
        let rates = [("lr", Some(self.adam_lr)), ("muon-lr", self.muon_lr), ("clip", self.clip_norm)];
        for (name, value) in rates {
            if value.is_some_and(|x| !x.is_finite() || x <= 0.0) {
                return Err(TrainError::setting(name, "a number above 0", format!("{value:?}")));
            }
        }
        let shares = [
            ("beta", self.betas[0]),
            ("beta", self.betas[1]),
            ("momentum", self.momentum),
            ("average", self.average),
        ];
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return Err(TrainError::setting(name, "a number from 0 up to 1, without 1", value));
            }
        }
        if !(0.0..=1.0).contains(&self.weight_decay) {
            return Err(TrainError::setting("weight-decay", "a number from 0 to 1", self.weight_decay));
        }
        Ok(())
    }
}

/// What the optimiser keeps of one parameter.
#[derive(Clone)]
pub(super) enum Moments {
    /// Frozen.
    None,
    /// First and second moment.
    Adam(Tensor, Tensor),
    /// Momentum.
    Muon(Tensor),
}

/// Changes the parameters of one network.
pub struct Optimizer {
    config: OptimizerConfig,
    moments: Vec<Moments>,
    average: Vec<Tensor>,
    steps: u64,
}

/// Whether Muon takes a parameter: the matrices of the transformers but their gates.
fn is_muon(parameter: &Parameter) -> bool {
    let name = parameter.name();
    name.starts_with("layers.")
        && parameter.dims().len() == 2
        && name.ends_with(".weight")
        && !name.contains("to_gates")
        && !name.contains("value_residual_mix")
}

/// Matrices that a fused weight consists of, by rows.
fn fused_matrices(parameter: &Parameter) -> usize {
    if parameter.name().contains("to_qkv") { 3 } else { 1 }
}

impl Optimizer {
    /// Moments of zero, and the parameters as their average.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for numbers out of range, [`TrainError::Network`] where the device is out of memory.
    pub fn new(parameters: &Parameters, config: OptimizerConfig) -> std::result::Result<Self, TrainError> {
        config.check()?;
        let moments = parameters
            .iter()
            .map(|p| {
                let zeros = || p.value().zeros_like();
                Ok(match (p.is_frozen(), config.muon_lr) {
                    (true, _) => Moments::None,
                    (false, Some(_)) if is_muon(p) => Moments::Muon(zeros()?),
                    _ => Moments::Adam(zeros()?, zeros()?),
                })
            })
            .collect::<Result<_>>()?;
        let average = if config.average > 0.0 {
            parameters.iter().map(|p| p.value().copy()).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(Self { config, moments, average, steps: 0 })
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Settings.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// The moving average of every parameter, in the order of [`Parameters::iter`]; empty where none is kept.
    pub fn average(&self) -> &[Tensor] {
        &self.average
    }

    /// One step against `gradients`, its learning rates times `rate`. Returns the norm of the gradient before it was clipped.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] where the gradient is NaN or infinite; the parameters then stay as they are.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        rate: f64,
    ) -> std::result::Result<f64, TrainError> {
        let norm = gradients.norm(parameters)?;
        if !norm.is_finite() {
            return Err(TrainError::NotFinite {
                what: "norm of the gradient".into(),
                at: 0,
                value: norm as f32,
            });
        }
        let clip = self.config.clip_norm.filter(|&most| norm > most).map_or(1.0, |most| most / norm);
        self.steps += 1;
        let (config, steps) = (&self.config, self.steps);
        let all: Vec<&Parameter> = parameters.iter().collect();
        // Each parameter by itself, so that the result does not depend on the threads.
        self.moments.par_iter_mut().zip(&all).enumerate().try_for_each(|(i, (moments, parameter))| {
            match gradients.get(i) {
                Some(gradient) => update(config, steps, rate, parameter, &(gradient * clip)?, moments),
                None => Ok(()),
            }
        })?;
        self.update_average(&all)?;
        Ok(norm)
    }

    /// The average follows fast at first, so that it is not held back by the initial values.
    fn update_average(&mut self, parameters: &[&Parameter]) -> Result<()> {
        let steps = self.steps as f64;
        let weight = 1.0 - self.config.average.min((1.0 + steps) / (20.0 + steps));
        self.average.par_iter_mut().zip(parameters).try_for_each(|(average, parameter)| {
            *average = (&*average + ((parameter.value() - &*average)? * weight)?)?;
            Ok(())
        })
    }

    /// All tensors that continue a run, with names that tell what they are.
    pub(super) fn tensors(&self, parameters: &Parameters) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        for (i, parameter) in parameters.iter().enumerate() {
            let name = parameter.name();
            match &self.moments[i] {
                Moments::None => {}
                Moments::Adam(first, second) => {
                    tensors.push((format!("adam.first/{name}"), first.clone()));
                    tensors.push((format!("adam.second/{name}"), second.clone()));
                }
                Moments::Muon(momentum) => tensors.push((format!("muon/{name}"), momentum.clone())),
            }
            if let Some(average) = self.average.get(i) {
                tensors.push((format!("average/{name}"), average.clone()));
            }
        }
        tensors
    }

    /// Takes over what [`Optimizer::tensors`] wrote.
    pub(super) fn restore(
        &mut self,
        parameters: &Parameters,
        steps: u64,
        mut read: impl FnMut(&str, &Tensor) -> std::result::Result<Tensor, TrainError>,
    ) -> std::result::Result<(), TrainError> {
        for (i, parameter) in parameters.iter().enumerate() {
            let name = parameter.name();
            match &mut self.moments[i] {
                Moments::None => {}
                Moments::Adam(first, second) => {
                    *first = read(&format!("adam.first/{name}"), first)?;
                    *second = read(&format!("adam.second/{name}"), second)?;
                }
                Moments::Muon(momentum) => *momentum = read(&format!("muon/{name}"), momentum)?,
            }
            if let Some(average) = self.average.get_mut(i) {
                *average = read(&format!("average/{name}"), average)?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

fn update(
    config: &OptimizerConfig,
    steps: u64,
    rate: f64,
    parameter: &Parameter,
    gradient: &Tensor,
    moments: &mut Moments,
) -> Result<()> {
    let value = parameter.value();
    let new = match moments {
        Moments::None => return Ok(()),
        Moments::Adam(first, second) => {
            let [beta1, beta2] = config.betas;
            *first = ((&*first * beta1)? + (gradient * (1.0 - beta1))?)?;
            *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let corrected = |beta: f64| 1.0 - beta.powf(steps as f64);
            let lr = rate * config.adam_lr;
            let root = ((&*second / corrected(beta2))?.sqrt()? + 1e-8)?;
            let step = ((&*first / corrected(beta1))? / root)?;
            ((value * (1.0 - lr * config.weight_decay))? - (step * lr)?)?
        }
        Moments::Muon(momentum) => {
            let keep = config.momentum;
            *momentum = ((&*momentum * keep)? + (gradient * (1.0 - keep))?)?;
            let ahead = ((gradient * (1.0 - keep))? + (&*momentum * keep)?)?;
            let (rows, columns) = ahead.dims2()?;
            let blocks = fused_matrices(parameter);
            let step = orthogonalize(&ahead.reshape((blocks, rows / blocks, columns))?)?;
            let scale = ((rows / blocks) as f64 / columns as f64).max(1.0).sqrt();
            let lr = rate * config.muon_lr.unwrap_or(0.0);
            let step = (step.reshape((rows, columns))? * (lr * scale))?;
            ((value * (1.0 - lr * config.weight_decay))? - step)?
        }
    };
    parameter.set(&new)
}

/// Newton-Schulz iteration towards the nearest semi-orthogonal matrices: [blocks, rows, columns] → same shape.
fn orthogonalize(g: &Tensor) -> Result<Tensor> {
    let (a, b, c) = (3.4445, -4.7750, 2.0315);
    let norm = (g.sqr()?.sum_keepdim((D::Minus2, D::Minus1))?.sqrt()? + 1e-7)?;
    let x = g.broadcast_div(&norm)?;
    let tall = g.dim(1)? > g.dim(2)?;
    let mut x = if tall { x.transpose(1, 2)?.contiguous()? } else { x };
    for _ in 0..5 {
        let gram = x.matmul(&x.transpose(1, 2)?.contiguous()?)?;
        let polynomial = ((&gram * b)? + (gram.matmul(&gram)? * c)?)?;
        x = ((&x * a)? + polynomial.matmul(&x)?)?;
    }
    if tall { x.transpose(1, 2)?.contiguous() } else { Ok(x) }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::dsp::Random;
    use crate::model::architecture::Architecture;

    fn small() -> Parameters {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner, arch.mask_hidden) =
            (8, 1, 2, 4, 32, 8);
        arch.bands = vec![(0..500).collect(), (500..1025).collect()];
        arch.num_stems = 1;
        Parameters::random(&arch, 1, DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn orthogonalised_steps_have_singular_values_near_one() {
        let values = Random::new(1).noise(2 * 12 * 6, 1.0);
        let g = Tensor::from_vec(values, (2, 12, 6), &Device::Cpu).unwrap();
        let x = orthogonalize(&g).unwrap();
        let gram = x.transpose(1, 2).unwrap().contiguous().unwrap().matmul(&x).unwrap();
        for (i, values) in gram.to_vec3::<f32>().unwrap()[0].iter().enumerate() {
            for (j, value) in values.iter().enumerate() {
                // The iteration's fixed interval is about 0.7 to 1.2.
                let near = if i == j { (0.4..1.6).contains(value) } else { value.abs() < 0.4 };
                assert!(near, "{i} {j}: {value}");
            }
        }
    }

    #[test]
    fn first_adam_step_is_the_learning_rate_against_the_gradient_and_frozen_ones_stay() {
        let mut parameters = small();
        parameters.freeze(&["band_split.*".into()]).unwrap();
        let config = OptimizerConfig { weight_decay: 0.0, clip_norm: None, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&parameters, config).unwrap();
        let mut gradients = Gradients::none(&parameters);
        for (i, p) in parameters.iter().enumerate() {
            gradients.add(i, &p.value().ones_like().unwrap()).unwrap();
        }
        let before: Vec<Tensor> = parameters.iter().map(|p| p.value().copy().unwrap()).collect();
        optimizer.step(&parameters, &gradients, 0.5).unwrap();
        for (p, before) in parameters.iter().zip(&before) {
            let moved = (before - p.value()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let expected = if p.is_frozen() { 0.0 } else { 0.5e-3 };
            assert!(moved.iter().all(|x| (x - expected).abs() < 1e-6), "{}: {:?}", p.name(), &moved[..3]);
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let parameters = small();
        let mut optimizer = Optimizer::new(&parameters, OptimizerConfig::default()).unwrap();
        let mut gradients = Gradients::none(&parameters);
        let first = parameters.iter().next().unwrap().value();
        gradients.add(0, &(first.ones_like().unwrap() * f64::NAN).unwrap()).unwrap();
        assert!(matches!(optimizer.step(&parameters, &gradients, 1.0), Err(TrainError::NotFinite { .. })));
        assert_eq!(optimizer.steps(), 0);
    }
}
