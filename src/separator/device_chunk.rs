//! Separates a chunk entirely on the device: one upload of the waveform, one download of the stems.

use std::time::{Duration, Instant};

use candle_core::{Device, Error, Result, Tensor};

use super::StageTimes;
use super::device_stft::DeviceStft;
use super::mask::MaskRule;
use crate::kernels::JobControl;
use crate::model::architecture::Architecture;
#[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
use crate::model::cuda;
use crate::model::roformer::Roformer;

/// Transforms, masks and transfers for chunks on one device.
pub(super) struct DevicePipeline {
    device_stft: DeviceStft,
    device: Device,
    channels: usize,
    stems: usize,
    zero_dc: bool,
    /// Whether to wait for the device after each stage, so that its time is known.
    pub times_stages: bool,
    /// Number of samples, over all chunks, from which on an out-of-memory error is simulated.
    #[cfg(test)]
    pub out_of_memory_at: usize,
}

/// Whether the error says that device memory ran out, by the texts of CUDA's driver, cuBLAS and Metal's bindings.
pub(super) fn is_out_of_memory(error: &Error) -> bool {
    let text = error.to_string();
    ["OUT_OF_MEMORY", "out of memory", "ALLOC_FAILED", "FailedToCreateResource"]
        .iter()
        .any(|words| text.contains(words))
}

impl DevicePipeline {
    /// For a network of `arch` on `device`.
    pub fn new(arch: &Architecture, device: &Device) -> Result<Self> {
        Ok(Self {
            device_stft: DeviceStft::new(arch.stft, device)?,
            device: device.clone(),
            channels: arch.channels,
            stems: arch.num_stems,
            zero_dc: arch.zero_dc,
            times_stages: false,
            #[cfg(test)]
            out_of_memory_at: usize::MAX,
        })
    }

    /// Separates chunks of `samples` samples, each [channels, samples], flat: one [stems, channels, samples] for each, flat.
    pub fn separate(
        &mut self,
        network: &Roformer,
        chunks: &[&[f32]],
        samples: usize,
        rule: MaskRule,
        control: &dyn JobControl,
        stages: &mut StageTimes,
    ) -> Result<Vec<Vec<f32>>> {
        let (batch, channels, stems) = (chunks.len(), self.channels, self.stems);
        #[cfg(test)]
        if batch * samples >= self.out_of_memory_at {
            candle_core::bail!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        }
        let freqs = self.device_stft.config().freqs();
        let frames = self.device_stft.config().frames(samples);

        // Device calls return early. Only who wants the times of stages waits for each; otherwise the last one has them all.
        let mut started = Instant::now();
        let (device, waits) = (self.device.clone(), self.times_stages);
        let mut ended = |stage: &mut Duration| -> Result<()> {
            if waits {
                device.synchronize()?;
            }
            *stage += started.elapsed();
            started = Instant::now();
            Ok(())
        };

        let signals = Tensor::from_vec(chunks.concat(), (batch * channels, samples), &self.device)?;
        // [b, c, t, 2, f] → [b, t, f, c, 2], the order that the bands are cut from.
        let spec = self
            .device_stft
            .forward(&signals)?
            .reshape((batch, channels, frames, 2, freqs))?
            .permute((0, 2, 4, 1, 3))?
            .contiguous()?;
        drop(signals);
        ended(&mut stages.stft)?;

        let features = spec.reshape((batch, frames, freqs * channels * 2))?;
        let masks = network
            .forward_controlled(&features, control)?
            .reshape((batch, stems, frames, freqs, channels, 2))?;
        ended(&mut stages.network)?;

        let spectra = self.masked(&spec, masks, rule)?;
        drop(spec);
        ended(&mut stages.mask)?;

        let spectra = spectra.reshape((batch * stems * channels, frames, 2 * freqs))?;
        let out: Vec<f32> = self.device_stft.inverse(&spectra, samples)?.flatten_all()?.to_vec1()?;
        let each = stems * channels * samples;
        // One pass over the samples, which the compiler makes of vectors.
        let finite = |x: &f32| if x.is_finite() { *x } else { 0.0 };
        let out = out.chunks_exact(each).map(|stems| stems.iter().map(finite).collect()).collect();
        ended(&mut stages.istft)?;
        Ok(out)
    }

