//! The fused CPU kernels against the candle definition, same weights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "kernels/targets.rs"]
mod targets;

use candle_core::{Device, Tensor};
use nullsum::dsp::snr_db;
use nullsum::kernels::{Format, Pool};
use nullsum::model::architecture::{Architecture, ConformerSizes, Family, Position};
use nullsum::model::bands::mel_bands;
use nullsum::model::fused::{FusedRoformer, unsupported_feature};
use nullsum::model::roformer::Roformer;
use nullsum::model::weights;
use targets::targets;

fn small() -> Architecture {
    let mut arch = Architecture::reference_default();
    arch.dim = 24;
    arch.depth = 2;
    arch.heads = 3;
    arch.dim_head = 6;
    arch.ff_inner = 40;
    arch.mask_hidden = 20;
    arch.num_stems = 2;
    arch.stft.n_fft = 64;
    arch.stft.hop_length = 16;
    arch.stft.win_length = 64;
    arch.bands = vec![(0..3).collect(), (3..14).collect(), (14..33).collect()];
    arch
}

fn compare(name: &str, arch: &Architecture, frames: usize, batch: usize) {
    assert_eq!(unsupported_feature(arch), None, "{name}");
    let spec: Vec<f32> = (0..batch * frames * arch.frame_features())
        .map(|i| ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 2.0)
        .collect();
    let reference = Roformer::new(arch, weights::seeded(3, &Device::Cpu)).unwrap();
    let tensor = Tensor::from_slice(&spec, (batch, frames, arch.frame_features()), &Device::Cpu).unwrap();
    let expected: Vec<f32> = reference.forward(&tensor).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert!(expected.iter().any(|x| x.abs() > 1e-3), "{name}: the reference is silent");
    for target in targets() {
        let pool = Pool::new(2).unwrap();
        let vb = || weights::seeded(3, &Device::Cpu);
        let mut fused = FusedRoformer::new(arch, vb(), target, pool.clone()).unwrap();
        let masks = fused.forward(&spec, batch).unwrap();
        if batch == 1 {
            let forward_layerwise =
                FusedRoformer::forward_layerwise(arch, vb(), target, &pool, &spec).unwrap();
            assert!(
                forward_layerwise.iter().map(|x| x.to_bits()).eq(masks.iter().map(|x| x.to_bits())),
                "{name}, {target}"
            );
        }
        let snr = snr_db(&expected, &masks);
        let limit = match target.format {
            Format::F32 => 100.0,
            Format::Bf16 => 38.0,
            Format::Int8 => 26.0,
        };
        assert!(snr > limit, "{name}, {target}, {frames} frames, batch {batch}: {snr:.1} dB");
    }
}

#[test]
fn fused_masks_equal_candle_masks() {
    let bs = small();
    compare("BS", &bs, 33, 1);
    compare("BS, one frame", &bs, 1, 1);
    compare("BS, batch", &bs, 17, 3);
    compare(
        "several blocks",
        &Architecture { time_transformer_depth: 2, freq_transformer_depth: 3, ..bs.clone() },
        19,
        1,
    );
    compare("skip connection", &Architecture { skip_connection: true, depth: 4, ..bs.clone() }, 21, 2);
    compare("mono, one Linear", &Architecture { channels: 1, mask_linears: 1, ..bs.clone() }, 20, 1);
    compare("three Linears", &Architecture { mask_linears: 3, ..bs.clone() }, 20, 1);
    let range = Architecture { bands: vec![(2..9).collect(), (9..30).collect()], ..bs.clone() };
    compare("frequency range", &range, 20, 1);
    let mut mel = Architecture { family: Family::MelBandRoformer, ..bs };
    mel.stft.n_fft = 512;
    mel.stft.win_length = 512;
    mel.bands = mel_bands(44_100, 512, 12);
    mel.mask_linears = 3;
    compare("Mel-Band", &mel, 23, 1);
    compare("Mel-Band, batch and skip", &Architecture { skip_connection: true, ..mel }, 23, 2);
}

#[test]
fn unsupported_features_are_named() {
    let arch = Architecture { position: Position::Polar, ..small() };
    assert_eq!(unsupported_feature(&arch), Some("PoPE"));
    let arch = Architecture { linear_transformer_depth: 1, ..small() };
    assert_eq!(unsupported_feature(&arch), Some("linear attention"));
    let sizes = ConformerSizes { conv_channels: 8, conv_kernel: 3, linear_ff_inner: 0 };
    let arch = Architecture { conformer: Some(sizes), ..small() };
    assert_eq!(unsupported_feature(&arch), Some("Conformer blocks"));
}
