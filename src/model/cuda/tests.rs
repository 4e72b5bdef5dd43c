//! The kernels against plain arithmetic in double precision, in emulation and, where there is a CUDA device, on it; and the network with
//! them against the network without.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use candle_core::{DType, Device, Shape, Tensor};

use super::*;
use crate::dsp::snr_db;
use crate::model::architecture::{Architecture, HyperConnections, Position, ValueResidual};
use crate::model::device::DeviceChoice;
use crate::model::roformer::Roformer;
use crate::model::weights::seeded;

thread_local! {
    static WANTED: Cell<bool> = const { Cell::new(false) };
    static RUN: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Whether kernels are enabled on this thread.
pub fn kernels_enabled(_: &Device) -> bool {
    WANTED.get()
}

/// Records that a kernel was launched.
pub fn record_kernel(kernel: &str) {
    RUN.with_borrow_mut(|all| all.insert(kernel.into()));
}

/// The result of `work` with kernels enabled, and the kernels that ran.
pub fn with_kernels<T>(work: impl FnOnce() -> T) -> (T, BTreeSet<String>) {
    WANTED.set(true);
    let out = work();
    WANTED.set(false);
    (out, RUN.take())
}

/// Devices that run kernels: the CPU in emulation, CUDA's.
pub fn devices() -> Vec<Device> {
    let mut devices: Vec<_> = DeviceChoice::Cuda(0).open().into_iter().collect();
    #[cfg(target_os = "linux")]
    if emulator::is_available() {
        devices.push(Device::Cpu);
    }
    devices
}

/// Numbers of a tensor of any type, in its order.
pub fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Noise between -2 and 2.
fn noise(shape: impl Into<Shape>, seed: u32, dtype: DType, device: &Device) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 22) as f32 - 2.0
    };
    let values: Vec<f32> = (0..shape.elem_count()).map(|_| draw()).collect();
    Tensor::from_vec(values, shape, device).unwrap().to_dtype(dtype).unwrap()
}

/// On each device and in each number type of products.
fn on_every_device(check: impl Fn(&Device, DType)) {
    for device in devices() {
        for dtype in [DType::F32, DType::F16] {
            check(&device, dtype);
        }
    }
}