    /// spec: [b, t, f, c, 2], masks: [b, n, t, f, c, 2] → the stems' spectra in the layout of the inverse, [b, n, c, t, 2 · f].
    fn masked(&self, spec: &Tensor, mut masks: Tensor, rule: MaskRule) -> Result<Tensor> {
        #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
        if let Some(spectra) = cuda::mask_mixture(spec, &masks, rule == MaskRule::Complete, self.zero_dc)? {
            return Ok(spectra);
        }
        if self.zero_dc {
            let freqs = masks.dim(3)?;
            masks = masks.narrow(3, 1, freqs - 1)?.contiguous()?.pad_with_zeros(3, 1, 0)?;
        }
        let part = |x: &Tensor, i: usize| -> Result<Tensor> {
            let last = x.rank() - 1;
            x.narrow(last, i, 1)?.squeeze(last)?.contiguous()
        };
        let mut mask = [part(&masks, 0)?, part(&masks, 1)?];
        drop(masks);
        if rule == MaskRule::Complete {
            mask = complete(mask)?;
        }
        let [re, im] = &mask;
        // [b, 1, t, f, c]
        let (spec_re, spec_im) = (part(spec, 0)?.unsqueeze(1)?, part(spec, 1)?.unsqueeze(1)?);
        let real = (re.broadcast_mul(&spec_re)? - im.broadcast_mul(&spec_im)?)?;
        let imaginary = (re.broadcast_mul(&spec_im)? + im.broadcast_mul(&spec_re)?)?;
        let by_channel = |x: Tensor| x.permute((0, 1, 4, 2, 3))?.contiguous();
        Tensor::cat(&[by_channel(real)?, by_channel(imaginary)?], 4)
    }
}

