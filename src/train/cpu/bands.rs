//! The layers of each band, with their gradients: norm and linear layer at the input, the mask's MLP at the output.

use candle_core::Result;

use super::rows::{add_bias, add_rows, rms_norm, rms_norm_backward};
use super::values;
use crate::kernels::{MatrixView, RowOps, multiply};
use crate::train::parameters::Parameters;

/// Norm and Linear of one band.
pub struct BandNorm {
    gamma: Vec<f32>,
    /// [dim, features]
    weight: Vec<f32>,
    /// [dim]
    bias: Vec<f32>,
}

impl BandNorm {
    /// Names of its tensors.
    pub fn names(band: usize) -> Vec<String> {
        ["0.gamma", "1.weight", "1.bias"].map(|name| format!("band_split.to_features.{band}.{name}")).into()
    }

    pub fn read(parameters: &Parameters, band: usize) -> Result<Self> {
        let names = Self::names(band);
        let read = |i: usize| values(&parameters.tensor(&names[i], false)?);
        Ok(Self { gamma: read(0)?, weight: read(1)?, bias: read(2)? })
    }

    fn sizes(&self, x: &[f32]) -> (usize, usize, usize) {
        let features = self.gamma.len();
        (x.len() / features, features, self.bias.len())
    }

    /// x: [rows, features] → [rows, dim]
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (rows, features, dim) = self.sizes(x);
        let mut normed = vec![0.0; x.len()];
        rms_norm(x, &self.gamma, &mut normed);
        let mut out = vec![0.0; rows * dim];
        let weight = MatrixView::new(&self.weight, dim, features).t();
        multiply(MatrixView::new(&normed, rows, features), weight, 1.0, &mut out, dim, false);
        add_bias(&mut out, &self.bias);
        out
    }

    /// The gradients of its tensors, in the order of their names. gradient: that of the result, [rows, dim]
    pub fn backward(&self, x: &[f32], gradient: &[f32]) -> Vec<Vec<f32>> {
        let (rows, features, dim) = self.sizes(x);
        let mut normed = vec![0.0; x.len()];
        rms_norm(x, &self.gamma, &mut normed);
        let gradient_view = MatrixView::new(gradient, rows, dim);
        let mut of_weight = vec![0.0; self.weight.len()];
        multiply(
            gradient_view.t(),
            MatrixView::new(&normed, rows, features),
            1.0,
            &mut of_weight,
            features,
            false,
        );
        let mut of_bias = vec![0.0; dim];
        add_rows(gradient, &mut of_bias);
        let mut of_normed = vec![0.0; x.len()];
        multiply(
            gradient_view,
            MatrixView::new(&self.weight, dim, features),
            1.0,
            &mut of_normed,
            features,
            false,
        );
        let mut of_gamma = vec![0.0; features];
        // The spectrum is no parameter: its gradient goes nowhere.
        rms_norm_backward(x, &self.gamma, &of_normed, &mut of_gamma, &mut normed);
        vec![of_gamma, of_weight, of_bias]
    }
}

/// The MLP of one stem and band: Linears with tanh between them, then a gated linear unit.
pub struct BandMlp {
    /// Weight [output, input] and bias [output] of each Linear.
    linears: Vec<(Vec<f32>, Vec<f32>)>,
}

impl BandMlp {
    /// Names of its tensors: weight and bias of each Linear.
    pub fn names(stem: usize, band: usize, linears: usize) -> Vec<String> {
        let at = format!("mask_estimators.{stem}.to_freqs.{band}.0");
        (0..linears).flat_map(|i| ["weight", "bias"].map(|name| format!("{at}.{}.{name}", 2 * i))).collect()
    }

    pub fn read(parameters: &Parameters, stem: usize, band: usize, linears: usize) -> Result<Self> {
        let tensors = Self::names(stem, band, linears)
            .iter()
            .map(|name| values(&parameters.tensor(name, false)?))
            .collect::<Result<Vec<_>>>()?;
        let mut tensors = tensors.into_iter();
        let mut linears = Vec::new();
        while let (Some(weight), Some(bias)) = (tensors.next(), tensors.next()) {
            linears.push((weight, bias));
        }
        Ok(Self { linears })
    }