/// Runs a kernel and compares its output with `expected`, within the accuracy of its number type.
fn assert_matches(what: &str, kernel: impl FnOnce() -> Result<Option<Tensor>>, expected: &[f64]) {
    let found = with_kernels(kernel).0.unwrap().unwrap_or_else(|| panic!("{what}: no kernel"));
    let least = if found.dtype() == DType::F32 { 120.0 } else { 65.0 };
    let snr = snr_db(expected, &numbers(&found));
    assert!(snr > least, "{what}: {snr:.1} dB");
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn the_norm_divides_by_the_root_of_the_mean_square() {
    on_every_device(|device, dtype| {
        for (rows, dim) in [(1, 4), (1, 384), (5, 36), (3, 132), (129, 8), (6, 516)] {
            let (x, gamma) = (noise((rows, dim), 1, DType::F32, device), noise(dim, 2, DType::F32, device));
            let gains = numbers(&gamma);
            let expected: Vec<f64> = numbers(&x)
                .chunks_exact(dim)
                .flat_map(|row| {
                    let scale = (dim as f64 / row.iter().map(|x| x * x).sum::<f64>()).sqrt();
                    row.iter().zip(&gains).map(move |(x, gain)| x * scale * gain).collect::<Vec<_>>()
                })
                .collect();
            assert_matches(
                &format!("{rows} rows of {dim} in {dtype:?}"),
                || rms_norm(&x, &gamma, dtype),
                &expected,
            );
        }
        let (zeros, gamma) = (Tensor::zeros((2, 8), DType::F32, device), noise(8, 2, DType::F32, device));
        let out = with_kernels(|| rms_norm(&zeros.unwrap(), &gamma, dtype)).0.unwrap().unwrap();
        assert!(numbers(&out).iter().all(|x| *x == 0.0));
    });
}

#[test]
fn heads_are_split_rotated_and_scaled() {
    on_every_device(|device, dtype| {
        for (sequences, len, heads, dim, pairs) in
            [(1, 1, 1, 4, 2), (2, 7, 3, 20, 10), (1, 65, 8, 64, 32), (3, 5, 2, 12, 5), (2, 3, 1, 48, 1)]
        {
            let qkv = noise((sequences, len, 3 * heads * dim), 1, dtype, device);
            let (cos, sin) = (noise((len, pairs), 2, dtype, device), noise((len, pairs), 3, dtype, device));
            let (from, c, s) = (numbers(&qkv), numbers(&cos), numbers(&sin));
            let mut expected = Vec::new();
            for part in 0..3 {
                for (sequence, head, token, d) in (0..sequences * heads * len * dim)
                    .map(|i| (i / dim / len / heads, i / dim / len % heads, i / dim % len, i % dim))
                {
                    let at =
                        |d: usize| from[(((sequence * len + token) * 3 + part) * heads + head) * dim + d];
                    let (turn, pair) = (token * pairs + d / 2, d / 2);
                    let turned = match (part < 2 && pair < pairs, d % 2) {
                        (false, _) => at(d),
                        (true, 0) => at(d) * c[turn] - at(d + 1) * s[turn],
                        (true, _) => at(d - 1) * s[turn] + at(d) * c[turn],
                    };
                    expected.push(if part == 0 { turned / (dim as f64).sqrt() } else { turned });
                }
            }
            let what =
                format!("{sequences} sequences of {len}, {heads} heads of {dim}, {pairs} pairs, {dtype:?}");
            assert_matches(&what, || split_heads(&qkv, &cos, &sin, heads), &expected);
        }
    });
}

#[test]
fn attention_is_the_softmax_of_all_scores() {
    for device in devices() {
        for (sequences, heads, len, dim) in
            [(2, 1, 1, 64), (1, 2, 7, 48), (1, 2, 62, 32), (1, 1, 64, 64), (2, 1, 65, 48), (1, 2, 130, 64)]
        {
            let draw = |seed| noise((sequences, heads, len, dim), seed, DType::F16, &device);
            // Rows of zeros are even weights.
            let q = draw(1).affine(if len == 7 { 0.0 } else { 0.5 }, 0.0).unwrap();
            let (k, v) = (draw(2), draw(3));
            let (queries, keys, values) = (numbers(&q), numbers(&k), numbers(&v));
            let mut expected = Vec::new();
            for (i, query) in queries.chunks_exact(dim).enumerate() {
                let group = i / len * len * dim..(i / len + 1) * len * dim;
                let weights: Vec<f64> = keys[group.clone()]
                    .chunks_exact(dim)
                    .map(|key| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>().exp())
                    .collect();
                let total: f64 = weights.iter().sum();
                let rows = values[group].chunks_exact(dim).zip(&weights);
                let sum = rows.fold(vec![0.0; dim], |sum, (row, weight)| {
                    sum.iter().zip(row).map(|(sum, v)| sum + weight / total * v).collect()
                });
                expected.extend(sum);
            }
            assert_matches(&format!("{len} tokens, heads of {dim}"), || attend(&q, &k, &v), &expected);
        }
    }
}

#[test]
fn heads_are_joined_through_their_gates() {
    on_every_device(|device, dtype| {
        for (sequences, heads, len, dim) in [(1, 1, 1, 4), (2, 3, 5, 20), (1, 8, 67, 64)] {
            let x = noise((sequences, heads, len, dim), 1, dtype, device);
            let (gates, bias) =
                (noise((sequences, len, heads), 2, dtype, device), noise(heads, 3, dtype, device));
            let (from, by, plus) = (numbers(&x), numbers(&gates), numbers(&bias));
            let expected: Vec<f64> = (0..sequences * len * heads * dim)
                .map(|i| {
                    let (token, head, d) = (i / dim / heads, i / dim % heads, i % dim);
                    let (sequence, token) = (token / len, token % len);
                    sigmoid(by[(sequence * len + token) * heads + head] + plus[head])
                        * from[((sequence * heads + head) * len + token) * dim + d]
                })
                .collect();
            assert_matches(&format!("{heads} heads, {dtype:?}"), || join_heads(&x, &gates, &bias), &expected);
        }
    });
}

#[test]
fn activations_bend_the_biased_product() {
    on_every_device(|device, dtype| {
        for (n, rows, columns) in [(1, 1, 4), (1, 7, 1536), (3, 5, 36), (4, 1, 516)] {
            let x = noise((n, rows, columns), 1, dtype, device).affine(2.0, 0.0).unwrap();
            let bias = noise((n, 1, columns), 2, dtype, device);
            let exact = |x: &Tensor| x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
            let sum = exact(&x).broadcast_add(&exact(&bias)).unwrap();
            for (activation, expected) in
                [(Activation::Gelu, sum.gelu_erf().unwrap()), (Activation::Tanh, sum.tanh().unwrap())]
            {
                let what = format!("{activation:?} of {n} times {rows} rows of {columns} in {dtype:?}");
                assert_matches(&what, || activate(&x, &bias, activation), &numbers(&expected));
            }
        }
    });
}

#[test]
fn products_are_added_to_the_residual_stream() {
    on_every_device(|device, dtype| {
        for (rows, columns) in [(1, 4), (5, 36), (3, 516)] {
            let (x, onto) =
                (noise((rows, columns), 1, dtype, device), noise((rows, columns), 2, DType::F32, device));
            let bias = noise(columns, 3, dtype, device);
            for bias in [None, Some(&bias)] {
                let plus = bias.map_or(vec![0.0; columns], numbers);
                let sum = numbers(&x)
                    .iter()
                    .zip(numbers(&onto))
                    .enumerate()
                    .map(|(i, (x, y))| x + y + plus[i % columns])
                    .collect::<Vec<_>>();
                assert_matches(
                    &format!("{rows} rows of {columns} in {dtype:?}"),
                    || add(&x, bias, &onto),
                    &sum,
                );
            }
        }
    });
}

#[test]
fn bands_are_gated_and_laid_side_by_side() {
    on_every_device(|device, dtype| {
        for (bands, stems, rows, half) in [(1, 1, 1, 4), (3, 2, 5, 12), (2, 4, 3, 36), (5, 1, 2, 132)] {
            let x = noise((bands * stems, rows, 2 * half), 1, dtype, device);
            let bias = noise((bands * stems, 1, 2 * half), 2, dtype, device);
            let (from, plus) = (numbers(&x), numbers(&bias));
            let expected: Vec<f64> = (0..stems * rows * bands * half)
                .map(|i| {
                    let (f, band, row, stem) =
                        (i % half, i / half % bands, i / half / bands % rows, i / half / bands / rows);
                    let mlp = band * stems + stem;
                    let at = |f: usize| from[(mlp * rows + row) * 2 * half + f] + plus[mlp * 2 * half + f];
                    at(f) * sigmoid(at(f + half))
                })
                .collect();
            assert_matches(
                &format!("{bands} bands of {half}, {dtype:?}"),
                || gate_bands(&x, &bias, bands),
                &expected,
            );
        }
    });
}

#[test]
fn masks_meet_the_mixture_and_sum_to_one_where_they_must() {
    for device in devices() {
        for (batch, stems, frames, freqs, channels) in [(1, 1, 1, 1, 1), (2, 3, 5, 33, 2), (1, 4, 2, 65, 1)] {
            let spec = noise((batch, frames, freqs, channels, 2), 1, DType::F32, &device);
            let mut values: Vec<f32> =
                noise((batch, stems, frames, freqs, channels, 2), 2, DType::F32, &Device::Cpu)
                    .flatten_all()
                    .unwrap()
                    .to_vec1()
                    .unwrap();
            let bins = frames * freqs * channels;
            // The last bin of the first chunk: nothing heard; the one before: a mask that is no number.
            for stem in 0..stems {
                values[2 * ((stem + 1) * bins - 1)..][..2].fill(0.0);
            }
            for (complete, zero_dc) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut values = values.clone();
                if complete && bins > 1 {
                    values[2 * (bins - 2)] = f32::NAN;
                }
                let masks =
                    Tensor::from_vec(values.clone(), (batch, stems, frames, freqs, channels, 2), &device)
                        .unwrap();
                let mixture = numbers(&spec);
                let mut expected = vec![0.0; batch * stems * channels * frames * 2 * freqs];
                for i in 0..batch * bins {
                    let (b, t, f, c) =
                        (i / bins, i / channels / freqs % frames, i / channels % freqs, i % channels);
                    let mut mask: Vec<[f64; 2]> = (0..stems)
                        .map(|n| {
                            let at = 2 * ((b * stems + n) * bins + i % bins);
                            let z = [f64::from(values[at]), f64::from(values[at + 1])];
                            let clean = !complete || z.iter().all(|x| x.is_finite());
                            if clean && !(zero_dc && f == 0) { z } else { [0.0; 2] }
                        })
                        .collect();
                    if complete {
                        let power = |z: &[f64; 2]| z[0] * z[0] + z[1] * z[1];
                        let total: f64 = mask.iter().map(power).sum();
                        let sum = mask.iter().fold([0.0; 2], |sum, z| [sum[0] + z[0], sum[1] + z[1]]);
                        for z in &mut mask {
                            let weight = if total > 0.0 { power(z) / total } else { 1.0 / stems as f64 };
                            *z = [z[0] + weight * (1.0 - sum[0]), z[1] - weight * sum[1]];
                        }
                    }
                    for (n, z) in mask.iter().enumerate() {
                        let at = (((b * stems + n) * channels + c) * frames + t) * 2 * freqs + f;
                        let (re, im) = (mixture[2 * i], mixture[2 * i + 1]);
                        expected[at] = z[0] * re - z[1] * im;
                        expected[at + freqs] = z[0] * im + z[1] * re;
                    }
                }
                let what = format!("{stems} stems, {freqs} bins, complete {complete}, zero DC {zero_dc}");
                assert_matches(&what, || mask_mixture(&spec, &masks, complete, zero_dc), &expected);
            }
        }
    }
}