/// Masks [b, n, …] completed to sum to 1 over the stems: [`MaskRule::Complete`] in candle operations.
#[allow(clippy::eq_op, reason = "x − x tells finite numbers from others, which candle has no operation for")]
fn complete([re, im]: [Tensor; 2]) -> Result<[Tensor; 2]> {
    let finite = ((&re - &re)? + (&im - &im)?)?.eq(0f64)?;
    let zeros = re.zeros_like()?;
    let (re, im) = (finite.where_cond(&re, &zeros)?, finite.where_cond(&im, &zeros)?);
    let power = (re.sqr()? + im.sqr()?)?;
    let total = power.sum_keepdim(1)?;
    let heard = total.gt(f64::from(f32::MIN_POSITIVE))?.broadcast_as(power.shape())?.contiguous()?;
    let even = power.zeros_like()?.affine(0.0, 1.0 / power.dim(1)? as f64)?;
    let weight = heard.where_cond(&power.broadcast_div(&total)?, &even)?;
    let rest_re = re.sum_keepdim(1)?.affine(-1.0, 1.0)?;
    let rest_im = im.sum_keepdim(1)?.neg()?;
    Ok([(re + weight.broadcast_mul(&rest_re)?)?, (im + weight.broadcast_mul(&rest_im)?)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::snr_db;
    use crate::model::device::DeviceChoice;
    use crate::model::precision::Precision;
    use crate::separator::{ModelSpec, Runtime, SeparateError, Separator};

    fn small() -> Architecture {
        let mut arch = Architecture::reference_default();
        arch.dim = 32;
        arch.depth = 2;
        arch.heads = 2;
        arch.dim_head = 16;
        arch.ff_inner = 48;
        arch.mask_hidden = 24;
        arch.num_stems = 3;
        arch.stft.n_fft = 128;
        arch.stft.hop_length = 30;
        arch.stft.win_length = 128;
        arch.bands = vec![(0..4).collect(), (4..8).collect(), (8..30).collect(), (30..65).collect()];
        arch
    }

    fn separator(arch: &Architecture, as_on_gpu: bool, precision: Precision) -> Separator {
        let runtime =
            Runtime { device: DeviceChoice::Cpu, threads: 1, precision, as_on_gpu, ..Runtime::default() };
        Separator::random(ModelSpec::random("test", arch.clone(), 2000), 5, runtime).unwrap()
    }

    fn chunk(samples: usize, seed: usize) -> Vec<f32> {
        (0..samples).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    #[test]
    fn device_pipeline_matches_the_host() {
        let stereo = small();
        let mono = Architecture { channels: 1, ..small() };
        let no_dc = Architecture { zero_dc: true, ..small() };
        // Shared and unowned bins.
        let mel = Architecture {
            bands: vec![(1..6).collect(), (4..9).collect(), (8..40).collect(), (30..60).collect()],
            ..small()
        };
        for (name, arch) in [("stereo", stereo), ("mono", mono), ("zero DC", no_dc), ("mel", mel)] {
            let mut host = separator(&arch, false, Precision::F32);
            let mut device = separator(&arch, true, Precision::F32);
            assert!(device.kernel().contains("candle"));
            for (samples, batch) in [(2000, 1), (1501, 3), (65, 2)] {
                let chunks: Vec<_> = (0..batch).map(|seed| chunk(arch.channels * samples, seed)).collect();
                let views: Vec<&[f32]> = chunks.iter().map(Vec::as_slice).collect();
                for rule in [MaskRule::Plain, MaskRule::Complete] {
                    let expected = host.separate(&views, rule).unwrap();
                    let snr = snr_db(
                        expected.iter().flatten(),
                        device.separate(&views, rule).unwrap().iter().flatten(),
                    );
                    assert!(snr > 100.0, "{name}, {samples} samples, batch {batch}, {rule:?}: {snr:.1} dB");
                }
            }
        }
    }

    #[cfg(any(feature = "cuda", target_os = "linux"))]
    #[test]
    fn device_pipeline_with_cuda_kernels_matches_candle() {
        use crate::model::weights::seeded;

        for device in cuda::tests::devices() {
            for arch in [small(), Architecture { zero_dc: true, ..small() }] {
                let network = Roformer::new(&arch, seeded(5, &device)).unwrap();
                let mut on_device = DevicePipeline::new(&arch, &device).unwrap();
                let chunks = [chunk(2 * 701, 1), chunk(2 * 701, 2)];
                let views: Vec<&[f32]> = chunks.iter().map(Vec::as_slice).collect();
                for rule in [MaskRule::Plain, MaskRule::Complete] {
                    let mut stages = StageTimes::default();
                    let mut stems =
                        || on_device.separate(&network, &views, 701, rule, &(), &mut stages).unwrap();
                    let expected = stems();
                    let (found, kernels) = cuda::tests::with_kernels(stems);
                    assert!(kernels.contains("mask_mixture"), "{kernels:?}");
                    let snr = snr_db(expected.iter().flatten(), found.iter().flatten());
                    assert!(snr > 100.0, "{rule:?}: {snr:.1} dB");
                }
            }
        }
    }

    #[test]
    fn completed_stems_sum_to_the_mixture_and_stay_finite() {
        let mut device = separator(&small(), true, Precision::F32);
        let mut mixture = chunk(4000, 1);
        let stems = device.separate(&[&mixture], MaskRule::Complete).unwrap().remove(0);
        let sum: Vec<f32> = (0..4000).map(|i| stems[i] + stems[4000 + i] + stems[8000 + i]).collect();
        assert!(snr_db(&mixture, &sum) > 100.0);
        mixture[1000] = f32::NAN;
        let stems = device.separate(&[&mixture], MaskRule::Complete).unwrap().remove(0);
        assert!(stems.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn half_precision_stays_near_f32() {
        for arch in [small(), Architecture { dim_head: 32, skip_connection: true, ..small() }] {
            let mixture = chunk(4000, 1);
            let exact =
                separator(&arch, true, Precision::F32).separate(&[&mixture], MaskRule::Plain).unwrap();
            for (precision, least, most) in [(Precision::F16, 55.0, 90.0), (Precision::Bf16, 38.0, 70.0)] {
                let found = separator(&arch, true, precision).separate(&[&mixture], MaskRule::Plain).unwrap();
                let snr = snr_db(exact.iter().flatten(), found.iter().flatten());
                // A higher SNR would mean that half precision was not used.
                assert!((least..most).contains(&snr), "{precision}: {snr:.1} dB");
            }
        }
    }

    #[test]
    fn out_of_memory_halves_the_batch_then_fails() {
        let chunks: Vec<_> = (0..7).map(|seed| chunk(4000, seed)).collect();
        let views: Vec<&[f32]> = chunks.iter().map(Vec::as_slice).collect();
        let mut roomy = separator(&small(), true, Precision::F32);
        let expected = roomy.separate(&views, MaskRule::Plain).unwrap();
        let mut tight = separator(&small(), true, Precision::F32);
        tight.simulate_out_of_memory_at(3 * 2000);
        assert!(
            snr_db(
                expected.iter().flatten(),
                tight.separate(&views, MaskRule::Plain).unwrap().iter().flatten()
            ) > 100.0
        );
        // A batch of seven fails, then three; the size that fits is remembered.
        assert!((2000..6000).contains(&tight.most_samples), "{}", tight.most_samples);
        tight.simulate_out_of_memory_at(2000);
        let error = tight.separate(&views, MaskRule::Plain).unwrap_err();
        assert!(matches!(error, SeparateError::OutOfMemory { samples: 2000, .. }), "{error}");
        assert!(error.to_string().contains("try a shorter chunk"), "{error}");
        // Chunks of less than a second are not tried.
        assert_eq!(tight.chunk_that_fits(2000), None);
        assert_eq!(tight.chunk_that_fits(1000), Some(1000));
    }

    #[test]
    fn other_errors_are_not_out_of_memory() {
        assert!(is_out_of_memory(&Error::Msg("CUBLAS_STATUS_ALLOC_FAILED".into())));
        assert!(!is_out_of_memory(&Error::Msg("CUDA_ERROR_ILLEGAL_ADDRESS".into())));
    }
}
