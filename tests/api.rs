//! The public interface at the crate's root: results in memory and in files agree, examples run, errors explain themselves.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::ops::ControlFlow;
use std::path::Path;

use nullsum::{
    Audio, Error, LiveOptions, LiveStream, LosslessMode, Model, ModelOptions, Options, SampleFormat,
};

#[allow(dead_code, reason = "main is only called in the example itself")]
#[path = "../examples/inspect_checkpoint.rs"]
mod inspect_checkpoint;
#[allow(dead_code, reason = "main is only called in the example itself")]
#[path = "../examples/live_stream.rs"]
mod live_stream;
#[allow(dead_code, reason = "main is only called in the example itself")]
#[path = "../examples/separate_file.rs"]
mod separate_file;
#[allow(dead_code, reason = "main is only called in the example itself")]
#[path = "../examples/separate_in_memory.rs"]
mod separate_in_memory;

/// A chord with noise on the grid of 24-bit samples.
fn mixture(samples: usize, channels: usize, rate: u32) -> Audio {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state) / f64::from(u32::MAX) - 0.5
    };
    let mut channel = |shift: usize| -> Vec<f32> {
        let sample = |n: usize| 0.4 * ((n + shift) as f64 * 0.03).sin() + 0.2 * noise();
        (0..samples).map(sample).map(|x| ((x * 8_388_608.0).round() / 8_388_608.0) as f32).collect()
    };
    Audio::new((0..channels).map(|c| channel(100 * c)).collect(), rate).unwrap()
}

fn float_files() -> Options {
    Options { format: Some(SampleFormat::Float32), ..Options::default() }
}

#[test]
fn stems_in_memory_are_those_in_files_and_sum_to_the_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::embedded().unwrap();
    for (channels, rate, options) in [
        (2, 44_100, Options::default()),
        (1, 48_000, Options { lossless: LosslessMode::Hybrid, ..Options::default() }),
        (3, 22_050, Options { lossless: LosslessMode::Off, normalize: Some(true), ..Options::default() }),
    ] {
        let song = folder.path().join("song.wav");
        let audio = mixture(rate as usize + 123, channels, rate);
        audio.write_wav(&song).unwrap();
        let stems = model.separate_with(&audio, &options, |_| ControlFlow::Continue(())).unwrap();
        let options = Options { format: float_files().format, ..options };
        let report = model.separate_file(&song, folder.path(), &options).unwrap();
        assert_eq!((report.files.len(), stems.len()), (4, 4));
        for ((name, audio), file) in stems.iter().zip(&report.files) {
            assert!(file.display().to_string().contains(name), "{name}: {}", file.display());
            assert_eq!(*audio, Audio::open(file).unwrap(), "{name} of {channels} channels at {rate} Hz");
        }
        assert_eq!(stems.null_dbfs(), report.null_dbfs);
        let lossless = options.lossless != LosslessMode::Off;
        assert_eq!(stems.null_dbfs() == f64::NEG_INFINITY, lossless);
        assert_eq!(stems.get("VOCALS"), stems.get("vocals"));
    }
}

#[test]
fn examples_run() {
    assert!(separate_in_memory::run().unwrap());
    assert!(live_stream::run().unwrap() > 0.01);
    let folder = tempfile::tempdir().unwrap();
    let song = folder.path().join("song.wav");
    mixture(30_000, 2, 44_100).write_wav(&song).unwrap();
    let files = separate_file::run(&song, &folder.path().join("stems"), None).unwrap();
    assert_eq!(files.len(), 4);
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/nullsum-preview.safetensors");
    assert!(inspect_checkpoint::run(&weights, None).unwrap());
}

#[test]
fn a_live_stream_at_unity_gain_is_the_delayed_input() {
    let options = LiveOptions { max_block: 500, ..LiveOptions::default() };
    let mut stream = LiveStream::open(Model::embedded().unwrap(), &options).unwrap();
    let latency = stream.latency_samples() as usize;
    let input = mixture(latency + 20_000, 2, 48_000).into_channels();
    let mut output = input.clone();
    let [left, right] = output.as_mut_slice() else { panic!("two channels") };
    for (left, right) in left.chunks_mut(500).zip(right.chunks_mut(500)) {
        stream.process(&mut [left, right]);
    }
    for (input, output) in input.iter().zip(&output) {
        assert!(output[..latency].iter().all(|x| *x == 0.0));
        assert_eq!(output[latency..], input[..input.len() - latency]);
    }
}

#[test]
fn errors_name_the_file_or_the_lengths() {
    let error = Model::open("/nowhere/model.ckpt").unwrap_err();
    assert!(
        matches!(error, Error::OpenModel(_)) && error.to_string().contains("/nowhere/model.ckpt"),
        "{error}"
    );
    let options = ModelOptions { config: Some("/nowhere/model.yaml".into()), ..ModelOptions::default() };
    let error = Model::embedded_with(&options).unwrap_err();
    assert!(error.to_string().contains("/nowhere/model.yaml"), "{error}");
    let error = Audio::new(vec![vec![0.0; 2], vec![0.0; 3]], 44_100).unwrap_err();
    assert!(error.to_string().contains("[2, 3]"), "{error}");
    assert!(matches!(Audio::new(Vec::new(), 44_100), Err(Error::ChannelLengths { .. })));
    let error = Audio::open("/nowhere/song.wav").unwrap_err();
    assert!(matches!(error, Error::Audio(_)) && error.to_string().contains("song.wav"), "{error}");
    let mut model = Model::embedded().unwrap();
    let cancelled =
        model.separate_with(&mixture(400_000, 1, 44_100), &Options::default(), |_| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    let overlap = Options { overlap: Some(0.0), ..Options::default() };
    assert!(matches!(
        model.separate_with(&mixture(10, 1, 44_100), &overlap, |_| ControlFlow::Continue(())),
        Err(Error::Separate(_))
    ));
    let odd_rate = LiveOptions { sample_rate: 1_000, ..LiveOptions::default() };
    assert!(matches!(LiveStream::open(model, &odd_rate), Err(Error::Live(_))));
}