#[test]
fn shapes_and_types_that_do_not_fit_are_left_to_candle() {
    let draw = |shape: &[usize], dtype| noise(shape.to_vec(), 1, dtype, &Device::Cpu);
    let (ran, kernels) = with_kernels(|| {
        let odd = draw(&[3, 6], DType::F32);
        let brain = draw(&[3, 8], DType::BF16);
        let heads = draw(&[1, 2, 5, 16], DType::F16);
        [
            rms_norm(&odd, &draw(&[6], DType::F32), DType::F32),
            rms_norm(&draw(&[3, 8], DType::F32), &draw(&[8], DType::F32), DType::BF16),
            activate(&brain, &draw(&[8], DType::BF16), Activation::Gelu),
            add(&brain, None, &draw(&[3, 8], DType::F32)),
            add(&draw(&[3, 8], DType::F16), Some(&draw(&[8], DType::F32)), &draw(&[3, 8], DType::F32)),
            attend(&heads, &heads, &heads),
            gate_bands(&draw(&[2, 3, 12], DType::F32), &draw(&[2, 1, 12], DType::F32), 1),
        ]
    });
    assert!(ran.into_iter().all(|out| out.unwrap().is_none()));
    assert!(kernels.is_empty(), "{kernels:?}");
}

/// Small networks of every option that changes what runs between the products.
fn networks() -> Vec<(&'static str, Architecture)> {
    let mut plain = Architecture::reference_default();
    (plain.dim, plain.depth, plain.heads, plain.dim_head) = (32, 2, 2, 32);
    (plain.ff_inner, plain.mask_hidden, plain.num_stems) = (48, 24, 3);
    (plain.stft.n_fft, plain.stft.hop_length, plain.stft.win_length) = (128, 30, 128);
    plain.bands = vec![(0..4).collect(), (4..8).collect(), (8..30).collect(), (30..65).collect()];
    let hyper = HyperConnections { streams: 2, fracs: 1, sinkhorn_iters: 3 };
    vec![
        ("values", Architecture { value_residual: Some(ValueResidual::ToValueResidualMix), ..plain.clone() }),
        ("streams", Architecture { hyper_connections: Some(hyper), ..plain.clone() }),
        ("polar", Architecture { position: Position::Polar, ..plain.clone() }),
        (
            "linear",
            Architecture { linear_transformer_depth: 1, transformer_indices: [0, 1, 2], ..plain.clone() },
        ),
        ("odd", Architecture { dim: 34, dim_head: 18, ff_inner: 50, mask_hidden: 22, ..plain.clone() }),
        ("plain", plain),
    ]
}

#[test]
fn the_network_is_the_same_with_kernels() {
    for device in devices() {
        for (name, arch) in networks() {
            let spec = noise((2, 5, arch.frame_features()), 5, DType::F32, &device);
            let network = |dtype| Roformer::new(&arch, seeded(7, &device).to_dtype(dtype)).unwrap();
            let exact = numbers(&network(DType::F32).forward(&spec).unwrap());
            for (dtype, least) in [(DType::F32, 100.0), (DType::F16, 50.0)] {
                let network = network(dtype);
                let (masks, kernels) = with_kernels(|| network.forward(&spec).unwrap());
                let snr = snr_db(&exact, &numbers(&masks));
                assert!(snr > least, "{name} in {dtype:?}: {snr:.1} dB");
                let kernels = kernels.len();
                // All of them; for a network of odd sizes the norms and gates of bands, which are even.
                match (name, dtype) {
                    ("plain", DType::F16) => assert_eq!(kernels, 9),
                    ("plain", _) => assert_eq!(kernels, 8),
                    ("odd", _) => assert_eq!(kernels, 2),
                    _ => assert!(kernels > 2, "{name}: {kernels}"),
                }
            }
        }
    }
}