    /// x: [rows, dim] → mask [rows, features]
    pub fn forward(&self, x: &[f32], ops: &RowOps) -> Vec<f32> {
        let rows = self.rows(x);
        let (_, last) = self.activate(x, rows, ops);
        let features = last.len() / rows / 2;
        let mut mask = Vec::with_capacity(rows * features);
        for row in last.chunks_exact(2 * features) {
            let (value, gate) = row.split_at(features);
            mask.extend(value.iter().zip(gate).map(|(value, gate)| value * gate));
        }
        mask
    }

    fn rows(&self, x: &[f32]) -> usize {
        let input = self.linears.first().map_or(1, |(weight, bias)| weight.len() / bias.len());
        x.len() / input
    }

    /// Inputs of all Linears but the first, and the last one's result with its gates through the sigmoid: [rows, 2 · features]
    fn activate(&self, x: &[f32], rows: usize, ops: &RowOps) -> (Vec<Vec<f32>>, Vec<f32>) {
        let mut inputs: Vec<Vec<f32>> = Vec::new();
        let mut last = Vec::new();
        for (i, (weight, bias)) in self.linears.iter().enumerate() {
            let (input, output) = (weight.len() / bias.len(), bias.len());
            let mut y = vec![0.0; rows * output];
            let x = inputs.last().map_or(x, Vec::as_slice);
            let weight = MatrixView::new(weight, output, input).t();
            multiply(MatrixView::new(x, rows, input), weight, 1.0, &mut y, output, false);
            add_bias(&mut y, bias);
            if i + 1 < self.linears.len() {
                ops.tanh(&mut y);
                inputs.push(y);
            } else {
                y.chunks_exact_mut(output).for_each(|row| ops.sigmoid(&mut row[output / 2..]));
                last = y;
            }
        }
        (inputs, last)
    }

    /// The gradient of x and those of its tensors, in the order of their names. gradient: that of the mask, [rows, features]
    pub fn backward(&self, x: &[f32], gradient: &[f32], ops: &RowOps) -> (Vec<f32>, Vec<Vec<f32>>) {
        let rows = self.rows(x);
        let (inputs, last) = self.activate(x, rows, ops);
        let features = gradient.len() / rows;
        let mut of_output = last;
        for (row, gradient) in of_output.chunks_exact_mut(2 * features).zip(gradient.chunks_exact(features)) {
            let (value, gate) = row.split_at_mut(features);
            for ((value, gate), g) in value.iter_mut().zip(gate).zip(gradient) {
                (*value, *gate) = (g * *gate, g * *value * *gate * (1.0 - *gate));
            }
        }
        let mut found = Vec::new();
        for (i, (weight, bias)) in self.linears.iter().enumerate().rev() {
            let (input, output) = (weight.len() / bias.len(), bias.len());
            let x = if i == 0 { x } else { &inputs[i - 1] };
            let of_output_view = MatrixView::new(&of_output, rows, output);
            let mut of_weight = vec![0.0; weight.len()];
            multiply(of_output_view.t(), MatrixView::new(x, rows, input), 1.0, &mut of_weight, input, false);
            let mut of_bias = vec![0.0; output];
            add_rows(&of_output, &mut of_bias);
            let mut of_input = vec![0.0; rows * input];
            multiply(
                of_output_view,
                MatrixView::new(weight, output, input),
                1.0,
                &mut of_input,
                input,
                false,
            );
            if i > 0 {
                // tanh' = 1 − tanh².
                of_input.iter_mut().zip(x).for_each(|(g, y)| *g *= 1.0 - y * y);
            }
            found.extend([of_bias, of_weight]);
            of_output = of_input;
        }
        found.reverse();
        (of_output, found)
    }
}
