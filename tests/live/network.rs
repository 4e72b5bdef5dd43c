//! A real network in the stream: small, with random weights.

use std::time::Duration;

use nullsum::dsp::stft::StftConfig;
use nullsum::live::{
    ModelSamples, Scheduler, SharedModel, Stream, WindowSeparator, measure, offline_reference,
};
use nullsum::model::architecture::{
    Architecture, ConformerSizes, Family, HyperAceSizes, HyperAceVersion, MaskKind, Position,
};
use nullsum::model::context::kept_context_unsupported;
use nullsum::model::device::DeviceChoice;
use nullsum::separator::{MaskRule, ModelSpec, Separator};

use crate::support::*;
use crate::threads::in_threads;

pub fn network(stems: usize) -> Separator {
    network_on(stems, DeviceChoice::Cpu.into())
}

fn network_on(stems: usize, runtime: nullsum::separator::Runtime) -> Separator {
    network_of(architecture(stems), runtime)
}

fn architecture(stems: usize) -> Architecture {
    Architecture {
        family: Family::BsRoformer,
        dim: 8,
        depth: 1,
        linear_transformer_depth: 0,
        time_transformer_depth: 1,
        freq_transformer_depth: 1,
        transformer_indices: [0, 0, 1],
        heads: 1,
        dim_head: 8,
        ff_inner: 16,
        channels: 2,
        num_stems: stems,
        bands: vec![(0..20).collect(), (20..200).collect(), (200..1025).collect()],
        mask_linears: 2,
        mask_hidden: 16,
        stft: StftConfig { n_fft: 2048, hop_length: 441, win_length: 2048, normalized: false },
        zero_dc: false,
        skip_connection: false,
        position: Position::Rotary,
        value_residual: None,
        hyper_connections: None,
        branch_names: false,
        masks: MaskKind::Mlp,
        attention_biases: false,
        experimental_residuals: false,
        siamese: false,
        conformer: None,
    }
}

fn network_of(architecture: Architecture, runtime: nullsum::separator::Runtime) -> Separator {
    let stems = architecture.num_stems;
    let mut info = ModelSpec::random("tiny", architecture, 88_200);
    info.complement = (stems == 1).then(|| "rest".into());
    Separator::random(info, 7, runtime).unwrap()
}

#[test]
fn a_render_equals_the_reference_and_its_stems_sum_to_the_song() {
    let _threads = in_threads();
    // A model with a single stem also provides the complement.
    for stems in [1, 3] {
        let network = || network_of(architecture(stems), DeviceChoice::Cpu.into());
        assert_render_equals_reference(&network, stems.max(2));
    }
}

/// Their streams repeat whole windows.
#[test]
fn conformers_and_hyperace_play_live() {
    let _threads = in_threads();
    let conformer = ConformerSizes { conv_channels: 16, conv_kernel: 7, linear_ff_inner: 0 };
    let head = |version| {
        MaskKind::HyperAce(HyperAceSizes {
            version,
            stem: 4,
            channels: [16, 12, 16, 20],
            depths: [1, 2, 2, 1],
            hyperedges: 3,
            high_order: 2,
            low_order: 1,
            out_channels: 4,
            band_strides: false,
        })
    };
    for (conformer, masks) in [
        (Some(conformer), MaskKind::Mlp),
        (None, head(HyperAceVersion::V1)),
        (None, head(HyperAceVersion::V2)),
    ] {
        let architecture = Architecture { conformer, masks, ..architecture(2) };
        assert!(kept_context_unsupported(&architecture).is_some());
        let network = || network_of(architecture.clone(), DeviceChoice::Cpu.into());
        assert_render_equals_reference(&network, 2);
    }
}

/// Plays a song and compares it with the same windows offline. `out_stems`: those of the network.
fn assert_render_equals_reference(network: &dyn Fn() -> Separator, out_stems: usize) {
    let scheduler = Scheduler::new().unwrap();
    let plan = plan(44_100, 512);
    let song = vec![noise_24(1, 9_000, 0.4), noise_24(2, 9_000, 0.4)];
    assert_eq!(network().stems(), out_stems);
    let expected = offline_reference(&plan, &mut network(), MaskRule::Complete, &song).unwrap();
    let latency = plan.latency().len();
    let input: Vec<_> = song.iter().map(|plane| with_tail(plane, latency as u64)).collect();
    let (mut client, stream) = Stream::open(&plan, out_stems, 2, &scheduler);
    client.set_carrier(None);
    let model = SharedModel::new(Box::new(network()));
    assert!(measure(&model, ModelSamples(2_205), 1, &|| false).unwrap().seconds > 0.0);
    stream.swap(Some(model)).unwrap();
    let out = feed(&input, out_stems, &mut random_blocks(3, 512), &mut |main, buses| {
        client.process_blocking(main, buses, Duration::from_secs(60)).unwrap();
    });
    for (got, expected) in out.stems.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!(bits(&got[latency..]), bits(expected));
    }
    for c in 0..2 {
        let worst = (0..9_000)
            .map(|i| (song[c][i] - out.stems.iter().map(|stem| stem[c][latency + i]).sum::<f32>()).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-5, "{out_stems} stems: {worst}");
    }
}

#[test]
fn a_pass_ends_at_the_layer_where_it_is_cancelled() {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nullsum::separator::{Runtime, SeparateError};
    // On the fused kernels, and on candle by both ways.
    let mixture = noise(1, 2 * 8_820, 0.5);
    for as_on_gpu in [false, true] {
        let asked = AtomicUsize::new(0);
        let mut separator = network_on(3, Runtime { as_on_gpu, ..Runtime::default() });
        let stop_at = |layer: usize| {
            move |asked: &AtomicUsize| {
                let last = asked.fetch_add(1, Ordering::SeqCst) + 1 == layer;
                if last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        };
        let never = || stop_at(usize::MAX)(&asked);
        let whole = separator.separate_controlled(&[&mixture], MaskRule::Complete, &never).unwrap();
        let layers = asked.swap(0, Ordering::SeqCst);
        // Two transformers at least.
        assert!(layers >= 2, "{layers}");
        for layer in 1..=layers {
            let control = || stop_at(layer)(&asked);
            let error = separator.separate_controlled(&[&mixture], MaskRule::Complete, &control).unwrap_err();
            assert!(matches!(error, SeparateError::Cancelled), "{error}");
            assert_eq!(asked.swap(0, Ordering::SeqCst), layer);
        }
        // It leaves nothing behind.
        assert_eq!(separator.separate(&[&mixture], MaskRule::Complete).unwrap(), whole);
    }
}
